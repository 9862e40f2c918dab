//! What a system runs and how requests reach it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::name::{GatewayName, ServiceName};

/// A command that runs in several replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique among services.
    pub name: ServiceName,
    /// Program and arguments; `${PORT}`, `${ADDRESS}`, `${HOST}` and `${kv.url}` are replaced on the host.
    pub command: Vec<String>,
    /// Working directory; the host's data directory of the replica when absent.
    pub directory: Option<PathBuf>,
    /// Extra environment; values are replaced like `command`.
    pub environment: BTreeMap<String, String>,
    /// Wanted replicas, at least 1.
    pub replicas: u32,
    /// What it cannot work without.
    pub needs: Vec<Need>,
    /// When a replica may receive requests.
    pub health: HealthCheck,
    /// Port given to each replica.
    pub port: ServicePort,
    /// Time for which a starting replica may fail its check before it counts as unhealthy.
    pub start_grace: Duration,
    /// Time for which a replica to be stopped gets no new requests but may end its old ones.
    pub drain: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// How a changed definition replaces running replicas.
    pub deploy: DeployPolicy,
}

impl Service {
    /// Returns whether a replica of `other` runs exactly what one of this definition would. How
    /// many there are, what they need and how they are replaced makes no difference to one replica.
    #[must_use]
    pub fn runs_the_same_as(&self, other: &Self) -> bool {
        // Taken apart, so that nothing new is forgotten here.
        let Self {
            name,
            command,
            directory,
            environment,
            health,
            port,
            start_grace,
            stop_grace,
            replicas: _,
            needs: _,
            drain: _,
            deploy: _,
        } = self;
        *name == other.name
            && *command == other.command
            && *directory == other.directory
            && *environment == other.environment
            && *health == other.health
            && *port == other.port
            && *start_grace == other.start_grace
            && *stop_grace == other.stop_grace
    }
}

/// How a changed definition replaces running replicas: a few at a time, each new one ready before
/// an old one goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeployPolicy {
    /// Replicas that are replaced first, at least 1. The others follow only once these have shown
    /// that they stay ready.
    pub canary: u32,
    /// Replicas that are then replaced at a time, at least 1.
    pub batch: u32,
    /// Time for which new replicas must stay ready before more are replaced.
    pub healthy_for: Duration,
    /// Whether a definition whose replicas fail is given up for the one before.
    pub rollback: bool,
}

impl DeployPolicy {
    /// What holds for a service that says nothing about it.
    pub const STANDARD: Self =
        Self { canary: 1, batch: 1, healthy_for: Duration::from_secs(5), rollback: true };
}

/// A thing that a service cannot work without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The embedded key-value store, so a quorum of the coordinator.
    KeyValue,
    /// Another service.
    Service(ServiceName),
}

/// Where a replica listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServicePort {
    /// One of [`crate::system::Ports::replicas`], chosen by the plan.
    FromRange,
    /// Always this one, hence at most one replica a host.
    Fixed(u16),
}

/// How readiness is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The question.
    pub probe: Probe,
    /// Time between two questions.
    pub every: Duration,
    /// An answer later than this is a failure.
    pub timeout: Duration,
    /// Consecutive failures until unhealthy, at least 1.
    pub unhealthy_after: u32,
    /// Consecutive successes until healthy, at least 1.
    pub healthy_after: u32,
    /// A second HTTP path that says whether the replica must be restarted.
    pub alive: Option<String>,
}

/// The question of a [`HealthCheck`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET` of this path answers with a status of 200–399.
    Http(String),
    /// The port accepts a connection.
    Tcp,
}

/// A way in: the same listener on every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Unique among gateways.
    pub name: GatewayName,
    /// Address to listen on; all of the host's when absent.
    pub address: Option<IpAddr>,
    /// TCP port to listen on.
    pub port: u16,
    /// Tried by longest matching path.
    pub routes: Vec<Route>,
}

/// Sends requests with a host and path prefix to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `Host` header to match, without port; every host when absent.
    pub host: Option<String>,
    /// Path prefix, matched by whole segments; begins with `/`.
    pub path: String,
    /// The service.
    pub to: ServiceName,
    /// Longest request body in bytes.
    pub body_max: u64,
    /// Time for the whole answer's head to arrive, over all tries.
    pub timeout: Duration,
    /// Most tries of one request, the first included; at least 1.
    pub tries_max: u32,
}
