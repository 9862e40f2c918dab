//! Every key that a system file can have: name, type, bounds, default and meaning.
//!
//! The one list behind the reader's check for unknown keys, "did you mean", and the JSON Schema.

use std::time::Duration;

use crate::defaults::{self, Bounds};

/// A kind of table.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What it is called in messages: `a service`.
    pub(crate) title: &'static str,
    /// Its keys, in the order in which they are best written.
    pub(crate) keys: &'static [Key],
}

impl Shape {
    /// The names of its keys.
    pub(crate) fn names(&'static self) -> impl Iterator<Item = &'static str> + use<> {
        self.keys.iter().map(|key| key.name)
    }
}

/// One key of a [`Shape`].
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) kind: Kind,
    /// One or two sentences for people.
    pub(crate) doc: &'static str,
}

/// What a key holds.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Any text; with a default, if it has one.
    Text(Option<&'static str>),
    /// The name of a thing, a DNS label.
    Name,
    /// One of some words.
    Word(&'static [&'static str], Option<&'static str>),
    /// A whole number; its default is real only if the flag says so.
    Integer(Bounds<u64>, Defaulted),
    Boolean,
    Duration(Bounds<Duration>),
    Size(Bounds<u64>),
    /// `first-last`.
    PortRange((u16, u16)),
    /// A list of texts, with the fewest that it must have.
    Texts(u64),
    /// Any keys, each with a text.
    TextMap,
    /// Host names, each with an address or a table of [`HOST`].
    Hosts,
    /// Zone names, each with [`Kind::Hosts`].
    Zones,
    /// One table.
    Table(&'static Shape),
    /// Names, each with a table.
    Named(&'static Shape),
    /// A list of tables, at least one.
    List(&'static Shape),
}

/// Whether an [`Kind::Integer`] that is absent has its default or stays absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defaulted {
    Yes,
    No,
}

const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, required: false, kind, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, required: true, kind, doc }
}

pub(crate) const GOALS: &[&str] = &["process", "host", "zone", "region"];
pub(crate) const ROLES: &[&str] = &["full", "witness"];

pub(crate) static SYSTEM: Shape = Shape {
    title: "a system file",
    keys: &[
        required("system", Kind::Name, "Name of the system, also its identity on wire and disk."),
        required(
            "survive",
            Kind::Word(GOALS, None),
            "The promise: the largest place that may fail while the system goes on answering.",
        ),
        required("region", Kind::Named(&REGION), "Regions by name; the first one is home."),
        optional("service", Kind::Named(&SERVICE), "Services by name."),
        optional("gateway", Kind::Named(&GATEWAY), "Ways in by name; every host opens each."),
        optional("ports", Kind::Table(&PORTS), "Ports that Evenkeel itself uses on every host."),
        optional("coordinator", Kind::Table(&COORDINATOR), "How the coordinator is kept whole."),
    ],
};

pub(crate) static REGION: Shape = Shape {
    title: "a region",
    keys: &[
        optional("zones", Kind::Zones, "Zones by name, each with its hosts by name."),
        optional("hosts", Kind::Hosts, "Hosts by name, for a region with one zone, called `a`."),
        optional("role", Kind::Word(ROLES, Some("full")), "Role of all hosts that state none."),
    ],
};

pub(crate) static HOST: Shape = Shape {
    title: "a host",
    keys: &[
        required("address", Kind::Text(None), "IPv4 or IPv6 address where other hosts reach it."),
        optional(
            "role",
            Kind::Word(ROLES, Some("full")),
            "`witness`: votes and runs a gateway, but no service.",
        ),
    ],
};

pub(crate) static SERVICE: Shape = Shape {
    title: "a service",
    keys: &[
        required(
            "command",
            Kind::Texts(1),
            "Program and arguments. `${PORT}`, `${ADDRESS}`, `${HOST}` and `${kv.url}` are filled in.",
        ),
        optional(
            "replicas",
            Kind::Integer(defaults::REPLICAS, Defaulted::Yes),
            "Copies that run at the same time, spread over regions, zones and hosts.",
        ),
        optional(
            "needs",
            Kind::Texts(0),
            "What it cannot work without: `kv` or `service.NAME`, each.",
        ),
        optional("env", Kind::TextMap, "Environment; values are filled in like `command`."),
        optional("health", Kind::Table(&HEALTH), "When a replica may get requests."),
        optional(
            "port",
            Kind::Integer(defaults::SERVICE_PORT, Defaulted::No),
            "The same port on every host, hence one replica a host. Otherwise the plan gives one.",
        ),
        optional(
            "start_grace",
            Kind::Duration(defaults::START_GRACE),
            "Time for which a starting replica may fail its check.",
        ),
        optional(
            "drain",
            Kind::Duration(defaults::DRAIN),
            "Time for old requests to end before a replica is stopped.",
        ),
        optional(
            "stop_grace",
            Kind::Duration(defaults::STOP_GRACE),
            "Time between SIGTERM and SIGKILL.",
        ),
        optional(
            "directory",
            Kind::Text(None),
            "Working directory; by default one of the replica's own under the data directory.",
        ),
        optional("deploy", Kind::Table(&DEPLOY), "How a changed definition replaces replicas."),
    ],
};

