//! Derives the next plan from the whole observation: a function of the wanted system, the plan in
//! force and the inventory.
//!
//! A replica that must go elsewhere is replaced first and removed last:
//! ```text
//!   new replica placed ─▶ every wanted replica ready ─▶ old one draining ─▶ old one gone
//! ```
//! A replica on a lost host stays in the plan until its replacement is ready, so that no gateway's
//! list ever runs empty because the leader could not see a host that others can.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_model::instance::{Instance, InstanceId, InstancePhase};
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::service::{Service, ServicePort};
use evenkeel_model::system::System;

use crate::declaration::Wanted;
use crate::placement::{Grid, Replica, Request, place, service_hosts};
use crate::plan::{Plan, Release};
use crate::report::{HostReport, InstanceState};
use crate::rollout::{self, Progress};

/// A host as observed.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostView<'a> {
    /// Whether its lease holds.
    pub up: bool,
    /// Whether it has been up for long enough to be used for a better spread.
    pub settled: bool,
    /// Its newest report.
    pub report: Option<&'a HostReport>,
}

/// Everything observed.
#[derive(Debug, Clone, Default)]
pub struct Inventory<'a> {
    /// Every host of the system.
    pub hosts: BTreeMap<HostName, HostView<'a>>,
    /// Draining replicas whose time is over.
    pub drained: BTreeSet<InstanceId>,
    /// How long each ready replica has been so without a gap.
    pub ready_for: BTreeMap<InstanceId, Duration>,
    /// Most moves under way at any time only to spread better.
    pub moves_max: usize,
}

impl<'a> Inventory<'a> {
    pub(crate) fn is_up(&self, host: &HostName) -> bool {
        self.hosts.get(host).is_some_and(|view| view.up)
    }

    pub(crate) fn report(&self, host: &HostName) -> Option<&'a HostReport> {
        self.hosts.get(host).filter(|view| view.up)?.report
    }

    /// Returns whether a host says that its disk is full: it then follows no new plan.
    fn is_full(&self, host: &HostName) -> bool {
        self.report(host).is_some_and(|report| !report.disk_ok)
    }

    /// Returns how long a replica has been ready.
    pub(crate) fn ready_for(&self, id: &InstanceId) -> Option<Duration> {
        self.ready_for.get(id).copied()
    }

    /// Returns whether a replica's host is up and says that the replica is ready.
    #[must_use]
    pub fn is_ready(&self, instance: &Instance) -> bool {
        self.report(&instance.host).is_some_and(|report| report.is_ready(&instance.id))
    }
}

/// Derives the plan that follows `current`, with `number`; `None` when `current` is as wanted.
#[must_use]
pub fn next_plan(
    wanted: &Wanted,
    current: &Plan,
    inventory: &Inventory<'_>,
    number: u64,
) -> Option<Plan> {
    let system = wanted.system();
    let mut plan = Plan { number, parent: current.number, ..current.clone() };
    plan.declarations.insert(wanted.declaration.revision, wanted.declaration.clone());
    plan.avoided.retain(|(service, host), _| {
        system.services.contains_key(service) && inventory.is_up(host)
    });
    let mut parts: BTreeMap<ServiceName, Vec<Instance>> = BTreeMap::new();
    for instance in std::mem::take(&mut plan.instances) {
        parts.entry(instance.id.service.clone()).or_default().push(instance);
    }
    // From here on the plan holds the replicas of the service at hand alone: nothing walks over
    // those of all services for each of them.
    let mut pending = 0_usize;
    for service in system.services.values() {
        plan.instances = parts.remove(&service.name).unwrap_or_default();
        rollout::declare(wanted, service, &mut plan);
        plan.instances.retain(|instance| stays(inventory, instance));
        let serving = counted(&plan, inventory, service).count();
        let wanted = usize::try_from(service.replicas).unwrap_or(usize::MAX);
        pending += serving.saturating_sub(wanted);
        parts.insert(service.name.clone(), std::mem::take(&mut plan.instances));
    }
    for (service, instances) in &mut parts {
        if !system.services.contains_key(service) {
            instances.retain(|instance| stays(inventory, instance));
        }
    }
    let mut ground = Ground::new(wanted, inventory, parts.values().flatten());
    let mut moves_left = inventory.moves_max.saturating_sub(pending);
    for service in system.services.values() {
        plan.instances = parts.remove(&service.name).unwrap_or_default();
        moves_left -= plan_service(wanted, inventory, service, moves_left, &mut ground, &mut plan);
        parts.insert(service.name.clone(), std::mem::take(&mut plan.instances));
    }
    plan.instances = parts.into_values().flatten().collect();
    put_in_force(wanted, inventory, &mut plan);
    if current.revision == wanted.declaration.revision {
        drain_removed_services(system, &mut plan);
    }
    forget_unused(system, &mut plan);
    plan.instances.sort_by(|left, right| left.id.cmp(&right.id));
    let same = Plan { number: current.number, parent: current.parent, ..plan.clone() } == *current;
    (!same).then_some(plan)
}

