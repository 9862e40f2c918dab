//! The `evenkeel` program: reads the command line and hands over. Decides nothing.

mod cli;
mod commands;
mod exit;
mod failure;
mod show;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A shim starts before anything else is set up: it must stay small and single-threaded.
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [command, folder] = arguments.as_slice()
        && command == OsStr::new("shim")
    {
        return evenkeel_supervisor::shim::run(Path::new(folder));
    }
    if let Some(code) = evenkeel_lab::run_hidden(&arguments) {
        return code;
    }
    if let Some(code) = evenkeel_chaos::run_hidden(&arguments) {
        return code;
    }
    drop(arguments);
    cli::run()
}
