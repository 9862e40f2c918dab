//! One request's way through a gateway: choose, connect, send, wait, and again elsewhere if
//! allowed. Does what `evenkeel-gateway` does with what `evenkeel-gateway-core` decides.

use std::time::Duration;

use evenkeel_consensus::command::{Change, Expect};
use evenkeel_gateway_core::balancer::{EndpointKey, Event};
use evenkeel_gateway_core::choice::{Choice, Chosen, Patience};
use evenkeel_gateway_core::health::{Identity, Outcome as Found};
use evenkeel_gateway_core::retry::{Failure, Marks, Next, Tries, may_repeat};
use evenkeel_gateway_core::route::find_route;
use evenkeel_gateway_core::table::{EndpointId, ListenerId, Route, UpstreamId};
use evenkeel_model::time::Timestamp;

use super::World;
use super::calls::{CallId, Caller, Outcome, Question, Refusal, Reply, Target};
use super::gate::Gate;
use super::happening::{Happening, ProcessLife};
use crate::clients::Request;

/// Longest wait for the first health check of an upstream of which nothing is known yet.
const FIRST_CHECK_MAX: Duration = Duration::from_secs(1);
/// Longest wait for room in the retry budget after a try failed.
const ROOM_WAIT_MAX: Duration = Duration::from_millis(500);
/// Time between two questions whether a try without an answer may be given up.
const GIVE_UP_EVERY: Duration = Duration::from_millis(25);
/// Time between two looks at the retry budget.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(10);

/// One request.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Who is to be answered.
    call: CallId,
    pub(super) upstream: UpstreamId,
    request: Request,
    pub(super) repeatable: bool,
    pub(super) tries: Tries,
    pub(super) sent_max: u32,
    /// Whether it holds room in the retry budget.
    room: bool,
    doubted: Vec<EndpointKey>,
    last: Option<Failure>,
    /// When it arrived, in the world's time.
    pub(super) begun: Timestamp,
    pub(super) tried: Vec<EndpointId>,
    /// Endpoints that were sent the request.
    pub(super) sent_to: Vec<EndpointId>,
    /// Counts what it waits for.
    step: u64,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Choosing { until: Timestamp },
    Connecting { chosen: Chosen, call: CallId },
    Sent { chosen: Chosen, call: CallId, asks_at: Option<Timestamp>, doubted_until: Timestamp },
    WaitingForRoom { until: Timestamp },
}

/// Why a gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// No endpoint was left to try.
    Exhausted,
    /// The time of the request was over.
    TooLate,
    /// The last try failed, and may not be repeated.
    NotRepeatable,
    /// The budget had no room for another try.
    NoRoom,
    /// Every endpoint has as many requests as it may have.
    Overloaded,
}

impl World {
    pub(super) fn begin_exchange(
        &mut self,
        at: ProcessLife,
        call: CallId,
        request: Request,
        public: bool,
    ) {
        let (number, now) = (self.next_number(), self.now);
        let Some(gate) = self.gate_mut(at) else { return };
        let reading = gate.read(now);
        let Some(balancer) = &mut gate.balancer else { return };
        let Some(route) = route_of(balancer.table(), public) else { return };
        let upstream = route.to.clone();
        let repeatable = is_repeatable(&request, &upstream);
        let tries = Tries::new(&route, repeatable, balancer.policy(), reading);
        balancer.begin_request(&upstream);
        let exchange = Exchange {
            call,
            upstream,
            request,
            repeatable,
            tries,
            sent_max: route.tries_max.max(1),
            room: false,
            doubted: Vec::new(),
            last: None,
            begun: now,
            tried: Vec::new(),
            sent_to: Vec::new(),
            step: 0,
            state: State::Choosing { until: reading + FIRST_CHECK_MAX },
        };
        gate.exchanges.insert(number, exchange);
        self.choose(at, number);
    }

    /// Takes an exchange out of its gateway, to work on both.
    fn open(&mut self, at: ProcessLife, number: u64) -> Option<(&mut Gate, Exchange)> {
        let gate = self.gate_mut(at)?;
        let exchange = gate.exchanges.remove(&number)?;
        Some((gate, exchange))
    }

    /// Puts an exchange back, which looks again at a moment of the gateway's clock.
    fn put_back(
        &mut self,
        at: ProcessLife,
        number: u64,
        mut exchange: Exchange,
        due: Option<Timestamp>,
    ) {
        exchange.step += 1;
        let step = exchange.step;
        let Some(gate) = self.gate_mut(at) else { return };
        let due = due.map(|due| gate.reaches(due));
        gate.exchanges.insert(number, exchange);
        if let Some(due) = due {
            let due = due.max(self.now);
            self.agenda.plan(due, Happening::ExchangeDue { at, exchange: number, step });
        }
    }

