//! Carries out requests to the store as `evenkeel-coordinator` does: here when this host leads,
//! otherwise at the leader.
//!
//! - *not applied* (no leader, not delivered, refused by a follower): it is tried again;
//! - *lost* (delivered, but no answer): only a question, or a change with an idempotency key, is
//!   tried again; any other change has an unknown outcome.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::replica::Event;
use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::health::Identity;
use evenkeel_model::time::Timestamp;

use super::World;
use super::act::CONNECT_MAX;
use super::calls::{CallId, Caller, Outcome, Question, Refusal, Reply, Target};
use super::happening::{Happening, NodeLife};
use crate::clients::Request;

/// Time for a request, over all tries.
const DEADLINE: Duration = Duration::from_secs(3);
/// Time since there was a leader for which requests wait for the next one.
const ELECTION_PATIENCE: Duration = Duration::from_secs(2);
/// Time after which a try that may not be repeated is given up when another host leads by now.
const TRY_PATIENCE: Duration = Duration::from_secs(1);
/// Time for a leader with a full disk to hand over.
const DISK_FULL_PATIENCE: Duration = Duration::from_millis(500);
/// Pause between tries, unless the leader changes.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a request may be forwarded.
const HOPS_MAX: u8 = 2;

/// One request and everything that was tried for it.
#[derive(Debug)]
pub(super) struct Effort {
    asker: Asker,
    request: Request,
    hops: u8,
    /// Who leads, as another host said.
    hint: Option<usize>,
    unreachable: BTreeSet<usize>,
    begun: Timestamp,
    /// Whether an earlier try may have been applied.
    lost: bool,
    /// Counts tries and pauses.
    attempt: u64,
    attempt_begun: Timestamp,
    state: State,
}

/// Who wants the answer.
#[derive(Debug)]
pub(super) enum Asker {
    Call(CallId),
    /// A new leader that reads the plan.
    Office {
        term: u64,
    },
    /// A leader that stores a plan: what it replaces is read first.
    StoreRead {
        plan: Plan,
    },
    StorePut {
        number: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pausing,
    Here,
    At { voter: usize, target: usize, call: CallId },
}

/// What became of one try.
enum Tried {
    Done(Answer),
    /// Surely not applied, and another try would fare no better.
    Refused(Refusal),
    NotApplied {
        disk_full: bool,
    },
    Lost,
}

/// Where to try.
enum Way {
    Here,
    At { voter: usize, target: usize },
    Wait,
    GiveUp(Refusal),
}

impl World {
    /// Begins a request that was forwarded `hops` times.
    pub(super) fn execute(&mut self, at: NodeLife, asker: Asker, request: Request, hops: u8) {
        let (number, now) = (self.next_number(), self.now);
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let effort = Effort {
            asker,
            request,
            hops,
            hint: None,
            unreachable: BTreeSet::new(),
            begun: now,
            lost: false,
            attempt: 0,
            attempt_begun: now,
            state: State::Pausing,
        };
        node.efforts.insert(number, effort);
        self.try_effort(at, number);
    }

    /// Begins the next try.
    fn try_effort(&mut self, at: NodeLife, number: u64) {
        let now = self.now;
        let way = self.way(at, number);
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let Some(effort) = node.efforts.get_mut(&number) else { return };
        effort.attempt += 1;
        effort.attempt_begun = now;
        let (attempt, request) = (effort.attempt, effort.request.clone());
        let left = (effort.begun + DEADLINE).since(now);
        match way {
            Way::Here => {
                effort.state = State::Here;
                let full = node.log_full && matches!(request, Request::Change(_));
                if full {
                    let tried = Tried::NotApplied { disk_full: true };
                    return self.tried(at, number, tried);
                }
                self.after(left, Happening::EffortDue { at, effort: number, attempt });
                self.ask_member(at, number, attempt, request);
            }
            Way::At { voter, target } => {
                let hops = effort.hops + 1;
                let caller = Caller::Effort { at, effort: number, attempt };
                let question = Question::Execute { request, hops };
                let (from, node) = (at.host, Target::Node);
                let call = self.call(caller, from, voter, node, question, CONNECT_MAX, left);
                self.set_state(at, number, State::At { voter, target, call });
            }
            Way::Wait => self.tried(at, number, Tried::NotApplied { disk_full: false }),
            Way::GiveUp(refusal) => self.tried(at, number, Tried::Refused(refusal)),
        }
    }