/// What is the same for all services: the hosts that may take replicas, and what stands on them.
struct Ground<'a> {
    /// Service hosts that are up and not to be drained.
    grid: Grid<'a>,
    names: Vec<&'a HostName>,
    /// Service hosts that are not to be drained, as if all were up.
    places: usize,
    /// The ports of all replicas on each host of `grid`.
    ports: Vec<BTreeSet<u16>>,
    /// Ports that never go to a replica of the range.
    reserved: BTreeSet<u16>,
    /// Hosts of `grid` whose disk is full.
    full: BTreeSet<HostName>,
}

impl<'a> Ground<'a> {
    fn new<'i>(
        wanted: &'a Wanted,
        inventory: &Inventory<'_>,
        instances: impl Iterator<Item = &'i Instance>,
    ) -> Self {
        let system = wanted.system();
        let mut hosts = service_hosts(system);
        hosts.retain(|host| !wanted.drained.contains(&host.name));
        let places = hosts.len();
        hosts.retain(|host| inventory.is_up(&host.name));
        let settled = |name: &HostName| inventory.hosts.get(name).is_some_and(|view| view.settled);
        let names: Vec<&HostName> = hosts.iter().map(|host| &host.name).collect();
        let unsettled = names.iter().filter(|name| !settled(name)).map(|name| (*name).clone());
        let full = names.iter().filter(|name| inventory.is_full(name)).map(|name| (*name).clone());
        let mut ground = Self {
            ports: vec![BTreeSet::new(); hosts.len()],
            reserved: reserved_ports(system).collect(),
            full: full.collect(),
            grid: Grid::new(hosts, &unsettled.collect()),
            names,
            places,
        };
        for instance in instances {
            ground.add(instance);
        }
        ground
    }

    fn add(&mut self, instance: &Instance) {
        self.grid.add_load(&instance.host);
        let at = self.grid.position(&instance.host);
        if let Some(ports) = at.and_then(|at| self.ports.get_mut(at)) {
            ports.insert(instance.port);
        }
    }

    fn remove(&mut self, instance: &Instance) {
        self.grid.remove_load(&instance.host);
        let at = self.grid.position(&instance.host);
        if let Some(ports) = at.and_then(|at| self.ports.get_mut(at)) {
            ports.remove(&instance.port);
        }
    }

    /// Drops the replicas of the service at hand that are `gone`.
    fn drop_from(&mut self, plan: &mut Plan, gone: impl Fn(&Instance) -> bool) {
        for instance in plan.instances.extract_if(.., |instance| gone(instance)) {
            self.remove(&instance);
        }
    }
}

