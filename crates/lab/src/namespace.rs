//! A network namespace that is held by a descriptor alone: no name, no process, nothing to clean up.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::sys;

/// A network namespace. It lives while a clone of this handle, a process or a socket is in it.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<OwnedFd>);

impl Namespace {
    /// Makes a namespace that has only a loopback interface, which is still down.
    ///
    /// # Errors
    /// The kernel refused, for want of privilege or of room.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::open_current()
        })?
    }

    /// Returns the namespace that the calling thread is in.
    ///
    /// # Errors
    /// `/proc` is not mounted or does not belong to this process.
    pub fn open_current() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/proc/thread-self/ns/net")?.into())))
    }

    /// Runs `action` on a thread of its own inside the namespace. Sockets that it opens stay in
    /// the namespace, and work from everywhere.
    ///
    /// # Errors
    /// The kernel refused the entrance. A panic of `action` is passed on.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.enter_thread()?;
            Ok(action())
        })?
    }

    /// Moves the calling thread into the namespace for the rest of its life: every socket that it
    /// opens from now on is in there. For a client's runtime of one thread.
    ///
    /// # Errors
    /// The kernel refused the entrance.
    pub fn enter_thread(&self) -> io::Result<()> {
        Ok(setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Returns a command that will run inside the namespace.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn command(&self, program: impl AsRef<OsStr>) -> io::Result<Command> {
        let mut command = Command::new(program);
        sys::join_network(&mut command, self.duplicate()?);
        Ok(command)
    }

    /// Returns another descriptor of the namespace, for whoever does not know this type.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `action` on a thread that ends afterwards, so that no namespace sticks to the caller.
fn on_own_thread<T: Send>(action: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("lab-namespace".to_owned());
        match worker.spawn_scoped(scope, action)?.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
