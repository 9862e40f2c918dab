//! Drives the leader's machine through random losses, refusals, new leaders, deploys and drained
//! hosts, with the simplest possible hosts, and checks every plan it makes.

#![allow(clippy::unwrap_used, reason = "a test that fails loudly is what is wanted")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_control::controller::{Action, Controller, Event, Settings};
use evenkeel_control::declaration::Wanted;
use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::{HostReport, InstanceReport, InstanceState};
use evenkeel_model::instance::{Instance, InstanceId, InstancePhase};
use evenkeel_model::name::{GatewayName, HostName, ServiceName};
use evenkeel_model::place::HostRole;
use evenkeel_model::service::{Gateway, Route, Service, ServicePort};
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use proptest::prelude::*;

#[path = "support/system.rs"]
mod system;

const TICK: Duration = Duration::from_millis(250);

const HOSTS: [&str; 6] =
    ["fra/a/fra1", "fra/b/fra2", "ams/a/ams1", "ams/b/ams2", "waw/a/waw1", "waw/a/witness"];

fn name(index: usize) -> HostName {
    system::host(HOSTS[index % HOSTS.len()]).name
}

fn shop() -> System {
    let fixed = Service { port: ServicePort::Fixed(9000), ..system::service("fixed", 3) };
    system::system(&HOSTS, vec![system::service("web", 5), system::service("job", 2), fixed])
}

/// What goes wrong next.
#[derive(Debug, Clone)]
enum Fault {
    Lose(usize),
    Return(usize),
    TakePort(usize, u16),
    NewLeader,
    Refuse,
    /// A file with this command of `web` and so many replicas.
    Apply(&'static str, u32),
    Drain(usize),
    Undrain,
    Pass(u8),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => (0..6_usize).prop_map(Fault::Lose),
        2 => (0..6_usize).prop_map(Fault::Return),
        1 => ((0..6_usize), (20000..20010_u16)).prop_map(|(host, port)| Fault::TakePort(host, port)),
        1 => Just(Fault::NewLeader),
        1 => Just(Fault::Refuse),
        2 => (prop::sample::select(vec!["web", "web2", "bad"]), 1..6_u32)
            .prop_map(|(command, replicas)| Fault::Apply(command, replicas)),
        1 => (0..6_usize).prop_map(Fault::Drain),
        1 => Just(Fault::Undrain),
        6 => (0..40_u8).prop_map(Fault::Pass),
    ]
}

struct World {
    controller: Controller,
    now: Timestamp,
    term: u64,
    sequence: u64,
    wanted: Wanted,
    stored: Plan,
    up: BTreeSet<HostName>,
    /// Replicas that run, and when each is ready.
    running: BTreeMap<InstanceId, Timestamp>,
    ports_taken: BTreeMap<HostName, BTreeSet<u16>>,
    /// Hosts on which a service never works.
    broken: BTreeSet<(ServiceName, HostName)>,
    serials: BTreeSet<u64>,
    refuse: bool,
    plans: u64,
}

impl World {
    fn new(system: System) -> Self {
        let now = Timestamp::ZERO;
        Self {
            up: system.hosts.keys().cloned().collect(),
            controller: Controller::new(
                Wanted::new(1, "", system.clone()),
                Settings::STANDARD,
                1,
                None,
                now,
            ),
            wanted: Wanted::new(1, "", system),
            now,
            term: 1,
            sequence: 0,
            stored: Plan::empty(),
            running: BTreeMap::new(),
            ports_taken: BTreeMap::new(),
            broken: BTreeSet::new(),
            serials: BTreeSet::new(),
            refuse: false,
            plans: 0,
        }
    }