    /// Chooses an endpoint and connects to it.
    fn choose(&mut self, at: ProcessLife, number: u64) {
        let now = self.now;
        let Some((gate, mut exchange)) = self.open(at, number) else { return };
        let reading = gate.read(now);
        let Some(balancer) = &mut gate.balancer else { return };
        let until = match exchange.state {
            State::Choosing { until } => until,
            State::Connecting { .. } | State::Sent { .. } | State::WaitingForRoom { .. } => {
                (reading + FIRST_CHECK_MAX).min(exchange.tries.deadline())
            }
        };
        let patience = if reading < until { Patience::Wait } else { Patience::Spent };
        let upstream = exchange.upstream.clone();
        match balancer.choose(&upstream, exchange.tries.tried(), patience, reading) {
            Choice::Endpoint(chosen) => {
                exchange.tries.begin_try(chosen.endpoint);
                let endpoint = balancer.endpoint(chosen.endpoint).map(|it| it.id.clone());
                exchange.tried.extend(endpoint);
                let others = balancer.count_untried(&upstream, exchange.tries.tried(), reading);
                let round_trip = chosen.tier.round_trip();
                let deadline = exchange.tries.connect_deadline(round_trip, others, reading);
                let connect_max = deadline.since(reading);
                self.connect_to(at, number, exchange, chosen, connect_max);
            }
            Choice::Unchecked => {
                exchange.state = State::Choosing { until };
                self.put_back(at, number, exchange, Some(until));
            }
            Choice::Overloaded => self.give_up(at, exchange, Problem::Overloaded),
            Choice::Nothing => self.give_up(at, exchange, Problem::Exhausted),
        }
    }

    fn connect_to(
        &mut self,
        at: ProcessLife,
        number: u64,
        mut exchange: Exchange,
        chosen: Chosen,
        connect_max: Duration,
    ) {
        let Some(to) = self.host_at(chosen.address.ip()) else { return };
        let target = match exchange.upstream {
            UpstreamId::KeyValue => Target::Node,
            UpstreamId::Service(_) => Target::Replica(chosen.address.port()),
        };
        let question = Question::Execute { request: exchange.request.clone(), hops: 0 };
        let caller = Caller::Exchange { at, exchange: number };
        // The exchange has timers of its own once the connection is open.
        let limit = Duration::from_secs(60);
        let call = self.call(caller, at.host, to, target, question, connect_max, limit);
        exchange.state = State::Connecting { chosen, call };
        self.put_back(at, number, exchange, None);
    }

    /// A connection is open: the request is sent.
    pub(super) fn exchange_connected(&mut self, at: ProcessLife, number: u64) {
        let now = self.now;
        let Some((gate, mut exchange)) = self.open(at, number) else { return };
        let reading = gate.read(now);
        let State::Connecting { chosen, call } = exchange.state else {
            return self.put_back(at, number, exchange, None);
        };
        let asks_at = exchange.tries.begin_send(reading);
        exchange.sent_to.extend(exchange.tried.last().cloned());
        let doubted_until = reading + exchange.tries.try_timeout();
        exchange.state = State::Sent { chosen, call, asks_at, doubted_until };
        let due = asks_at.unwrap_or_else(|| exchange.tries.deadline());
        self.put_back(at, number, exchange, Some(due));
    }

    /// Looks again at what an exchange waits for.
    pub(super) fn exchange_due(&mut self, at: ProcessLife, number: u64, step: u64) {
        let now = self.now;
        let Some(gate) = self.gate_mut(at) else { return };
        let reading = gate.read(now);
        let Some(exchange) = gate.exchanges.get(&number).filter(|it| it.step == step) else {
            return;
        };
        match exchange.state {
            State::Choosing { .. } => self.choose(at, number),
            State::Connecting { .. } => {}
            State::Sent { chosen, call, asks_at, .. } => {
                let late = reading >= exchange.tries.deadline();
                self.look_at_try(at, number, chosen, call, asks_at.filter(|_| !late));
            }
            State::WaitingForRoom { until } => self.wait_for_room(at, number, until),
        }
    }

