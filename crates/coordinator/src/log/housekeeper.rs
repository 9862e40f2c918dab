//! The log's second thread: snapshots, removal of what is no longer needed, the spare segment.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_consensus::log::Snapshot;

use super::writer::Job;
use super::{Event, Events, Options, Space, give_up, is_full, segment, snapshot};

/// How long to wait before something that found no space is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Something to do when there is time.
#[derive(Debug)]
pub(super) enum Chore {
    /// Save a snapshot of this member's own state.
    SaveSnapshot(Snapshot),
    /// Remove old snapshots, then tell the writer which entries are no longer needed.
    Prune { through: u64, jobs: mpsc::Sender<Job> },
    /// A segment is no longer needed.
    Recycle { segment: u64 },
    /// The spare was taken.
    MakeSpare,
    /// End.
    Close,
}

/// Tells the writer whether a spare segment lies ready.
#[derive(Debug, Default)]
pub(super) struct Spare {
    state: Mutex<SpareState>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SpareState {
    #[default]
    Missing,
    Ready,
    Closed,
}

impl Spare {
    fn lock(&self) -> MutexGuard<'_, SpareState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: SpareState) {
        *self.lock() = state;
        self.changed.notify_all();
    }

    /// Waits for the spare; whoever has it must turn it into a segment. `false` if the log is
    /// closed before there is one.
    pub(super) fn take(&self) -> bool {
        let state = self
            .changed
            .wait_while(self.lock(), |state| *state == SpareState::Missing)
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
            .wait_timeout_while(self.lock(), pause, |state| *state != SpareState::Closed)
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
    spare: Arc<Spare>,
    events: Events,
    space: Space,
    /// A snapshot that found no space yet.
    unsaved: Option<Snapshot>,
}

impl Housekeeper {
    pub(super) fn new(options: &Options, spare: Arc<Spare>, events: Events) -> Self {
        if segment::spare_path(&options.folder).exists() {
            spare.set(SpareState::Ready);
        }
        Self {
            folder: options.folder.clone(),
            owner: options.owner,
            segment_bytes: options.segment_bytes,
            folder_bytes_max: options.folder_bytes_max,
            spare,
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
        self.spare.set(SpareState::Closed);
    }

    fn do_chore(&mut self, chore: Chore) {
        match chore {
            Chore::SaveSnapshot(snapshot) => self.save(snapshot),
            Chore::Prune { through, jobs } => match snapshot::prune(&self.folder) {
                Ok(Some(kept)) => {
                    drop(jobs.send(Job::Compact { through: through.min(kept) }));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot remove an old snapshot"),
            },
            Chore::Recycle { segment } => self.recycle(segment),
            Chore::MakeSpare => self.make_spare(),
            Chore::Close => {}
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

    fn recycle(&mut self, number: u64) {
        let recycled = if *self.spare.lock() == SpareState::Missing {
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
        if *self.spare.lock() == SpareState::Ready {
            return;
        }
        let made =
            self.check_bound().and_then(|()| segment::make_spare(&self.folder, self.segment_bytes));
        match made {
            Ok(()) => {
                self.spare.set(SpareState::Ready);
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
