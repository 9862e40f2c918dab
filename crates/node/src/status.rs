//! The status that people and programs read: one sentence, then everything it rests on.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_audit::assessment::Capacity;
use evenkeel_control::plan::Release;
use evenkeel_model::name::ServiceName;
use evenkeel_model::place::HostRole;
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::status::Status;
use serde::{Deserialize, Serialize};

use crate::change::State;
use crate::events::Event;
use crate::survival::Survival;
use crate::wire::{HostStateWire, StateWire};

/// The phase of a replica that is on its way out.
pub const DRAINING: &str = "draining";

/// The whole status as JSON. Fields may be added; none changes its meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusWire {
    /// Name of the system.
    pub system: String,
    /// The declared goal.
    pub survive: String,
    /// Whether the goal is met now. `false` without a leader, who alone can tell.
    pub goal_met: bool,
    /// The same in one sentence.
    pub sentence: String,
    /// Who leads.
    pub leader: Option<String>,
    /// In which term.
    pub term: u64,
    /// Number of the plan in force where this was seen.
    pub plan_number: u64,
    /// Revisions of what is wanted; known to the leader alone.
    #[serde(default)]
    pub wanted: Option<State>,
    /// What is missing until the system could take the next fault as well as the last.
    pub redundancy: RedundancyWire,
    /// Definitions that are being deployed or were given up.
    #[serde(default)]
    pub deploys: Vec<DeployWire>,
    /// What the worst loss of the goal's size would leave of each service; empty without a leader.
    #[serde(default)]
    pub capacity: Vec<CapacityWire>,
    /// Every host.
    pub hosts: Vec<HostWire>,
    /// Every planned replica.
    pub instances: Vec<InstanceWire>,
    /// Every way in.
    #[serde(default)]
    pub gateways: Vec<GatewayWire>,
    /// Processes of the host that answers.
    pub processes: Vec<ProcessWire>,
    /// What changed lately where this was seen.
    pub events: Vec<Event>,
    /// The moment of this view on the clock of `events`: CLOCK_MONOTONIC of `host`.
    #[serde(default)]
    pub now_ns: u64,
    /// What an operator should know beside the goal.
    pub warnings: Vec<String>,
    /// The host whose view this is.
    pub host: String,
    /// `leader` when the view is the leader's own, otherwise `local`.
    pub source: Source,
    /// How old the leader's part of the view is, in milliseconds; absent when there was none yet.
    pub age_ms: Option<u64>,
}

/// Whose view a status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The leader's, so fresh.
    Leader,
    /// One host's, as far as it knows.
    Local,
}

/// See [`evenkeel_control::redundancy::Redundancy`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RedundancyWire {
    /// Whether nothing is missing.
    pub full: bool,
    /// What is missing, a sentence each.
    pub missing: Vec<String>,
}

/// See [`evenkeel_control::plan::Rollout`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployWire {
    /// The service.
    pub service: String,
    /// Revision of the system file that has the definition.
    pub revision: u64,
    /// Why it was given up, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// See [`evenkeel_audit::assessment::Capacity`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CapacityWire {
    /// The service.
    pub service: String,
    /// Its replicas that are ready now.
    pub replicas: u32,
    /// How many of them are left after the worst loss.
    pub left: u32,
}

/// One host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostWire {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its address.
    pub address: String,
    /// `full` or `witness`.
    pub role: String,
    /// How the leader sees it, absent when no leader has said.
    pub state: Option<HostStateWire>,
    /// Whether it votes in the coordinator.
    pub voter: bool,
    /// Whether it is sent the store, to vote in it then.
    #[serde(default)]
    pub learner: bool,
    /// Whether it is to run no replica; known to the leader alone.
    #[serde(default)]
    pub drained: bool,
    /// Round trip from the host that answers, in milliseconds, absent without an answer.
    pub round_trip_ms: Option<f64>,
}

/// One planned replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceWire {
    /// Its name, such as `web-17`.
    pub id: String,
    /// Its service.
    pub service: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `serving` or `draining`.
    pub phase: String,
    /// What it does, absent when not known here.
    pub state: Option<StateWire>,
    /// Why it last failed.
    pub last_error: Option<String>,
}

/// One gateway, open on every host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayWire {
    /// Its name.
    pub name: String,
    /// Where it listens, on the host that `status` was asked on.
    pub url: String,
}

/// One process of the host that answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessWire {
    /// `gateway` or a replica's name.
    pub id: String,
    /// What it does.
    pub state: StateWire,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// How often it failed since the node process began.
    pub restarts: u64,
    /// Why it last failed.
    pub last_error: Option<String>,
}

