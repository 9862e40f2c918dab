//! Questions and answers over connections: HTTP between the processes of all hosts.
//!
//! ```text
//!  open ─▶ connected ─▶ question arrives ─▶ answer on its way ─▶ settled
//!    │ nobody there, or unreachable │ callee dies: broken       │ cut: the caller's limit ends it
//!    └──────────▶ not sent          └──────────▶ settled        └──────────▶ settled
//! ```

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_control::report::{HostReport, LeaderAnswer};
use evenkeel_gateway_core::health::Identity;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::event::Event;
use evenkeel_node_core::process::ProcessId;

use super::World;
use super::happening::{Happening, NodeLife, ProcessLife, Unit};
use super::host::View;
use crate::clients::Request;

/// Names a call.
pub(super) type CallId = u64;

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    /// Until it knows how the call ended.
    caller: Option<Caller>,
    /// Whether the question has left.
    sent: bool,
    from: usize,
    to: usize,
    target: Target,
    /// Until it has arrived.
    question: Option<Question>,
    /// Who took the question in.
    callee: Option<Unit>,
    /// When the caller gives up to connect.
    connect_until: Timestamp,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    Client {
        client: usize,
        attempt: u64,
    },
    Exchange {
        at: ProcessLife,
        exchange: u64,
    },
    /// A replica that answers `call` with what it hears.
    Replica {
        at: ProcessLife,
        call: CallId,
    },
    Effort {
        at: NodeLife,
        effort: u64,
        attempt: u64,
    },
    Heartbeat {
        at: NodeLife,
    },
    Follow {
        at: NodeLife,
        round: u64,
    },
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The API of a node process.
    Node,
    /// A replica, at its port.
    Replica(u16),
    /// The gateway's listener for the public, or for the key-value API.
    Gateway { public: bool },
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Question {
    Heartbeat(Box<HostReport>),
    Leader,
    /// Something of the key-value API, forwarded so often by other hosts.
    Execute {
        request: Request,
        hops: u8,
    },
}

/// Why there is no answer of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Surely not applied: status 503.
    NotApplied,
    /// The host does not lead; the one that does, as far as it knows. Only between hosts.
    NotLeader(Option<usize>),
    /// May be applied: status 504, or 502.
    Unknown,
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Reply {
    Heartbeat(Option<Box<LeaderAnswer>>),
    Leader(View),
    Store(Result<Answer, Refusal>, Identity),
}

/// How a call ended for its caller.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Box<Reply>),
    /// Nobody has seen the question.
    NotSent,
    /// The connection ended after the question was sent.
    Broken,
    /// No answer in time.
    TimedOut,
}

impl World {
    /// Makes a call; the caller waits so long for a connection, and so long for all.
    #[expect(clippy::too_many_arguments, reason = "a call has that many sides")]
    pub(super) fn call(
        &mut self,
        caller: Caller,
        from: usize,
        to: usize,
        target: Target,
        question: Question,
        connect_max: Duration,
        limit: Duration,
    ) -> CallId {
        let call = self.next_number();
        let connect_until = self.now + connect_max.min(limit);
        let question = Some(question);
        let callee = None;
        let there = self.links.stream(from, to, &mut self.rng);
        let round = there + self.links.delay(to, from, &mut self.rng);
        let (caller, sent) = (Some(caller), false);
        let state = Call { caller, sent, from, to, target, question, callee, connect_until };
        self.calls.insert(call, state);
        if self.now + round <= connect_until {
            self.after(round, Happening::Connect { call });
        } else {
            let wait = connect_until.since(self.now);
            self.after(wait, Happening::Settle { call, outcome: Outcome::NotSent });
        }
        self.after(limit, Happening::Settle { call, outcome: Outcome::TimedOut });
        call
    }

    /// Forgets the caller of a call. A question that is on its way arrives all the same.
    pub(super) fn hang_up(&mut self, call: CallId) -> Option<Caller> {
        let state = self.calls.get_mut(&call)?;
        let caller = state.caller.take();
        if !state.sent || state.question.is_none() {
            self.calls.remove(&call);
        }
        caller
    }

