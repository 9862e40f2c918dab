//! `evenkeel kv`: keys, read and written from a terminal or a script.

mod keys;
mod leases;
mod locks;
pub(super) mod text;
mod transactions;
mod watch;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use evenkeel_client::{Client, Error, Options};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::kv::{ConnectionArguments, KvArguments, KvCommand, URL_DEFAULT};
use crate::failure::{Failure, Outcome};

/// Holds URLs, with commas between.
const URL_VARIABLE: &str = "EVENKEEL_URL";
/// Longest input in bytes: a transaction of 1 MiB in JSON.
const INPUT_MAX: u64 = 4 << 20;

/// Runs the command. Exit code 1 when a key is not there or not as expected, 4 without a quorum.
///
/// # Errors
/// When it was not done, or nobody knows.
pub(crate) fn run(arguments: &KvArguments) -> Outcome {
    let client = client(&arguments.connection)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let json = arguments.connection.json;
    runtime.context("start the event loop")?.block_on(carry_out(&client, &arguments.command, json))
}

async fn carry_out(client: &Client, command: &KvCommand, json: bool) -> Outcome {
    match command {
        KvCommand::Get { key, read } => keys::get(client, key, *read, json).await,
        KvCommand::Put { key, value, change, lease } => {
            keys::put(client, key, value, change, *lease, json).await
        }
        KvCommand::Delete { key, change } => keys::delete(client, key, change, json).await,
        KvCommand::List { prefix, limit, after, read } => {
            let list = keys::List { prefix, limit: *limit, after: after.as_deref(), read: *read };
            list.run(client, json).await
        }
        KvCommand::Watch { key, prefix, since } => {
            watch::run(client, key.as_deref(), prefix.as_deref(), *since, json).await
        }
        KvCommand::Txn { file, idempotency_key } => {
            transactions::run(client, file, idempotency_key.as_deref(), json).await
        }
        KvCommand::Lease(command) => leases::run(client, command, json).await,
        KvCommand::Lock { name, value, terms, command } => {
            locks::lock(client, name, value.as_deref(), *terms, command, json).await
        }
        KvCommand::Elect { name, value: Some(value), terms, .. } => {
            locks::lock(client, name, Some(value), *terms, &[], json).await
        }
        KvCommand::Elect { name, value: None, once, .. } => {
            locks::observe(client, name, *once, json).await
        }
        KvCommand::Compact { revision } => keys::compact(client, *revision, json).await,
    }
}

/// Makes a client of the hosts that the arguments name, else the environment, else of this one.
pub(super) fn client(arguments: &ConnectionArguments) -> Result<Client, Failure> {
    let named = std::env::var(URL_VARIABLE).unwrap_or_default();
    let split = named.split(',').map(str::trim).filter(|url| !url.is_empty());
    let mut urls: Vec<String> = if arguments.url.is_empty() {
        split.map(str::to_owned).collect()
    } else {
        arguments.url.clone()
    };
    if urls.is_empty() {
        urls.push(URL_DEFAULT.to_owned());
    }
    let options = Options { request_max: arguments.timeout, ..Options::STANDARD };
    Client::new(urls, options).map_err(|error| {
        Failure::bad_input(error).with_help("give each host with --url http://HOST:PORT")
    })
}

/// Says why a request was not done.
pub(super) fn refuse(error: Error) -> Failure {
    let help = match &error {
        Error::Refused(refusal) => Some(refusal.help.clone()).filter(|help| !help.is_empty()),
        Error::Unreachable { .. } => Some(
            "give a host that runs with --url or EVENKEEL_URL, such as http://10.0.1.11:7401"
                .to_owned(),
        ),
        Error::Unknown { .. } => Some(
            "read the key to see; a change with an --idempotency-key of yours can be sent again \
             safely"
                .to_owned(),
        ),
        Error::Malformed { .. } | Error::BadRequest { .. } => None,
    };
    let is_misuse = matches!(error, Error::BadRequest { .. })
        || error.refusal().is_some_and(|refusal| refusal.status == 400);
    let failure = if error.is_no_quorum() {
        Failure::no_quorum(error)
    } else if is_misuse {
        Failure::bad_input(error)
    } else {
        Failure::from(anyhow::Error::new(error))
    };
    match help {
        Some(help) => failure.with_help(help),
        None => failure,
    }
}

/// Reads a file, or standard input when it is called `-`.
fn read_input(path: &Path) -> Result<Vec<u8>, Failure> {
    let bad = |error: io::Error| {
        let text = format!("can't read `{}`", path.display());
        Failure::bad_input(anyhow::Error::new(error).context(text))
    };
    let mut bytes = Vec::new();
    let limit = INPUT_MAX + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let length = u64::try_from(read.map_err(bad)?).unwrap_or(u64::MAX);
    if length > INPUT_MAX {
        let text = format!("`{}` is longer than {} MiB", path.display(), INPUT_MAX >> 20);
        return Err(Failure::bad_input(anyhow::Error::msg(text))
            .with_help("a value has at most 1 MiB, and so have all values of a transaction"));
    }
    Ok(bytes)
}

/// Ends on Ctrl-C or SIGTERM.
async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
