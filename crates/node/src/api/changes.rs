//! Changes of the running system, asked for on the unix socket of any host: looked at first, made
//! only while what was looked at still holds.

use std::collections::BTreeSet;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use evenkeel_control::declaration::Wanted;
use evenkeel_model::name::HostName;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Context, Question, json};
use crate::change::{self, Verdict, Wish};

/// Hosts to be drained, or to be used again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainWire {
    /// Their names.
    pub hosts: Vec<String>,
    /// Whether they are to run no replica from now on.
    pub drained: bool,
}

/// Why a change was not made.
enum Refused {
    /// No leader answers: what is wanted can't be read, or nobody knows whether it was changed.
    NoQuorum(String),
    /// It can't be understood.
    Bad(String),
    /// This node is stopping.
    Stopping,
}

/// Examines the system file in the body, and puts it in force unless `dry-run` is given.
pub(super) async fn apply(
    State(context): State<Context>,
    RawQuery(query): RawQuery,
    body: String,
) -> Response {
    let made = make(&context, query.as_deref(), |wanted| {
        change::with_file(wanted, &body).map_err(|error| error.to_string())
    });
    made.await.unwrap_or_else(Refused::into_response)
}

/// Drains hosts or lets them be used again, unless `dry-run` is given.
pub(super) async fn drain(
    State(context): State<Context>,
    RawQuery(query): RawQuery,
    body: String,
) -> Response {
    let made = make(&context, query.as_deref(), |wanted| {
        let wire: DrainWire = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let hosts = wire.hosts.iter().map(|name| {
            let host = HostName::parse(name).ok();
            // A drained host may have left the system since.
            let known = host.filter(|host| {
                wanted.system().hosts.contains_key(host) || wanted.drained.contains(host)
            });
            known.ok_or_else(|| format!("there is no host `{name}`"))
        });
        let hosts = hosts.collect::<Result<BTreeSet<HostName>, String>>()?;
        Ok(change::with_drained(wanted, &hosts, wire.drained))
    });
    made.await.unwrap_or_else(Refused::into_response)
}

/// Examines a change and makes it, if it may be made.
async fn make(
    context: &Context,
    query: Option<&str>,
    change: impl FnOnce(&Wanted) -> Result<Wanted, String>,
) -> Result<Response, Refused> {
    let wish = read_wish(query.unwrap_or_default())?;
    let voting = context.system.borrow().voting();
    let wanted = context.store.read_wanted(&voting).await.map_err(Refused::NoQuorum)?;
    let wanted =
        wanted.ok_or_else(|| Refused::NoQuorum("the system has not begun yet".to_owned()))?;
    let news = change(&wanted).map_err(Refused::Bad)?;
    let (reply, answer) = oneshot::channel();
    let question = Question::Preview(Box::new(news.clone()), reply);
    context.questions.send(question).await.map_err(|_| Refused::Stopping)?;
    let (current, after) = answer.await.map_err(|_| Refused::Stopping)?;
    let mut examination = change::examine(&wanted, &news, &current, &after);
    examination.verdict = examination.judge(&wish);
    if examination.verdict == Verdict::Possible && !wish.dry_run {
        examination.stored = store(context, &wanted, &news).await.map_err(Refused::NoQuorum)?;
        examination.verdict = examination.stored.map_or(Verdict::Moved, |_state| Verdict::Made);
    }
    if let Some(state) = examination.stored {
        tracing::info!(%state, "a change of the system was stored");
    }
    Ok(json(&examination))
}

/// Stores what is different, if nobody was faster.
async fn store(
    context: &Context,
    wanted: &Wanted,
    news: &Wanted,
) -> Result<Option<change::State>, String> {
    let before = change::State::of(wanted);
    if news.drained == wanted.drained {
        let stored = context.store.replace_system(&news.declaration.text, before.system).await?;
        Ok(stored.map(|system| change::State { system, ..before }))
    } else {
        let stored = context.store.replace_drained(&news.drained, before.drained).await?;
        Ok(stored.map(|drained| change::State { drained, ..before }))
    }
}

/// Reads `state=SYSTEM.DRAINED`, `accept-risk` and `dry-run`.
fn read_wish(query: &str) -> Result<Wish, Refused> {
    let mut wish = Wish::default();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            None if part == "accept-risk" => wish.accept_risk = true,
            None if part == "dry-run" => wish.dry_run = true,
            Some(("state", text)) => {
                let state = change::State::parse(text)
                    .ok_or_else(|| Refused::Bad(format!("`{text}` is no state")))?;
                wish.state = Some(state);
            }
            None | Some(_) => return Err(Refused::Bad(format!("`{part}` means nothing here"))),
        }
    }
    Ok(wish)
}

impl Refused {
    fn into_response(self) -> Response {
        match self {
            Self::NoQuorum(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
            Self::Bad(reason) => (StatusCode::BAD_REQUEST, reason).into_response(),
            Self::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response()
            }
        }
    }
}
