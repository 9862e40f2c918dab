//! A world of its own for one command: namespaces that end with it.
//!
//! ```text
//! evenkeel demo            outside: waits, passes signals in and the exit status out
//!   └─ lab-world           pid 1 of the world, killed by the kernel when the one above ends;
//!        │                 its own end ends every process and every namespace of the world
//!        └─ evenkeel demo  inside: the command itself, on the same terminal
//! ```

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, getegid, geteuid, pipe2};

use crate::namespace::Namespace;
use crate::network::run_ip;
use crate::sys::{self, Bond, Exec};

/// Set for the command inside: how the world was made.
pub(crate) const MARK: &str = "EVENKEEL_LAB_WORLD";
/// Descriptors of inherited listeners, separated by commas.
const LISTENERS: &str = "EVENKEEL_LAB_LISTENERS";
/// Descriptor on which pid 1 reports whether the world is complete.
const STATUS: &str = "EVENKEEL_LAB_STATUS";
/// What pid 1 reports when it is.
const COMPLETE: &str = "complete";
/// Memory file system of the world, for the hosts' data. The folder exists on every Linux, and
/// nobody's programs or files are below it.
pub(crate) const MEMORY: &str = "/dev/shm";

/// On which side of the world's border the caller is.
#[derive(Debug)]
pub enum Entered {
    /// Outside: the command has run inside and ended with this status.
    Left(ExitCode),
    /// Inside, or there is no border.
    Inside(World),
}

/// Where a lab may be built.
#[derive(Debug)]
pub struct World {
    /// What keeps the lab apart from the rest of the machine.
    pub isolation: Isolation,
    /// The listeners given to [`enter`], still in the network of the machine: whoever connects to
    /// them comes from outside the world.
    pub listeners: Vec<TcpListener>,
}

/// What keeps a lab apart from the rest of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// Namespaces, made by root.
    Root,
    /// Namespaces inside a user namespace, made by an ordinary user.
    User,
    /// Nothing: hosts are processes on loopback addresses, and only processes can be struck.
    None {
        /// Why namespaces could not be had.
        reason: String,
    },
}

/// Runs the calling command again in a world of its own, with the same arguments, environment and
/// terminal, and returns [`Entered::Left`] when it has ended; inside, returns
/// [`Entered::Inside`]. When the kernel allows no namespaces, returns [`Entered::Inside`] at once.
///
/// Files are those of the machine, except that `/dev/shm` is empty.
///
/// To be called from the main thread before any other thread exists: signals are blocked here,
/// and the world ends with the calling thread.
///
/// # Errors
/// No pipe or signal descriptor could be had.
pub fn enter(listeners: Vec<TcpListener>) -> io::Result<Entered> {
    if let Some(isolation) = mark() {
        return Ok(Entered::Inside(World { isolation, listeners: take_listeners()? }));
    }
    let watched = watched_signals();
    let before = SigSet::thread_get_mask()?;
    watched.thread_block()?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC)?;
    let terminal = Terminal::remember();
    let is_root = geteuid() == Uid::from_raw(0);
    let ways = [Isolation::Root, Isolation::User];
    let mut reason = String::new();
    for way in ways.iter().filter(|way| is_root || **way == Isolation::User) {
        match start(way, &listeners)? {
            Ok(init) => {
                let code = wait(init, init, &signals);
                terminal.restore();
                return Ok(Entered::Left(code?));
            }
            Err(why) => reason = why,
        }
    }
    before.thread_set_mask()?;
    Ok(Entered::Inside(World { isolation: Isolation::None { reason }, listeners }))
}

/// The terminal as it was before the command inside could change it: killed, that one leaves it raw.
struct Terminal(Option<Termios>);

impl Terminal {
    fn remember() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    fn restore(&self) {
        // Setting it without need would stop a command in the background.
        if let Some(before) = &self.0
            && tcgetattr(io::stdin()).is_ok_and(|now| now != *before)
            && let Err(error) = tcsetattr(io::stdin(), SetArg::TCSANOW, before)
        {
            tracing::warn!(%error, "the terminal stays as it is: type `reset`");
        }
    }
}

/// Returns whether this process runs inside a world: the command has then begun outside before.
#[must_use]
pub fn is_inside() -> bool {
    mark().is_some()
}

