//! Decides whether and when a request is sent again, so that a failure costs the client time
//! instead of an error, and never costs an upstream its life.
//!
//! The rules, in order:
//! 1. A connection that could not be opened carried nothing: always try another endpoint.
//! 2. A request that was sent is repeated only if doing it twice is the same as doing it once
//!    ([`may_repeat`]) and no byte of an answer was forwarded.
//! 3. Never to the same endpoint twice, never after the route's timeout, at most `tries_max`
//!    times, and only within the upstream's [`Budget`].
//! 4. A request of which a try got no answer is in doubt: no later refusal says that it had no
//!    effect.
//! 5. A try without an answer is given up early only when rules 2 and 3 allow another one, and
//!    counts against its endpoint only if the other one then answers in the same time. One that
//!    waits for something is never given up early.

use std::time::Duration;

use evenkeel_model::time::Timestamp;

use crate::balancer::EndpointKey;
use crate::pace::Pace;
use crate::policy::{Defect, Policy};
use crate::table::{Route, UpstreamId};

/// What a request carries that bears on repeating it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// An `Idempotency-Key`: the upstream recognises a repetition.
    pub idempotency_key: bool,
    /// `If-Match` or another condition. Repeated after it was applied, it fails by its own effect,
    /// and the client would be told that nothing happened.
    pub conditional: bool,
    /// The gateway holds the whole body and can send it again.
    pub body_kept: bool,
}

/// Returns whether sending a request twice has the effect and the answer of sending it once.
///
/// RFC 9110 §9.2.2 without its two traps: conditional writes, and, at the key-value API, which
/// promises linearizability, an unmarked `PUT` that another client's write may come in between.
#[must_use]
pub fn may_repeat(method: &str, marks: Marks, upstream: &UpstreamId) -> bool {
    let unmarked = match method {
        "GET" | "HEAD" | "OPTIONS" | "TRACE" => true,
        "PUT" | "DELETE" => !marks.conditional && *upstream != UpstreamId::KeyValue,
        _ => false,
    };
    marks.body_kept && (unmarked || marks.idempotency_key)
}

/// How a try ended without an answer that could be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection was opened; nothing was sent.
    NotSent,
    /// The connection ended after something was sent.
    Broken,
    /// No answer came in the time of the try.
    TimedOut,
    /// The answer was 503.
    Refused,
}

/// What follows a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Choose another endpoint.
    Another,
    /// Choose another endpoint once the [`Budget`] has room.
    AnotherWithinBudget,
    /// Answer the client with what there is.
    GiveUp,
}

/// The tries of one request.
#[derive(Debug, Clone)]
pub struct Tries {
    repeatable: bool,
    pace: Pace,
    sent_max: u32,
    sent: u32,
    /// Whether a try was sent and never answered.
    lost: bool,
    try_timeout: Duration,
    connect_timeout: Duration,
    deadline: Timestamp,
    tried: Vec<EndpointKey>,
    defect: Option<Defect>,
}

impl Tries {
    /// Begins a request that arrived at `now`. `repeatable` is the answer of [`may_repeat`].
    #[must_use]
    pub fn new(route: &Route, repeatable: bool, policy: &Policy, now: Timestamp) -> Self {
        let longest = match route.to {
            UpstreamId::Service(_) => policy.try_timeout_service,
            UpstreamId::KeyValue => policy.try_timeout_key_value,
        };
        let sent_max = route.tries_max.max(1);
        let defect = policy.defect;
        Self {
            repeatable: repeatable || defect == Some(Defect::RepeatsEverything),
            pace: Pace::Prompt,
            sent_max,
            sent: 0,
            lost: false,
            try_timeout: longest.min(route.timeout / sent_max),
            connect_timeout: policy.connect_timeout,
            deadline: now + route.timeout,
            tried: Vec::new(),
            defect,
        }
    }

    /// Returns when the client must have its answer.
    #[must_use]
    pub const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Returns the endpoints that were tried, for [`crate::balancer::Balancer::choose`].
    #[must_use]
    pub fn tried(&self) -> &[EndpointKey] {
        &self.tried
    }

    /// Gives the request the time that it waits for something.
    #[must_use]
    pub fn at_pace(self, pace: Pace) -> Self {
        let wait = match pace {
            Pace::Prompt => Duration::ZERO,
            Pace::Waiting(longest) => longest,
        };
        Self { pace, deadline: self.deadline + wait, ..self }
    }

    /// Returns when the request is answered.
    #[must_use]
    pub const fn pace(&self) -> Pace {
        self.pace
    }

    /// Moves the deadline to a later one: a long body was still being sent.
    pub fn extend(&mut self, deadline: Timestamp) {
        self.deadline = self.deadline.max(deadline);
    }

    /// Takes back [`Self::begin_send`]: the connection was closed before anything was sent.
    pub const fn unsend(&mut self) {
        self.sent = self.sent.saturating_sub(1);
    }

    /// Returns how often the request was sent.
    #[must_use]
    pub const fn sent(&self) -> u32 {
        self.sent
    }

