//! Decides what the PostgreSQL of one member does next: the machine of a member's node.
//!
//! It looks at all that is so, each time anew, and names the one next step; whoever carries it out
//! has nothing to decide. What a member must not forget is the record by which it acts: it is on
//! disk before anything is done by it, and its epoch is the member's promise. From then on the
//! member grants no lease for an earlier epoch and takes nothing from an earlier primary.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::time::Timestamp;

use crate::position::{Epoch, Lsn, Position, Timeline};
use crate::quorum::Member;
use crate::record::{Goal, Phase, Record};
use crate::settings::Defect;

/// A record with the store's revision of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Later ones are higher.
    pub revision: u64,
    /// The record.
    pub record: Record,
}

/// All that is so on a member.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The record on disk.
    pub kept: Option<Seen>,
    /// What the data folder holds.
    pub data: Data,
    /// What PostgreSQL does.
    pub server: Server,
    /// What the guard says. `None` while none runs, and so no PostgreSQL.
    pub guard: Option<Guard>,
}

/// What a data folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    Nothing,
    /// What a clone or a rewind left that did not end.
    Torn,
    /// A cluster, whose control file may say that it was the primary of an epoch.
    Whole {
        /// Which.
        led: Option<Epoch>,
    },
}

/// What PostgreSQL does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// It does not run.
    Down,
    /// It follows, or waits.
    Standby {
        /// Whom it was told to follow, by which epoch's name.
        upstream: Option<(Member, Epoch)>,
        /// Whether data comes.
        receives: bool,
        /// Where its log ends, once all of it is replayed and nothing comes any more.
        settled: Option<Position>,
    },
    /// It takes writes.
    Primary(Leading),
}

/// A primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leading {
    /// Which start of it.
    pub life: u64,
    /// The epoch that its timeline was allotted to.
    pub epoch: Epoch,
    /// The end of its log.
    pub end: Lsn,
    /// The number of the goal by which each of its processes acknowledges.
    pub goal: u64,
    /// How far the standbys that use a name of this epoch have its log on disk.
    pub flushed: BTreeMap<Member, Lsn>,
}

/// What a member's guard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The promise that it knows of.
    pub promised: Option<Epoch>,
    /// The promise that it has done its part of.
    pub ready: Epoch,
    /// The epoch of the lease that it holds.
    pub leased: Option<Epoch>,
    /// The number of the goal by which it holds it, or tries to.
    pub goal: Option<u64>,
}

/// The one next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the record to disk, in place of the one that is there.
    Keep(Seen),
    /// Tell the guard what was promised.
    Promise(Epoch),
    /// Tell the guard to hold the lease.
    Reign(Epoch, Goal),
    /// Start PostgreSQL as a standby, or point the running one elsewhere, by a name of the epoch.
    Follow(Option<(Member, Epoch)>),
    /// Promote it. It must come to this timeline, or be stopped.
    Promote(Epoch, Timeline, Goal),
    /// Start it as the primary that it was when it stopped.
    Restart(Epoch, Goal),
    /// Let it acknowledge by this goal, under the names of the epoch: every process of it, before
    /// the step counts as done.
    Acknowledge(Epoch, Goal),
    /// Stop it in good order, while standbys receive the last of its log.
    Stop,
    /// Stop it if it runs, and copy from the primary what differs.
    Rewind(Member),
    /// Set the folder aside and copy the primary's.
    Clone(Member),
}

/// What a member tells the director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The epoch that it has promised.
    pub promised: Epoch,
    /// What it is.
    pub state: State,
}

/// What a member is, in the epoch that it has promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// On the way from one state to another.
    Busy,
    /// It has no whole copy of the database.
    Lacking,
    /// Nothing comes any more and all is replayed: its promise counts.
    Promised(Position),
    /// It receives the log of the epoch's primary, of which its own is a beginning.
    Follows,
    /// It follows as well, but nothing comes.
    Waits,
    /// It is the epoch's primary.
    Leads {
        /// Whether enough voters have all that it started with.
        verified: bool,
        /// The goal that it uses, of which enough voters have the log.
        confirmed: u64,
    },
    /// It was the epoch's primary, and has ended.
    Ended,
}

/// How a member behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Its number.
    pub member: Member,
    /// How long a primary that has ended waits for another one to be chosen before it starts
    /// again where it was.
    pub restart_after: Duration,
    /// A bug.
    pub defect: Option<Defect>,
}

