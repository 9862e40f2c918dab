//! The log's first thread: one write and one sync for everything that waits.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use evenkeel_consensus::log::{Record, Vote};
use evenkeel_consensus::replica::Persist;

use super::frame::{FrameBuilder, SECTOR};
use super::housekeeper::{Chore, Sealed, Stock};
use super::recovery::{Cut, Found, Position, Recovered, Reset};
use super::segment::{self, Header};
use super::{Event, Events, Options, give_up, is_full, snapshot};

/// How long to wait before something that found no space is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A sync that takes longer is worth a line in the log.
const SYNC_SLOW: Duration = Duration::from_millis(500);
/// Bytes from which on a frame waits for nothing more.
const BODY_ENOUGH: usize = 1 << 20;

/// Something to write.
#[derive(Debug)]
pub(super) enum Job {
    Persist(Box<Persist>),
    Close,
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    file: File,
    header: Header,
    last_entry: u64,
    /// Where the next frame goes.
    end: usize,
    size: usize,
}

/// Where the thread gets segments from and what it reports to.
pub(super) struct Outlets {
    pub(super) stock: Arc<Stock>,
    pub(super) events: Events,
    pub(super) chores: mpsc::Sender<Chore>,
}

/// What the thread owns.
pub(super) struct Writer {
    folder: PathBuf,
    owner: u64,
    active: Active,
    next_frame: u64,
    vote: Option<Vote>,
    frame: FrameBuilder,
    /// Highest entry in `frame`.
    frame_last_entry: u64,
    outlets: Outlets,
}

/// The log was closed while a write waited for space. The write is not durable.
struct Closed;

impl Writer {
    /// Goes on where the log ends, or begins one.
    pub(super) fn open(
        options: &Options,
        position: Position,
        recovered: &Recovered,
        outlets: Outlets,
    ) -> io::Result<Self> {
        let folder = options.folder.clone();
        snapshot::remove_unfinished(&folder)?;
        let mut segments = position.segments;
        let active = match segments.pop() {
            None => {
                segment::make_spare(&folder, options.segment_bytes)?;
                let header = Header::new(1, 1, options.owner);
                Active::new(segment::begin(&folder, &header)?, header)?
            }
            Some(found) => Active::reopen(&folder, found, options, recovered.cut.as_ref())?,
        };
        for Found { header, last_entry, .. } in segments {
            outlets.stock.seal(Sealed { number: header.segment, last_entry });
        }
        let mut writer = Self {
            folder,
            owner: options.owner,
            active,
            next_frame: position.next_frame,
            vote: recovered.restored.vote,
            frame: FrameBuilder::new(),
            frame_last_entry: 0,
            outlets,
        };
        if let Some(Reset { index, term }) = position.reset {
            writer.add_record(&Record::Reset { index, term });
            writer.active.write(&mut writer.frame, writer.next_frame)?;
            writer.next_frame += 1;
            writer.frame.clear();
        }
        Ok(writer)
    }

