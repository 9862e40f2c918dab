//! The task that serves one shim: its requests one after the other, its reports as they come.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use evenkeel_supervisor_core::status::ExitStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::link::{ANSWER_MAX, Link, LinkError};
use super::{ControlError, ShimEvent, ShimState, StartError};
use crate::folder;
use crate::process;
use crate::protocol::{ChildState, Report, Request};
use crate::spec::ProcessSpec;

/// Time between two attempts to reach a shim that does not answer.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Attempts to start a shim until it is given up.
const SPAWNS_MAX: u32 = 3;

/// A caller's request.
#[derive(Debug)]
pub(super) enum Command {
    Start { spec: Box<ProcessSpec>, answer: oneshot::Sender<Result<u32, StartError>> },
    Signal { number: i32, answer: oneshot::Sender<Result<(), ControlError>> },
    Stop { grace: Duration, answer: oneshot::Sender<Result<(), ControlError>> },
    Quit { answer: oneshot::Sender<Result<(), ControlError>> },
    EndByForce { answer: oneshot::Sender<Result<(), ControlError>> },
}

/// How a request to the shim went wrong.
enum AskError {
    NoShim,
    Silent,
    Refused(String),
}

/// One shim.
#[derive(Debug)]
pub(super) struct Actor {
    folder: PathBuf,
    program: PathBuf,
    events: mpsc::Sender<ShimEvent>,
    state: watch::Sender<ShimState>,
    id: String,
    link: Option<Link>,
    /// There is a shim, but it does not answer; it may be paused.
    is_silent: bool,
}

impl Actor {
    pub(super) fn new(
        folder: PathBuf,
        program: PathBuf,
        events: mpsc::Sender<ShimEvent>,
        state: watch::Sender<ShimState>,
    ) -> Self {
        let id = state.borrow().id.clone();
        Self { folder, program, events, state, id, link: None, is_silent: false }
    }

