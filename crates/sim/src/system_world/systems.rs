//! Draws systems of different shapes.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::name::{
    GatewayName, HostName, NameError, RegionName, ServiceName, SystemName, ZoneName,
};
use evenkeel_model::place::{Host, HostRole, SurvivalGoal};
use evenkeel_model::random::Rng;
use evenkeel_model::service::{Gateway, Route, ServicePort};
use evenkeel_model::system::{Ports, System};

use crate::service::service;

/// Draws a system of three regions with up to 7 hosts, unless told otherwise, the last of them at
/// times a witness.
pub(super) fn draw(hosts: Option<usize>, rng: &mut Rng) -> System {
    let count = hosts.unwrap_or_else(|| 3 + rng.index(5));
    let witness = rng.chance(1, 2) && count > 3;
    build(count, witness, rng).unwrap_or_else(|error| unreachable!("a name is bad: {error}"))
}

fn build(count: usize, witness: bool, rng: &mut Rng) -> Result<System, NameError> {
    let regions = ["ams", "fra", "waw"];
    let mut hosts = BTreeMap::new();
    for index in 0..count {
        let region = regions[index % regions.len()];
        let zone = ["a", "b"][(index / regions.len()) % 2];
        let name = HostName::parse(&format!("{region}{}", index / regions.len() + 1))?;
        let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
        let role = if witness && index + 1 == count { HostRole::Witness } else { HostRole::Full };
        let host = Host {
            name: name.clone(),
            region: RegionName::parse(region)?,
            zone: ZoneName::parse(zone)?,
            address: [10, 0, 0, number].into(),
            role,
        };
        hosts.insert(name, host);
    }
    let full = hosts.values().filter(|host| host.role == HostRole::Full).count();
    let full = u32::try_from(full).unwrap_or(u32::MAX);
    let mut services = BTreeMap::new();
    for (name, replicas, port) in [
        ("fixed", 1 + u32::try_from(rng.index(2)).unwrap_or(0), ServicePort::Fixed(9000)),
        ("job", 1, ServicePort::FromRange),
        ("web", 2 + u32::try_from(rng.index(4)).unwrap_or(0), ServicePort::FromRange),
    ] {
        let service = service(name, replicas.min(full.max(2)), port)?;
        services.insert(service.name.clone(), service);
    }
    Ok(System {
        name: SystemName::parse("shop")?,
        goal: if rng.chance(1, 2) { SurvivalGoal::Region } else { SurvivalGoal::Host },
        regions: ["fra", "ams", "waw"]
            .into_iter()
            .map(RegionName::parse)
            .collect::<Result<_, _>>()?,
        hosts,
        services,
        gateways: [(GatewayName::parse("public")?, gateway()?)].into(),
        ports: Ports {
            peer: 7400,
            api: 7401,
            kv: 7402,
            gateway_admin: 7403,
            relay: 7404,
            replicas: 20000..=20999,
        },
        voters: Vec::new(),
        learners: Vec::new(),
        replace_after: evenkeel_model::voting::REPLACE_AFTER,
    })
}

fn gateway() -> Result<Gateway, NameError> {
    let route = Route {
        host: None,
        path: "/".to_owned(),
        to: ServiceName::parse("web")?,
        body_max: 1 << 20,
        timeout: Duration::from_secs(5),
        tries_max: 3,
    };
    Ok(Gateway {
        name: GatewayName::parse("public")?,
        address: None,
        port: 8080,
        routes: vec![route],
    })
}
