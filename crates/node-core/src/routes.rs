//! Derives one host's route table from the system, the plan and the host's own place.
//!
//! A replica stands in the table as soon as the plan has it, ready or not: whether it may get
//! requests is each gateway's own observation, never the leader's opinion.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::table::{
    Endpoint, EndpointId, Listener, ListenerId, Route, RouteTable, Upstream, UpstreamId,
};
use evenkeel_model::instance::{Instance, InstancePhase};
use evenkeel_model::name::RegionName;
use evenkeel_model::place::Host;
use evenkeel_model::service::{Gateway, Service};
use evenkeel_model::system::System;

use crate::process::{private_address, public_address};

/// Builds the table of `host` with `generation`.
#[must_use]
pub fn build_routes(
    system: &System,
    plan: &Plan,
    host: &Host,
    distances: &BTreeMap<RegionName, Duration>,
    generation: u64,
) -> RouteTable {
    let mut listeners: Vec<Listener> =
        system.gateways.values().map(|gateway| listener(gateway, host)).collect();
    listeners.push(Listener {
        id: ListenerId::KeyValue,
        address: private_address(host, system.ports.kv),
        routes: vec![Route::key_value()],
    });
    let mut upstreams: BTreeMap<UpstreamId, Upstream> = system
        .services
        .values()
        .map(|service| {
            let id = UpstreamId::Service(service.name.clone());
            (id, upstream(system, plan, service))
        })
        .collect();
    let apis = system.hosts.values().map(|host| api(system, host)).collect();
    upstreams.insert(UpstreamId::KeyValue, Upstream::key_value(apis));
    RouteTable {
        system: system.name.clone(),
        generation,
        host: host.name.clone(),
        region: host.region.clone(),
        zone: host.zone.clone(),
        admin: private_address(host, system.ports.gateway_admin),
        listeners,
        upstreams,
        distances: distances.clone(),
    }
}

fn listener(gateway: &Gateway, host: &Host) -> Listener {
    let route = |route: &evenkeel_model::service::Route| Route {
        host: route.host.as_ref().map(|name| name.to_ascii_lowercase()),
        path: route.path.clone(),
        to: UpstreamId::Service(route.to.clone()),
        body_max: route.body_max,
        timeout: route.timeout,
        tries_max: route.tries_max,
    };
    Listener {
        id: ListenerId::Gateway(gateway.name.clone()),
        address: public_address(gateway.address, host, gateway.port),
        routes: gateway.routes.iter().map(route).collect(),
    }
}

fn upstream(system: &System, plan: &Plan, service: &Service) -> Upstream {
    let replica = |instance| replica(system, plan, service, instance);
    let endpoints = plan.of_service(&service.name).filter_map(replica).collect();
    Upstream { health: service.health.clone(), endpoints }
}

fn replica(
    system: &System,
    plan: &Plan,
    service: &Service,
    instance: &Instance,
) -> Option<Endpoint> {
    let host = system.hosts.get(&instance.host)?;
    let health = plan.definition(instance).map(|definition| &definition.health);
    Some(Endpoint {
        id: EndpointId::Replica(instance.id.clone()),
        address: SocketAddr::new(host.address, instance.port),
        host: host.name.clone(),
        region: host.region.clone(),
        zone: host.zone.clone(),
        phase: instance.phase,
        health: health.filter(|health| **health != service.health).cloned(),
    })
}

fn api(system: &System, host: &Host) -> Endpoint {
    Endpoint {
        id: EndpointId::Api(host.name.clone()),
        address: SocketAddr::new(host.address, system.ports.api),
        host: host.name.clone(),
        region: host.region.clone(),
        zone: host.zone.clone(),
        phase: InstancePhase::Serving,
        health: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evenkeel_control::declaration::Declaration;
    use evenkeel_control::plan::Release;
    use evenkeel_model::instance::InstanceId;
    use evenkeel_model::service::Probe;

    use super::*;
    use crate::process::tests::{host, service, system};

    /// A declaration whose service answers health checks at `path`.
    fn declared(revision: u64, path: &str) -> Declaration {
        let mut service = service();
        service.health.probe = Probe::Http(path.to_owned());
        let mut system = system();
        let host = host("10.0.0.1");
        system.hosts.insert(host.name.clone(), host);
        system.services.insert(service.name.clone(), service);
        Declaration { revision, text: "".into(), system: Arc::new(system) }
    }

    #[test]
    fn each_replica_is_asked_what_its_own_definition_says() {
        let old = declared(1, "/old");
        let new = declared(2, "/new");
        let instance = |serial: u64, revision| Instance {
            id: InstanceId { service: service().name, serial },
            host: host("10.0.0.1").name,
            port: 20_000,
            phase: InstancePhase::Serving,
            revision,
        };
        let plan = Plan {
            instances: vec![instance(1, 1), instance(2, 2)],
            declarations: [(1, old), (2, new.clone())].into(),
            revision: 2,
            releases: [(service().name, Release { current: 1, next: None })].into(),
            ..Plan::empty()
        };
        let none = BTreeMap::new();
        let table = build_routes(&new.system, &plan, &host("10.0.0.1"), &none, 1);
        let upstream = &table.upstreams[&UpstreamId::Service(service().name)];
        let asked = |endpoint: &Endpoint| {
            let health = endpoint.health.as_ref().unwrap_or(&upstream.health);
            health.probe.clone()
        };
        let asked: Vec<Probe> = upstream.endpoints.iter().map(asked).collect();
        assert_eq!(asked, ["/old", "/new"].map(|path| Probe::Http(path.to_owned())));
    }
}
