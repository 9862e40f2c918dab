//! The machine that it was measured on: without it no figure means anything.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::statfs::{self, TMPFS_MAGIC};
use serde::Serialize;

use crate::load::percentile;

/// Writes that the disk is tried with, and the bytes of each.
const SYNCS: usize = 500;
const SYNC_BYTES: usize = 4096;

/// What it is.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Time of a 4 KiB write with `fdatasync`.
    sync_p50_ms: f64,
    sync_p99_ms: f64,
    etcd: String,
    evenkeel: String,
}

impl Machine {
    /// Looks at the machine, and refuses one whose data folder is in memory: a sync would cost
    /// nothing there.
    pub(crate) fn observe(folder: &Path, etcd: &Path, evenkeel: &Path) -> Result<Self> {
        let disk = statfs::statfs(folder).context("ask for the data folder's file system")?;
        if disk.filesystem_type() == TMPFS_MAGIC {
            bail!("{} is in memory (tmpfs): nothing is durable there", folder.display());
        }
        let (sync_p50, sync_p99) = try_disk(&folder.join("sync"))?;
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .split_whitespace()
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or_default()
                / 1024,
            kernel: read("/proc/sys/kernel/osrelease"),
            sync_p50_ms: sync_p50.as_secs_f64() * 1000.0,
            sync_p99_ms: sync_p99.as_secs_f64() * 1000.0,
            etcd: version(etcd)?,
            evenkeel: version(evenkeel)?,
        })
    }

    /// Puts it into one line.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} × {}, {} MiB, Linux {}; 4 KiB write + fdatasync p50 {:.2} ms, p99 {:.2} ms; {} \
             and {}",
            self.cores,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.sync_p50_ms,
            self.sync_p99_ms,
            self.evenkeel,
            self.etcd
        )
    }
}

/// Returns the load average of the last minute: other work on the machine makes figures worse.
pub(crate) fn load_average() -> f64 {
    let text = read("/proc/loadavg");
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn try_disk(path: &Path) -> Result<(Duration, Duration)> {
    let mut file = File::create(path).context("make a file to sync")?;
    let block = [0; SYNC_BYTES];
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&block).context("write to the disk")?;
        file.sync_data().context("sync the disk")?;
        times.push(begun.elapsed());
    }
    fs::remove_file(path).context("remove the synced file")?;
    times.sort_unstable();
    Ok((percentile(&times, 50), percentile(&times, 99)))
}

/// Returns the first line that a program says of its version.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("run `{} --version`", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Returns the value behind a name and a colon.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}
