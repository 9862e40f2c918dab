//! The leader's machine: watches every host and has the plan changed when the system is not as
//! wanted.
//!
//! ```text
//!            all hosts heard, or one TTL over           wanted plan differs
//!  Observing ────────────────────────────────▶ Watching ───────────────────▶ Storing
//!                                                  ▲      stored, refused       │
//!                                                  └────────────────────────────┘
//! ```
//! One plan is under way at a time. Everything it knows beyond the stored plan is lost with the
//! leader and observed anew by the next one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evenkeel_model::instance::{InstanceId, InstancePhase};
use evenkeel_model::name::HostName;
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;

use crate::declaration::Wanted;
use crate::hosts::HostTable;
use crate::members::{MembersPlanner, MembersStep, Membership};
use crate::plan::Plan;
use crate::planner::{HostView, Inventory, next_plan};
use crate::redundancy::{Redundancy, redundancy};
use crate::report::{HostReport, InstanceState, LeaderAnswer};

/// Hosts up to which the leader looks at everything after each change, and the time that each host
/// beyond that adds between two looks.
const HOSTS_AT_ONCE: u32 = 64;
const GATHERING_EACH: Duration = Duration::from_micros(100);

/// How patient the leader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A host that is not heard for this long is no longer up.
    pub ttl: Duration,
    /// A host must have been up for this long before replicas move to it only to spread better.
    pub settle: Duration,
    /// Most moves under way at any time only to spread better.
    pub moves_max: usize,
    /// Time until a refused plan is tried again.
    pub retry: Duration,
    /// A rule that is broken on purpose, so that a simulator can show that it notices.
    pub defect: Option<Defect>,
}

impl Settings {
    /// The product's settings: a host is lost after four missed heartbeats.
    pub const STANDARD: Self = Self {
        ttl: Duration::from_secs(1),
        settle: Duration::from_secs(3),
        moves_max: 2,
        retry: Duration::from_millis(250),
        defect: None,
    };
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A new leader counts every host as lost until it is heard.
    LeasesNotExtended,
    /// A new leader plans before it has heard the hosts or given them the time to report.
    PlansBeforeObserving,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A host reported.
    Heartbeat(HostReport),
    /// The plan with this number is stored durably.
    PlanStored(u64),
    /// The plan with this number was not stored, or nobody knows whether it was.
    PlanRefused(u64),
    /// The store was seen to hold this plan.
    PlanSeen(Plan),
    /// This is who takes part in the coordinator by now.
    MembersSeen(Membership),
    /// The store was seen to want this; what is older than known already changes nothing.
    WantedSeen(Wanted),
    /// This process did not run between the moment and now, so it could hear nobody: paused, or
    /// on a machine that stood still.
    Held(Timestamp),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Store the plan if the stored one still has the number `parent`, then report
    /// [`Event::PlanStored`] or [`Event::PlanRefused`].
    StorePlan(Plan),
    /// Have the coordinator make this change of who takes part, if it can. Asked again for as long
    /// as [`Event::MembersSeen`] does not show it.
    ChangeMembers(MembersStep),
}

/// What the leader does for the system as a whole. Made at election, dropped when another leads.
#[derive(Debug)]
pub struct Controller {
    wanted: Wanted,
    settings: Settings,
    term: u64,
    hosts: HostTable,
    members: MembersPlanner,
    /// Who takes part in the coordinator, once that is known.
    membership: Option<Membership>,
    plan: Plan,
    /// The plan that is being stored.
    pending: Option<Plan>,
    /// The highest number ever given to a plan by this leader.
    number_max: u64,
    /// No plan is made before: the whole inventory is to be heard first.
    observing_until: Timestamp,
    /// No plan is made before, after a refusal.
    retry_at: Timestamp,
    /// Draining replicas and when their time is over.
    draining: BTreeMap<InstanceId, Timestamp>,
    /// Since when each ready replica has been so without a gap.
    ready_since: BTreeMap<InstanceId, Timestamp>,
    next_at: Option<Timestamp>,
    /// Whether something that a plan depends on may have changed since the last look.
    stale: bool,
    /// Whether a new definition is on its way to replicas: then time alone may bring it forward.
    changing: bool,
    looked_at: Option<Timestamp>,
    /// What the system lacked at the last look.
    missing: Vec<String>,
    actions: VecDeque<Action>,
}

