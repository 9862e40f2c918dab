//! Keeps the primary's lease, and grants leases to others: the machine of a guard.
//!
//! ```text
//!             reign                 enough grants            serve
//!   idle ───────────────▶ asking ───────────────▶ leased ───────────▶ serving
//!    ▲                                                                  │ the lease ends, or a
//!    │                         PostgreSQL has ended                     ▼ later epoch is promised
//!    └────────────────────────────────────────────────────────────── killing
//! ```
//!
//! A guard forgets everything when it ends, and PostgreSQL ends with it. What it may have granted
//! before is the reason why a new one keeps a promise waiting for as long as a grant lasts.
//! It decides nothing about who should be primary, and touches no disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel_model::time::Timestamp;

use crate::lease::{Incarnation, Lease, Message};
use crate::position::Epoch;
use crate::quorum::Member;
use crate::record::Goal;
use crate::settings::{Defect, LeaseTimes};

/// What a guard is told when it starts.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The times of leases.
    pub times: LeaseTimes,
    /// What its member has promised, from the disk. `None` if the disk does not know: then it
    /// grants nothing until it is told.
    pub promised: Option<Epoch>,
    /// A number that no guard of this member had before, with room for its successors.
    pub first: Incarnation,
    /// A bug.
    pub defect: Option<Defect>,
}

/// Something that a guard hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node wants to be the primary of this epoch, by the grants of this goal's voters. Said
    /// again with a later goal, it changes over as soon as the lease holds by that.
    Reign {
        /// The epoch.
        epoch: Epoch,
        /// By whose grants.
        goal: Goal,
    },
    /// The node is about to start PostgreSQL as the primary, or to promote it.
    Serve {
        /// The epoch.
        epoch: Epoch,
    },
    /// The member has promised this epoch, on disk.
    Promise {
        /// The epoch.
        epoch: Epoch,
    },
    /// Another guard says something.
    Message {
        /// Whose.
        from: Member,
        /// What.
        message: Message,
    },
    /// Every process of PostgreSQL is gone.
    Ended,
}

/// Something that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Say this to another guard.
    Send {
        /// Whose.
        to: Member,
        /// What.
        message: Message,
    },
    /// PostgreSQL may be started as the primary, or promoted, now.
    Serve {
        /// The epoch.
        epoch: Epoch,
    },
    /// Kill every process of PostgreSQL (SIGKILL).
    Kill,
}

/// Someone's wish to be primary.
#[derive(Debug)]
struct Reign {
    lease: Lease,
    goal: Goal,
    /// The next goal, by which the lease does not hold yet.
    next: Option<Goal>,
    ask_at: Timestamp,
    serving: Serving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    No,
    Yes,
    Killing,
}

/// A guard.
#[derive(Debug)]
pub struct Guard {
    settings: Settings,
    promised: Option<Epoch>,
    /// Until when what a guard before this one granted may last.
    inherited_until: Timestamp,
    /// Until when what this one granted may last.
    given: BTreeMap<(Member, Epoch, Incarnation), Timestamp>,
    reign: Option<Reign>,
    incarnation: Incarnation,
    actions: VecDeque<Action>,
}

impl Reign {
    /// Returns the voters of both goals.
    fn voters(&self) -> impl Iterator<Item = Member> + '_ {
        let goals = std::iter::once(&self.goal).chain(&self.next);
        let voters: BTreeSet<Member> = goals.flat_map(|goal| &goal.set.voters).copied().collect();
        voters.into_iter()
    }

    /// Returns until when the lease lasts by a goal.
    fn lasts_until(&self, goal: &Goal) -> Option<Timestamp> {
        self.lease.lasts_until(&goal.set)
    }
}