pub(crate) static DEPLOY: Shape = Shape {
    title: "a deploy policy",
    keys: &[
        optional(
            "canary",
            Kind::Integer(defaults::CANARY, Defaulted::Yes),
            "Replicas that are replaced first; the others wait until these have stayed ready.",
        ),
        optional(
            "batch",
            Kind::Integer(defaults::BATCH, Defaulted::Yes),
            "Replicas that are then replaced at a time.",
        ),
        optional(
            "healthy_for",
            Kind::Duration(defaults::HEALTHY_FOR),
            "Time for which new replicas must stay ready before more are replaced.",
        ),
        optional(
            "rollback",
            Kind::Boolean,
            "`false`: a definition whose replicas fail is not given up for the one before.",
        ),
    ],
};

pub(crate) static HEALTH: Shape = Shape {
    title: "a health check",
    keys: &[
        optional("http", Kind::Text(None), "Path that answers GET with a status of 200 to 399."),
        optional("tcp", Kind::Boolean, "`true`: the port accepts connections. The default."),
        optional("every", Kind::Duration(defaults::HEALTH_EVERY), "Time between two checks."),
        optional(
            "timeout",
            Kind::Duration(defaults::HEALTH_TIMEOUT),
            "A later answer is a failure.",
        ),
        optional(
            "unhealthy_after",
            Kind::Integer(defaults::UNHEALTHY_AFTER, Defaulted::Yes),
            "Failures in a row until a replica gets no more requests.",
        ),
        optional(
            "healthy_after",
            Kind::Integer(defaults::HEALTHY_AFTER, Defaulted::Yes),
            "Successes in a row until it gets requests.",
        ),
        optional("alive", Kind::Text(None), "Path whose failure means: start the replica again."),
    ],
};

pub(crate) static GATEWAY: Shape = Shape {
    title: "a gateway",
    keys: &[
        required("listen", Kind::Text(None), "`:8080`, `127.0.0.1:8080` or `[::1]:8080`."),
        required("routes", Kind::List(&ROUTE), "Where requests go; the longest path wins."),
    ],
};

pub(crate) static ROUTE: Shape = Shape {
    title: "a route",
    keys: &[
        optional("host", Kind::Text(None), "`Host` header to match; every host when absent."),
        optional(
            "path",
            Kind::Text(Some(defaults::ROUTE_PATH)),
            "Path prefix, matched by whole segments.",
        ),
        required("to", Kind::Name, "The service."),
        optional("body_max", Kind::Size(defaults::BODY_MAX), "Longest request body."),
        optional(
            "timeout",
            Kind::Duration(defaults::ROUTE_TIMEOUT),
            "Time for the answer to begin, over all tries.",
        ),
        optional(
            "tries",
            Kind::Integer(defaults::TRIES, Defaulted::Yes),
            "Most tries of one request, the first included.",
        ),
    ],
};

pub(crate) static COORDINATOR: Shape = Shape {
    title: "the coordinator",
    keys: &[optional(
        "replace_after",
        Kind::Duration(defaults::REPLACE_AFTER),
        "How long a voter may be missing before another host takes its place.",
    )],
};

pub(crate) static PORTS: Shape = Shape {
    title: "the ports",
    keys: &[
        optional(
            "peer",
            Kind::Integer(defaults::PORT_PEER, Defaulted::Yes),
            "Consensus (TCP) and probes (UDP) between hosts.",
        ),
        optional(
            "api",
            Kind::Integer(defaults::PORT_API, Defaulted::Yes),
            "Key-value API, status and heartbeats (TCP).",
        ),
        optional(
            "kv",
            Kind::Integer(defaults::PORT_KV, Defaulted::Yes),
            "The loopback listener behind `${kv.url}` (TCP).",
        ),
        optional(
            "gateway_admin",
            Kind::Integer(defaults::PORT_GATEWAY_ADMIN, Defaulted::Yes),
            "The local gateway's metrics and state (TCP on loopback).",
        ),
        optional(
            "relay",
            Kind::Integer(defaults::PORT_RELAY, Defaulted::Yes),
            "Where other hosts' gateways reach this host's replicas, over TLS (TCP).",
        ),
        optional(
            "replicas",
            Kind::PortRange(defaults::PORTS_REPLICAS),
            "Given to replicas of services without a port of their own.",
        ),
    ],
};
