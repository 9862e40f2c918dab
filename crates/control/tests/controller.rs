//! Drives the leader's machine through random losses, refusals and new leaders, with the simplest
//! possible hosts, and checks every plan it makes.

#![allow(clippy::unwrap_used, reason = "a test that fails loudly is what is wanted")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_control::controller::{Action, Controller, Event, Settings};
use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::{HostReport, InstanceReport, InstanceState};
use evenkeel_model::instance::{InstanceId, InstancePhase};
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::place::HostRole;
use evenkeel_model::service::{Service, ServicePort};
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
    Pass(u8),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => (0..6_usize).prop_map(Fault::Lose),
        2 => (0..6_usize).prop_map(Fault::Return),
        1 => ((0..6_usize), (20000..20010_u16)).prop_map(|(host, port)| Fault::TakePort(host, port)),
        1 => Just(Fault::NewLeader),
        1 => Just(Fault::Refuse),
        6 => (0..40_u8).prop_map(Fault::Pass),
    ]
}

struct World {
    controller: Controller,
    now: Timestamp,
    term: u64,
    sequence: u64,
    system: System,
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
            controller: Controller::new(system.clone(), Settings::STANDARD, 1, None, now),
            system,
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
                    Controller::new(self.system.clone(), settings, self.term, stored, self.now);
            }
            Fault::Refuse => self.refuse = true,
            Fault::Pass(ticks) => self.pass(u32::from(*ticks)),
        }
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
            let broken = taken.contains(&instance.port)
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
            assert_eq!(self.system.hosts[&instance.host].role, HostRole::Full);
            let Some(before) = self.stored.instance(&instance.id) else {
                assert!(self.serials.insert(instance.id.serial), "a serial was used again");
                self.check_spread(plan, &instance.id, &instance.host);
                continue;
            };
            assert_eq!((&before.host, before.port), (&instance.host, instance.port));
            let undrained = before.phase == InstancePhase::Draining;
            assert!(!undrained || instance.phase == InstancePhase::Draining, "drained and back");
        }
        self.check_removals(plan);
    }

    /// A new replica does not stand beside another one while a host that could take it is empty.
    fn check_spread(&self, plan: &Plan, id: &InstanceId, host: &HostName) {
        let on = |host: &HostName| {
            plan.on_host(host)
                .filter(|other| {
                    other.id.service == id.service && other.phase == InstancePhase::Serving
                })
                .count()
        };
        let empty = self.up.iter().find(|other| {
            let avoided = (id.service.clone(), (*other).clone());
            self.system.hosts[*other].role == HostRole::Full
                && self.controller.hosts().state(other, self.now) == HostState::Up
                && on(other) == 0
                && !plan.avoided.contains_key(&avoided)
        });
        assert!(on(host) == 1 || empty.is_none(), "{id} on {host} while {empty:?} is empty");
    }

    /// A replica that the leader takes for ready leaves only when enough others are.
    fn check_removals(&self, plan: &Plan) {
        for service in self.system.services.values() {
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
            let wanted = usize::try_from(service.replicas).unwrap();
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
        world.pass(160);
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
