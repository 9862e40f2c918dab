//! `evenkeel plan`, `apply`, `drain` and `undrain`: changes of the running system, shown before
//! they are made.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use evenkeel_node::api::changes::DrainWire;
use evenkeel_node::change::{Examination, Progress, State, Verdict, progress};
use evenkeel_node::status::{DRAINING, StatusWire};

use crate::cli::change::{ApplyArguments, DrainArguments, PlanArguments, UndrainArguments};
use crate::commands::{input, local};
use crate::exit::{CHANGES, GOAL_NOT_MET};
use crate::failure::{Failure, Outcome};
use crate::show;

/// Longest wait for an answer: an election may be under way.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Pause between two looks at a change under way.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Shows what a file would change. Exit code 5 when asked for and there is something, 3 when the
/// goal would not be met.
///
/// # Errors
/// When the file has errors, or no node or leader answers.
pub(crate) fn plan(arguments: &PlanArguments) -> Outcome {
    let text = read(&arguments.file)?;
    let examination = examine(&arguments.data, "/v1/system?dry-run", &text)?;
    if arguments.json {
        let body = serde_json::to_string(&examination).context("write the plan as JSON")?;
        show::result(&body)?;
    } else {
        show::result(describe(&examination).trim_end())?;
        if !examination.changes.is_empty() && examination.refusals.is_empty() {
            let (file, state) = (arguments.file.display(), examination.state);
            show::say(&format!("\nto make it so: evenkeel apply {file} --state {state}"));
        }
    }
    Ok(if !examination.refusals.is_empty() {
        ExitCode::FAILURE
    } else if !examination.risks.is_empty() {
        ExitCode::from(GOAL_NOT_MET)
    } else if arguments.exit_code && examination.verdict != Verdict::Nothing {
        ExitCode::from(CHANGES)
    } else {
        ExitCode::SUCCESS
    })
}

/// Puts a file in force.
///
/// # Errors
/// As those of [`plan`], and when the change may not be made.
pub(crate) fn apply(arguments: &ApplyArguments) -> Outcome {
    let text = read(&arguments.file)?;
    let mut path = "/v1/system?".to_owned();
    if arguments.accept_risk {
        path.push_str("accept-risk&");
    }
    if let Some(state) = &arguments.state {
        // Writing to a string can't fail.
        let _infallible = write!(path, "state={state}");
    }
    make(&arguments.data, &path, &text, arguments.wait)
}

/// Empties hosts.
///
/// # Errors
/// As those of [`apply`].
pub(crate) fn drain(arguments: &DrainArguments) -> Outcome {
    let risk = if arguments.accept_risk { "accept-risk" } else { "" };
    let body = drain_body(&arguments.hosts, true)?;
    make(&arguments.data, &format!("/v1/drain?{risk}"), &body, arguments.wait)
}

/// Lets hosts be used again. That takes nothing away, so there is no risk to accept.
///
/// # Errors
/// As those of [`apply`].
pub(crate) fn undrain(arguments: &UndrainArguments) -> Outcome {
    let body = drain_body(&arguments.hosts, false)?;
    make(&arguments.data, "/v1/drain?accept-risk", &body, arguments.wait)
}

fn drain_body(hosts: &[String], drained: bool) -> anyhow::Result<String> {
    let wire = DrainWire { hosts: hosts.to_vec(), drained };
    serde_json::to_string(&wire).context("write the hosts as JSON")
}

/// Reads a file that has no errors: they are shown here, with their places.
fn read(file: &Path) -> Result<String, Failure> {
    let text = input::read(file)?;
    input::parse(file, &text)?;
    Ok(text)
}

