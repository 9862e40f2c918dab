//! Says what a system lacks until it could take the next fault as well as the last.

use evenkeel_model::instance::{Instance, InstancePhase};
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::service::ServicePort;
use evenkeel_model::time::Timestamp;

use std::collections::{BTreeMap, BTreeSet};

use crate::declaration::Wanted;
use crate::hosts::{HostState, HostTable};
use crate::placement::{Grid, Replica, Request, place, service_hosts};
use crate::plan::Plan;
use crate::planner::{Inventory, awaited_services};
use crate::rollout;

/// How far a system is from full redundancy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redundancy {
    /// What is missing, a sentence each; empty at full redundancy.
    pub missing: Vec<String>,
}

impl Redundancy {
    /// Returns whether every host is up, every gateway runs, every wanted replica is ready and
    /// runs what it should, and no move would spread them better.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Compares what is wanted with what the leader observes.
#[must_use]
pub fn redundancy(
    wanted: &Wanted,
    plan: &Plan,
    inventory: &Inventory<'_>,
    hosts: &HostTable,
    now: Timestamp,
) -> Redundancy {
    let system = wanted.system();
    let mut missing = unfinished_changes(wanted, plan, inventory);
    for host in system.hosts.keys() {
        check_host(host, plan, hosts, now, &mut missing);
    }
    let mut places = service_hosts(system);
    places.retain(|host| !wanted.drained.contains(&host.name));
    let grid = Grid::new(places, &BTreeSet::new());
    let mut by_service: BTreeMap<&ServiceName, Vec<&Instance>> = BTreeMap::new();
    for instance in plan.instances.iter().filter(|it| it.phase == InstancePhase::Serving) {
        by_service.entry(&instance.id.service).or_default().push(instance);
    }
    for service in system.services.values() {
        let serving = by_service.remove(&service.name).unwrap_or_default();
        let ready = |instance: &&&Instance| {
            hosts.is_up(&instance.host, now)
                && hosts.report(&instance.host).is_some_and(|report| report.is_ready(&instance.id))
        };
        let count = serving.iter().filter(ready).count();
        if count < usize::try_from(service.replicas).unwrap_or(usize::MAX) {
            let wanted = service.replicas;
            missing
                .push(format!("service `{}` has {count} of {wanted} replicas ready", service.name));
        }
        for instance in serving.iter().filter(|instance| !ready(instance)) {
            missing.push(describe(instance, hosts, now));
        }
        let request = Request {
            replicas: service.replicas,
            exclusive: service.port != ServicePort::FromRange,
            grid: &grid,
            // A host on which the service kept failing is no better place.
            avoided: plan
                .avoided
                .keys()
                .filter(|(name, _)| *name == service.name)
                .map(|(_, host)| host.clone())
                .collect(),
            closed: BTreeSet::new(),
            current: serving
                .iter()
                .map(|instance| Replica {
                    id: instance.id.clone(),
                    host: instance.host.clone(),
                    ready: true,
                })
                .collect(),
            moves_max: usize::MAX,
        };
        let deploy = rollout::describe(service, plan, inventory);
        // While a deploy is under way there are more replicas than wanted.
        let moves = if deploy.is_some() { 0 } else { place(&request).surplus.len() };
        missing.extend(deploy);
        if moves > 0 {
            missing.push(format!(
                "service `{}` has {moves} of {} replicas not where they belong",
                service.name,
                serving.len()
            ));
        }
    }
    Redundancy { missing }
}

/// Says which wanted changes are not in force yet.
fn unfinished_changes(wanted: &Wanted, plan: &Plan, inventory: &Inventory<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    let revision = wanted.declaration.revision;
    if plan.revision != revision && plan.revision != 0 {
        let awaited = awaited_services(wanted, inventory, plan);
        let awaited: Vec<String> = awaited.iter().map(|name| format!("`{name}`")).collect();
        missing.push(match awaited.as_slice() {
            [] => format!("the system file of revision {revision} is being put in force"),
            awaited => format!(
                "the routes of revision {revision} wait until service {} is ready",
                awaited.join(" and ")
            ),
        });
    }
    for host in &wanted.drained {
        let left = plan.on_host(host).count();
        if left > 0 {
            let run = if left == 1 { "replica still runs" } else { "replicas still run" };
            missing.push(format!("host `{host}` is being drained: {left} {run} there"));
        }
    }
    missing
}

fn check_host(
    host: &HostName,
    plan: &Plan,
    hosts: &HostTable,
    now: Timestamp,
    missing: &mut Vec<String>,
) {
    let state = hosts.state(host, now);
    if state != HostState::Up {
        missing.push(format!("host `{host}` is {state}"));
        return;
    }
    let Some(report) = hosts.report(host) else {
        missing.push(format!("host `{host}` has not reported to this leader yet"));
        return;
    };
    if !report.gateway_up {
        missing.push(format!("the gateway of host `{host}` does not run"));
    }
    if !report.disk_ok {
        missing.push(format!("host `{host}` cannot write to its disk"));
    }
    if report.plan_number < plan.number {
        let (old, new) = (report.plan_number, plan.number);
        missing.push(format!("host `{host}` follows plan {old}, the newest is {new}"));
    }
}

/// Says why a replica is not ready.
fn describe(instance: &Instance, hosts: &HostTable, now: Timestamp) -> String {
    let (id, host) = (&instance.id, &instance.host);
    if !hosts.is_up(host, now) {
        return format!("replica `{id}` is on host `{host}`, which is not up");
    }
    let report = hosts.report(host).and_then(|report| report.instance(id));
    match report {
        None => format!("replica `{id}` on host `{host}` has not been started yet"),
        Some(report) => match &report.last_error {
            None => format!("replica `{id}` on host `{host}` is {}", report.state),
            Some(error) => format!("replica `{id}` on host `{host}` is {}: {error}", report.state),
        },
    }
}
