//! Who leads, as one host knows it.

use std::time::{Duration, Instant};

use evenkeel_model::name::HostName;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::client::{Client, LeaderReport};
use crate::options::Voter;

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

/// Time for one host to say who leads.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);
/// Pause between two questions while there is a leader, and while there is none.
const ASK_EVERY: Duration = Duration::from_millis(500);
const SEARCH_EVERY: Duration = Duration::from_millis(100);

/// Follows, on a host that does not vote, who leads. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Watcher(AbortHandle);

impl Watcher {
    pub(crate) fn start(client: Client, voters: Vec<Voter>) -> (Self, watch::Receiver<LeaderView>) {
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
async fn follow(client: Client, voters: Vec<Voter>, outlet: watch::Sender<LeaderView>) {
    loop {
        let leader = outlet.borrow().leader.clone();
        let leader = voters.iter().find(|voter| leader.as_ref() == Some(&voter.host));
        let confirmed = match leader {
            Some(voter) => ask(&client, voter).await.filter(|report| report.is_self),
            None => None,
        };
        let report = match confirmed {
            Some(report) => Some(report),
            None => ask_everyone(&client, &voters).await,
        };
        let named =
            report.as_ref().and_then(|report| HostName::parse(report.leader.as_ref()?).ok());
        let pause = if named.is_some() { ASK_EVERY } else { SEARCH_EVERY };
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
    tokio::time::timeout(ASK_TIMEOUT, client.leader(voter.api)).await.ok()?.ok()
}

/// Returns the report of the latest term among those that name a leader.
async fn ask_everyone(client: &Client, voters: &[Voter]) -> Option<LeaderReport> {
    let mut asked = JoinSet::new();
    for voter in voters {
        let (client, voter) = (client.clone(), voter.clone());
        asked.spawn(async move { ask(&client, &voter).await });
    }
    let reports = asked.join_all().await;
    let named = reports.into_iter().flatten().filter(|report| report.leader.is_some());
    named.max_by_key(|report| (report.term, report.is_self))
}
