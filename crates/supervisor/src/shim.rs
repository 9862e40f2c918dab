//! The shim process: starts, detaches itself, and hands over to its loop.
//!
//! Single-threaded and without a runtime, so that its memory is a matter of pages, and because
//! the kernel ends the child when the *thread* that started it ends (prctl(2), `PDEATHSIG`).

mod keeper;
mod launch;
mod log;
mod sockets;

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::unistd;

use self::keeper::Keeper;
use crate::raw;

/// Time within which the lock of a folder whose shim was killed becomes free.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);

/// Time between two attempts to take the lock.
const LOCK_EVERY: Duration = Duration::from_millis(5);

/// Runs the shim of a folder. Returns, in the process that was called, as soon as the shim, a
/// copy of it without ties to its starter, listens on its control socket. A failure is one line
/// on the standard error, and no shim runs then.
///
/// Must be called before the program has started a thread or opened a file.
pub fn run(folder: &Path) -> ExitCode {
    raw::close_inherited();
    match detach(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("the shim of {} did not start: {error}\n", folder.display());
            // If this is not heard there is nobody else to tell.
            let _unheard = io::stderr().write_all(line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Starts the copy and waits until it says that it is ready, or why it is not.
fn detach(folder: &Path) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    // The shim stays in its folder even if that is renamed, and uses short paths: a socket's may
    // have 107 bytes at most (unix(7)).
    unistd::chdir(&folder)?;
    let lock = File::open(".")?;
    take(&lock)?;
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    // The lock belongs to the open file, so the copy still has it when this process closes it.
    raw::spawn_copy(move || serve(folder, &lock, File::from(writer)))?;
    let mut said = String::new();
    File::from(reader).read_to_string(&mut said)?;
    if said == READY { Ok(()) } else { Err(io::Error::other(said)) }
}

/// Takes the folder's lock, which a shim that was killed holds until the kernel is done with it.
fn take(lock: &File) -> io::Result<()> {
    let until = Instant::now() + LOCK_WAIT_MAX;
    while let Err(error) = lock.try_lock() {
        if Instant::now() > until {
            let refused = io::Error::other("another shim holds this folder");
            return match error {
                TryLockError::WouldBlock => Err(refused),
                TryLockError::Error(error) => Err(error),
            };
        }
        thread::sleep(LOCK_EVERY);
    }
    Ok(())
}

/// What the copy says when it listens.
const READY: &str = "ready";

/// Is the shim, for as long as it lives. Holds the lock meanwhile.
fn serve(folder: PathBuf, _lock: &File, mut starter: File) -> i32 {
    let begun = begin(folder);
    let said = begun.as_ref().map_or_else(ToString::to_string, |_| READY.to_owned());
    // The starter may have been killed in the meantime; the next one adopts this shim.
    let _unheard = starter.write_all(said.as_bytes());
    drop(starter);
    match begun {
        Ok(mut keeper) => keeper.run(),
        Err(_) => 1,
    }
}

fn begin(folder: PathBuf) -> io::Result<Keeper> {
    unistd::setsid()?;
    set_child_subreaper(true)?;
    // Whoever wants the shim to end says `quit`: a terminal or an `init` that says "everybody
    // stop" means the child, and the shim must stay to report how the child ended.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        raw::ignore_signal(signal);
    }
    raw::ignore_signal(Signal::SIGPIPE);
    let keeper = Keeper::open(folder)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    unistd::dup2_stderr(&null)?;
    Ok(keeper)
}
