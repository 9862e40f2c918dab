//! The world of the control loop: hosts with their processes and disks, the network between them,
//! and a store that holds the plan.
//!
//! The store is as simple as can be: one register with a leader. How the real one becomes that is
//! the business of the consensus world. A run has three parts: a storm in which hosts, processes,
//! links, disks and leaders fail; healing, after which full redundancy must return in time; and a
//! calm in which leaders change and nothing else may.

mod faults;
mod host;
mod invariants;
mod store;
mod systems;

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_control::plan::Plan;
use evenkeel_control::report::{HostReport, LeaderAnswer};
use evenkeel_model::name::HostName;
use evenkeel_model::random::Rng;
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::event::Event;
use evenkeel_node_core::process::{ProcessId, ProcessSpec};
use evenkeel_supervisor_core::status::ExitStatus;

use crate::failure::Failure;
use crate::transcript::Transcript;
use faults::{Fault, Weather};
use host::Host;
use store::Store;

/// The name of this world on the command line.
pub const NAME: &str = "control";

/// How long things break.
const STORM: Duration = Duration::from_secs(30);

/// How soon after healing the leader must report full redundancy.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// How long what is left over then has to go: drained replicas, late messages.
const SETTLING: Duration = Duration::from_secs(30);

/// How often the leader changes in the calm, and the time between two changes.
const CALM_ELECTIONS: u32 = 3;
const CALM_TERM: Duration = Duration::from_secs(5);

/// Time between two looks at who leads.
const ROLE_TICK: Duration = Duration::from_millis(50);

/// A bug that a run must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Hosts follow every plan that they receive, also one with a lower number.
    PlanNumberIgnored,
    /// A new leader takes every host for lost until it hears it.
    LeasesNotExtended,
}

impl Defect {
    /// Every defect.
    pub const ALL: [Self; 2] = [Self::PlanNumberIgnored, Self::LeasesNotExtended];
}

/// What may differ between runs of the same seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How many hosts, 2–30; drawn from the seed if not given.
    pub hosts: Option<usize>,
    /// A bug that all hosts have.
    pub defect: Option<Defect>,
}

/// What a run without a failure came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Differs whenever anything in two runs differed.
    pub digest: u64,
    /// How many plans were stored.
    pub plans: u64,
    /// How many terms had a leader.
    pub terms: u64,
    /// How many faults struck.
    pub faults: u64,
    /// From healing to full redundancy.
    pub recovery: Duration,
}

/// Runs a seed; once more, in words, if it fails.
///
/// # Errors
///
/// If something happened that must never happen.
pub fn run(seed: u64, options: Options) -> Result<Report, Box<Failure>> {
    match World::new(seed, options, Transcript::new(false)).run() {
        Ok(report) => Ok(report),
        Err(_) => match World::new(seed, options, Transcript::new(true)).run() {
            Err(failure) => Err(failure),
            Ok(_) => unreachable!("a seed replays its run exactly"),
        },
    }
}

/// Something that happens at some time. A `life` is one of a host's node process, a `power` one of
/// the host itself: what was meant for an earlier one is lost.
#[derive(Debug)]
enum Happening {
    /// A machine asked to be woken.
    Wake { host: usize, life: u64 },
    /// A host's machine is told something.
    Tell { host: usize, life: u64, event: Event },
    /// A report reaches a host.
    Heartbeat { from: usize, to: usize, life: u64, report: HostReport },
    /// A host's answer reaches the host that reported.
    Answer { to: usize, life: u64, answer: Option<LeaderAnswer> },
    /// A plan reaches the store.
    Store { host: usize, life: u64, term: u64, plan: Plan },
    /// A plan is durable on a host's disk.
    Saved { host: usize, power: u64, life: u64, plan: Plan },
    /// A shim has tried to start a process.
    Start { host: usize, power: u64, spec: ProcessSpec },
    /// A process ends.
    Exit { host: usize, power: u64, id: ProcessId, pid: u32, status: ExitStatus },
    /// A node process starts, on a host that may have been without power.
    Boot { host: usize },
    /// Time to look at who leads.
    RoleTick,
    /// Time for the next fault.
    Break,
    /// The end of a fault.
    Mend(Fault),
}

/// Everything.
#[derive(Debug)]
struct World {
    seed: u64,
    options: Options,
    system: System,
    names: Vec<HostName>,
    hosts: Vec<Host>,
    store: Store,
    weather: Weather,
    rng: Rng,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    queued: u64,
    pids: u32,
    storming: bool,
    /// The last fault, or the last mending.
    disturbed_at: Timestamp,
    faults: u64,
    violation: Option<String>,
    transcript: Transcript,
}

