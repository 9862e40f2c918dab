//! Translates a system and a placement into a [`Graph`] of what fails with what.
//!
//! ```text
//! region ─ zone ─ host ─┬─ node ─ voter ──────(too many for a majority)── quorum ─┐ if needed
//!                       ├─ gateway ───────────(all)── gateways ─┐                 │
//!                       └─ replica ───────────(all)── replicas ─┴─ service ───────┴─ top
//! ```
//! A replica of a service that needs the key-value store reaches it through the gateway of its own
//! host (`${kv.url}` is a loopback listener) and so fails with it.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::dealing::deal_distinct;
use evenkeel_model::instance::Placement;
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::place::{Domain, Host};
use evenkeel_model::service::{Need, Service, ServicePort};
use evenkeel_model::system::System;
use evenkeel_model::voting::quorum;

use crate::component::Component;
use crate::graph::{Gate, Graph, GraphBuilder, NodeId};

/// A system as a graph, and the nodes that mean something in it.
#[derive(Debug, Clone)]
pub struct SystemGraph {
    /// What fails with what.
    pub graph: Graph,
    /// The node of every basic event.
    pub components: BTreeMap<Component, NodeId>,
    /// Requests fail: no gateway is up, or a service that is promised does not work.
    pub top: NodeId,
    /// Too few voters are up: the key-value store stops, and nothing that fails is replaced.
    pub quorum: NodeId,
    /// No gateway is up.
    pub gateways: NodeId,
    /// The services.
    pub services: BTreeMap<ServiceName, ServiceNodes>,
}

/// The nodes of one service.
#[derive(Debug, Clone)]
pub struct ServiceNodes {
    /// It does not work: no replica does, or something that it needs has failed.
    pub service: NodeId,
    /// None of its replicas works.
    pub replicas: NodeId,
    /// Whether requests depend on it: a route leads to it, or a service that requests depend on needs it.
    pub promised: bool,
}

/// Deals the replicas of every service as a leader would on healthy hosts: no host gets a second
/// replica while another has none, and regions, then zones, get as even a share as that allows.
#[must_use]
pub fn place_on_paper(system: &System) -> Placement {
    let hosts: Vec<&Host> = system
        .regions
        .iter()
        .flat_map(|region| system.service_hosts().filter(move |host| host.region == *region))
        .collect();
    let place = |service: &Service| {
        let replicas = usize::try_from(service.replicas).unwrap_or(usize::MAX);
        let rounds = match service.port {
            ServicePort::Fixed(_) => usize::from(replicas >= hosts.len()),
            ServicePort::FromRange => replicas.checked_div(hosts.len()).unwrap_or(0),
        };
        let everywhere = hosts.iter().map(|host| host.name.clone());
        let mut placed: Vec<HostName> = (0..rounds).flat_map(|_| everywhere.clone()).collect();
        if rounds == 0 || matches!(service.port, ServicePort::FromRange) {
            placed.extend(deal_distinct(&hosts, replicas.saturating_sub(placed.len())));
        }
        placed
    };
    system.services.values().map(|service| (service.name.clone(), place(service))).collect()
}

/// Returns the services that requests depend on. Without a route, all are.
#[must_use]
pub fn promised_services(system: &System) -> BTreeSet<ServiceName> {
    let routed = system.gateways.values().flat_map(|gateway| &gateway.routes);
    let mut open: Vec<&ServiceName> = routed.map(|route| &route.to).collect();
    if open.is_empty() {
        open = system.services.keys().collect();
    }
    let mut promised = BTreeSet::new();
    while let Some(name) = open.pop() {
        if promised.insert(name.clone()) {
            let needs = system.services.get(name).map_or(&[][..], |service| &service.needs);
            open.extend(needs.iter().filter_map(|need| match need {
                Need::Service(other) => Some(other),
                Need::KeyValue => None,
            }));
        }
    }
    promised
}

impl SystemGraph {
    /// Builds the graph. Replicas that `placement` puts on hosts that the system does not have do
    /// not count; a service without a replica does not work.
    #[must_use]
    pub fn new(system: &System, placement: &Placement) -> Self {
        let mut builder = GraphBuilder::new();
        let mut components = BTreeMap::new();
        add_hosts(&mut builder, &mut components, system);
        let of = |components: &BTreeMap<Component, NodeId>, make: fn(HostName) -> Component| {
            let names = system.hosts.keys().cloned();
            names.filter_map(|name| components.get(&make(name)).copied()).collect::<Vec<_>>()
        };
        let gateways = builder.add_with(Gate::All, &of(&components, Component::Gateway));
        let voters = of(&components, Component::Voter);
        let down_max = voters.len().saturating_sub(quorum(voters.len()));
        let too_many = u32::try_from(down_max + 1).unwrap_or(u32::MAX);
        let gate = if voters.is_empty() { Gate::All } else { Gate::AtLeast(too_many) };
        let quorum = builder.add_with(gate, &voters);
        let services = add_services(&mut builder, &mut components, system, placement, quorum);
        let top = add_top(&mut builder, system, &services, gateways, quorum);
        Self { graph: builder.build(), components, top, quorum, gateways, services }
    }