impl Controller {
    /// Starts to lead in `term`, with the plan that the store holds and what it wants.
    #[must_use]
    pub fn new(
        wanted: Wanted,
        settings: Settings,
        term: u64,
        plan: Option<Plan>,
        now: Timestamp,
    ) -> Self {
        let expires = match settings.defect {
            Some(Defect::LeasesNotExtended) => now,
            None | Some(Defect::PlansBeforeObserving) => now + settings.ttl,
        };
        let plan = plan.unwrap_or_else(Plan::empty);
        let names = wanted.system().hosts.keys().cloned();
        let hosts = HostTable::new(names, settings.ttl, expires, now);
        let mut controller = Self {
            number_max: plan.number,
            wanted,
            settings,
            term,
            hosts,
            members: MembersPlanner::default(),
            membership: None,
            plan,
            pending: None,
            observing_until: expires,
            retry_at: now,
            draining: BTreeMap::new(),
            ready_since: BTreeMap::new(),
            next_at: Some(now),
            stale: true,
            changing: true,
            looked_at: None,
            missing: Vec::new(),
            actions: VecDeque::new(),
        };
        controller.follow_voting();
        controller.follow_draining(now);
        controller.missing = controller.redundancy(now).missing;
        controller
    }

    /// Takes a fact in.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Heartbeat(report) => {
                self.note_ready(&report, now);
                self.stale |= self.hosts.handle_report(report, now);
            }
            Event::PlanStored(number) => {
                if let Some(plan) = self.pending.take_if(|plan| plan.number == number) {
                    self.adopt(plan, now);
                }
            }
            Event::PlanRefused(number) => {
                if self.pending.take_if(|plan| plan.number == number).is_some() {
                    self.stale = true;
                    self.retry_at = now + self.settings.retry;
                }
            }
            Event::PlanSeen(plan) => {
                if plan.number > self.plan.number {
                    self.pending.take_if(|pending| pending.number <= plan.number);
                    self.adopt(plan, now);
                }
            }
            Event::MembersSeen(membership) => self.see_members(membership, now),
            Event::WantedSeen(wanted) => {
                if self.wanted.update(wanted) {
                    self.follow_voting();
                    self.stale = true;
                    let names = self.wanted.system().hosts.keys().cloned();
                    self.hosts.set_hosts(names, now);
                }
            }
            Event::Held(since) => {
                self.hosts.extend(since, now);
                // Who was held while it listened has yet to hear the hosts.
                if since < self.observing_until {
                    self.observing_until = self.observing_until.max(now + self.settings.ttl);
                }
                self.stale = true;
            }
        }
        self.decide(now);
    }

    /// Does what time alone makes due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.decide(now);
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_at
    }

    /// Returns the next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the answer to a host whose report names `plan_number`.
    #[must_use]
    pub fn answer_for(&self, plan_number: u64, now: Timestamp) -> LeaderAnswer {
        LeaderAnswer {
            term: self.term,
            plan: (self.plan.number > plan_number).then(|| self.plan.clone()),
            hosts: self.hosts.states(now),
            missing: self.missing.clone(),
        }
    }

    /// Returns the stored plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns what the store wants.
    #[must_use]
    pub const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Returns the leases.
    #[must_use]
    pub const fn hosts(&self) -> &HostTable {
        &self.hosts
    }

    /// Returns what the system lacks.
    #[must_use]
    pub fn redundancy(&self, now: Timestamp) -> Redundancy {
        redundancy(&self.wanted, &self.plan, &self.inventory(now), &self.hosts, now)
    }

    /// Takes in who takes part in the coordinator, and says what is to change.
    fn see_members(&mut self, membership: Membership, now: Timestamp) {
        let hosts = &self.hosts;
        let is_up = |host: &HostName| hosts.is_up(host, now);
        let (system, drained) = (self.wanted.system(), &self.wanted.drained);
        let step = self.members.next_step(system, drained, &membership, is_up, now);
        if now >= self.observing_until {
            self.actions.extend(step.map(Action::ChangeMembers));
        }
        self.membership = Some(membership);
        self.follow_voting();
    }

    /// Wants those to take part who do: the coordinator's log says who, or until that is known, the
    /// plan in force.
    fn follow_voting(&mut self) {
        let known = self.membership.as_ref().map(|membership| membership.voting.clone());
        let Some(voting) = known.or_else(|| self.plan.system().map(System::voting)) else { return };
        self.stale |= self.plan.system().is_some_and(|system| system.voting() != voting);
        let wanted = &mut self.wanted.declaration;
        if wanted.system.voting() != voting {
            *wanted = wanted.with_voting(&voting);
        }
    }

    /// Follows which replicas of the reporting host are ready.
    fn note_ready(&mut self, report: &HostReport, now: Timestamp) {
        for instance in &report.instances {
            if instance.state == InstanceState::Ready {
                self.ready_since.entry(instance.id.clone()).or_insert(now);
            } else {
                self.ready_since.remove(&instance.id);
            }
        }
    }

    fn adopt(&mut self, plan: Plan, now: Timestamp) {
        self.stale = true;
        self.number_max = self.number_max.max(plan.number);
        self.plan = plan;
        self.follow_voting();
        let plan = &self.plan;
        self.ready_since.retain(|id, _| plan.instance(id).is_some());
        self.follow_draining(now);
    }

    /// Gives each newly draining replica its time, counted from when the last host that is still
    /// up must know of it.
    fn follow_draining(&mut self, now: Timestamp) {
        let mut draining = BTreeMap::new();
        for instance in &self.plan.instances {
            if instance.phase == InstancePhase::Draining {
                let service = self.plan.definition(instance);
                let drain = service.map_or(Duration::ZERO, |service| service.drain);
                let due = now + self.settings.ttl + drain;
                let due = self.draining.get(&instance.id).copied().unwrap_or(due);
                draining.insert(instance.id.clone(), due);
            }
        }
        self.draining = draining;
    }

    /// Looks at everything again, unless nothing has changed since the last look and no moment has
    /// come: with many hosts, most reports say what the last one said.
    fn decide(&mut self, now: Timestamp) {
        if !self.stale && !self.changing && self.next_at.is_none_or(|at| now < at) {
            return;
        }
        if let Some(look_at) = self.looked_at.map(|at| at + self.gathering()).filter(|at| now < *at)
        {
            self.next_at = Some(look_at);
            return;
        }
        self.stale = false;
        self.looked_at = Some(now);
        self.make_plan(now);
        self.missing = self.redundancy(now).missing;
        self.changing = self.is_changing();
        let moments = self.draining.values().copied().chain([self.observing_until, self.retry_at]);
        self.next_at = moments
            .filter(|moment| *moment > now)
            .chain(self.hosts.next_change(self.settings.settle, now))
            .min();
    }

    /// Returns the time between two looks: none in a system of ordinary size. In a very large one a
    /// thousand hosts would report each a change, after the loss of a region, and each would cost a
    /// look at all of them.
    fn gathering(&self) -> Duration {
        let hosts = u32::try_from(self.wanted.system().hosts.len()).unwrap_or(u32::MAX);
        GATHERING_EACH.saturating_mul(hosts.saturating_sub(HOSTS_AT_ONCE))
    }

    /// Returns whether any replica runs another definition than new ones would, or a definition is
    /// on its way.
    fn is_changing(&self) -> bool {
        let plan = &self.plan;
        let revision = self.wanted.declaration.revision;
        plan.revision != revision
            || plan.releases.values().any(|release| release.next.is_some())
            || plan.instances.iter().any(|instance| instance.revision != revision)
    }

    fn make_plan(&mut self, now: Timestamp) {
        let observing = now < self.observing_until
            && !self.hosts.all_heard()
            && self.settings.defect != Some(Defect::PlansBeforeObserving);
        if observing || self.pending.is_some() || now < self.retry_at {
            return;
        }
        let inventory = self.inventory(now);
        let number = self.number_max + 1;
        let voting = self.wanted.system().voting();
        let voted = self.plan.system().is_some_and(|system| system.voting() != voting);
        let voted = voted.then(|| self.plan.with_voting(&voting));
        let current = voted.as_ref().unwrap_or(&self.plan);
        let next = next_plan(&self.wanted, current, &inventory, number);
        if let Some(plan) = next.or(voted.map(|plan| Plan { number, parent: plan.number, ..plan }))
        {
            self.number_max = number;
            self.pending = Some(plan.clone());
            self.actions.push_back(Action::StorePlan(plan));
        }
    }

    fn inventory(&self, now: Timestamp) -> Inventory<'_> {
        let view = |host: &HostName| HostView {
            up: self.hosts.is_up(host, now),
            settled: self.hosts.is_settled(host, self.settings.settle, now),
            report: self.hosts.report(host),
        };
        let drained = self.draining.iter().filter(|(_, due)| **due <= now);
        let hosts = self.wanted.system().hosts.keys();
        let ready = self.ready_since.iter();
        Inventory {
            hosts: hosts.map(|host| (host.clone(), view(host))).collect(),
            drained: drained.map(|(id, _)| id.clone()).collect(),
            ready_for: ready.map(|(id, since)| (id.clone(), now.since(*since))).collect(),
            moves_max: self.settings.moves_max,
        }
    }
}
