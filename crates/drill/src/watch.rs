//! Watches what the system says of itself while an experiment runs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use evenkeel_model::fault::Target;
use evenkeel_model::name::HostName;
use evenkeel_model::time::Timestamp;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bench::Apis;
use crate::client::Client;
use crate::clock::now;
use crate::load::EnterNetwork;
use crate::network::run_in;
use crate::status::{EventLine, Status};

/// Time between two rounds of questions.
const EVERY: Duration = Duration::from_millis(150);
/// Time for one host to answer.
const ANSWER_MAX: Duration = Duration::from_millis(400);

/// Asks every host again and again, from one place outside of all of them.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The newest leader's view of the last round that had one.
    pub(crate) leader_view: Option<Status>,
    /// Every event that any host told.
    pub(crate) events: BTreeSet<EventLine>,
    /// Whether the leader saw full redundancy, over time. No leader: it is not full.
    pub(crate) full: Vec<(Timestamp, bool)>,
}

impl Watch {
    /// Starts to watch the hosts behind `apis` from inside a network.
    pub(crate) fn start(enter: EnterNetwork, apis: Apis) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::Builder::new().name("drill-watch".to_owned()).spawn(move || {
            enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let client = Arc::new(Client::new(Vec::new(), apis.trust));
            runtime.block_on(async {
                while !stopped.load(Ordering::Relaxed) {
                    let statuses = ask_all(&client, &apis.addresses).await;
                    noted.lock().unwrap_or_else(PoisonError::into_inner).note(statuses, now());
                    sleep(EVERY).await;
                }
            });
            Ok(())
        })?;
        Ok(Self { stop, thread: Some(thread), seen })
    }

    /// Returns what was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the hosts could not be watched"),
                Err(_) => tracing::warn!("the watch panicked"),
            }
        }
    }
}

/// Asks every host once and returns the view of the newest leader among them.
pub(crate) fn ask_leader(enter: &EnterNetwork, apis: &Apis) -> io::Result<Option<Status>> {
    let trust = apis.trust.clone();
    run_in(enter, trust, async move |client| {
        newest_leader(ask_all(&Arc::new(client), &apis.addresses).await)
    })
}

/// Returns the leader's view with the highest term.
fn newest_leader(statuses: Vec<Status>) -> Option<Status> {
    let leaders = statuses.into_iter().filter(Status::is_from_leader);
    leaders.max_by_key(|status| status.term)
}

async fn ask_all(client: &Arc<Client>, apis: &BTreeMap<HostName, SocketAddr>) -> Vec<Status> {
    let mut asked = JoinSet::new();
    for address in apis.values().copied() {
        let client = Arc::clone(client);
        asked.spawn(async move {
            let answer = client.ask(address, "/v1/status?local", ANSWER_MAX).await?;
            Status::parse(&answer.body).ok()
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

impl Seen {
    fn note(&mut self, statuses: Vec<Status>, at: Timestamp) {
        for status in &statuses {
            self.events.extend(
                status
                    .events
                    .iter()
                    .map(|event| EventLine { noticed_by: status.host.clone(), ..event.clone() }),
            );
        }
        let leader = newest_leader(statuses);
        self.full.push((at, leader.as_ref().is_some_and(|status| status.redundancy.full)));
        if leader.is_some() {
            self.leader_view = leader;
        }
    }

    /// Returns when redundancy was full for good: the beginning of the time that lasts until now.
    pub(crate) fn full_since(&self) -> Option<Timestamp> {
        let lasting = self.full.iter().rev().take_while(|(_, full)| *full);
        lasting.last().map(|(at, _)| *at)
    }

    /// Returns the system's first event from `effect` to `until` that tells of the loss of
    /// `target`. `hosts` are those it consists of or runs on, `leads` says whether the leader was
    /// among them.
    pub(crate) fn detected(
        &self,
        (effect, until): (Timestamp, Timestamp),
        target: &Target,
        hosts: &[HostName],
        leads: bool,
    ) -> Option<Timestamp> {
        let tells = |event: &&EventLine| {
            event.at() >= effect
                && event.at() <= until
                && !matches!(event.kind.as_str(), "host-up" | "redundancy-full")
                && tells_of(event, target, hosts, leads)
        };
        self.events.iter().find(tells).map(EventLine::at)
    }
}

fn tells_of(event: &EventLine, target: &Target, hosts: &[HostName], leads: bool) -> bool {
    let about_host = || hosts.iter().any(|host| event.subject == host.as_str());
    let names_host = || hosts.iter().any(|host| mentions(&event.text, host.as_str()));
    match target {
        Target::Replica(id, _) | Target::Shim(id, _) => {
            let id = id.to_string();
            event.subject == id || mentions(&event.text, &id)
        }
        Target::Gateway(host) => {
            (event.subject == "gateway" && event.noticed_by == host.as_str()) || names_host()
        }
        Target::Node(_) | Target::Host(_) | Target::Zone(..) | Target::Region(_) => {
            about_host() || names_host() || (leads && event.kind == "leader-changed")
        }
        // A link is not a thing that the system names: what it notices is hosts out of reach.
        Target::Link(..) => true,
    }
}

/// Returns whether `name` stands in `text` as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '-'))
        .any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn event(at_ns: u64, kind: &str, subject: &str, noticed_by: &str) -> EventLine {
        let text = format!("`{subject}` {kind}");
        let (kind, subject) = (kind.to_owned(), subject.to_owned());
        EventLine { at_ns, kind, subject, text, noticed_by: noticed_by.to_owned() }
    }

    #[test]
    fn redundancy_counts_from_the_last_time_it_was_missing() {
        let mut seen = Seen { full: vec![(at(1), true), (at(2), false)], ..Seen::default() };
        assert_eq!(seen.full_since(), None);
        seen.full.extend([(at(3), true), (at(4), true)]);
        assert_eq!(seen.full_since(), Some(at(3)));
    }

    #[test]
    fn the_leader_of_the_highest_term_is_believed() {
        let view = |term, source: &str| Status { term, source: source.to_owned(), ..example() };
        let mut seen = Seen::default();
        seen.note(vec![view(9, "local"), view(3, "leader"), view(4, "leader")], at(1));
        seen.note(vec![view(9, "local")], at(2));
        assert_eq!(seen.leader_view.unwrap().term, 4);
        assert_eq!(seen.full, [(at(1), true), (at(2), false)]);
    }

    #[test]
    fn detection_is_the_first_event_about_the_target() {
        let events = [
            event(5, "host-down", "fra-1", "ams-1"),
            event(20, "host-down", "fra-11", "ams-1"),
            event(30, "gateway-exited", "gateway", "fra-1"),
            event(35, "gateway-exited", "gateway", "ams-1"),
            event(40, "leader-changed", "ams-1", "waw-1"),
            event(50, "host-down", "fra-1", "ams-1"),
            event(60, "host-up", "fra-1", "ams-1"),
        ];
        let seen = Seen { events: BTreeSet::from(events), ..Seen::default() };
        let check = |target: &Target, name: &str, leads: bool, expected: Option<u64>| {
            let found = seen.detected((at(10), at(90)), target, &[host(name)], leads);
            assert_eq!(found, expected.map(at), "{target}");
        };
        check(&Target::Host(host("fra-1")), "fra-1", false, Some(50));
        check(&Target::Host(host("fra-1")), "fra-1", true, Some(40));
        check(&Target::Gateway(host("ams-1")), "ams-1", false, Some(35));
        check(&Target::Node(host("fra-2")), "fra-2", false, None);
    }
}
