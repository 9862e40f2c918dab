//! The world of a whole system: every host with the real cores, wired as in production.
//!
//! A voter runs the coordinator's member, whose log holds the plan and the users' keys; every node
//! process runs the host's loop; every gateway process runs the balancer; services run behind
//! shims and use the key-value API through the gateway of their host. Between them are the queues,
//! connections and disks of a real host, modelled. Each unit fails by itself: node process,
//! gateway, replica, shim, host, link, disk.
//!
//! A run has three parts: a storm in which everything fails; healing, after which every client
//! must be served and full redundancy return in time; and a calm in which leaders change and
//! nothing else may.

mod act;
mod calls;
mod effort;
mod exchange;
mod faults;
mod follow;
mod gate;
mod happening;
mod host;
mod invariants;
mod links;
mod office;
mod plan_text;
mod processes;
mod run;
mod systems;
mod users;
mod voter;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_consensus::settings::MemberId;
use evenkeel_control::controller;
use evenkeel_control::declaration::Declaration;
use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::policy;
use evenkeel_model::name::HostName;
use evenkeel_model::random::Rng;
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use evenkeel_model::voting::deal_voters;
use evenkeel_node_core::settings as node;

use crate::agenda::Agenda;
use crate::agreement::Invariants;
use crate::clients::Client;
use crate::failure::{Failure, replayed};
use crate::holders::Holder;
use crate::transcript::Transcript;
use calls::Call;
use faults::Habits;
use happening::Happening;
use host::Host;
use links::Links;

/// The name of this world on the command line.
pub const NAME: &str = "system";

/// How many clients send requests through gateways.
const CLIENTS: usize = 3;

/// How many clients want a lease and one key.
const HOLDERS: usize = 2;

/// A bug that a run must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Hosts follow every plan that they receive, also one with a lower number.
    PlanNumberIgnored,
    /// A new leader takes every host for lost until it hears it.
    HostLeasesNotExtended,
    /// A new leader plans before it has heard the hosts.
    PlansBeforeObserving,
    /// A host writes the routes of a plan that is not on its disk yet.
    RoutesBeforePlan,
    /// A host takes endpoints off its routes when the leader says that their hosts are not up.
    RoutesFromOpinion,
    /// A node process starts what an earlier one has left running.
    AdoptsNothing,
    /// A gateway repeats every request, also one that must not be done twice.
    RepeatsEverything,
    /// A gateway gives a request up as soon as one endpoint cannot be reached.
    GivesUpAtOnce,
    /// A gateway passes a refusal on as the whole truth, also after a try that got no answer.
    ForgetsLostTries,
}

impl Defect {
    /// Every defect.
    pub const ALL: [Self; 9] = [
        Self::PlanNumberIgnored,
        Self::HostLeasesNotExtended,
        Self::PlansBeforeObserving,
        Self::RoutesBeforePlan,
        Self::RoutesFromOpinion,
        Self::AdoptsNothing,
        Self::RepeatsEverything,
        Self::GivesUpAtOnce,
        Self::ForgetsLostTries,
    ];

    const fn of_node(self) -> Option<node::Defect> {
        match self {
            Self::PlanNumberIgnored => Some(node::Defect::PlanNumberIgnored),
            Self::RoutesBeforePlan => Some(node::Defect::RoutesBeforePlan),
            Self::RoutesFromOpinion => Some(node::Defect::RoutesFromOpinion),
            Self::AdoptsNothing => Some(node::Defect::AdoptsNothing),
            Self::HostLeasesNotExtended
            | Self::PlansBeforeObserving
            | Self::RepeatsEverything
            | Self::GivesUpAtOnce
            | Self::ForgetsLostTries => None,
        }
    }

    const fn of_control(self) -> Option<controller::Defect> {
        match self {
            Self::HostLeasesNotExtended => Some(controller::Defect::LeasesNotExtended),
            Self::PlansBeforeObserving => Some(controller::Defect::PlansBeforeObserving),
            Self::PlanNumberIgnored
            | Self::RoutesBeforePlan
            | Self::RoutesFromOpinion
            | Self::AdoptsNothing
            | Self::RepeatsEverything
            | Self::GivesUpAtOnce
            | Self::ForgetsLostTries => None,
        }
    }

    const fn of_gateway(self) -> Option<policy::Defect> {
        match self {
            Self::RepeatsEverything => Some(policy::Defect::RepeatsEverything),
            Self::GivesUpAtOnce => Some(policy::Defect::GivesUpAtOnce),
            Self::ForgetsLostTries => Some(policy::Defect::ForgetsLostTries),
            Self::PlanNumberIgnored
            | Self::HostLeasesNotExtended
            | Self::PlansBeforeObserving
            | Self::RoutesBeforePlan
            | Self::RoutesFromOpinion
            | Self::AdoptsNothing => None,
        }
    }
}

