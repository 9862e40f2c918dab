//! Metrics for Prometheus: base units, `evenkeel_gateway_` names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_gateway_core::balancer::Balancer;
use evenkeel_gateway_core::table::{Listener, Route};
use evenkeel_model::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the duration histogram in seconds: from a cached answer to a route's timeout.
const DURATION_BOUNDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    gateway: String,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    gateway: String,
    route: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpillLabels {
    from_region: String,
    to_region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    service: String,
    endpoint: String,
    standing: &'static str,
}

/// All metrics of one gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    retries: Family<ServiceLabels, Counter>,
    spill: Family<SpillLabels, Counter>,
    endpoints: Family<EndpointLabels, Gauge>,
    in_flight: Family<EndpointLabels, Gauge>,
    streams: Family<EndpointLabels, Gauge>,
    generation: Gauge,
    pub(crate) connections: Gauge,
    /// Open sessions of other hosts with this one's relay.
    pub(crate) relay_sessions: Gauge,
    pub(crate) relayed: Gauge,
    pub(crate) log_dropped: Counter,
    pub(crate) tables_refused: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(DURATION_BOUNDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("evenkeel_gateway"),
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            retries: Family::default(),
            spill: Family::default(),
            endpoints: Family::default(),
            in_flight: Family::default(),
            streams: Family::default(),
            generation: Gauge::default(),
            connections: Gauge::default(),
            relay_sessions: Gauge::default(),
            relayed: Gauge::default(),
            log_dropped: Counter::default(),
            tables_refused: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time from a request's head to the end of its answer",
            self.durations.clone(),
        );
        registry.register("retries", "Requests sent once more", self.retries.clone());
        registry.register("spill", "Requests sent to another region", self.spill.clone());
        registry.register("endpoint_standing", "1 for each endpoint", self.endpoints.clone());
        registry.register("endpoint_requests", "Requests in flight", self.in_flight.clone());
        registry.register(
            "endpoint_streams",
            "Watches, requests that wait, and other protocols",
            self.streams.clone(),
        );
        registry.register("table_generation", "Generation in force", self.generation.clone());
        registry.register("connections", "Open client connections", self.connections.clone());
        registry.register(
            "relay_sessions",
            "Sessions of other hosts with this one's relay",
            self.relay_sessions.clone(),
        );
        registry.register(
            "relayed_connections",
            "Connections of other hosts to replicas of this one",
            self.relayed.clone(),
        );
        registry.register(
            "access_log_dropped",
            "Access log lines that nobody read in time",
            self.log_dropped.clone(),
        );
        registry.register(
            "tables_refused",
            "Route tables that were not taken",
            self.tables_refused.clone(),
        );
    }

    pub(crate) fn count_retry(&self, service: String) {
        self.retries.get_or_create(&ServiceLabels { service }).inc();
    }

    pub(crate) fn count_spill(&self, from_region: String, to_region: String) {
        self.spill.get_or_create(&SpillLabels { from_region, to_region }).inc();
    }

    /// Writes all metrics as text.
    pub(crate) fn encode(&self, balancer: &Balancer, now: Timestamp) -> String {
        self.endpoints.clear();
        self.in_flight.clear();
        self.streams.clear();
        for view in balancer.view(now) {
            let labels = EndpointLabels {
                service: view.upstream.to_string(),
                endpoint: view.endpoint.id.to_string(),
                standing: view.standing.as_str(),
            };
            self.endpoints.get_or_create(&labels).set(1);
            self.in_flight.get_or_create(&labels).set(view.in_flight.into());
            self.streams.get_or_create(&labels).set(view.streams.into());
        }
        self.generation.set(i64::try_from(balancer.table().generation).unwrap_or(i64::MAX));
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            // A `String` takes everything.
            Err(std::fmt::Error) => String::new(),
        }
    }
}

/// The metrics of one route, found once a table instead of once a request.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    labels: RouteLabels,
    requests: Family<RequestLabels, Counter>,
    by_code: RefCell<BTreeMap<u16, Counter>>,
    duration: Histogram,
}

impl RouteMetrics {
    pub(crate) fn new(metrics: &Metrics, listener: &Listener, route: &Route) -> Self {
        let labels = RouteLabels {
            gateway: listener.id.to_string(),
            route: format!("{}{}", route.host.as_deref().unwrap_or(""), route.path),
        };
        Self {
            duration: metrics.durations.get_or_create(&labels).clone(),
            labels,
            requests: metrics.requests.clone(),
            by_code: RefCell::default(),
        }
    }

    pub(crate) fn observe(&self, code: u16, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
        let mut by_code = self.by_code.borrow_mut();
        let counter = by_code.entry(code).or_insert_with(|| {
            let RouteLabels { gateway, route } = self.labels.clone();
            self.requests.get_or_create(&RequestLabels { gateway, route, code }).clone()
        });
        counter.inc();
    }
}
