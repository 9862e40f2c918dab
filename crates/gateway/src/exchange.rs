//! One request's way to an endpoint: choose, connect, send, wait, and again elsewhere if allowed.
//! Carries out what [`evenkeel_gateway_core::retry`] decides.

use std::rc::Rc;
use std::time::Duration;

use evenkeel_gateway_core::balancer::EndpointKey;
use evenkeel_gateway_core::choice::{Choice, Chosen, Patience};
use evenkeel_gateway_core::health::{Identity, Outcome};
use evenkeel_gateway_core::pace::Pace;
use evenkeel_gateway_core::pool::Tier;
use evenkeel_gateway_core::retry::{Failure, Next, Tries};
use evenkeel_gateway_core::table::Route;
use evenkeel_model::time::Timestamp;
use hyper::body::Incoming;
use hyper::http::{HeaderMap, Method, Uri};
use hyper::{Request, Response};
use tokio::time::{sleep_until, timeout_at};

use crate::body::{Flow, Outgoing, Received};
use crate::connections::{self, Connection};
use crate::live::LiveRoute;
use crate::problem::{Effect, OUTCOME, Problem};
use crate::record::Record;
use crate::shared::{RetryRoom, Shared, Try};

/// Longest wait for the first health check of an upstream of which nothing is known yet.
const FIRST_CHECK_MAX: Duration = Duration::from_secs(1);
/// Longest wait for room in the retry budget after a try failed.
const ROOM_WAIT_MAX: Duration = Duration::from_millis(500);
/// Time between two questions whether a try without an answer may be given up.
const GIVE_UP_EVERY: Duration = Duration::from_millis(25);

/// What is sent, as often as it takes.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// `None` once a body that cannot be kept was handed on.
    pub(crate) body: Option<Received>,
    pub(crate) flow: Rc<Flow>,
}

/// An upstream's answer, with what ends with its body.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) connection: Connection,
    pub(crate) in_flight: Try,
}

/// One request on its way.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) shared: &'a Rc<Shared>,
    pub(crate) route: &'a LiveRoute,
    pub(crate) record: &'a mut Record,
    pub(crate) message: Message,
    pub(crate) tries: Tries,
    /// Room in the budget for the try under way.
    pub(crate) room: Option<RetryRoom>,
    /// Endpoints whose tries were given up early. It counts against them only if another one then
    /// answers in the same time: when all are slow, as during an election, no one is to blame.
    pub(crate) doubted: Vec<EndpointKey>,
}

/// How sending on one connection ended.
enum Sent {
    Answered(Box<Answered>),
    /// Nothing left this process; the message is whole again.
    Unsent(Try),
    Failed(Failure),
}

