//! A large system without storm: what its control plane says, and how soon it reacts when a region
//! is lost.
//!
//! The leader is the real controller; hosts are modelled by what they report and when. The store
//! takes a plan after a fixed time: how it does that is the business of the other worlds.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_control::controller::{Action, Controller, Event, Settings};
use evenkeel_control::declaration::Wanted;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::HostReport;
use evenkeel_model::instance::{Instance, InstanceId};
use evenkeel_model::name::{HostName, NameError, RegionName, SystemName, ZoneName};
use evenkeel_model::place::{Host, HostRole, SurvivalGoal};
use evenkeel_model::service::ServicePort;
use evenkeel_model::system::{Ports, System};
use evenkeel_model::time::Timestamp;

use crate::agenda::Agenda;
use crate::service::service;

/// Replicas of each service.
const REPLICAS_EACH: u32 = 10;

/// Time between two reports of a host, between two at least when something changed, and between
/// two probes of every other host, as in the product.
const HEARTBEAT: Duration = Duration::from_millis(250);
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const PROBE: Duration = Duration::from_millis(500);

/// Length of a probe's packet with its headers, in bytes.
const PROBE_BYTES: u64 = 60;

/// One way between any two hosts; the time to store a plan; from a plan to a replica that is ready.
const WAY: Duration = Duration::from_millis(10);
const STORE: Duration = Duration::from_millis(40);
const START: Duration = Duration::from_millis(500);

/// Time between two looks at how far things are.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// When what is counted begins, when the region is lost, and when everything ends.
const COUNTED_FROM: Duration = Duration::from_secs(20);
const LOST_AT: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(60);

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Hosts and replicas of the system.
    pub hosts: usize,
    /// Replicas of the system.
    pub replicas: usize,
    /// Reports to the leader a second, at rest, and their bytes with those of the answers.
    pub reports: u64,
    /// Bytes of reports a second.
    pub report_bytes: u64,
    /// Bytes of answers a second.
    pub answer_bytes: u64,
    /// Probes and their answers a second, and their bytes.
    pub probes: u64,
    /// Bytes of probes a second.
    pub probe_bytes: u64,
    /// From the first boot to every replica ready.
    pub first_whole: Duration,
    /// Replicas that the lost region had.
    pub lost: usize,
    /// From the loss to the moment at which no host of the region counts as up.
    pub detected: Duration,
    /// From the loss to the first plan that replaces all of them.
    pub planned: Duration,
    /// From the loss to all replicas ready elsewhere.
    pub whole: Duration,
    /// Plans made over the whole run.
    pub plans: u64,
}

/// Makes a system of three regions with four zones each, and services of ten replicas.
///
/// # Errors
///
/// If a name is bad.
pub fn system(hosts: usize, replicas: usize) -> Result<System, NameError> {
    let regions = ["ams", "fra", "waw"];
    let mut all = BTreeMap::new();
    for index in 0..hosts {
        let region = regions[index % regions.len()];
        let name = HostName::parse(&format!("{region}-{index}"))?;
        let zone = ["a", "b", "c", "d"][(index / regions.len()) % 4];
        let [_, high, middle, low] = u32::try_from(index).unwrap_or(0).to_be_bytes();
        let host = Host {
            name: name.clone(),
            region: RegionName::parse(region)?,
            zone: ZoneName::parse(zone)?,
            address: [10, high, middle, low].into(),
            role: HostRole::Full,
        };
        all.insert(name, host);
    }
    let count = replicas / usize::try_from(REPLICAS_EACH).unwrap_or(1);
    let services = (0..count)
        .map(|index| service(&format!("service-{index}"), REPLICAS_EACH, ServicePort::FromRange));
    let services = services.map(|made| made.map(|made| (made.name.clone(), made)));
    Ok(System {
        name: SystemName::parse("large")?,
        goal: SurvivalGoal::Region,
        regions: regions.into_iter().map(RegionName::parse).collect::<Result<_, _>>()?,
        hosts: all,
        services: services.collect::<Result<_, _>>()?,
        gateways: BTreeMap::new(),
        ports: Ports {
            peer: 7400,
            api: 7401,
            kv: 7402,
            gateway_admin: 7403,
            relay: 7404,
            replicas: 20_000..=29_999,
        },
        voters: Vec::new(),
        learners: Vec::new(),
        replace_after: evenkeel_model::voting::REPLACE_AFTER,
    })
}

/// Something that happens.
enum Happening {
    Report { host: usize },
    Arrive { report: Box<HostReport> },
    Answer { host: usize, plan: Option<Rc<Newest>> },
    Ready { host: usize },
    Stored { number: u64 },
}

/// The newest plan, with what it wants of each host.
struct Newest {
    number: u64,
    by_host: BTreeMap<HostName, Vec<Instance>>,
    bytes: u64,
}

