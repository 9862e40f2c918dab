//! Locks: held while a command runs or until Ctrl-C; and who holds one, as it changes.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use evenkeel_client::{Client, Lock, LockOptions, LockState, Lost};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::text::{self, GAP};
use super::{interrupted, refuse};
use crate::cli::kv::LockArguments;
use crate::exit;
use crate::failure::{Failure, Outcome};
use crate::show;

/// Time for a command to end by itself when the lock is gone already.
const GRACE: Duration = Duration::from_secs(1);
/// Time after which it is told that this waits.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// Added to the number of the signal that ended a command, as shells do.
const BY_SIGNAL: i32 = 128;

/// What ends a hold from outside.
struct Ends {
    terminate: Signals,
    interrupt: Signals,
}

impl Ends {
    fn watch() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
        }
    }
}

/// Holds a lock while a command runs, or until a signal comes when there is none.
pub(super) async fn lock(
    client: &Client,
    name: &str,
    value: Option<&str>,
    LockArguments { ttl, wait }: LockArguments,
    command: &[OsString],
    json: bool,
) -> Outcome {
    let mut ends = Ends::watch()?;
    let value = value.map_or_else(identity, str::to_owned).into();
    let options = LockOptions { ttl, wait, value };
    let given_up = async {
        ends.next().await;
    };
    let acquired = {
        let acquiring = client.lock_unless(name, &options, given_up);
        tokio::pin!(acquiring);
        tokio::select! {
            biased;
            acquired = &mut acquiring => acquired,
            () = tell_who_holds(client, name) => acquiring.await,
        }
    };
    let Some(lock) = acquired.map_err(refuse)? else {
        show::say("given up while others were before");
        return Ok(ExitCode::from(exit::FAILED));
    };
    match command.split_first() {
        Some((program, arguments)) => run(name, lock, program, arguments, ends).await,
        None => hold(name, lock, ends, json).await,
    }
}

/// Says for whom this waits, if it has waited for a while.
async fn tell_who_holds(client: &Client, name: &str) {
    sleep(TELL_AFTER).await;
    if let Ok(LockState { holder: Some(holder), .. }) = client.lock_state(name).await {
        let head = format!("waiting for `{}`, held under token {}", text::name(name), holder.token);
        show::say(&text::line(&head, &holder.value, None));
    }
}

/// Holds a lock until a signal comes.
async fn hold(name: &str, mut lock: Lock, mut ends: Ends, json: bool) -> Outcome {
    let (shown, token) = (text::name(name), lock.token());
    let sentence = if json {
        let (lease, key) = (lock.lease().0, lock.key());
        json!({ "lock": name, "token": token, "lease": lease, "key": key }).to_string()
    } else {
        format!("holding `{shown}` under token {token} until Ctrl-C")
    };
    show::result(&sentence)?;
    tokio::select! {
        _ = ends.next() => {}
        lost = lock.lost() => return Err(gone(name, &lost)),
    }
    release(name, lock).await;
    Ok(ExitCode::SUCCESS)
}

/// Holds a lock while a command runs.
async fn run(
    name: &str,
    mut lock: Lock,
    program: &OsString,
    arguments: &[OsString],
    mut ends: Ends,
) -> Outcome {
    let mut child = start(name, &lock, program, arguments)?;
    loop {
        tokio::select! {
            status = child.wait() => {
                release(name, lock).await;
                return Ok(code(status.context("wait for the command")?));
            }
            signal = ends.next() => pass_on(&child, signal),
            lost = lock.lost() => {
                stop(&mut child, &lost).await?;
                return Err(gone(name, &lost));
            }
        }
    }
}

/// Says who this is.
fn identity() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("{}:{}", host.to_string_lossy(), std::process::id())
}

/// Starts the command, so that it does not outlive this program.
fn start(
    name: &str,
    lock: &Lock,
    program: &OsString,
    arguments: &[OsString],
) -> Result<Child, Failure> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("bound").arg(std::process::id().to_string()).arg("--").arg(program);
    command.args(arguments);
    command.env("EVENKEEL_LOCK_NAME", name).env("EVENKEEL_LOCK_KEY", lock.key());
    command.env("EVENKEEL_LOCK_TOKEN", lock.token().to_string());
    command.env("EVENKEEL_LOCK_LEASE", lock.lease().to_string());
    Ok(command.spawn().context("start the command")?)
}

fn pass_on(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        // It has ended meanwhile if it can't be signalled.
        kill(Pid::from_raw(pid), signal).ok();
    }
}

/// Ends the command before anybody else can hold the lock.
async fn stop(child: &mut Child, lost: &Lost) -> anyhow::Result<()> {
    let left = lost.until.saturating_duration_since(Instant::now());
    let grace = if left.is_zero() { GRACE } else { left };
    pass_on(child, Signal::SIGTERM);
    if timeout(grace, child.wait()).await.is_err() {
        child.kill().await.context("kill the command")?;
    }
    Ok(())
}

async fn release(name: &str, lock: Lock) {
    match lock.release().await {
        Ok(true) => {}
        Ok(false) => show::say(&format!("lock `{name}` was lost before it was released")),
        Err(error) => {
            show::say(&format!("lock `{name}` passes on when its lease has ended: {error}"));
        }
    }
}

fn gone(name: &str, lost: &Lost) -> Failure {
    let cause = anyhow::Error::new(lost.cause.clone());
    Failure::from(cause.context(format!("lock `{}` is lost", text::name(name))))
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED))
}

/// Prints who holds a lock, now or as it changes until a signal comes. With `once`, exit code 1
/// when nobody does.
pub(super) async fn observe(client: &Client, name: &str, once: bool, json: bool) -> Outcome {
    let columns = text::columns();
    if once {
        let state = client.lock_state(name).await.map_err(refuse)?;
        show::result(&line(&state, columns, json))?;
        let code = if state.holder.is_some() { 0 } else { exit::FAILED };
        return Ok(ExitCode::from(code));
    }
    let end = interrupted();
    tokio::pin!(end);
    let mut observation = tokio::select! {
        ended = &mut end => return ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        observation = client.observe(name) => observation.map_err(refuse)?,
    };
    loop {
        let state = tokio::select! {
            biased;
            ended = &mut end => return ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
            state = observation.next() => state.map_err(refuse)?,
        };
        show::result(&line(&state, columns, json))?;
    }
}

fn line(state: &LockState, columns: Option<usize>, json: bool) -> String {
    if json {
        return object(state).to_string();
    }
    match &state.holder {
        Some(holder) => text::line(&holder.token.to_string(), &holder.value, columns),
        None => format!("-{GAP}nobody"),
    }
}

fn object(state: &LockState) -> Value {
    let holder = state.holder.as_ref().map(|holder| {
        let (value, encoding) = text::json_value(&holder.value);
        json!({
            "token": holder.token, "lease": holder.lease.0, "key": holder.key, "value": value,
            "encoding": encoding, "revision": holder.revision,
        })
    });
    json!({ "revision": state.revision, "holder": holder, "waiting": state.waiting })
}
