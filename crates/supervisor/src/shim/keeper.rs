//! The shim's loop: waits for its child, its log and its node, and does what they ask for.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_supervisor_core::status::ExitStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::launch::launch;
use super::log::Log;
use super::sockets::{HeldSocket, hold};
use crate::folder::{self, CHILD, SOCKET};
use crate::process;
use crate::protocol::{ChildState, LINE_MAX, Report, Request, VERSION};
use crate::raw;

/// Time for the rest of a process group to be gone after SIGKILL. What has not gone then, as a
/// process in an uninterruptible wait, no longer keeps the child from being started again.
const END_MAX: Duration = Duration::from_secs(5);

/// Time between two looks at what is left of a process group.
const END_EVERY: Duration = Duration::from_millis(10);

/// Time without a child and without a node after which a shim ends. A node that was killed while it
/// started this shim, before it was told a name to adopt it by, never comes back for it.
const FORSAKEN_MAX: Duration = Duration::from_secs(10);

/// Most connections at a time; a further one replaces the oldest.
const CONNECTIONS_MAX: usize = 8;

/// Everything that a shim holds.
#[derive(Debug)]
pub(super) struct Keeper {
    folder: PathBuf,
    signals: SignalFd,
    listener: UnixListener,
    log: Log,
    sockets: Vec<HeldSocket>,
    connections: Vec<Connection>,
    child: Child,
    /// Since when there is neither a child, or the end of one to be told, nor a node.
    forsaken_since: Option<Instant>,
    is_quitting: bool,
}

/// Where the child is in its life.
#[derive(Debug, Clone, Copy)]
enum Child {
    Idle,
    Running {
        pid: u32,
        kill_at: Option<Instant>,
    },
    /// It has ended, but others of its group may not have.
    Ending {
        pid: u32,
        status: ExitStatus,
        until: Instant,
    },
    Exited {
        pid: u32,
        status: ExitStatus,
    },
}

/// One node that is connected.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    is_closed: bool,
}

/// What one wait brought.
struct Woken {
    is_new_connection: bool,
    is_readable: Vec<bool>,
}