    /// Returns the nodes of those components that the graph has.
    pub fn nodes<'a>(&self, components: impl IntoIterator<Item = &'a Component>) -> Vec<NodeId> {
        components
            .into_iter()
            .filter_map(|component| self.components.get(component))
            .copied()
            .collect()
    }

    /// Returns the component of each node that is one, in the order of components.
    #[must_use]
    pub fn components_of(&self, nodes: &[NodeId]) -> Vec<Component> {
        let wanted: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let found = self.components.iter().filter(|(_, node)| wanted.contains(node));
        found.map(|(component, _)| component.clone()).collect()
    }
}

fn add_hosts(
    builder: &mut GraphBuilder,
    components: &mut BTreeMap<Component, NodeId>,
    system: &System,
) {
    let mut add = |component: Component, inside: Option<NodeId>| {
        *components
            .entry(component)
            .or_insert_with(|| builder.add_with(Gate::Any, inside.as_slice()))
    };
    for host in system.hosts.values() {
        let region = Domain::Region(host.region.clone());
        let zone = Domain::Zone(host.region.clone(), host.zone.clone());
        let region = add(Component::Place(region), None);
        let zone = add(Component::Place(zone), Some(region));
        let place = add(Component::Place(Domain::Host(host.name.clone())), Some(zone));
        add(Component::Gateway(host.name.clone()), Some(place));
        let node = add(Component::Node(host.name.clone()), Some(place));
        if system.voters.contains(&host.name) {
            add(Component::Voter(host.name.clone()), Some(node));
        }
    }
}

fn add_services(
    builder: &mut GraphBuilder,
    components: &mut BTreeMap<Component, NodeId>,
    system: &System,
    placement: &Placement,
    quorum: NodeId,
) -> BTreeMap<ServiceName, ServiceNodes> {
    let promised = promised_services(system);
    let mut services = BTreeMap::new();
    for service in system.services.values() {
        let placed = placement.get(&service.name).map_or(&[][..], Vec::as_slice);
        let replicas = add_replicas(builder, components, service, placed);
        let replicas = builder.add_with(Gate::All, &replicas);
        let node = builder.add_with(Gate::Any, &[replicas]);
        let promised = promised.contains(&service.name);
        services.insert(service.name.clone(), ServiceNodes { service: node, replicas, promised });
    }
    for service in system.services.values() {
        for need in &service.needs {
            let needed = match need {
                Need::KeyValue => Some(quorum),
                Need::Service(other) => services.get(other).map(|nodes| nodes.service),
            };
            if let (Some(needed), Some(nodes)) = (needed, services.get(&service.name)) {
                builder.connect(needed, nodes.service);
            }
        }
    }
    services
}

fn add_replicas(
    builder: &mut GraphBuilder,
    components: &mut BTreeMap<Component, NodeId>,
    service: &Service,
    placed: &[HostName],
) -> Vec<NodeId> {
    let mut counted: BTreeMap<&HostName, usize> = BTreeMap::new();
    let mut replicas = Vec::new();
    for host in placed {
        let Some(place) = components.get(&Component::Place(Domain::Host(host.clone()))).copied()
        else {
            continue;
        };
        let replica = builder.add_with(Gate::Any, &[place]);
        if service.needs.contains(&Need::KeyValue)
            && let Some(gateway) = components.get(&Component::Gateway(host.clone()))
        {
            builder.connect(*gateway, replica);
        }
        let index = counted.entry(host).or_insert(0);
        components.insert(Component::Replica(service.name.clone(), host.clone(), *index), replica);
        *index += 1;
        replicas.push(replica);
    }
    replicas
}

/// Without a route, services are promised for themselves; without a service, the key-value store is.
fn add_top(
    builder: &mut GraphBuilder,
    system: &System,
    services: &BTreeMap<ServiceName, ServiceNodes>,
    gateways: NodeId,
    quorum: NodeId,
) -> NodeId {
    let top = builder.add(Gate::Any);
    if system.gateways.values().any(|gateway| !gateway.routes.is_empty()) {
        builder.connect(gateways, top);
    }
    for nodes in services.values().filter(|nodes| nodes.promised) {
        builder.connect(nodes.service, top);
    }
    if services.is_empty() {
        builder.connect(quorum, top);
    }
    top
}
