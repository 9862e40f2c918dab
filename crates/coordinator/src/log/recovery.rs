//! Reads a log back: what was acknowledged is there again, or the log is refused.
//!
//! Only one kind of damage can come from a crash: the last write of the last segment is incomplete.
//! Some of its sectors are then still zero, which no written one is, and no whole frame follows. That write was never
//! acknowledged and is cut. Anything else means that the disk lost or changed what it had promised
//! to keep; a member that repaired it by itself could take back a vote or an acknowledged entry.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use evenkeel_consensus::log::{DecodeError, Entry, Record, Snapshot, Vote};
use evenkeel_consensus::restore::Restored;

use super::error::OpenError;
use super::frame::{Frame, Parsed, SECTOR, parse};
use super::segment::{self, Header, HeaderError};
use super::snapshot;

/// Entries before the snapshot that are given back, for followers that are a little behind.
const TAIL: usize = 1000;

/// What the log held.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The member's memory.
    pub restored: Restored,
    /// The incomplete last write that is cut off.
    pub cut: Option<Cut>,
}

/// The place of a snapshot that came from the leader, or where the log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reset {
    /// The last entry before the log.
    pub(super) index: u64,
    /// That entry's term.
    pub(super) term: u64,
}

/// An incomplete last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// The bytes that are cut.
    pub bytes: Range<usize>,
}

/// A segment as it was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Its first sector.
    pub(super) header: Header,
    /// Its highest entry, 0 without any.
    pub(super) last_entry: u64,
    /// Where the next frame goes.
    pub(super) end: usize,
}

/// The state of a replay, segment by segment.
struct Replay<'a> {
    folder: &'a Path,
    owner: u64,
    segments: Vec<Found>,
    next_frame: u64,
    vote: Option<Vote>,
    /// What came before the first of `entries`: a snapshot's place, or the log's beginning.
    base: Option<Reset>,
    entries: Vec<Entry>,
    cut: Option<Cut>,
}

/// Where the log goes on.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// The segments in order; the last one is written to.
    pub(super) segments: Vec<Found>,
    /// Number of the next frame.
    pub(super) next_frame: u64,
    /// Must be recorded first: the snapshot took the place of the entries that are there.
    pub(super) reset: Option<Reset>,
}

/// Reads snapshots and segments. Changes nothing.
pub(super) fn recover(folder: &Path, owner: u64) -> Result<(Recovered, Position), OpenError> {
    let io = |source| OpenError::Io { step: "list", path: folder.to_owned(), source };
    let numbers = segment::list(folder).map_err(io)?;
    let snapshots = snapshot::list(folder).map_err(io)?;
    let mut replay = Replay {
        folder,
        owner,
        segments: Vec::new(),
        next_frame: 1,
        vote: None,
        base: None,
        entries: Vec::new(),
        cut: None,
    };
    if let (None, Some(_)) = (numbers.first(), snapshots.first()) {
        return Err(OpenError::SegmentMissing { path: segment::path(folder, 1) });
    }
    for number in numbers.first().copied().unwrap_or(0)..=numbers.last().copied().unwrap_or(0) {
        if number > 0 {
            replay.read_segment(number, Some(&number) == numbers.last())?;
        }
    }
    let snapshot = replay.load_snapshot(&snapshots)?;
    replay.finish(snapshot)
}