    /// A try has no answer yet: it goes on, or another one is made.
    fn look_at_try(
        &mut self,
        at: ProcessLife,
        number: u64,
        chosen: Chosen,
        call: CallId,
        asks_at: Option<Timestamp>,
    ) {
        let now = self.now;
        let Some((gate, mut exchange)) = self.open(at, number) else { return };
        let reading = gate.read(now);
        if asks_at.is_some() {
            if !may_give_up(gate, &mut exchange, reading) {
                if let State::Sent { asks_at, .. } = &mut exchange.state {
                    *asks_at = Some(reading + GIVE_UP_EVERY);
                }
                let due = (reading + GIVE_UP_EVERY).min(exchange.tries.deadline());
                return self.put_back(at, number, exchange, Some(due));
            }
            exchange.doubted.push(chosen.endpoint);
        } else {
            judge(gate, chosen.endpoint, Found::Unanswered, reading);
        }
        end_try(gate, chosen.endpoint, reading);
        self.hang_up(call);
        self.try_failed(at, number, exchange, Failure::TimedOut);
    }

    /// A try has ended.
    pub(super) fn exchange_settled(&mut self, at: ProcessLife, number: u64, outcome: Outcome) {
        let now = self.now;
        let Some((gate, mut exchange)) = self.open(at, number) else { return };
        let reading = gate.read(now);
        let (State::Connecting { chosen, .. } | State::Sent { chosen, .. }) = exchange.state else {
            return self.put_back(at, number, exchange, None);
        };
        let failure = match outcome {
            Outcome::NotSent => Failure::NotSent,
            Outcome::Broken | Outcome::TimedOut => Failure::Broken,
            Outcome::Answered(reply) => {
                let Reply::Store(result, identity) = *reply else { return };
                return self.exchange_answered(at, number, exchange, chosen, result, identity);
            }
        };
        judge(gate, chosen.endpoint, Found::Unanswered, reading);
        end_try(gate, chosen.endpoint, reading);
        if failure == Failure::NotSent && matches!(exchange.state, State::Sent { .. }) {
            exchange.tries.unsend();
        }
        self.try_failed(at, number, exchange, failure);
    }

    /// An endpoint has answered: that is forwarded, unless another one may be asked.
    fn exchange_answered(
        &mut self,
        at: ProcessLife,
        number: u64,
        mut exchange: Exchange,
        chosen: Chosen,
        result: Result<evenkeel_consensus::answer::Answer, Refusal>,
        identity: Identity,
    ) {
        let now = self.now;
        let Some(gate) = self.gate_mut(at) else { return };
        let reading = gate.read(now);
        if let State::Sent { doubted_until, .. } = exchange.state
            && reading < doubted_until
        {
            for endpoint in exchange.doubted.drain(..) {
                judge(gate, endpoint, Found::Unanswered, reading);
            }
        }
        let status = match result {
            Ok(_) => 200,
            Err(Refusal::NotApplied | Refusal::NotLeader(_)) => 503,
            Err(Refusal::Unknown) => 504,
        };
        judge(gate, chosen.endpoint, Found::Answered { status, identity }, reading);
        end_try(gate, chosen.endpoint, reading);
        let refused = result.is_err();
        let another = exchange.tries.next_after(Failure::Refused, reading)
            == Next::AnotherWithinBudget
            && status == 503;
        if another && may_give_up(gate, &mut exchange, reading) {
            return self.try_failed(at, number, exchange, Failure::Refused);
        }
        self.end_exchange(at, &exchange);
        // A refusal says nothing about an earlier try that got no answer.
        let in_doubt = refused && exchange.tries.is_in_doubt() && exchange.request.is_change();
        let result = if in_doubt { Err(Refusal::Unknown) } else { result };
        self.reply(exchange.call, Reply::Store(result, Identity::Same));
    }

    /// Decides what follows a try that has failed.
    fn try_failed(
        &mut self,
        at: ProcessLife,
        number: u64,
        mut exchange: Exchange,
        failure: Failure,
    ) {
        let now = self.now;
        let Some(gate) = self.gate_mut(at) else { return };
        let reading = gate.read(now);
        exchange.last = Some(failure);
        let next = exchange.tries.next_after(failure, reading);
        let late = reading >= exchange.tries.deadline();
        exchange.state = State::WaitingForRoom { until: reading };
        let room = exchange.room;
        gate.exchanges.insert(number, exchange);
        match next {
            Next::Another => self.choose(at, number),
            Next::AnotherWithinBudget if room => self.choose(at, number),
            Next::AnotherWithinBudget => self.wait_for_room(at, number, reading + ROOM_WAIT_MAX),
            Next::GiveUp => {
                let Some((_, exchange)) = self.open(at, number) else { return };
                let problem = if late { Problem::TooLate } else { Problem::NotRepeatable };
                self.give_up(at, exchange, problem);
            }
        }
    }

