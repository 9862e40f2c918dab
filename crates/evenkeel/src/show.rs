//! Words to the terminal: results on standard output, everything else on standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program speaks on its standard streams"
)]

use std::path::Path;

use evenkeel_diagnostic::{Diagnostic, render};

/// Prints a result.
pub(crate) fn result(text: &str) {
    println!("{text}");
}

/// Says something that is not the result.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// Prints an error with its causes, outermost first.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Prints diagnostics of a file, each with its place.
pub(crate) fn diagnostics(diagnostics: &[Diagnostic], file: &Path, source: &str) {
    for diagnostic in diagnostics {
        eprintln!("{}", render::render(diagnostic, &file.display().to_string(), source));
    }
}
