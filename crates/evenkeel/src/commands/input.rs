//! Reads the system files that are named on the command line.

use std::io;
use std::path::Path;

use anyhow::anyhow;
use evenkeel_diagnostic::{Diagnostic, Severity};
use evenkeel_system_file::Parsed;

use crate::failure::Failure;
use crate::show;

/// Reads the text of a system file.
///
/// # Errors
/// When there is none, or it can't be read.
pub(crate) fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| refuse(file, error))
}

fn refuse(file: &Path, error: io::Error) -> Failure {
    let (shown, kind) = (file.display(), error.kind());
    if kind == io::ErrorKind::NotFound {
        Failure::bad_input(anyhow!("there is no file `{shown}`"))
            .with_help(format!("`evenkeel init {shown}` writes a commented one to begin with"))
    } else if kind == io::ErrorKind::IsADirectory {
        let inside = file.join("evenkeel.toml");
        Failure::bad_input(anyhow!("`{shown}` is a folder, not a system file"))
            .with_help(format!("give a file, such as `{}`", inside.display()))
    } else if kind == io::ErrorKind::InvalidData {
        Failure::bad_input(anyhow!("`{shown}` is not text in UTF-8"))
            .with_help("give a system file, such as `evenkeel init` writes")
    } else {
        let text = format!("can't read `{shown}`");
        Failure::bad_input(anyhow::Error::new(error).context(text))
    }
}

/// Parses a system file, and shows what is wrong with it.
///
/// # Errors
/// When it has errors.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Parsed, Failure> {
    evenkeel_system_file::parse(text).map_err(|diagnostics| {
        show_errors(&diagnostics, file, text);
        Failure::shown()
    })
}

/// Shows what is wrong with a file, and how to learn more.
pub(crate) fn show_errors(diagnostics: &[Diagnostic], file: &Path, text: &str) {
    show::diagnostics(diagnostics, file, text);
    let errors = diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
    let errors = show::count(errors, "error", "errors");
    let first = diagnostics.first().map(|first| first.code.to_string()).unwrap_or_default();
    show::say(&format!(
        "{errors} in `{}`; `evenkeel explain {first}` says more about the first",
        file.display()
    ));
}
