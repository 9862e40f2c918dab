//! What the audit has found out, with the part of the system file that is to blame.

use std::ops::Range;

use evenkeel_diagnostic::code::Code;
use evenkeel_diagnostic::{Diagnostic, Severity};

use crate::component::Component;

/// A reason why a goal is not met, or a thing worth knowing about one that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// [`Severity::Error`] breaks the goal.
    pub severity: Severity,
    /// The fact.
    pub message: String,
    /// The component whose loss is not survived, if it is one.
    pub breaks: Option<Component>,
    /// The parts of the system file that are concerned, the main one first.
    pub parts: Vec<Part>,
    /// Further facts.
    pub notes: Vec<String>,
    /// The cure.
    pub help: Option<String>,
}

/// A part of the system file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Dotted path: `survive`, `service.web.replicas`, `region.fra`, `zone.fra.a`, `host.a1`.
    pub path: String,
    /// What is to be seen there.
    pub text: String,
}

impl Finding {
    pub(crate) const fn new(code: Code, severity: Severity, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            breaks: None,
            parts: Vec::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    pub(crate) fn breaks(mut self, component: &Component) -> Self {
        self.breaks = Some(component.clone());
        self
    }

    pub(crate) fn part(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.parts.push(Part { path: path.into(), text: text.into() });
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the finding as a diagnostic over a file in which `find` knows where parts stand.
    #[must_use]
    pub fn to_diagnostic(&self, find: impl Fn(&str) -> Option<Range<usize>>) -> Diagnostic {
        let mut diagnostic = match self.severity {
            Severity::Error => Diagnostic::error(self.code, &self.message),
            Severity::Warning => Diagnostic::warning(self.code, &self.message),
        };
        for part in &self.parts {
            if let Some(span) = find(&part.path) {
                diagnostic = diagnostic.label(span, &part.text);
            }
        }
        diagnostic.notes.clone_from(&self.notes);
        diagnostic.help.clone_from(&self.help);
        diagnostic
    }
}

/// Returns the path of a part of the file that stands for a component.
pub(crate) fn path_of(component: &Component) -> String {
    use evenkeel_model::place::Domain;
    match component {
        Component::Replica(service, _, _) => format!("service.{service}.replicas"),
        Component::Gateway(host) | Component::Voter(host) | Component::Node(host) => {
            format!("host.{host}")
        }
        Component::Place(Domain::Host(host)) => format!("host.{host}"),
        Component::Place(Domain::Zone(region, zone)) => format!("zone.{region}.{zone}"),
        Component::Place(Domain::Region(region)) => format!("region.{region}"),
    }
}
