//! The last lines of replicas' logs, wherever they run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use evenkeel_model::name::HostName;
use evenkeel_node_core::process::ProcessId;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Context, Question, json};
use crate::status::StatusWire;

/// Lines that are shown when nobody says how many.
const LINES_DEFAULT: usize = 20;

/// Most lines of one replica.
const LINES_MAX: usize = 1000;

/// Time for another host to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The last lines of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogWire {
    /// The replica, such as `web-17`.
    pub instance: String,
    /// Its host.
    pub host: String,
    /// Its lines, the newest last.
    pub lines: Vec<String>,
    /// Why there are none, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answers another host of the system with the log of a process of this one.
pub(super) async fn own(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let Some((name, lines)) = read_query(query.as_deref()) else {
        return (StatusCode::BAD_REQUEST, "ask for `of=NAME&lines=NUMBER`").into_response();
    };
    json(&read(&context, name, lines).await)
}

/// Answers with the logs of a service's replicas, or of one replica.
pub(super) async fn of(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let Some((name, lines)) = read_query(query.as_deref()) else {
        return (StatusCode::BAD_REQUEST, "ask for `of=NAME&lines=NUMBER`").into_response();
    };
    let (reply, answer) = oneshot::channel();
    if context.questions.send(Question::Status(reply)).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response();
    }
    let Ok(status) = answer.await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response();
    };
    let mut logs = Vec::new();
    for (instance, host) in named(&status, &name, &context.host) {
        let lines = if host == context.host.as_str() {
            Ok(read(&context, instance.clone(), lines).await)
        } else {
            ask(&context, &instance, &host, lines).await
        };
        let (lines, error) = match lines {
            Ok(lines) => (lines, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        logs.push(LogWire { instance, host, lines, error });
    }
    if logs.is_empty() {
        let text = format!("nothing here is called `{name}`");
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    json(&logs)
}

/// Finds the replicas that are meant, with their hosts. The gateway is always this host's own.
fn named(status: &StatusWire, name: &str, own: &HostName) -> Vec<(String, String)> {
    if name == ProcessId::Gateway.to_string() {
        return vec![(name.to_owned(), own.to_string())];
    }
    let meant = status.instances.iter();
    let meant = meant.filter(|instance| instance.service == name || instance.id == name);
    meant.map(|instance| (instance.id.clone(), instance.host.clone())).collect()
}

async fn read(context: &Context, name: String, lines: usize) -> Vec<String> {
    let shims = context.shims.clone();
    let read = tokio::task::spawn_blocking(move || shims.log_tail(&name, lines));
    read.await.unwrap_or_default()
}

async fn ask(
    context: &Context,
    instance: &str,
    host: &str,
    lines: usize,
) -> Result<Vec<String>, String> {
    let system = Arc::clone(&context.system.borrow());
    let known = system.find_host(host).map_err(|error| error.to_string())?;
    let address = SocketAddr::new(known.address, system.ports.api);
    let path = format!("/internal/log?of={instance}&lines={lines}");
    let answer = context.client.get(address, &path, ANSWER_MAX).await?;
    serde_json::from_slice(&answer).map_err(|error| format!("{address}: {error}"))
}

/// Reads `of=NAME` and `lines=NUMBER`.
fn read_query(query: Option<&str>) -> Option<(String, usize)> {
    let mut name = None;
    let mut lines = LINES_DEFAULT;
    for part in query?.split('&') {
        match part.split_once('=')? {
            // Names are DNS labels and numbers: nothing of them is ever escaped.
            ("of", text) if is_process(text) => name = Some(text.to_owned()),
            ("lines", text) => lines = text.parse::<usize>().ok()?.min(LINES_MAX),
            _ => return None,
        }
    }
    Some((name?, lines))
}

/// Returns whether a text can be the name of a process or a service: it becomes part of a path.
fn is_process(text: &str) -> bool {
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_looked_for() {
        assert_eq!(read_query(Some("of=web-1&lines=5")), Some(("web-1".to_owned(), 5)));
        assert_eq!(read_query(Some("of=web")), Some(("web".to_owned(), LINES_DEFAULT)));
        assert_eq!(read_query(Some("of=web&lines=99999")), Some(("web".to_owned(), LINES_MAX)));
        for query in ["of=../etc", "of=", "lines=5", "of=web&lines=x", "of=a/b", "of=web&and=1"] {
            assert_eq!(read_query(Some(query)), None, "{query}");
        }
        assert_eq!(read_query(None), None);
    }
}
