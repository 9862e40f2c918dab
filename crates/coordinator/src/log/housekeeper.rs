//! The log's second thread: snapshots, removal of what is no longer needed, the spare segment.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_consensus::log::{Snapshot, State};

use super::{Event, Events, Options, REJOINING, Space, give_up, is_full, segment, snapshot};

/// How long to wait before something that found no space is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Something to do when there is time.
#[derive(Debug)]
pub(super) enum Chore {
    /// Save a snapshot of this member's own state.
    SaveSnapshot(Box<State>),
    /// Encode a snapshot for other members.
    EncodeSnapshot(Box<State>),
    /// Entries up to `through` are no longer needed, as far as two snapshots hold them.
    Prune { through: u64 },
    /// The spare was taken.
    MakeSpare,
    /// The member that began anew holds all again.
    EndRejoining,
    /// End.
    Close,
}

/// The segments that are not being written to, shared with the writer.
#[derive(Debug, Default)]
pub(super) struct Stock {
    spare: Mutex<SpareState>,
    changed: Condvar,
    /// Oldest first.
    sealed: Mutex<VecDeque<Sealed>>,
}

/// A segment that is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    pub(super) number: u64,
    /// Its highest entry, 0 without any.
    pub(super) last_entry: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SpareState {
    #[default]
    Missing,
    Ready,
    Closed,
}

impl Stock {
    fn spare(&self) -> MutexGuard<'_, SpareState> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_spare(&self, state: SpareState) {
        *self.spare() = state;
        self.changed.notify_all();
    }

    /// Takes a full segment in.
    pub(super) fn seal(&self, sealed: Sealed) {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).push_back(sealed);
    }

    /// Gives out the oldest segment if it holds nothing after `through`.
    fn pop_sealed(&self, through: u64) -> Option<u64> {
        let mut sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.pop_front_if(|first| first.last_entry <= through).map(|first| first.number)
    }

    /// Waits for the spare; whoever has it must turn it into a segment. `false` if the log is
    /// closed before there is one.
    pub(super) fn take_spare(&self) -> bool {
        let state = self
            .changed
            .wait_while(self.spare(), |state| *state == SpareState::Missing)
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = state;
        let ready = *state == SpareState::Ready;
        if ready {
            *state = SpareState::Missing;
        }
        ready
    }

    /// Waits for `pause`, at most until the log is closed. Returns whether it is still open.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.spare(), pause, |state| *state != SpareState::Closed)
            .unwrap_or_else(PoisonError::into_inner);
        *state != SpareState::Closed
    }
}

/// What the thread owns.
pub(super) struct Housekeeper {
    folder: PathBuf,
    owner: u64,
    segment_bytes: u64,
    folder_bytes_max: u64,
    stock: Arc<Stock>,
    events: Events,
    space: Space,
    /// A snapshot that found no space yet.
    unsaved: Option<Snapshot>,
}

impl Housekeeper {
    pub(super) fn new(options: &Options, stock: Arc<Stock>, events: Events) -> Self {
        if segment::spare_path(&options.folder).exists() {
            stock.set_spare(SpareState::Ready);
        }
        Self {
            folder: options.folder.clone(),
            owner: options.owner,
            segment_bytes: options.segment_bytes,
            folder_bytes_max: options.folder_bytes_max,
            stock,
            events,
            space: Space::Free,
            unsaved: None,
        }
    }

    pub(super) fn run(mut self, chores: &mpsc::Receiver<Chore>) {
        self.make_spare();
        let mut retry_at = Instant::now() + RETRY;
        loop {
            let waits = self.unsaved.is_some() || self.space == Space::Full;
            let timeout = if waits {
                retry_at.saturating_duration_since(Instant::now())
            } else {
                Duration::from_secs(3600)
            };
            match chores.recv_timeout(timeout) {
                Ok(Chore::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(chore) => self.do_chore(chore),
                Err(RecvTimeoutError::Timeout) => {
                    retry_at = Instant::now() + RETRY;
                    self.make_spare();
                    if let Some(snapshot) = self.unsaved.take() {
                        self.save(snapshot);
                    }
                }
            }
        }
        self.stock.set_spare(SpareState::Closed);
    }

    fn do_chore(&mut self, chore: Chore) {
        match chore {
            Chore::SaveSnapshot(state) => self.save(state.snapshot()),
            Chore::EncodeSnapshot(state) => {
                (self.events)(Event::SnapshotEncoded(Box::new(state.snapshot())));
            }
            Chore::Prune { through } => self.prune(through),
            Chore::MakeSpare => self.make_spare(),
            Chore::EndRejoining => self.end_rejoining(),
            Chore::Close => {}
        }
    }

    /// A mark that stays after a crash costs one more round of questions, no promise.
    fn end_rejoining(&self) {
        let path = self.folder.join(REJOINING);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, path = %path.display(), "cannot remove"),
        }
    }

    fn save(&mut self, snapshot: Snapshot) {
        match snapshot::save(&self.folder, self.owner, &snapshot) {
            Ok(()) => (self.events)(Event::SnapshotSaved { index: snapshot.index }),
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, index = snapshot.index, "no space for a snapshot, trying again");
                self.unsaved = Some(snapshot);
            }
            Err(error) => give_up("save a snapshot", &error),
        }
    }

    /// Removes what two snapshots make superfluous, oldest first.
    fn prune(&mut self, through: u64) {
        match snapshot::prune(&self.folder) {
            Ok(Some(kept)) => {
                while let Some(number) = self.stock.pop_sealed(through.min(kept)) {
                    self.recycle(number);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot remove an old snapshot"),
        }
    }

    fn recycle(&mut self, number: u64) {
        let recycled = if *self.stock.spare() == SpareState::Missing {
            segment::recycle(&self.folder, number)
        } else {
            fs::remove_file(segment::path(&self.folder, number))
        };
        // The order of removals must survive: a log with a hole would be refused.
        if let Err(error) = recycled.and_then(|()| segment::sync_folder(&self.folder)) {
            give_up("remove a segment of the log", &error);
        }
        self.make_spare();
    }

    fn make_spare(&mut self) {
        if *self.stock.spare() == SpareState::Ready {
            return;
        }
        let made =
            self.check_bound().and_then(|()| segment::make_spare(&self.folder, self.segment_bytes));
        match made {
            Ok(()) => {
                self.stock.set_spare(SpareState::Ready);
                self.tell(Space::Free);
            }
            Err(error) if is_full(&error) => {
                if self.space == Space::Free {
                    tracing::warn!(%error, folder = %self.folder.display(), "disk full: new changes are refused");
                }
                self.tell(Space::Full);
            }
            Err(error) => give_up("make a segment of the log", &error),
        }
    }

    fn check_bound(&self) -> io::Result<()> {
        let mut used = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // What is overwritten takes no further space.
            if entry.file_name() != "spare.tmp" {
                used += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        if used + self.segment_bytes > self.folder_bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("the log would take more than {} bytes", self.folder_bytes_max),
            ));
        }
        Ok(())
    }

    fn tell(&mut self, space: Space) {
        if self.space != space {
            self.space = space;
            (self.events)(Event::Space(space));
        }
    }
}
