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
use crate::change::{self, Examination};

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
    /// It may not be made, or the state has moved.
    Not(Box<Examination>),
    /// This node is stopping.
    Stopping,
}

/// How a change is to be made.
#[derive(Debug, Clone, Copy, Default)]
struct Wish {
    /// The state that was looked at.
    state: Option<change::State>,
    accept_risk: bool,
    dry_run: bool,
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
            let known = host.filter(|host| wanted.system().hosts.contains_key(host));
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
    let voters = context.system.borrow().voters.clone();
    let wanted = context.store.read_wanted(&voters).await.map_err(Refused::NoQuorum)?;
    let wanted =
        wanted.ok_or_else(|| Refused::NoQuorum("the system has not begun yet".to_owned()))?;
    let news = change(&wanted).map_err(Refused::Bad)?;
    let (reply, answer) = oneshot::channel();
    let question = Question::Preview(Box::new(news.clone()), reply);
    context.questions.send(question).await.map_err(|_| Refused::Stopping)?;
    let (current, after) = answer.await.map_err(|_| Refused::Stopping)?;
    let mut examination = change::examine(&wanted, &news, &current, &after);
    if wish.dry_run || examination.changes.is_empty() {
        return Ok(json(&examination));
    }
    let moved = wish.state.is_some_and(|state| state != examination.state);
    let risky = !examination.risks.is_empty() && !wish.accept_risk;
    if moved || risky || !examination.refusals.is_empty() {
        return Err(Refused::Not(Box::new(examination)));
    }
    let before = examination.state;
    let stored = if news.drained == wanted.drained {
        let stored = context.store.replace_system(&news.declaration.text, before.system).await;
        stored.map(|stored| stored.map(|system| change::State { system, ..before }))
    } else {
        let stored = context.store.replace_drained(&news.drained, before.drained).await;
        stored.map(|stored| stored.map(|drained| change::State { drained, ..before }))
    };
    examination.stored = stored.map_err(Refused::NoQuorum)?;
    match examination.stored {
        Some(state) => {
            tracing::info!(%state, "a change of the system was stored");
            Ok(json(&examination))
        }
        None => Err(Refused::Not(Box::new(examination))),
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
            Self::Not(examination) => {
                let mut response = json(&*examination);
                *response.status_mut() = StatusCode::CONFLICT;
                response
            }
            Self::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response()
            }
        }
    }
}