/// Reads how the world around this process was made, `None` outside.
fn mark() -> Option<Isolation> {
    match std::env::var(MARK).ok()?.as_str() {
        "root" => Some(Isolation::Root),
        "user" => Some(Isolation::User),
        _ => None,
    }
}

fn take_listeners() -> io::Result<Vec<TcpListener>> {
    let numbers = std::env::var(LISTENERS).unwrap_or_default();
    let numbers = numbers.split(',').filter_map(|number| number.parse().ok());
    numbers.map(|number| sys::take_inherited(number).map(TcpListener::from)).collect()
}

fn watched_signals() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]
        .into_iter()
        .collect()
}

/// Starts pid 1 of a world. The inner error says why this way does not work here.
fn start(way: &Isolation, listeners: &[TcpListener]) -> io::Result<Result<Pid, String>> {
    let (report, status) = pipe2(OFlag::O_CLOEXEC)?;
    let exec = init_exec(way, listeners, &status)?;
    let own = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let user = CloneFlags::CLONE_NEWUSER;
    let flags = if *way == Isolation::User { own | user } else { own };
    let init = match sys::clone_and_exec(&exec, flags) {
        Ok(init) => init,
        Err(error) => return Ok(Err(format!("the kernel allows no namespaces here: {error}"))),
    };
    drop(status);
    let mut message = String::new();
    File::from(report).read_to_string(&mut message)?;
    if message == COMPLETE {
        return Ok(Ok(init));
    }
    // It has ended or is about to, and has started nothing.
    kill(init, Signal::SIGKILL).or_else(gone)?;
    waitpid(init, None)?;
    let reason = if message.is_empty() { "the namespaces could not be entered" } else { &message };
    Ok(Err(reason.to_owned()))
}

fn gone(error: Errno) -> nix::Result<()> {
    if error == Errno::ESRCH { Ok(()) } else { Err(error) }
}

fn init_exec(way: &Isolation, listeners: &[TcpListener], status: &OwnedFd) -> io::Result<Exec> {
    let numbers: Vec<RawFd> =
        listeners.iter().map(|listener| listener.as_fd().as_raw_fd()).collect();
    let texts: Vec<String> = numbers.iter().map(RawFd::to_string).collect();
    let is_user = *way == Isolation::User;
    let mark = if is_user { "user" } else { "root" };
    let added = [
        (MARK, mark.to_owned()),
        (LISTENERS, texts.join(",")),
        (STATUS, status.as_raw_fd().to_string()),
    ];
    let identity = is_user.then(|| (format!("0 {} 1", geteuid()), format!("0 {} 1", getegid())));
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("evenkeel"));
    let arguments = [name.clone(), OsString::from(crate::WORLD_COMMAND), name].into_iter();
    Ok(Exec {
        program: c"/proc/self/exe".to_owned(),
        arguments: c_strings(arguments.chain(std::env::args_os().skip(1)))?,
        environment: environment(&added)?,
        network: None,
        identity,
        inherited: numbers.into_iter().chain([status.as_raw_fd()]).collect(),
        bond: Bond::Death,
    })
}

/// Returns this process's environment with some entries added, as `execve` wants it.
fn environment(added: &[(&str, String)]) -> io::Result<Vec<CString>> {
    let own = std::env::vars_os().filter(|(name, _)| !added.iter().any(|(other, _)| name == other));
    let added = added.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    c_strings(own.chain(added).map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        entry
    }))
}

/// Returns the environment for what runs on a host: this process's without the world's marks.
pub(crate) fn host_environment() -> io::Result<Vec<CString>> {
    let foreign = [MARK, LISTENERS, STATUS];
    let own = std::env::vars_os().filter(|(name, _)| !foreign.iter().any(|mark| name == mark));
    c_strings(own.map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        entry
    }))
}

/// Converts texts for `execve`.
pub(crate) fn c_strings(texts: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    texts.map(|text| Ok(CString::new(text.into_vec())?)).collect()
}