impl StatusWire {
    /// Puts a host's view into words.
    #[must_use]
    pub fn new(
        status: &Status,
        system: &System,
        survival: &Survival,
        events: Vec<Event>,
        warnings: Vec<String>,
        now: Timestamp,
    ) -> Self {
        let missing = status.redundancy.as_ref().map(|redundancy| redundancy.missing.clone());
        let missing = missing.unwrap_or_else(|| vec!["no leader has said".to_owned()]);
        let source = if status.is_leader { Source::Leader } else { Source::Local };
        let age =
            status.leader_contact.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let mut wire = Self {
            system: system.name.to_string(),
            survive: system.goal.to_string(),
            goal_met: status.is_leader && survival.goal_met,
            sentence: String::new(),
            leader: status.leader.as_ref().map(ToString::to_string),
            term: status.term,
            wanted: status
                .wanted
                .as_ref()
                .map(|(system, drained, _)| State { system: *system, drained: *drained }),
            deploys: deploys(status),
            plan_number: status.plan.as_ref().map_or(0, |plan| plan.number),
            redundancy: RedundancyWire { full: missing.is_empty(), missing },
            capacity: survival.capacity.iter().map(CapacityWire::from).collect(),
            hosts: hosts(status, system),
            instances: instances(status),
            gateways: gateways(status, system),
            processes: processes(status),
            events,
            now_ns: now.as_nanos(),
            warnings,
            host: status.host.to_string(),
            source,
            age_ms: age,
        };
        wire.sentence = wire.sentence(survival);
        wire
    }

    /// Returns whether this is the view of a leader.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.source == Source::Leader
    }

    /// Returns the leader's view as asked for through another host: its own warnings, ways in,
    /// processes and what happened to them count too.
    #[must_use]
    pub fn seen_from(mut self, own: &Self) -> Self {
        self.gateways.clone_from(&own.gateways);
        self.processes.clone_from(&own.processes);
        for event in own.events.iter().filter(|event| event.kind.ends_with("-exited")) {
            let age = own.now_ns.saturating_sub(event.at_ns);
            let at_ns = self.now_ns.saturating_sub(age);
            self.events.push(Event { at_ns, ..event.clone() });
        }
        self.events.sort_by_key(|event| event.at_ns);
        for warning in &own.warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
            }
        }
        self
    }

    /// Says that the leader, which alone can tell whether the goal is met, gave no answer in time.
    #[must_use]
    pub fn without_leader(mut self, waited: Duration) -> Self {
        let leader = self.leader.as_deref().unwrap_or("none");
        self.sentence = format!(
            "{}: leader `{leader}` did not answer `{}` within {} ms, so nobody says whether the \
             goal is met; the rest is {}",
            self.system,
            self.host,
            waited.as_millis(),
            self.known()
        );
        self
    }

    fn sentence(&self, survival: &Survival) -> String {
        let (system, goal) = (&self.system, &self.survive);
        match (self.source, &self.leader) {
            (Source::Leader, _) => {}
            (Source::Local, None) => return format!("{system} has {}", self.no_quorum()),
            (Source::Local, Some(leader)) => {
                return format!(
                    "{system}: leader `{leader}` was not asked whether the goal is met; this is {}",
                    self.known()
                );
            }
        }
        let up = self.hosts.iter().filter(|host| host.state == Some(HostStateWire::Up)).count();
        let hosts = format!("{up} of {} hosts up", self.hosts.len());
        match (self.goal_met, self.redundancy.full) {
            (true, true) => {
                format!("{system} survives the loss of any one {goal}: {hosts}, nothing is missing")
            }
            (true, false) => format!(
                "{system} survives the loss of any one {goal}, but is not complete: {}",
                first_lines(&self.redundancy.missing).join("; ")
            ),
            (false, _) => {
                format!(
                    "{system} would not survive the loss of any one {goal}: {}",
                    survival.reason
                )
            }
        }
    }
}

impl StatusWire {
    fn no_quorum(&self) -> String {
        let silent: Vec<String> = self
            .hosts
            .iter()
            .filter(|host| host.voter && host.round_trip_ms.is_none())
            .map(|host| format!("`{}`", host.name))
            .collect();
        let silent = match silent.as_slice() {
            [] => "every voter answers, but none leads yet".to_owned(),
            [one] => format!("voter {one} does not answer"),
            [others @ .., last] => {
                format!("voters {} and {last} do not answer", others.join(", "))
            }
        };
        format!("no quorum in reach of `{}`: {silent}; the rest is {}", self.host, self.known())
    }

    /// Says where a local view is from, and how old it is.
    fn known(&self) -> String {
        match self.age_ms {
            Some(age) => {
                format!("what `{}` heard from a leader {} s ago", self.host, age.div_ceil(1000))
            }
            None => format!("what `{}` knows by itself", self.host),
        }
    }
}

impl From<&Capacity> for CapacityWire {
    fn from(capacity: &Capacity) -> Self {
        let Capacity { service, replicas, left, .. } = capacity;
        Self { service: service.to_string(), replicas: *replicas, left: *left }
    }
}

/// Where each gateway is reached on the host that answers.
fn gateways(status: &Status, system: &System) -> Vec<GatewayWire> {
    let own = system.hosts.get(&status.host).map(|host| host.address);
    let gateway = |gateway: &evenkeel_model::service::Gateway| {
        let address = gateway.address.or(own)?;
        let url = format!("http://{}/", SocketAddr::new(address, gateway.port));
        Some(GatewayWire { name: gateway.name.to_string(), url })
    };
    system.gateways.values().filter_map(gateway).collect()
}

