//! What a host knows, for people: the whole local view at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::{Plan, Release};
use evenkeel_control::redundancy::Redundancy;
use evenkeel_control::report::InstanceState;
use evenkeel_model::instance::Instance;
use evenkeel_model::name::{HostName, ServiceName};

use crate::process::ProcessId;

/// The local view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The host that sees this.
    pub host: HostName,
    /// The leader's host, as far as known.
    pub leader: Option<HostName>,
    /// Whether that is this host.
    pub is_leader: bool,
    /// The term.
    pub term: u64,
    /// Time since the leader last answered: zero on the leader itself, `None` if it never did
    /// since this node process began.
    pub leader_contact: Option<Duration>,
    /// The plan in force on this host.
    pub plan: Option<Plan>,
    /// Generation of the routes last written.
    pub routes_generation: u64,
    /// Every host of the system.
    pub hosts: BTreeMap<HostName, HostStatus>,
    /// What the replicas of each service run: of the newest plan on the leader, elsewhere of the one
    /// in force.
    pub releases: BTreeMap<ServiceName, Release>,
    /// What the store wants: revisions of the system file and of the drained hosts, and these; known
    /// to the leader alone.
    pub wanted: Option<(u64, u64, BTreeSet<HostName>)>,
    /// Processes of this host.
    pub processes: Vec<ProcessStatus>,
    /// Every replica of the plan: its state is known to the leader, and to its own host.
    pub instances: Vec<InstanceStatus>,
    /// What the system lacks: on the leader now, elsewhere as of `leader_contact` ago. `None`
    /// when no leader has said.
    pub redundancy: Option<Redundancy>,
    /// What this host's disk does not take: changes of the store, its plan or its routes.
    pub disk_error: Option<String>,
    /// Whether everything on this host is being stopped.
    pub stopping: bool,
}

/// A host as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostStatus {
    /// How the leader sees it: now on the leader, elsewhere as of its last answer.
    pub state: Option<HostState>,
    /// Round trip of this host's own probes, `None` when it does not answer. Zero for itself.
    pub round_trip: Option<Duration>,
    /// Whether its disk takes what it must store. Only the leader knows; taken for granted
    /// elsewhere.
    pub disk_ok: bool,
    /// Whether its gateway answers, with the same restriction.
    pub gateway_up: bool,
}

/// A process of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Which process.
    pub id: ProcessId,
    /// What it does.
    pub state: InstanceState,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// How often it failed since this node process began.
    pub restarts: u64,
    /// Why it last failed.
    pub last_error: Option<String>,
}

/// A replica of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStatus {
    /// The replica as planned.
    pub instance: Instance,
    /// What it does, where that is known.
    pub state: Option<InstanceState>,
    /// Why it last failed, where that is known.
    pub last_error: Option<String>,
}
