//! The node's side: every shim of one data folder, those of an earlier node included.

mod actor;
mod link;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_supervisor_core::status::ExitStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};

use self::actor::{Actor, Command};
use crate::folder;
use crate::process::{self, Scope};
use crate::protocol::ChildState;
use crate::spec::ProcessSpec;

/// Time that a stop may take beyond its grace before the shim itself is ended: its group's end
/// takes it 5 s at most.
const STOP_MARGIN: Duration = Duration::from_secs(6);

/// Requests to one shim that may wait; callers wait when there are more.
const COMMANDS_MAX: usize = 16;

/// What happens to a shim or its child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimEvent {
    /// The child runs. Also the answer to a start when it ran already.
    Started {
        /// The shim.
        id: String,
        /// The child's process id.
        pid: u32,
    },
    /// The child ended, and every process of its group with it.
    Exited {
        /// The shim.
        id: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The shim was killed. Its child and every process of the child's group have been ended.
    ShimLost {
        /// The shim.
        id: String,
    },
    /// A living shim of an earlier node was found. If its child does not run but did, its
    /// `Exited` follows, though the earlier node may already have seen it.
    Adopted {
        /// The shim.
        id: String,
        /// The child's process id, or its last one; 0 when it had none.
        pid: u32,
        /// Whether it runs.
        running: bool,
    },
}

/// A shim as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimState {
    /// The shim.
    pub id: String,
    /// The shim's own process id while it lives.
    pub shim: Option<u32>,
    /// What its child does.
    pub child: ChildState,
}

/// A signal for a child's process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: please end.
    Terminate,
    /// SIGKILL: end.
    Kill,
    /// SIGINT.
    Interrupt,
    /// SIGHUP, by custom: read your settings again.
    Hangup,
}

/// Reports why a process was not started; nothing of it runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The id cannot name a folder.
    #[error("`{id}` cannot name a shim: 1-100 characters of A-Z a-z 0-9 . _ -, the first no `.`")]
    Id {
        /// The refused id.
        id: String,
    },
    /// The shim's folder or its `spec.json` cannot be written.
    #[error("cannot write to the folder of shim `{id}`")]
    Folder {
        /// The shim.
        id: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The shim process cannot be started.
    #[error("cannot start shim `{id}`: {reason}")]
    Shim {
        /// The shim.
        id: String,
        /// What it said.
        reason: String,
    },
    /// The shim cannot run the command, or not open a socket for it.
    #[error("{reason}")]
    Command {
        /// What the shim says, such as: cannot run `x`: No such file or directory.
        reason: String,
    },
    /// The shim lives but does not answer; it may be paused.
    #[error("shim `{id}` does not answer")]
    Silent {
        /// The shim.
        id: String,
    },
}

/// Reports why a signal was not sent, or that something could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no living shim of that name.
    #[error("there is no shim `{id}`")]
    Unknown {
        /// The name.
        id: String,
    },
    /// The shim refused.
    #[error("shim `{id}`: {reason}")]
    Refused {
        /// The shim.
        id: String,
        /// Why.
        reason: String,
    },
    /// The shim lives but does not answer; it may be paused.
    #[error("shim `{id}` does not answer")]
    Silent {
        /// The shim.
        id: String,
    },
    /// Processes are still there after SIGKILL.
    #[error("processes {pids:?} did not end after SIGKILL")]
    Remaining {
        /// Their ids.
        pids: Vec<u32>,
    },
    /// The shim's folder cannot be removed.
    #[error("cannot remove the folder of shim `{id}`")]
    Folder {
        /// The shim.
        id: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The shims of one data folder. Dropping it leaves them all running, to be adopted by the next
/// one that is opened.
#[derive(Debug, Clone)]
pub struct Shims {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    program: PathBuf,
    events: mpsc::Sender<ShimEvent>,
    handles: Mutex<BTreeMap<String, Handle>>,
}

/// The way to the task that serves one shim.
#[derive(Debug, Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<ShimState>,
}

