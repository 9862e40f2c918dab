//! What hosts say about the system: `GET /v1/status` of a node, read leniently, so that a newer
//! node's fields disturb nothing.

use std::collections::BTreeMap;

use evenkeel_model::instance::{InstanceId, Placement};
use evenkeel_model::name::HostName;
use evenkeel_model::time::Timestamp;
use serde::Deserialize;

/// One host's view of the whole system.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Whether the system would live through what it promises to live through.
    #[serde(default)]
    pub goal_met: bool,
    /// The sentence for people.
    #[serde(default)]
    pub sentence: String,
    /// Host of the coordinator's leader.
    #[serde(default)]
    pub leader: Option<String>,
    /// The leader's term.
    #[serde(default)]
    pub term: u64,
    /// What is missing to full redundancy.
    #[serde(default)]
    pub redundancy: Redundancy,
    /// Every host.
    #[serde(default)]
    pub hosts: Vec<HostLine>,
    /// Every replica.
    #[serde(default)]
    pub instances: Vec<InstanceLine>,
    /// Latest events, some of them seen before.
    #[serde(default)]
    pub events: Vec<EventLine>,
    /// `leader` when it comes from the leader, otherwise from what this host knows by itself.
    #[serde(default)]
    pub source: String,
    /// The host whose view this is.
    #[serde(default)]
    pub host: String,
}

/// Whether everything wanted is there.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Redundancy {
    /// Every wanted replica is ready and spread, every host and gateway is up.
    #[serde(default)]
    pub full: bool,
    /// What is not, in words.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// A host in a status.
#[derive(Debug, Clone, Deserialize)]
pub struct HostLine {
    /// Its name.
    pub name: String,
    /// `up`, `isolated` or `down`; absent when no leader has said.
    #[serde(default)]
    pub state: Option<String>,
    /// Whether it votes in the coordinator.
    #[serde(default)]
    pub voter: bool,
}

/// A replica in a status.
#[derive(Debug, Clone, Deserialize)]
pub struct InstanceLine {
    /// `web-17`.
    pub id: String,
    /// The service.
    #[serde(default)]
    pub service: String,
    /// Its host.
    pub host: String,
    /// `serving`, or `draining` when it is about to go.
    #[serde(default)]
    pub phase: String,
    /// `ready` when it passes its health check; absent when not known.
    #[serde(default)]
    pub state: Option<String>,
}

/// An event in a status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct EventLine {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// `host-down`, `leader-changed`, …
    pub kind: String,
    /// What it is about: a host, a replica.
    #[serde(default)]
    pub subject: String,
    /// The event in words.
    #[serde(default)]
    pub text: String,
    /// The host that noticed it; filled in from the status around it.
    #[serde(skip)]
    pub noticed_by: String,
}

impl EventLine {
    /// Returns when it happened.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.at_ns)
    }
}

impl Status {
    /// Reads a status.
    ///
    /// # Errors
    /// The text is no status.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Returns whether this is the leader's own view.
    #[must_use]
    pub fn is_from_leader(&self) -> bool {
        self.source == "leader"
    }

    /// Returns the leader's host.
    #[must_use]
    pub fn leader(&self) -> Option<HostName> {
        HostName::parse(self.leader.as_deref()?).ok()
    }

    /// Returns the hosts that vote, without the leader.
    #[must_use]
    pub fn followers(&self) -> Vec<HostName> {
        let leader = self.leader();
        let voters = self.hosts.iter().filter(|host| host.voter);
        let names = voters.filter_map(|host| HostName::parse(&host.name).ok());
        names.filter(|host| Some(host) != leader.as_ref()).collect()
    }

    /// Returns the replicas that take requests.
    #[must_use]
    pub fn ready(&self) -> Vec<(InstanceId, HostName)> {
        let takes_requests = |instance: &&InstanceLine| {
            instance.phase != "draining" && instance.state.as_deref() == Some("ready")
        };
        let ready = self.instances.iter().filter(takes_requests);
        ready
            .filter_map(|instance| {
                let id = InstanceId::parse(&instance.id).ok()?;
                Some((id, HostName::parse(&instance.host).ok()?))
            })
            .collect()
    }

    /// Returns where the replicas that take requests are.
    #[must_use]
    pub fn placement(&self) -> Placement {
        let mut placement: Placement = BTreeMap::new();
        for (id, host) in self.ready() {
            placement.entry(id.service).or_default().push(host);
        }
        placement
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Five hosts in three regions, two replicas of `web` in each of the first two.
    pub(crate) fn example() -> Status {
        Status::parse(
            br#"{"system":"demo","survive":"region","goal_met":true,"sentence":"all is well",
            "leader":"fra-1","term":3,"plan_number":4,"redundancy":{"full":true,"missing":[]},
            "hosts":[
             {"name":"fra-1","region":"fra","zone":"a","role":"full","state":"up","voter":true},
             {"name":"fra-2","region":"fra","zone":"b","role":"full","state":"up","voter":true},
             {"name":"ams-1","region":"ams","zone":"a","role":"full","state":"up","voter":true},
             {"name":"ams-2","region":"ams","zone":"b","role":"full","state":"up","voter":true},
             {"name":"waw-1","region":"waw","zone":"a","role":"witness","state":"up","voter":true}],
            "instances":[
             {"id":"web-1","service":"web","host":"fra-1","port":20000,"phase":"serving","state":"ready"},
             {"id":"web-2","service":"web","host":"fra-2","port":20000,"phase":"serving","state":"ready"},
             {"id":"web-3","service":"web","host":"ams-1","port":20000,"phase":"serving","state":"ready"},
             {"id":"web-4","service":"web","host":"ams-2","port":20000,"phase":"serving","state":"starting"},
             {"id":"web-5","service":"web","host":"ams-2","port":20001,"phase":"draining","state":"ready"}],
            "events":[{"at_ns":5,"kind":"leader-changed","subject":"fra-1","text":"fra-1 leads"}],
            "source":"leader","age_ms":0}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_status_names_roles() {
        let status = example();
        assert_eq!(status.leader().unwrap().as_str(), "fra-1");
        assert_eq!(status.followers().len(), 4);
        assert_eq!(status.ready().len(), 3);
        assert_eq!(status.placement().len(), 1);
        assert!(Status::parse(b"<html>").is_err());
    }
}
