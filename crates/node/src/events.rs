//! What changed on this host lately: found by comparing one status with the next, kept bounded.

use std::collections::VecDeque;

use evenkeel_model::name::HostName;
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use evenkeel_model::voting::Voting;
use evenkeel_node_core::process::ProcessId;
use evenkeel_node_core::status::{ProcessStatus, Status};
use serde::{Deserialize, Serialize};

/// Events kept; the oldest goes first.
const KEPT_MAX: usize = 200;

/// One change, for people and for the drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When this host noticed, in nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// What kind: `leader-changed`, `host-up`, `host-isolated`, `host-down`, `replica-exited`,
    /// `gateway-exited`, `redundancy-lost`, `redundancy-full`, `system-changed`, `deploy-begun`,
    /// `deploy-done`, `deploy-failed`, `host-drained`, `host-undrained`, `voter-prepared`,
    /// `voter-added`, `voter-removed`.
    pub kind: String,
    /// Name of the host or process it is about.
    pub subject: String,
    /// A sentence.
    pub text: String,
}

/// The latest events of this node process.
#[derive(Debug, Default)]
pub struct EventLog {
    kept: VecDeque<Event>,
    last: Option<Status>,
}

impl EventLog {
    /// Notes what differs between `status` and the one observed before.
    pub fn observe(&mut self, status: Status, now: Timestamp) {
        if let Some(last) = self.last.take() {
            for (kind, subject, text) in differences(&last, &status) {
                tracing::info!(kind, subject, "{text}");
                if self.kept.len() == KEPT_MAX {
                    self.kept.pop_front();
                }
                let kind = kind.to_owned();
                self.kept.push_back(Event { at_ns: now.as_nanos(), kind, subject, text });
            }
        }
        self.last = Some(status);
    }

    /// Returns what is kept, the oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.kept.iter().cloned().collect()
    }
}

type Difference = (&'static str, String, String);

fn differences(last: &Status, next: &Status) -> Vec<Difference> {
    let mut found = Vec::new();
    if last.leader != next.leader {
        let (subject, text) = next.leader.as_ref().map_or_else(
            || (String::new(), "no leader is known".to_owned()),
            |leader| (leader.to_string(), format!("`{leader}` leads in term {}", next.term)),
        );
        found.push(("leader-changed", subject, text));
    }
    if next.is_leader {
        host_differences(last, next, &mut found);
        let was_full =
            last.redundancy.as_ref().is_some_and(|redundancy| redundancy.missing.is_empty());
        match &next.redundancy {
            Some(redundancy) if redundancy.missing.is_empty() && !was_full => {
                found.push(("redundancy-full", String::new(), "nothing is missing".to_owned()));
            }
            Some(redundancy) if !redundancy.missing.is_empty() && was_full => {
                found.push(("redundancy-lost", String::new(), redundancy.missing.join("; ")));
            }
            _ => {}
        }
    }
    if last.is_leader && next.is_leader {
        change_differences(last, next, &mut found);
    }
    for process in &next.processes {
        let before = last.processes.iter().find(|before| before.id == process.id);
        if let Some(before) = before
            && before.restarts < process.restarts
        {
            found.push(exit_of(process));
        }
    }
    found
}

/// What has become of changes that somebody asked for, as the leader sees it.
fn change_differences(last: &Status, next: &Status, found: &mut Vec<Difference>) {
    if let (Some((before, _, were)), Some((now, _, are))) = (&last.wanted, &next.wanted) {
        if before != now {
            let text = format!("the system file of revision {now} is wanted");
            found.push(("system-changed", String::new(), text));
        }
        let drained = are.difference(were);
        found.extend(drained.map(|host| {
            ("host-drained", host.to_string(), format!("host `{host}` is to be empty"))
        }));
        let back = were.difference(are);
        found.extend(back.map(|host| {
            ("host-undrained", host.to_string(), format!("host `{host}` is used again"))
        }));
    }
    let (Some(before), Some(now)) = (&last.plan, &next.plan) else { return };
    let voting = [before, now].map(|plan| plan.system().map(System::voting));
    if let [Some(before), Some(now)] = voting {
        voting_differences(&before, &now, found);
    }
    for (service, release) in &now.releases {
        let was = before.releases.get(service).and_then(|release| release.next.as_ref());
        let subject = service.to_string();
        match (was, &release.next) {
            (before, Some(next)) if before != Some(next) => {
                let revision = next.revision;
                found.push(match &next.failed {
                    Some(reason) => (
                        "deploy-failed",
                        subject,
                        format!("the deploy of `{service}` was rolled back: {reason}"),
                    ),
                    None => (
                        "deploy-begun",
                        subject,
                        format!("`{service}` is deployed from revision {revision}"),
                    ),
                });
            }
            (Some(was), None) if was.failed.is_none() => {
                let text = format!("`{service}` runs revision {} everywhere", release.current);
                found.push(("deploy-done", subject, text));
            }
            _ => {}
        }
    }
}

/// Who has come to take part in the coordinator, and who does no more.
fn voting_differences(before: &Voting, now: &Voting, found: &mut Vec<Difference>) {
    let mut tell = |kind, before: &[HostName], now: &[HostName], what: &str| {
        let news = now.iter().filter(|host| !before.contains(host));
        found.extend(news.map(|host| (kind, host.to_string(), format!("host `{host}` {what}"))));
    };
    tell("voter-prepared", &before.learners, &now.learners, "is sent the store, to vote then");
    tell("voter-added", &before.voters, &now.voters, "votes");
    tell("voter-removed", &now.voters, &before.voters, "votes no more");
}

fn host_differences(last: &Status, next: &Status, found: &mut Vec<Difference>) {
    for (host, status) in &next.hosts {
        let before = last.hosts.get(host).and_then(|before| before.state);
        let Some(state) = status.state.filter(|state| Some(*state) != before) else { continue };
        // A new leader learns the states it begins with: no host changed.
        if !last.is_leader && state == evenkeel_control::hosts::HostState::Up {
            continue;
        }
        let kind = match state {
            evenkeel_control::hosts::HostState::Up => "host-up",
            evenkeel_control::hosts::HostState::Isolated => "host-isolated",
            evenkeel_control::hosts::HostState::Down => "host-down",
        };
        found.push((kind, host.to_string(), format!("host `{host}` is {state}")));
    }
}

fn exit_of(process: &ProcessStatus) -> Difference {
    let reason = process.last_error.clone().unwrap_or_else(|| "ended".to_owned());
    let kind = match process.id {
        ProcessId::Gateway => "gateway-exited",
        ProcessId::Replica(_) => "replica-exited",
    };
    (kind, process.id.to_string(), format!("`{}` {reason}", process.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_votes_by_now_is_told() {
        let hosts = |names: &[&str]| names.iter().map(|it| HostName::parse(it).unwrap()).collect();
        let before = Voting { voters: hosts(&["a1", "b1", "c1"]), learners: hosts(&["c2"]) };
        let now = Voting { voters: hosts(&["a1", "b1", "c2"]), learners: hosts(&["d1"]) };
        let mut found = Vec::new();
        voting_differences(&before, &now, &mut found);
        let told: Vec<(&str, &str)> =
            found.iter().map(|(kind, subject, _)| (*kind, subject.as_str())).collect();
        let expected = [("voter-prepared", "d1"), ("voter-added", "c2"), ("voter-removed", "c1")];
        assert_eq!(told, expected);
    }
}
