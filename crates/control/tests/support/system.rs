//! Systems for tests, written in a line.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::name::{HostName, RegionName, ServiceName, SystemName, ZoneName};
use evenkeel_model::place::{Host, HostRole, SurvivalGoal};
use evenkeel_model::service::{DeployPolicy, HealthCheck, Probe, Service, ServicePort};
use evenkeel_model::system::{Ports, System};

/// Parses `region/zone/host`; the host `witness` is one.
pub(crate) fn host(text: &str) -> Host {
    let mut parts = text.split('/');
    let mut next = || parts.next().unwrap();
    Host {
        region: RegionName::parse(next()).unwrap(),
        zone: ZoneName::parse(next()).unwrap(),
        name: HostName::parse(next()).unwrap(),
        address: "10.0.0.1".parse().unwrap(),
        role: if text.ends_with("/witness") { HostRole::Witness } else { HostRole::Full },
    }
}

pub(crate) fn service(name: &str, replicas: u32) -> Service {
    Service {
        name: ServiceName::parse(name).unwrap(),
        command: vec![format!("/bin/{name}")],
        directory: None,
        environment: BTreeMap::new(),
        replicas,
        needs: Vec::new(),
        health: HealthCheck {
            probe: Probe::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            unhealthy_after: 3,
            healthy_after: 1,
            alive: None,
        },
        port: ServicePort::FromRange,
        start_grace: Duration::from_secs(10),
        drain: Duration::from_secs(5),
        stop_grace: Duration::from_secs(5),
        deploy: DeployPolicy { healthy_for: Duration::from_secs(1), ..DeployPolicy::STANDARD },
    }
}

pub(crate) fn system(hosts: &[&str], services: Vec<Service>) -> System {
    let hosts: Vec<Host> = hosts.iter().map(|text| host(text)).collect();
    let mut regions: Vec<RegionName> = Vec::new();
    for host in &hosts {
        if !regions.contains(&host.region) {
            regions.push(host.region.clone());
        }
    }
    System {
        name: SystemName::parse("test").unwrap(),
        goal: SurvivalGoal::Host,
        regions,
        hosts: hosts.into_iter().map(|host| (host.name.clone(), host)).collect(),
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        gateways: BTreeMap::new(),
        ports: Ports {
            peer: 7400,
            api: 7401,
            kv: 7402,
            gateway_admin: 7403,
            relay: 7404,
            replicas: 20000..=20009,
        },
        voters: Vec::new(),
        learners: Vec::new(),
        replace_after: evenkeel_model::voting::REPLACE_AFTER,
    }
}
