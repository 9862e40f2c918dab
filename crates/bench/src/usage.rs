//! Processor time and memory of processes, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Processor time so far, by process and thread.
#[derive(Debug)]
pub(crate) struct Snapshot {
    processes: Vec<Process>,
    own: Process,
}

/// Processor time of a process, by the name of the thread.
type Process = BTreeMap<String, Duration>;

/// Processor time over a while, in % of one core.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Usage {
    /// Of each process.
    pub(crate) processes: Vec<Percent>,
    /// Of the load generator.
    pub(crate) own: f64,
}

/// Processor time of one process in % of one core.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Percent {
    pub(crate) total: f64,
    /// By the name of the thread; threads of one name together.
    pub(crate) threads: BTreeMap<String, f64>,
}

/// Reads the processor time of `processes` and of this one.
pub(crate) fn snapshot(processes: &[u32]) -> Result<Snapshot> {
    Ok(Snapshot {
        processes: processes.iter().map(|pid| threads(*pid)).collect::<Result<_>>()?,
        own: threads(std::process::id())?,
    })
}

impl Snapshot {
    /// Returns what was used since `before`, which is `time` ago.
    pub(crate) fn since(&self, before: &Self, time: Duration) -> Usage {
        let pairs = self.processes.iter().zip(&before.processes);
        Usage {
            processes: pairs.map(|(now, before)| percent(now, before, time)).collect(),
            own: percent(&self.own, &before.own, time).total,
        }
    }
}

fn percent(now: &Process, before: &Process, time: Duration) -> Percent {
    let threads: BTreeMap<String, f64> = now
        .iter()
        .map(|(name, used)| {
            let used = used.saturating_sub(before.get(name).copied().unwrap_or_default());
            (name.clone(), 100.0 * used.as_secs_f64() / time.as_secs_f64())
        })
        .collect();
    Percent { total: threads.values().sum(), threads }
}

fn threads(pid: u32) -> Result<Process> {
    let mut used = Process::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.with_context(|| format!("read the threads of process {pid}"))? {
        let task = task.context("read a thread")?.path();
        // A thread that has ended meanwhile is none any more.
        let (Ok(name), Ok(text)) =
            (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
        else {
            continue;
        };
        let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
        let nanos = Duration::from_nanos(nanos.context("parse a thread's `schedstat`")?);
        *used.entry(name.trim().to_owned()).or_default() += nanos;
    }
    Ok(used)
}

/// Returns the resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read a status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.context("parse a process's memory")? * 1024)
}

/// Returns the processes that have `folder` in their command line, besides those in `known`.
pub(crate) fn others_on(folder: &Path, known: &[u32]) -> Result<Vec<u32>> {
    let folder = folder.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry.context("read /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes come and go; one that has gone uses nothing.
        let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
        let is_ours = String::from_utf8_lossy(&words).contains(&folder);
        if is_ours && pid != std::process::id() && !known.contains(&pid) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let before = snapshot(&[std::process::id()]).unwrap();
        let usage = snapshot(&[std::process::id()]).unwrap().since(&before, Duration::from_secs(1));
        assert_eq!(usage.processes.len(), 1);
        assert!(usage.own >= 0.0);
        assert!(resident(std::process::id()).unwrap() > 0);
    }
}
