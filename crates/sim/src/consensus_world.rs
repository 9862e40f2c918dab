//! The world of the coordinator: a few members, their network and disks, and clients.
//!
//! A run has two parts: one in which everything breaks, and one in which everything has healed and
//! the store must serve again, soon. Which things break, and how often, is drawn anew for each
//! seed: a run in which everything breaks at once finds less than many that differ.

mod members;
mod nemesis;
mod network;
mod steps;
mod watchers;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::log::Snapshot;
use evenkeel_consensus::replica::Replica;
use evenkeel_consensus::settings::{Defect, Limits, MemberId, Settings, StateLimits};
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

use crate::agreement::{self, Invariants};
use crate::clients::{self, Client, Finished, Request};
use crate::failure::{Failure, replayed};
use crate::holders::Holder;
use crate::member::Member;
use crate::transcript::Transcript;
use members::Operator;
use nemesis::Habits;
use network::Network;
use watchers::Watcher;

/// The name of this world on the command line.
pub const NAME: &str = "consensus";

/// How long things break.
const STORM: Duration = Duration::from_secs(5);

/// How soon after healing every client must have been served.
const RECOVERY_MAX: Duration = Duration::from_secs(3);

/// How long the members then have to bring each other up to date.
const QUIET: Duration = Duration::from_secs(1);

/// How many clients there are.
const CLIENTS: usize = 5;

/// How many clients want a lease and one key.
const HOLDERS: usize = 3;

/// How many hosts stand ready to take a voter's place, where members come and go.
const SPARES: usize = 2;

/// How many watch.
const WATCHERS: usize = 2;

/// What may differ between runs of the same seed.
pub type Options = crate::options::Options<Defect>;

/// What a run without a failure came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Differs whenever anything in two runs differed.
    pub digest: u64,
    /// How many operations the clients finished.
    pub operations: usize,
    /// How many of them were acknowledged.
    pub acknowledged: usize,
    /// How many terms had a leader.
    pub terms: usize,
    /// How many entries were committed.
    pub committed: u64,
    /// How many times a host crashed.
    pub crashes: usize,
    /// How many of them took the disk with them.
    pub lost_disks: usize,
    /// How many snapshots leaders sent to followers.
    pub snapshots: usize,
    /// How many times who takes part was changed.
    pub changes: usize,
    /// How many changes watchers were told.
    pub watched: usize,
    /// How many times somebody got the key that all want.
    pub holds: usize,
}

/// Runs a seed; once more, in words, if it fails.
///
/// # Errors
///
/// If something happened that must never happen.
pub fn run(seed: u64, options: Options) -> Result<Report, Box<Failure>> {
    replayed(|transcript| World::new(seed, options, transcript).run())
}

