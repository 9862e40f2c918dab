//! What a system file need not say: every default, with the least and the most that is accepted.

use std::time::Duration;

/// A value's default and its inclusive bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<T> {
    pub(crate) default: T,
    pub(crate) min: T,
    pub(crate) max: T,
}

const fn millis(default: u64, min: u64, max: u64) -> Bounds<Duration> {
    Bounds {
        default: Duration::from_millis(default),
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
    }
}

/// Two copies: one may die.
pub(crate) const REPLICAS: Bounds<u64> = Bounds { default: 2, min: 1, max: 1000 };

/// Once a second notices a hung replica within seconds and costs it next to nothing.
pub(crate) const HEALTH_EVERY: Bounds<Duration> = millis(1000, 10, 3_600_000);

/// A replica that needs longer to say that it is well is not well.
pub(crate) const HEALTH_TIMEOUT: Bounds<Duration> = millis(500, 1, 600_000);

/// Three failures in a row are no accident.
pub(crate) const UNHEALTHY_AFTER: Bounds<u64> = Bounds { default: 3, min: 1, max: 100 };

/// One good answer is enough: gateways warm a new replica up slowly anyway.
pub(crate) const HEALTHY_AFTER: Bounds<u64> = Bounds { default: 1, min: 1, max: 100 };

/// Time to start; a replica that is ready earlier is used earlier.
pub(crate) const START_GRACE: Bounds<Duration> = millis(30_000, 0, 86_400_000);

/// Time for a voter to be missing before another host takes its place.
pub(crate) const REPLACE_AFTER: Bounds<Duration> = millis(600_000, 2_000, 604_800_000);

/// Time for requests under way to end before a replica is told to stop.
pub(crate) const DRAIN: Bounds<Duration> = millis(5_000, 0, 3_600_000);

/// Time between SIGTERM and SIGKILL.
pub(crate) const STOP_GRACE: Bounds<Duration> = millis(10_000, 0, 3_600_000);

/// One replica shows whether a new definition works at all.
pub(crate) const CANARY: Bounds<u64> = Bounds { default: 1, min: 1, max: 1000 };

/// One replica at a time never takes much capacity away.
pub(crate) const BATCH: Bounds<u64> = Bounds { default: 1, min: 1, max: 1000 };

/// What fails soon after its start is noticed before the next replica is replaced.
pub(crate) const HEALTHY_FOR: Bounds<Duration> = millis(5_000, 0, 86_400_000);

/// A definition that fails is given up.
pub(crate) const ROLLBACK: bool = true;

/// Every path.
pub(crate) const ROUTE_PATH: &str = "/";

/// Enough for forms and JSON; uploads say that they are larger. In bytes.
pub(crate) const BODY_MAX: Bounds<u64> = Bounds { default: 1 << 20, min: 0, max: 1 << 40 };

/// Longer than any fail-over that Evenkeel promises, so that a request can outlive one.
pub(crate) const ROUTE_TIMEOUT: Bounds<Duration> = millis(15_000, 1, 86_400_000);

/// The first try and two on other replicas.
pub(crate) const TRIES: Bounds<u64> = Bounds { default: 3, min: 1, max: 10 };

/// Consensus over TCP, probes over UDP.
pub(crate) const PORT_PEER: Bounds<u64> = port(7400);

/// Key-value API, status and heartbeats.
pub(crate) const PORT_API: Bounds<u64> = port(7401);

/// The local listener behind `${kv.url}`.
pub(crate) const PORT_KV: Bounds<u64> = port(7402);

/// The local gateway's metrics and state.
pub(crate) const PORT_GATEWAY_ADMIN: Bounds<u64> = port(7403);

/// The way of other hosts' gateways to this host's replicas.
pub(crate) const PORT_RELAY: Bounds<u64> = port(7404);

/// Below the range that Linux gives to outgoing connections (32768–60999).
pub(crate) const PORTS_REPLICAS: (u16, u16) = (20_000, 29_999);

/// The zone of hosts that are given by `hosts`, without zones.
pub(crate) const ZONE: &str = "a";

/// A port that a service fixes for itself has no default.
pub(crate) const SERVICE_PORT: Bounds<u64> = port(0);

const fn port(default: u64) -> Bounds<u64> {
    Bounds { default, min: 1, max: 65_535 }
}