/// A modelled host.
struct Modelled {
    plan: u64,
    /// What it runs, and since when each is ready.
    runs: BTreeMap<InstanceId, (Instance, Timestamp)>,
    sequence: u64,
}

struct Run {
    names: Vec<HostName>,
    hosts: Vec<Modelled>,
    regions: Vec<usize>,
    /// How long what a report says of other hosts is, and what an answer does, in bytes.
    reachable_bytes: u64,
    states_bytes: u64,
    controller: Controller,
    newest: Rc<Newest>,
    looked_at: Timestamp,
    agenda: Agenda<Happening>,
    now: Timestamp,
    figures: Figures,
    lost: bool,
}

/// Runs a large system until it has got over the loss of a region.
///
/// # Errors
///
/// If a name is bad.
pub fn run(hosts: usize, replicas: usize) -> Result<Figures, NameError> {
    let system = system(hosts, replicas)?;
    let names: Vec<HostName> = system.hosts.keys().cloned().collect();
    let region = |name: &HostName| {
        let host = system.hosts.get(name);
        host.and_then(|host| system.regions.iter().position(|region| *region == host.region))
    };
    let modelled = || Modelled { plan: 0, runs: BTreeMap::new(), sequence: 0 };
    let mut run = Run {
        regions: names.iter().map(|name| region(name).unwrap_or(0)).collect(),
        hosts: names.iter().map(|_| modelled()).collect(),
        reachable_bytes: names.iter().map(|name| length(name.as_str()) + 9).sum(),
        states_bytes: names.iter().map(|name| length(name.as_str()) + 8).sum(),
        newest: Rc::new(Newest { number: 0, by_host: BTreeMap::new(), bytes: 0 }),
        looked_at: Timestamp::ZERO,
        controller: Controller::new(
            Wanted::new(1, "large", system),
            Settings::STANDARD,
            1,
            None,
            Timestamp::ZERO,
        ),
        names,
        agenda: Agenda::new(),
        now: Timestamp::ZERO,
        figures: Figures { hosts, replicas, ..Figures::default() },
        lost: false,
    };
    run.unfold();
    Ok(run.figures)
}

impl Run {
    fn unfold(&mut self) {
        let count = u64::try_from(self.hosts.len()).unwrap_or(u64::MAX);
        for host in 0..self.hosts.len() {
            let share = u32::try_from(host).unwrap_or(0);
            let wait = HEARTBEAT * share / u32::try_from(count).unwrap_or(1).max(1);
            self.agenda.plan(Timestamp::ZERO + wait, Happening::Report { host });
        }
        let pairs = count * count.saturating_sub(1);
        self.figures.probes = pairs * 2 * 1000 / millis(PROBE);
        self.figures.probe_bytes = self.figures.probes * PROBE_BYTES;
        self.run_until(Timestamp::ZERO + LOST_AT);
        let held =
            |run: &Self, host: &usize| run.regions[*host] == 2 && !run.hosts[*host].runs.is_empty();
        let lost = (0..self.hosts.len()).filter(|host| held(self, host));
        self.figures.lost = lost.map(|host| self.hosts[host].runs.len()).sum();
        self.lost = true;
        self.run_until(Timestamp::ZERO + END);
        let seconds = (LOST_AT.saturating_sub(COUNTED_FROM)).as_secs().max(1);
        self.figures.reports /= seconds;
        self.figures.report_bytes /= seconds;
        self.figures.answer_bytes /= seconds;
    }

    fn run_until(&mut self, end: Timestamp) {
        loop {
            let timeout = self.controller.poll_timeout().filter(|at| *at <= end);
            let until = timeout.map_or(end, |at| at.max(self.now));
            match self.agenda.next(until) {
                Some((at, happening)) => {
                    self.now = at;
                    self.happen(happening);
                }
                None if timeout.is_some() => {
                    self.now = until;
                    self.controller.handle_timeout(self.now);
                }
                None => break,
            }
            while let Some(Action::StorePlan(plan)) = self.controller.poll_action() {
                self.figures.plans += 1;
                let happening = Happening::Stored { number: plan.number };
                self.agenda.plan(self.now + STORE, happening);
            }
            self.note_progress();
        }
        self.now = end;
    }

    fn is_gone(&self, host: usize) -> bool {
        self.lost && self.regions[host] == 2
    }