    /// Returns how long a try may take before another endpoint is asked.
    #[must_use]
    pub const fn try_timeout(&self) -> Duration {
        self.try_timeout
    }

    /// Notes that `endpoint` is being tried.
    pub fn begin_try(&mut self, endpoint: EndpointKey) {
        self.tried.push(endpoint);
    }

    /// Returns until when a connection may take to open: briefly while `others` are left to try,
    /// otherwise long enough for the kernel to repeat a lost SYN after 1 s. `round_trip` is the
    /// distance to the endpoint's region.
    #[must_use]
    pub fn connect_deadline(
        &self,
        round_trip: Duration,
        others: usize,
        now: Timestamp,
    ) -> Timestamp {
        let once = self.connect_timeout + round_trip * 3;
        let patience = if others > 0 { once } else { once + Duration::from_secs(1) };
        (now + patience).min(self.deadline)
    }

    /// Notes that the request was sent, and returns when to ask for another try instead of
    /// waiting on. `None`: wait until [`Self::deadline`].
    pub fn begin_send(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.sent += 1;
        let at = now + self.try_timeout;
        let hurries = self.pace == Pace::Prompt && self.may_send_again();
        (hurries && at < self.deadline).then_some(at)
    }

    /// Returns whether a try that got no answer may have been carried out. A later try that is
    /// refused says nothing about it.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        self.lost
    }

    /// Takes `failure` in and returns what follows.
    #[must_use]
    pub fn next_after(&mut self, failure: Failure, now: Timestamp) -> Next {
        self.lost |= matches!(failure, Failure::Broken | Failure::TimedOut)
            && self.defect != Some(Defect::ForgetsLostTries);
        match failure {
            _ if now >= self.deadline => Next::GiveUp,
            Failure::NotSent if self.defect == Some(Defect::GivesUpAtOnce) => Next::GiveUp,
            Failure::NotSent => Next::Another,
            Failure::Broken | Failure::TimedOut | Failure::Refused if self.may_send_again() => {
                Next::AnotherWithinBudget
            }
            Failure::Broken | Failure::TimedOut | Failure::Refused => Next::GiveUp,
        }
    }

    const fn may_send_again(&self) -> bool {
        self.repeatable && self.sent < self.sent_max
    }
}

/// Bounds how many requests in flight to one upstream are repetitions, so that an upstream in
/// trouble is not pushed over by its own clients' retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// A budget without requests.
    pub const EMPTY: Self = Self { requests: 0, retries: 0 };

    /// Counts a request that began.
    pub const fn begin_request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// Counts a request that ended.
    pub const fn end_request(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    /// Takes room for one repetition, if there is any; [`Self::end_retry`] gives it back.
    #[must_use]
    pub fn begin_retry(&mut self, policy: &Policy) -> bool {
        let share = u64::from(self.requests) * u64::from(policy.retries_percent) / 100;
        let granted = u64::from(self.retries) < u64::from(policy.retries_min) + share;
        if granted {
            self.retries += 1;
        }
        granted
    }

    /// Gives back the room of a repetition that ended.
    pub const fn end_retry(&mut self) {
        self.retries = self.retries.saturating_sub(1);
    }

    /// Returns whether nothing is in flight.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.requests == 0 && self.retries == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::name::ServiceName;

    fn check(request: &str, service: bool, key_value: bool) {
        let mut words = request.split(' ');
        let method = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        let marks = Marks {
            idempotency_key: words.contains(&"key"),
            conditional: words.contains(&"if"),
            body_kept: !words.contains(&"long"),
        };
        let web = UpstreamId::Service(ServiceName::parse("web").unwrap());
        assert_eq!(may_repeat(method, marks, &web), service, "{request} to a service");
        assert_eq!(may_repeat(method, marks, &UpstreamId::KeyValue), key_value, "{request} to kv");
    }

    #[test]
    fn what_waits_is_not_given_up_early() {
        let now = Timestamp::ZERO;
        let tries =
            |pace| Tries::new(&Route::key_value(), true, &Policy::STANDARD, now).at_pace(pace);
        let mut prompt = tries(Pace::Prompt);
        assert_eq!(prompt.begin_send(now), Some(now + Policy::STANDARD.try_timeout_key_value));
        let mut waiting = tries(Pace::Waiting(Duration::from_secs(300)));
        assert_eq!(waiting.begin_send(now), None);
        assert_eq!(waiting.deadline().since(prompt.deadline()), Duration::from_secs(300));
        // Its endpoint is gone: that is no waiting.
        assert_eq!(waiting.next_after(Failure::Broken, now), Next::AnotherWithinBudget);
    }

    #[test]
    fn repeats_only_what_is_the_same_done_twice() {
        check("GET", true, true);
        check("GET if", true, true);
        check("PUT", true, false);
        check("PUT if", false, false);
        check("PUT if key", true, true);
        check("DELETE", true, false);
        check("POST", false, false);
        check("POST key", true, true);
        check("POST key long", false, false);
        check("PATCH", false, false);
        check("CONNECT", false, false);
    }
}