impl Keeper {
    /// Opens everything in the current directory, which `folder` names.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let log = Log::open()?;
        // Left by a shim that was killed; this one has the folder's lock.
        folder::remove(Path::new(SOCKET));
        let listener = UnixListener::bind(SOCKET)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            folder,
            signals,
            listener,
            log,
            sockets: Vec::new(),
            connections: Vec::new(),
            child: Child::Idle,
            forsaken_since: Some(Instant::now()),
            is_quitting: false,
        })
    }

    /// Works until it is told to quit or nobody wants it, and returns the exit code.
    pub(super) fn run(&mut self) -> i32 {
        loop {
            match self.wait() {
                Ok(woken) => {
                    self.log.drain();
                    self.reap();
                    self.serve(&woken);
                    self.act_on_time(Instant::now());
                }
                Err(Errno::EINTR) => {}
                // Nothing can be seen any more. The kernel ends the child with the shim, and the
                // node finds the rest.
                Err(_) => return 1,
            }
            if self.is_quitting && matches!(self.child, Child::Idle | Child::Exited { .. }) {
                self.log.drain();
                folder::remove(Path::new(SOCKET));
                folder::remove(Path::new(CHILD));
                return 0;
            }
        }
    }

    fn wait(&self) -> Result<Woken, Errno> {
        let deadline = match self.child {
            Child::Running { kill_at, .. } => kill_at,
            Child::Ending { .. } => Some(Instant::now() + END_EVERY),
            Child::Idle => self.forsaken_since.and_then(|since| since.checked_add(FORSAKEN_MAX)),
            Child::Exited { .. } => None,
        };
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            // Rounded up, so as not to wake just before the time.
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let own = [self.signals.as_fd(), self.listener.as_fd(), self.log.reader()];
        let streams = self.connections.iter().map(|connection| connection.stream.as_fd());
        let mut waits: Vec<PollFd<'_>> =
            own.into_iter().chain(streams).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut waits, timeout)?;
        let woken: Vec<bool> = waits.iter().map(|wait| wait.any().unwrap_or(true)).collect();
        Ok(Woken {
            is_new_connection: woken.get(1).copied().unwrap_or_default(),
            is_readable: woken.into_iter().skip(own.len()).collect(),
        })
    }

    /// Notes every process that has ended: the child, and orphans among its descendants.
    fn reap(&mut self) {
        // Only says that there is something to reap.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((ended, status))) = raw::peek_ended_child() {
            if let Child::Running { pid, .. } = self.child
                && same(pid, ended)
            {
                // As long as its leader is not reaped, the group's number is the group's.
                let _already_empty = killpg(ended, Signal::SIGKILL);
                self.child = Child::Ending { pid, status, until: Instant::now() + END_MAX };
            }
            raw::reap(ended);
        }
    }

    fn act_on_time(&mut self, now: Instant) {
        let is_forsaken = matches!(self.child, Child::Idle) && self.connections.is_empty();
        self.forsaken_since = is_forsaken.then(|| self.forsaken_since.unwrap_or(now));
        if self.forsaken_since.is_some_and(|since| now.duration_since(since) >= FORSAKEN_MAX) {
            self.is_quitting = true;
        }
        match self.child {
            Child::Running { pid, kill_at: Some(at) } if now >= at => {
                self.child = Child::Running { pid, kill_at: None };
                let _ended_just_now = self.signal(Signal::SIGKILL);
            }
            Child::Ending { pid, status, until } => {
                if now >= until || end_descendants() == 0 {
                    self.finish(pid, status);
                }
            }
            Child::Idle | Child::Running { .. } | Child::Exited { .. } => {}
        }
    }

    fn finish(&mut self, pid: u32, status: ExitStatus) {
        self.log.drain();
        // On a full disk the status is known for as long as the shim lives.
        let _not_kept = folder::write_exit(Path::new("."), pid, status);
        self.child = Child::Exited { pid, status };
        self.tell_all(&Report::Exited { pid, status });
    }

    fn serve(&mut self, woken: &Woken) {
        for (index, is_readable) in woken.is_readable.iter().enumerate() {
            let connection = self.connections.get_mut(index).filter(|_| *is_readable);
            for line in connection.map(Connection::read_lines).unwrap_or_default() {
                self.answer(index, &line);
            }
        }
        self.connections.retain(|connection| !connection.is_closed);
        if woken.is_new_connection {
            self.accept();
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.connections.len() == CONNECTIONS_MAX {
            self.connections.remove(0);
        }
        let mut connection = Connection { stream, input: Vec::new(), is_closed: false };
        connection.tell(&Report::Hello { version: VERSION, pid: std::process::id() });
        connection.tell(&Report::State(match self.child {
            Child::Idle => ChildState::Idle,
            // Its end is not reported before the whole group's.
            Child::Running { pid, .. } | Child::Ending { pid, .. } => ChildState::Running { pid },
            Child::Exited { pid, status } => ChildState::Exited { pid, status },
        }));
        self.connections.push(connection);
    }

    fn answer(&mut self, index: usize, line: &str) {
        let Some((number, request)) = Request::parse(line) else { return };
        let result = match request {
            Some(Request::Start) => self.start(index),
            Some(Request::Stop { grace }) => self.stop(grace),
            Some(Request::Signal { number }) => Signal::try_from(number)
                .map_err(|_| format!("there is no signal {number}"))
                .and_then(|signal| self.signal(signal)),
            Some(Request::Quit) => {
                self.is_quitting = true;
                // Nothing runs: fine.
                let _idle = self.signal(Signal::SIGKILL);
                Ok(())
            }
            None => Err("this shim does not know that request".to_owned()),
        };
        let report = match result {
            Ok(()) => Report::Done { number },
            Err(reason) => Report::Refused { number, reason },
        };
        if let Some(connection) = self.connections.get_mut(index) {
            connection.tell(&report);
        }
    }

    fn start(&mut self, index: usize) -> Result<(), String> {
        match self.child {
            _ if self.is_quitting => return Err("the shim is about to end".to_owned()),
            Child::Running { pid, .. } => {
                if let Some(connection) = self.connections.get_mut(index) {
                    connection.tell(&Report::Started { pid });
                }
                return Ok(());
            }
            Child::Ending { .. } => return Err("the process before is still ending".to_owned()),
            Child::Idle | Child::Exited { .. } => {}
        }
        let spec = folder::read_spec(Path::new("."))?;
        hold(&mut self.sockets, &spec.listen)?;
        self.log.set_size_max(spec.log_max_bytes);
        let pid = launch(&self.folder, &spec, &self.sockets, self.log.writer())?;
        self.child = Child::Running { pid, kill_at: None };
        self.tell_all(&Report::Started { pid });
        Ok(())
    }

    fn stop(&mut self, grace: Duration) -> Result<(), String> {
        let Child::Running { pid, kill_at } = self.child else { return Ok(()) };
        let new = Instant::now().checked_add(grace);
        // Asked twice, the earlier deadline holds.
        let kill_at = kill_at.into_iter().chain(new).min();
        self.child = Child::Running { pid, kill_at };
        self.signal(Signal::SIGTERM)
    }

    /// Sends a signal to the child's whole group. The child is not reaped, so the number is its.
    fn signal(&self, signal: Signal) -> Result<(), String> {
        let Child::Running { pid, .. } = self.child else {
            return Err("no process runs".to_owned());
        };
        let group = i32::try_from(pid).map_err(|error| error.to_string())?;
        killpg(Pid::from_raw(group), signal).map_err(|errno| errno.to_string())
    }

    fn tell_all(&mut self, report: &Report) {
        for connection in &mut self.connections {
            connection.tell(report);
        }
    }
}

