//! Turns a copy of the shim into the child.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{self, Pid};

use super::sockets::HeldSocket;
use crate::folder::{self, ChildRecord};
use crate::process::{self, ProcessStat};
use crate::raw;
use crate::spec::ProcessSpec;

/// The first descriptor that is passed on (sd_listen_fds(3)).
const LISTEN_FIRST: i32 = 3;

/// Variables of the node that are about the node: its own sockets and its watchdog.
const NOT_INHERITED: &[&str] = &[
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    process::MARKER,
];

/// Everything that the child needs, made before it exists.
struct Program<'a> {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: PathBuf,
    sockets: &'a [HeldSocket],
    output: BorrowedFd<'a>,
}

/// Starts the process and returns its id once it runs its own program.
///
/// `child.json` is written while the process exists but waits: if the shim is killed at any
/// moment, the process is either known or has done nothing.
pub(super) fn launch(
    folder: &Path,
    spec: &ProcessSpec,
    sockets: &[HeldSocket],
    output: BorrowedFd<'_>,
) -> Result<u32, String> {
    let program = prepare(folder, spec, sockets, output)?;
    let start = || -> io::Result<(Pid, String)> {
        let (gate_reader, gate_writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (failure_reader, failure_writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (gate, failure) = (File::from(gate_reader), File::from(failure_writer));
        let shim = unistd::getpid();
        let pid = raw::spawn_copy(|| become_child(&program, shim, gate, failure))?;
        // Done by both sides, so that it holds for each from here on. It fails here only if the
        // child was quicker, or is no more.
        let _done_by_child = unistd::setpgid(pid, pid);
        // If the disk is full the mark in its environment must do to find the process.
        let _no_record = record(folder, pid);
        let mut gate = File::from(gate_writer);
        // If the child is no more this fails, and so does reading its failure: with its silence.
        let _no_child = gate.write_all(b"go");
        drop(gate);
        let mut failure = String::new();
        File::from(failure_reader).read_to_string(&mut failure)?;
        Ok((pid, failure))
    };
    let (pid, failure) = start().map_err(|error| format!("cannot start a process: {error}"))?;
    if failure.is_empty() {
        return Ok(u32::try_from(pid.as_raw()).unwrap_or_default());
    }
    // It ends by itself now; nobody else waits for it, and its exit is not the program's.
    let _already_reaped = nix::sys::wait::waitpid(pid, None);
    folder::remove(&folder.join(folder::CHILD));
    Err(failure)
}

fn prepare<'a>(
    folder: &Path,
    spec: &ProcessSpec,
    sockets: &'a [HeldSocket],
    output: BorrowedFd<'a>,
) -> Result<Program<'a>, String> {
    let text = |bytes: Vec<u8>, what: &str| {
        CString::new(bytes).map_err(|_| format!("{what} contains a zero byte"))
    };
    let arguments = spec.command.iter().map(|word| text(word.clone().into_bytes(), "the command"));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    if arguments.is_empty() {
        return Err("the command is empty".to_owned());
    }
    let mut variables: Vec<OsString> = std::env::vars_os()
        .filter(|(name, _)| {
            let is_replaced = name.to_str().is_some_and(|name| spec.environment.contains_key(name));
            !is_replaced && !NOT_INHERITED.iter().any(|other| name == other)
        })
        .map(|(name, value)| [name, value].join(OsString::from("=").as_os_str()))
        .collect();
    variables.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}").into()));
    variables.push(process::entry(folder));
    if !sockets.is_empty() {
        variables.push(format!("LISTEN_FDS={}", sockets.len()).into());
    }
    let environment = variables.into_iter().map(|entry| text(entry.into_vec(), "the environment"));
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    let directory = spec.directory.clone().unwrap_or_else(|| folder.join(folder::DATA));
    if spec.directory.is_none() {
        let shown = directory.display();
        fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot create {shown}: {error}"))?;
    }
    Ok(Program { arguments, environment, directory, sockets, output })
}

fn record(folder: &Path, pid: Pid) -> io::Result<()> {
    let pid = u32::try_from(pid.as_raw()).map_err(io::Error::other)?;
    let stat = ProcessStat::read(pid)?;
    let boot = process::read_boot()?;
    let (session, start_time) = (stat.session, stat.start_time);
    folder::write_child(folder, &ChildRecord { format: 1, pid, session, start_time, boot })
}

/// Runs in the copy, and returns only if the program cannot be run.
fn become_child(program: &Program<'_>, shim: Pid, gate: File, failure: File) -> i32 {
    // Out of the way of the sockets' numbers; closed when the program runs, which is how the shim
    // learns that it does.
    let moved = raw::copy_above(&failure, listen_end(program));
    let mut failure = moved.map_or(failure, File::from);
    match try_become_child(program, shim, gate) {
        Ok(never) => match never {},
        Err(text) => {
            // If the shim is no more there is nobody to tell.
            let _unheard = failure.write_all(text.as_bytes());
            1
        }
    }
}

fn try_become_child(program: &Program<'_>, shim: Pid, gate: File) -> Result<Infallible, String> {
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| fault("follow the shim", errno))?;
    if unistd::getppid() != shim {
        return Err("the shim was killed".to_owned());
    }
    let own = unistd::getpid();
    unistd::setpgid(own, own).map_err(|errno| fault("lead a process group", errno))?;
    wait_for(gate).map_err(|error| fault("hear the shim", error))?;
    raw::reset_signals();
    SigSet::empty().thread_set_mask().map_err(|errno| fault("take signals", errno))?;
    arrange_descriptors(program).map_err(|error| fault("pass on descriptors", error))?;
    let directory = program.directory.as_path();
    unistd::chdir(directory)
        .map_err(|errno| fault(&format!("enter the directory `{}`", directory.display()), errno))?;
    let mut environment = program.environment.clone();
    if !program.sockets.is_empty() {
        let entry = format!("LISTEN_PID={own}");
        environment.push(CString::new(entry).map_err(|error| error.to_string())?);
    }
    let file = program.arguments.first().ok_or_else(|| "the command is empty".to_owned())?;
    let Err(errno) = unistd::execvpe(file, &program.arguments, &environment);
    Err(fault(&format!("run `{}`", String::from_utf8_lossy(file.as_bytes())), errno))
}

fn fault(what: &str, error: impl Into<io::Error>) -> String {
    format!("cannot {what}: {}", error.into())
}

fn wait_for(mut gate: File) -> io::Result<()> {
    gate.read_exact(&mut [0; 2])
}

/// Puts the sockets at 3 and up and the output at 1 and 2; all others close by themselves.
fn arrange_descriptors(program: &Program<'_>) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(program.output)?;
    unistd::dup2_stderr(program.output)?;
    drop(null);
    let end = listen_end(program);
    // Out of each other's way first.
    let sockets = program.sockets.iter().map(|held| raw::copy_above(held.listener(), end));
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    for (number, socket) in (LISTEN_FIRST..end).zip(&sockets) {
        raw::place_descriptor(socket, number)?;
    }
    Ok(())
}

/// Returns the first number above those of the sockets that are passed on.
fn listen_end(program: &Program<'_>) -> i32 {
    LISTEN_FIRST.saturating_add(i32::try_from(program.sockets.len()).unwrap_or(i32::MAX))
}
