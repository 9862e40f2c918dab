//! `evenkeel down`: stops this host's node and everything that it started.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::commands::local;
use crate::show;

/// Longest wait for every replica's own grace.
const STOP_MAX: Duration = Duration::from_secs(120);

/// Runs the command.
///
/// # Errors
/// When no node runs on the data folder, or it does not stop in time.
pub(crate) fn run(data: &Path) -> Result<ExitCode> {
    local::ask(data, "POST", "/v1/down", STOP_MAX)?;
    show::result("stopped: the node and everything it started");
    Ok(ExitCode::SUCCESS)
}