    fn wait_for_room(&mut self, at: ProcessLife, number: u64, until: Timestamp) {
        let now = self.now;
        let Some((gate, mut exchange)) = self.open(at, number) else { return };
        let reading = gate.read(now);
        let Some(balancer) = &mut gate.balancer else { return };
        let until = until.min(exchange.tries.deadline());
        if balancer.count_untried(&exchange.upstream, exchange.tries.tried(), reading) == 0 {
            return self.give_up(at, exchange, Problem::Exhausted);
        }
        exchange.room = balancer.begin_retry(&exchange.upstream);
        if exchange.room {
            gate.exchanges.insert(number, exchange);
            self.choose(at, number);
        } else if reading >= until {
            self.give_up(at, exchange, Problem::NoRoom);
        } else {
            exchange.state = State::WaitingForRoom { until };
            self.put_back(at, number, exchange, Some(reading + ROOM_LOOK_EVERY));
        }
    }

    /// Answers for the endpoints: none of them did.
    fn give_up(&mut self, at: ProcessLife, exchange: Exchange, problem: Problem) {
        self.problems += 1;
        self.check_problem(at, &exchange, problem);
        self.end_exchange(at, &exchange);
        let unknown = exchange.tries.sent() > 0;
        let refusal = if unknown { Refusal::Unknown } else { Refusal::NotApplied };
        let (name, upstream) = (&self.names[at.host], &exchange.upstream);
        let line = format_args!("{name}: gateway: {upstream} is not reached: {problem:?}");
        self.transcript.line(self.now, line);
        self.reply(exchange.call, Reply::Store(Err(refusal), Identity::Unsaid));
    }

    fn end_exchange(&mut self, at: ProcessLife, exchange: &Exchange) {
        let Some(gate) = self.gate_mut(at) else { return };
        let Some(balancer) = &mut gate.balancer else { return };
        balancer.end_request(&exchange.upstream);
        if exchange.room {
            balancer.end_retry(&exchange.upstream);
        }
    }

    /// A health check has ended: who waits for the first one chooses again.
    pub(super) fn wake_choosing(&mut self, at: ProcessLife) {
        let Some(gate) = self.gate_mut(at) else { return };
        let choosing = gate
            .exchanges
            .iter()
            .filter(|(_, exchange)| matches!(exchange.state, State::Choosing { .. }));
        let choosing: Vec<u64> = choosing.map(|(number, _)| *number).collect();
        for number in choosing {
            self.choose(at, number);
        }
    }
}

/// Returns whether another endpoint is ready and the budget has room, and takes the room.
fn may_give_up(gate: &mut Gate, exchange: &mut Exchange, reading: Timestamp) -> bool {
    let Some(balancer) = &mut gate.balancer else { return false };
    if !balancer.has_ready(&exchange.upstream, exchange.tries.tried(), reading) {
        return false;
    }
    if std::mem::take(&mut exchange.room) {
        balancer.end_retry(&exchange.upstream);
    }
    exchange.room = balancer.begin_retry(&exchange.upstream);
    exchange.room
}

fn judge(gate: &mut Gate, endpoint: EndpointKey, found: Found, reading: Timestamp) {
    if let Some(balancer) = &mut gate.balancer {
        balancer.handle_event(endpoint, Event::TryJudged(found), reading);
    }
}

fn end_try(gate: &mut Gate, endpoint: EndpointKey, reading: Timestamp) {
    if let Some(balancer) = &mut gate.balancer {
        balancer.handle_event(endpoint, Event::TryEnded, reading);
    }
}

fn route_of(table: &evenkeel_gateway_core::table::RouteTable, public: bool) -> Option<Route> {
    let listener = table.listeners.iter().find(|listener| match listener.id {
        ListenerId::Gateway(_) => public,
        ListenerId::KeyValue => !public,
    })?;
    let path = if public { "/" } else { "/v1/kv/key" };
    find_route(&listener.routes, "shop.test", path).cloned()
}

/// Returns whether a request may be sent twice: questions are `GET`, changes are `POST`.
fn is_repeatable(request: &Request, upstream: &UpstreamId) -> bool {
    let (method, idempotency_key, conditional) = match request {
        Request::Question(_) => ("GET", false, false),
        Request::Change(command) => {
            let conditional = match &command.change {
                Change::Put { expect, .. } | Change::Delete { expect, .. } => {
                    *expect != Expect::Any
                }
                Change::Transaction(_)
                | Change::GrantLease { .. }
                | Change::RevokeLease { .. }
                | Change::Compact { .. } => false,
            };
            ("POST", command.idempotency.is_some(), conditional)
        }
    };
    may_repeat(method, Marks { idempotency_key, conditional, body_kept: true }, upstream)
}