    /// Serves until every sender of `inbox` is gone. With `adopted` it first looks for the shim
    /// that an earlier node left, and says when that has been found or written off.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        adopted: Option<oneshot::Sender<()>>,
    ) {
        if let Some(done) = adopted {
            self.adopt(|| {
                // From here on there are events, which whoever waits may not read before.
                let _nobody_waits = done.send(());
            })
            .await;
        }
        loop {
            let command = match &mut self.link {
                Some(link) => tokio::select! {
                    report = link.next() => {
                        match report {
                            Ok(report) => self.note(report).await,
                            Err(_) => self.reconnect().await,
                        }
                        continue;
                    }
                    command = inbox.recv() => command,
                },
                None if self.is_silent => tokio::select! {
                    () = sleep(RETRY_EVERY) => {
                        self.adopt(|| {}).await;
                        continue;
                    }
                    command = inbox.recv() => command,
                },
                None => inbox.recv().await,
            };
            match command {
                Some(command) => self.perform(command).await,
                None => return,
            }
        }
    }

    /// Looks for a shim that this task did not start, and calls `found_out` before it reports.
    async fn adopt(&mut self, found_out: impl FnOnce()) {
        let found = Link::open(&self.folder).await;
        let mut last = ChildState::Idle;
        if matches!(found, Err(LinkError::NoShim)) {
            last = self.read_last();
            self.end_left_behind().await;
        }
        found_out();
        match found {
            Ok((link, child)) => {
                self.set(Some(link.pid()), child);
                self.link = Some(link);
                self.is_silent = false;
                let (pid, running) = match child {
                    ChildState::Idle => (0, false),
                    ChildState::Running { pid } => (pid, true),
                    ChildState::Exited { pid, .. } => (pid, false),
                };
                self.check_record(child);
                self.emit(ShimEvent::Adopted { id: self.id.clone(), pid, running }).await;
                if let ChildState::Exited { status, .. } = child {
                    self.emit(ShimEvent::Exited { id: self.id.clone(), status }).await;
                }
            }
            Err(LinkError::NoShim) => {
                self.forget();
                self.set_child(last);
                self.emit(ShimEvent::ShimLost { id: self.id.clone() }).await;
            }
            Err(LinkError::Silent(error)) => self.note_silence(&error),
        }
    }

    /// Returns what is known of the child of a shim that is no more: it may have ended before.
    fn read_last(&self) -> ChildState {
        let record = folder::read_child(&self.folder);
        folder::read_exit(&self.folder)
            .filter(|(pid, _)| record.is_some_and(|record| record.pid == *pid))
            .map_or(ChildState::Idle, |(pid, status)| ChildState::Exited { pid, status })
    }

    fn note_silence(&mut self, error: &io::Error) {
        if !self.is_silent {
            tracing::warn!(id = self.id, %error, "a shim does not answer; it is asked again");
        }
        self.is_silent = true;
    }

    /// Compares what the shim says with what was recorded before the child did anything.
    fn check_record(&self, child: ChildState) {
        let ChildState::Running { pid } = child else { return };
        let recorded = folder::read_child(&self.folder).is_some_and(|record| {
            let start = process::ProcessStat::read(pid).map(|stat| stat.start_time);
            record.pid == pid && start.is_ok_and(|start| start == record.start_time)
        });
        if !recorded {
            // The shim has not reaped it, so it is the shim's; only its end would be harder.
            tracing::warn!(id = self.id, pid, "child.json does not describe the process");
        }
    }

    async fn perform(&mut self, command: Command) {
        // A caller that no longer waits has no need of the answer.
        let _unheard = match command {
            Command::Start { spec, answer } => {
                let result = self.start(*spec).await;
                answer.send(result).is_ok()
            }
            Command::Signal { number, answer } => {
                let result = self.ask(Request::Signal { number }).await;
                answer.send(self.controlled(result)).is_ok()
            }
            Command::Stop { grace, answer } => {
                let result = match self.ask(Request::Stop { grace }).await {
                    Err(AskError::NoShim) => Ok(()),
                    other => other,
                };
                answer.send(self.controlled(result)).is_ok()
            }
            Command::Quit { answer } => {
                let result = self.quit().await;
                answer.send(result).is_ok()
            }
            Command::EndByForce { answer } => {
                let result = self.end_by_force().await;
                answer.send(result).is_ok()
            }
        };
    }

    fn controlled(&self, result: Result<(), AskError>) -> Result<(), ControlError> {
        let id = self.id.clone();
        result.map_err(|error| match error {
            AskError::NoShim => ControlError::Unknown { id },
            AskError::Silent => ControlError::Silent { id },
            AskError::Refused(reason) => ControlError::Refused { id, reason },
        })
    }

    async fn start(&mut self, spec: ProcessSpec) -> Result<u32, StartError> {
        let path = self.folder.clone();
        // A disk may take its time.
        let write = spawn_blocking(move || {
            folder::create(&path)?;
            folder::write_spec(&path, &spec)
        });
        write
            .await
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(|source| StartError::Folder { id: self.id.clone(), source })?;
        if self.link.is_none() {
            self.open_or_spawn().await?;
        }
        match self.ask(Request::Start).await {
            Ok(()) => {}
            Err(AskError::Refused(reason)) => return Err(StartError::Command { reason }),
            Err(AskError::Silent) => return Err(StartError::Silent { id: self.id.clone() }),
            Err(AskError::NoShim) => {
                let reason = "it was killed".to_owned();
                return Err(StartError::Shim { id: self.id.clone(), reason });
            }
        }
        match self.state.borrow().child {
            // It may have ended since; then that has been reported.
            ChildState::Running { pid } | ChildState::Exited { pid, .. } => Ok(pid),
            ChildState::Idle => Ok(0),
        }
    }

    /// Connects to a shim that lives, or starts one.
    ///
    /// Tried several times, since a shim that an earlier node was starting when it was killed may
    /// come up meanwhile: it is then used, or ended so that it frees the folder.
    async fn open_or_spawn(&mut self) -> Result<(), StartError> {
        let id = || self.id.clone();
        let mut reason = String::new();
        for _ in 0..SPAWNS_MAX {
            match Link::open(&self.folder).await {
                Ok((link, child)) => {
                    self.take(link, child).await;
                    return Ok(());
                }
                Err(LinkError::Silent(_)) => return Err(StartError::Silent { id: id() }),
                Err(LinkError::NoShim) => {}
            }
            self.end_left_behind().await;
            reason = match self.spawn().await {
                Ok(()) => "it ended at once".to_owned(),
                Err(reason) => reason,
            };
        }
        match Link::open(&self.folder).await {
            Ok((link, child)) => {
                self.take(link, child).await;
                Ok(())
            }
            Err(LinkError::Silent(_)) => Err(StartError::Silent { id: id() }),
            Err(LinkError::NoShim) => Err(StartError::Shim { id: id(), reason }),
        }
    }

    /// Runs the program that leaves a shim behind and ends.
    async fn spawn(&self) -> Result<(), String> {
        let output = tokio::process::Command::new(&self.program)
            .arg("shim")
            .arg(&self.folder)
            .env(process::MARKER, &self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output();
        let program = self.program.display();
        match timeout(ANSWER_MAX, output).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Ok(Err(error)) => Err(format!("cannot run `{program}`: {error}")),
            Err(_) => Err(format!("`{program} shim` did not end within 5 s")),
        }
    }

    /// Sends a request and waits for its answer, noting all that is reported before it.
    async fn ask(&mut self, request: Request) -> Result<(), AskError> {
        if self.link.is_none() {
            match Link::open(&self.folder).await {
                Ok((link, child)) => self.take(link, child).await,
                Err(LinkError::NoShim) => return Err(AskError::NoShim),
                Err(LinkError::Silent(_)) => return Err(AskError::Silent),
            }
        }
        let deadline = Instant::now() + ANSWER_MAX;
        let link = self.link.as_mut().ok_or(AskError::NoShim)?;
        let Ok(asked) = link.send(request).await else {
            self.reconnect().await;
            return Err(AskError::NoShim);
        };
        loop {
            let link = self.link.as_mut().ok_or(AskError::NoShim)?;
            match timeout_at(deadline, link.next()).await {
                Ok(Ok(Report::Done { number })) if number == asked => return Ok(()),
                Ok(Ok(Report::Refused { number, reason })) if number == asked => {
                    return Err(AskError::Refused(reason));
                }
                Ok(Ok(report)) => self.note(report).await,
                Ok(Err(_)) => {
                    self.reconnect().await;
                    return Err(AskError::NoShim);
                }
                Err(_) => return Err(AskError::Silent),
            }
        }
    }

    /// Asks the shim to end and waits until it has.
    async fn quit(&mut self) -> Result<(), ControlError> {
        match self.ask(Request::Quit).await {
            Ok(()) => {}
            Err(AskError::NoShim) => return Ok(()),
            other @ Err(AskError::Silent | AskError::Refused(_)) => return self.controlled(other),
        }
        let deadline = Instant::now() + 2 * ANSWER_MAX;
        loop {
            let Some(link) = &mut self.link else { return Ok(()) };
            match timeout_at(deadline, link.next()).await {
                Ok(Ok(report)) => self.note(report).await,
                Ok(Err(_)) => {
                    self.forget();
                    // In case a descendant had escaped from the shim too.
                    return self.ended().await;
                }
                Err(_) => return self.end_by_force().await,
            }
        }
    }

    /// Ends the shim and all that it started without its help.
    async fn end_by_force(&mut self) -> Result<(), ControlError> {
        if let Some(link) = &self.link
            && let Err(error) = link.kill_shim()
        {
            tracing::warn!(id = self.id, %error, "a shim could not be ended");
        }
        let ended = self.ended().await;
        self.forget();
        self.emit(ShimEvent::ShimLost { id: self.id.clone() }).await;
        ended
    }

    /// Handles the end of the connection: the shim may have been killed.
    async fn reconnect(&mut self) {
        self.link = None;
        match Link::open(&self.folder).await {
            Ok((link, child)) => self.take(link, child).await,
            Err(LinkError::NoShim) => {
                self.end_left_behind().await;
                self.forget();
                self.emit(ShimEvent::ShimLost { id: self.id.clone() }).await;
            }
            Err(LinkError::Silent(error)) => self.note_silence(&error),
        }
    }

    /// Takes a new link, and reports what its child did while there was none.
    async fn take(&mut self, link: Link, child: ChildState) {
        let before = self.state.borrow().child;
        self.state.send_modify(|state| state.shim = Some(link.pid()));
        self.link = Some(link);
        self.is_silent = false;
        match child {
            _ if child == before => {}
            ChildState::Idle => self.set_child(child),
            ChildState::Running { pid } => self.note(Report::Started { pid }).await,
            ChildState::Exited { pid, status } => self.note(Report::Exited { pid, status }).await,
        }
    }

    async fn note(&mut self, report: Report) {
        match report {
            Report::Started { pid } => {
                self.set_child(ChildState::Running { pid });
                self.emit(ShimEvent::Started { id: self.id.clone(), pid }).await;
            }
            Report::Exited { pid, status } => self.note_exit(pid, status).await,
            // The answer to a request that was given up.
            Report::Done { .. } | Report::Refused { .. } => {}
            Report::Hello { .. } | Report::State(_) => {
                tracing::warn!(id = self.id, ?report, "a shim greeted twice");
            }
        }
    }

    async fn note_exit(&mut self, pid: u32, status: ExitStatus) {
        self.set_child(ChildState::Exited { pid, status });
        self.emit(ShimEvent::Exited { id: self.id.clone(), status }).await;
    }

    /// Ends what a killed shim has left; what does not end is logged.
    async fn end_left_behind(&self) {
        if let Err(error) = self.ended().await {
            tracing::error!(id = self.id, %error, "a killed shim has left processes behind");
        }
    }

    async fn ended(&self) -> Result<(), ControlError> {
        let path = self.folder.clone();
        let pids = spawn_blocking(move || {
            let child = folder::read_child(&path);
            let pids = process::end_left_behind(&path, child.as_ref());
            if pids.is_empty() {
                folder::remove(&path.join(folder::CHILD));
                folder::remove(&path.join(folder::SOCKET));
            }
            pids
        });
        match pids.await {
            Ok(pids) if !pids.is_empty() => Err(ControlError::Remaining { pids }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn forget(&mut self) {
        self.link = None;
        self.is_silent = false;
        self.state.send_modify(|state| {
            state.shim = None;
            if matches!(state.child, ChildState::Running { .. }) {
                state.child = ChildState::Idle;
            }
        });
    }

    fn set(&self, shim: Option<u32>, child: ChildState) {
        self.state.send_modify(|state| {
            state.shim = shim;
            state.child = child;
        });
    }

    fn set_child(&self, child: ChildState) {
        self.state.send_modify(|state| state.child = child);
    }

    async fn emit(&self, event: ShimEvent) {
        // A node that no longer listens is about to end; the shims stay.
        let _unheard = self.events.send(event).await;
    }
}
