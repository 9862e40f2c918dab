//! What a host's loop is told at its start.

use std::time::Duration;

use evenkeel_control::controller;
use evenkeel_control::declaration::Declaration;
use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::name::HostName;
use evenkeel_model::system::System;

use crate::process::ProcessId;

/// Who the host is and how patient it is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The host that this loop runs on.
    pub host: HostName,
    /// The system file that the host was started with, followed by those of plans.
    pub declaration: Declaration,
    /// Differs for each life of the node process.
    pub boot: u64,
    /// Seed of the restart back-off.
    pub seed: u64,
    /// Program and arguments of the gateway process.
    pub gateway_command: Vec<String>,
    /// Whether traffic between hosts is protected: replicas then listen for their own host alone,
    /// and gateways of other hosts reach them through the relay of this host's gateway.
    pub protected: bool,
    /// Timings.
    pub timings: Timings,
    /// The leader's patience, used while this host leads.
    pub control: controller::Settings,
    /// A rule that is broken on purpose, so that a simulator can show that it notices.
    pub defect: Option<Defect>,
}

impl Settings {
    /// Returns the system whose places and routes are in force.
    #[must_use]
    pub fn system(&self) -> &System {
        &self.declaration.system
    }
}

/// How often a host speaks to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Time between two reports to the leader.
    pub heartbeat: Duration,
    /// A report without an answer after this long counts as lost.
    pub heartbeat_timeout: Duration,
    /// Shortest time between two reports when something changed.
    pub heartbeat_min: Duration,
    /// Time between two probes of every other host.
    pub probe: Duration,
    /// A host that answered no probe for this long is not reachable.
    pub reachable: Duration,
    /// Time until a failed write of plan or routes is tried again.
    pub save_retry: Duration,
}

impl Timings {
    /// The product's timings.
    pub const STANDARD: Self = Self {
        heartbeat: Duration::from_millis(250),
        heartbeat_timeout: Duration::from_millis(250),
        heartbeat_min: Duration::from_millis(50),
        probe: Duration::from_millis(500),
        reachable: Duration::from_millis(1250),
        save_retry: Duration::from_secs(1),
    };
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Every plan received is followed, also one with a lower number.
    PlanNumberIgnored,
    /// Routes are derived from a plan that is still being saved.
    RoutesBeforePlan,
    /// Endpoints are left out of the routes while the leader takes their hosts for lost.
    RoutesFromOpinion,
    /// Processes that an earlier node process has left are not taken over.
    AdoptsNothing,
}

/// What the host finds on its own disk and in its own process table at its start.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The last plan saved.
    pub plan: Option<Plan>,
    /// The last routes written.
    pub routes: Option<RouteTable>,
    /// Processes that an earlier node process started.
    pub processes: Vec<Adopted>,
}

/// A process whose shim is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Which process.
    pub id: ProcessId,
    /// Its process id; `None` when it has ended and only its shim is left.
    pub pid: Option<u32>,
}
