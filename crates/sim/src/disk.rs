//! A host's disk: what is durable, what a crash may take away, and how long a sync takes.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel_consensus::log::{Record, Snapshot};
use evenkeel_consensus::replica::Persist;
use evenkeel_consensus::restore::Restored;
use evenkeel_model::random::Rng;

use crate::agreement::hash;

/// The longest write: a fault must end soon after everything has healed.
const WRITE_MAX: Duration = Duration::from_millis(700);

/// A disk that outlives its host's crashes.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Records that no crash takes away.
    durable: Vec<Frame>,
    /// Records that were written, but not synced.
    unsynced: VecDeque<Frame>,
    /// Snapshots that no crash takes away, by index.
    snapshots: Vec<(u64, Vec<u8>)>,
    /// What is being written.
    under_way: Option<Write>,
    /// What waits behind it.
    waiting: VecDeque<Persist>,
    /// The member's own snapshot that is being written.
    saving: Option<Snapshot>,
    /// The term of the last vote that was handed over.
    term: u64,
    /// How much longer a sync takes than usual.
    pub(crate) slowness: u64,
    /// Whether there is no room for changes; what votes need is kept free.
    pub(crate) full: bool,
    /// Whether this is a new disk in place of one that was lost, and not yet filled.
    rejoining: bool,
}

/// A record with its checksum.
#[derive(Debug, Clone)]
struct Frame {
    bytes: Vec<u8>,
    sum: u64,
}

impl Frame {
    fn new(bytes: Vec<u8>) -> Self {
        let sum = hash(&bytes);
        Self { bytes, sum }
    }

    /// Returns whether all of it has reached the disk.
    fn is_whole(&self) -> bool {
        hash(&self.bytes) == self.sum
    }

    /// Keeps a part of it only, or nothing.
    fn torn(mut self) -> Option<Self> {
        let part = usize::try_from(self.sum >> 1).unwrap_or(0) % self.bytes.len().max(1);
        self.bytes.truncate(part);
        (self.sum & 1 == 0).then_some(self)
    }
}

#[derive(Debug)]
struct Write {
    last: u64,
    snapshot: Option<Snapshot>,
    records: Vec<Frame>,
    sync: bool,
    /// Whether it brings a new term, most often with a vote.
    new_term: bool,
}

/// A write that is durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) number: u64,
    /// Whether it brought a new term, most often with a vote: a good moment for a crash.
    pub(crate) voted: bool,
}

impl Disk {
    pub(crate) fn push(&mut self, persist: Persist) {
        self.waiting.push_back(persist);
    }

    /// Begins to write what waits, unless something is being written; returns how long it takes.
    pub(crate) fn begin(&mut self, rng: &mut Rng) -> Option<Duration> {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return None;
        }
        let mut write =
            Write { last: 0, snapshot: None, records: Vec::new(), sync: false, new_term: false };
        // As many as come until a snapshot: that is written by itself, before its records.
        while let Some(persist) =
            self.waiting.pop_front_if(|next| write.last == 0 || next.snapshot.is_none())
        {
            write.last = persist.number;
            write.sync |= persist.must_sync;
            if let Some(vote) = persist.vote {
                write.new_term |= vote.term != self.term;
                self.term = vote.term;
            }
            write.records.extend(persist.records().map(|record| Frame::new(record.encode())));
            if persist.snapshot.is_some() {
                write.snapshot = persist.snapshot;
            }
        }
        let micros = if write.sync { 50 + rng.below(950) } else { rng.below(50) };
        let stall = if rng.chance(1, 200) { 50 } else { 1 };
        self.under_way = Some(write);
        Some(Duration::from_micros(micros * stall * self.slowness.max(1)).min(WRITE_MAX))
    }

    /// Ends what is being written.
    pub(crate) fn finish(&mut self) -> Option<Written> {
        let write = self.under_way.take()?;
        if let Some(snapshot) = &write.snapshot {
            self.keep_snapshot(snapshot);
        }
        self.unsynced.extend(write.records);
        if write.sync {
            self.durable.extend(self.unsynced.drain(..));
        }
        Some(Written { number: write.last, voted: write.new_term })
    }

    pub(crate) fn begin_save(&mut self, snapshot: Snapshot, rng: &mut Rng) -> Duration {
        self.saving = Some(snapshot);
        Duration::from_micros((500 + rng.below(20_000)) * self.slowness.max(1)).min(WRITE_MAX)
    }

    pub(crate) fn finish_save(&mut self) -> Option<u64> {
        let snapshot = self.saving.take()?;
        self.keep_snapshot(&snapshot);
        Some(snapshot.index)
    }

    fn keep_snapshot(&mut self, snapshot: &Snapshot) {
        self.snapshots.push((snapshot.index, snapshot.encode()));
        self.snapshots.sort_unstable_by_key(|(index, _)| *index);
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
    }

    /// Drops the beginning of the log, as far as a snapshot holds it; the last vote stays.
    pub(crate) fn compact(&mut self, through: u64) {
        let decode = |record: &Frame| Record::decode(&record.bytes).ok();
        let needed = |record: &Frame| match decode(record) {
            Some(Record::Entry(entry)) => entry.index > through,
            Some(Record::Reset { .. } | Record::Vote(_)) | None => false,
        };
        let end = self.durable.iter().position(needed).unwrap_or(self.durable.len());
        let is_vote = |record: &Frame| matches!(decode(record), Some(Record::Vote(_)));
        let vote = self.durable[..end].iter().rfind(|record| is_vote(record)).cloned();
        self.durable.drain(..end);
        self.durable.splice(0..0, vote);
    }

    /// Loses power: of what was not synced, any beginning may have reached the disk, and a part of
    /// the record behind it.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let mut exposed: Vec<Frame> = self.unsynced.drain(..).collect();
        if let Some(write) = self.under_way.take() {
            match write.snapshot {
                // The file comes first; without it, nothing behind it was begun.
                Some(snapshot) if rng.chance(1, 2) => {
                    self.keep_snapshot(&snapshot);
                    exposed.extend(write.records);
                }
                Some(_) => {}
                None => exposed.extend(write.records),
            }
        }
        let kept = rng.index(exposed.len() + 1);
        let torn = exposed.drain(kept..).next().and_then(Frame::torn);
        self.durable.extend(exposed.into_iter().chain(torn));
        self.waiting.clear();
        if let Some(snapshot) = self.saving.take()
            && rng.chance(1, 2)
        {
            self.keep_snapshot(&snapshot);
        }
    }

    /// Returns an empty disk in place of one that was lost with all that it held.
    pub(crate) fn replacement() -> Self {
        Self { rejoining: true, ..Self::default() }
    }

    pub(crate) const fn is_rejoining(&self) -> bool {
        self.rejoining
    }

    /// Holds all again that was committed.
    pub(crate) const fn rejoined(&mut self) {
        self.rejoining = false;
    }

    /// Reads everything back. An incomplete last record is cut off; any other is damage.
    pub(crate) fn restore(&mut self) -> Result<Restored, String> {
        let mut restored = Restored { rejoining: self.rejoining, ..Restored::default() };
        self.durable.pop_if(|last| !last.is_whole());
        for record in &self.durable {
            if !record.is_whole() {
                return Err("a record inside of the log is damaged".to_owned());
            }
            if let Ok(record) = Record::decode(&record.bytes) {
                restored.replay(record).map_err(|error| error.to_string())?;
            }
        }
        restored.snapshot =
            self.snapshots.last().and_then(|(_, bytes)| Snapshot::decode(bytes.clone()).ok());
        Ok(restored)
    }
}
