//! Small systems for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::name::{GatewayName, HostName, RegionName, ServiceName, SystemName, ZoneName};
use evenkeel_model::place::{Host, HostRole, SurvivalGoal};
use evenkeel_model::service::{
    DeployPolicy, Gateway, HealthCheck, Need, Probe, Route, Service, ServicePort,
};
use evenkeel_model::system::{Ports, System};

/// Builds a system. Hosts are `region/zone/host`, with `*` at the end for a witness. Services are
/// `name replicas needs…`, where a need is `kv` or a name; one that ends in `!` has no route.
pub(crate) fn system(
    goal: SurvivalGoal,
    hosts: &[impl AsRef<str>],
    services: &[impl AsRef<str>],
) -> System {
    let mut system = System {
        name: SystemName::parse("test").expect("a name"),
        goal,
        regions: Vec::new(),
        hosts: BTreeMap::new(),
        services: BTreeMap::new(),
        gateways: BTreeMap::new(),
        ports: Ports { peer: 1, api: 2, kv: 3, gateway_admin: 4, relay: 5, replicas: 100..=200 },
        voters: Vec::new(),
        learners: Vec::new(),
        replace_after: evenkeel_model::voting::REPLACE_AFTER,
    };
    for text in hosts {
        add_host(&mut system, text.as_ref());
    }
    let mut routes = Vec::new();
    for text in services {
        let mut words = text.as_ref().split(' ');
        let name = words.next().expect("a name");
        let service = ServiceName::parse(name.trim_end_matches('!')).expect("a name");
        if !name.ends_with('!') {
            routes.push(Route {
                host: None,
                path: format!("/{service}"),
                to: service.clone(),
                body_max: 0,
                timeout: Duration::ZERO,
                tries_max: 1,
            });
        }
        add_service(&mut system, service, words);
    }
    if !routes.is_empty() {
        let name = GatewayName::parse("public").expect("a name");
        let gateway = Gateway { name: name.clone(), address: None, port: 80, routes };
        system.gateways.insert(name, gateway);
    }
    system.voters = evenkeel_model::voting::deal_voters(&system);
    system
}

fn add_host(system: &mut System, text: &str) {
    let role = if text.ends_with('*') { HostRole::Witness } else { HostRole::Full };
    let parts: Vec<&str> = text.trim_end_matches('*').split('/').collect();
    let region = RegionName::parse(parts[0]).expect("a name");
    if !system.regions.contains(&region) {
        system.regions.push(region.clone());
    }
    let name = HostName::parse(parts[2]).expect("a name");
    let host = Host {
        name: name.clone(),
        region,
        zone: ZoneName::parse(parts[1]).expect("a name"),
        address: std::net::IpAddr::from([10, 0, 0, 1]),
        role,
    };
    system.hosts.insert(name, host);
}

fn add_service<'a>(
    system: &mut System,
    name: ServiceName,
    mut words: impl Iterator<Item = &'a str>,
) {
    let replicas = words.next().expect("a number").parse().expect("a number");
    let needs = words
        .map(|need| match need {
            "kv" => Need::KeyValue,
            other => Need::Service(ServiceName::parse(other).expect("a name")),
        })
        .collect();
    let service = Service {
        name: name.clone(),
        command: vec!["/opt/x".to_owned()],
        directory: None,
        environment: BTreeMap::new(),
        replicas,
        needs,
        health: HealthCheck {
            probe: Probe::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 1,
            healthy_after: 1,
            alive: None,
        },
        port: ServicePort::FromRange,
        start_grace: Duration::ZERO,
        drain: Duration::ZERO,
        stop_grace: Duration::ZERO,
        deploy: DeployPolicy::STANDARD,
    };
    system.services.insert(name, service);
}
