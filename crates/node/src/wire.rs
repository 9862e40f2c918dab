//! Plans, reports and answers as JSON: between hosts, in the store and on disk.
//!
//! Fields may be added and are then ignored by older programs; none changes its meaning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::declaration::Declaration;
use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::{Plan, Release, Rollout};
use evenkeel_control::report::{HostReport, InstanceReport, InstanceState, LeaderAnswer};
use evenkeel_model::instance::{Instance, InstanceId, InstancePhase};
use evenkeel_model::name::{HostName, NameError, ServiceName};
use evenkeel_model::voting::Voting;
use serde::{Deserialize, Serialize};

/// Version of these formats; sent with every message and kept with every file.
pub const FORMAT: u32 = 2;

/// Longest system file, in bytes.
pub const SYSTEM_FILE_MAX: usize = 1 << 20;

/// A [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWire {
    number: u64,
    parent: u64,
    instances: Vec<InstanceWire>,
    next_serial: u64,
    #[serde(default)]
    avoided: Vec<AvoidedWire>,
    /// Revision to system file.
    declarations: BTreeMap<u64, String>,
    revision: u64,
    /// The coordinator's voters.
    voters: Vec<String>,
    #[serde(default)]
    learners: Vec<String>,
    /// Service to what its replicas run.
    releases: BTreeMap<String, ReleaseWire>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InstanceWire {
    id: String,
    host: String,
    port: u16,
    phase: PhaseWire,
    revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReleaseWire {
    current: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<RolloutWire>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RolloutWire {
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Reports why a plan that came from outside can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A name in it is none.
    #[error("a name in it can't be used")]
    Name(#[from] NameError),
    /// A system file in it has errors for this version of the program.
    #[error("the system file of revision {0} in it can't be used")]
    Declaration(u64),
    /// It refers to a system file that it does not hold.
    #[error("it lacks the system file of revision {0}")]
    Missing(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseWire {
    Serving,
    Draining,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AvoidedWire {
    service: String,
    host: String,
    tried: String,
}

impl From<&Plan> for PlanWire {
    fn from(plan: &Plan) -> Self {
        let instances = plan.instances.iter().map(|instance| InstanceWire {
            id: instance.id.to_string(),
            host: instance.host.to_string(),
            port: instance.port,
            phase: match instance.phase {
                InstancePhase::Serving => PhaseWire::Serving,
                InstancePhase::Draining => PhaseWire::Draining,
            },
            revision: instance.revision,
        });
        let declarations = plan.declarations.values();
        let releases = plan.releases.iter().map(|(service, release)| {
            let next = release
                .next
                .as_ref()
                .map(|next| RolloutWire { revision: next.revision, failed: next.failed.clone() });
            (service.to_string(), ReleaseWire { current: release.current, next })
        });
        let avoided = plan.avoided.iter().map(|((service, host), tried)| AvoidedWire {
            service: service.to_string(),
            host: host.to_string(),
            tried: tried.to_string(),
        });
        Self {
            number: plan.number,
            parent: plan.parent,
            instances: instances.collect(),
            next_serial: plan.next_serial,
            avoided: avoided.collect(),
            declarations: declarations
                .map(|declaration| (declaration.revision, declaration.text.to_string()))
                .collect(),
            revision: plan.revision,
            voters: names(plan.system().map(|system| &system.voters)),
            learners: names(plan.system().map(|system| &system.learners)),
            releases: releases.collect(),
        }
    }
}

/// How many numbers of plans and of replicas a lone survivor leaves out: more than any leader gave
/// that it may not have heard of.
const PLANS_SKIPPED: u64 = 1_000_000;
const SERIALS_SKIPPED: u64 = 100_000;

impl PlanWire {
    /// Turns a stored plan into one of a host that goes on alone: every host takes it for newer
    /// than all that it may have followed.
    pub fn go_on_with(&mut self, host: &HostName) {
        self.number += PLANS_SKIPPED;
        self.next_serial += SERIALS_SKIPPED;
        self.voters = vec![host.to_string()];
        self.learners.clear();
    }

    /// Returns a revision that it refers to without holding its system file.
    fn missing(&self) -> Option<u64> {
        let in_force = (self.number > 0).then_some(self.revision);
        let instances = self.instances.iter().map(|instance| instance.revision);
        let releases = self.releases.values().flat_map(|release| {
            [Some(release.current), release.next.as_ref().map(|next| next.revision)]
        });
        let mut revisions = in_force.into_iter().chain(instances).chain(releases.flatten());
        revisions.find(|revision| !self.declarations.contains_key(revision))
    }
}

fn names(hosts: Option<&Vec<HostName>>) -> Vec<String> {
    hosts.into_iter().flatten().map(ToString::to_string).collect()
}

fn parse_names(names: &[String]) -> Result<Vec<HostName>, NameError> {
    names.iter().map(|name| HostName::parse(name)).collect()
}

/// Reads a system file. Which hosts vote does not follow from the file once a system has begun.
///
/// # Errors
/// When the file has errors for this version of the program.
pub fn declare(revision: u64, text: &str, voting: &Voting) -> Result<Declaration, PlanError> {
    let parsed = evenkeel_system_file::parse(text).map_err(|_| PlanError::Declaration(revision))?;
    let system = parsed.system.with_voting(voting);
    Ok(Declaration { revision, text: text.into(), system: Arc::new(system) })
}

impl TryFrom<PlanWire> for Plan {
    type Error = PlanError;

    fn try_from(wire: PlanWire) -> Result<Self, PlanError> {
        if let Some(revision) = wire.missing() {
            return Err(PlanError::Missing(revision));
        }
        let instances = wire.instances.into_iter().map(|instance| {
            Ok(Instance {
                id: InstanceId::parse(&instance.id)?,
                host: HostName::parse(&instance.host)?,
                port: instance.port,
                phase: match instance.phase {
                    PhaseWire::Serving => InstancePhase::Serving,
                    PhaseWire::Draining => InstancePhase::Draining,
                },
                revision: instance.revision,
            })
        });
        let voting =
            Voting { voters: parse_names(&wire.voters)?, learners: parse_names(&wire.learners)? };
        let declarations = wire
            .declarations
            .iter()
            .map(|(revision, text)| Ok((*revision, declare(*revision, text, &voting)?)));
        let releases = wire.releases.into_iter().map(|(service, release)| {
            let next =
                release.next.map(|next| Rollout { revision: next.revision, failed: next.failed });
            Ok((ServiceName::parse(&service)?, Release { current: release.current, next }))
        });
        let avoided = wire.avoided.into_iter().map(|avoided| {
            let place = (ServiceName::parse(&avoided.service)?, HostName::parse(&avoided.host)?);
            Ok((place, InstanceId::parse(&avoided.tried)?))
        });
        Ok(Self {
            number: wire.number,
            parent: wire.parent,
            instances: instances.collect::<Result<_, NameError>>()?,
            next_serial: wire.next_serial,
            avoided: avoided.collect::<Result<_, NameError>>()?,
            declarations: declarations.collect::<Result<_, PlanError>>()?,
            revision: wire.revision,
            releases: releases.collect::<Result<_, NameError>>()?,
        })
    }
}

/// A [`HostReport`].
#[derive(Debug, Serialize, Deserialize)]
pub struct ReportWire {
    host: String,
    boot: u64,
    sequence: u64,
    plan_number: u64,
    instances: Vec<InstanceReportWire>,
    /// Host to round trip in microseconds, absent when it does not answer.
    reachable: BTreeMap<String, Option<u64>>,
    ports_taken: Vec<u16>,
    gateway_up: bool,
    disk_ok: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct InstanceReportWire {
    id: String,
    state: StateWire,
    restarts: u64,
    crash_looping: bool,
    last_error: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    last_lines: Vec<String>,
}

/// An [`InstanceState`], in reports and in the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateWire {
    /// See [`InstanceState::Starting`].
    Starting,
    /// See [`InstanceState::Ready`].
    Ready,
    /// See [`InstanceState::NotReady`].
    NotReady,
    /// See [`InstanceState::BackingOff`].
    BackingOff,
    /// See [`InstanceState::Failed`].
    Failed,
    /// See [`InstanceState::Stopping`].
    Stopping,
}

impl From<InstanceState> for StateWire {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Starting => Self::Starting,
            InstanceState::Ready => Self::Ready,
            InstanceState::NotReady => Self::NotReady,
            InstanceState::BackingOff => Self::BackingOff,
            InstanceState::Failed => Self::Failed,
            InstanceState::Stopping => Self::Stopping,
        }
    }
}

impl From<StateWire> for InstanceState {
    fn from(state: StateWire) -> Self {
        match state {
            StateWire::Starting => Self::Starting,
            StateWire::Ready => Self::Ready,
            StateWire::NotReady => Self::NotReady,
            StateWire::BackingOff => Self::BackingOff,
            StateWire::Failed => Self::Failed,
            StateWire::Stopping => Self::Stopping,
        }
    }
}

impl From<&HostReport> for ReportWire {
    fn from(report: &HostReport) -> Self {
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let instances = report.instances.iter().map(|instance| InstanceReportWire {
            id: instance.id.to_string(),
            state: instance.state.into(),
            restarts: instance.restarts,
            crash_looping: instance.crash_looping,
            last_error: instance.last_error.clone(),
            last_lines: instance.last_lines.clone(),
        });
        let reachable = report
            .reachable
            .iter()
            .map(|(host, round_trip)| (host.to_string(), round_trip.as_ref().map(micros)));
        Self {
            host: report.host.to_string(),
            boot: report.boot,
            sequence: report.sequence,
            plan_number: report.plan_number,
            instances: instances.collect(),
            reachable: reachable.collect(),
            ports_taken: report.ports_taken.iter().copied().collect(),
            gateway_up: report.gateway_up,
            disk_ok: report.disk_ok,
        }
    }
}

impl TryFrom<ReportWire> for HostReport {
    type Error = NameError;

    fn try_from(wire: ReportWire) -> Result<Self, NameError> {
        let instances = wire.instances.into_iter().map(|instance| {
            Ok(InstanceReport {
                id: InstanceId::parse(&instance.id)?,
                state: instance.state.into(),
                restarts: instance.restarts,
                crash_looping: instance.crash_looping,
                last_error: instance.last_error,
                last_lines: instance.last_lines,
            })
        });
        let reachable = wire.reachable.into_iter().map(|(host, round_trip)| {
            Ok((HostName::parse(&host)?, round_trip.map(Duration::from_micros)))
        });
        Ok(Self {
            host: HostName::parse(&wire.host)?,
            boot: wire.boot,
            sequence: wire.sequence,
            plan_number: wire.plan_number,
            instances: instances.collect::<Result<_, NameError>>()?,
            reachable: reachable.collect::<Result<_, NameError>>()?,
            ports_taken: wire.ports_taken.into_iter().collect(),
            gateway_up: wire.gateway_up,
            disk_ok: wire.disk_ok,
        })
    }
}

/// A [`LeaderAnswer`], with what else the leader says.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnswerWire {
    term: u64,
    plan: Option<PlanWire>,
    hosts: BTreeMap<String, HostStateWire>,
    missing: Vec<String>,
}

/// A [`HostState`], in answers and in the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostStateWire {
    /// See [`HostState::Up`].
    Up,
    /// See [`HostState::Isolated`].
    Isolated,
    /// See [`HostState::Down`].
    Down,
}

impl From<HostState> for HostStateWire {
    fn from(state: HostState) -> Self {
        match state {
            HostState::Up => Self::Up,
            HostState::Isolated => Self::Isolated,
            HostState::Down => Self::Down,
        }
    }
}

impl From<HostStateWire> for HostState {
    fn from(state: HostStateWire) -> Self {
        match state {
            HostStateWire::Up => Self::Up,
            HostStateWire::Isolated => Self::Isolated,
            HostStateWire::Down => Self::Down,
        }
    }
}

impl AnswerWire {
    /// Converts what the leader's core answers.
    #[must_use]
    pub fn new(answer: &LeaderAnswer) -> Self {
        let hosts = answer.hosts.iter().map(|(host, state)| (host.to_string(), (*state).into()));
        Self {
            term: answer.term,
            plan: answer.plan.as_ref().map(PlanWire::from),
            hosts: hosts.collect(),
            missing: answer.missing.clone(),
        }
    }
}

impl TryFrom<AnswerWire> for LeaderAnswer {
    type Error = PlanError;

    fn try_from(wire: AnswerWire) -> Result<Self, PlanError> {
        let hosts =
            wire.hosts.into_iter().map(|(host, state)| Ok((HostName::parse(&host)?, state.into())));
        Ok(Self {
            term: wire.term,
            plan: wire.plan.map(Plan::try_from).transpose()?,
            hosts: hosts.collect::<Result<_, NameError>>()?,
            missing: wire.missing,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use evenkeel_system_file::template;

    use super::*;

    pub(crate) fn plan() -> Plan {
        let id = |text| InstanceId::parse(text).unwrap();
        let host = |text| HostName::parse(text).unwrap();
        let voting =
            Voting { voters: [host("a1"), host("b1")].into(), learners: [host("c1")].into() };
        Plan {
            number: 7,
            parent: 5,
            instances: vec![Instance {
                id: id("web-api-3"),
                host: host("fra-a1"),
                port: 20_001,
                phase: InstancePhase::Draining,
                revision: 4,
            }],
            next_serial: 9,
            avoided: [((ServiceName::parse("web-api").unwrap(), host("ams-a1")), id("web-api-2"))]
                .into(),
            declarations: [4, 6]
                .map(|revision| (revision, declare(revision, template(), &voting).unwrap()))
                .into(),
            revision: 6,
            releases: [(
                ServiceName::parse("web-api").unwrap(),
                Release {
                    current: 4,
                    next: Some(Rollout { revision: 6, failed: Some("no".to_owned()) }),
                },
            )]
            .into(),
        }
    }

    #[test]
    fn a_lone_survivor_numbers_its_plans_behind_all_others() {
        let before = plan();
        let mut wire = PlanWire::from(&before);
        wire.go_on_with(&HostName::parse("b1").unwrap());
        let after = Plan::try_from(wire).unwrap();
        assert!(after.number > before.number + 100_000);
        assert!(after.next_serial > before.next_serial + 10_000);
        let voting = after.system().unwrap().voting();
        assert_eq!(
            (voting.voters, voting.learners),
            (vec![HostName::parse("b1").unwrap()], vec![])
        );
        assert_eq!(after.instances, before.instances);
    }

    #[test]
    fn a_plan_that_lacks_a_system_file_is_refused() {
        let mut wire = PlanWire::from(&plan());
        wire.declarations.remove(&4);
        assert_eq!(Plan::try_from(wire), Err(PlanError::Missing(4)));
        let mut wire = PlanWire::from(&plan());
        wire.declarations.insert(6, "system = ".to_owned());
        assert_eq!(Plan::try_from(wire), Err(PlanError::Declaration(6)));
    }

    #[test]
    fn a_plan_survives_the_trip() {
        let wire = serde_json::to_string(&PlanWire::from(&plan())).unwrap();
        let back: PlanWire = serde_json::from_str(&wire).unwrap();
        assert_eq!(Plan::try_from(back), Ok(plan()));
    }

    #[test]
    fn a_report_survives_the_trip() {
        let host = |text| HostName::parse(text).unwrap();
        let report = HostReport {
            host: host("fra-a1"),
            boot: 1,
            sequence: 2,
            plan_number: 3,
            instances: vec![InstanceReport {
                id: InstanceId::parse("web-1").unwrap(),
                state: InstanceState::BackingOff,
                restarts: 4,
                crash_looping: true,
                last_error: Some("ended with exit code 1".to_owned()),
                last_lines: vec!["oh".to_owned()],
            }],
            reachable: [
                (host("ams-a1"), Some(Duration::from_micros(10_250))),
                (host("waw-a1"), None),
            ]
            .into(),
            ports_taken: [20_003].into(),
            gateway_up: true,
            disk_ok: false,
        };
        let wire = serde_json::to_string(&ReportWire::from(&report)).unwrap();
        let back: ReportWire = serde_json::from_str(&wire).unwrap();
        assert_eq!(HostReport::try_from(back), Ok(report));
    }

    #[test]
    fn an_answer_survives_the_trip() {
        let answer = LeaderAnswer {
            term: 3,
            plan: Some(plan()),
            hosts: [(HostName::parse("fra-a1").unwrap(), HostState::Isolated)].into(),
            missing: vec!["host `fra-a1` is isolated".to_owned()],
        };
        let wire = serde_json::to_string(&AnswerWire::new(&answer)).unwrap();
        let back: AnswerWire = serde_json::from_str(&wire).unwrap();
        assert_eq!(LeaderAnswer::try_from(back), Ok(answer));
    }
}