    fn is_counted(&self) -> bool {
        let passed = self.now.since(Timestamp::ZERO);
        passed >= COUNTED_FROM && passed < LOST_AT
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Report { host } if !self.is_gone(host) => {
                self.send(host);
                self.agenda.plan(self.now + HEARTBEAT, Happening::Report { host });
            }
            Happening::Arrive { report } => self.take(*report),
            Happening::Answer { host, plan } if !self.is_gone(host) => {
                if let Some(plan) = plan {
                    self.follow(host, &plan);
                }
            }
            Happening::Ready { host } if !self.is_gone(host) => self.send(host),
            Happening::Stored { number } => {
                self.controller.handle_event(Event::PlanStored(number), self.now);
            }
            Happening::Report { .. } | Happening::Answer { .. } | Happening::Ready { .. } => {}
        }
    }

    fn send(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        state.sequence += 1;
        let ready = state.runs.values().filter(|(_, at)| *at <= self.now);
        let ready = ready.map(|(instance, _)| instance);
        let (name, sequence) = (&self.names[host], state.sequence);
        // Who reaches whom changes nothing here, and takes long to copy.
        let report = HostReport { sequence, ..HostReport::all_well(name, state.plan, ready) };
        if self.is_counted() {
            self.figures.reports += 1;
            self.figures.report_bytes += report_bytes(&report) + self.reachable_bytes;
        }
        self.agenda.plan(self.now + WAY, Happening::Arrive { report: Box::new(report) });
    }

    fn take(&mut self, report: HostReport) {
        let plan_number = report.plan_number;
        let host = self.names.binary_search(&report.host).unwrap_or(0);
        self.controller.handle_event(Event::Heartbeat(report), self.now);
        let newer = self.controller.plan().number > plan_number;
        let plan = newer.then(|| self.newest());
        if self.is_counted() {
            let plan = plan.as_ref().map_or(0, |plan| plan.bytes);
            self.figures.answer_bytes += 80 + self.states_bytes + plan;
        }
        self.agenda.plan(self.now + WAY, Happening::Answer { host, plan });
    }

    /// Returns the stored plan, sorted by host once for all of them.
    fn newest(&mut self) -> Rc<Newest> {
        let plan = self.controller.plan();
        if plan.number != self.newest.number {
            let mut by_host: BTreeMap<HostName, Vec<Instance>> = BTreeMap::new();
            for instance in &plan.instances {
                by_host.entry(instance.host.clone()).or_default().push(instance.clone());
            }
            let bytes = plan.instances.iter().map(|instance| {
                length(&instance.id.to_string()) + length(instance.host.as_str()) + 50
            });
            let (number, bytes) = (plan.number, bytes.sum());
            self.newest = Rc::new(Newest { number, by_host, bytes });
        }
        Rc::clone(&self.newest)
    }

    fn follow(&mut self, host: usize, plan: &Newest) {
        let state = &mut self.hosts[host];
        if plan.number <= state.plan {
            return;
        }
        state.plan = plan.number;
        let ready_at = self.now + START;
        let before = std::mem::take(&mut state.runs);
        for instance in plan.by_host.get(&self.names[host]).into_iter().flatten() {
            let since = before.get(&instance.id).map_or(ready_at, |(_, since)| *since);
            state.runs.insert(instance.id.clone(), (instance.clone(), since));
        }
        self.agenda.plan(self.now + HEARTBEAT_MIN, Happening::Ready { host });
        self.agenda.plan(ready_at, Happening::Ready { host });
    }

    /// Notes when something was reached for the first time.
    fn note_progress(&mut self) {
        if self.now < self.looked_at + LOOK_EVERY {
            return;
        }
        self.looked_at = self.now;
        let passed = self.now.since(Timestamp::ZERO);
        let whole = |run: &Self| {
            let up = run.controller.answer_for(u64::MAX, run.now);
            let other = |text: &String| {
                text.starts_with("host ") || text.ends_with("not where they belong")
            };
            up.missing.iter().all(other)
        };
        if !self.lost {
            if self.figures.first_whole.is_zero() && self.figures.plans > 0 && whole(self) {
                self.figures.first_whole = passed;
            }
            return;
        }
        let since = passed.saturating_sub(LOST_AT);
        if self.figures.detected.is_zero() {
            let gone = (0..self.names.len()).filter(|host| self.regions[*host] == 2);
            let hosts = self.controller.hosts();
            if gone.into_iter().all(|host| !hosts.is_up(&self.names[host], self.now)) {
                self.figures.detected = since;
            }
            return;
        }
        let plan = self.controller.plan();
        if self.figures.planned.is_zero() && self.replaces_all(plan) {
            self.figures.planned = since;
        }
        if self.figures.whole.is_zero() && !self.figures.planned.is_zero() && whole(self) {
            self.figures.whole = since;
        }
    }

    /// Returns whether a plan has as many replicas outside of the lost region as are wanted.
    fn replaces_all(&self, plan: &Plan) -> bool {
        let here = plan.instances.iter().filter(|instance| {
            self.names.binary_search(&instance.host).is_ok_and(|host| self.regions[host] != 2)
        });
        here.count() >= self.figures.replicas
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// Returns about how long a report is as JSON.
fn report_bytes(report: &HostReport) -> u64 {
    let instances = report.instances.iter().map(|instance| length(&instance.id.to_string()) + 85);
    130 + instances.sum::<u64>()
}