/// Lets the places and routes of the wanted file be in force, once no route leads to a service
/// that cannot answer yet.
fn put_in_force(wanted: &Wanted, inventory: &Inventory<'_>, plan: &mut Plan) {
    if awaited_services(wanted, inventory, plan).is_empty() {
        plan.revision = wanted.declaration.revision;
    }
}

/// Lists the services that are not ready and that a wanted route newly leads to.
pub(crate) fn awaited_services(
    wanted: &Wanted,
    inventory: &Inventory<'_>,
    plan: &Plan,
) -> Vec<ServiceName> {
    let system = wanted.system();
    let routed = |system: &System| -> BTreeSet<ServiceName> {
        let routes = system.gateways.values().flat_map(|gateway| &gateway.routes);
        routes.map(|route| route.to.clone()).collect()
    };
    // The first file has nothing to wait for.
    let Some(before) = plan.system().map(routed) else { return Vec::new() };
    let answers = |name: &ServiceName| {
        let wanted = system.services.get(name).map_or(0, |service| service.replicas);
        let ready = plan.of_service(name).filter(|instance| inventory.is_ready(instance)).count();
        ready >= usize::try_from(wanted).unwrap_or(usize::MAX)
    };
    routed(system).difference(&before).filter(|name| !answers(name)).cloned().collect()
}

/// Lets the replicas of services go that the file in force no longer has: no route leads to them.
fn drain_removed_services(system: &System, plan: &mut Plan) {
    for instance in &mut plan.instances {
        if !system.services.contains_key(&instance.id.service) {
            instance.phase = InstancePhase::Draining;
        }
    }
}

/// Forgets what nothing in the plan refers to any more.
fn forget_unused(system: &System, plan: &mut Plan) {
    plan.releases.retain(|service, _| system.services.contains_key(service));
    let mut used: BTreeSet<u64> = plan.instances.iter().map(|instance| instance.revision).collect();
    for release in plan.releases.values() {
        used.insert(release.current);
        used.extend(release.next.as_ref().map(|next| next.revision));
    }
    used.insert(plan.revision);
    plan.declarations.retain(|revision, _| used.contains(revision));
}

/// Returns whether a replica still has a reason to be in the plan.
fn stays(inventory: &Inventory<'_>, instance: &Instance) -> bool {
    match instance.phase {
        InstancePhase::Serving => true,
        InstancePhase::Draining => {
            inventory.is_up(&instance.host) && !inventory.drained.contains(&instance.id)
        }
    }
}

/// Replicas of a service that count towards the wanted number.
fn counted<'a>(
    plan: &'a Plan,
    inventory: &'a Inventory<'_>,
    service: &'a Service,
) -> impl Iterator<Item = &'a Instance> {
    plan.of_service(&service.name).filter(|instance| {
        instance.phase == InstancePhase::Serving && inventory.is_up(&instance.host)
    })
}

