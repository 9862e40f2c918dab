//! What hosts and their leader tell each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use evenkeel_model::instance::{Instance, InstanceId};
use evenkeel_model::name::HostName;

use crate::hosts::HostState;
use crate::plan::Plan;

/// What a replica does, as its own host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceState {
    /// Runs but has not passed its health check yet, or has yet to be started.
    Starting,
    /// Runs and passes its health check.
    Ready,
    /// Runs and fails its health check, after it was ready or its time to start was over.
    NotReady,
    /// Ended and waits to be started again.
    BackingOff,
    /// Could not be started, for example because its port is taken; tried again later.
    Failed,
    /// Was told to stop and has not ended yet.
    Stopping,
}

impl fmt::Display for InstanceState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::BackingOff => "backing off",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        })
    }
}

/// Most lines of a failed replica's log that are reported.
pub const LAST_LINES_MAX: usize = 10;

/// One replica in a [`HostReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReport {
    /// Which replica.
    pub id: InstanceId,
    /// What it does.
    pub state: InstanceState,
    /// How often it failed since its host's node process began.
    pub restarts: u64,
    /// Whether it failed so often in a row that another host should try.
    pub crash_looping: bool,
    /// Why it last ended or failed a check.
    pub last_error: Option<String>,
    /// The last lines of its log when it last ended or failed its check; at most
    /// [`LAST_LINES_MAX`].
    pub last_lines: Vec<String>,
}

/// Everything a host tells the leader, whole each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// The host that reports.
    pub host: HostName,
    /// Differs for each life of the host's node process.
    pub boot: u64,
    /// Counts the reports of one life: an older report is ignored.
    pub sequence: u64,
    /// The number of the plan in force on the host, 0 without one.
    pub plan_number: u64,
    /// Every replica that runs or should run there.
    pub instances: Vec<InstanceReport>,
    /// Every other host, with the round trip of the last probe, `None` when it does not answer.
    pub reachable: BTreeMap<HostName, Option<Duration>>,
    /// Ports that another program was found to hold.
    pub ports_taken: BTreeSet<u16>,
    /// Whether the host's gateway process runs.
    pub gateway_up: bool,
    /// Whether the host could save its plan and routes the last time it tried.
    pub disk_ok: bool,
}

impl HostReport {
    /// Makes the report of a host on which all goes well: every one of `instances` is ready.
    #[must_use]
    pub fn all_well<'a>(
        host: &HostName,
        plan_number: u64,
        instances: impl IntoIterator<Item = &'a Instance>,
    ) -> Self {
        let ready = |instance: &Instance| InstanceReport {
            id: instance.id.clone(),
            state: InstanceState::Ready,
            restarts: 0,
            crash_looping: false,
            last_error: None,
            last_lines: Vec::new(),
        };
        Self {
            host: host.clone(),
            boot: 1,
            sequence: 0,
            plan_number,
            instances: instances.into_iter().map(ready).collect(),
            reachable: BTreeMap::new(),
            ports_taken: BTreeSet::new(),
            gateway_up: true,
            disk_ok: true,
        }
    }

    /// Returns what the report says about a replica.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<&InstanceReport> {
        self.instances.iter().find(|instance| instance.id == *id)
    }

    /// Returns whether the report says that a replica is ready.
    #[must_use]
    pub fn is_ready(&self, id: &InstanceId) -> bool {
        self.instance(id).is_some_and(|instance| instance.state == InstanceState::Ready)
    }
}

/// The leader's answer to a [`HostReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderAnswer {
    /// The leader's term.
    pub term: u64,
    /// The stored plan, when it is newer than the reported one.
    pub plan: Option<Plan>,
    /// How the leader sees every host.
    pub hosts: BTreeMap<HostName, HostState>,
    /// What the system lacks until full redundancy, a sentence each.
    pub missing: Vec<String>,
}
