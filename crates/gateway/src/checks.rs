//! Carries out the balancer's actions: asks endpoints for their health, announces changes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_gateway_core::balancer::{Action, Event};
use evenkeel_gateway_core::health::{Finding, Identity, Standing};
use evenkeel_gateway_core::table::EndpointId;
use evenkeel_model::service::Probe;
use evenkeel_trust::stream::Stream;
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep_until, timeout};

use crate::protection::Protection;
use crate::shared::Shared;

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
        Action::Check { endpoint, id, address, probe, timeout } => {
            let shared = Rc::clone(shared);
            let checking = async move {
                let finding = check(&shared.protection, &id, address, &probe, timeout).await;
                let now = shared.clock.now();
                let event = Event::CheckFinished(finding);
                shared.balancer.borrow_mut().handle_event(endpoint, event, now);
                shared.changed.notify_waiters();
                shared.wake.notify_one();
            };
            drop(tokio::task::spawn_local(checking));
        }
        Action::Announce { id, from, to } => announce(&id, from, to),
    }
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
async fn check(
    protection: &Protection,
    id: &EndpointId,
    address: SocketAddr,
    probe: &Probe,
    longest: Duration,
) -> Finding {
    let asking = async {
        let stream = protection.connect(id, address).await?;
        match probe {
            Probe::Tcp => Ok(Finding::Passed(Identity::Unsaid)),
            Probe::Http(path) => ask(id, stream, address, path).await,
        }
    };
    match timeout(longest, asking).await {
        Err(_) => Finding::Silent,
        Ok(Ok(finding)) => finding,
        Ok(Err(error)) => finding_of(&error),
    }
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

async fn ask(
    id: &EndpointId,
    stream: Stream,
    address: SocketAddr,
    path: &str,
) -> io::Result<Finding> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // The connection moves only while it is polled. When it ends, the answer is there or lost.
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    let lost = |error| io::Error::new(io::ErrorKind::ConnectionReset, error);
    let response = response.map_err(lost)?;
    let said = response.headers().get(id.identity_header());
    let identity = Identity::of(said.map(|value| value.to_str().unwrap_or("")), id);
    let status = response.status().as_u16();
    Ok(if (200..400).contains(&status) {
        Finding::Passed(identity)
    } else {
        Finding::Failed(identity)
    })
}