/// Brings one service nearer to what is wanted. Returns how many moves it began for a better
/// spread.
fn plan_service(
    wanted: &Wanted,
    inventory: &Inventory<'_>,
    service: &Service,
    moves_max: usize,
    ground: &mut Ground<'_>,
    plan: &mut Plan,
) -> usize {
    let system = wanted.system();
    remove_port_losers(inventory, service, ground, plan);
    remove_unstarted(inventory, ground, plan);
    rollout::judge(service, plan, inventory);
    let given_up = remove_hopeless(inventory, service, ground, plan);
    let progress = Progress::of(service, plan, inventory);
    let moves_max = if progress.is_complete() { moves_max } else { 0 };
    let mut choice =
        place(&request(inventory, service, ground, moves_max, &progress.superseded, plan));
    let begun = choice.add.len().min(choice.surplus.len());
    // Replicas on hosts that are to be empty leave once as many as can be are ready elsewhere.
    let mut enough = usize::try_from(service.replicas).unwrap_or(usize::MAX);
    if service.port != ServicePort::FromRange {
        enough = enough.min(ground.places);
    }
    if choice.keep.len() >= enough {
        let leaving = counted(plan, inventory, service);
        let leaving = leaving.filter(|instance| ground.grid.position(&instance.host).is_none());
        choice.surplus.extend(leaving.map(|instance| instance.id.clone()));
    }
    let complete = add_replicas(system, inventory, service, &choice.add, ground, plan);
    if let Some(host) = given_up
        && !choice.add.is_empty()
    {
        let stand_in = InstanceId { service: service.name.clone(), serial: plan.next_serial - 1 };
        plan.avoided.insert((service.name.clone(), host), stand_in);
    }
    let wanted_ready = complete
        && plan
            .of_service(&service.name)
            .filter(|instance| choice.keep.contains(&instance.id))
            .all(|instance| inventory.is_ready(instance));
    if wanted_ready && !choice.keep.is_empty() {
        retire(inventory, &choice.surplus, ground, plan);
    }
    if complete {
        let beside = rollout::advance(service, &ground.names, ground.places, plan, inventory);
        add_replicas(system, inventory, service, &beside, ground, plan);
    }
    begun
}

/// Removes replicas that cannot start because another program holds their port: they get a new
/// name and port at once. A fixed port has no other, so its replica keeps trying.
fn remove_port_losers(
    inventory: &Inventory<'_>,
    service: &Service,
    ground: &mut Ground<'_>,
    plan: &mut Plan,
) {
    if service.port != ServicePort::FromRange {
        return;
    }
    ground.drop_from(plan, |instance| {
        inventory.report(&instance.host).is_some_and(|report| {
            report.ports_taken.contains(&instance.port) && !report.is_ready(&instance.id)
        })
    });
}

/// Removes replicas that cannot start because their host's disk has no room for the plan, if
/// another host's has.
fn remove_unstarted(inventory: &Inventory<'_>, ground: &mut Ground<'_>, plan: &mut Plan) {
    if ground.full.len() == ground.names.len() {
        return;
    }
    ground.drop_from(plan, |instance| {
        inventory.is_full(&instance.host)
            && inventory
                .report(&instance.host)
                .is_some_and(|report| report.instance(&instance.id).is_none())
    });
}

/// Removes the first replica that keeps failing while an empty host could take it, once for each
/// replica. Returns its host.
fn remove_hopeless(
    inventory: &Inventory<'_>,
    service: &Service,
    ground: &mut Ground<'_>,
    plan: &mut Plan,
) -> Option<HostName> {
    let name = &service.name;
    let hopeless = counted(plan, inventory, service).find(|instance| {
        let tried = plan.avoided.values().any(|stand_in| *stand_in == instance.id);
        let report = inventory.report(&instance.host);
        let report = report.and_then(|report| report.instance(&instance.id));
        let failing = report
            .is_some_and(|report| report.crash_looping && report.state != InstanceState::Ready);
        failing && !tried && !plan.avoids(name, &instance.host)
    })?;
    let (id, host) = (hopeless.id.clone(), hopeless.host.clone());
    let empty = |host: &HostName| plan.on_host(host).next().is_none();
    if !ground.names.iter().any(|host| empty(host) && !plan.avoids(name, host)) {
        return None;
    }
    ground.drop_from(plan, |instance| instance.id == id);
    // Avoided from now on; the stand-in's name is filled in once it has one.
    plan.avoided.insert((name.clone(), host.clone()), id);
    Some(host)
}

