//! `evenkeel host`: gives out tokens, and joins a system with one; `evenkeel ca`: begins one.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_files::{Readers, replace};
use evenkeel_node::data::DataFolder;
use evenkeel_node::joining::{self, JoinError};
use evenkeel_node::membership::routes::TOKENS_PATH;
use evenkeel_trust::folder::{Folder, FolderError};
use evenkeel_trust::join::Refusal;
use evenkeel_trust::renewal::now;
use evenkeel_trust::token::Token;

use crate::cli::host::{CaCommand, HostCommand};
use crate::commands::{input, local};
use crate::failure::{Failure, Outcome};
use crate::show;

/// Longest wait for a token: an election may have to end first.
const TOKEN_MAX: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
/// When there is no token, or it is not redeemed.
pub(crate) fn run(command: &HostCommand) -> Outcome {
    match command {
        HostCommand::Token { host, ttl, data } => give_token(host, *ttl, data),
        HostCommand::Join { token, data } => join(token, data),
    }
}

fn give_token(host: &str, life: Duration, data: &Path) -> Outcome {
    let shown = data.display();
    let Some(stream) = local::connect(data)? else {
        return Err(Failure::new(format!("no node answers on `{shown}`")).with_help(
            "run this on a host whose node runs: start it with `evenkeel node`, or give its \
             folder with --data",
        ));
    };
    if !host.chars().all(|character| character.is_ascii_alphanumeric() || character == '-') {
        return Err(Failure::bad_input(anyhow::Error::msg(format!("`{host}` is no host's name"))));
    }
    let path = format!("{TOKENS_PATH}?host={host}&seconds={}", life.as_secs());
    let local::Answer { status, body } = local::send(stream, "POST", &path, "", TOKEN_MAX)?;
    match status {
        200 => {
            show::result(&body)?;
            Ok(ExitCode::SUCCESS)
        }
        404 => Err(Failure::bad_input(anyhow::Error::msg(body))
            .with_help("add the host to the system file first, or give one of its names")),
        503 => Err(Failure::no_quorum(anyhow::Error::msg(body))
            .with_help("bring the voters back: `evenkeel status` names them")),
        _ => Err(Failure::bad_input(anyhow::Error::msg(body))),
    }
}

fn join(token: &str, data: &Path) -> Outcome {
    let token = Token::parse(token).map_err(|error| {
        Failure::bad_input(error)
            .with_help("copy the whole line that `evenkeel host token` printed")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    if let Err(error) = runtime.block_on(joining::join(&token, data)) {
        let help = error.help(&token);
        let no_quorum = matches!(error, JoinError::Refused(Refusal::Unavailable));
        let error = anyhow::Error::new(error);
        let failure = if no_quorum { Failure::no_quorum(error) } else { Failure::from(error) };
        return Err(failure.with_help(help));
    }
    let (host, system, data) = (&token.host, &token.system, data.display());
    show::result(&format!(
        "host `{host}` has joined system `{system}`; start it: evenkeel node --data {data}"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `evenkeel ca`.
///
/// # Errors
/// When the file can't be used, or the folder belongs to somebody else.
pub(crate) fn run_ca(command: &CaCommand) -> Outcome {
    let CaCommand::Init { system, host, data } = command;
    let text = input::read(system)?;
    let parsed = input::parse(system, &text)?.system;
    let place = parsed.find_host(host).map_err(|error| {
        let text = format!("{error} in `{}`", system.display());
        Failure::bad_input(anyhow::Error::msg(text))
            .with_help("say with --host which of them this machine is")
    })?;
    let opened = DataFolder::open(data, &parsed.name, &place.name).map_err(|error| {
        let help = error.help();
        Failure::from(anyhow::Error::new(error)).with_help(help)
    })?;
    let folder = Folder::of(data);
    let refused = |error: FolderError| {
        let help = error.help();
        Failure::from(anyhow::Error::new(error)).with_help(help)
    };
    if folder.credentials().map_err(refused)?.is_some() {
        let text = format!("host `{host}` has joined already: its authority is made");
        return Err(Failure::new(text).with_help("start it with `evenkeel node`"));
    }
    folder.bootstrap(&parsed.name, &place.name, now()).map_err(refused)?;
    if !opened.system_file().exists() {
        replace(&opened.system_file(), text.as_bytes(), Readers::Usual)
            .context("write the system file")?;
    }
    let (name, data) = (&parsed.name, data.display());
    show::result(&format!(
        "system `{name}` has its certificate authority; start host `{host}`: evenkeel node --data \
         {data}\nthen let the others join: evenkeel host token NAME --data {data}"
    ))?;
    Ok(ExitCode::SUCCESS)
}
