//! `evenkeel status`: one sentence, then what it rests on.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use evenkeel_node::status::{Source, StatusWire};

use crate::cli::StatusArguments;
use crate::commands::{GOAL_NOT_MET, NO_QUORUM, local};
use crate::show;

/// Longest wait for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Events shown.
const EVENTS_SHOWN: usize = 5;

/// Runs the command. Exit code 3 when the goal is not met, 4 without a quorum.
///
/// # Errors
/// When no node runs on the data folder.
pub(crate) fn run(arguments: &StatusArguments) -> Result<ExitCode> {
    let body = local::ask(&arguments.data, "GET", "/v1/status", ANSWER_MAX)?;
    let status: StatusWire = serde_json::from_str(&body).context("read the node's status")?;
    if arguments.json {
        show::result(&body);
    } else {
        show::result(describe(&status).trim_end());
    }
    Ok(match (status.source, status.goal_met) {
        (Source::Local, _) => ExitCode::from(NO_QUORUM),
        (Source::Leader, false) => ExitCode::from(GOAL_NOT_MET),
        (Source::Leader, true) => ExitCode::SUCCESS,
    })
}

fn describe(status: &StatusWire) -> String {
    let mut text = format!("{}\n", status.sentence);
    // Writing to a string can't fail.
    let _infallible = describe_parts(status, &mut text);
    text
}

fn describe_parts(status: &StatusWire, text: &mut String) -> std::fmt::Result {
    for warning in &status.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    let leader = status.leader.as_deref().unwrap_or("none");
    writeln!(text, "\nleader {leader}, term {}, plan {}", status.term, status.plan_number)?;
    for host in &status.hosts {
        let state =
            host.state.map_or_else(|| "?".to_owned(), |state| format!("{state:?}").to_lowercase());
        let mut marks = Vec::new();
        if status.leader.as_deref() == Some(host.name.as_str()) {
            marks.push("leader");
        } else if host.voter {
            marks.push("voter");
        }
        if host.role == "witness" {
            marks.push("witness");
        }
        let place = format!("{}/{}", host.region, host.zone);
        writeln!(text, "  {:16} {place:12} {state:9} {}", host.name, marks.join(", "))?;
        for instance in status.instances.iter().filter(|instance| instance.host == host.name) {
            let state = instance
                .state
                .map_or_else(|| "?".to_owned(), |state| format!("{state:?}").to_lowercase());
            let error = instance
                .last_error
                .as_deref()
                .map(|error| format!("  ({error})"))
                .unwrap_or_default();
            let phase = if instance.phase == "draining" { " draining" } else { "" };
            writeln!(
                text,
                "    {:14} port {:<7} {state}{phase}{error}",
                instance.id, instance.port
            )?;
        }
    }
    if !status.events.is_empty() {
        writeln!(text, "\nlately:")?;
    }
    let skipped = status.events.len().saturating_sub(EVENTS_SHOWN);
    for event in status.events.iter().skip(skipped) {
        writeln!(text, "  {}", event.text)?;
    }
    Ok(())
}
