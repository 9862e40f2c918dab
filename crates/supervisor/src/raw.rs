//! The system calls that no safe wrapper offers: fork, descriptors by number, pidfd.
#![allow(unsafe_code, reason = "fork, descriptor numbers and pidfd have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use evenkeel_supervisor_core::status::ExitStatus;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};

/// Runs `child` in a copy of this process, and returns the copy's process id.
///
/// # Errors
/// When the process has other threads, or the kernel refuses.
pub(crate) fn spawn_copy(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads cannot be copied"));
    }
    // SAFETY: this is the only thread, as checked above, so that the copy finds every lock free
    // and may go on as any program may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => exit_now(child()),
    }
}

/// Ends the process without running destructors or exit handlers.
fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 on. Only for a process that has not yet opened any itself.
pub(crate) fn close_inherited() {
    // SAFETY: called first of all in a process, when no value owns a descriptor above 2. An error
    // (a kernel before 5.9) leaves foreign descriptors open, which is untidy but harmless.
    let _refused = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Copies `from` to a free number that is at least `number_min`, not to be inherited.
pub(crate) fn copy_above(from: impl AsFd, number_min: RawFd) -> io::Result<OwnedFd> {
    let from = from.as_fd().as_raw_fd();
    // SAFETY: takes two integers and returns a new descriptor or -1.
    let number = unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, number_min) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Copies `from` to exactly `number`, to be inherited. Only for a copy about to run a program.
pub(crate) fn place_descriptor(from: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: whoever owns `number` in this copied process is never dropped: the process runs
    // another program or ends by `_exit`.
    let result = unsafe { libc::dup2(from.as_fd().as_raw_fd(), number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives every signal its default effect again, since ignored ones stay ignored across `exec`.
pub(crate) fn reset_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is a valid disposition for every signal; the kernel refuses the few
        // that cannot be set, which are at their default anyway.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Makes `signal` have no effect on this process.
pub(crate) fn ignore_signal(signal: Signal) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(signal as libc::c_int, libc::SIG_IGN) };
}

/// Returns a child that has ended and how, without reaping it: its id and group stay its own.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub(crate) fn peek_ended_child() -> io::Result<Option<(Pid, ExitStatus)>> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeroes is a valid `siginfo_t`, which `waitid` only writes to. `si_pid` and
    // `si_status` are the fields that it fills; the first stays zero when no child has ended.
    let (result, pid, code, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &raw mut info, flags);
        (result, info.si_pid(), info.si_code, info.si_status())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let status = match code {
        libc::CLD_EXITED => ExitStatus::Code(status),
        _ => ExitStatus::Signal(status),
    };
    Ok((pid != 0).then_some((Pid::from_raw(pid), status)))
}

/// Reaps a child that [`peek_ended_child`] returned.
pub(crate) fn reap(pid: Pid) {
    // SAFETY: a null status is allowed. It cannot fail: the child has ended and is ours.
    let _reaped = unsafe { libc::waitpid(pid.as_raw(), std::ptr::null_mut(), libc::WNOHANG) };
}

/// A process that cannot be mistaken for another one that later gets the same id.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that has the id now.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        // SAFETY: takes two integers and returns a descriptor or -1.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let number = RawFd::try_from(result).map_err(io::Error::other)?;
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Sends a signal to it.
    pub(crate) fn send(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is a pidfd, and a null `siginfo` is allowed.
        let result = unsafe {
            let number = signal as libc::c_int;
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, no_info, 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