impl Guard {
    /// Starts one.
    #[must_use]
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        let wait = match settings.defect {
            Some(Defect::PromisesAtOnce) => Duration::ZERO,
            _ => settings.times.voter_wait(),
        };
        Self {
            settings,
            promised: settings.promised,
            inherited_until: now + wait,
            given: BTreeMap::new(),
            reign: None,
            incarnation: settings.first,
            actions: VecDeque::new(),
        }
    }

    /// Takes in what has happened.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Reign { epoch, goal } => self.reign(epoch, goal, now),
            Event::Serve { epoch } => {
                let leased = self.lease(now).is_some_and(|(leased, _)| leased == epoch)
                    || self.settings.defect == Some(Defect::ServesWithoutGrants);
                if let Some(reign) = &mut self.reign
                    && reign.lease.epoch == epoch
                    && leased
                    && reign.serving == Serving::No
                {
                    reign.serving = Serving::Yes;
                    self.actions.push_back(Action::Serve { epoch });
                }
            }
            Event::Promise { epoch } => {
                self.promised = self.promised.max(Some(epoch));
                if self.reign.as_ref().is_some_and(|reign| !self.allows(reign.lease.epoch)) {
                    self.give_up();
                }
            }
            Event::Message { from, message } => self.take(from, message, now),
            Event::Ended => self.end(),
        }
        self.handle_timeout(now);
    }

    /// Returns whether nothing that was promised speaks against a primary of this epoch.
    fn allows(&self, epoch: Epoch) -> bool {
        self.promised.is_some_and(|promised| epoch >= promised)
    }

    fn reign(&mut self, epoch: Epoch, goal: Goal, now: Timestamp) {
        if !self.allows(epoch) {
            return;
        }
        match &mut self.reign {
            Some(reign) if reign.lease.epoch == epoch => {
                if reign.goal.number < goal.number {
                    reign.next = Some(goal);
                }
            }
            Some(reign) if reign.lease.epoch > epoch || reign.serving != Serving::No => {}
            Some(_) | None => {
                let lease = Lease::new(epoch, self.incarnation);
                let serving = Serving::No;
                self.reign = Some(Reign { lease, goal, next: None, ask_at: now, serving });
            }
        }
    }

    /// Ends the wish to be primary, and first PostgreSQL, if it may be one.
    fn give_up(&mut self) {
        match &mut self.reign {
            Some(reign) if reign.serving == Serving::Yes => {
                reign.serving = Serving::Killing;
                self.actions.push_back(Action::Kill);
            }
            Some(reign) if reign.serving == Serving::Killing => {}
            Some(_) | None => self.end(),
        }
    }

    /// Drops the lease, and gives back what was granted, now that PostgreSQL has ended. A lease of
    /// later has nothing to do with this one.
    fn end(&mut self) {
        let Some(reign) = self.reign.take() else { return };
        self.incarnation = Incarnation(self.incarnation.0 + 1);
        let Lease { epoch, incarnation, .. } = reign.lease;
        for to in reign.voters() {
            let message = Message::Stopped { epoch, incarnation };
            self.actions.push_back(Action::Send { to, message });
        }
        if self.settings.defect == Some(Defect::StoppedDoesNotBind) {
            self.reign = Some(Reign { serving: Serving::No, ..reign });
        }
    }

    fn take(&mut self, from: Member, message: Message, now: Timestamp) {
        match message {
            Message::Ask { epoch, incarnation, nonce } => {
                if self.allows(epoch) {
                    let until = now + self.settings.times.voter_wait();
                    self.given.retain(|_, until| *until > now);
                    self.given.insert((from, epoch, incarnation), until);
                    let message = Message::Grant { epoch, incarnation, nonce };
                    self.actions.push_back(Action::Send { to: from, message });
                }
            }
            Message::Grant { epoch, incarnation, nonce } => {
                let term = self.settings.times.term;
                if let Some(reign) = &mut self.reign
                    && (reign.lease.epoch, reign.lease.incarnation) == (epoch, incarnation)
                {
                    reign.lease.take(from, nonce, term);
                }
            }
            Message::Stopped { epoch, incarnation } => {
                self.given.remove(&(from, epoch, incarnation));
            }
        }
    }

    /// Does what is due. Harmless when early.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let Some(reign) = &mut self.reign else { return };
        if let Some(next) = reign
            .next
            .take_if(|next| reign.lease.lasts_until(&next.set).is_some_and(|until| until > now))
        {
            reign.goal = next;
        }
        let lapsed = reign.lasts_until(&reign.goal).is_none_or(|until| until <= now);
        let obeys = self.settings.defect != Some(Defect::ServesWithoutGrants);
        if reign.serving == Serving::Yes && lapsed && obeys {
            reign.serving = Serving::Killing;
            self.actions.push_back(Action::Kill);
        }
        if reign.serving != Serving::Killing && reign.ask_at <= now {
            let times = self.settings.times;
            let question = reign.lease.ask(times.term, now);
            let asked = reign.voters().map(|to| Action::Send { to, message: question });
            self.actions.extend(asked);
            reign.ask_at = now + times.renew_every;
        }
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let reign = self.reign.as_ref().filter(|reign| reign.serving != Serving::Killing)?;
        let end = reign.lasts_until(&reign.goal).filter(|_| reign.serving == Serving::Yes);
        Some(end.map_or(reign.ask_at, |end| end.min(reign.ask_at)))
    }

    /// Returns the next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the epoch of the lease that holds now, and until when. This is what the relay looks
    /// at before it passes a reply on.
    #[must_use]
    pub fn lease(&self, now: Timestamp) -> Option<(Epoch, Timestamp)> {
        let reign = self.reign.as_ref().filter(|reign| reign.serving != Serving::Killing)?;
        let until = reign.lasts_until(&reign.goal).filter(|until| *until > now)?;
        Some((reign.lease.epoch, until))
    }

    /// Returns the number of the goal by which the lease holds, or is to.
    #[must_use]
    pub fn goal(&self) -> Option<u64> {
        self.reign.as_ref().map(|reign| reign.goal.number)
    }

    /// Returns whether PostgreSQL is to be killed and has not ended yet.
    #[must_use]
    pub fn is_killing(&self) -> bool {
        self.reign.as_ref().is_some_and(|reign| reign.serving == Serving::Killing)
    }

    /// Returns the epoch that the member has promised, as far as it was told.
    #[must_use]
    pub const fn promised(&self) -> Option<Epoch> {
        self.promised
    }

    /// Returns the epoch below which nothing is granted any more, all that was granted has run
    /// out, and no PostgreSQL of this member is a primary: the guard's part of a promise.
    #[must_use]
    pub fn ready(&self, now: Timestamp) -> Epoch {
        let Some(promised) = self.promised else { return Epoch::NONE };
        let granted =
            self.given.iter().any(|((_, epoch, _), until)| *epoch < promised && *until > now);
        let reigns = self
            .reign
            .as_ref()
            .is_some_and(|reign| reign.lease.epoch < promised && reign.serving != Serving::No);
        if now < self.inherited_until || granted || reigns { Epoch::NONE } else { promised }
    }
}
