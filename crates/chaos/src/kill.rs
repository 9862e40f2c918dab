//! Kills processes and sees that they are gone.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::injected::{Effect, VERIFY_MAX};
use crate::sys;

/// Opens what still exists of `pids`.
pub(crate) fn open(pids: &[i32]) -> Vec<OwnedFd> {
    pids.iter().filter_map(|pid| sys::open_pidfd(*pid).ok()).collect()
}

/// Kills every process, first to last without a pause, and waits until all are gone.
pub(crate) fn kill(victims: &[OwnedFd]) -> Effect {
    let begun = Instant::now();
    let sent: Vec<io::Error> =
        victims.iter().filter_map(|victim| sys::kill(victim).err()).filter(is_refusal).collect();
    if let Some(error) = sent.first() {
        return Effect::Unverified { reason: format!("the kernel refused a SIGKILL: {error}") };
    }
    for victim in victims {
        let left = VERIFY_MAX.saturating_sub(begun.elapsed());
        let mut watched = [PollFd::new(victim.as_fd(), PollFlags::POLLIN)];
        // A descriptor of a process becomes readable when the process ends, reaped or not.
        let ended = poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        if ended != Ok(1) {
            let reason = format!("a killed process is still there after {VERIFY_MAX:?}");
            return Effect::Unverified { reason };
        }
    }
    let (count, millis) = (victims.len(), begun.elapsed().as_millis());
    Effect::Verified { evidence: format!("processes gone after {millis} ms: {count}") }
}

/// Returns whether an error means more than that the process had ended already.
fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() != Some(Errno::ESRCH as i32)
}
