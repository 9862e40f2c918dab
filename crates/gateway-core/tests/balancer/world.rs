//! A small system to choose in, seen from host `h1`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_gateway_core::table::{
    Endpoint, EndpointId, Link, Listener, ListenerId, Route, RouteTable, Upstream, UpstreamId,
};
use evenkeel_model::instance::{InstanceId, InstancePhase};
use evenkeel_model::name::ServiceName;
use evenkeel_model::service::{HealthCheck, Probe};

/// Host, region, zone: `h1` is own, `s1` is 20 ms away, `t1` 90 ms, `u1` nobody knows how far.
pub(crate) const HOSTS: [(&str, &str, &str); 6] = [
    ("h1", "r", "a"),
    ("h2", "r", "a"),
    ("h3", "r", "b"),
    ("s1", "s", "a"),
    ("t1", "t", "a"),
    ("u1", "u", "a"),
];

pub(crate) fn web() -> UpstreamId {
    UpstreamId::Service(ServiceName::parse("web").unwrap())
}

/// One endpoint, named by serial number, at an address that only it has.
pub(crate) fn endpoint(serial: u64, host: &str, phase: InstancePhase) -> Endpoint {
    let (_, region, zone) = HOSTS.iter().find(|(name, ..)| *name == host).unwrap();
    let port = 20_000 + u16::try_from(serial).unwrap();
    Endpoint {
        id: EndpointId::Replica(InstanceId { service: "web".parse().unwrap(), serial }),
        address: format!("10.0.0.1:{port}").parse().unwrap(),
        link: Link::Plain,
        host: host.parse().unwrap(),
        region: region.parse().unwrap(),
        zone: zone.parse().unwrap(),
        phase,
        health: None,
    }
}

/// A table of `h1` with one upstream, `web`, checked every second, two strikes out, two in.
pub(crate) fn table(generation: u64, endpoints: Vec<Endpoint>) -> Arc<RouteTable> {
    let health = HealthCheck {
        probe: Probe::Http("/healthz".to_owned()),
        every: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        unhealthy_after: 2,
        healthy_after: 2,
        alive: None,
    };
    let route = Route {
        host: None,
        path: "/".to_owned(),
        to: web(),
        body_max: 0,
        timeout: Duration::from_secs(10),
        tries_max: 3,
    };
    let millis = Duration::from_millis;
    Arc::new(RouteTable {
        system: "shop".parse().unwrap(),
        generation,
        host: "h1".parse().unwrap(),
        region: "r".parse().unwrap(),
        zone: "a".parse().unwrap(),
        admin: "127.0.0.1:7403".parse().unwrap(),
        relay: None,
        listeners: vec![Listener {
            id: ListenerId::KeyValue,
            address: "127.0.0.1:8080".parse().unwrap(),
            routes: vec![route],
        }],
        upstreams: BTreeMap::from([(web(), Upstream { health, endpoints })]),
        distances: BTreeMap::from([
            ("s".parse().unwrap(), millis(20)),
            ("t".parse().unwrap(), millis(90)),
        ]),
    })
}
