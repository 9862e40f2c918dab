//! `evenkeel node`: one real host; and the gateway process that it starts.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use evenkeel_gateway as gateway;
use evenkeel_model::name::HostName;
use evenkeel_node::clock;
use evenkeel_node::data::{self, LogWanted};
use evenkeel_node::host::Ending;
use evenkeel_node::protection::{ProtectionError, Wanted};
use evenkeel_node::start::{self, Options, StartError};
use evenkeel_telemetry::logs::{self, LogFormat, Place};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::NodeArguments;
use crate::commands::input;
use crate::failure::{Failure, Outcome};
use crate::show;

/// The flag that is meant for one start alone.
const REJOIN_EMPTY: &str = "--rejoin-empty";

/// Runs a node until it is told to end, starting anew when the system file in force changes.
///
/// # Errors
/// When it can't start.
pub(crate) fn run(arguments: &NodeArguments) -> Outcome {
    let program = std::env::current_exe().context("find this program")?;
    let host = match &arguments.host {
        Some(host) => host.clone(),
        None => joined_host(&arguments.data)?,
    };
    start_logs("node", &host);
    let in_force = || data::system_file(&arguments.data);
    let options = Options {
        system_file: arguments.system.clone().unwrap_or_else(in_force),
        host,
        data: arguments.data.clone(),
        protection: if arguments.bootstrap { Wanted::Bootstrap } else { Wanted::Joined },
        log: if arguments.rejoin_empty { LogWanted::Lost } else { LogWanted::Kept },
        program: program.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .context("start the event loop")?;
    let ending = runtime.block_on(async {
        let leave = leave_on_signal()?;
        Ok::<_, anyhow::Error>(start::run(options, leave).await)
    })?;
    drop(runtime);
    match ending {
        Ok(Ending::Down) => Ok(ExitCode::SUCCESS),
        Ok(Ending::Leave) => {
            show::say(&format!(
                "the node has ended; what it started goes on: `evenkeel down --data {}` stops that too",
                arguments.data.display()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ending::Restart | Ending::Superseded) => {
            // By now the log has begun anew: it is there, and must be from now on.
            let arguments = std::env::args_os().skip(1).filter(|word| word != REJOIN_EMPTY);
            let error = Command::new(program).args(arguments).exec();
            let error = anyhow::Error::new(error);
            Err(error.context("can't start again with the replicated system file").into())
        }
        Err(error) => Err(refuse(error)),
    }
}

/// Returns whose data folder this is.
fn joined_host(data: &Path) -> Result<String, Failure> {
    data::owner(data).ok_or_else(|| {
        let text =
            format!("which host this is stands neither in `{}` nor in --host", data.display());
        Failure::bad_input(anyhow::Error::msg(text))
            .with_help("join with `evenkeel host join`, or give --system and --host the first time")
    })
}

fn refuse(error: StartError) -> Failure {
    let help = error.help();
    let failure = match error {
        StartError::File { path, text, diagnostics } => {
            input::show_errors(&diagnostics, &path, &text);
            return Failure::shown();
        }
        StartError::Read { .. }
        | StartError::NoHost { .. }
        | StartError::Protection(ProtectionError::NotJoined { .. })
        | StartError::RejoinsWithoutLog { .. } => Failure::bad_input(error),
        StartError::Protection(ProtectionError::Folder(_))
        | StartError::Data(_)
        | StartError::Listen { .. }
        | StartError::Control { .. }
        | StartError::Shims { .. }
        | StartError::Coordinator(_) => Failure::from(anyhow::Error::new(error)),
    };
    match help {
        Some(help) => failure.with_help(help),
        None => failure,
    }
}

/// Turns true on SIGTERM or SIGINT.
fn leave_on_signal() -> Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let (leave, told) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        leave.send_replace(true);
    });
    Ok(told)
}

fn start_logs(process: &str, host: &str) {
    let format = if std::io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    let place = Place { host: host.to_owned(), process: process.to_owned(), ..Place::default() };
    logs::start(place, format);
}

/// Runs a gateway process.
///
/// # Errors
/// When the host's name is none.
pub(crate) fn gateway(snapshot: PathBuf, host: &str, trust: Option<PathBuf>) -> Outcome {
    start_logs("gateway", host);
    let host = HostName::parse(host)
        .map_err(|error| Failure::bad_input(anyhow::Error::new(error).context("read --host")))?;
    let seed = clock::now().as_nanos() ^ u64::from(std::process::id());
    Ok(gateway::run(gateway::Options { snapshot, host, trust, seed }))
}