/// Something that happens at some time.
#[derive(Debug)]
enum Happening {
    /// A message reaches a member.
    Message {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    /// A shell learns what became of a snapshot it sent.
    SnapshotSent {
        host: usize,
        life: u64,
        to: MemberId,
        ok: bool,
    },
    /// A member takes in what has arrived, or does what is due.
    Step {
        host: usize,
        life: u64,
    },
    Wake {
        host: usize,
        life: u64,
        at: Timestamp,
    },
    /// A disk is done.
    Written {
        host: usize,
        life: u64,
    },
    SnapshotSaved {
        host: usize,
        life: u64,
    },
    SnapshotEncoded {
        host: usize,
        life: u64,
        snapshot: Snapshot,
    },
    /// The host may crash, now that the step after a write is over.
    Doom {
        host: usize,
        life: u64,
        voted: bool,
    },
    /// The host comes back.
    Restart {
        host: usize,
    },
    Resume {
        host: usize,
        life: u64,
    },
    /// A client sends, a request arrives, an answer arrives or does not come in time.
    Send {
        client: usize,
    },
    Request {
        host: usize,
        client: usize,
        attempt: u64,
        request: Request,
    },
    Answer {
        client: usize,
        attempt: u64,
        answer: Option<Answer>,
    },
    /// Somebody asks what has changed.
    Watch {
        watcher: usize,
    },
    /// Something breaks.
    Break,
    /// An operator changes who takes part.
    ChangeMembers,
    /// A disk is full, or has room again.
    Space {
        host: usize,
        full: bool,
    },
    /// Every fault ends.
    Heal,
}

/// All there is.
struct World {
    seed: u64,
    options: Options,
    now: Timestamp,
    rng: Rng,
    agenda: BinaryHeap<Reverse<Appointment>>,
    appointments: u64,
    hosts: Vec<Member>,
    network: Network,
    habits: Habits,
    operator: Operator,
    clients: Vec<Client>,
    /// They are numbered behind the clients.
    holders: Vec<Holder>,
    watchers: Vec<Watcher>,
    /// Whether the storm is over.
    healed: bool,
    /// Whether clients begin nothing new.
    closed: bool,
    invariants: Invariants,
    crashes: usize,
    lost_disks: usize,
    snapshots: usize,
    changes: usize,
    holds: usize,
    transcript: Transcript,
}

/// A happening with its time; ties go to the one made first.
struct Appointment {
    at: Timestamp,
    number: u64,
    happening: Happening,
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Appointment {}

impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Appointment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl World {
    fn new(seed: u64, options: Options, transcript: Transcript) -> Self {
        let mut rng = Rng::from_seed(seed);
        let count = options.hosts.unwrap_or_else(|| if rng.chance(2, 3) { 3 } else { 5 });
        let members_rng = Rng::from_seed(seed.rotate_left(16) ^ 0x3e3b);
        let operator = Operator::new(members_rng);
        let spares = if operator.acts() { SPARES } else { 0 };
        let hosts = count + spares;
        let network = Network::new(hosts, &mut rng);
        let habits = Habits::new(seed, &mut rng);
        let voters: Vec<MemberId> = (1..).map(MemberId).take(count).collect();
        let limits = Limits {
            state: StateLimits {
                idempotency_max: 8192,
                history_changes_max: if rng.chance(1, 2) { 20 } else { 5000 },
                ..StateLimits::STANDARD
            },
            compact_entries: if rng.chance(1, 2) { 2 + rng.below(20) } else { 200 },
            held_entries: if rng.chance(1, 2) { 1 + rng.index(30) } else { 200 },
            tail_entries: rng.below(10),
            ..Limits::STANDARD
        };
        let heartbeat = Duration::from_millis(15 + rng.below(60));
        let members = (1..).map(MemberId).take(hosts).collect::<Vec<_>>();
        let hosts = members
            .iter()
            .map(|member| {
                let is_first = voters.contains(member);
                let settings = Settings {
                    member: *member,
                    voters: if is_first { voters.clone() } else { Vec::new() },
                    heartbeat,
                    election_min: heartbeat * 3,
                    seed,
                    limits,
                    defect: options.defect,
                };
                let mut member = Member::new(settings, &mut rng);
                if !habits.clocks_hold() {
                    member.clock.spread();
                }
                member
            })
            .collect();
        Self {
            seed,
            options,
            now: Timestamp::ZERO,
            rng,
            agenda: BinaryHeap::new(),
            appointments: 0,
            hosts,
            network,
            habits,
            operator,
            clients: (0..CLIENTS).map(|number| Client::new(number, members.len())).collect(),
            holders: (0..HOLDERS).map(|number| Holder::new(number, members.len())).collect(),
            watchers: (0..WATCHERS).map(|_| Watcher::default()).collect(),
            healed: false,
            closed: false,
            invariants: Invariants::default(),
            crashes: 0,
            lost_disks: 0,
            snapshots: 0,
            changes: 0,
            holds: 0,
            transcript,
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
            self.restart(host)?;
        }
        for client in 0..self.clients.len() + self.holders.len() {
            self.after(Duration::ZERO, Happening::Send { client });
        }
        for watcher in 0..self.watchers.len() {
            self.after(Duration::ZERO, Happening::Watch { watcher });
        }
        self.after(Duration::from_millis(300), Happening::Break);
        self.after(STORM, Happening::Heal);
        self.plan_change();
        self.run_until(Timestamp::ZERO + STORM)?;
        self.recover()?;
        self.closed = true;
        self.run_until(self.now + clients::ATTEMPT_MAX + QUIET)?;
        self.check_agreement()?;
        self.judge()
    }

    fn run_until(&mut self, end: Timestamp) -> Result<(), String> {
        while let Some(Reverse(next)) = self.agenda.peek()
            && next.at <= end
        {
            let Some(Reverse(next)) = self.agenda.pop() else { break };
            self.now = next.at;
            self.transcript.digest_number(next.at.as_nanos());
            self.happen(next.happening)?;
        }
        self.now = end;
        Ok(())
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn at(&mut self, at: Timestamp, happening: Happening) {
        self.appointments += 1;
        let number = self.appointments;
        self.agenda.push(Reverse(Appointment { at, number, happening }));
    }

    /// Goes on until every client was served again.
    fn recover(&mut self) -> Result<(), String> {
        let (healed, count) = (self.now, self.clients.len());
        loop {
            let finished: Vec<&[Finished]> =
                self.clients.iter().map(|client| client.finished.as_slice()).collect();
            let served = agreement::progress(&finished, healed);
            if served == count {
                return Ok(());
            }
            if self.now >= healed + RECOVERY_MAX {
                return Err(format!(
                    "{served} of {count} clients were served within {RECOVERY_MAX:?} of healing"
                ));
            }
            self.run_until(self.now + Duration::from_millis(100))?;
        }
    }

    /// All members must have come to the same state, and lost nothing.
    fn check_agreement(&self) -> Result<(), String> {
        let committed = self.invariants.committed();
        let members = self.members_in_the_end();
        let replicas = self.replicas();
        for (member, replica) in &replicas {
            if replica.applied() < committed {
                let applied = replica.applied();
                return Err(format!("{member} stays at entry {applied} of {committed}"));
            }
        }
        if replicas.len() < members.voters.len() + members.learners.len() {
            return Err("a member is down after healing".to_owned());
        }
        if members.is_joint() {
            return Err(format!("a change does not end after healing: {members:?}"));
        }
        if let Some((member, _)) = replicas.iter().find(|(_, it)| it.is_rejoining()) {
            return Err(format!("{member} lost its disk and does not vote yet after healing"));
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<Report, String> {
        let now = self.now;
        let mut finished = Vec::new();
        for client in &mut self.clients {
            client.hang_up(now);
            finished.append(&mut client.finished);
        }
        let watched = self.check_watchers()?;
        agreement::judge(&finished, &self.replicas())?;
        let acknowledged = finished
            .iter()
            .filter(|done| done.operation.outcome == evenkeel_checker::history::Outcome::Ok);
        Ok(Report {
            digest: self.transcript.digest(),
            operations: finished.len(),
            acknowledged: acknowledged.count(),
            terms: self.invariants.terms(),
            committed: self.invariants.committed(),
            crashes: self.crashes,
            lost_disks: self.lost_disks,
            snapshots: self.snapshots,
            changes: self.changes,
            watched,
            holds: self.holds,
        })
    }

    /// Checks that everybody who watches knows what there is; returns how much they were told.
    fn check_watchers(&mut self) -> Result<usize, String> {
        let state = self.replicas().first().map(|(_, replica)| replica.keys().clone());
        let Some(state) = state else { return Err("no member is up".to_owned()) };
        let mut told = 0;
        for watcher in &mut self.watchers {
            watcher.check(&state)?;
            told += watcher.told;
        }
        Ok(told)
    }

    /// Returns those that take part and are up.
    fn replicas(&self) -> Vec<(MemberId, &Replica)> {
        let members = self.members_in_the_end();
        self.all_replicas().filter(|(member, _)| members.contains(*member)).collect()
    }

    /// Returns those that are up.
    fn all_replicas(&self) -> impl Iterator<Item = (MemberId, &Replica)> {
        self.hosts
            .iter()
            .filter_map(|host| Some((host.settings.member, &host.process.as_ref()?.replica)))
    }
}