    /// A connection is open, or cannot be. One who is paused sends its question later.
    pub(super) fn connect(&mut self, call: CallId) {
        if self.caller(call).is_some_and(|unit| self.held_by(unit).is_some()) {
            return self.after(Duration::from_millis(5), Happening::Connect { call });
        }
        let Some(state) = self.calls.get(&call) else { return };
        let (from, to, target) = (state.from, state.to, state.target);
        if !self.hosts[to].on || !self.links.linked(from, to) {
            // A lost packet is sent again, in vain.
            let wait = state.connect_until.since(self.now);
            return self.after(wait, Happening::Settle { call, outcome: Outcome::NotSent });
        }
        if !self.listens(to, target) {
            return self.settle_now(call, Outcome::NotSent);
        }
        let caller = state.caller.clone();
        if let Some(state) = self.calls.get_mut(&call) {
            state.sent = true;
        }
        if let Some(Caller::Exchange { at, exchange }) = caller {
            self.exchange_connected(at, exchange);
        }
        let wait = self.links.stream(from, to, &mut self.rng);
        self.after(wait, Happening::Arrive { call });
    }

    /// Ends a call in order of the agenda, so that one who is paused hears of it later.
    fn settle_now(&mut self, call: CallId, outcome: Outcome) {
        self.after(Duration::ZERO, Happening::Settle { call, outcome });
    }

    /// Returns whether connections are accepted. A shim holds the sockets of a gateway that is
    /// being started again.
    fn listens(&self, host: usize, target: Target) -> bool {
        let state = &self.hosts[host];
        match target {
            Target::Node => state.node.is_some(),
            Target::Gateway { .. } => state.processes.contains_key(&ProcessId::Gateway),
            Target::Replica(port) => state.processes.values().any(|process| {
                process.port == Some(port) && process.running && process.listens(self.now)
            }),
        }
    }

    /// Returns the unit that a question is meant for, to see whether it is paused.
    pub(super) fn callee(&self, call: CallId) -> Option<Unit> {
        let call = self.calls.get(&call)?;
        let process = |pid| Unit::Process(ProcessLife { host: call.to, pid });
        let state = &self.hosts[call.to];
        match call.target {
            Target::Node => Some(Unit::Node(self.node_life(call.to))),
            Target::Gateway { .. } => {
                let life = self.process_life(call.to, &ProcessId::Gateway)?;
                Some(Unit::Process(life))
            }
            Target::Replica(port) => {
                let mut running = state.processes.values().filter(|process| process.running);
                running.find(|process| process.port == Some(port)).map(|found| process(found.pid))
            }
        }
    }

    /// Returns the unit that asked.
    pub(super) fn caller(&self, call: CallId) -> Option<Unit> {
        match self.calls.get(&call)?.caller.as_ref()? {
            Caller::Client { .. } => None,
            Caller::Exchange { at, .. } | Caller::Replica { at, .. } => Some(Unit::Process(*at)),
            Caller::Effort { at, .. } | Caller::Heartbeat { at } | Caller::Follow { at, .. } => {
                Some(Unit::Node(*at))
            }
        }
    }

    /// A question reaches the process that it is meant for.
    pub(super) fn arrive_call(&mut self, call: CallId) {
        let unit = self.callee(call);
        let Some(state) = self.calls.get_mut(&call) else { return };
        let (to, target) = (state.to, state.target);
        if let Target::Gateway { public } = target {
            return self.arrive_at_gateway(call, unit, to, public);
        }
        let Some(unit) = unit.filter(|_| self.listens(to, target)) else {
            return self.settle_now(call, Outcome::Broken);
        };
        let Some(state) = self.calls.get_mut(&call) else { return };
        state.callee = Some(unit);
        let Some(question) = state.question.take() else { return };
        self.forget_abandoned(call);
        match (unit, question) {
            (Unit::Node(at), Question::Heartbeat(report)) => {
                self.take_heartbeat(at, call, *report);
            }
            (Unit::Node(at), Question::Leader) => {
                let view = self.hosts[at.host].node.as_ref().map(|node| node.view);
                if let Some(view) = view {
                    self.reply(call, Reply::Leader(view));
                }
            }
            (Unit::Node(at), Question::Execute { request, hops }) => {
                self.execute(at, super::effort::Asker::Call(call), request, hops);
            }
            (Unit::Process(at), Question::Execute { request, .. }) => {
                self.serve(at, call, request);
            }
            (Unit::Process(_), Question::Heartbeat(_) | Question::Leader) => {}
        }
    }

