//! Decides the record's next change: the machine that runs where the coordinator leads.
//!
//! What it knows is what members have reported to it, and when. It may be wrong about who lives;
//! then a fail-over is wasted, and nothing is lost: whether enough have promised is counted by
//! the record, and every change is a compare-and-set.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::time::Timestamp;

use crate::member::{Report, State};
use crate::position::{Epoch, Position};
use crate::quorum::{Member, SyncSet};
use crate::record::{Phase, Record};
use crate::settings::{Defect, Patience};

/// Where the members stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The failure domain of each member, at the level that the system promises to survive.
    pub domains: BTreeMap<Member, u32>,
    /// How much each one is wanted as the primary, the lowest first.
    pub ranks: BTreeMap<Member, u32>,
}

impl Places {
    /// Returns how many of its voters must have a write before a group of members acknowledges
    /// it: so many that no one domain holds all copies, and that the loss of one domain leaves
    /// enough to elect by. 0 only without voters.
    #[must_use]
    pub fn needed(&self, primary: Member, voters: &BTreeSet<Member>) -> usize {
        let mut sizes: BTreeMap<Option<&u32>, usize> = BTreeMap::new();
        for member in std::iter::once(&primary).chain(voters) {
            *sizes.entry(self.domains.get(member)).or_default() += 1;
        }
        sizes.into_values().max().unwrap_or(0).min(voters.len())
    }
}

/// The director of one cluster.
#[derive(Debug)]
pub struct Director {
    patience: Patience,
    places: Places,
    defect: Option<Defect>,
    /// Since when this one listens.
    since: Timestamp,
    heard: BTreeMap<Member, (Report, Timestamp)>,
    /// Since when each voter does not follow.
    away: BTreeMap<Member, Timestamp>,
    /// The epoch whose primary does not do what it should, and since when.
    idle: Option<(Epoch, Timestamp)>,
    /// The epoch whose primary is to hand over, and since when.
    handing_over: Option<(Epoch, Timestamp)>,
}

impl Director {
    /// Begins to listen.
    #[must_use]
    pub const fn new(
        patience: Patience,
        places: Places,
        defect: Option<Defect>,
        now: Timestamp,
    ) -> Self {
        Self {
            patience,
            places,
            defect,
            since: now,
            heard: BTreeMap::new(),
            away: BTreeMap::new(),
            idle: None,
            handing_over: None,
        }
    }

    /// Hears a member.
    pub fn hear(&mut self, member: Member, report: Report, now: Timestamp) {
        self.heard.insert(member, (report, now));
    }

    /// Returns the record as it should be next; `None` if it is as it should be, or if too few
    /// are there to change it.
    pub fn decide(&mut self, record: &Record, now: Timestamp) -> Option<Record> {
        let (leads, verified) = match self.state(record, record.primary) {
            Some(State::Leads { verified, .. }) => (true, *verified),
            Some(_) | None => (false, false),
        };
        match record.phase {
            Phase::Preparing => self.choose(record),
            Phase::Starting if verified => Some(record.running()),
            Phase::Starting if leads && self.defect == Some(Defect::ServesUnverified) => {
                Some(record.running())
            }
            Phase::Starting => {
                since(&mut self.idle, record.epoch, now);
                let next = self.prepare(record, now);
                next.or_else(|| self.allow_rewind(record, now)).or_else(|| self.widen(record))
            }
            Phase::Running => {
                if leads {
                    self.idle = None;
                } else {
                    since(&mut self.idle, record.epoch, now);
                }
                let next = self.prepare(record, now);
                next.or_else(|| self.forget(record, now))
                    .or_else(|| self.allow_rewind(record, now))
                    .or_else(|| self.adjust(record, now))
            }
        }
    }

    /// Returns what a member last said, if that was in the record's epoch.
    fn state(&self, record: &Record, member: Member) -> Option<&State> {
        let (report, _) = self.heard.get(&member)?;
        (report.promised == record.epoch).then_some(&report.state)
    }

    fn is_missing(&self, member: Member, now: Timestamp) -> bool {
        let heard = self.heard.get(&member).map_or(self.since, |(_, at)| *at);
        now.since(heard.max(self.since)) > self.patience.missing_after
    }

    /// Gives up a wish that nobody could fulfil in time.
    fn forget(&mut self, record: &Record, now: Timestamp) -> Option<Record> {
        record.handover?;
        let begun = since(&mut self.handing_over, record.epoch, now);
        let waited = now.since(begun) > self.patience.start_max;
        waited.then(|| {
            self.handing_over = None;
            Record { handover: None, ..record.clone() }
        })
    }

    /// Begins an epoch if the primary fails and enough members are there to choose another.
    fn prepare(&self, record: &Record, now: Timestamp) -> Option<Record> {
        let ended = match self.state(record, record.primary) {
            Some(State::Ended) => record.phase == Phase::Running,
            Some(State::Lacking) => true,
            Some(_) | None => false,
        };
        let slow = self.idle.is_some_and(|(epoch, since)| {
            epoch == record.epoch && now.since(since) > self.patience.start_max
        });
        if !ended && !slow && !self.is_missing(record.primary, now) {
            return None;
        }
        let there = self.whole(record, now).len();
        (there >= record.counted.promises_needed()).then(|| record.prepared())
    }

    /// Returns those of the group that are there with a copy of the database, and keep it.
    fn whole(&self, record: &Record, now: Timestamp) -> BTreeSet<Member> {
        let is_whole = |member: &Member| {
            self.heard.get(member).is_some_and(|(report, _)| report.state != State::Lacking)
                && !self.is_missing(*member, now)
                && !record.rewinding.contains(member)
        };
        record.group().filter(is_whole).collect()
    }