impl World {
    fn new(seed: u64, options: Options, transcript: Transcript) -> Self {
        let mut rng = Rng::from_seed(seed);
        let system = systems::draw(options.hosts, &mut rng);
        let names: Vec<HostName> = system.hosts.keys().cloned().collect();
        let now = Timestamp::ZERO;
        let mut world = Self {
            seed,
            options,
            hosts: names.iter().map(|_| Host::default()).collect(),
            names,
            system,
            store: Store::default(),
            weather: Weather::draw(&mut rng),
            rng,
            now,
            queue: BTreeMap::new(),
            queued: 0,
            pids: 1000,
            storming: true,
            disturbed_at: now,
            faults: 0,
            violation: None,
            transcript,
        };
        for host in 0..world.hosts.len() {
            let wait = world.draw_millis(0, 1500);
            world.after(wait, Happening::Boot { host });
        }
        world.after(Duration::ZERO, Happening::RoleTick);
        let wait = world.draw_millis(2000, 5000);
        world.after(wait, Happening::Break);
        world
    }

    fn run(mut self) -> Result<Report, Box<Failure>> {
        self.run_until(Timestamp::ZERO + STORM)?;
        self.heal();
        let healed_at = self.now;
        while !self.is_whole() {
            if self.now > healed_at + RECOVERY_MAX {
                let missing = self.missing();
                self.violation =
                    Some(format!("no full redundancy {RECOVERY_MAX:?} after healing: {missing}"));
            }
            self.run_until(self.now + Duration::from_millis(100))?;
        }
        let recovery = self.now.since(healed_at);
        self.run_until(self.now + SETTLING)?;
        let plan = self.store.plan.clone();
        for _ in 0..CALM_ELECTIONS {
            self.depose();
            self.run_until(self.now + CALM_TERM)?;
        }
        if self.store.plan != plan {
            self.violation = Some("a change of leader alone made a new plan".to_owned());
            self.run_until(self.now)?;
        }
        Ok(Report {
            digest: self.transcript.digest(),
            plans: self.store.plans,
            terms: self.store.term,
            faults: self.faults,
            recovery,
        })
    }

    /// Lets everything happen that is due until `end`, or until something must not have happened.
    fn run_until(&mut self, end: Timestamp) -> Result<(), Box<Failure>> {
        while self.violation.is_none() {
            let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else {
                break;
            };
            let ((at, number), happening) = entry.remove_entry();
            self.now = at;
            self.transcript.digest_number(at.as_nanos() ^ number);
            self.happen(happening);
        }
        let Some(violation) = self.violation.take() else {
            self.now = self.now.max(end);
            return Ok(());
        };
        let mut arguments = String::new();
        if let Some(hosts) = self.options.hosts {
            arguments.push_str(&format!(" --hosts {hosts}"));
        }
        if let Some(defect) = self.options.defect {
            arguments.push_str(&format!(" --defect {defect:?}"));
        }
        let transcript = std::mem::replace(&mut self.transcript, Transcript::new(false));
        Err(Box::new(Failure {
            world: NAME,
            seed: self.seed,
            arguments,
            at: self.now,
            violation,
            transcript: transcript.into_lines(),
        }))
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { host, life } => {
                if self.hosts[host].life == life {
                    self.hosts[host].wake_at = None;
                    self.touch(host, |core, now| core.handle_timeout(now));
                }
            }
            Happening::Tell { host, life, event } => {
                if self.hosts[host].life == life {
                    self.touch(host, |core, now| core.handle_event(event, now));
                }
            }
            Happening::Heartbeat { from, to, life, report } => {
                self.take_heartbeat(from, to, life, report);
            }
            Happening::Answer { to, life, answer } => {
                let event = match answer {
                    Some(answer) => Event::HeartbeatAnswered { answer },
                    None => Event::HeartbeatFailed { reason: "does not lead".to_owned() },
                };
                self.happen(Happening::Tell { host: to, life, event });
            }
            Happening::Store { host, life, term, plan } => self.take_plan(host, life, term, plan),
            Happening::Saved { host, power, life, plan } => {
                if self.hosts[host].power == power {
                    let number = plan.number;
                    self.hosts[host].plan = Some(plan);
                    let event = Event::PlanSaved { number };
                    self.happen(Happening::Tell { host, life, event });
                }
            }
            Happening::Start { host, power, spec } => {
                if self.hosts[host].power == power {
                    self.start_process(host, &spec);
                }
            }
            Happening::Exit { host, power, id, pid, status } => {
                if self.hosts[host].power == power {
                    self.end_process(host, &id, pid, status);
                }
            }
            Happening::Boot { host } => self.boot(host),
            Happening::RoleTick => self.look_at_roles(),
            Happening::Break => self.break_something(),
            Happening::Mend(fault) => self.mend(fault),
        }
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((self.now + wait, self.queued), happening);
    }

    fn draw_millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(least * 1000 + self.rng.below((most - least) * 1000 + 1))
    }

    /// Tells a host's machine something after a short while.
    fn tell_soon(&mut self, host: usize, event: Event) {
        let life = self.hosts[host].life;
        let wait = self.draw_millis(0, 5);
        self.after(wait, Happening::Tell { host, life, event });
    }

    fn violate(&mut self, violation: String) {
        self.violation.get_or_insert(violation);
    }

    fn index(&self, name: &HostName) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or(0)
    }
}
