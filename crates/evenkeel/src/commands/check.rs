//! `evenkeel check`: the file first, then whether its places can keep its goal.

use std::path::Path;
use std::process::ExitCode;

use evenkeel_audit::assessment::{Assessment, Capacity, assess};
use evenkeel_diagnostic::{Diagnostic, render};
use evenkeel_model::system::System;
use serde_json::{Value, json};

use crate::commands::input;
use crate::exit::{BAD_INPUT, GOAL_NOT_MET};
use crate::failure::Outcome;
use crate::show;

/// Version of what `--json` prints. Fields may be added to it; none changes its meaning.
const FORMAT: u32 = 1;

/// Runs the command. Exit code 2 for a bad file, 3 for a goal that can't be met.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn run(file: &Path, as_json: bool) -> Outcome {
    let text = input::read(file)?;
    let parsed = match evenkeel_system_file::parse(&text) {
        Ok(parsed) => parsed,
        Err(diagnostics) if as_json => {
            let report = json!({
                "format": FORMAT, "goal_met": null, "findings": to_json(&diagnostics, &text),
            });
            show::result(&report.to_string())?;
            return Ok(ExitCode::from(BAD_INPUT));
        }
        Err(diagnostics) => {
            input::show_errors(&diagnostics, file, &text);
            return Ok(ExitCode::from(BAD_INPUT));
        }
    };
    let assessment = assess(&parsed.system);
    let found = assessment
        .findings
        .iter()
        .map(|finding| finding.to_diagnostic(|path| parsed.spans.find(path)));
    let diagnostics: Vec<Diagnostic> = parsed.warnings.into_iter().chain(found).collect();
    if as_json {
        let report = json!({
            "format": FORMAT,
            "system": parsed.system.name.to_string(),
            "survive": parsed.system.goal.to_string(),
            "goal_met": assessment.goal_met,
            "findings": to_json(&diagnostics, &text),
            "capacity": assessment.capacity.iter().map(capacity_to_json).collect::<Value>(),
        });
        show::result(&report.to_string())?;
    } else {
        show::diagnostics(&diagnostics, file, &text);
        show::result(&verdict(&parsed.system, &assessment, &diagnostics, file))?;
    }
    Ok(if assessment.goal_met { ExitCode::SUCCESS } else { ExitCode::from(GOAL_NOT_MET) })
}

fn to_json(diagnostics: &[Diagnostic], text: &str) -> Value {
    diagnostics.iter().map(|diagnostic| one_to_json(diagnostic, text)).collect()
}

fn one_to_json(diagnostic: &Diagnostic, text: &str) -> Value {
    let labels = diagnostic.labels.iter().map(|label| {
        let (line, column) = render::locate(text, label.span.start);
        json!({ "line": line, "column": column, "text": label.text })
    });
    json!({
        "code": diagnostic.code.to_string(),
        "severity": diagnostic.severity.as_str(),
        "message": diagnostic.message,
        "labels": labels.collect::<Vec<_>>(),
        "notes": diagnostic.notes,
        "help": diagnostic.help,
    })
}

fn capacity_to_json(capacity: &Capacity) -> Value {
    json!({
        "service": capacity.service.to_string(),
        "replicas": capacity.replicas,
        "left": capacity.left,
        "worst": capacity.worst.as_ref().map(ToString::to_string),
    })
}

/// One sentence, what is left of each service, and the next useful command.
fn verdict(
    system: &System,
    assessment: &Assessment,
    diagnostics: &[Diagnostic],
    file: &Path,
) -> String {
    let (name, goal) = (&system.name, system.goal);
    let parts = [
        show::count(system.hosts.len(), "host", "hosts"),
        show::count(system.regions.len(), "region", "regions"),
        show::count(system.services.len(), "service", "services"),
        show::count(system.gateways.len(), "gateway", "gateways"),
    ];
    let parts = parts.join(", ");
    let left = assessment.capacity.iter().map(|capacity| capacity.sentence(system.goal) + "\n");
    let left: String = left.collect();
    if assessment.goal_met {
        format!(
            "{name} survives the loss of any one {goal} on paper: {parts}\n{left}\
             `evenkeel demo {}` proves it on this machine",
            file.display()
        )
    } else {
        let more = diagnostics.first().map_or_else(String::new, |first| {
            format!("`evenkeel explain {}` says more", first.code)
        });
        let text =
            format!("{name} would not survive the loss of any one {goal}: {parts}\n{left}{more}");
        text.trim_end().to_owned()
    }
}