    /// Lets a member be rewound whose log is no beginning of the primary's, one at a time and only
    /// while enough others are there to choose another primary without it: in the middle of a
    /// rewind a copy is worth nothing, and without a primary no rewind ends.
    fn allow_rewind(&self, record: &Record, now: Timestamp) -> Option<Record> {
        let mut next = record.clone();
        next.rewinding.retain(|member| {
            !matches!(self.state(record, *member), Some(State::Follows | State::Waits))
        });
        if next != *record {
            return Some(next);
        }
        let whole = self.whole(record, now);
        let differs = |member: &Member| match self.state(record, *member) {
            Some(State::Promised(position)) => {
                !record.history.is_beginning(*position, record.epoch)
                    && !record.rewinding.contains(member)
            }
            Some(_) | None => false,
        };
        let rest = |member: &Member| whole.len() - usize::from(whole.contains(member));
        let member = self.heard.keys().copied().filter(differs).find(|member| {
            !record.is_in_group(*member) || rest(member) >= record.counted.promises_needed()
        })?;
        next.rewinding.insert(member);
        Some(next)
    }

    /// Chooses, if enough have promised.
    fn choose(&self, record: &Record) -> Option<Record> {
        let promised: Vec<(Member, Position)> = record
            .group()
            .filter_map(|member| match self.state(record, member) {
                Some(State::Promised(position)) => Some((member, *position)),
                _ => None,
            })
            .collect();
        if promised.len() < record.counted.promises_needed() {
            return None;
        }
        let place = |position: &Position| match self.defect {
            Some(Defect::ChoosesByPlace) => (0, position.lsn.0),
            _ => (position.epoch.0, position.lsn.0),
        };
        let rank = |member: &Member| self.places.ranks.get(member).copied().unwrap_or(u32::MAX);
        let (chosen, position) = promised.iter().max_by_key(|(member, position)| {
            // Who hands over takes it back only if nobody else has the end of its log.
            let asked = record.handover.map(|to| (to == *member, *member != record.primary));
            (place(position), asked, std::cmp::Reverse((rank(member), *member)))
        })?;
        let mut next = record.chosen(*chosen, *position);
        if self.defect == Some(Defect::GroupOfTheVerified) {
            let verified: BTreeSet<Member> = promised
                .iter()
                .map(|(member, _)| *member)
                .filter(|member| member != chosen)
                .collect();
            let needed = next.counted.needed.min(verified.len());
            next.counted = SyncSet { needed, voters: verified };
            next.goal.set = next.counted.clone();
        }
        Some(next)
    }

    /// Returns those who follow the epoch's primary.
    fn followers(&self, record: &Record) -> BTreeSet<Member> {
        let follows = |member: &Member| matches!(self.state(record, *member), Some(State::Follows));
        self.heard.keys().copied().filter(follows).collect()
    }

    /// Adds those who follow, so that a primary that starts has enough voters.
    fn widen(&self, record: &Record) -> Option<Record> {
        let mut voters = record.goal.set.voters.clone();
        voters.extend(self.followers(record));
        record.with_goal(SyncSet { needed: record.goal.set.needed, voters })
    }

    /// Counts elections by a goal that is in effect, or sets one that fits who is there.
    fn adjust(&mut self, record: &Record, now: Timestamp) -> Option<Record> {
        let followers = self.followers(record);
        for member in &record.goal.set.voters {
            let follows = followers.contains(member) && !self.is_missing(*member, now);
            if follows {
                self.away.remove(member);
            } else {
                self.away.entry(*member).or_insert(now);
            }
        }
        let number = match self.state(record, record.primary) {
            Some(State::Leads { confirmed, .. }) => *confirmed,
            _ => return None,
        };
        if record.counted != record.goal.set && number == record.goal.number {
            return Some(record.confirmed());
        }
        let stays = |member: &&Member| {
            self.away.get(member).is_none_or(|since| now.since(*since) < self.patience.shrink_after)
        };
        let mut voters: BTreeSet<Member> =
            record.goal.set.voters.iter().filter(stays).copied().collect();
        voters.extend(followers.iter().filter(|member| !self.is_missing(**member, now)));
        if voters.is_empty() {
            return None;
        }
        let mut needed = self.places.needed(record.primary, &voters);
        if !voters.is_superset(&record.goal.set.voters) {
            // First the voters, then how many of them: both at once would make elections ask for
            // more members, while some of them are away.
            needed = needed.max(record.goal.set.needed.min(voters.len()));
        }
        let mut next = record.with_goal(SyncSet { needed, voters })?;
        match self.defect {
            Some(Defect::RemovedWithoutConfirming)
                if next.goal.set.needed == record.goal.set.needed =>
            {
                next.counted = next.goal.set.clone();
            }
            Some(Defect::RaisedWithoutConfirming)
                if next.goal.set.needed > record.goal.set.needed =>
            {
                next.counted.needed = next.goal.set.needed;
            }
            _ => {}
        }
        Some(next)
    }
}

/// Returns since when something goes on in an epoch, and remembers it if that is now.
fn since(known: &mut Option<(Epoch, Timestamp)>, epoch: Epoch, now: Timestamp) -> Timestamp {
    match known {
        Some((of, since)) if *of == epoch => *since,
        _ => {
            *known = Some((epoch, now));
            now
        }
    }
}
