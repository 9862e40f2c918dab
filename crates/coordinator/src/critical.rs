//! What the threads have in common on which a voter's promises rest.
#![allow(unsafe_code, reason = "the standard library cannot set a thread's priority")]

/// How far such a thread goes before others, on the scale of `nice`.
const NICE: libc::c_int = -10;

/// Runs the whole work of this thread, before that of others.
pub(crate) fn run_first(work: impl FnOnce()) {
    raise_priority();
    run(work);
}

/// Runs the whole work of this thread. A panic in it ends the process: a member that stops halfway
/// must not look alive.
pub(crate) fn run(work: impl FnOnce()) {
    let guard = AbortOnPanic;
    work();
    std::mem::forget(guard);
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// A heartbeat that waits for a processor costs an election. Without the right to do so, nothing
/// happens.
fn raise_priority() {
    // SAFETY: takes numbers only; on Linux, 0 stands for the calling thread.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    let name = std::thread::current();
    tracing::debug!(thread = name.name(), raised = done == 0, "priority of a critical thread");
}
