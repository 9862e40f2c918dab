//! Measures the memory of every process of a demo that has been through an experiment.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What the demo says once its experiments are over.
const UP: &str = "It stays up";

/// Ends the demo, and with it everything in its namespaces.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            println!("xtask: the demo did not end: {error}");
        }
    }
}

/// Prints the largest resident set and private dirty memory of nodes, gateways and shims.
///
/// # Errors
/// When the demo does not come up.
pub(crate) fn run() -> Result<()> {
    crate::cargo(&["build", "--release", "--package", "evenkeel"])?;
    let program = crate::root().join("target/release/evenkeel");
    let child = Command::new(&program)
        .args(["demo", "--quick", "--only", "kill@replica"])
        .stdout(Stdio::piped())
        .spawn()
        .context("start the demo")?;
    let mut demo = Demo(child);
    let output = demo.0.stdout.take().context("read the demo's output")?;
    let mut lines = BufReader::new(output).lines();
    if !lines.any(|line| line.is_ok_and(|line| line.starts_with(UP))) {
        bail!("the demo ended before it stayed up");
    }
    for role in ["node", "gateway", "shim"] {
        let processes = memory_of(&program, role)?;
        let largest = |figure: fn(&Memory) -> u64| processes.iter().map(figure).max().unwrap_or(0);
        println!(
            "{role:8} {} processes, at most {} KiB resident, {} KiB private dirty",
            processes.len(),
            largest(|memory| memory.resident),
            largest(|memory| memory.private_dirty),
        );
    }
    Ok(())
}

/// Memory of one process, in KiB.
struct Memory {
    resident: u64,
    private_dirty: u64,
}

fn memory_of(program: &Path, role: &str) -> Result<Vec<Memory>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let folder = entry?.path();
        // Processes come and go; one that has gone has no memory.
        let Ok(words) = fs::read(folder.join("cmdline")) else { continue };
        let mut words = words.split(|byte| *byte == 0);
        let is_ours = fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == program);
        if !is_ours || words.nth(1) != Some(role.as_bytes()) {
            continue;
        }
        let Ok(rollup) = fs::read_to_string(folder.join("smaps_rollup")) else { continue };
        let figure = |name: &str| {
            let line = rollup.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        if let (Some(resident), Some(private_dirty)) = (figure("Rss:"), figure("Private_Dirty:")) {
            found.push(Memory { resident, private_dirty });
        }
    }
    Ok(found)
}
