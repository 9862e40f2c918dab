//! A node's metrics, built from its status whenever they are asked for.

use std::sync::atomic::AtomicU64;

use evenkeel_model::name::HostName;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::status::StatusWire;
use crate::wire::HostStateWire;

type Labels = Vec<(&'static str, String)>;

/// Writes the metrics of `host` as text.
#[must_use]
pub fn encode(status: &StatusWire, host: &HostName) -> String {
    let mut registry = evenkeel_telemetry::metrics::registry();
    let leads = status.leader.as_deref() == Some(host.as_str());
    gauge(&mut registry, "raft_leader", "Whether this host leads", u8::from(leads));
    register(&mut registry, "raft_term", "Term of the coordinator", status.term);
    register(&mut registry, "plan_number", "Plan in force on this host", status.plan_number);
    if status.is_leader() {
        let goal = Family::<Labels, Gauge>::default();
        let labels = vec![("goal", status.survive.clone())];
        goal.get_or_create(&labels).set(i64::from(status.goal_met));
        registry.register("goal_met", "Whether the survival goal is met", goal);
        gauge(
            &mut registry,
            "redundancy_full",
            "Whether nothing is missing",
            u8::from(status.redundancy.full),
        );
        register_hosts(&mut registry, status);
    }
    register_processes(&mut registry, status);
    evenkeel_telemetry::metrics::encode(&registry)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u8) {
    register(registry, name, help, u64::from(value));
}

fn register(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Gauge::<u64, AtomicU64>::default();
    metric.set(value);
    registry.register(name, help, metric);
}

fn register_hosts(registry: &mut Registry, status: &StatusWire) {
    let hosts = Family::<Labels, Gauge>::default();
    for host in &status.hosts {
        let labels = vec![
            ("region", host.region.clone()),
            ("zone", host.zone.clone()),
            ("host", host.name.clone()),
        ];
        hosts.get_or_create(&labels).set(i64::from(host.state == Some(HostStateWire::Up)));
    }
    registry.register("host_up", "Whether the leader hears a host", hosts);
    let replicas = Family::<Labels, Gauge>::default();
    for instance in &status.instances {
        let state =
            instance.state.map_or_else(|| "unknown".to_owned(), |state| format!("{state:?}"));
        let labels = vec![("service", instance.service.clone()), ("state", state.to_lowercase())];
        replicas.get_or_create(&labels).inc();
    }
    registry.register("service_replicas", "Planned replicas by state", replicas);
}

fn register_processes(registry: &mut Registry, status: &StatusWire) {
    for process in &status.processes {
        let labels = [("process".into(), process.id.clone().into())];
        registry.sub_registry_with_labels(labels.into_iter()).register(
            "process_restarts",
            "Failures of a process since its node began",
            ConstCounter::new(process.restarts),
        );
    }
}
