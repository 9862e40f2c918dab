//! What a host's loop is told.

use std::time::Duration;

use evenkeel_control::declaration::Wanted;
use evenkeel_control::members::Membership;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::{HostReport, LeaderAnswer};
use evenkeel_model::name::HostName;
use evenkeel_supervisor_core::status::ExitStatus;
use evenkeel_supervisor_core::supervision::Purpose;

use crate::process::ProcessId;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Who leads, as the coordinator sees it now. May be told again and again.
    Role {
        /// The leader's host, `None` without one.
        leader: Option<HostName>,
        /// The term, which never falls.
        term: u64,
        /// When this host leads: the stored plan, read after the election, `None` when the
        /// store has none. Without meaning otherwise.
        plan: Option<Plan>,
        /// When this host leads: what the store wants, `None` when nobody has said: then what this
        /// host was started with. Without meaning otherwise.
        wanted: Option<Wanted>,
    },
    /// The store was seen to want this. Of use to the leader alone.
    WantedSeen {
        /// What it wants.
        wanted: Wanted,
    },
    /// This is who takes part in the coordinator by now, as the member of this host, which leads,
    /// tells it.
    MembersSeen {
        /// Those.
        membership: Membership,
    },
    /// The plan of a `StorePlan` is stored.
    PlanStored {
        /// Its number.
        number: u64,
    },
    /// The plan of a `StorePlan` was not stored, or nobody knows whether it was.
    PlanRefused {
        /// Its number.
        number: u64,
    },
    /// The store was seen to hold a plan: on a voter as soon as it is replicated, and on the
    /// leader after a plan was refused.
    PlanSeen {
        /// The plan.
        plan: Plan,
    },
    /// The plan of a `SavePlan` is durable on this host.
    PlanSaved {
        /// Its number.
        number: u64,
    },
    /// The plan of a `SavePlan` could not be written.
    PlanSaveFailed {
        /// Its number.
        number: u64,
        /// Why not.
        reason: String,
    },
    /// The table of a `WriteRoutes` is durable on this host.
    RoutesWritten {
        /// Its generation.
        generation: u64,
    },
    /// The table of a `WriteRoutes` could not be written.
    RoutesFailed {
        /// Its generation.
        generation: u64,
        /// Why not.
        reason: String,
    },
    /// The coordinator's log on this host has no room for changes, or has room again.
    LogSpace {
        /// Whether there is none.
        full: bool,
    },
    /// A host reported to this one. Answered by `HostLoop::answer_for`, taken afterwards.
    HeartbeatReceived {
        /// Its report.
        report: HostReport,
    },
    /// The leader answered.
    HeartbeatAnswered {
        /// Its answer.
        answer: LeaderAnswer,
    },
    /// A report did not reach the leader, or what answers does not lead.
    HeartbeatFailed {
        /// Why not.
        reason: String,
    },
    /// A host answered a probe.
    ProbeAnswered {
        /// The host.
        from: HostName,
        /// Time from question to answer.
        round_trip: Duration,
    },
    /// Something happened to a process of this host.
    Process {
        /// Which process.
        id: ProcessId,
        /// What happened to it.
        change: ProcessChange,
    },
    /// The answer to a `Check`.
    CheckFinished {
        /// The process in the action.
        id: ProcessId,
        /// The number in the action.
        number: u64,
        /// The purpose in the action.
        purpose: Purpose,
        /// Nothing, or why the check failed; a timeout is a failure.
        result: Result<(), String>,
    },
    /// The answer to a `ReadLog`.
    LogRead {
        /// The process in the action.
        id: ProcessId,
        /// The last lines, the newest last.
        lines: Vec<String>,
    },
    /// Stop everything on this host, then the node.
    Stop,
}

/// What happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessChange {
    /// It runs: the answer to `StartProcess`.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It does not run: the other answer to `StartProcess`.
    StartFailed {
        /// Why not.
        reason: String,
    },
    /// It was not started, because another program holds its port: the third answer.
    PortTaken,
    /// It ended.
    Exited(ExitStatus),
    /// Its shim was killed, and its process group has been ended.
    Lost,
}
