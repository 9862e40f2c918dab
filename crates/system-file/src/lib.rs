//! Reads a system file, TOML, into [`System`].
//!
//! Decides what a file means and tells everything that is wrong with it at once. Does no IO, and
//! does not judge whether the system can keep its promise: `audit` does.

mod coordinator;
mod defaults;
mod gateways;
mod keys;
mod placeholders;
mod places;
mod ports;
mod reader;
mod references;
pub mod schema;
mod services;
pub mod spans;
mod suggestion;
mod units;

use evenkeel_diagnostic::code::Code;
use evenkeel_diagnostic::{Diagnostic, Severity};
use evenkeel_model::name::SystemName;
use evenkeel_model::place::SurvivalGoal;
use evenkeel_model::system::System;
use evenkeel_model::voting::deal_voters;
use toml::Spanned;
use toml::de::DeTable;

use crate::reader::{Reader, Table};
use crate::spans::Spans;

pub use units::{format_duration, parse_duration};

/// A file that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What it declares.
    pub system: System,
    /// What is worth knowing about it, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// Where each part stands, for what is found out about the system later.
    pub spans: Spans,
}

/// Reads a system file.
///
/// # Errors
/// Everything that is wrong with it, warnings included, in the order of the file. At least one
/// is an error. Faults of the TOML syntax are reported alone, because what follows one is guesswork.
pub fn parse(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new(text);
    if errors.iter().any(|error| !is_duplicate(error)) {
        return Err(errors.iter().map(syntax_diagnostic).collect());
    }
    for error in &errors {
        reader.report(duplicate_diagnostic(text, error));
    }
    let system = read(&mut reader, &table);
    let Reader { mut diagnostics, spans, .. } = reader;
    diagnostics.sort_by_key(|diagnostic| diagnostic.labels.first().map(|label| label.span.start));
    let faulty = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match system {
        Some(system) if !faulty => Ok(Parsed { system, warnings: diagnostics, spans }),
        Some(_) | None => Err(diagnostics),
    }
}

/// Returns the commented file that `evenkeel init` writes.
#[must_use]
pub const fn template() -> &'static str {
    include_str!("template.toml")
}

fn read<'t>(reader: &mut Reader<'t>, table: &'t Spanned<DeTable<'t>>) -> Option<System> {
    let table = reader.open(&keys::SYSTEM, String::new(), None, table.get_ref());
    let name = reader.text(&table, "system");
    let name = name.and_then(|text| reader.name(&text, "a system", SystemName::parse));
    let goal = read_goal(reader, &table);
    let places = places::read(reader, &table);
    let services = services::read(reader, &table);
    let gateways = gateways::read(reader, &table);
    let ports = ports::read(reader, &table);
    let replace_after = coordinator::read_replace_after(reader, &table);
    ports::check_clashes(reader, &ports, &services, &gateways);
    references::check(reader, &places, &services, &gateways);
    references::check_databases(reader);
    let mut system = System {
        name: name?,
        goal: goal?,
        regions: places.regions,
        hosts: places.hosts,
        services: services.services,
        gateways: gateways.gateways,
        ports,
        voters: Vec::new(),
        learners: Vec::new(),
        replace_after,
    };
    system.voters = deal_voters(&system);
    Some(system)
}

fn read_goal<'t>(reader: &mut Reader<'t>, table: &Table<'t>) -> Option<SurvivalGoal> {
    let word = reader.word(table, "survive", keys::GOALS)?;
    SurvivalGoal::ALL.into_iter().find(|goal| goal.as_str() == word)
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

fn syntax_diagnostic(error: &toml::de::Error) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(Code::Syntax, error.message());
    if error.message().starts_with("string values must be quoted") {
        diagnostic = diagnostic.help("put the text in quotes; durations and sizes are texts too");
    }
    match error.span() {
        Some(span) => diagnostic.label(span, "cannot be read as TOML from here"),
        None => diagnostic,
    }
}

fn duplicate_diagnostic(text: &str, error: &toml::de::Error) -> Diagnostic {
    let name = error.span().and_then(|span| text.get(span)).unwrap_or("a key").escape_debug();
    let diagnostic = Diagnostic::error(Code::DuplicateName, format!("`{name}` stands here twice"))
        .help("keep one of the two");
    match error.span() {
        Some(span) => diagnostic.label(span, "written a second time"),
        None => diagnostic,
    }
}