    fn apply(&mut self, fault: &Fault) {
        match fault {
            Fault::Lose(host) => {
                self.up.remove(&name(*host));
            }
            Fault::Return(host) => {
                self.up.insert(name(*host));
            }
            Fault::TakePort(host, port) => {
                self.ports_taken.entry(name(*host)).or_default().insert(*port);
            }
            Fault::NewLeader => {
                self.term += 1;
                let stored = self.stored.clone();
                let stored = (stored.number > 0).then_some(stored);
                let settings = Settings::STANDARD;
                self.controller =
                    Controller::new(self.wanted.clone(), settings, self.term, stored, self.now);
            }
            Fault::Apply(command, replicas) => {
                let mut system = self.wanted.system().clone();
                for service in system.services.values_mut() {
                    if service.name.as_str() != "job" {
                        service.command = vec![(*command).to_owned()];
                    }
                    if service.name.as_str() == "web" {
                        service.replicas = *replicas;
                    }
                }
                let (drained, drained_revision) =
                    (self.wanted.drained.clone(), self.wanted.drained_revision);
                let revision = self.wanted.declaration.revision + 1;
                self.wanted =
                    Wanted { drained, drained_revision, ..Wanted::new(revision, "", system) };
                self.tell_wanted();
            }
            Fault::Drain(host) => {
                self.wanted.drained.insert(name(*host));
                self.wanted.drained_revision += 1;
                self.tell_wanted();
            }
            Fault::Undrain => {
                self.wanted.drained.clear();
                self.wanted.drained_revision += 1;
                self.tell_wanted();
            }
            Fault::Refuse => self.refuse = true,
            Fault::Pass(ticks) => self.pass(u32::from(*ticks)),
        }
    }

    fn tell_wanted(&mut self) {
        self.controller.handle_event(Event::WantedSeen(self.wanted.clone()), self.now);
        self.store();
    }

    fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now = self.now + TICK;
            let plan = self.stored.clone();
            self.running.retain(|id, _| {
                plan.instance(id).is_some_and(|instance| self.up.contains(&instance.host))
            });
            for host in self.up.clone() {
                let report = self.report(&host);
                self.controller.handle_event(Event::Heartbeat(report), self.now);
                self.store();
            }
            self.controller.handle_timeout(self.now);
            self.store();
        }
    }

    fn report(&mut self, host: &HostName) -> HostReport {
        self.sequence += 1;
        let taken = self.ports_taken.get(host).cloned().unwrap_or_default();
        let mut instances = Vec::new();
        for instance in self.stored.on_host(host) {
            let ready_at = self.now + TICK * 3;
            let ready_at = *self.running.entry(instance.id.clone()).or_insert(ready_at);
            let definition = self.stored.definition(instance).unwrap();
            let broken = taken.contains(&instance.port)
                || definition.command == ["bad"]
                || self.broken.contains(&(instance.id.service.clone(), host.clone()));
            instances.push(InstanceReport {
                id: instance.id.clone(),
                state: match ready_at <= self.now {
                    true if broken => InstanceState::BackingOff,
                    true => InstanceState::Ready,
                    false => InstanceState::Starting,
                },
                restarts: 0,
                crash_looping: broken && ready_at + TICK * 8 <= self.now,
                last_error: None,
                last_lines: Vec::new(),
            });
        }
        HostReport {
            host: host.clone(),
            boot: 1,
            sequence: self.sequence,
            plan_number: self.stored.number,
            instances,
            reachable: BTreeMap::new(),
            ports_taken: taken,
            gateway_up: true,
            disk_ok: true,
        }
    }

    fn store(&mut self) {
        while let Some(Action::StorePlan(plan)) = self.controller.poll_action() {
            let number = plan.number;
            let event = if std::mem::take(&mut self.refuse) {
                Event::PlanRefused(number)
            } else {
                self.check(&plan);
                self.stored = plan;
                self.plans += 1;
                Event::PlanStored(number)
            };
            self.controller.handle_event(event, self.now);
        }
    }

    /// Checks a plan against the one before it.
    fn check(&mut self, plan: &Plan) {
        assert!(plan.number > self.stored.number, "a number went back");
        assert_eq!(plan.parent, self.stored.number, "not derived from the stored plan");
        assert!(plan.next_serial >= self.stored.next_serial, "serials went back");
        let mut ports = BTreeSet::new();
        for instance in &plan.instances {
            assert!(ports.insert((&instance.host, instance.port)), "a port twice: {instance:?}");
            assert!(instance.id.serial < plan.next_serial);
            assert_eq!(self.wanted.system().hosts[&instance.host].role, HostRole::Full);
            assert!(plan.definition(instance).is_some(), "nobody knows what {instance:?} runs");
            let Some(before) = self.stored.instance(&instance.id) else {
                assert!(self.serials.insert(instance.id.serial), "a serial was used again");
                self.check_spread(plan, &instance.id, &instance.host);
                assert!(!self.wanted.drained.contains(&instance.host), "onto a drained host");
                continue;
            };
            assert_eq!((&before.host, before.port), (&instance.host, instance.port));
            // While an older file is in force, routes may still lead to a service that is to go.
            let drained =
                (before.phase, instance.phase) == (InstancePhase::Serving, InstancePhase::Draining);
            let known = self.wanted.system().services.contains_key(&instance.id.service);
            let in_force = self.stored.revision == self.wanted.declaration.revision;
            assert!(known || !drained || in_force, "{} before its routes", instance.id);
            let undrained = before.phase == InstancePhase::Draining;
            assert!(!undrained || instance.phase == InstancePhase::Draining, "drained and back");
        }
        self.check_removals(plan);
    }

    /// A new replica does not stand beside another one while a host that could take it is empty,
    /// except during a deploy: then it may be there to replace the other one.
    fn check_spread(&self, plan: &Plan, id: &InstanceId, host: &HostName) {
        let release = &plan.releases[&id.service];
        let runs = |instance: &Instance| plan.definition(instance).unwrap();
        let target = plan.defined_at(&id.service, release.target()).unwrap();
        if plan.of_service(&id.service).any(|other| !runs(other).runs_the_same_as(target)) {
            return;
        }
        let on = |host: &HostName| {
            plan.on_host(host)
                .filter(|other| {
                    other.id.service == id.service && other.phase == InstancePhase::Serving
                })
                .count()
        };
        let empty = self.up.iter().find(|other| {
            let avoided = (id.service.clone(), (*other).clone());
            self.wanted.system().hosts[*other].role == HostRole::Full
                && !self.wanted.drained.contains(*other)
                && self.controller.hosts().state(other, self.now) == HostState::Up
                && on(other) == 0
                && !plan.avoided.contains_key(&avoided)
        });
        assert!(on(host) == 1 || empty.is_none(), "{id} on {host} while {empty:?} is empty");
    }

    /// A replica that the leader takes for ready leaves only when enough others are.
    fn check_removals(&self, plan: &Plan) {
        for service in self.wanted.system().services.values() {
            let ready = |plan: &Plan| {
                plan.of_service(&service.name)
                    .filter(|instance| instance.phase == InstancePhase::Serving)
                    .filter(|instance| self.controller.hosts().is_up(&instance.host, self.now))
                    .filter(|instance| {
                        let report = self.controller.hosts().report(&instance.host);
                        report.is_some_and(|report| report.is_ready(&instance.id))
                    })
                    .count()
            };
            let (before, after) = (ready(&self.stored), ready(plan));
            let mut wanted = usize::try_from(service.replicas).unwrap();
            // With a fixed port and no empty host, a deploy has to take one away first: of as many
            // as there are hosts that are not drained.
            if matches!(service.port, ServicePort::Fixed(_)) {
                let places = self.wanted.system().service_hosts();
                let drained = &self.wanted.drained;
                let places = places.filter(|host| !drained.contains(&host.name)).count();
                wanted = wanted.min(places).saturating_sub(1);
            }
            assert!(after >= before.min(wanted), "{}: {before} ready, {after} left", service.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heals_fully_and_then_rests(faults in prop::collection::vec(fault(), 0..30)) {
        let mut world = World::new(shop());
        world.ports_taken.clear();
        for fault in &faults {
            if !matches!(fault, Fault::TakePort(..)) {
                world.apply(fault);
            }
        }
        world.up = shop().hosts.keys().cloned().collect();
        world.apply(&Fault::Undrain);
        world.apply(&Fault::Apply("web3", 5));
        world.pass(400);
        let redundancy = world.controller.redundancy(world.now);
        prop_assert!(redundancy.is_full(), "{:?} in {:#?}", redundancy.missing, world.stored);
        let plans = world.plans;
        world.pass(120);
        prop_assert_eq!(world.plans, plans, "plans are made for ever");
    }

    #[test]
    fn rests_even_when_it_cannot_heal(
        faults in prop::collection::vec(fault(), 0..30),
        broken in prop::collection::btree_set((prop::bool::ANY, 0..6_usize), 0..8),
    ) {
        let mut world = World::new(shop());
        let service = |web| ServiceName::parse(if web { "web" } else { "job" }).unwrap();
        world.broken = broken.iter().map(|(web, host)| (service(*web), name(*host))).collect();
        for fault in &faults {
            world.apply(fault);
        }
        world.pass(360);
        let plans = world.plans;
        world.pass(240);
        prop_assert_eq!(world.plans, plans, "plans are made for ever: {:#?}", world.stored);
    }
}

#[test]
fn a_new_leader_takes_nobody_for_lost() {
    let mut world = World::new(shop());
    world.pass(40);
    let plan = world.stored.clone();
    world.apply(&Fault::NewLeader);
    world.controller.handle_timeout(world.now + Duration::from_millis(999));
    assert_eq!(world.controller.poll_action(), None);
    world.pass(40);
    assert_eq!(world.stored, plan);
}

/// It has heard nobody when it goes on, and one of the hosts is not there any more.
#[test]
fn a_leader_that_was_held_while_it_listened_listens_again() {
    let mut world = World::new(shop());
    world.up.remove(&name(4));
    world.now = Timestamp::ZERO + Duration::from_secs(3);
    let since = Timestamp::ZERO + Duration::from_millis(100);
    world.controller.handle_event(Event::Held(since), world.now);
    assert_eq!(world.controller.poll_action(), None);
    world.pass(8);
    assert!(world.plans > 0);
    assert_eq!(world.stored.on_host(&name(4)).count(), 0);
}

#[test]
fn a_failing_replica_is_tried_elsewhere_once() {
    let mut world = World::new(system::system(&HOSTS[..3], vec![system::service("job", 1)]));
    for host in 0..3 {
        world.broken.insert((ServiceName::parse("job").unwrap(), name(host)));
    }
    world.pass(400);
    assert_eq!(world.plans, 2, "placed, then tried on another host");
}

#[test]
fn a_host_that_others_reach_is_isolated() {
    let mut world = World::new(shop());
    world.pass(8);
    let lost = name(0);
    for reaching in [2, 3] {
        world.up = (1..6).map(name).collect();
        for tick in 0..8 {
            world.now = world.now + TICK;
            for (index, host) in world.up.clone().iter().enumerate() {
                let mut report = world.report(host);
                let answer = (index < reaching).then_some(TICK);
                report.reachable.insert(lost.clone(), answer);
                world.controller.handle_event(Event::Heartbeat(report), world.now);
                world.store();
            }
            assert!(tick < 4 || world.controller.hosts().state(&lost, world.now) != HostState::Up);
        }
        let expected = if reaching == 2 { HostState::Down } else { HostState::Isolated };
        assert_eq!(world.controller.hosts().state(&lost, world.now), expected);
    }
}

/// Counts the replicas of a service that run a command.
fn running(world: &World, service: &str, command: &str) -> usize {
    let runs = |id: &InstanceId| {
        let instance = world.stored.instance(id).unwrap();
        world.stored.definition(instance).unwrap().command == [command]
    };
    let name = ServiceName::parse(service).unwrap();
    let serving = world.stored.of_service(&name);
    serving
        .filter(|instance| instance.phase == InstancePhase::Serving && runs(&instance.id))
        .count()
}

#[test]
fn a_deploy_begins_with_a_canary_and_ends_with_all() {
    let mut world = World::new(shop());
    world.pass(40);
    world.apply(&Fault::Apply("web2", 5));
    assert_eq!((running(&world, "web", "web2"), running(&world, "web", "/bin/web")), (1, 5));
    // Ready after three ticks, proven a second later: until then nothing else is replaced.
    world.pass(6);
    assert_eq!((running(&world, "web", "web2"), running(&world, "web", "/bin/web")), (1, 5));
    world.pass(120);
    assert_eq!((running(&world, "web", "web2"), running(&world, "web", "/bin/web")), (5, 0));
    assert!(world.controller.redundancy(world.now).is_full());
    assert_eq!(world.stored.declarations.keys().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_deploy_that_fails_is_rolled_back_and_tried_again_when_applied_again() {
    let mut world = World::new(shop());
    world.pass(40);
    for round in 0..2 {
        world.apply(&Fault::Apply("bad", 5));
        assert_eq!(running(&world, "web", "bad"), 1, "round {round}");
        world.pass(80);
        assert_eq!((running(&world, "web", "bad"), running(&world, "web", "/bin/web")), (0, 5));
        let missing = world.controller.redundancy(world.now).missing;
        assert!(missing.iter().any(|text| text.contains("rolled back")), "{missing:?}");
    }
    world.apply(&Fault::Apply("/bin/web", 5));
    world.pass(200);
    let missing = world.controller.redundancy(world.now).missing;
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn a_drained_host_is_left_once_others_are_ready() {
    let mut world = World::new(shop());
    world.pass(40);
    let host = name(0);
    assert!(world.stored.on_host(&host).count() > 0);
    world.apply(&Fault::Drain(0));
    world.pass(80);
    assert_eq!(world.stored.on_host(&host).count(), 0);
    assert!(world.controller.redundancy(world.now).is_full());
    world.apply(&Fault::Undrain);
    world.pass(120);
    assert!(world.stored.on_host(&host).count() > 0, "nothing came back");
}

#[test]
fn a_removed_service_leaves_after_its_routes() {
    let mut world = World::new(shop());
    world.pass(40);
    let mut system = shop();
    system.services.remove(&ServiceName::parse("job").unwrap());
    world.wanted = Wanted::new(2, "", system);
    world.tell_wanted();
    let job = ServiceName::parse("job").unwrap();
    assert_eq!((world.stored.revision, world.stored.of_service(&job).count()), (2, 2));
    world.pass(80);
    assert_eq!(world.stored.of_service(&job).count(), 0);
    assert!(world.controller.redundancy(world.now).is_full());
}

#[test]
fn a_new_route_waits_for_its_service() {
    let mut world = World::new(shop());
    world.pass(40);
    let mut system = shop();
    let extra = system::service("extra", 2);
    let route = Route {
        host: None,
        path: "/".to_owned(),
        to: extra.name.clone(),
        body_max: 0,
        timeout: TICK,
        tries_max: 1,
    };
    let name = GatewayName::parse("public").unwrap();
    let gateway = Gateway { name: name.clone(), address: None, port: 80, routes: vec![route] };
    system.gateways.insert(name, gateway);
    system.services.insert(extra.name.clone(), extra);
    world.wanted = Wanted::new(2, "", system);
    world.tell_wanted();
    // Ready after three ticks.
    world.pass(2);
    assert_eq!((running(&world, "extra", "/bin/extra"), world.stored.revision), (2, 1));
    assert!(!world.controller.redundancy(world.now).is_full());
    world.pass(20);
    assert_eq!(world.stored.revision, 2);
    assert!(world.controller.redundancy(world.now).is_full());
}