    fn arrive_at_gateway(&mut self, call: CallId, unit: Option<Unit>, to: usize, public: bool) {
        let Some(Unit::Process(at)) = unit.filter(|_| self.has_table(to)) else {
            // The socket keeps it for the gateway that is about to run.
            let wait = Duration::from_millis(20);
            if self.listens(to, Target::Gateway { public }) {
                return self.after(wait, Happening::Arrive { call });
            }
            return self.settle_now(call, Outcome::Broken);
        };
        let Some(state) = self.calls.get_mut(&call) else { return };
        state.callee = Some(Unit::Process(at));
        let question = state.question.take();
        self.forget_abandoned(call);
        if let Some(Question::Execute { request, .. }) = question {
            self.begin_exchange(at, call, request, public);
        }
    }

    /// Forgets a call that nobody waits for, once its question has arrived.
    fn forget_abandoned(&mut self, call: CallId) {
        if self.calls.get(&call).is_some_and(|state| state.caller.is_none()) {
            self.calls.remove(&call);
        }
    }

    fn take_heartbeat(&mut self, at: NodeLife, call: CallId, report: HostReport) {
        let plan_number = report.plan_number;
        let from = self.index(&report.host);
        if let Some(node) = self.hosts[at.host].node_mut(at.life) {
            node.heard.extend(from);
        }
        self.touch(at, |core, now| core.handle_event(Event::HeartbeatReceived { report }, now));
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let answer = node.core.answer_for(plan_number, node.clock.read(self.now));
        self.reply(call, Reply::Heartbeat(answer.map(Box::new)));
    }

    /// Sends an answer back.
    pub(super) fn reply(&mut self, call: CallId, reply: Reply) {
        let Some(state) = self.calls.get(&call) else { return };
        let (from, to) = (state.from, state.to);
        // An answer on a link that is cut is lost, and the caller's limit ends the call.
        if self.links.linked(from, to) && self.hosts[to].on {
            let wait = self.links.stream(to, from, &mut self.rng);
            let outcome = Outcome::Answered(Box::new(reply));
            self.after(wait, Happening::Settle { call, outcome });
        }
    }

    /// Ends a call for the one that made it.
    pub(super) fn settle(&mut self, call: CallId, outcome: Outcome) {
        let Some(state) = self.calls.get(&call) else { return };
        // A limit that passes before a connection was open: nothing was sent.
        let unsent = !state.sent && matches!(outcome, Outcome::TimedOut);
        let outcome = if unsent { Outcome::NotSent } else { outcome };
        let Some(caller) = self.hang_up(call) else {
            self.calls.remove(&call);
            return;
        };
        match caller {
            Caller::Client { client, attempt } => self.answer_client(client, attempt, outcome),
            Caller::Exchange { at, exchange } => self.exchange_settled(at, exchange, outcome),
            Caller::Replica { at, call } => self.served(at, call, outcome),
            Caller::Effort { at, effort, attempt } => {
                self.effort_settled(at, effort, attempt, outcome);
            }
            Caller::Heartbeat { at } => self.heartbeat_settled(at, outcome),
            Caller::Follow { at, round } => self.follow_settled(at, round, outcome),
        }
    }

    fn heartbeat_settled(&mut self, at: NodeLife, outcome: Outcome) {
        let event = match outcome {
            Outcome::Answered(reply) => match *reply {
                Reply::Heartbeat(Some(answer)) => Event::HeartbeatAnswered { answer: *answer },
                Reply::Heartbeat(None) | Reply::Leader(_) | Reply::Store(..) => {
                    Event::HeartbeatFailed { reason: "does not lead".to_owned() }
                }
            },
            Outcome::NotSent | Outcome::Broken | Outcome::TimedOut => {
                Event::HeartbeatFailed { reason: "no answer".to_owned() }
            }
        };
        self.touch(at, |core, now| core.handle_event(event, now));
    }

    /// A node process is gone: whoever waits for it learns that, if a packet can say so.
    pub(super) fn break_calls_of_node(&mut self, at: NodeLife) {
        self.break_calls(Unit::Node(at));
    }

    pub(super) fn break_calls(&mut self, unit: Unit) {
        let waiting = self.calls.iter().filter(|(_, call)| call.callee == Some(unit));
        let waiting: Vec<(CallId, usize, usize)> =
            waiting.map(|(id, call)| (*id, call.from, call.to)).collect();
        for (call, from, to) in waiting {
            if self.links.linked(from, to) {
                let wait = self.links.delay(to, from, &mut self.rng);
                self.after(wait, Happening::Settle { call, outcome: Outcome::Broken });
            }
        }
    }
}
