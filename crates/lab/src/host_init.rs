//! Pid 1 of a host: keeps one command running, reaps orphans, and ends with its lab.
//!
//! ```text
//!   running ── exit 0 ──────────▶ down        (the command was asked to stop: it stays down)
//!      ▲  └─── any other end ──▶ waiting 1 s ─┐
//!      └──────────────────────────────────────┘
//! ```
//! SIGKILL to this process is the host's power loss: the kernel ends every process of its pid
//! namespace. SIGTERM asks the command to stop and then ends the host.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::processes::descendants;
use crate::{sys, world};

/// Time between the end of the command and its next start, as a real init would take.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Time that the command has to follow a SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The log is kept back once and begun anew at this size.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What a host's init is told by its arguments.
struct Orders {
    name: OsString,
    data: PathBuf,
    log: PathBuf,
    command: Vec<OsString>,
}

/// Returns the arguments that [`run`] understands.
pub(crate) fn arguments(
    name: &str,
    data: &Path,
    log: &Path,
    command: &[OsString],
) -> Vec<OsString> {
    let head = [crate::HOST_COMMAND.into(), name.into(), data.into(), log.into()];
    head.into_iter().chain(command.iter().cloned()).collect()
}

fn parse(arguments: &[OsString]) -> Option<Orders> {
    let [name, data, log, command @ ..] = arguments else { return None };
    (!command.is_empty()).then(|| Orders {
        name: name.clone(),
        data: data.into(),
        log: log.into(),
        command: command.to_vec(),
    })
}

/// Runs until the lab closes standard input, or SIGTERM has been followed.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let failed = ExitCode::from(125);
    let Some(orders) = parse(arguments) else { return failed };
    let log = orders.log.clone();
    let ended = Host::new(orders).and_then(Host::run);
    if let Err(error) = &ended {
        write_log(&log, &format!("the host's init failed: {error}"));
    }
    end_descendants();
    if ended.is_ok() { ExitCode::SUCCESS } else { failed }
}

struct Host {
    orders: Orders,
    signals: SignalFd,
    state: State,
}

/// What the command is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running(Pid),
    /// It is started again then.
    Waiting(Instant),
    Down,
    /// It has been told to stop; the host ends with it, or then.
    Stopping(Pid, Instant),
    /// The host ends now.
    Ended,
}

impl Host {
    fn new(orders: Orders) -> io::Result<Self> {
        let watched: SigSet = [Signal::SIGCHLD, Signal::SIGTERM].into_iter().collect();
        watched.thread_block()?;
        let signals =
            SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        if std::process::id() == 1 {
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            world::mount_proc()?;
            nix::unistd::sethostname(&orders.name)?;
        }
        Ok(Self { orders, signals, state: State::Waiting(Instant::now()) })
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            self.advance();
            let input = io::stdin();
            let mut watched = [
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, self.timeout()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            // Anything on the lifeline is its end: the lab never writes to it.
            if watched.first().and_then(PollFd::any).unwrap_or(true) {
                return Ok(());
            }
            while let Some(signal) = self.signals.read_signal()? {
                if i32::try_from(signal.ssi_signo).ok() == Some(Signal::SIGTERM as i32) {
                    self.stop();
                }
            }
            self.reap();
            match self.state {
                State::Ended => return Ok(()),
                State::Stopping(_, deadline) if deadline <= Instant::now() => return Ok(()),
                State::Running(_) | State::Waiting(_) | State::Down | State::Stopping(..) => {}
            }
        }
    }

    /// Starts the command when its time has come. One that cannot be started is tried again.
    fn advance(&mut self) {
        if matches!(self.state, State::Waiting(then) if then <= Instant::now()) {
            self.state = match start(&self.orders) {
                Ok(pid) => State::Running(pid),
                Err(error) => {
                    write_log(&self.orders.log, &format!("the command cannot be started: {error}"));
                    State::Waiting(Instant::now() + RESTART_DELAY)
                }
            };
        }
    }

    fn timeout(&self) -> PollTimeout {
        match self.state {
            State::Running(_) | State::Down | State::Ended => PollTimeout::NONE,
            State::Waiting(then) | State::Stopping(_, then) => {
                let left = then.saturating_duration_since(Instant::now());
                // Rounded up, so that the time has come when poll returns.
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn stop(&mut self) {
        self.state = match self.state {
            State::Running(pid) => {
                // It may have ended in this moment.
                kill(pid, Signal::SIGTERM).ok();
                State::Stopping(pid, Instant::now() + STOP_GRACE)
            }
            State::Waiting(_) | State::Down => State::Ended,
            State::Stopping(..) | State::Ended => self.state,
        };
    }

    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { return };
            let now = Instant::now();
            self.state = match self.state {
                State::Running(own) if status == WaitStatus::Exited(own, 0) => State::Down,
                State::Running(own) if own == pid => State::Waiting(now + RESTART_DELAY),
                State::Stopping(own, _) if own == pid => State::Ended,
                State::Running(_)
                | State::Waiting(_)
                | State::Down
                | State::Stopping(..)
                | State::Ended => self.state,
            };
        }
    }
}

fn start(orders: &Orders) -> io::Result<Pid> {
    let (program, arguments) =
        orders.command.split_first().ok_or_else(|| io::Error::other("no command"))?;
    let log = open_log(&orders.log)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&orders.data).env("EVENKEEL_LAB_HOST", &orders.name);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    sys::start_as_init_would(&mut command);
    let child = command.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        let kept = path.with_extension(OsStr::new("log.1"));
        fs::rename(path, kept)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Adds a line to the log of the command, which is where people look.
fn write_log(log: &Path, message: &str) {
    // A host whose disk is full has nowhere to say so.
    drop(open_log(log).and_then(|mut log| writeln!(log, "lab-host: {message}")));
}

/// Ends everything below this process. In a pid namespace the kernel does so anyway.
fn end_descendants() {
    loop {
        let left = descendants(Pid::this());
        if left.is_empty() {
            return;
        }
        for pid in left {
            // One that has ended by itself is what is wanted.
            kill(pid, Signal::SIGKILL).ok();
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status.pid().is_none() {
                break;
            }
        }
    }
}
