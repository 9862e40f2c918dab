//! What Evenkeel tells about a file: a code, the fact, the places it concerns, and the cure.
//!
//! Decides how a diagnostic is put into words and plain text. Finds nothing itself: `system-file`
//! and `audit` do. Colours and terminal width are the command line's business.

pub mod code;
mod explanations;
pub mod render;

use std::ops::Range;

use crate::code::Code;

/// How much a [`Diagnostic`] weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the file can be used as it is.
    Warning,
    /// The file cannot be used, or does not keep its own promise.
    Error,
}

impl Severity {
    /// Returns `warning` or `error`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A part of the text that a diagnostic is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Bytes of the text, from 0. May reach past its end, which is then meant.
    pub span: Range<usize>,
    /// What is to be seen there; may be empty.
    pub text: String,
}

/// One fact about a file, with where it stands and how to put it right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind, which `evenkeel explain` knows more about.
    pub code: Code,
    /// Its weight.
    pub severity: Severity,
    /// The fact: lower case, no full stop, values with their units, names in backticks.
    pub message: String,
    /// The places concerned, the main one first.
    pub labels: Vec<Label>,
    /// Further facts, one each.
    pub notes: Vec<String>,
    /// The cure, as an instruction.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Begins an error.
    #[must_use]
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message.into())
    }

    /// Begins a warning.
    #[must_use]
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message.into())
    }

    const fn new(code: Code, severity: Severity, message: String) -> Self {
        Self { code, severity, message, labels: Vec::new(), notes: Vec::new(), help: None }
    }

    /// Adds a place; the first one added is the main one.
    #[must_use]
    pub fn label(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds a further fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// States the cure.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
