//! PostgreSQL as far as its replication goes, with the habits that lose writes: it numbers
//! timelines by itself, it reports as flushed what it had before it was compared, and a restart
//! turns what waited into what is committed (demonstrated on PostgreSQL 15).

use std::collections::{BTreeMap, VecDeque};

use evenkeel_postgres_core::member::{self, Leading};
use evenkeel_postgres_core::position::{Epoch, History, Lsn, Position, Timeline};
use evenkeel_postgres_core::quorum::Member;
use evenkeel_postgres_core::record::Goal;

/// Most entries of one message.
const CHUNK_MAX: usize = 16;

/// A record of the log, with what PostgreSQL does not write into it: who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The primary's epoch.
    pub(super) epoch: Epoch,
    /// The write; `None` for PostgreSQL's own records.
    pub(super) write: Option<usize>,
}

/// What the folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    Nothing,
    Torn,
    Whole,
}

/// A name that a standby uses: who it is, and by which epoch it was verified.
pub(super) type Name = (Member, Epoch);

/// One member's PostgreSQL and its folder.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    pub(super) data: Data,
    pub(super) log: Vec<Entry>,
    /// So many entries are on disk.
    pub(super) flushed: usize,
    pub(super) timeline: Timeline,
    /// The timelines that its log has left, each with where.
    pub(super) forks: Vec<(Timeline, usize)>,
    /// The timeline of which its control file says that it was the primary.
    pub(super) led: Option<Timeline>,
    /// Whom to follow, as written on disk.
    pub(super) upstream_on_disk: Option<Name>,
    pub(super) server: Server,
    /// Counts every start and end, so that what was begun before changes nothing.
    pub(super) run: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Server {
    Down,
    /// On the way to something.
    Busy,
    Standby(Standby),
    Primary(Box<Primary>),
}

#[derive(Debug, Clone)]
pub(super) struct Standby {
    pub(super) upstream: Option<Name>,
    /// Every try to connect has a new one.
    pub(super) connection: u64,
    pub(super) receives: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Primary {
    pub(super) epoch: Epoch,
    pub(super) goal: Goal,
    pub(super) senders: BTreeMap<Name, Sender>,
    pub(super) waiting: VecDeque<Waiting>,
    /// So many entries are visible to readers.
    pub(super) visible: usize,
    /// Whether it takes no more writes.
    pub(super) stopping: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    flushed: usize,
    connection: u64,
}

/// A client that waits for its commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) end: usize,
    pub(super) client: usize,
    pub(super) attempt: u64,
}

/// What a standby asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pull {
    pub(super) name: Name,
    pub(super) connection: u64,
    pub(super) first: bool,
    pub(super) flushed: usize,
    pub(super) length: usize,
    pub(super) timeline: Timeline,
}

/// What it gets.
#[derive(Debug, Clone)]
pub(super) struct Push {
    pub(super) connection: u64,
    start: usize,
    entries: Vec<Entry>,
    timeline: Timeline,
    forks: Vec<(Timeline, usize)>,
}

impl Postgres {
    /// Returns a folder with a new cluster, or without.
    pub(super) fn new(data: Data) -> Self {
        let first = Entry { epoch: Epoch(1), write: None };
        let log = if data == Data::Whole { vec![first] } else { Vec::new() };
        Self {
            data,
            flushed: log.len(),
            log,
            timeline: Timeline(1),
            forks: Vec::new(),
            led: None,
            upstream_on_disk: None,
            server: Server::Down,
            run: 0,
        }
    }

    /// Every process ends at once.
    pub(super) fn kill(&mut self) {
        self.server = Server::Down;
        self.run += 1;
    }

    /// The host loses its power: what was not flushed is gone, but for a part by chance.
    pub(super) fn lose_power(&mut self, kept: usize) {
        self.kill();
        self.log.truncate(self.flushed + kept);
        self.flushed = self.log.len();
        self.settle_timeline();
    }

    /// A log that was cut short ends on the timeline that it had not left there.
    fn settle_timeline(&mut self) {
        while let Some((timeline, end)) = self.forks.last().copied()
            && end >= self.log.len()
        {
            self.timeline = timeline;
            self.forks.pop();
        }
    }

    /// Becomes the primary on a timeline of its own.
    pub(super) fn promote(&mut self, epoch: Epoch, timeline: Timeline, goal: Goal) {
        self.forks.push((self.timeline, self.log.len()));
        self.timeline = timeline;
        self.lead(epoch, goal);
    }

    /// Returns the number that PostgreSQL would take by itself.
    pub(super) fn own_timeline(&self) -> Timeline {
        Timeline(self.timeline.0 + 1)
    }

    /// Becomes the primary on the timeline that it has. All that is in its log is committed.
    pub(super) fn lead(&mut self, epoch: Epoch, goal: Goal) {
        let visible = self.log.len();
        self.log.push(Entry { epoch, write: None });
        self.flushed = self.log.len();
        self.led = Some(self.timeline);
        self.run += 1;
        self.server = Server::Primary(Box::new(Primary {
            epoch,
            goal,
            senders: BTreeMap::new(),
            waiting: VecDeque::new(),
            visible,
            stopping: false,
        }));
    }

