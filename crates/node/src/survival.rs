//! Whether the goal is met by what works now: the audit's own judgement of what the leader sees.

use std::collections::BTreeSet;

use evenkeel_audit::assessment::assess_placed;
use evenkeel_audit::component::Component;
use evenkeel_control::hosts::HostState;
use evenkeel_control::report::InstanceState;
use evenkeel_model::instance::{InstancePhase, Placement};
use evenkeel_model::place::Domain;
use evenkeel_model::system::System;
use evenkeel_node_core::status::Status;

/// What the audit says of the running system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survival {
    /// Whether the declared goal is met now.
    pub goal_met: bool,
    /// Why not; empty when it is.
    pub reason: String,
}

/// Judges what a leader sees. Another host sees too little: its goal counts as not met.
#[must_use]
pub fn judge(system: &System, status: &Status) -> Survival {
    if !status.is_leader {
        return Survival { goal_met: false, reason: "no leader is in reach".to_owned() };
    }
    let mut placement = Placement::new();
    for seen in &status.instances {
        if seen.state == Some(InstanceState::Ready)
            && seen.instance.phase == InstancePhase::Serving
            && is_up(status, &seen.instance.host)
        {
            let hosts = placement.entry(seen.instance.id.service.clone()).or_default();
            hosts.push(seen.instance.host.clone());
        }
    }
    let down = system.hosts.keys().filter(|host| !is_up(status, host));
    let down = down.map(|host| Component::Place(Domain::Host(host.clone())));
    // A voter that can store nothing is no help to a majority.
    let full = status.hosts.iter().filter(|(_, seen)| !seen.disk_ok);
    let full = full.map(|(host, _)| Component::Voter(host.clone()));
    let lost: BTreeSet<Component> = down.chain(full).collect();
    let assessment = assess_placed(system, &placement, &lost);
    let reasons: Vec<&str> =
        assessment.findings.iter().map(|finding| finding.message.as_str()).collect();
    Survival { goal_met: assessment.goal_met, reason: reasons.join("; ") }
}

fn is_up(status: &Status, host: &evenkeel_model::name::HostName) -> bool {
    status.hosts.get(host).and_then(|host| host.state) == Some(HostState::Up)
}
