//! Who leads, as one host knows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::name::HostName;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::client::{Client, LeaderReport};
use crate::options::{Voter, Voters};

/// Who leads, as far as this host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderView {
    /// The leader. A voter knows one only while it has heard from it within an election timeout.
    pub leader: Option<HostName>,
    /// The latest term this host has seen.
    pub term: u64,
    /// Whether this host leads and holds every change that any leader before it has answered.
    pub is_self: bool,
    /// Since when `leader` is what it is.
    pub since: Instant,
}

impl LeaderView {
    pub(crate) fn unknown() -> Self {
        Self { leader: None, term: 0, is_self: false, since: Instant::now() }
    }

    pub(crate) fn change(&mut self, leader: Option<HostName>, term: u64, is_self: bool) {
        if self.leader != leader {
            self.since = Instant::now();
        }
        *self = Self { leader, term, is_self, since: self.since };
    }
}

/// Time for a host near by to say who leads, see [`evenkeel_model::patience`].
const ASK_TIMEOUT: Duration = Duration::from_millis(300);
/// Pause between two questions while a leader says of itself that it leads, and otherwise: others
/// go on naming a leader that is no more until they call an election.
const ASK_EVERY: Duration = Duration::from_millis(500);
const SEARCH_EVERY: Duration = Duration::from_millis(100);

/// Time without a leader after which a member asks the voters for one: longer than elections take.
const ALONE_AFTER: Duration = Duration::from_secs(3);

/// Shows what a member knows of the leader. One that has known none for long may have been replaced
/// while it was away: nobody speaks with it, so it asks who leads, like a host that takes no part.
pub(crate) async fn look_around(
    client: Client,
    own_host: HostName,
    voters: Voters,
    mut own: watch::Receiver<LeaderView>,
    outlet: watch::Sender<LeaderView>,
) {
    loop {
        let view = own.borrow_and_update().clone();
        let alone_at = view.since + ALONE_AFTER;
        let is_alone = view.leader.is_none() && Instant::now() >= alone_at;
        let (shown, look_at) = if is_alone {
            let voters = Arc::clone(&voters.borrow());
            let found = ask_everyone(&client, &voters, view.term).await;
            let leader = found.and_then(|report| HostName::parse(&report.leader?).ok());
            // Others go on naming it until they elect the next one.
            let leader = leader.filter(|leader| *leader != own_host);
            (LeaderView { leader, ..view }, Instant::now() + ASK_EVERY)
        } else {
            (view, alone_at)
        };
        let waits = shown.leader.is_none() || is_alone;
        outlet.send_if_modified(|known| {
            let news = *known != shown;
            *known = shown;
            news
        });
        let changed = tokio::select! {
            changed = own.changed() => changed,
            () = tokio::time::sleep_until(look_at.into()), if waits => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Follows, on a host that does not vote, who leads. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Watcher(AbortHandle);

impl Watcher {
    pub(crate) fn start(client: Client, voters: Voters) -> (Self, watch::Receiver<LeaderView>) {
        let (outlet, view) = watch::channel(LeaderView::unknown());
        let task = tokio::spawn(follow(client, voters, outlet));
        (Self(task.abort_handle()), view)
    }

    pub(crate) fn close(&self) {
        self.0.abort();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.close();
    }
}

/// Asks the leader whether it still leads, and everyone when it does not.
async fn follow(client: Client, voters: Voters, outlet: watch::Sender<LeaderView>) {
    loop {
        let voters = Arc::clone(&voters.borrow());
        let leader = outlet.borrow().leader.clone();
        let leader = voters.iter().find(|voter| leader.as_ref() == Some(&voter.host));
        let confirmed = match leader {
            Some(voter) => ask(&client, voter).await.filter(|report| report.is_self),
            None => None,
        };
        let report = match confirmed {
            Some(report) => Some(report),
            None => {
                let term = outlet.borrow().term;
                ask_everyone(&client, &voters, term).await
            }
        };
        let named =
            report.as_ref().and_then(|report| HostName::parse(report.leader.as_ref()?).ok());
        let confirmed = report.as_ref().is_some_and(|report| report.is_self);
        let pause = if confirmed { ASK_EVERY } else { SEARCH_EVERY };
        let term = report.map_or(0, |report| report.term);
        outlet.send_if_modified(|view| {
            let before = view.clone();
            view.change(named, term.max(before.term), false);
            *view != before
        });
        tokio::time::sleep(pause).await;
    }
}

async fn ask(client: &Client, voter: &Voter) -> Option<LeaderReport> {
    let limit = client.patience(&voter.host, ASK_TIMEOUT);
    tokio::time::timeout(limit, client.leader(voter.api)).await.ok()?.ok()
}

/// Returns the report of a host that leads, as soon as there is one that is not older than `term`,
/// otherwise that of the latest term among those that name a leader.
async fn ask_everyone(client: &Client, voters: &[Voter], term: u64) -> Option<LeaderReport> {
    let mut asked = JoinSet::new();
    for voter in voters {
        let (client, voter) = (client.clone(), voter.clone());
        asked.spawn(async move { ask(&client, &voter).await });
    }
    let mut latest: Option<LeaderReport> = None;
    while let Some(report) = asked.join_next().await {
        let Ok(Some(report)) = report else { continue };
        if report.leader.is_none() {
            continue;
        }
        if report.is_self && report.term >= term {
            return Some(report);
        }
        if latest.as_ref().is_none_or(|latest| latest.term <= report.term) {
            latest = Some(report);
        }
    }
    latest
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::routing::get;
    use evenkeel_model::name::SystemName;
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::LEADER_PATH;
    use crate::options::RoundTrips;

    fn voter(host: &str, listener: &TcpListener) -> Voter {
        let address = listener.local_addr().unwrap();
        Voter { host: HostName::parse(host).unwrap(), peer: address, api: address }
    }

    /// A host that did not hear of the next leader within a lease of 1 s would be taken for lost.
    #[tokio::test]
    async fn the_next_leader_is_found_within_a_lease() {
        // Connections to it are opened and never answered, like those to a host that stands still.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let voters = vec![voter("a1", &silent), voter("b1", &other)];
        let (_kept, voters) = watch::channel(voters.into());
        let report = |leader: &str, term| LeaderReport {
            leader: Some(leader.to_owned()),
            term,
            is_self: leader == "b1",
        };
        let said = Arc::new(Mutex::new(report("a1", 1)));
        let answer = Arc::clone(&said);
        let router = Router::new().route(
            LEADER_PATH,
            get(move || async move { serde_json::to_string(&*answer.lock().unwrap()).unwrap() }),
        );
        let server = tokio::spawn(async move { axum::serve(other, router).await });
        let system = SystemName::parse("shop").unwrap();
        let client =
            Client::new(&system, voters.clone(), watch::channel(RoundTrips::new()).1, None);
        let (_watcher, mut view) = Watcher::start(client, voters);
        let leads = |name| {
            move |view: &LeaderView| view.leader.as_ref().is_some_and(|l| l.as_str() == name)
        };
        view.wait_for(leads("a1")).await.unwrap();
        *said.lock().unwrap() = report("b1", 2);
        let elected = Instant::now();
        view.wait_for(leads("b1")).await.unwrap();
        assert!(elected.elapsed() < Duration::from_secs(1), "{:?}", elected.elapsed());
        assert_eq!(view.borrow().term, 2);
        server.abort();
    }
}