    /// Copies another one's folder.
    pub(super) fn copy(&mut self, source: &Self) {
        self.data = Data::Whole;
        self.log = source.log[..source.flushed].to_vec();
        self.flushed = self.log.len();
        (self.timeline, self.forks) = (source.timeline, source.forks.clone());
        self.led = None;
        self.run += 1;
    }

    /// Answers a standby. `None` if it is refused or finds nobody.
    pub(super) fn serve(&mut self, pull: Pull) -> Option<Push> {
        let flushed = self.flushed;
        match &mut self.server {
            Server::Down | Server::Busy => return None,
            Server::Standby(_) => {}
            Server::Primary(primary) => {
                // What a standby reports first is where its own log ends, whatever log that is.
                let reported = if pull.first { pull.length } else { pull.flushed };
                let known = primary.senders.get(&pull.name).map(|sender| sender.connection);
                if !pull.first && known != Some(pull.connection) {
                    return None;
                }
                let sender = Sender { flushed: reported, connection: pull.connection };
                primary.senders.insert(pull.name, sender);
                primary.release(flushed);
            }
        }
        let fork = self.forks.iter().find(|(timeline, _)| *timeline == pull.timeline);
        let end = match fork {
            _ if pull.timeline == self.timeline => Some(self.flushed),
            Some((_, end)) => Some(*end),
            None => None,
        };
        if end.is_none_or(|end| pull.length > end) {
            if let Server::Primary(primary) = &mut self.server {
                primary.senders.remove(&pull.name);
            }
            return None;
        }
        // What it has received itself and not flushed yet is not passed on.
        let until = self.flushed.min(pull.length + CHUNK_MAX).max(pull.length);
        Some(Push {
            connection: pull.connection,
            start: pull.length,
            entries: self.log[pull.length..until].to_vec(),
            timeline: self.timeline,
            forks: self.forks.clone(),
        })
    }

    /// Takes in what a standby has got. Returns whether there was anything.
    pub(super) fn take(&mut self, push: &Push) -> bool {
        if self.log.len() != push.start {
            return false;
        }
        self.log.extend(&push.entries);
        let length = self.log.len();
        let left = push.forks.iter().find(|(_, end)| *end >= length);
        self.timeline = left.map_or(push.timeline, |(timeline, _)| *timeline);
        self.forks = push.forks.iter().filter(|(_, end)| *end < length).copied().collect();
        !push.entries.is_empty()
    }

    /// Returns where the log ends, by the store's map.
    fn position(&self, history: &History) -> Option<Position> {
        let epoch = history.epoch_of(self.timeline)?;
        Some(Position { epoch, lsn: Lsn(self.log.len() as u64) })
    }

    /// Returns what the node can see of it.
    pub(super) fn facts(&self, history: Option<&History>) -> (member::Data, member::Server) {
        let epoch = |timeline| history.and_then(|history| history.epoch_of(timeline));
        let data = match self.data {
            Data::Nothing => member::Data::Nothing,
            Data::Torn => member::Data::Torn,
            Data::Whole => member::Data::Whole { led: self.led.and_then(epoch) },
        };
        let server = match &self.server {
            Server::Down | Server::Busy => member::Server::Down,
            Server::Standby(standby) => {
                let still = standby.upstream.is_none() && !standby.receives;
                let whole = self.flushed == self.log.len();
                let position = history.and_then(|history| self.position(history));
                member::Server::Standby {
                    upstream: standby.upstream,
                    receives: standby.receives,
                    settled: position.filter(|_| still && whole),
                }
            }
            Server::Primary(primary) => member::Server::Primary(Leading {
                life: self.run,
                epoch: primary.epoch,
                end: Lsn(self.log.len() as u64),
                goal: primary.goal.number,
                flushed: primary
                    .senders
                    .iter()
                    .filter(|((_, epoch), _)| *epoch == primary.epoch)
                    .map(|((member, _), sender)| (*member, Lsn(sender.flushed as u64)))
                    .collect(),
            }),
        };
        (data, server)
    }
}

impl Primary {
    /// Lets those go on whose commits enough standbys have; they are told by [`Self::released`].
    pub(super) fn release(&mut self, flushed: usize) {
        let mut ends: Vec<usize> = self
            .senders
            .iter()
            .filter(|((member, epoch), _)| {
                *epoch == self.epoch && self.goal.set.voters.contains(member)
            })
            .map(|(_, sender)| sender.flushed)
            .collect();
        ends.sort_unstable_by(|left, right| right.cmp(left));
        let synced = match self.goal.set.needed.checked_sub(1) {
            None => flushed,
            Some(last) => ends.get(last).copied().unwrap_or(0).min(flushed),
        };
        self.visible = self.visible.max(synced);
    }

    /// Takes out whoever waits no more.
    pub(super) fn released(&mut self) -> Vec<Waiting> {
        let count = self.waiting.iter().take_while(|waiting| waiting.end <= self.visible).count();
        self.waiting.drain(..count).collect()
    }
}