impl Exchange<'_> {
    /// Returns the first answer that may be forwarded.
    pub(crate) async fn run(mut self) -> Result<Answered, Problem> {
        let mut last = None;
        loop {
            let Some(chosen) = self.choose().await? else { return Err(self.exhausted(last)) };
            let failure = match self.attempt(chosen).await {
                Ok(answered) if self.hides_an_effect(&answered) => {
                    return Err(Problem::in_doubt(&self.upstream()));
                }
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            if let Some(fault) = self.message.flow.fault() {
                let length_max = self.route.route.body_max;
                return Err(Problem::body(fault, length_max, self.effect()));
            }
            last = Some(failure);
            match self.tries.next_after(failure, self.now()) {
                Next::Another => {}
                Next::AnotherWithinBudget => {
                    if self.room.is_none() && !self.wait_for_room().await {
                        return Err(self.exhausted(last));
                    }
                    self.shared.metrics.count_retry(self.upstream());
                }
                Next::GiveUp => return Err(self.exhausted(last)),
            }
        }
    }

    /// Returns whether an answer says that nothing was changed, although an earlier try may have
    /// changed something.
    fn hides_an_effect(&self, answered: &Answered) -> bool {
        let said = answered.response.headers().get(&OUTCOME);
        self.tries.is_in_doubt()
            && !self.message.method.is_safe()
            && said.is_some_and(|outcome| outcome == "none")
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    const fn target(&self) -> &Route {
        &self.route.route
    }

    fn upstream(&self) -> String {
        self.target().to.to_string()
    }

    const fn effect(&self) -> Effect {
        if self.tries.sent() == 0 { Effect::None } else { Effect::Unknown }
    }

    /// Says why there is no answer, after `last` and with nothing left to try.
    fn exhausted(&self, last: Option<Failure>) -> Problem {
        let upstream = self.upstream();
        if self.tries.sent() == 0 {
            return match last {
                Some(_) if self.now() >= self.tries.deadline() => {
                    Problem::timeout(&upstream, Effect::None)
                }
                Some(_) | None => Problem::no_endpoint(&upstream),
            };
        }
        match last {
            Some(Failure::TimedOut) => Problem::timeout(&upstream, Effect::Unknown),
            Some(_) | None => Problem::broken(&upstream),
        }
    }

    /// Chooses an endpoint, after the first health checks if nothing is known yet.
    async fn choose(&self) -> Result<Option<Chosen>, Problem> {
        let shared = self.shared;
        let until = (self.now() + FIRST_CHECK_MAX).min(self.tries.deadline());
        loop {
            let changed = shared.changed.notified();
            let now = self.now();
            let patience = if now < until { Patience::Wait } else { Patience::Spent };
            let tried = self.tries.tried();
            let choice =
                shared.balancer.borrow_mut().choose(&self.target().to, tried, patience, now);
            match choice {
                Choice::Endpoint(chosen) => return Ok(Some(chosen)),
                Choice::Nothing => return Ok(None),
                Choice::Overloaded => return Err(Problem::overloaded(&self.upstream())),
                // Either way the next round decides.
                Choice::Unchecked => drop(timeout_at(shared.clock.instant(until), changed).await),
            }
        }
    }

    /// Sends the request to one endpoint.
    async fn attempt(&mut self, chosen: Chosen) -> Result<Answered, Failure> {
        let shared = Rc::clone(self.shared);
        let mut in_flight = Try::new(Rc::clone(&shared), chosen.endpoint);
        if self.tries.pace() != Pace::Prompt {
            in_flight.last();
        }
        self.tries.begin_try(chosen.endpoint);
        self.note_choice(chosen);
        if let Some(kept) = shared.connections.take(chosen.endpoint) {
            match self.send(kept, in_flight).await {
                Sent::Answered(answered) => return Ok(*answered),
                Sent::Failed(failure) => return Err(failure),
                // The endpoint had closed it. That says nothing about the endpoint.
                Sent::Unsent(unused) => in_flight = unused,
            }
        }
        let Some(connection) = self.connect(chosen).await else {
            in_flight.judge(Outcome::Unanswered);
            return Err(Failure::NotSent);
        };
        match self.send(connection, in_flight).await {
            Sent::Answered(answered) => Ok(*answered),
            Sent::Failed(failure) => Err(failure),
            Sent::Unsent(unused) => {
                unused.judge(Outcome::Unanswered);
                Err(Failure::NotSent)
            }
        }
    }

    fn note_choice(&mut self, chosen: Chosen) {
        let balancer = self.shared.balancer.borrow();
        let Some(endpoint) = balancer.endpoint(chosen.endpoint) else { return };
        if let Tier::Remote { .. } = chosen.tier {
            let (from, to) = (balancer.table().region.to_string(), endpoint.region.to_string());
            self.shared.metrics.count_spill(from, to);
        }
        self.record.tried(endpoint.id.to_string(), chosen.tier);
    }

    async fn connect(&self, chosen: Chosen) -> Option<Connection> {
        let now = self.now();
        let others =
            self.shared.balancer.borrow().count_untried(&self.target().to, self.tries.tried(), now);
        let deadline = self.tries.connect_deadline(chosen.tier.round_trip(), others, now);
        let shared = self.shared;
        let endpoint = shared.balancer.borrow().endpoint(chosen.endpoint)?.clone();
        let opening = connections::connect(shared, &endpoint);
        timeout_at(self.shared.clock.instant(deadline), opening).await.ok()?.ok()
    }

    /// Takes the request to send now; keeps what another try would need.
    fn request(&mut self) -> Option<Request<Outgoing>> {
        let (headers, body) = match self.message.body.take()? {
            Received::Whole(bytes) => {
                self.message.body = Some(Received::Whole(bytes.clone()));
                (self.message.headers.clone(), Outgoing::Kept(bytes))
            }
            Received::Part(body) => {
                (std::mem::take(&mut self.message.headers), Outgoing::Streamed(body))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.message.method.clone();
        *request.uri_mut() = self.message.uri.clone();
        *request.headers_mut() = headers;
        Some(request)
    }

    /// Takes back a request of which nothing was sent.
    fn take_back(&mut self, request: Request<Outgoing>) {
        let (head, body) = request.into_parts();
        self.message.headers = head.headers;
        self.message.body = Some(match body {
            Outgoing::Kept(bytes) => Received::Whole(bytes),
            Outgoing::Streamed(body) => Received::Part(body),
        });
    }

    async fn send(&mut self, mut connection: Connection, in_flight: Try) -> Sent {
        let Some(request) = self.request() else { return Sent::Failed(Failure::Broken) };
        let asks_at = self.tries.begin_send(self.now());
        let doubted_until = self.now() + self.tries.try_timeout();
        self.record.sent(self.tries.sent());
        let answer = {
            let sending = connection.send(request);
            tokio::pin!(sending);
            self.wait(sending, asks_at).await
        };
        match answer {
            None => {
                if self.now() >= self.tries.deadline() {
                    in_flight.judge(Outcome::Unanswered);
                } else {
                    self.doubted.push(in_flight.endpoint());
                }
                Sent::Failed(Failure::TimedOut)
            }
            Some(Ok(response)) => {
                if self.now() < doubted_until {
                    self.confirm_doubts();
                }
                self.judge(Answered { response, connection, in_flight })
            }
            Some(Err(mut error)) => match error.take_message() {
                Some(request) => {
                    self.take_back(request);
                    self.tries.unsend();
                    self.record.sent(self.tries.sent());
                    Sent::Unsent(in_flight)
                }
                None => {
                    // A client that failed to send its body is no fault of the endpoint.
                    if self.message.flow.fault().is_none() {
                        in_flight.judge(Outcome::Unanswered);
                    }
                    Sent::Failed(Failure::Broken)
                }
            },
        }
    }

    /// Waits for an answer. `None`: none came in time, or another try is allowed and has room.
    async fn wait<F: Future>(
        &mut self,
        mut sending: std::pin::Pin<&mut F>,
        asks_at: Option<Timestamp>,
    ) -> Option<F::Output> {
        let clock = self.shared.clock;
        let mut asks_at = asks_at;
        let timer = sleep_until(clock.instant(asks_at.unwrap_or_else(|| self.tries.deadline())));
        tokio::pin!(timer);
        loop {
            tokio::select! {
                biased;
                output = &mut sending => return Some(output),
                () = &mut timer => {}
            }
            let now = self.now();
            // A long body still on its way is no silence of the upstream.
            if let Some(moved) = self.message.flow.moved() {
                self.tries.extend(moved + self.route.route.timeout);
            }
            if now >= self.tries.deadline() || (asks_at.is_some() && self.may_give_up(now)) {
                return None;
            }
            asks_at = asks_at.map(|_| now + GIVE_UP_EVERY);
            let deadline = self.tries.deadline();
            let next = asks_at.map_or(deadline, |at| at.min(deadline));
            timer.as_mut().reset(clock.instant(next));
        }
    }

    /// Returns whether another endpoint is ready and the budget has room, and takes the room.
    fn may_give_up(&mut self, now: Timestamp) -> bool {
        let to = &self.route.route.to;
        if !self.shared.balancer.borrow().has_ready(to, self.tries.tried(), now) {
            return false;
        }
        self.room = None;
        self.room = RetryRoom::take(self.shared, to);
        self.room.is_some()
    }

    /// Counts the tries that were given up early as failures of their endpoints.
    fn confirm_doubts(&mut self) {
        for endpoint in self.doubted.drain(..) {
            Try::judge_late(self.shared, endpoint, Outcome::Unanswered);
        }
    }

    /// Decides whether an answer is the one to forward.
    fn judge(&mut self, answered: Answered) -> Sent {
        let status = answered.response.status().as_u16();
        let identity = self.identity(&answered);
        answered.in_flight.judge(Outcome::Answered { status, identity });
        let now = self.now();
        let refused = status == 503;
        if refused
            && self.tries.next_after(Failure::Refused, now) == Next::AnotherWithinBudget
            && self.may_give_up(now)
        {
            return Sent::Failed(Failure::Refused);
        }
        Sent::Answered(Box::new(answered))
    }

    fn identity(&self, answered: &Answered) -> Identity {
        let balancer = self.shared.balancer.borrow();
        let Some(endpoint) = balancer.endpoint(answered.in_flight.endpoint()) else {
            return Identity::Unsaid;
        };
        let said = answered.response.headers().get(endpoint.id.identity_header());
        Identity::of(said.map(|value| value.to_str().unwrap_or("")), &endpoint.id)
    }

    /// Waits until the budget has room for another try, and takes it. `false`: it has none, or
    /// there is no other endpoint.
    async fn wait_for_room(&mut self) -> bool {
        let to = &self.route.route.to;
        let until = (self.now() + ROOM_WAIT_MAX).min(self.tries.deadline());
        loop {
            let changed = self.shared.changed.notified();
            let now = self.now();
            if self.shared.balancer.borrow().count_untried(to, self.tries.tried(), now) == 0 {
                return false;
            }
            self.room = RetryRoom::take(self.shared, to);
            if self.room.is_some() || now >= until {
                return self.room.is_some();
            }
            // Either way the next round decides.
            drop(timeout_at(self.shared.clock.instant(until), changed).await);
        }
    }
}
