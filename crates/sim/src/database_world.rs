//! The world of one PostgreSQL cluster: its members with their guards, nodes and disks, the
//! coordinator's store with two directors that both believe to lead, and clients.
//!
//! PostgreSQL, guard and node fail each by themselves and together with their host; links are cut
//! in one direction or both, hosts stop for longer than a lease, disks stall and are lost. A run
//! has three parts: the storm; healing, after which writes must go on and every member follow in
//! time; and an outage of everything that is not needed, in which not one request may fail.

mod clients;
mod copies;
mod directors;
mod happening;
mod host;
mod nemesis;
mod nodes;
mod postgres;
mod streams;
mod truth;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::member::Seen;
use evenkeel_postgres_core::quorum::{Member, SyncSet};
use evenkeel_postgres_core::record::{Phase, Record};
use evenkeel_postgres_core::settings::{Defect, LeaseTimes};

use crate::agenda::Agenda;
use crate::failure::{Failure, replayed};
use crate::transcript::Transcript;
use clients::Client;
use directors::Site;
use happening::Happening;
use host::Host;
use nemesis::{Habits, Network};
use truth::Truth;

/// The name of this world on the command line.
pub const NAME: &str = "database";

/// How long things break.
const STORM: Duration = Duration::from_secs(12);
/// How soon after healing everything must be whole again.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// How long it must then stay so: a lease that was about to end when everything healed may end.
const SETTLED: Duration = Duration::from_secs(2);
/// How long everything that is not needed is then away.
const OUTAGE: Duration = Duration::from_secs(4);
/// How many clients write and read.
const CLIENTS: usize = 4;
/// The times of leases.
const TIMES: LeaseTimes = LeaseTimes::STANDARD;

/// What may differ between runs of the same seed.
pub type Options = crate::options::Options<Defect>;

/// What a run without a failure came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Differs whenever anything in two runs differed.
    pub digest: u64,
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// How many reads were answered.
    pub reads: usize,
    /// How many primaries served.
    pub primaries: usize,
    /// How many faults there were.
    pub faults: usize,
    /// How many times somebody's log was rewound or cloned.
    pub copies: usize,
    /// How long after healing everything was whole.
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

/// All there is.
struct World {
    seed: u64,
    options: Options,
    now: Timestamp,
    rng: Rng,
    agenda: Agenda<Happening>,
    hosts: Vec<Host>,
    /// What the store holds; `store_until` tells how long it is away.
    store: Seen,
    store_until: Timestamp,
    /// When the record last changed.
    changed_at: Timestamp,
    directors: Vec<Site>,
    network: Network,
    habits: Habits,
    clients: Vec<Client>,
    truth: Truth,
    /// Whether nothing breaks any more.
    healed: bool,
    /// Since when clients may expect every answer.
    calm_since: Option<Timestamp>,
    faults: usize,
    copies: usize,
    connections: u64,
    transcript: Transcript,
}

impl World {
    fn new(seed: u64, options: Options, transcript: Transcript) -> Self {
        let mut rng = Rng::from_seed(seed);
        let count = options.hosts.unwrap_or_else(|| if rng.chance(1, 2) { 3 } else { 5 });
        let habits = Habits::new(&mut rng);
        let members: Vec<Member> = (0..).map(Member).take(count).collect();
        let primary = members[0];
        let voters: BTreeSet<Member> = members[1..].iter().copied().collect();
        let needed = directors::places(count).needed(primary, &voters);
        let record = Record::begin(primary, SyncSet { needed, voters });
        let store = Seen { revision: 1, record };
        let hosts = members
            .iter()
            .map(|member| Host::new(*member, &store, &habits, &mut rng, options.defect))
            .collect();
        let directors = (0..2).map(|_| Site::new(count, options.defect)).collect();
        Self {
            seed,
            options,
            now: Timestamp::ZERO,
            agenda: Agenda::new(),
            hosts,
            store,
            store_until: Timestamp::ZERO,
            changed_at: Timestamp::ZERO,
            directors,
            network: Network::new(count),
            habits,
            clients: (0..CLIENTS).map(|number| Client::new(number, primary)).collect(),
            truth: Truth::default(),
            healed: false,
            calm_since: None,
            faults: 0,
            copies: 0,
            connections: 0,
            transcript,
            rng,
        }
    }

    fn run(mut self) -> Result<Report, Box<Failure>> {
        self.unfold().map_err(|violation| {
            let run = (NAME, self.seed, self.options);
            Failure::new(run, self.now, violation, self.transcript)
        })
    }

