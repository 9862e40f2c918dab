//! The plan in the replicated store: how it is read, replaced by compare-and-set, and seen.

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, Query, Space};
use evenkeel_control::declaration::Declaration;
use evenkeel_control::plan::Plan;
use evenkeel_node_core::event::Event;

use super::World;
use super::calls::Refusal;
use super::effort::Asker;
use super::happening::{Happening, NodeLife};
use super::plan_text;
use crate::clients::Request;

/// The plan's key among the system's.
pub(super) const PLAN: &str = "plan";

/// Time between two tries to read the stored plan after an election.
const OFFICE_RETRY: Duration = Duration::from_millis(50);

fn read_request() -> Request {
    Request::Question(query())
}

fn query() -> Query {
    Query::Get { space: Space::System, key: PLAN.to_owned(), at: None }
}

/// Returns the plan in an answer, with the revision of its key.
fn parse(answer: &Answer, known: &Declaration) -> Result<Option<(Plan, u64)>, String> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other is an answer to the question")]
    match answer {
        Answer::Value { version, .. } => {
            let plan = plan_text::decode(&version.value, known)
                .ok_or_else(|| "a stored plan cannot be read".to_owned())?;
            Ok(Some((plan, version.revision)))
        }
        Answer::Absent { .. } => Ok(None),
        answer => Err(format!("the plan's key was answered {answer:?}")),
    }
}

impl World {
    /// The loop looks at who leads. On the leader itself the stored plan is read first.
    pub(super) fn announce(&mut self, at: NodeLife) {
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        node.announcing = false;
        let view = node.view;
        if view.leader == Some(at.host) && view.is_self {
            return self.take_office(at, view.term);
        }
        let leader = view.leader.filter(|leader| *leader != at.host);
        let leader = leader.map(|leader| self.names[leader].clone());
        self.tell_role(at, Event::Role { leader, term: view.term, plan: None, wanted: None });
    }

    /// Reads the stored plan, as often as needed.
    pub(super) fn take_office(&mut self, at: NodeLife, term: u64) {
        if self.leads_in(at, term) {
            self.execute(at, Asker::Office { term }, read_request(), 0);
        }
    }

    fn leads_in(&mut self, at: NodeLife, term: u64) -> bool {
        let node = self.hosts[at.host].node_mut(at.life);
        node.is_some_and(|node| node.view.is_self && node.view.term == term)
    }

    /// The plan was read: the host leads from now on, unless it has lost its office meanwhile.
    pub(super) fn office_read(&mut self, at: NodeLife, term: u64, result: Result<Answer, Refusal>) {
        if !self.leads_in(at, term) {
            return;
        }
        let Ok(answer) = result else {
            return self.after(OFFICE_RETRY, Happening::TakeOffice { at, term });
        };
        match parse(&answer, &self.declaration) {
            Ok(read) => {
                let leader = Some(self.names[at.host].clone());
                let plan = read.map(|(plan, _)| plan);
                let name = &self.names[at.host];
                self.transcript.line(self.now, format_args!("{name}: in office in term {term}"));
                self.tell_role(at, Event::Role { leader, term, plan, wanted: None });
            }
            Err(violation) => self.violate(violation),
        }
    }

    /// Tells the loop who leads. What a leader has heard counts from its election on.
    fn tell_role(&mut self, at: NodeLife, event: Event) {
        if let Some(node) = self.hosts[at.host].node_mut(at.life)
            && let Event::Role { term, .. } = &event
        {
            let status = node.core.status(node.clock.read(self.now));
            if !status.is_leader || status.term != *term {
                node.heard.clear();
                node.heard.insert(at.host);
            }
        }
        self.touch(at, |core, now| core.handle_event(event, now));
    }

    /// Stores a plan if the stored one still has the number of its parent: first that is read.
    pub(super) fn store_plan(&mut self, at: NodeLife, plan: Plan) {
        self.execute(at, Asker::StoreRead { plan }, read_request(), 0);
    }

    pub(super) fn replace_plan(
        &mut self,
        at: NodeLife,
        plan: Plan,
        result: Result<Answer, Refusal>,
    ) {
        let number = plan.number;
        let present = match result.as_ref().map(|answer| parse(answer, &self.declaration)) {
            Ok(Ok(present)) => present,
            Ok(Err(violation)) => return self.violate(violation),
            Err(_) => return self.tell_soon_at(at, Event::PlanRefused { number }),
        };
        let stored = present.as_ref().map_or(0, |(plan, _)| plan.number);
        if stored != plan.parent {
            // In this order, as the loop is told both by one queue.
            let seen = present.map(|(plan, _)| Event::PlanSeen { plan });
            let wait = self.draw_millis(0, 2);
            for event in seen.into_iter().chain([Event::PlanRefused { number }]) {
                self.after(wait, Happening::Tell { at, event: Box::new(event) });
            }
            return;
        }
        let expect = present.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
        let put = Change::Put {
            space: Space::System,
            key: PLAN.to_owned(),
            value: Bytes::from(plan_text::encode(&plan)),
            expect,
            lease: None,
        };
        let request = Request::Change(Command { change: put, idempotency: None });
        self.execute(at, Asker::StorePut { number }, request, 0);
    }

    pub(super) fn plan_put(&mut self, at: NodeLife, number: u64, result: &Result<Answer, Refusal>) {
        let stored = matches!(result, Ok(Answer::Written { .. }));
        let word = if stored { "stored" } else { "not stored" };
        let name = &self.names[at.host];
        self.transcript.line(self.now, format_args!("{name}: plan {number} is {word}"));
        let event =
            if stored { Event::PlanStored { number } } else { Event::PlanRefused { number } };
        self.tell_soon_at(at, event);
    }

    fn tell_soon_at(&mut self, at: NodeLife, event: Event) {
        let wait = self.draw_millis(0, 2);
        self.after(wait, Happening::Tell { at, event: Box::new(event) });
    }

    /// Reads the plan that this host's own member has applied last, and tells the loop.
    pub(super) fn look_at_plan(&mut self, at: NodeLife) {
        if let Some(plan) = self.applied_plan(at.host) {
            self.tell_soon_at(at, Event::PlanSeen { plan });
        }
    }

    pub(super) fn applied_plan(&self, host: usize) -> Option<Plan> {
        let answer = self.hosts[host].replica()?.keys().query(&query());
        parse(&answer, &self.declaration).ok().flatten().map(|(plan, _)| plan)
    }
}
