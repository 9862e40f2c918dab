//! Reads processes and threads from `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// What the kernel says of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    /// `R`, `S`, `D`, `t` and so on (proc(5)).
    pub(crate) state: char,
    pub(crate) parent: i32,
    /// Processor time in clock ticks.
    pub(crate) ticks: u64,
}

impl Thread {
    /// Returns whether a held thread has stopped. One in state D waits inside the kernel, for a
    /// disk or for a child of vfork(2) that is held itself, and stops before it runs again.
    pub(crate) const fn is_stopped(self) -> bool {
        matches!(self.state, 't' | 'D')
    }

    /// Returns whether only an entry in the process table is left.
    pub(crate) const fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Lists every process.
pub(crate) fn processes() -> Vec<i32> {
    numbers("/proc")
}

/// Lists the threads of a process; none when it is gone.
pub(crate) fn threads(pid: i32) -> Vec<i32> {
    numbers(&format!("/proc/{pid}/task"))
}

fn numbers(folder: &str) -> Vec<i32> {
    let Ok(folder) = fs::read_dir(folder) else { return Vec::new() };
    folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Reads a thread's state; `None` when it is gone.
pub(crate) fn thread(pid: i32, thread: i32) -> Option<Thread> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).ok()?;
    // The name before the last parenthesis may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Thread {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
    })
}

/// Returns the pid namespace of a process.
pub(crate) fn pid_namespace(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|namespace| namespace.ino())
}

/// Returns `pids` and every process below them.
pub(crate) fn with_descendants(pids: &[i32]) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> = pids.iter().copied().collect();
    let all = processes();
    loop {
        let before = found.len();
        for pid in &all {
            if thread(*pid, *pid).is_some_and(|process| found.contains(&process.parent)) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}
