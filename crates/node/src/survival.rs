//! Whether the goal is met by what works now: the audit's own judgement of what the leader sees.

use std::collections::BTreeSet;

use evenkeel_audit::assessment::{Capacity, assess_placed};
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
    /// What the worst loss of the goal's size would leave of each service; empty when not judged.
    pub capacity: Vec<Capacity>,
}

/// Judges what a leader sees. Another host sees too little: its goal counts as not met.
#[must_use]
pub fn judge(system: &System, status: &Status) -> Survival {
    if !status.is_leader {
        let reason = "no leader is in reach".to_owned();
        return Survival { goal_met: false, reason, capacity: Vec::new() };
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
    let gateways = status.hosts.iter().filter(|(_, seen)| !seen.gateway_up);
    let gateways = gateways.map(|(host, _)| Component::Gateway(host.clone()));
    let lost: BTreeSet<Component> = down.chain(full).chain(gateways).collect();
    let assessment = assess_placed(system, &placement, &lost);
    let reasons: Vec<&str> =
        assessment.findings.iter().map(|finding| finding.message.as_str()).collect();
    let reason = reasons.join("; ");
    Survival { goal_met: assessment.goal_met, reason, capacity: assessment.capacity }
}

fn is_up(status: &Status, host: &evenkeel_model::name::HostName) -> bool {
    status.hosts.get(host).and_then(|host| host.state) == Some(HostState::Up)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_model::instance::{Instance, InstanceId};
    use evenkeel_model::name::HostName;
    use evenkeel_node_core::status::{HostStatus, InstanceStatus};

    use super::*;

    const FILE: &str = r#"
        system = "shop"
        survive = "host"
        [region.fra]
        zones = { a = { a1 = "127.0.0.1", a2 = "127.0.0.2", a3 = "127.0.0.3" } }
        [service.web]
        command = ["web", "${PORT}"]
        replicas = 2
        [gateway.public]
        listen = ":8080"
        routes = [{ path = "/", to = "web" }]
    "#;

    /// Two replicas, all hosts up, and gateways on some of them.
    fn check(gateways: &[&str], expected: bool) {
        let system = evenkeel_system_file::parse(FILE).unwrap().system;
        let host = |name: &str| HostName::parse(name).unwrap();
        let seen = |name: &HostName| HostStatus {
            state: Some(HostState::Up),
            round_trip: Some(Duration::ZERO),
            disk_ok: true,
            gateway_up: gateways.contains(&name.as_str()),
        };
        let replica = |id: &str, on: &str| InstanceStatus {
            instance: Instance {
                id: InstanceId::parse(id).unwrap(),
                host: host(on),
                port: 20_000,
                phase: InstancePhase::Serving,
                revision: 1,
            },
            state: Some(InstanceState::Ready),
            last_error: None,
        };
        let status = Status {
            host: host("a1"),
            leader: Some(host("a1")),
            is_leader: true,
            term: 1,
            leader_contact: Some(Duration::ZERO),
            plan: None,
            routes_generation: 1,
            hosts: system.hosts.keys().map(|name| (name.clone(), seen(name))).collect(),
            releases: std::collections::BTreeMap::new(),
            wanted: None,
            processes: Vec::new(),
            instances: vec![replica("web-1", "a1"), replica("web-2", "a2")],
            redundancy: None,
            disk_error: None,
            stopping: false,
        };
        let survival = judge(&system, &status);
        assert_eq!(survival.goal_met, expected, "{gateways:?}: {survival:?}");
        let capacity = &survival.capacity[0];
        assert_eq!((capacity.service.as_str(), capacity.replicas, capacity.left), ("web", 2, 1));
    }

    #[test]
    fn a_gateway_that_does_not_run_is_lost() {
        check(&["a1", "a2", "a3"], true);
        check(&["a1", "a2"], true);
        check(&["a1"], false);
        check(&[], false);
    }
}