impl Shims {
    /// Adopts every living shim in `folder` and ends every process whose shim was killed; both
    /// are reported as events. `program` is called as `program shim FOLDER/ID` for a new shim.
    ///
    /// The receiver of `events` must be read while any method is awaited: a full channel makes
    /// them wait.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub async fn open(
        folder: PathBuf,
        program: PathBuf,
        events: mpsc::Sender<ShimEvent>,
    ) -> io::Result<Self> {
        folder::create(&folder)?;
        let folder = folder.canonicalize()?;
        let inner = Inner { folder, program, events, handles: Mutex::default() };
        let shims = Self { inner: Arc::new(inner) };
        let mut adoptions = JoinSet::new();
        for entry in fs::read_dir(&shims.inner.folder)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
            let was_shim = [folder::SOCKET, folder::CHILD]
                .iter()
                .any(|name| entry.path().join(name).symlink_metadata().is_ok());
            if was_shim && ProcessSpec::has_valid_id(&id) {
                let (done, adopted) = oneshot::channel();
                shims.start_actor(&id, Some(done));
                adoptions.spawn(adopted);
            }
        }
        while adoptions.join_next().await.is_some() {}
        Ok(shims)
    }

    /// Starts the process, in its shim if that lives and else in a new one, and returns its
    /// process id. One that runs already stays as it is, whatever `spec` says.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn start(&self, spec: ProcessSpec) -> Result<u32, StartError> {
        let id = spec.id.clone();
        if !ProcessSpec::has_valid_id(&id) {
            return Err(StartError::Id { id });
        }
        let handle = self.handle(&id).unwrap_or_else(|| self.start_actor(&id, None));
        let (answer, answered) = oneshot::channel();
        let silent = || StartError::Silent { id: id.clone() };
        let command = Command::Start { spec: Box::new(spec), answer };
        handle.commands.send(command).await.map_err(|_| silent())?;
        answered.await.map_err(|_| silent())?
    }

    /// Sends a signal to the child's process group. [`Signal::Kill`] needs no answer of the shim:
    /// one that does not answer is ended with its group.
    ///
    /// # Errors
    /// When no child runs, its shim does not answer, or a process cannot be ended.
    pub async fn signal(&self, id: &str, signal: Signal) -> Result<(), ControlError> {
        let number = match signal {
            Signal::Terminate => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Interrupt => libc::SIGINT,
            Signal::Hangup => libc::SIGHUP,
        };
        match self.ask(id, |answer| Command::Signal { number, answer }).await {
            Err(ControlError::Silent { .. }) if signal == Signal::Kill => {
                self.end_by_force(id).await
            }
            other => other,
        }
    }

    /// Sends SIGTERM to the child's process group, SIGKILL after `grace`, and returns how it
    /// ended; nothing if it is unknown or nothing ran. The shim stays. A shim that does not
    /// answer is ended with its group.
    ///
    /// # Errors
    /// When there is no such shim, or a process cannot be ended.
    pub async fn stop(
        &self,
        id: &str,
        grace: Duration,
    ) -> Result<Option<ExitStatus>, ControlError> {
        let mut state = self.known(id)?.state;
        match self.ask(id, |answer| Command::Stop { grace, answer }).await {
            Ok(()) => {}
            Err(ControlError::Silent { .. }) => return self.end_by_force(id).await.map(|()| None),
            Err(error) => return Err(error),
        }
        let stopped = state.wait_for(|state| !matches!(state.child, ChildState::Running { .. }));
        let stopped = async { stopped.await.map(|state| state.child) };
        match tokio::time::timeout(grace + STOP_MARGIN, stopped).await {
            Ok(Ok(ChildState::Exited { status, .. })) => Ok(Some(status)),
            Ok(Ok(ChildState::Idle | ChildState::Running { .. })) => Ok(None),
            Ok(Err(_)) => Err(ControlError::Unknown { id: id.to_owned() }),
            Err(_) => self.end_by_force(id).await.map(|()| None),
        }
    }

    /// Ends the child's process group at once, then the shim; its folder stays.
    ///
    /// # Errors
    /// When there is no such shim, or a process cannot be ended.
    pub async fn quit(&self, id: &str) -> Result<(), ControlError> {
        match self.ask(id, |answer| Command::Quit { answer }).await {
            Err(ControlError::Silent { .. }) => self.end_by_force(id).await?,
            other => other?,
        }
        self.handles().remove(id);
        Ok(())
    }

    /// Ends the child's process group at once, then the shim, and removes its folder with the
    /// log and the working directory.
    ///
    /// # Errors
    /// When there is no such shim, a process cannot be ended, or a file cannot be removed.
    pub async fn remove(&self, id: &str) -> Result<(), ControlError> {
        if self.handle(id).is_some() {
            self.quit(id).await?;
        }
        match tokio::fs::remove_dir_all(self.folder_of(id)?).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ControlError::Folder { id: id.to_owned(), source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Returns every shim that was adopted or started and not removed, by id.
    #[must_use]
    pub fn list(&self) -> Vec<ShimState> {
        self.handles().values().map(|handle| handle.state.borrow().clone()).collect()
    }

    /// Returns the last `lines` lines that the child and its predecessors wrote, from at most the
    /// last 2 MiB; nothing if there is no such log. Reads files, so it may block for a moment.
    #[must_use]
    pub fn log_tail(&self, id: &str, lines: usize) -> Vec<String> {
        let Ok(folder) = self.folder_of(id) else { return Vec::new() };
        folder::read_log_tail(&folder, lines)
    }

    /// Stops all children at the same time as [`Self::stop`] does, ends all shims, and then
    /// whatever else carries their mark, so that nothing they started is left.
    ///
    /// # Errors
    /// When a process is still there after SIGKILL.
    pub async fn stop_all(&self, grace: Duration) -> Result<(), ControlError> {
        let ids: Vec<String> = self.handles().keys().cloned().collect();
        let mut stops = JoinSet::new();
        for id in ids {
            let shims = self.clone();
            stops.spawn(async move {
                let stopped = shims.stop(&id, grace).await.map(drop);
                let ended = shims.quit(&id).await;
                // What cannot be ended in order is ended below.
                for error in [stopped, ended].into_iter().filter_map(Result::err) {
                    tracing::warn!(id, %error, "a shim could not be stopped in order");
                }
            });
        }
        while stops.join_next().await.is_some() {}
        let folder = self.inner.folder.clone();
        let ended = spawn_blocking(move || process::end_marked(Scope::AllIn(&folder))).await;
        match ended {
            Ok(pids) if !pids.is_empty() => Err(ControlError::Remaining { pids }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn end_by_force(&self, id: &str) -> Result<(), ControlError> {
        self.ask(id, |answer| Command::EndByForce { answer }).await
    }

    async fn ask(
        &self,
        id: &str,
        command: impl FnOnce(oneshot::Sender<Result<(), ControlError>>) -> Command,
    ) -> Result<(), ControlError> {
        let (answer, answered) = oneshot::channel();
        let unknown = || ControlError::Unknown { id: id.to_owned() };
        self.known(id)?.commands.send(command(answer)).await.map_err(|_| unknown())?;
        answered.await.map_err(|_| unknown())?
    }

    fn start_actor(&self, id: &str, adopted: Option<oneshot::Sender<()>>) -> Handle {
        let mut handles = self.handles();
        if let Some(handle) = handles.get(id) {
            return handle.clone();
        }
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let initial = ShimState { id: id.to_owned(), shim: None, child: ChildState::Idle };
        let (writer, state) = watch::channel(initial);
        let handle = Handle { commands, state };
        handles.insert(id.to_owned(), handle.clone());
        let folder = self.inner.folder.join(id);
        let program = self.inner.program.clone();
        let actor = Actor::new(folder, program, self.inner.events.clone(), writer);
        tokio::spawn(actor.run(inbox, adopted));
        handle
    }

    fn folder_of(&self, id: &str) -> Result<PathBuf, ControlError> {
        if ProcessSpec::has_valid_id(id) {
            Ok(self.inner.folder.join(Path::new(id)))
        } else {
            Err(ControlError::Unknown { id: id.to_owned() })
        }
    }

    fn known(&self, id: &str) -> Result<Handle, ControlError> {
        self.handle(id).ok_or_else(|| ControlError::Unknown { id: id.to_owned() })
    }

    fn handle(&self, id: &str) -> Option<Handle> {
        self.handles().get(id).cloned()
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.inner.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