/// What may differ between runs of the same seed.
pub type Options = crate::options::Options<Defect>;

/// What a run without a failure came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Differs whenever anything in two runs differed.
    pub digest: u64,
    /// How many operations the clients finished, and how many were acknowledged.
    pub operations: usize,
    /// How many of them were acknowledged.
    pub acknowledged: usize,
    /// How many plans were stored.
    pub plans: usize,
    /// How many terms had a leader.
    pub terms: usize,
    /// How many faults struck.
    pub faults: u64,
    /// How many requests gateways answered themselves, because no endpoint did.
    pub problems: u64,
    /// How many times somebody got the key that all want.
    pub holds: usize,
    /// From healing to full redundancy.
    pub recovery: Duration,
}

/// Runs a seed; once more, in words, if it fails.
///
/// # Errors
///
/// If something happened that must never happen.
pub fn run(seed: u64, options: Options) -> Result<Report, Box<Failure>> {
    replayed(|transcript| World::new(seed, options, transcript).run())
}

/// Everything.
#[derive(Debug)]
struct World {
    seed: u64,
    options: Options,
    system: System,
    /// The system file that all hosts start with.
    declaration: Declaration,
    names: Vec<HostName>,
    voters: Vec<usize>,
    /// How often a leader of the coordinator is heard, and how long a voter waits for it.
    heartbeat: Duration,
    election_min: Duration,
    hosts: Vec<Host>,
    links: Links,
    habits: Habits,
    clients: Vec<Client>,
    /// They are numbered behind the clients.
    holders: Vec<Holder>,
    calls: BTreeMap<u64, Call>,
    rng: Rng,
    now: Timestamp,
    agenda: Agenda<Happening>,
    /// Counts whatever needs a number.
    numbers: u64,
    pids: u32,
    storming: bool,
    /// Whether clients begin nothing new.
    closed: bool,
    /// The last fault, or the last mending.
    disturbed_at: Timestamp,
    /// Every plan that was stored, by number.
    plans: BTreeMap<u64, Plan>,
    invariants: Invariants,
    faults: u64,
    problems: u64,
    holds: usize,
    violation: Option<String>,
    transcript: Transcript,
}

impl World {
    fn new(seed: u64, options: Options, transcript: Transcript) -> Self {
        let mut rng = Rng::from_seed(seed);
        let system = systems::draw(options.hosts, &mut rng);
        let names: Vec<HostName> = system.hosts.keys().cloned().collect();
        let dealt = deal_voters(&system);
        let voters = (0..names.len()).filter(|host| dealt.contains(&names[*host])).collect();
        let links = Links::draw(&system, &mut rng);
        let habits = Habits::draw(&mut rng);
        let round_trip = links.farthest() * 2;
        let heartbeat = Duration::from_millis(50).max(round_trip);
        let count = names.len();
        let declared = Arc::new(system.clone());
        let declaration = Declaration { revision: 1, text: "shop".into(), system: declared };
        let mut world = Self {
            seed,
            options,
            hosts: Vec::new(),
            names,
            voters,
            heartbeat,
            election_min: (heartbeat * 5).max(round_trip * 10),
            system,
            declaration,
            links,
            habits,
            clients: (0..CLIENTS).map(|number| Client::new(number, count)).collect(),
            holders: (0..HOLDERS).map(|number| Holder::new(number, count)).collect(),
            calls: BTreeMap::new(),
            rng,
            now: Timestamp::ZERO,
            agenda: Agenda::new(),
            numbers: 0,
            pids: 1000,
            storming: true,
            closed: false,
            disturbed_at: Timestamp::ZERO,
            plans: BTreeMap::new(),
            invariants: Invariants::default(),
            faults: 0,
            problems: 0,
            holds: 0,
            violation: None,
            transcript,
        };
        world.hosts = (0..count).map(|host| world.new_host(host)).collect();
        world
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.agenda.plan(self.now + wait, happening);
    }

    fn draw_millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(least * 1000 + self.rng.below((most - least) * 1000 + 1))
    }

    const fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn violate(&mut self, violation: String) {
        self.violation.get_or_insert(violation);
    }

    fn index(&self, name: &HostName) -> Option<usize> {
        self.names.binary_search(name).ok()
    }

    fn is_voter(&self, host: usize) -> bool {
        self.voters.contains(&host)
    }
}

/// Returns the identity of the voter on a host.
const fn member_of(host: usize) -> MemberId {
    MemberId(host as u64 + 1)
}

/// Returns the host of a voter.
fn host_of(member: MemberId) -> usize {
    usize::try_from(member.0).unwrap_or(usize::MAX).saturating_sub(1)
}
