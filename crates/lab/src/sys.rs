//! The kernel calls that no safe crate wraps. Decides nothing.
#![allow(
    unsafe_code,
    reason = "clone with namespaces, AF_PACKET and pre-exec hooks have no safe wrapper"
)]

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use nix::sched::CloneFlags;
use nix::sys::signal::{self, SigHandler, SigSet, Signal};
use nix::unistd::Pid;

/// What a cloned child does between `clone` and `execve`. Prepared in full beforehand: the child
/// of a program with threads may not allocate.
pub(crate) struct Exec {
    /// Program to run.
    pub(crate) program: CString,
    /// Its arguments, the name first.
    pub(crate) arguments: Vec<CString>,
    /// Its whole environment.
    pub(crate) environment: Vec<CString>,
    /// Network namespace to join.
    pub(crate) network: Option<OwnedFd>,
    /// Identity map to write for a new user namespace: contents of `uid_map` and `gid_map`.
    pub(crate) identity: Option<(String, String)>,
    /// Descriptors that stay open across `execve`.
    pub(crate) inherited: Vec<RawFd>,
    /// What ends the child together with its starter.
    pub(crate) bond: Bond,
}

/// What ends a child together with the process that started it.
pub(crate) enum Bond {
    /// SIGKILL by the kernel when the starting *thread* ends. The child stays in the session of
    /// its starter, in reach of the terminal's signals.
    Death,
    /// A pipe as standard input, which the child watches. The child has a session of its own.
    Lifeline(OwnedFd),
}

/// Exit status of a child that could not come as far as `execve`.
const EXIT_NOT_STARTED: isize = 125;

/// Starts a process in new namespaces.
///
/// # Errors
/// The kernel refused a namespace of `flags`. A later failure shows as exit status 125.
pub(crate) fn clone_and_exec(exec: &Exec, flags: CloneFlags) -> io::Result<Pid> {
    let arguments = pointers(&exec.arguments);
    let environment = pointers(&exec.environment);
    let mut stack = vec![0_u8; 256 * 1024];
    let child = Box::new(|| -> isize {
        if prepare(exec).is_none() {
            return EXIT_NOT_STARTED;
        }
        // SAFETY: both arrays end with a null pointer, and what they point to lives in `exec`.
        unsafe { libc::execve(exec.program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        EXIT_NOT_STARTED
    });
    // SAFETY: without CLONE_VM the child has its own copy of this memory; it calls only
    // async-signal-safe functions and allocates nothing before `execve` or its end.
    let pid = unsafe { nix::sched::clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }?;
    Ok(pid)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// Runs in the child: no allocation. `None` is a failed step.
fn prepare(exec: &Exec) -> Option<()> {
    if let Some((users, groups)) = &exec.identity {
        // Without this the kernel refuses an unprivileged gid_map (user_namespaces(7)).
        write_file(c"/proc/self/setgroups", b"deny");
        write_file(c"/proc/self/uid_map", users.as_bytes())?;
        write_file(c"/proc/self/gid_map", groups.as_bytes())?;
    }
    if let Some(network) = &exec.network {
        nix::sched::setns(network, CloneFlags::CLONE_NEWNET).ok()?;
    }
    for descriptor in &exec.inherited {
        // SAFETY: clearing a descriptor flag touches no memory.
        if unsafe { libc::fcntl(*descriptor, libc::F_SETFD, 0) } < 0 {
            return None;
        }
    }
    match &exec.bond {
        Bond::Death => nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).ok()?,
        Bond::Lifeline(input) => {
            nix::unistd::setsid().ok()?;
            nix::unistd::dup2_stdin(input).ok()?;
        }
    }
    SigSet::empty().thread_set_mask().ok()
}

fn write_file(path: &std::ffi::CStr, contents: &[u8]) -> Option<()> {
    // SAFETY: `path` is a C string and `contents` is valid for its length.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let written = libc::write(file, contents.as_ptr().cast(), contents.len());
        libc::close(file);
        (usize::try_from(written).ok()? == contents.len()).then_some(())
    }
}

/// Makes `command` join the network namespace before it runs, and hear signals as on a host.
pub(crate) fn join_network(command: &mut Command, network: OwnedFd) {
    let join = move || {
        nix::sched::setns(&network, CloneFlags::CLONE_NEWNET)?;
        hear_signals()
    };
    // SAFETY: setns(2) and the rest are async-signal-safe and `join` allocates nothing.
    unsafe { command.pre_exec(join) };
}

/// Makes `command` start as an init would start it: with no signal blocked, and with none ignored
/// of those that a shell ignores for what it runs in the background (POSIX XCU §2.11).
pub(crate) fn start_as_init_would(command: &mut Command) {
    // SAFETY: sigaction(2) and sigprocmask(2) are async-signal-safe; nothing is allocated.
    unsafe { command.pre_exec(hear_signals) };
}

/// Runs in the child: no allocation.
fn hear_signals() -> io::Result<()> {
    for ignored in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is installed, the default action is taken.
        unsafe { signal::signal(ignored, SigHandler::SigDfl) }?;
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Makes `command` start with no signal blocked.
pub(crate) fn unblock_signals(command: &mut Command) {
    let prepare = || Ok(SigSet::empty().thread_set_mask()?);
    // SAFETY: sigprocmask(2) is async-signal-safe and `prepare` allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Takes back a descriptor that this program was started with, and keeps it from its children.
pub(crate) fn take_inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: setting a flag touches no memory; it fails when the descriptor is not open.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and the caller takes each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Opens a raw Ethernet socket on one interface of the calling thread's network namespace. Frames
/// carry the virtio header in front (`PACKET_VNET_HDR`), so that large frames stay whole.
pub(crate) fn open_packet_socket(interface: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) touches no memory.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just opened, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        // The kernel caps what it does not grant, which is no error.
        set_option(socket.as_fd(), libc::SOL_SOCKET, option, 8 * 1024 * 1024)?;
    }
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        // Allowed to root outside user namespaces only.
        drop(set_option(socket.as_fd(), libc::SOL_SOCKET, option, 8 * 1024 * 1024));
    }
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    // SAFETY: `address` is a sockaddr_ll and `length` its size.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast::<libc::sockaddr>(), length)
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or_default();
    // SAFETY: `value` is a c_int and `length` its size.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), length)
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the calling thread run before all others, as far as allowed: root only, as a rule. A
/// priority within the session alone (`nice`) would not do: the kernel shares the processors among
/// sessions first, and each host is a session of its own.
pub(crate) fn prefer_this_thread() {
    // A child of this thread starts as an ordinary one.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: sched_setscheduler(2) reads `parameters`, which outlives the call; 0 is the calling
    // thread.
    let refused = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } != 0;
    if refused {
        // SAFETY: setpriority(2) touches no memory; 0 is the calling thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
    }
}
