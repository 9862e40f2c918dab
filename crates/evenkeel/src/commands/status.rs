//! `evenkeel status`: one sentence, then what it rests on.

use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_node::data::at_short_path;
use evenkeel_node::events::Event;
use evenkeel_node::status::{HostWire, InstanceWire, Source, StatusWire};
use evenkeel_node::wire::{HostStateWire, StateWire};

use crate::cli::StatusArguments;
use crate::commands::local;
use crate::exit::{GOAL_NOT_MET, NO_QUORUM};
use crate::failure::{Failure, Outcome};
use crate::show;

/// Longest wait for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Events shown.
const EVENTS_SHOWN: usize = 5;

/// Time between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Missing things shown.
const MISSING_SHOWN: usize = 8;

/// Runs the command. Exit code 3 when the goal is not met, 4 without a quorum.
///
/// # Errors
/// When no node runs on the data folder.
pub(crate) fn run(arguments: &StatusArguments) -> Outcome {
    if arguments.watch {
        return watch(&arguments.data);
    }
    let (status, body) = look(&arguments.data)?;
    if arguments.json {
        show::result(&body)?;
    } else {
        show::result(describe(&status).trim_end())?;
    }
    Ok(match (status.source, status.goal_met) {
        (Source::Local, _) => ExitCode::from(NO_QUORUM),
        (Source::Leader, false) => ExitCode::from(GOAL_NOT_MET),
        (Source::Leader, true) => ExitCode::SUCCESS,
    })
}

/// Shows the status every second, until it can't be shown any more.
fn watch(data: &Path) -> Outcome {
    // Clears the terminal and begins at its upper left corner (ECMA-48 §8.3.39, §8.3.21).
    let begin = if std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
    loop {
        let text = match look(data) {
            Ok((status, _)) => describe(&status),
            Err(failure) => failure.text(),
        };
        show::result(&format!("{begin}{}", text.trim_end()))?;
        std::thread::sleep(WATCH_EVERY);
    }
}

/// Asks the node of this machine.
fn look(data: &Path) -> Result<(StatusWire, String), Failure> {
    let stream = local::connect(data)?.ok_or_else(|| no_node(data))?;
    let body = local::ask(stream, "GET", "/v1/status", ANSWER_MAX)?;
    let status: StatusWire = serde_json::from_str(&body).context("read the node's status")?;
    Ok((status, body))
}

/// Says what goes on without a node.
fn no_node(data: &Path) -> Failure {
    let shown = data.display();
    let alive = living_shims(&data.join("shims"));
    let (rest, cure) = if alive.is_empty() {
        ("nothing that it started runs".to_owned(), String::new())
    } else {
        let verb = if alive.len() == 1 { "goes" } else { "go" };
        let cure = format!(", or stop the rest with `evenkeel down --data {shown}`");
        (format!("{} {verb} on", alive.join(", ")), cure)
    };
    Failure::new(format!("no node answers on `{shown}`; {rest}"))
        .with_help(format!("start it again with `evenkeel node --data {shown} …`{cure}"))
}

/// Names the processes whose shims live.
fn living_shims(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut alive: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let socket = entry.path().join("control.sock");
            at_short_path(&socket, |path| UnixStream::connect(path)).is_ok()
        })
        .map(|entry| format!("`{}`", entry.file_name().to_string_lossy()))
        .collect();
    alive.sort();
    alive
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
    writeln!(text)?;
    write_table(&table(status), text)?;
    writeln!(text)?;
    for gateway in &status.gateways {
        writeln!(text, "gateway {} of every host, here {}", gateway.name, gateway.url)?;
    }
    let leader = status.leader.as_deref().unwrap_or("none");
    writeln!(text, "leader {leader}, term {}, plan {}", status.term, status.plan_number)?;
    if status.source == Source::Leader && !status.redundancy.full {
        writeln!(text, "\nmissing:")?;
        let missing = &status.redundancy.missing;
        for sentence in missing.iter().take(MISSING_SHOWN) {
            writeln!(text, "  {sentence}")?;
        }
        if let Some(more) = missing.len().checked_sub(MISSING_SHOWN).filter(|more| *more > 0) {
            writeln!(text, "  and {more} more")?;
        }
    }
    if !status.events.is_empty() {
        writeln!(text, "\nlately:")?;
    }
    let skipped = status.events.len().saturating_sub(EVENTS_SHOWN);
    for event in status.events.iter().skip(skipped) {
        writeln!(text, "  {:>9}  {}", age(event, status.now_ns), shorten(&event.text))?;
    }
    Ok(())
}

fn table(status: &StatusWire) -> Vec<[String; 5]> {
    let titles = ["host", "place", "state", "votes", "replicas"].map(str::to_owned);
    let row = |host: &HostWire| {
        let replicas = status.instances.iter().filter(|instance| instance.host == host.name);
        let replicas: Vec<String> =
            replicas.map(|instance| replica(instance, status.source)).collect();
        let replicas =
            if host.role == "witness" { "witness".to_owned() } else { replicas.join(", ") };
        let leads = status.leader.as_deref() == Some(host.name.as_str());
        let votes = match (leads, host.voter, host.learner) {
            (true, ..) => "leads",
            (false, true, _) => "yes",
            (false, false, true) => "soon",
            (false, false, false) => "no",
        };
        let place = format!("{}/{}", host.region, host.zone);
        [host.name.clone(), place, state(host, status.source), votes.to_owned(), replicas]
    };
    std::iter::once(titles).chain(status.hosts.iter().map(row)).collect()
}

/// How the leader sees a host; without one, whether the host answers this one.
fn state(host: &HostWire, source: Source) -> String {
    match (source, host.state, host.round_trip_ms) {
        (Source::Leader, Some(HostStateWire::Up), _) if host.drained => "drained".to_owned(),
        (Source::Leader, Some(state), _) => format!("{state:?}").to_lowercase(),
        (Source::Leader, None, _) => "unknown".to_owned(),
        (Source::Local, _, Some(_)) => "answers".to_owned(),
        (Source::Local, _, None) => "silent".to_owned(),
    }
}

/// Names a replica, and says how it is when that is worth a word.
fn replica(instance: &InstanceWire, source: Source) -> String {
    let id = &instance.id;
    let state = match (instance.state, source) {
        (Some(StateWire::Ready), _) if instance.phase == "draining" => " (draining)".to_owned(),
        (Some(StateWire::Ready), _) | (None, Source::Local) => String::new(),
        (None, Source::Leader) => " (not reported)".to_owned(),
        (Some(state), _) => format!(" ({})", words(state)),
    };
    format!("{id}{state}")
}

const fn words(state: StateWire) -> &'static str {
    match state {
        StateWire::Starting => "starting",
        StateWire::Ready => "ready",
        StateWire::NotReady => "not ready",
        StateWire::BackingOff => "backing off",
        StateWire::Failed => "failed",
        StateWire::Stopping => "stopping",
    }
}

fn write_table(rows: &[[String; 5]], text: &mut String) -> std::fmt::Result {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..5).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "  {cell:width$}")?;
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Says how long ago an event was.
pub(super) fn age(event: &Event, now_ns: u64) -> String {
    let seconds = now_ns.saturating_sub(event.at_ns) / 1_000_000_000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

/// Keeps the first of several sentences.
fn shorten(text: &str) -> String {
    match text.split_once("; ") {
        Some((first, rest)) => format!("{first}; and {} more", rest.split("; ").count()),
        None => text.to_owned(),
    }
}
