//! Becomes a command that ends with the process that started it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::exit;
use crate::failure::Outcome;
use crate::show;

/// Exit codes of shells for a command that is not there, and for one that can't be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Runs the command in place of this program.
///
/// # Errors
/// When the kernel does not know how to bind it.
pub(crate) fn run(parent: i32, command: &[OsString]) -> Outcome {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(ExitCode::from(exit::BAD_INPUT));
    };
    // The bond outlasts the exec.
    set_pdeathsig(Signal::SIGKILL).context("bind the command to this program")?;
    if getppid().as_raw() != parent {
        // The parent ended before, and nobody would be told.
        return Ok(ExitCode::from(exit::FAILED));
    }
    let error = Command::new(program).args(arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    let text = format!("run `{}`", program.to_string_lossy());
    show::error(&anyhow::Error::new(error).context(text), None);
    Ok(ExitCode::from(code))
}
