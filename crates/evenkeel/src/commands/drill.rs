//! `evenkeel drill`: a whole system on this machine, broken part by part.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::cli::DrillArguments;

/// Runs the command. Exit code 3 when a promise was broken.
///
/// # Errors
/// When the system can't be put on this machine.
pub(crate) fn run(_arguments: &DrillArguments) -> Result<ExitCode> {
    bail!("being wired")
}
