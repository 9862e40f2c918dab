//! The store: one register for the plan, and somebody who leads.

use std::time::Duration;

use evenkeel_control::plan::Plan;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::event::Event;

use super::{Happening, ROLE_TICK, World};

/// The plan and its leader.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) plan: Option<Plan>,
    pub(super) leader: Option<usize>,
    pub(super) term: u64,
    /// Counts plans.
    pub(super) plans: u64,
    /// When the next leader is elected.
    elect_at: Option<Timestamp>,
}

impl World {
    /// A plan arrives: it is stored if its author leads and it replaces the plan that it was
    /// derived from.
    pub(super) fn take_plan(&mut self, host: usize, life: u64, term: u64, plan: Plan) {
        let number = plan.number;
        let stored = self.store.plan.as_ref().map_or(0, |plan| plan.number);
        let leads = self.store.leader == Some(host) && self.store.term == term;
        let accepted = leads && plan.parent == stored && self.has_majority(host);
        let name = &self.names[host];
        let word = if accepted { "stored" } else { "refused" };
        let text = super::invariants::describe(&plan);
        self.transcript.line(self.now, format_args!("{name}: plan {number} is {word}: {text}"));
        if accepted {
            self.check_plan(&plan);
            self.store.plan = Some(plan.clone());
            self.store.plans += 1;
        }
        // An author may never learn that its plan was stored.
        let unknown = accepted && self.storming && self.rng.chance(1, 10);
        let event = if accepted && !unknown {
            Event::PlanStored { number }
        } else {
            Event::PlanRefused { number }
        };
        let wait = self.draw_millis(1, 20);
        self.after(wait, Happening::Tell { host, life, event });
        if let Some(plan) = self.store.plan.clone().filter(|_| !accepted || unknown) {
            let wait = self.draw_millis(1, 20);
            self.after(wait, Happening::Tell { host, life, event: Event::PlanSeen { plan } });
        }
        if accepted {
            self.spread_plan(host, &plan);
        }
    }

    /// Some hosts see the new plan at once, because they vote.
    fn spread_plan(&mut self, author: usize, plan: &Plan) {
        for host in (0..self.hosts.len()).take(3) {
            if let Some(wait) = self.travel(author, host) {
                let life = self.hosts[host].life;
                let event = Event::PlanSeen { plan: plan.clone() };
                self.after(wait, Happening::Tell { host, life, event });
            }
        }
    }

    /// Sees to it that somebody leads who can, and that everybody hears of it.
    pub(super) fn look_at_roles(&mut self) {
        self.after(ROLE_TICK, Happening::RoleTick);
        let able = |world: &Self, host: usize| {
            world.hosts[host].core.is_some() && world.has_majority(host)
        };
        if self.store.leader.is_some_and(|leader| !able(self, leader)) {
            self.store.leader = None;
        }
        if self.store.leader.is_none() {
            let wait = self.draw_millis(150, 600);
            let elect_at = *self.store.elect_at.get_or_insert(self.now + wait);
            let candidates: Vec<usize> =
                (0..self.hosts.len()).filter(|host| able(self, *host)).collect();
            if elect_at <= self.now && !candidates.is_empty() {
                let leader = candidates[self.rng.index(candidates.len())];
                self.store.leader = Some(leader);
                self.store.term += 1;
                self.store.elect_at = None;
                let (name, term) = (&self.names[leader], self.store.term);
                self.transcript.line(self.now, format_args!("{name}: leads in term {term}"));
            }
        }
        for host in 0..self.hosts.len() {
            self.tell_role(host);
        }
        self.check_leases();
    }

    /// Tells a host who leads: when that is news to it, and now and then again.
    fn tell_role(&mut self, host: usize) {
        if self.hosts[host].core.is_none() {
            return;
        }
        let leader = self.store.leader.filter(|leader| self.is_linked(*leader, host));
        let known = self.hosts[host].told;
        let term = match leader {
            Some(_) => self.store.term,
            None => known.map_or(0, |(_, term)| term),
        };
        let news = known != Some((leader, term));
        // Who has lost its leader, or its office, notices it late.
        let notices = if leader.is_none() { self.rng.chance(1, 5) } else { true };
        if (news && notices) || self.rng.chance(1, 50) {
            self.hosts[host].told = Some((leader, term));
            let plan = self.store.plan.clone().filter(|_| leader == Some(host));
            let leader = leader.map(|leader| self.names[leader].clone());
            self.tell_soon(host, Event::Role { leader, term, plan, wanted: None });
        }
    }

    /// A leader whose node process is gone leads no more.
    pub(super) fn leave_office(&mut self, host: usize) {
        if self.store.leader == Some(host) {
            self.store.leader = None;
        }
    }

    /// Ends a leader's term for no reason at all; another host leads next.
    pub(super) fn depose(&mut self) {
        let Some(old) = self.store.leader else { return };
        let next = (old + 1) % self.hosts.len();
        self.store.leader = Some(next);
        self.store.term += 1;
        let (name, term) = (&self.names[next], self.store.term);
        self.transcript.line(self.now, format_args!("{name}: takes over in term {term}"));
    }

    /// Returns how long a message is under way, `None` if it is lost.
    pub(super) fn travel(&mut self, from: usize, to: usize) -> Option<Duration> {
        if !self.is_linked(from, to) || self.rng.chance(self.weather.lost(), 1000) {
            return None;
        }
        let late = self.rng.chance(self.weather.late(), 1000);
        Some(self.draw_millis(1, if late { 3000 } else { 30 }))
    }

    /// Returns whether a host reaches most hosts, itself included.
    pub(super) fn has_majority(&self, host: usize) -> bool {
        let reached = (0..self.hosts.len())
            .filter(|other| self.hosts[*other].core.is_some() && self.is_linked(host, *other));
        reached.count() * 2 > self.hosts.len()
    }
}
