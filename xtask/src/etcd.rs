//! Compares the coordinator with etcd: builds both programs, installs etcd, and hands over.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

/// Runs the comparison; `arguments` go to the benchmark as they are.
///
/// # Errors
/// When etcd is missing, or the comparison fails.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    crate::setup::install_for_etcd()?;
    // One after the other: built together, the benchmark's features would be in the product too.
    crate::cargo(&["build", "--profile", "dist", "--package", "evenkeel"])?;
    crate::cargo(&["build", "--profile", "dist", "--package", "evenkeel-bench"])?;
    let target = target();
    let shipped = target.join("dist");
    let mut bench = Command::new(shipped.join("evenkeel-bench"));
    bench.arg("--evenkeel").arg(shipped.join("evenkeel"));
    bench.arg("--folder").arg(target.join("bench-etcd"));
    crate::run(bench.args(arguments))
}

/// Returns cargo's target folder.
fn target() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR");
    crate::root().join(chosen.as_deref().map_or_else(|| Path::new("target"), Path::new))
}