fn make(data: &Path, path: &str, body: &str, wait: Option<Duration>) -> Outcome {
    let examination = examine(data, path, body)?;
    show::result(describe(&examination).trim_end())?;
    let nothing = "nothing was changed";
    match (examination.verdict, examination.stored) {
        (Verdict::Made, Some(stored)) => match wait {
            Some(wait) => follow(data, examination.state, stored, wait),
            None => {
                show::say("under way: `evenkeel status --watch` shows how far it is");
                Ok(ExitCode::SUCCESS)
            }
        },
        (Verdict::Nothing | Verdict::Possible | Verdict::Made, _) => Ok(ExitCode::SUCCESS),
        (Verdict::Moved, _) => {
            let text = format!("{nothing}: somebody else has changed the system since");
            Err(Failure::new(text).with_help("look at it again with `evenkeel plan`"))
        }
        (Verdict::Risky, _) => {
            show::say(&format!("{nothing}: the goal would not be met"));
            show::say("help: add --accept-risk if that is what you want");
            Ok(ExitCode::from(GOAL_NOT_MET))
        }
        (Verdict::Impossible, _) => {
            Err(Failure::new(format!("{nothing}: the system can't be changed so")))
        }
    }
}

/// Sends a change to the node of this machine.
fn examine(data: &Path, path: &str, body: &str) -> Result<Examination, Failure> {
    let stream = local::connect(data)?.ok_or_else(|| local::no_node(data))?;
    let answer = local::send(stream, "POST", path, body, ANSWER_MAX)?;
    match answer.status {
        200 => Ok(serde_json::from_str(&answer.body).context("read the node's answer")?),
        503 => Err(Failure::no_quorum(anyhow!("no leader answers: {}", answer.body.trim()))),
        400 => Err(Failure::bad_input(anyhow!("{}", answer.body.trim()))),
        status => Err(Failure::new(format!("the node answers {status}: {}", answer.body.trim()))),
    }
}

fn describe(examination: &Examination) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _infallible = describe_parts(examination, &mut text);
    text
}

fn describe_parts(examination: &Examination, text: &mut String) -> std::fmt::Result {
    if examination.changes.is_empty() {
        return writeln!(text, "nothing to change");
    }
    for change in &examination.changes {
        writeln!(text, "  {change}")?;
    }
    let started = show::count(examination.cost.started, "replica", "replicas");
    writeln!(text, "{started} to start, {} to stop", examination.cost.stopped)?;
    for sentence in &examination.capacity {
        writeln!(text, "{sentence}")?;
    }
    for risk in &examination.risks {
        writeln!(text, "risk: {risk}")?;
    }
    for refusal in &examination.refusals {
        writeln!(text, "impossible: {refusal}")?;
    }
    Ok(())
}

/// Follows the change of a state until the system is whole again.
fn follow(data: &Path, before: State, stored: State, wait: Duration) -> Outcome {
    let until = Instant::now() + wait;
    let mut said: Vec<String> = Vec::new();
    loop {
        let status = look(data)?;
        let seen = status.wanted.is_some_and(|wanted| wanted.holds(stored));
        if seen {
            let missing = &status.redundancy.missing;
            for sentence in missing.iter().filter(|sentence| !said.contains(sentence)) {
                show::say(sentence);
            }
            said.clone_from(missing);
            let leaving =
                status.instances.iter().filter(|instance| instance.phase == DRAINING).count();
            match progress(missing, &status.deploys, leaving, before) {
                Progress::UnderWay => {}
                Progress::Done => {
                    show::result("done")?;
                    return Ok(ExitCode::SUCCESS);
                }
                Progress::Failed => {
                    let text = "the deploy has failed and was rolled back".to_owned();
                    return Err(Failure::new(text));
                }
            }
        }
        if Instant::now() >= until {
            return Err(Failure::new(format!("not done after {} s", wait.as_secs()))
                .with_help("it goes on: `evenkeel status --watch` shows how far it is"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn look(data: &Path) -> Result<StatusWire, Failure> {
    let stream = local::connect(data)?.ok_or_else(|| local::no_node(data))?;
    let body = local::ask(stream, "GET", "/v1/status", ANSWER_MAX)?;
    Ok(serde_json::from_str(&body).context("read the node's status")?)
}
