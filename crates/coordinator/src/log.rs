//! The durable log: votes, entries and snapshots on disk, written by a thread of its own.
//!
//! Two threads, so that a slow disk delays nothing but what waits for that very write:
//! - the *writer* drains its queue, writes it as one frame, syncs once, and tells
//!   [`Event::Persisted`];
//! - the *housekeeper* saves snapshots, removes what is no longer needed and keeps a spare segment.
//!
//! The spare is the reserve for a full disk: once none can be made, [`Space::Full`] is told and new
//! entries are to be refused, while votes still find room in the segment at hand. When space comes
//! back, the spare is made and all goes on.
//!
//! A failed sync ends the process: the kernel may have dropped the data, and a second sync would
//! say that all is well.

mod error;
mod folder;
mod frame;
mod housekeeper;
mod recovery;
mod segment;
mod snapshot;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use evenkeel_consensus::log::{Snapshot, State};
use evenkeel_consensus::replica::Persist;

pub use error::OpenError;
pub use folder::{Contents, contents, finish_setting_aside, mark_rejoining, set_aside};
pub use recovery::{Cut, Recovered};

use crate::critical;
use housekeeper::{Chore, Housekeeper, Stock};
use writer::{Job, Outlets, Writer};

/// The file in a log's folder that says that its member lost its log and is being filled again.
pub const REJOINING: &str = "rejoining";

/// Where a log is and how large it may grow.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its folder, used for nothing else. Made if missing.
    pub folder: PathBuf,
    /// The member and its system, as a number: files of another owner are refused.
    pub owner: u64,
    /// Size of a segment in bytes, at least [`SEGMENT_MIN`].
    pub segment_bytes: u64,
    /// Most bytes of the folder; a log that needs more acts as on a full disk.
    pub folder_bytes_max: u64,
}

/// Smallest segment in bytes.
pub const SEGMENT_MIN: u64 = 64 << 10;

/// Something that the log has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Everything up to this [`Persist`] is durable.
    Persisted {
        /// Its number.
        number: u64,
    },
    /// The snapshot is durable.
    SnapshotSaved {
        /// Its last entry.
        index: u64,
    },
    /// A snapshot is encoded.
    SnapshotEncoded(Box<Snapshot>),
    /// Whether there is room for new entries has changed.
    Space(Space),
}

/// Whether there is room for new entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// There is.
    Free,
    /// No spare segment can be made. What is left is for votes and for what was under way.
    Full,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    jobs: mpsc::Sender<Job>,
    chores: mpsc::Sender<Chore>,
    threads: Vec<JoinHandle<()>>,
}

/// Receives the log's events, on the log's threads: it must not block.
type Events = Arc<dyn Fn(Event) + Send + Sync>;

impl Log {
    /// Opens the log in a folder, or begins one in an empty folder. An incomplete last write is
    /// cut; any other damage is refused.
    ///
    /// # Errors
    /// The first reason why the log cannot be used; the folder is then as it was.
    pub fn open(
        options: &Options,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<(Self, Recovered), OpenError> {
        let events: Events = Arc::new(events);
        let folder = options.folder.clone();
        fs::create_dir_all(&folder).map_err(|source| OpenError::Io {
            step: "make the folder",
            path: folder.clone(),
            source,
        })?;
        let (recovered, position) = recovery::recover(&folder, options.owner)?;
        let (chores, chore_queue) = mpsc::channel();
        let (jobs, job_queue) = mpsc::channel();
        let stock = Arc::new(Stock::default());
        let outlets = Outlets {
            stock: Arc::clone(&stock),
            events: Arc::clone(&events),
            chores: chores.clone(),
        };
        let writer = Writer::open(options, position, &recovered, outlets)
            .map_err(|source| OpenError::Io { step: "write the log in", path: folder, source })?;
        let housekeeper = Housekeeper::new(options, stock, events);
        let housekeeper =
            spawn("log-housekeeper", move || critical::run(|| housekeeper.run(&chore_queue)))?;
        let writer = spawn("log-writer", move || critical::run_first(|| writer.run(&job_queue)))?;
        Ok((Self { jobs, chores, threads: vec![writer, housekeeper] }, recovered))
    }

    /// Queues a write; told by [`Event::Persisted`].
    pub fn persist(&self, persist: Persist) {
        self.send(Job::Persist(Box::new(persist)));
    }

    /// Queues a snapshot of this member's own state; told by [`Event::SnapshotSaved`]. One that
    /// finds no space is tried again until it does.
    pub fn save_snapshot(&self, state: State) {
        self.chore(Chore::SaveSnapshot(Box::new(state)));
    }

    /// Queues the encoding of a snapshot for other members; told by [`Event::SnapshotEncoded`].
    pub fn encode_snapshot(&self, state: State) {
        self.chore(Chore::EncodeSnapshot(Box::new(state)));
    }

    /// Lets go of entries up to `through`, as far as two snapshots hold them.
    pub fn compact(&self, through: u64) {
        self.chore(Chore::Prune { through });
    }

    /// Notes that a member that began anew holds all again.
    pub fn rejoined(&self) {
        self.chore(Chore::EndRejoining);
    }

    /// Writes what is queued and ends the threads.
    pub fn close(mut self) {
        self.send(Job::Close);
        self.chore(Chore::Close);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }

    /// A thread that is gone has panicked, and `panic` in it has aborted the process.
    fn send(&self, job: Job) {
        drop(self.jobs.send(job));
    }

    fn chore(&self, chore: Chore) {
        drop(self.chores.send(chore));
    }
}

/// Reads the log in a folder. Changes nothing; nobody may be writing to it.
///
/// # Errors
/// The first reason why the log cannot be used.
pub fn read(folder: &Path, owner: u64) -> Result<Recovered, OpenError> {
    recovery::recover(folder, owner).map(|(recovered, _)| recovered)
}

/// Puts a snapshot in the place of all that a folder holds: whoever opens it next goes on from
/// that. Done as a whole or not at all; nobody may be writing to it.
///
/// # Errors
/// What the disk refused.
pub fn replace_by(folder: &Path, owner: u64, snapshot: &Snapshot) -> std::io::Result<()> {
    snapshot::save(folder, owner, snapshot)
}

fn spawn(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 << 10)
        .spawn(run)
        .map_err(|source| OpenError::Io { step: "start a thread for", path: name.into(), source })
}

/// Ends the process after an error of the disk that must not be survived.
fn give_up(step: &str, error: &std::io::Error) -> ! {
    tracing::error!(step, %error, "the disk failed: this process ends, so that it promises nothing it cannot keep");
    std::process::abort();
}

/// Returns whether an error means that there is no room.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
