//! Carries out the balancer's actions: asks endpoints for their health, announces changes.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_gateway_core::balancer::{Action, EndpointKey, Event};
use evenkeel_gateway_core::health::{Finding, Identity, Standing};
use evenkeel_gateway_core::table::{Endpoint, EndpointId, Link};
use evenkeel_model::service::Probe;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, Response};
use tokio::time::{sleep_until, timeout};

use crate::body::Outgoing;
use crate::connections::{Connection, connect};
use crate::shared::Shared;

/// Longest answer in bytes after which a connection is kept.
const ANSWER_MAX: usize = 64 << 10;
/// Longest sleep, so that what was not announced is.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Runs for as long as the gateway.
pub(crate) async fn run(shared: Rc<Shared>) -> Infallible {
    loop {
        let woken = shared.wake.notified();
        let now = shared.clock.now();
        let (actions, next) = {
            let mut balancer = shared.balancer.borrow_mut();
            balancer.handle_timeout(now);
            let actions: Vec<Action> = std::iter::from_fn(|| balancer.poll_action()).collect();
            let latest = now + SLEEP_MAX;
            (actions, balancer.poll_timeout().map_or(latest, |at| at.min(latest)))
        };
        for action in actions {
            carry_out(&shared, action);
        }
        tokio::select! {
            () = woken => {}
            () = sleep_until(shared.clock.instant(next)) => {}
        }
    }
}

fn carry_out(shared: &Rc<Shared>, action: Action) {
    match action {
        Action::Check { endpoint: key, probe, timeout, .. } => {
            let endpoint = shared.balancer.borrow().endpoint(key).cloned();
            // It has left the table, and nobody waits for what it would say.
            let Some(endpoint) = endpoint else { return };
            let target = Target { key, endpoint };
            let shared = Rc::clone(shared);
            let checking = async move {
                let finding = check(&shared, &target, &probe, timeout).await;
                let now = shared.clock.now();
                let event = Event::CheckFinished(finding);
                shared.balancer.borrow_mut().handle_event(target.key, event, now);
                shared.changed.notify_waiters();
                shared.wake.notify_one();
            };
            drop(tokio::task::spawn_local(checking));
        }
        Action::Announce { id, from, to } => announce(&id, from, to),
    }
}

/// Who is asked.
#[derive(Debug)]
struct Target {
    key: EndpointKey,
    endpoint: Endpoint,
}

fn announce(id: &EndpointId, from: Standing, to: Standing) {
    let (endpoint, from_word, to_word) = (id.to_string(), from.as_str(), to.as_str());
    match to {
        Standing::Ready | Standing::Draining | Standing::Unchecked => {
            tracing::info!(endpoint, from = from_word, to = to_word, "endpoint changed");
        }
        Standing::Ejected | Standing::Failing | Standing::Silent | Standing::Foreign => {
            tracing::warn!(endpoint, from = from_word, to = to_word, "endpoint changed");
        }
    }
}

/// Asks one endpoint once.
async fn check(shared: &Shared, target: &Target, probe: &Probe, longest: Duration) -> Finding {
    let asking = async {
        match probe {
            Probe::Tcp => {
                connect(shared, &target.endpoint).await?;
                Ok(Finding::Passed(Identity::Unsaid))
            }
            Probe::Http(path) => match target.endpoint.link {
                Link::Proven => ask_through_kept(shared, target, path).await,
                Link::Plain => {
                    let mut connection = connect(shared, &target.endpoint).await?;
                    let response = ask(&mut connection, target, path, Close::After).await?;
                    Ok(judge(&target.endpoint.id, &response))
                }
            },
        }
    };
    match timeout(longest, asking).await {
        Err(_) => Finding::Silent,
        Ok(Ok(finding)) => finding,
        Ok(Err(error)) => finding_of(&error),
    }
}

/// Asks on a connection that is open, if there is one: to prove who one is takes more than the
/// question, and every gateway asks every endpoint all the time.
async fn ask_through_kept(shared: &Shared, target: &Target, path: &str) -> io::Result<Finding> {
    if let Some(kept) = shared.connections.take(target.key)
        && let Ok(finding) = ask_and_keep(shared, target, kept, path).await
    {
        return Ok(finding);
    }
    // None was open; or it had been closed for being idle, which says nothing about the endpoint.
    let connection = connect(shared, &target.endpoint).await?;
    ask_and_keep(shared, target, connection, path).await
}

async fn ask_and_keep(
    shared: &Shared,
    target: &Target,
    mut connection: Connection,
    path: &str,
) -> io::Result<Finding> {
    let response = ask(&mut connection, target, path, Close::Never).await?;
    let finding = judge(&target.endpoint.id, &response);
    // An answer that is long or breaks off is an answer, but its connection is of no further use.
    if Limited::new(response.into_body(), ANSWER_MAX).collect().await.is_ok() {
        shared.connections.keep(target.key, connection);
    }
    Ok(finding)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is not exhaustive")]
fn finding_of(error: &io::Error) -> Finding {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => Finding::Refused,
        _ => Finding::Silent,
    }
}

/// Whether the connection is of use after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    After,
    Never,
}

async fn ask(
    connection: &mut Connection,
    target: &Target,
    path: &str,
    close: Close,
) -> io::Result<Response<Incoming>> {
    let mut request = Request::get(path)
        .header(HOST, target.endpoint.address.to_string())
        .body(Outgoing::Kept(Bytes::new()))
        .map_err(io::Error::other)?;
    if close == Close::After {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let answered = connection.send(request).await;
    answered.map_err(|error| io::Error::new(io::ErrorKind::ConnectionReset, error.into_error()))
}

fn judge(id: &EndpointId, response: &Response<Incoming>) -> Finding {
    let said = response.headers().get(id.identity_header());
    let identity = Identity::of(said.map(|value| value.to_str().unwrap_or("")), id);
    if (200..400).contains(&response.status().as_u16()) {
        Finding::Passed(identity)
    } else {
        Finding::Failed(identity)
    }
}