    pub(super) fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut last_number = None;
            let (mut must_sync, mut closing) = (false, false);
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Persist(persist) => {
                        last_number = Some(persist.number);
                        must_sync |= persist.must_sync || persist.snapshot.is_some();
                        if self.add(&persist).is_err() {
                            return;
                        }
                    }
                    Job::Close => closing = true,
                }
                let full = closing || self.frame.body_length() >= BODY_ENOUGH;
                next = if full { None } else { jobs.try_recv().ok() };
            }
            // How far the log is committed is news that others have too: it goes with the next write
            // that must be durable, and costs none of its own.
            if (must_sync || closing || self.frame.body_length() >= BODY_ENOUGH)
                && self.write().is_err()
            {
                return;
            }
            if let Some(number) = last_number {
                (self.outlets.events)(Event::Persisted { number });
            }
            if closing {
                return;
            }
        }
    }

    fn add(&mut self, persist: &Persist) -> Result<(), Closed> {
        if let Some(snapshot) = &persist.snapshot {
            self.until_space("save a snapshot from the leader", |writer| {
                snapshot::save(&writer.folder, writer.owner, snapshot)
            })?;
        }
        for record in persist.records() {
            self.add_record(&record);
        }
        Ok(())
    }

    fn add_record(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Entry(entry) => {
                self.frame_last_entry = self.frame_last_entry.max(entry.index);
            }
            Record::Reset { .. } => {}
        }
        self.frame.add(&record.encode());
    }

    /// Makes everything that was added durable.
    fn write(&mut self) -> Result<(), Closed> {
        if self.frame.body_length() == 0 {
            return Ok(());
        }
        if self.active.end > SECTOR && self.active.end + self.frame.size() > self.active.size {
            self.begin_segment()?;
        }
        self.until_space("write to the log", |writer| {
            writer.active.write(&mut writer.frame, writer.next_frame)
        })?;
        self.active.last_entry = self.active.last_entry.max(self.frame_last_entry);
        self.next_frame += 1;
        self.frame_last_entry = 0;
        self.frame.clear();
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<(), Closed> {
        if !self.outlets.stock.take_spare() {
            return Err(Closed);
        }
        let number = self.active.header.segment + 1;
        let header = Header::new(number, self.next_frame, self.owner);
        let begun = segment::begin(&self.folder, &header);
        let active = begun.and_then(|file| Active::new(file, header));
        let active = active.unwrap_or_else(|error| give_up("begin a segment of the log", &error));
        let full = std::mem::replace(&mut self.active, active);
        let number = full.header.segment;
        self.outlets.stock.seal(Sealed { number, last_entry: full.last_entry });
        drop(self.outlets.chores.send(Chore::MakeSpare));
        // Each segment repeats the vote, so that no older one is needed for it.
        if let Some(vote) = self.vote {
            self.frame.add(&Record::Vote(vote).encode());
        }
        Ok(())
    }

    /// Tries again while there is no space; any other error ends the process.
    fn until_space(
        &mut self,
        step: &str,
        mut run: impl FnMut(&mut Self) -> io::Result<()>,
    ) -> Result<(), Closed> {
        loop {
            match run(self) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => {
                    tracing::warn!(step, %error, "disk full, trying again");
                    if !self.outlets.stock.pause(RETRY) {
                        return Err(Closed);
                    }
                }
                Err(error) => give_up(step, &error),
            }
        }
    }
}

impl Active {
    fn new(file: File, header: Header) -> io::Result<Self> {
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        Ok(Self { file, header, last_entry: 0, end: SECTOR, size })
    }

    /// Opens the last segment again, and clears what is cut off.
    fn reopen(
        folder: &Path,
        found: Found,
        options: &Options,
        cut: Option<&Cut>,
    ) -> io::Result<Self> {
        let path = segment::path(folder, found.header.segment);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if let Some(Cut { path, bytes }) = cut {
            tracing::warn!(path = %path.display(), ?bytes, "cut an incomplete last write");
            file.write_all_at(&vec![0; bytes.len()], bytes.start as u64)?;
        }
        let length = file.metadata()?.len();
        if length < options.segment_bytes {
            let missing = usize::try_from(options.segment_bytes - length).unwrap_or(0);
            file.write_all_at(&vec![0; missing], length)?;
        }
        file.sync_all()?;
        let active = Self::new(file, found.header)?;
        Ok(Self { last_entry: found.last_entry, end: found.end, ..active })
    }

    fn write(&mut self, frame: &mut FrameBuilder, number: u64) -> io::Result<()> {
        let bytes = frame.finish(number, self.header.salt);
        self.file.write_all_at(bytes, self.end as u64)?;
        let begun = Instant::now();
        if let Err(error) = self.file.sync_data() {
            give_up("sync the log", &error);
        }
        let took = begun.elapsed();
        if took > SYNC_SLOW {
            tracing::info!(took_ms = took.as_millis(), "a slow disk delays changes");
        }
        self.end += bytes.len();
        Ok(())
    }
}
