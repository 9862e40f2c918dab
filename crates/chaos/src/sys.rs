//! The kernel calls that no safe crate wraps. Decides nothing.
#![allow(unsafe_code, reason = "pidfds and pre-exec hooks have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use nix::sched::{CloneFlags, setns};

/// Opens a descriptor that names a process, and no later one with the same number.
pub(crate) fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) touches no memory.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: a descriptor just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends SIGKILL to a process.
pub(crate) fn kill(process: &OwnedFd) -> io::Result<()> {
    let (descriptor, signal) = (process.as_raw_fd(), libc::SIGKILL);
    let no_details = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means that of kill(2).
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, signal, no_details, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `command` run inside a network namespace.
pub(crate) fn join_network(command: &mut Command, network: OwnedFd) {
    let join = move || Ok(setns(&network, CloneFlags::CLONE_NEWNET)?);
    // SAFETY: setns(2) is async-signal-safe and `join` allocates nothing.
    unsafe { command.pre_exec(join) };
}

/// Has the kernel kill this process after `seconds`, whatever it is doing then.
pub(crate) fn set_alarm(seconds: u32) {
    // SAFETY: alarm(2) touches no memory; SIGALRM keeps its default action, which ends the process.
    unsafe { libc::alarm(seconds) };
}
