//! Derives one host's route table from the system, the plan and the host's own place.
//!
//! A replica stands in the table as soon as the plan has it, ready or not: whether it may get
//! requests is each gateway's own observation, never the leader's opinion.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::table::{
    Endpoint, EndpointId, Link, Listener, ListenerId, Route, RouteTable, Upstream, UpstreamId,
};
use evenkeel_model::instance::{Instance, InstancePhase};
use evenkeel_model::name::RegionName;
use evenkeel_model::place::Host;
use evenkeel_model::service::{Gateway, Service};
use evenkeel_model::system::System;

use crate::process::{private_address, public_address, relay_address, replica_address};

/// Builds the table of `host` with `generation`; `protected` as in
/// [`Settings`](crate::settings::Settings).
#[must_use]
pub fn build_routes(
    system: &System,
    plan: &Plan,
    host: &Host,
    protected: bool,
    distances: &BTreeMap<RegionName, Duration>,
    generation: u64,
) -> RouteTable {
    let view = View { system, plan, host, protected };
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
            (id, upstream(&view, service))
        })
        .collect();
    let apis = system.hosts.values().map(|host| api(&view, host)).collect();
    upstreams.insert(UpstreamId::KeyValue, Upstream::key_value(apis));
    RouteTable {
        system: system.name.clone(),
        generation,
        host: host.name.clone(),
        region: host.region.clone(),
        zone: host.zone.clone(),
        admin: private_address(host, system.ports.gateway_admin),
        relay: relay_address(system, host, protected),
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

/// What the replicas of a service look like from one host.
struct View<'a> {
    system: &'a System,
    plan: &'a Plan,
    host: &'a Host,
    protected: bool,
}

fn upstream(view: &View<'_>, service: &Service) -> Upstream {
    let replica = |instance| replica(view, service, instance);
    let endpoints = view.plan.of_service(&service.name).filter_map(replica).collect();
    Upstream { health: service.health.clone(), endpoints }
}

fn replica(view: &View<'_>, service: &Service, instance: &Instance) -> Option<Endpoint> {
    let host = view.system.hosts.get(&instance.host)?;
    let health = view.plan.definition(instance).map(|definition| &definition.health);
    let (address, link) = match relay_address(view.system, host, view.protected) {
        Some(relay) if host.name != view.host.name => (relay, Link::Proven),
        Some(_) | None => (replica_address(host, instance.port, view.protected), Link::Plain),
    };
    Some(Endpoint {
        id: EndpointId::Replica(instance.id.clone()),
        address,
        link,
        host: host.name.clone(),
        region: host.region.clone(),
        zone: host.zone.clone(),
        phase: instance.phase,
        health: health.filter(|health| **health != service.health).cloned(),
    })
}

fn api(view: &View<'_>, host: &Host) -> Endpoint {
    let crosses = view.protected && host.name != view.host.name && !host.address.is_loopback();
    Endpoint {
        id: EndpointId::Api(host.name.clone()),
        address: SocketAddr::new(host.address, view.system.ports.api),
        link: if crosses { Link::Proven } else { Link::Plain },
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
        let table = build_routes(&new.system, &plan, &host("10.0.0.1"), false, &none, 1);
        let upstream = &table.upstreams[&UpstreamId::Service(service().name)];
        let asked = |endpoint: &Endpoint| {
            let health = endpoint.health.as_ref().unwrap_or(&upstream.health);
            health.probe.clone()
        };
        let asked: Vec<Probe> = upstream.endpoints.iter().map(asked).collect();
        assert_eq!(asked, ["/old", "/new"].map(|path| Probe::Http(path.to_owned())));
    }
    #[test]
    fn replicas_of_other_hosts_are_behind_their_relay() {
        let mut system = system();
        let (here, mut there) = (host("10.0.0.1"), host("10.0.0.2"));
        there.name = evenkeel_model::name::HostName::parse("fra2").unwrap();
        for host in [&here, &there] {
            system.hosts.insert(host.name.clone(), host.clone());
        }
        system.services.insert(service().name, service());
        let instance = |serial, host: &Host| Instance {
            id: InstanceId { service: service().name, serial },
            host: host.name.clone(),
            port: 20_000,
            phase: InstancePhase::Serving,
            revision: 0,
        };
        let instances = vec![instance(1, &here), instance(2, &there)];
        let plan = Plan { instances, ..Plan::empty() };
        let addresses = |protected| {
            let table = build_routes(&system, &plan, &here, protected, &BTreeMap::new(), 1);
            let upstream = &table.upstreams[&UpstreamId::Service(service().name)];
            let apis = &table.upstreams[&UpstreamId::KeyValue];
            let found = upstream.endpoints.iter().chain(&apis.endpoints);
            let found = found.map(|endpoint| format!("{:?} {}", endpoint.link, endpoint.address));
            (table.relay.map(|relay| relay.to_string()), found.collect::<Vec<_>>())
        };
        let direct = [
            "Plain 10.0.0.1:20000",
            "Plain 10.0.0.2:20000",
            "Plain 10.0.0.1:7401",
            "Plain 10.0.0.2:7401",
        ];
        assert_eq!(addresses(false), (None, direct.map(str::to_owned).to_vec()));
        let relayed = [
            "Plain 127.0.0.1:20000",
            "Proven 10.0.0.2:7404",
            "Plain 10.0.0.1:7401",
            "Proven 10.0.0.2:7401",
        ];
        let relayed = relayed.map(str::to_owned).to_vec();
        assert_eq!(addresses(true), (Some("10.0.0.1:7404".to_owned()), relayed));
    }
}
