//! `evenkeel recover`: lets the system go on from this host's log alone.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::process::ExitCode;

use anyhow::Context as _;
use evenkeel_node::recover::{RecoverError, Recovery, Report};
use serde_json::json;

use crate::cli::RecoverArguments;
use crate::commands::local;
use crate::failure::{Failure, Outcome};
use crate::show;

/// Runs the command.
///
/// # Errors
/// When the system can't, or must not, go on from this host; nothing was changed then.
pub(crate) fn run(arguments: &RecoverArguments) -> Outcome {
    local::check_folder(&arguments.data)?;
    let recovery = Recovery::examine(&arguments.data).map_err(refuse)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the event loop")?;
    let checked = runtime.block_on(recovery.check_nobody_leads());
    drop(runtime);
    let report = recovery.report();
    if arguments.dry_run {
        show(arguments, &report, None)?;
        warn(checked.map_err(refuse)?);
        if !arguments.json {
            show::say("nothing was changed: without --dry-run this is done");
        }
        return Ok(ExitCode::SUCCESS);
    }
    warn(checked.map_err(refuse)?);
    let lineage = recovery.carry_out(random()).map_err(refuse)?;
    show(arguments, &report, Some(&lineage))?;
    Ok(ExitCode::SUCCESS)
}

/// Says what nobody but a person can tell: a lone survivor from a host that is cut off.
fn warn(answering: usize) {
    if answering == 0 {
        show::say(
            "warning: no other host answers; if this one is only cut off from them, what they agree \
             on meanwhile is lost once they hear of it again",
        );
    }
}

fn refuse(error: RecoverError) -> Failure {
    let help = error.help();
    let wrong_place = matches!(
        error,
        RecoverError::NoSystem(_) | RecoverError::Removed(_) | RecoverError::NoLog(_)
    );
    let failure = if wrong_place {
        Failure::bad_input(error)
    } else {
        Failure::from(anyhow::Error::new(error))
    };
    failure.with_help(help)
}

/// A number that another host's will differ from: the standard library seeds its maps with them.
fn random() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn show(
    arguments: &RecoverArguments,
    report: &Report,
    lineage: Option<&str>,
) -> anyhow::Result<()> {
    if arguments.json {
        let mut object = serde_json::to_value(report).context("write JSON")?;
        object["lineage"] = json!(lineage);
        return show::result(&object.to_string());
    }
    show::result(&text(report, lineage))
}

fn text(report: &Report, lineage: Option<&str>) -> String {
    let Report { system, host, revision, last_entry, unsure_entries, .. } = report;
    let keys = show::count(report.keys, "key", "keys");
    let mut text = format!(
        "log of `{host}` in system `{system}`: {keys} at revision {revision}, last entry {last_entry}\n"
    );
    if *unsure_entries > 0 {
        text += &format!(
            "entries at its end that a majority may not have agreed to, and that stay: {unsure_entries}\n"
        );
    }
    if !report.voted {
        text += "it did not vote any more: its log ends where another host took its place\n";
    }
    let given_up = match report.given_up.as_slice() {
        [] => "nobody".to_owned(),
        names => names.join(", "),
    };
    text += &match lineage {
        None => format!(
            "`{host}` would be the only voter; given up: {given_up}\n\
             lost would be what was acknowledged and never came to `{host}`"
        ),
        Some(lineage) => format!(
            "`{host}` is the only voter, of lineage {lineage}; given up: {given_up}\n\
             start its node: others are made voters as they are seen, those given up join anew"
        ),
    };
    text
}
