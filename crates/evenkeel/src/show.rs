//! Words to the terminal: results on standard output, everything else on standard error.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use evenkeel_diagnostic::{Diagnostic, render};

/// Prints a result.
///
/// # Errors
/// When standard output can't be written.
pub(crate) fn result(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}").context("write to standard output")
}

/// Prints a result as it is.
///
/// # Errors
/// When standard output can't be written.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("write to standard output")
}

/// Says something that is not the result.
pub(crate) fn say(text: &str) {
    // With standard error gone there is nobody to tell.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints an error with its causes, outermost first, and what helps.
pub(crate) fn error(error: &anyhow::Error, help: Option<&str>) {
    let causes: Vec<String> = error.chain().map(|cause| plain(&cause.to_string())).collect();
    say(&format!("error: {}", causes.join(": ")));
    if let Some(help) = help {
        say(&format!("help: {help}"));
    }
}

/// Prints diagnostics of a file, each with its place.
pub(crate) fn diagnostics(diagnostics: &[Diagnostic], file: &Path, source: &str) {
    for diagnostic in diagnostics {
        say(&render::render(diagnostic, &file.display().to_string(), source));
    }
}

/// Counts in words: `1 host`, `3 hosts`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Drops the number from the operating system's errors, and makes them fit into a sentence.
fn plain(text: &str) -> String {
    let Some((text, _number)) = text.split_once(" (os error ") else { return text.to_owned() };
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_read_as_part_of_a_sentence() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(plain(&error.to_string()), "no such file or directory");
        assert_eq!(plain("Straße"), "Straße");
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!(count(1, "process", "processes"), "1 process");
        assert_eq!(count(0, "process", "processes"), "0 processes");
    }
}