/// Runs as pid 1 of the world: completes it, starts the command, takes care of orphans.
pub(crate) fn run_init(arguments: &[OsString]) -> ExitCode {
    let failed = ExitCode::from(125);
    let watched = watched_signals();
    let Ok(status) = std::env::var(STATUS).unwrap_or_default().parse() else { return failed };
    let Ok(status) = sys::take_inherited(status) else { return failed };
    let signals =
        watched.thread_block().and_then(|()| SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC));
    let completed = complete();
    let message = completed.as_ref().map_or_else(Clone::clone, |()| COMPLETE.to_owned());
    // Nobody reads the report when the one outside has been killed: then this one ends as well.
    let reported = File::from(status).write_all(message.as_bytes());
    let (Ok(signals), Ok(()), Ok(())) = (signals, completed, reported) else { return failed };
    let Some((name, rest)) = arguments.split_first() else { return failed };
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(rest).env_remove(STATUS);
    sys::unblock_signals(&mut command);
    let Ok(inside) = command.spawn() else { return failed };
    let inside = Pid::from_raw(i32::try_from(inside.id()).unwrap_or(i32::MAX));
    // The end of pid 1 ends everything else in the world.
    wait(inside, Pid::from_raw(-1), &signals).unwrap_or(failed)
}

/// Makes the fresh namespaces usable, and tries what a lab needs.
fn complete() -> Result<(), String> {
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none)
        .map_err(|error| format!("mounts stay shared: {error}"))?;
    mount_proc().map_err(|error| format!("`/proc` cannot be mounted: {error}"))?;
    mount_memory(Path::new(MEMORY), None)
        .map_err(|error| format!("`{MEMORY}` cannot be mounted: {error}"))?;
    let trial = "link set lo up\n\
                 link add name trial type bridge\n\
                 link add name left type veth peer name right\n";
    Namespace::open_current()
        .map_err(|error| format!("the network namespace cannot be opened: {error}"))
        .and_then(|own| run_ip(&own, "the trial", trial).map_err(|error| error.to_string()))?;
    let interface = nix::net::if_::if_nametoindex("left").map_err(|error| error.to_string())?;
    let socket = sys::open_packet_socket(interface);
    drop(socket.map_err(|error| format!("the kernel allows no packet sockets: {error}"))?);
    let own = Namespace::open_current().map_err(|error| error.to_string())?;
    run_ip(&own, "the trial", "link del left\nlink del trial\n").map_err(|error| error.to_string())
}

/// Mounts a `/proc` that belongs to this process's pid namespace.
pub(crate) fn mount_proc() -> nix::Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), safe, None::<&str>)
}

/// Mounts an empty memory file system, of at most `bytes_max` when given.
pub(crate) fn mount_memory(at: &Path, bytes_max: Option<u64>) -> nix::Result<()> {
    let size = bytes_max.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let data = format!("mode=1777{size}");
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), safe, Some(data.as_str()))
}

/// Waits until `child` ends and returns its status; reaps `reaped` (a process, or all with -1) and
/// passes on signals that were meant for the command.
fn wait(child: Pid, reaped: Pid, signals: &SignalFd) -> io::Result<ExitCode> {
    loop {
        let Some(signal) = signals.read_signal()? else { continue };
        let number = i32::try_from(signal.ssi_signo).map_err(io::Error::other)?;
        let signal_name = Signal::try_from(number)?;
        if signal_name != Signal::SIGCHLD {
            // The terminal has sent its own signals to the command as well.
            if signal.ssi_code != libc::SI_KERNEL {
                kill(child, signal_name).or_else(gone)?;
            }
            continue;
        }
        if let Some(code) = reap(child, reaped)? {
            return Ok(code);
        }
    }
}

/// Reaps what has ended, and returns the status of `child` if it was among it.
fn reap(child: Pid, reaped: Pid) -> io::Result<Option<ExitCode>> {
    loop {
        let status = match waitpid(reaped, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(status) => status,
            Err(error) => return Err(error.into()),
        };
        if status.pid() != Some(child) {
            continue;
        }
        if let WaitStatus::Exited(_, code) = status {
            return Ok(Some(ExitCode::from(u8::try_from(code).unwrap_or(1))));
        }
        if let WaitStatus::Signaled(_, signal, _) = status {
            let code = u8::try_from(128 + i32::from(signal as u8)).unwrap_or(1);
            return Ok(Some(ExitCode::from(code)));
        }
    }
}