/// What the machine remembers between two looks: only what it can find out again.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    seen: Option<Seen>,
    /// The end of the log when this life of the primary was first seen.
    started: Option<(u64, Lsn)>,
    /// The last life whose start enough voters have.
    verified: Option<u64>,
    /// The end of the log when the goal was first in effect, by life and number.
    changed: Option<(u64, u64, Lsn)>,
    confirmed: u64,
    /// Since when the primary is down.
    down_since: Option<Timestamp>,
    /// The epoch in which it stopped to hand over: once, or it would never serve again where
    /// nobody can take over.
    handed_over: Option<Epoch>,
}

impl Machine {
    /// Starts one.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            seen: None,
            started: None,
            verified: None,
            changed: None,
            confirmed: 0,
            down_since: None,
            handed_over: None,
        }
    }

    /// Hears what the store holds.
    pub fn hear(&mut self, seen: Seen) {
        if self.seen.as_ref().is_none_or(|known| known.revision < seen.revision) {
            self.seen = Some(seen);
        }
    }

    /// Returns the one next step, if there is one to make.
    pub fn decide(&mut self, facts: &Facts, now: Timestamp) -> Option<Action> {
        self.remember(facts, now);
        if let Some(seen) = &self.seen
            && facts.kept.as_ref().is_none_or(|kept| kept.revision < seen.revision)
        {
            return Some(Action::Keep(seen.clone()));
        }
        let record = &facts.kept.as_ref()?.record;
        let guard = facts.guard?;
        if guard.promised.is_none_or(|promised| promised < record.epoch) {
            return Some(Action::Promise(record.epoch));
        }
        match &facts.server {
            Server::Standby { upstream: Some((_, epoch)), .. } if *epoch < record.epoch => {
                return Some(Action::Follow(None));
            }
            // The guard kills it.
            Server::Primary(leading) if leading.epoch < record.epoch => return None,
            Server::Standby { .. } | Server::Primary(_) | Server::Down => {}
        }
        if record.is_led_by(self.settings.member) {
            self.lead(record, facts, guard, now)
        } else if record.phase == Phase::Preparing {
            let waits = facts.server == Server::Down && matches!(facts.data, Data::Whole { .. });
            waits.then_some(Action::Follow(None))
        } else {
            self.follow(record, facts)
        }
    }

    /// Keeps in mind what was first seen when.
    fn remember(&mut self, facts: &Facts, now: Timestamp) {
        if facts.server == Server::Down {
            self.down_since.get_or_insert(now);
            if let Some(Seen { record, .. }) = &facts.kept
                && record.handover.is_some()
                && record.is_led_by(self.settings.member)
            {
                self.handed_over = Some(record.epoch);
            }
        } else {
            self.down_since = None;
        }
        let (Server::Primary(leading), Some(kept)) = (&facts.server, &facts.kept) else { return };
        let goal = &kept.record.goal;
        let everywhere = |lsn: Lsn| {
            let flushed = leading.flushed.iter().filter(|(_, flushed)| **flushed >= lsn);
            goal.set.is_met_by(&flushed.map(|(member, _)| *member).collect())
        };
        let started = match self.started {
            Some((life, lsn)) if life == leading.life => lsn,
            Some(_) | None => leading.end,
        };
        self.started = Some((leading.life, started));
        if everywhere(started) {
            self.verified = Some(leading.life);
        }
        let number = goal.number;
        let guard_has_it = facts.guard.is_some_and(|guard| guard.goal == Some(number))
            || self.settings.defect == Some(Defect::GuardSetAfterStore);
        if leading.goal != number || !guard_has_it {
            return;
        }
        let changed = match self.changed {
            Some((life, known, lsn)) if (life, known) == (leading.life, number) => lsn,
            Some(_) | None => leading.end,
        };
        self.changed = Some((leading.life, number, changed));
        if everywhere(changed) {
            self.confirmed = number;
        }
    }

    /// Returns the next step of the primary.
    fn lead(&self, record: &Record, facts: &Facts, guard: Guard, now: Timestamp) -> Option<Action> {
        let epoch = record.epoch;
        let branch = record.history.branch(epoch)?;
        let leased = guard.leased == Some(epoch)
            || self.settings.defect == Some(Defect::ServesWithoutGrants);
        let waits = self.settings.defect == Some(Defect::GuardSetAfterStore)
            && record.goal.set != record.counted
            && guard.goal.is_some();
        let reigns = waits || guard.goal == Some(record.goal.number);
        let reign = || Action::Reign(epoch, record.goal.clone());
        match &facts.server {
            Server::Primary(_) if record.handover.is_some() && self.handed_over != Some(epoch) => {
                Some(Action::Stop)
            }
            Server::Primary(leading) if leading.goal != record.goal.number => {
                Some(Action::Acknowledge(epoch, record.goal.clone()))
            }
            Server::Primary(_) => (!reigns).then(reign),
            Server::Down if facts.data == (Data::Whole { led: Some(epoch) }) => {
                let waited = self
                    .down_since
                    .is_some_and(|since| now.since(since) >= self.settings.restart_after);
                match (waited, reigns, leased) {
                    (false, ..) | (true, true, false) => None,
                    (true, false, _) => Some(reign()),
                    (true, true, true) => Some(Action::Restart(epoch, record.goal.clone())),
                }
            }
            Server::Down if matches!(facts.data, Data::Whole { .. }) => Some(Action::Follow(None)),
            Server::Standby { settled: Some(position), upstream: None, .. }
                if *position == branch.from =>
            {
                match (reigns, leased) {
                    (false, _) => Some(reign()),
                    (true, false) => None,
                    (true, true) => {
                        Some(Action::Promote(epoch, branch.timeline, record.goal.clone()))
                    }
                }
            }
            Server::Standby { .. } | Server::Down => None,
        }
    }

    /// Returns the next step of one who is not the primary.
    fn follow(&self, record: &Record, facts: &Facts) -> Option<Action> {
        let upstream = Some((record.primary, record.epoch));
        match (&facts.server, facts.data) {
            (_, Data::Nothing) => Some(Action::Clone(record.primary)),
            (_, Data::Torn) => Some(Action::Rewind(record.primary)),
            (Server::Down, Data::Whole { .. }) => Some(Action::Follow(None)),
            (Server::Standby { upstream: followed, .. }, _) if *followed == upstream => None,
            (Server::Standby { settled: Some(position), .. }, _) => {
                let fits = record.history.is_beginning(*position, record.epoch)
                    || self.settings.defect == Some(Defect::FollowsUnverified);
                let may_rewind = record.rewinding.contains(&self.settings.member);
                if fits {
                    Some(Action::Follow(upstream))
                } else {
                    may_rewind.then_some(Action::Rewind(record.primary))
                }
            }
            (Server::Standby { .. } | Server::Primary(_), _) => None,
        }
    }

    /// Returns whether clients may speak with this member's PostgreSQL, and as the primary of
    /// which epoch and life. The relay asks the guard as well, for each reply.
    #[must_use]
    pub fn open(&self, facts: &Facts) -> Option<(Epoch, u64)> {
        let record = &facts.kept.as_ref()?.record;
        let Server::Primary(leading) = &facts.server else { return None };
        let leased = facts.guard.is_some_and(|guard| guard.leased == Some(record.epoch))
            || self.settings.defect == Some(Defect::ServesWithoutGrants);
        let serves = record.is_led_by(self.settings.member)
            && record.phase == Phase::Running
            && leading.epoch == record.epoch
            && leased;
        let unverified = matches!(
            self.settings.defect,
            Some(Defect::RestartsUnverified | Defect::ServesUnverified)
        );
        (serves && (unverified || self.verified == Some(leading.life)))
            .then_some((leading.epoch, leading.life))
    }

    /// Returns what the director should know. `None` before anything was promised.
    #[must_use]
    pub fn report(&self, facts: &Facts) -> Option<Report> {
        let record = &facts.kept.as_ref()?.record;
        let promised = record.epoch;
        let ready = facts.guard.is_some_and(|guard| guard.ready >= promised);
        let leased = facts.guard.is_some_and(|guard| guard.leased.is_some());
        let me = self.settings.member;
        let torn = !matches!(facts.data, Data::Whole { .. });
        let state = match &facts.server {
            Server::Primary(leading) if leading.epoch == promised => State::Leads {
                verified: self.verified == Some(leading.life),
                confirmed: self.confirmed,
            },
            Server::Standby { upstream: Some((_, epoch)), receives, .. } if *epoch == promised => {
                if *receives {
                    State::Follows
                } else {
                    State::Waits
                }
            }
            Server::Standby { upstream: None, settled: Some(position), .. } if ready && !torn => {
                State::Promised(*position)
            }
            Server::Down if torn => State::Lacking,
            Server::Down if record.is_led_by(me) && !leased => State::Ended,
            Server::Primary(_) | Server::Standby { .. } | Server::Down => State::Busy,
        };
        Some(Report { promised, state })
    }
}