    fn set_state(&mut self, at: NodeLife, number: u64, state: State) {
        let node = self.hosts[at.host].node_mut(at.life);
        if let Some(effort) = node.and_then(|node| node.efforts.get_mut(&number)) {
            effort.state = state;
        }
    }

    fn ask_member(&mut self, at: NodeLife, number: u64, attempt: u64, request: Request) {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(process) = self.hosts[at.host].member_process() else { return };
        let name = process.take_request(number, attempt);
        let event = match request {
            Request::Change(command) => Event::Propose { request: name, command },
            Request::Question(query) => Event::Read { request: name, query },
        };
        self.arrive(at.host, event);
    }

    /// Decides where a request goes next.
    fn way(&mut self, at: NodeLife, number: u64) -> Way {
        let (now, host, voters) = (self.now, at.host, self.voters.clone());
        let Some(node) = self.hosts[host].node_mut(at.life) else { return Way::Wait };
        let view = node.view;
        let Some(effort) = node.efforts.get_mut(&number) else { return Way::Wait };
        let hint = effort.hint.take().filter(|host| !effort.unreachable.contains(host));
        let Some(target) = hint.or(view.leader) else {
            return if effort.hops > 0 {
                Way::GiveUp(Refusal::NotLeader(None))
            } else if now.since(view.since) < ELECTION_PATIENCE {
                Way::Wait
            } else {
                Way::GiveUp(Refusal::NotApplied)
            };
        };
        if target == host {
            return if voters.contains(&host) { Way::Here } else { Way::Wait };
        }
        if effort.hops >= HOPS_MAX {
            return Way::GiveUp(Refusal::NotLeader(Some(target)));
        }
        let around = voters
            .iter()
            .find(|voter| **voter != host && !effort.unreachable.contains(voter))
            .copied();
        let voter = match around {
            Some(around) if effort.unreachable.contains(&target) && effort.hops + 1 < HOPS_MAX => {
                around
            }
            Some(_) | None => target,
        };
        if effort.unreachable.len() >= voters.len() {
            effort.unreachable.clear();
        }
        Way::At { voter, target }
    }

