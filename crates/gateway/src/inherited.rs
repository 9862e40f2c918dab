//! Listening sockets that the shim holds and hands down (sd_listen_fds(3)), so that a restarted
//! gateway refuses no connection.
#![allow(unsafe_code, reason = "a file descriptor is known by its number only")]

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first inherited descriptor.
const FIRST: i32 = 3;

/// Takes the sockets announced in `LISTEN_FDS`. To be called once, before any descriptor is
/// opened.
pub(crate) fn take() -> Vec<TcpListener> {
    let pid = std::env::var("LISTEN_PID").ok();
    if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
        return Vec::new();
    }
    let count = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let numbers = FIRST..FIRST.saturating_add(count).min(FIRST + 64);
    numbers.filter_map(take_one).collect()
}

fn take_one(number: i32) -> Option<TcpListener> {
    // SAFETY: the parent left this descriptor open for us, and nobody else in this process has
    // taken it: `take` is called once, before anything is opened.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    if fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_err() {
        // It was not open, so it is not ours to close.
        std::mem::forget(descriptor);
        return None;
    }
    Some(TcpListener::from(descriptor))
}
