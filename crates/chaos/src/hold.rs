//! The holder: a child that stops processes with ptrace and keeps them stopped while it lives.
//!
//! ptrace ends with its tracer, whatever ends that one: its own deadline, the injector closing or
//! losing its end of standard input, or SIGKILL. SIGSTOP has no such end (ptrace(2)).

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::proc::{self, Thread};

/// Rounds of looking for threads that appeared meanwhile.
const ROUNDS_MAX: u32 = 100;
/// Time between two looks for held processes that were killed.
const REAP_EVERY: Duration = Duration::from_millis(20);
/// Time for all threads to stop.
const STOP_MAX: Duration = Duration::from_secs(1);

/// Which processes belong to those that are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// None.
    Exactly,
    /// All below them: a replica with its own children.
    Descendants,
    /// All in the same pid namespaces, unless that is the injector's own: whole hosts of a lab.
    PidNamespaces,
}

/// What the holder is told, one line of JSON on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) pids: Vec<i32>,
    pub(crate) reach: Reach,
    pub(crate) hold_ns: u64,
}

/// What it answers, one line of JSON on standard output.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Process and thread of everything held.
    pub(crate) held: BTreeSet<(i32, i32)>,
    /// What could not be held.
    pub(crate) refused: Vec<String>,
}

/// Runs the holder.
pub(crate) fn run() -> ExitCode {
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn hold() -> io::Result<()> {
    let begun = Instant::now();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    let hold = Duration::from_nanos(request.hold_ns);
    // For the case that this process itself hangs.
    crate::sys::set_alarm(u32::try_from(hold.as_secs() + 3).unwrap_or(u32::MAX));
    let reply = seize(&request);
    let mut answer = serde_json::to_vec(&reply)?;
    answer.push(b'\n');
    io::stdout().write_all(&answer)?;
    io::stdout().flush()?;
    while begun.elapsed() < hold {
        let left = hold.saturating_sub(begun.elapsed()).min(REAP_EVERY);
        let input = io::stdin();
        let mut watched = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        // Rounded up, so that the time is over when poll returns.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        match poll(&mut watched, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => reap(),
            Err(error) => return Err(error.into()),
            // The injector has let go.
            Ok(_) => return Ok(()),
        }
    }
    // The kernel resumes everything with the end of this process.
    Ok(())
}

/// Takes note of held processes that were killed meanwhile: until their tracer has done so, their
/// parents do not learn of it, and a killed host would not be gone.
fn reap() {
    let any = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    while waitpid(None, Some(any)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
}

/// Stops every thread of the request's processes, until no new one appears.
fn seize(request: &Request) -> Reply {
    let mut reply = Reply::default();
    for _ in 0..ROUNDS_MAX {
        let mut new = false;
        for pid in members(request) {
            for thread in proc::threads(pid) {
                if !reply.held.contains(&(pid, thread)) {
                    new |= seize_thread(pid, thread, &mut reply);
                }
            }
        }
        if !new {
            break;
        }
    }
    await_stop(&mut reply);
    reply
}

/// Returns whether the thread is held now and was not before.
fn seize_thread(pid: i32, thread: i32, reply: &mut Reply) -> bool {
    let id = Pid::from_raw(thread);
    let seized = ptrace::seize(id, ptrace::Options::empty()).and_then(|()| ptrace::interrupt(id));
    match seized {
        Ok(()) => {
            reply.held.insert((pid, thread));
            true
        }
        // It has ended meanwhile, or is a zombie.
        Err(Errno::ESRCH) => false,
        Err(_) if proc::thread(pid, thread).is_none_or(Thread::is_dead) => false,
        Err(error) => {
            let message = format!("process {pid} cannot be held: {error}");
            if !reply.refused.contains(&message) {
                reply.refused.push(message);
            }
            false
        }
    }
}

/// Waits until every held thread has stopped.
fn await_stop(reply: &mut Reply) {
    let deadline = Instant::now() + STOP_MAX;
    loop {
        reply.held.retain(|(pid, thread)| {
            proc::thread(*pid, *thread).is_some_and(|found| !found.is_dead())
        });
        let running = reply.held.iter().find(|(pid, thread)| {
            proc::thread(*pid, *thread).is_some_and(|found| !found.is_stopped())
        });
        let Some((pid, thread)) = running else { return };
        if Instant::now() >= deadline {
            reply.refused.push(format!("thread {thread} of process {pid} did not stop"));
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn members(request: &Request) -> BTreeSet<i32> {
    match request.reach {
        Reach::Exactly => request.pids.iter().copied().collect(),
        Reach::Descendants => proc::with_descendants(&request.pids),
        Reach::PidNamespaces => {
            let own = i32::try_from(std::process::id()).ok().and_then(proc::pid_namespace);
            let namespaces: BTreeSet<u64> = request
                .pids
                .iter()
                .filter_map(|pid| proc::pid_namespace(*pid))
                .filter(|namespace| Some(*namespace) != own)
                .collect();
            let inside = proc::processes().into_iter().filter(|pid| {
                proc::pid_namespace(*pid).is_some_and(|namespace| namespaces.contains(&namespace))
            });
            inside.chain(request.pids.iter().copied()).collect()
        }
    }
}