    /// A voter has answered a request of this host.
    pub(super) fn member_answered(
        &mut self,
        at: NodeLife,
        number: u64,
        attempt: u64,
        answer: Answer,
    ) {
        if !self.is_current(at, number, attempt) {
            return;
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others are what was asked for")]
        let tried = match answer {
            Answer::NotLeader { .. } => Tried::NotApplied { disk_full: false },
            Answer::Overloaded | Answer::TooLarge => Tried::Refused(Refusal::NotApplied),
            Answer::Unknown => Tried::Lost,
            answer => Tried::Done(answer),
        };
        self.tried(at, number, tried);
    }

    fn is_current(&mut self, at: NodeLife, number: u64, attempt: u64) -> bool {
        let node = self.hosts[at.host].node_mut(at.life);
        let effort = node.and_then(|node| node.efforts.get(&number));
        effort.is_some_and(|effort| effort.attempt == attempt)
    }

    /// Another voter has answered, or not.
    pub(super) fn effort_settled(
        &mut self,
        at: NodeLife,
        number: u64,
        attempt: u64,
        outcome: Outcome,
    ) {
        if !self.is_current(at, number, attempt) {
            return;
        }
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let Some(effort) = node.efforts.get_mut(&number) else { return };
        let State::At { voter, .. } = effort.state else { return };
        let tried = match outcome {
            Outcome::Answered(reply) => match *reply {
                Reply::Store(Ok(answer), _) => Tried::Done(answer),
                Reply::Store(Err(Refusal::NotLeader(leader)), _) => {
                    effort.hint = leader.filter(|leader| *leader != voter);
                    Tried::NotApplied { disk_full: false }
                }
                Reply::Store(Err(Refusal::NotApplied), _) => Tried::NotApplied { disk_full: false },
                Reply::Store(Err(Refusal::Unknown), _) | Reply::Heartbeat(_) | Reply::Leader(_) => {
                    Tried::Lost
                }
            },
            Outcome::NotSent => {
                effort.unreachable.insert(voter);
                Tried::NotApplied { disk_full: false }
            }
            Outcome::Broken | Outcome::TimedOut => Tried::Lost,
        };
        self.tried(at, number, tried);
    }

    /// A pause is over, or a try has taken too long.
    pub(super) fn effort_due(&mut self, at: NodeLife, number: u64, attempt: u64) {
        if !self.is_current(at, number, attempt) {
            return;
        }
        let node = self.hosts[at.host].node_mut(at.life);
        let Some(effort) = node.and_then(|node| node.efforts.get(&number)) else { return };
        match effort.state {
            State::Pausing => self.try_effort(at, number),
            State::Here => self.tried(at, number, Tried::Lost),
            State::At { call, .. } => {
                self.hang_up(call);
                self.tried(at, number, Tried::Lost);
            }
        }
    }

    /// Who leads has changed: nobody waits any longer, neither for a leader nor for one that is no
    /// more.
    pub(super) fn leader_changed(&mut self, at: NodeLife) {
        let now = self.now;
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let leader = node.view.leader;
        let due: Vec<(u64, u64, Duration)> = node
            .efforts
            .iter()
            .filter_map(|(number, effort)| {
                let wait = match effort.state {
                    State::Pausing => Duration::ZERO,
                    State::Here => return None,
                    State::At { target, .. } => {
                        leader.filter(|leader| *leader != target)?;
                        let until = effort.attempt_begun + TRY_PATIENCE;
                        if effort.is_repeatable() { Duration::ZERO } else { until.since(now) }
                    }
                };
                Some((*number, effort.attempt, wait))
            })
            .collect();
        for (effort, attempt, wait) in due {
            self.after(wait, Happening::EffortDue { at, effort, attempt });
        }
    }

    /// Decides what follows a try.
    fn tried(&mut self, at: NodeLife, number: u64, tried: Tried) {
        let now = self.now;
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let Some(effort) = node.efforts.get_mut(&number) else { return };
        let (refusal, disk_full) = match tried {
            Tried::Done(answer) => return self.end_effort(at, number, Ok(answer)),
            // What an earlier try has done stays unknown.
            Tried::Refused(_) if effort.lost => {
                return self.end_effort(at, number, Err(Refusal::Unknown));
            }
            Tried::Refused(refusal) => return self.end_effort(at, number, Err(refusal)),
            Tried::NotApplied { disk_full } => (Refusal::NotApplied, disk_full),
            Tried::Lost if matches!(effort.request, Request::Question(_)) => {
                (Refusal::NotApplied, false)
            }
            Tried::Lost if !effort.is_repeatable() => {
                return self.end_effort(at, number, Err(Refusal::Unknown));
            }
            Tried::Lost => {
                effort.lost = true;
                (Refusal::Unknown, false)
            }
        };
        let patience = if disk_full { DISK_FULL_PATIENCE } else { DEADLINE };
        if now.since(effort.begun) + PAUSE >= patience {
            let refusal = if effort.lost { Refusal::Unknown } else { refusal };
            return self.end_effort(at, number, Err(refusal));
        }
        effort.attempt += 1;
        effort.state = State::Pausing;
        let attempt = effort.attempt;
        self.after(PAUSE, Happening::EffortDue { at, effort: number, attempt });
    }

    fn end_effort(&mut self, at: NodeLife, number: u64, result: Result<Answer, Refusal>) {
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let Some(effort) = node.efforts.remove(&number) else { return };
        match effort.asker {
            Asker::Call(call) => self.reply(call, Reply::Store(result, Identity::Same)),
            Asker::Office { term } => self.office_read(at, term, result),
            Asker::StoreRead { plan } => self.replace_plan(at, plan, result),
            Asker::StorePut { number } => self.plan_put(at, number, &result),
        }
    }
}

impl Effort {
    /// Returns whether the request may be carried out twice.
    fn is_repeatable(&self) -> bool {
        match &self.request {
            Request::Question(_) => true,
            Request::Change(command) => command.idempotency.is_some(),
        }
    }
}