/// Leaves out what is below each sentence, such as the last lines of a log.
fn first_lines(sentences: &[String]) -> Vec<&str> {
    sentences.iter().filter_map(|sentence| sentence.lines().next()).collect()
}

fn deploys(status: &Status) -> Vec<DeployWire> {
    let deploy = |(service, release): (&ServiceName, &Release)| {
        let next = release.next.as_ref()?;
        let (revision, failed) = (next.revision, next.failed.clone());
        Some(DeployWire { service: service.to_string(), revision, failed })
    };
    status.releases.iter().filter_map(deploy).collect()
}

fn hosts(status: &Status, system: &System) -> Vec<HostWire> {
    let drained = status.wanted.as_ref().map(|(_, _, drained)| drained);
    let host = |host: &evenkeel_model::place::Host| {
        let seen = status.hosts.get(&host.name);
        HostWire {
            name: host.name.to_string(),
            region: host.region.to_string(),
            zone: host.zone.to_string(),
            address: host.address.to_string(),
            role: match host.role {
                HostRole::Full => "full".to_owned(),
                HostRole::Witness => "witness".to_owned(),
            },
            state: seen.and_then(|seen| seen.state).map(HostStateWire::from),
            voter: system.voters.contains(&host.name),
            learner: system.learners.contains(&host.name),
            drained: drained.is_some_and(|drained| drained.contains(&host.name)),
            round_trip_ms: seen
                .and_then(|seen| seen.round_trip)
                .map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
        }
    };
    system.hosts.values().map(host).collect()
}

fn instances(status: &Status) -> Vec<InstanceWire> {
    let instance = |seen: &evenkeel_node_core::status::InstanceStatus| InstanceWire {
        id: seen.instance.id.to_string(),
        service: seen.instance.id.service.to_string(),
        host: seen.instance.host.to_string(),
        port: seen.instance.port,
        phase: match seen.instance.phase {
            evenkeel_model::instance::InstancePhase::Serving => "serving".to_owned(),
            evenkeel_model::instance::InstancePhase::Draining => DRAINING.to_owned(),
        },
        state: seen.state.map(StateWire::from),
        last_error: seen.last_error.clone(),
    };
    status.instances.iter().map(instance).collect()
}

fn processes(status: &Status) -> Vec<ProcessWire> {
    let process = |process: &evenkeel_node_core::status::ProcessStatus| ProcessWire {
        id: process.id.to_string(),
        state: process.state.into(),
        pid: process.pid,
        restarts: process.restarts,
        last_error: process.last_error.clone(),
    };
    status.processes.iter().map(process).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use evenkeel_model::name::HostName;

    use super::*;

    const FILE: &str = r#"
        system = "shop"
        survive = "process"
        [region.fra]
        zones = { a = { a1 = "127.0.0.1", a2 = "127.0.0.2" } }
        [service.web]
        command = ["web", "${PORT}"]
        replicas = 1
        [gateway.public]
        listen = ":8080"
        routes = [{ path = "/", to = "web" }]
    "#;

    /// What `a2` says by itself, three seconds after it last heard from a leader.
    fn local(leader: Option<&str>) -> StatusWire {
        let system = evenkeel_system_file::parse(FILE).unwrap().system;
        let host = |name: &str| HostName::parse(name).unwrap();
        let seen = evenkeel_node_core::status::HostStatus {
            state: None,
            round_trip: Some(Duration::from_millis(400)),
            disk_ok: true,
            gateway_up: true,
        };
        let status = Status {
            host: host("a2"),
            leader: leader.map(host),
            is_leader: false,
            term: 7,
            leader_contact: Some(Duration::from_millis(2500)),
            plan: None,
            routes_generation: 1,
            hosts: BTreeMap::from([(host("a1"), seen)]),
            releases: BTreeMap::new(),
            wanted: None,
            processes: Vec::new(),
            instances: Vec::new(),
            redundancy: None,
            disk_error: None,
            stopping: false,
        };
        let survival = crate::survival::judge(&system, &status);
        StatusWire::new(&status, &system, &survival, Vec::new(), Vec::new(), Timestamp::ZERO)
    }

    #[test]
    fn a_slow_leader_is_not_taken_for_a_lost_quorum() {
        let heard = "what `a2` heard from a leader 3 s ago";
        let slow = local(Some("a1")).without_leader(Duration::from_millis(1700));
        assert_eq!(
            slow.sentence,
            format!(
                "shop: leader `a1` did not answer `a2` within 1700 ms, so nobody says whether the \
                 goal is met; the rest is {heard}"
            )
        );
        assert!(!slow.goal_met);
        assert_eq!(
            local(Some("a1")).sentence,
            format!("shop: leader `a1` was not asked whether the goal is met; this is {heard}")
        );
        assert_eq!(
            local(None).sentence,
            format!(
                "shop has no quorum in reach of `a2`: every voter answers, but none leads yet; the \
                 rest is {heard}"
            )
        );
    }
}
