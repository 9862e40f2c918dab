//! `evenkeel logs` and `evenkeel events`: what replicas wrote and what changed lately.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_node::api::logs::LogWire;
use evenkeel_node::status::StatusWire;

use crate::cli::change::{EventsArguments, LogsArguments};
use crate::commands::{local, status};
use crate::failure::{Failure, Outcome};
use crate::show;

/// Longest wait for the answer: each replica's host may be silent.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Prints the last lines of each replica, each line with the replica's name.
///
/// # Errors
/// When no node runs on the data folder, or nothing has that name.
pub(crate) fn logs(arguments: &LogsArguments) -> Outcome {
    let LogsArguments { name, data, lines } = arguments;
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(label) {
        return Err(Failure::bad_input(anyhow::anyhow!("`{name}` is no service and no replica")));
    }
    let stream = local::connect(data)?.ok_or_else(|| local::no_node(data))?;
    let path = format!("/v1/logs?of={name}&lines={lines}");
    let answer = local::send(stream, "GET", &path, "", ANSWER_MAX)?;
    if answer.status != 200 {
        return Err(Failure::new(answer.body.trim().to_owned())
            .with_help("`evenkeel status` names services and replicas"));
    }
    let logs: Vec<LogWire> = serde_json::from_str(&answer.body).context("read the logs")?;
    let width = logs.iter().map(|log| log.instance.len()).max().unwrap_or_default();
    let mut all_read = true;
    for log in &logs {
        for line in &log.lines {
            show::result(&format!("{:width$}  {line}", log.instance))?;
        }
        if let Some(error) = &log.error {
            show::say(&format!("{} on {}: not read: {error}", log.instance, log.host));
            all_read = false;
        }
    }
    Ok(if all_read { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what changed lately, as the leader saw it.
///
/// # Errors
/// When no node runs on the data folder.
pub(crate) fn events(arguments: &EventsArguments) -> Outcome {
    let data = &arguments.data;
    let stream = local::connect(data)?.ok_or_else(|| local::no_node(data))?;
    let body = local::ask(stream, "GET", "/v1/status", ANSWER_MAX)?;
    let seen: StatusWire = serde_json::from_str(&body).context("read the node's status")?;
    for event in &seen.events {
        if arguments.json {
            show::result(&serde_json::to_string(event).context("write an event as JSON")?)?;
        } else {
            show::result(&format!("{:>9}  {}", status::age(event, seen.now_ns), event.text))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
