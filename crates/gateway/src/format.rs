//! The route table as it stands on disk: JSON, converted from and to the core's types.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_gateway_core::table::{
    Endpoint, EndpointId, Link, Listener, ListenerId, Route, RouteTable, TableError, Upstream,
    UpstreamId,
};
use evenkeel_model::instance::{InstanceId, InstancePhase};
use evenkeel_model::name::{GatewayName, HostName, NameError, RegionName, ServiceName};
use evenkeel_model::service::{HealthCheck, Probe};
use serde::{Deserialize, Serialize};

/// Reports why a stored table is not one.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not JSON, or a field is missing or of another type.
    #[error("the table is not the JSON that is expected")]
    Json(#[source] serde_json::Error),
    /// A name breaks the rules of names.
    #[error("`{text}` is not a name")]
    Name {
        /// The refused text.
        text: String,
        /// The rule it breaks.
        #[source]
        source: NameError,
    },
    /// The table contradicts itself.
    #[error("the table contradicts itself")]
    Table(#[source] TableError),
}

#[derive(Serialize, Deserialize)]
struct TableText {
    system: String,
    generation: u64,
    host: String,
    region: String,
    zone: String,
    admin: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relay: Option<SocketAddr>,
    listeners: Vec<ListenerText>,
    upstreams: Vec<UpstreamText>,
    distances_us: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
struct ListenerText {
    id: ListenerIdText,
    address: SocketAddr,
    routes: Vec<RouteText>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ListenerIdText {
    Gateway(String),
    KeyValue,
}

#[derive(Serialize, Deserialize)]
struct RouteText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    path: String,
    to: UpstreamIdText,
    body_max: u64,
    timeout_us: u64,
    tries_max: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UpstreamIdText {
    Service(String),
    KeyValue,
}

#[derive(Serialize, Deserialize)]
struct UpstreamText {
    id: UpstreamIdText,
    health: HealthText,
    endpoints: Vec<EndpointText>,
}

#[derive(Serialize, Deserialize)]
struct HealthText {
    probe: ProbeText,
    every_us: u64,
    timeout_us: u64,
    unhealthy_after: u32,
    healthy_after: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alive: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbeText {
    Http(String),
    Tcp,
}

#[derive(Serialize, Deserialize)]
struct EndpointText {
    id: EndpointIdText,
    address: SocketAddr,
    #[serde(default)]
    link: LinkText,
    host: String,
    region: String,
    zone: String,
    phase: PhaseText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health: Option<HealthText>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EndpointIdText {
    Replica(String),
    Api(String),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LinkText {
    #[default]
    Plain,
    Proven,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseText {
    Serving,
    Draining,
}

/// Writes a table as JSON without line breaks.
pub(crate) fn to_json(table: &RouteTable) -> Result<Vec<u8>, FormatError> {
    serde_json::to_vec(&TableText::from(table)).map_err(FormatError::Json)
}

/// Reads and validates what [`to_json`] wrote.
pub(crate) fn from_json(json: &[u8]) -> Result<RouteTable, FormatError> {
    let text: TableText = serde_json::from_slice(json).map_err(FormatError::Json)?;
    let table = text.into_table()?;
    table.validate().map_err(FormatError::Table)?;
    Ok(table)
}

fn name<T: std::str::FromStr<Err = NameError>>(text: String) -> Result<T, FormatError> {
    text.parse().map_err(|source| FormatError::Name { text, source })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<&RouteTable> for TableText {
    fn from(table: &RouteTable) -> Self {
        Self {
            system: table.system.to_string(),
            generation: table.generation,
            host: table.host.to_string(),
            region: table.region.to_string(),
            zone: table.zone.to_string(),
            admin: table.admin,
            relay: table.relay,
            listeners: table.listeners.iter().map(ListenerText::from).collect(),
            upstreams: table.upstreams.iter().map(UpstreamText::from).collect(),
            distances_us: table
                .distances
                .iter()
                .map(|(region, distance)| (region.to_string(), micros(*distance)))
                .collect(),
        }
    }
}

impl TableText {
    fn into_table(self) -> Result<RouteTable, FormatError> {
        let upstreams = self.upstreams.into_iter().map(UpstreamText::into_upstream);
        let distances = self.distances_us.into_iter().map(|(region, distance)| {
            Ok((name::<RegionName>(region)?, Duration::from_micros(distance)))
        });
        Ok(RouteTable {
            system: name(self.system)?,
            generation: self.generation,
            host: name(self.host)?,
            region: name(self.region)?,
            zone: name(self.zone)?,
            admin: self.admin,
            relay: self.relay,
            listeners: self
                .listeners
                .into_iter()
                .map(ListenerText::into_listener)
                .collect::<Result<_, _>>()?,
            upstreams: upstreams.collect::<Result<_, _>>()?,
            distances: distances.collect::<Result<_, FormatError>>()?,
        })
    }
}

impl From<&Listener> for ListenerText {
    fn from(listener: &Listener) -> Self {
        Self {
            id: match &listener.id {
                ListenerId::Gateway(name) => ListenerIdText::Gateway(name.to_string()),
                ListenerId::KeyValue => ListenerIdText::KeyValue,
            },
            address: listener.address,
            routes: listener.routes.iter().map(RouteText::from).collect(),
        }
    }
}

impl ListenerText {
    fn into_listener(self) -> Result<Listener, FormatError> {
        Ok(Listener {
            id: match self.id {
                ListenerIdText::Gateway(text) => ListenerId::Gateway(name::<GatewayName>(text)?),
                ListenerIdText::KeyValue => ListenerId::KeyValue,
            },
            address: self.address,
            routes: self.routes.into_iter().map(RouteText::into_route).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Route> for RouteText {
    fn from(route: &Route) -> Self {
        Self {
            host: route.host.clone(),
            path: route.path.clone(),
            to: UpstreamIdText::from(&route.to),
            body_max: route.body_max,
            timeout_us: micros(route.timeout),
            tries_max: route.tries_max,
        }
    }
}

impl RouteText {
    fn into_route(self) -> Result<Route, FormatError> {
        Ok(Route {
            host: self.host,
            path: self.path,
            to: self.to.into_id()?,
            body_max: self.body_max,
            timeout: Duration::from_micros(self.timeout_us),
            tries_max: self.tries_max,
        })
    }
}

impl From<&UpstreamId> for UpstreamIdText {
    fn from(id: &UpstreamId) -> Self {
        match id {
            UpstreamId::Service(name) => Self::Service(name.to_string()),
            UpstreamId::KeyValue => Self::KeyValue,
        }
    }
}

impl UpstreamIdText {
    fn into_id(self) -> Result<UpstreamId, FormatError> {
        Ok(match self {
            Self::Service(text) => UpstreamId::Service(name::<ServiceName>(text)?),
            Self::KeyValue => UpstreamId::KeyValue,
        })
    }
}

impl From<(&UpstreamId, &Upstream)> for UpstreamText {
    fn from((id, upstream): (&UpstreamId, &Upstream)) -> Self {
        Self {
            id: UpstreamIdText::from(id),
            health: HealthText::from(&upstream.health),
            endpoints: upstream.endpoints.iter().map(EndpointText::from).collect(),
        }
    }
}

impl From<&HealthCheck> for HealthText {
    fn from(health: &HealthCheck) -> Self {
        Self {
            probe: match &health.probe {
                Probe::Http(path) => ProbeText::Http(path.clone()),
                Probe::Tcp => ProbeText::Tcp,
            },
            every_us: micros(health.every),
            timeout_us: micros(health.timeout),
            unhealthy_after: health.unhealthy_after,
            healthy_after: health.healthy_after,
            alive: health.alive.clone(),
        }
    }
}

impl From<HealthText> for HealthCheck {
    fn from(text: HealthText) -> Self {
        Self {
            probe: match text.probe {
                ProbeText::Http(path) => Probe::Http(path),
                ProbeText::Tcp => Probe::Tcp,
            },
            every: Duration::from_micros(text.every_us),
            timeout: Duration::from_micros(text.timeout_us),
            unhealthy_after: text.unhealthy_after,
            healthy_after: text.healthy_after,
            alive: text.alive,
        }
    }
}

impl UpstreamText {
    fn into_upstream(self) -> Result<(UpstreamId, Upstream), FormatError> {
        let health = HealthCheck::from(self.health);
        let endpoints = self.endpoints.into_iter().map(EndpointText::into_endpoint);
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        Ok((self.id.into_id()?, Upstream { health, endpoints }))
    }
}

impl From<&Endpoint> for EndpointText {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: match &endpoint.id {
                EndpointId::Replica(instance) => EndpointIdText::Replica(instance.to_string()),
                EndpointId::Api(host) => EndpointIdText::Api(host.to_string()),
            },
            address: endpoint.address,
            link: match endpoint.link {
                Link::Plain => LinkText::Plain,
                Link::Proven => LinkText::Proven,
            },
            host: endpoint.host.to_string(),
            region: endpoint.region.to_string(),
            zone: endpoint.zone.to_string(),
            phase: match endpoint.phase {
                InstancePhase::Serving => PhaseText::Serving,
                InstancePhase::Draining => PhaseText::Draining,
            },
            health: endpoint.health.as_ref().map(HealthText::from),
        }
    }
}

impl EndpointText {
    fn into_endpoint(self) -> Result<Endpoint, FormatError> {
        Ok(Endpoint {
            id: match self.id {
                EndpointIdText::Replica(text) => EndpointId::Replica(
                    InstanceId::parse(&text)
                        .map_err(|source| FormatError::Name { text, source })?,
                ),
                EndpointIdText::Api(text) => EndpointId::Api(name::<HostName>(text)?),
            },
            address: self.address,
            link: match self.link {
                LinkText::Plain => Link::Plain,
                LinkText::Proven => Link::Proven,
            },
            host: name(self.host)?,
            region: name(self.region)?,
            zone: name(self.zone)?,
            phase: match self.phase {
                PhaseText::Serving => InstancePhase::Serving,
                PhaseText::Draining => InstancePhase::Draining,
            },
            health: self.health.map(HealthCheck::from),
        })
    }
}