    /// Lets everything happen.
    fn unfold(&mut self) -> Result<Report, String> {
        for host in 0..self.hosts.len() {
            self.boot(host);
        }
        for director in 0..self.directors.len() {
            self.after(Duration::ZERO, Happening::Direct { director });
        }
        for client in 0..self.clients.len() {
            self.after(Duration::from_secs(1), Happening::Send { client });
        }
        self.after(Duration::from_secs(2), Happening::Break);
        self.run_until(Timestamp::ZERO + STORM)?;
        self.heal();
        let healed = self.now;
        let mut whole_since = None;
        while whole_since.is_none_or(|since| self.now.since(since) < SETTLED) {
            if self.now > healed + RECOVERY_MAX {
                for host in 0..self.hosts.len() {
                    let (member, facts) =
                        (self.hosts[host].member, self.hosts[host].facts(self.now));
                    let (data, server, guard) = (facts.data, facts.server, facts.guard);
                    self.say(format_args!("{member}: {data:?} {server:?} {guard:?}"));
                }
                return Err(format!("{RECOVERY_MAX:?} after healing {}", self.what_lacks(healed)));
            }
            self.run_until(self.now + Duration::from_millis(100))?;
            whole_since = whole_since.or(Some(self.now)).filter(|_| self.is_whole(healed));
        }
        let recovery = self.now.since(healed);
        self.go_without_control()?;
        self.judge(recovery)
    }

    /// Takes away every node and the store: the primary and its voters need neither.
    fn go_without_control(&mut self) -> Result<(), String> {
        self.calm_since = Some(self.now);
        self.store_until = self.now + OUTAGE;
        for host in 0..self.hosts.len() {
            self.hosts[host].node = None;
        }
        self.run_until(self.now + OUTAGE)
    }

    fn judge(&mut self, recovery: Duration) -> Result<Report, String> {
        let primary = self.index(self.store.record.primary);
        self.truth.check_holds(&self.hosts[primary].postgres, "in the end the primary")?;
        Ok(Report {
            digest: self.transcript.digest(),
            acknowledged: self.truth.acknowledged(),
            reads: self.truth.reads(),
            primaries: self.truth.primaries(),
            faults: self.faults,
            copies: self.copies,
            recovery,
        })
    }

    /// Returns whether every member follows, elections count on all, and clients were served.
    fn is_whole(&self, since: Timestamp) -> bool {
        self.what_lacks(since).is_empty()
    }

    fn what_lacks(&self, since: Timestamp) -> String {
        let record = &self.store.record;
        let others = self.hosts.len() - 1;
        if record.phase != Phase::Running {
            return format!("epoch {} is {:?}", record.epoch, record.phase);
        }
        if let Some(to) = record.handover {
            return format!("{to} has not taken over");
        }
        if record.goal.set != record.counted || record.counted.voters.len() != others {
            let (goal, counted) = (&record.goal, &record.counted);
            return format!("writes count on {goal:?}, elections on {counted:?}");
        }
        if let Some(host) = self.hosts.iter().find(|host| !host.is_in_place(record)) {
            return format!("{} is not in its place: {:?}", host.member, host.postgres.server);
        }
        let since = since.max(self.changed_at);
        self.clients
            .iter()
            .find(|client| client.served_at.is_none_or(|at| at <= since))
            .map_or_else(String::new, |client| format!("client {} was not served", client.number))
    }

    fn run_until(&mut self, end: Timestamp) -> Result<(), String> {
        while let Some((at, happening)) = self.agenda.next(end) {
            self.now = at;
            self.transcript.digest_number(at.as_nanos());
            self.happen(happening)?;
        }
        self.now = end;
        Ok(())
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.agenda.plan(self.now + delay, happening);
    }

    /// Draws a time between two.
    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let width = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
        from + Duration::from_nanos(self.rng.below(width.max(1)))
    }

    /// Draws a time in milliseconds.
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        self.between(Duration::from_millis(from), Duration::from_millis(to))
    }

    /// Draws how long PostgreSQL or a node takes for something.
    fn effort(&mut self, from: u64, to: u64) -> Duration {
        self.millis(from, to) / u32::try_from(self.habits.haste()).unwrap_or(1)
    }

    fn index(&self, member: Member) -> usize {
        (member.0 as usize).min(self.hosts.len() - 1)
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        self.transcript.line(self.now, line);
    }
}
