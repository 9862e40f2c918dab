//! The route table: everything that one host's gateway is told from outside, immutable.
//!
//! Built by the node, kept on disk by the gateway, replaced as a whole. A table says what exists;
//! whether an endpoint is healthy is each gateway's own observation: [`crate::health`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_model::instance::{InstanceId, InstancePhase};
use evenkeel_model::name::{GatewayName, HostName, RegionName, ServiceName, SystemName, ZoneName};
use evenkeel_model::service::{HealthCheck, Probe};

/// All that a gateway needs to know, as of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    /// The system that this table belongs to; a gateway of another system refuses it.
    pub system: SystemName,
    /// Rises with every change. A gateway refuses a lower one.
    pub generation: u64,
    /// The host whose gateway this table is for.
    pub host: HostName,
    /// The region of `host`.
    pub region: RegionName,
    /// The zone of `host`, within `region`.
    pub zone: ZoneName,
    /// Where metrics and state are served.
    pub admin: SocketAddr,
    /// Where gateways of other hosts reach this host's replicas; `None` where traffic between hosts
    /// is not protected.
    pub relay: Option<SocketAddr>,
    /// What the gateway listens on.
    pub listeners: Vec<Listener>,
    /// Where requests can be sent.
    pub upstreams: BTreeMap<UpstreamId, Upstream>,
    /// Round-trip time from `region` to other regions. A region that is absent counts as the
    /// farthest.
    pub distances: BTreeMap<RegionName, Duration>,
}

/// One listening socket and its routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique in the table.
    pub id: ListenerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Chosen by host and longest path; see [`crate::route::find_route`].
    pub routes: Vec<Route>,
}

/// Names a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerId {
    /// A gateway of the system file.
    Gateway(GatewayName),
    /// The loopback listener behind `${kv.url}`.
    KeyValue,
}

impl fmt::Display for ListenerId {
    /// Writes the gateway's name, or `(kv)`, which no gateway can be called.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(name) => name.fmt(formatter),
            Self::KeyValue => formatter.pad("(kv)"),
        }
    }
}

/// Sends requests with a host and path prefix to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `Host` header to match, in lower case and without port; every host when absent.
    pub host: Option<String>,
    /// Path prefix, matched by whole segments; begins with `/`.
    pub path: String,
    /// Where matching requests go.
    pub to: UpstreamId,
    /// Longest request body in bytes.
    pub body_max: u64,
    /// Time until the head of the answer must have arrived, over all tries.
    pub timeout: Duration,
    /// Most times that a request is sent, the first included; at least 1. A connection that could
    /// not be opened is no try: nothing was sent.
    pub tries_max: u32,
}

impl Route {
    /// Returns the one route of the key-value listener. Its timeout leaves room for the election
    /// of a leader, during which the API lets requests wait. It leads to what is for users alone:
    /// other hosts take this gateway for its host, which may ask them for more.
    #[must_use]
    pub fn key_value() -> Self {
        Self {
            host: None,
            path: "/v1".to_owned(),
            to: UpstreamId::KeyValue,
            // A transaction in JSON: values of 1 MiB, escaped or in base64.
            body_max: 4 << 20,
            timeout: Duration::from_secs(5),
            tries_max: 3,
        }
    }
}

/// Names an upstream: a set of endpoints of which any one can answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamId {
    /// The replicas of a service.
    Service(ServiceName),
    /// The key-value API of every host.
    KeyValue,
}

impl fmt::Display for UpstreamId {
    /// Writes the service's name, or `(kv)`, which no service can be called.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => name.fmt(formatter),
            Self::KeyValue => formatter.pad("(kv)"),
        }
    }
}

/// A set of endpoints of which any one can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// How this gateway asks each endpoint whether it is healthy.
    pub health: HealthCheck,
    /// May be empty: requests are then answered with 503.
    pub endpoints: Vec<Endpoint>,
}

impl Upstream {
    /// Returns the upstream of the key-value API. An API is healthy while it can serve
    /// linearizable requests.
    #[must_use]
    pub fn key_value(endpoints: Vec<Endpoint>) -> Self {
        let health = HealthCheck {
            probe: Probe::Http("/v1/health".to_owned()),
            every: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            unhealthy_after: 2,
            healthy_after: 1,
            alive: None,
        };
        Self { health, endpoints }
    }
}