impl Replay<'_> {
    fn read_segment(&mut self, number: u64, last: bool) -> Result<(), OpenError> {
        let path = segment::path(self.folder, number);
        let bytes = fs::read(&path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                OpenError::SegmentMissing { path: path.clone() }
            } else {
                OpenError::Io { step: "read", path: path.clone(), source }
            }
        })?;
        let damaged = |offset, what| OpenError::SegmentDamaged { path: path.clone(), offset, what };
        let header = Header::decode(&bytes).map_err(|error| match error {
            HeaderError::Damaged => damaged(0, "its first sector is not what was written"),
            HeaderError::Format(format) => {
                OpenError::Format { path: path.clone(), format, known: segment::FORMAT }
            }
        })?;
        if header.owner != self.owner {
            return Err(OpenError::Foreign { path });
        }
        if self.segments.is_empty() {
            self.next_frame = header.first_frame;
        }
        if header.segment != number || header.first_frame != self.next_frame {
            return Err(damaged(0, "it does not follow the segment before it"));
        }
        let mut found = Found { header, last_entry: 0, end: SECTOR };
        while let Parsed::Frame(frame) = parse(bytes.get(found.end..).unwrap_or(&[]), header.salt) {
            if frame.number != self.next_frame {
                return Err(damaged(found.end, "a write before it is missing"));
            }
            self.apply(&frame, &mut found).map_err(|what| damaged(found.end, what))?;
            self.next_frame += 1;
            found.end += frame.size;
        }
        self.check_tail(&bytes, &found, last).map_err(|what| damaged(found.end, what))?;
        self.segments.push(found);
        Ok(())
    }

    /// Decides about what follows the last whole frame.
    fn check_tail(&mut self, bytes: &[u8], found: &Found, last: bool) -> Result<(), &'static str> {
        let tail = bytes.get(found.end..).unwrap_or(&[]);
        let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used == 0 {
            return Ok(());
        }
        if !last {
            return Err("a write is missing, although later ones are there");
        }
        let whole_frame_follows = (1..used.div_ceil(SECTOR)).any(|sector| {
            matches!(parse(&tail[sector * SECTOR..], found.header.salt), Parsed::Frame(_))
        });
        if whole_frame_follows {
            return Err("a write is broken, although a later one is whole");
        }
        let size = match parse(tail, found.header.salt) {
            Parsed::Incomplete(size) => size,
            Parsed::Unknown | Parsed::Frame(_) => SECTOR,
        };
        let written = |sector: &[u8]| sector.iter().any(|byte| *byte != 0);
        if tail.get(..size).is_some_and(|frame| frame.chunks(SECTOR).all(written)) {
            return Err("the last write is all there, but is not what was written");
        }
        let path = segment::path(self.folder, found.header.segment);
        self.cut = Some(Cut { path, bytes: found.end..found.end + used });
        Ok(())
    }

    fn apply(&mut self, frame: &Frame, found: &mut Found) -> Result<(), &'static str> {
        for record in frame.records() {
            let record = record.ok_or("a record is longer than its write")?;
            let record = Record::decode(record).map_err(|error| match error {
                DecodeError::Format { .. } => "a record was written by another version",
                DecodeError::Malformed(_) => "a record is not understood",
            })?;
            match record {
                Record::Vote(vote) => self.vote = Some(vote),
                Record::Reset { index, term } => {
                    self.base = Some(Reset { index, term });
                    self.entries.clear();
                }
                Record::Entry(entry) => {
                    found.last_entry = found.last_entry.max(entry.index);
                    self.apply_entry(entry)?;
                }
            }
        }
        Ok(())
    }

    /// Appends an entry; one that is there already is replaced together with all after it.
    fn apply_entry(&mut self, entry: Entry) -> Result<(), &'static str> {
        let base = self
            .base
            .get_or_insert_with(|| Reset { index: entry.index.saturating_sub(1), term: 0 });
        let place = entry.index.checked_sub(base.index + 1);
        let Some(place) = place.and_then(|place| usize::try_from(place).ok()) else {
            return Err("an entry stands before the log's beginning");
        };
        if place > self.entries.len() {
            return Err("an entry before it is missing");
        }
        self.entries.truncate(place);
        self.entries.push(entry);
        Ok(())
    }

    fn load_snapshot(&self, indices: &[u64]) -> Result<Option<Snapshot>, OpenError> {
        let Some(newest) = indices.last() else { return Ok(None) };
        if let Some(snapshot) = snapshot::load(self.folder, self.owner, *newest)? {
            return Ok(Some(snapshot));
        }
        let begins_after = self.base.map_or(0, |base| base.index);
        let older = indices.iter().rev().nth(1).copied();
        let spare = match older {
            None => begins_after == 0,
            Some(older) => {
                begins_after <= older
                    && snapshot::load(self.folder, self.owner, older)
                        .is_ok_and(|snapshot| snapshot.is_some())
            }
        };
        let reaches = begins_after + self.entries.len() as u64 >= *newest;
        let path = snapshot::path(self.folder, *newest);
        Err(OpenError::SnapshotDamaged { path, spare: spare && reaches })
    }

    fn finish(mut self, snapshot: Option<Snapshot>) -> Result<(Recovered, Position), OpenError> {
        let begins_after = self.base.map_or(0, |base| base.index);
        let held = snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        if begins_after > held {
            let folder = self.folder.to_owned();
            return Err(OpenError::SnapshotMissing { folder, first: begins_after + 1 });
        }
        let covered = usize::try_from(held - begins_after).unwrap_or(usize::MAX);
        // Snapshot and log must agree on the snapshot's last entry. They do not when a crash came
        // between a snapshot from the leader and its record in the log.
        let reset = snapshot.as_ref().and_then(|snapshot| {
            let last = covered.checked_sub(1).map(|last| self.entries.get(last));
            let agrees = match last {
                Some(entry) => entry.is_some_and(|entry| entry.term == snapshot.term),
                None => true,
            };
            (!agrees).then_some(Reset { index: snapshot.index, term: snapshot.term })
        });
        let entries = if reset.is_none() {
            self.entries.split_off(covered.saturating_sub(TAIL))
        } else {
            Vec::new()
        };
        let rejoining = self.folder.join(super::REJOINING).exists();
        let restored = Restored { vote: self.vote, snapshot, entries, rejoining };
        let recovered = Recovered { restored, cut: self.cut };
        let (segments, next_frame) = (self.segments, self.next_frame);
        Ok((recovered, Position { segments, next_frame, reset }))
    }
}