/// Sends SIGKILL to all that is left of the child's descendants, which the kernel has made the
/// shim's own children, and returns how many there are.
fn end_descendants() -> usize {
    if matches!(raw::peek_ended_child(), Err(error) if error.raw_os_error() == Some(libc::ECHILD)) {
        return 0;
    }
    let own = std::process::id();
    let left: Vec<_> = process::list().into_iter().filter(|stat| stat.parent == own).collect();
    for stat in left.iter().filter_map(|stat| i32::try_from(stat.pid).ok()) {
        // Our own child, and not reaped: the id is its.
        let _ended_just_now = kill(Pid::from_raw(stat), Signal::SIGKILL);
    }
    left.len()
}

fn same(pid: u32, other: Pid) -> bool {
    i32::try_from(pid).is_ok_and(|pid| pid == other.as_raw())
}

impl Connection {
    /// Returns the whole lines that have come.
    fn read_lines(&mut self) -> Vec<String> {
        let mut buffer = [0; 512];
        while self.input.len() <= LINE_MAX {
            match self.stream.read(&mut buffer) {
                Ok(length @ 1..) => self.input.extend(buffer.iter().take(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    self.is_closed = true;
                    break;
                }
            }
        }
        let end = self.input.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let rest = self.input.split_off(end);
        // A line without end: no node of ours.
        self.is_closed |= rest.len() > LINE_MAX;
        let lines = std::mem::replace(&mut self.input, rest);
        String::from_utf8_lossy(&lines).lines().map(ToOwned::to_owned).collect()
    }

    /// Sends a line. One that the socket's buffer does not take whole ends the connection: the
    /// other side has not read for hundreds of lines, and learns the state when it comes back.
    fn tell(&mut self, report: &Report) {
        self.is_closed |= self.stream.write_all(report.format().as_bytes()).is_err();
    }
}
