//! What a host's loop wants done.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_control::members::MembersStep;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::HostReport;
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::name::HostName;
use evenkeel_model::service::Probe;
use evenkeel_supervisor_core::supervision::Purpose;

use crate::process::{ProcessId, ProcessSpec};

/// What is to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a report to the leader's host. Answered by `HeartbeatAnswered` or `HeartbeatFailed`.
    SendHeartbeat {
        /// The leader's host.
        to: HostName,
        /// What is reported.
        report: HostReport,
    },
    /// Ask a host whether it is reachable. Answered by `ProbeAnswered` or not at all.
    SendProbe {
        /// The host.
        to: HostName,
    },
    /// Store the plan if the stored one still has the number `parent`, absent counting as 0.
    /// Answered by `PlanStored` or `PlanRefused`.
    StorePlan {
        /// The plan.
        plan: Plan,
    },
    /// Have the coordinator change who takes part, if it can. Not answered: `MembersSeen` shows it.
    ChangeMembers {
        /// How.
        step: MembersStep,
    },
    /// Write the plan durably to this host's disk. Answered by `PlanSaved` or `PlanSaveFailed`,
    /// unless a newer plan follows before; the plan is followed only once it is saved.
    SavePlan {
        /// The plan.
        plan: Plan,
    },
    /// Write the table durably to this host's disk, where its gateway finds it. Answered by
    /// `RoutesWritten` or `RoutesFailed`, unless a newer table follows before.
    WriteRoutes {
        /// The table.
        routes: RouteTable,
    },
    /// Start a process. Answered by `Started`, `StartFailed` or `PortTaken`.
    StartProcess {
        /// How.
        spec: ProcessSpec,
    },
    /// Send SIGTERM to a process and all it started.
    TerminateProcess {
        /// Which process.
        id: ProcessId,
    },
    /// Send SIGKILL to a process and all it started.
    KillProcess {
        /// Which process.
        id: ProcessId,
    },
    /// End the shim of a process that has ended and will not be started again.
    RemoveProcess {
        /// Which process.
        id: ProcessId,
    },
    /// Read the last lines of a replica's log, at most [`evenkeel_control::report::LAST_LINES_MAX`].
    /// Answered by `LogRead`, or not at all.
    ReadLog {
        /// Which process.
        id: ProcessId,
    },
    /// Ask a process a health question. Answered by `CheckFinished`, in any case.
    Check {
        /// Which process.
        id: ProcessId,
        /// To be repeated in the answer.
        number: u64,
        /// To be repeated in the answer.
        purpose: Purpose,
        /// The question.
        probe: Probe,
        /// Where to ask.
        address: SocketAddr,
        /// An answer later than this is a failure.
        timeout: Duration,
    },
    /// Everything on this host has stopped: the node may end.
    Finish,
}
