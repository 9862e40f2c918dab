//! `evenkeel check`: the file first, then whether its places can keep its goal.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use evenkeel_audit::assessment::{Assessment, assess};
use evenkeel_diagnostic::{Diagnostic, Severity, render};
use evenkeel_model::system::System;
use serde_json::{Value, json};

use crate::commands::{BAD_INPUT, GOAL_NOT_MET};
use crate::show;

/// Runs the command. Exit code 2 for a bad file, 3 for a goal that can't be met.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn run(file: &Path, as_json: bool) -> Result<ExitCode> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("read `{}`", file.display()))?;
    let parsed = match evenkeel_system_file::parse(&text) {
        Ok(parsed) => parsed,
        Err(diagnostics) => {
            report(&diagnostics, file, &text, as_json);
            if !as_json {
                show::say(&summary(&diagnostics, file));
            }
            return Ok(ExitCode::from(BAD_INPUT));
        }
    };
    let assessment = assess(&parsed.system);
    let found = assessment
        .findings
        .iter()
        .map(|finding| finding.to_diagnostic(|path| parsed.spans.find(path)));
    let diagnostics: Vec<Diagnostic> = parsed.warnings.into_iter().chain(found).collect();
    report(&diagnostics, file, &text, as_json);
    if !as_json {
        show::result(&verdict(&parsed.system, &assessment));
    }
    Ok(if assessment.goal_met { ExitCode::SUCCESS } else { ExitCode::from(GOAL_NOT_MET) })
}

fn report(diagnostics: &[Diagnostic], file: &Path, text: &str, as_json: bool) {
    if as_json {
        let all: Vec<Value> =
            diagnostics.iter().map(|diagnostic| to_json(diagnostic, text)).collect();
        show::result(&Value::from(all).to_string());
    } else {
        show::diagnostics(diagnostics, file, text);
    }
}

fn to_json(diagnostic: &Diagnostic, text: &str) -> Value {
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

fn summary(diagnostics: &[Diagnostic], file: &Path) -> String {
    let errors =
        diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let noun = if errors == 1 { "error" } else { "errors" };
    let first = diagnostics.first().map(|first| first.code.to_string()).unwrap_or_default();
    format!(
        "{errors} {noun} in `{}`; `evenkeel explain {first}` says more about the first",
        file.display()
    )
}

fn verdict(system: &System, assessment: &Assessment) -> String {
    let (name, goal) = (&system.name, system.goal);
    let parts = format!(
        "{} hosts in {} regions, {} services, {} gateways",
        system.hosts.len(),
        system.regions.len(),
        system.services.len(),
        system.gateways.len()
    );
    if assessment.goal_met {
        format!(
            "{name} survives the loss of any one {goal} on paper ({parts}); `evenkeel demo FILE` proves it"
        )
    } else {
        format!("{name} does not survive the loss of every one {goal} ({parts})")
    }
}