/// One place to send requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique in the table, and never used for another endpoint of the system.
    pub id: EndpointId,
    /// Where it listens; that of a replica on another host is the relay of that host, if it has one.
    pub address: SocketAddr,
    /// How it is connected to.
    pub link: Link,
    /// The host it runs on.
    pub host: HostName,
    /// The region of `host`.
    pub region: RegionName,
    /// The zone of `host`, within `region`.
    pub zone: ZoneName,
    /// Whether it takes new requests.
    pub phase: InstancePhase,
    /// How it is asked for its health, where that differs from [`Upstream::health`]: while a new
    /// definition replaces an old one, replicas of both are there.
    pub health: Option<HealthCheck>,
}

/// How an endpoint is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// By TCP, as it listens.
    Plain,
    /// By TLS in which both sides prove which hosts they are: an API as it listens, a replica
    /// through the relay of its host.
    Proven,
}

/// Names an endpoint. Health and counters are kept under this name when the table changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointId {
    /// A replica of a service.
    Replica(InstanceId),
    /// The key-value API of a host.
    Api(HostName),
}

impl EndpointId {
    /// Returns the response header in which an endpoint says who it is.
    #[must_use]
    pub const fn identity_header(&self) -> &'static str {
        match self {
            Self::Replica(_) => "evenkeel-instance",
            Self::Api(_) => "evenkeel-host",
        }
    }

    /// Returns what that header must say, if it is there.
    #[must_use]
    pub fn identity(&self) -> String {
        match self {
            Self::Replica(instance) => instance.to_string(),
            Self::Api(host) => host.to_string(),
        }
    }
}

impl fmt::Display for EndpointId {
    /// Writes `web-17`, or `(kv)@fra-a1`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(instance) => instance.fmt(formatter),
            Self::Api(host) => write!(formatter, "(kv)@{host}"),
        }
    }
}

/// Reports why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two listeners have one name.
    #[error("listener `{0}` stands twice in the route table")]
    ListenerTwice(ListenerId),
    /// Two endpoints have one name.
    #[error("endpoint `{0}` stands twice in the route table")]
    EndpointTwice(EndpointId),
    /// A route leads nowhere.
    #[error("route `{path}` of listener `{listener}` leads to `{to}`, which is not in the table")]
    RouteDangling {
        /// The listener of the route.
        listener: ListenerId,
        /// The path of the route.
        path: String,
        /// The upstream that is missing.
        to: UpstreamId,
    },
    /// A route's path is not a prefix of any request's path.
    #[error("route `{path}` of listener `{listener}` does not begin with `/`")]
    RoutePath {
        /// The listener of the route.
        listener: ListenerId,
        /// The path of the route.
        path: String,
    },
}

impl RouteTable {
    /// Checks that names are unique and routes lead somewhere.
    ///
    /// # Errors
    /// The first rule that the table breaks.
    pub fn validate(&self) -> Result<(), TableError> {
        let mut listeners = BTreeSet::new();
        for listener in &self.listeners {
            if !listeners.insert(&listener.id) {
                return Err(TableError::ListenerTwice(listener.id.clone()));
            }
            for route in &listener.routes {
                self.validate_route(listener, route)?;
            }
        }
        let mut endpoints = BTreeSet::new();
        for endpoint in self.endpoints() {
            if !endpoints.insert(&endpoint.id) {
                return Err(TableError::EndpointTwice(endpoint.id.clone()));
            }
        }
        Ok(())
    }

    /// Returns where a replica of this table's own host listens; `None` if it has no such replica.
    #[must_use]
    pub fn own_replica(&self, replica: &InstanceId) -> Option<SocketAddr> {
        let id = EndpointId::Replica(replica.clone());
        self.endpoints()
            .find(|endpoint| endpoint.host == self.host && endpoint.id == id)
            .map(|endpoint| endpoint.address)
    }

    /// Returns every host of the system and its address.
    pub fn hosts(&self) -> impl Iterator<Item = (&HostName, IpAddr)> {
        self.endpoints().filter_map(|endpoint| match &endpoint.id {
            EndpointId::Api(host) => Some((host, endpoint.address.ip())),
            EndpointId::Replica(_) => None,
        })
    }

    /// Returns whether an endpoint of `host` is reached at `address`.
    #[must_use]
    pub fn leads_to(&self, host: &HostName, address: SocketAddr) -> bool {
        self.endpoints().any(|endpoint| endpoint.host == *host && endpoint.address == address)
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.upstreams.values().flat_map(|upstream| &upstream.endpoints)
    }

    fn validate_route(&self, listener: &Listener, route: &Route) -> Result<(), TableError> {
        let (id, path) = (listener.id.clone(), route.path.clone());
        if !route.path.starts_with('/') {
            return Err(TableError::RoutePath { listener: id, path });
        }
        if !self.upstreams.contains_key(&route.to) {
            return Err(TableError::RouteDangling { listener: id, path, to: route.to.clone() });
        }
        Ok(())
    }
}