/// Gathers what decides the placement of a service.
fn request<'a>(
    inventory: &Inventory<'_>,
    service: &Service,
    ground: &'a Ground<'_>,
    moves_max: usize,
    superseded: &BTreeSet<InstanceId>,
    plan: &Plan,
) -> Request<'a> {
    let current: Vec<Replica> = counted(plan, inventory, service)
        .filter(|instance| !superseded.contains(&instance.id))
        .map(|instance| Replica {
            id: instance.id.clone(),
            host: instance.host.clone(),
            ready: inventory.is_ready(instance),
        })
        .collect();
    let exclusive = service.port != ServicePort::FromRange;
    let occupied = plan.of_service(&service.name).map(|instance| instance.host.clone());
    let avoided = plan.avoided.keys().filter(|(name, _)| *name == service.name);
    let avoided = avoided.map(|(_, host)| host).chain(&ground.full);
    Request {
        replicas: service.replicas,
        exclusive,
        grid: &ground.grid,
        avoided: avoided.cloned().collect(),
        closed: if exclusive { occupied.collect() } else { BTreeSet::new() },
        // Nothing healthy is moved while something of the service is not.
        moves_max: if current.iter().all(|replica| replica.ready) { moves_max } else { 0 },
        current,
    }
}

/// Adds a replica on each of the hosts to the plan. Returns whether nothing had to be added.
fn add_replicas(
    system: &System,
    inventory: &Inventory<'_>,
    service: &Service,
    hosts: &[HostName],
    ground: &mut Ground<'_>,
    plan: &mut Plan,
) -> bool {
    let Some(revision) = plan.releases.get(&service.name).map(Release::target) else {
        return false;
    };
    for host in hosts {
        let serial = plan.next_serial;
        let Some(port) = choose_port(system, inventory, service, host, serial, ground) else {
            continue;
        };
        plan.next_serial += 1;
        let instance = Instance {
            id: InstanceId { service: service.name.clone(), serial },
            host: host.clone(),
            port,
            phase: InstancePhase::Serving,
            revision,
        };
        ground.add(&instance);
        plan.instances.push(instance);
    }
    hosts.is_empty()
}

/// Chooses a replica's port: the range is walked along with the serial, so that a port rises from
/// replica to replica and comes back only after a whole turn. Skips ports in use.
fn choose_port(
    system: &System,
    inventory: &Inventory<'_>,
    service: &Service,
    host: &HostName,
    serial: u64,
    ground: &Ground<'_>,
) -> Option<u16> {
    let range = match service.port {
        ServicePort::Fixed(port) => return Some(port),
        ServicePort::FromRange => &system.ports.replicas,
    };
    let planned = ground.grid.position(host).and_then(|at| ground.ports.get(at));
    let taken = inventory.report(host).map(|report| &report.ports_taken);
    let used = |port: &u16| {
        planned.is_some_and(|ports| ports.contains(port))
            || taken.is_some_and(|ports| ports.contains(port))
            || ground.reserved.contains(port)
    };
    let length = u64::from(range.end().saturating_sub(*range.start())) + 1;
    (0..length).find_map(|step| {
        let offset = u16::try_from((serial % length + step) % length).ok()?;
        let port = range.start().checked_add(offset)?;
        (range.contains(&port) && !used(&port)).then_some(port)
    })
}

/// Ports that never go to a replica of the range.
fn reserved_ports(system: &System) -> impl Iterator<Item = u16> {
    let ports = &system.ports;
    let fixed = system.services.values().filter_map(|service| match service.port {
        ServicePort::Fixed(port) => Some(port),
        ServicePort::FromRange => None,
    });
    [ports.peer, ports.api, ports.kv, ports.gateway_admin, ports.relay]
        .into_iter()
        .chain(system.gateways.values().map(|gateway| gateway.port))
        .chain(fixed)
}

/// Lets go of replicas that are no longer needed: those on lost hosts at once, others by way of
/// draining.
fn retire(
    inventory: &Inventory<'_>,
    surplus: &[InstanceId],
    ground: &mut Ground<'_>,
    plan: &mut Plan,
) {
    ground.drop_from(plan, |instance| !inventory.is_up(&instance.host));
    for instance in &mut plan.instances {
        if surplus.contains(&instance.id) {
            instance.phase = InstancePhase::Draining;
        }
    }
}
