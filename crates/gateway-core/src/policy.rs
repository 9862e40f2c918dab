//! The numbers behind the gateway's decisions, in one place, each with its reason.

use std::time::Duration;

/// Thresholds and times. Not in the system file: they follow from what a fault may cost a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Requests in flight to one endpoint from which on the next tier is used as well.
    pub spill_at: u32,
    /// Requests in flight to one endpoint from which on it gets no more at all.
    pub in_flight_max: u32,
    /// Streams to one endpoint beside those. Beyond, they count as requests.
    pub streams_max: u32,
    /// Time over which an endpoint's share grows to the whole after it became healthy.
    pub warm_up: Duration,
    /// Share with which warming begins, in percent.
    pub warm_share_min: u32,
    /// Time for a connection to an endpoint of this region to open while others are left to try.
    pub connect_timeout: Duration,
    /// Time for a repeatable request to a service to be answered before another endpoint is tried.
    pub try_timeout_service: Duration,
    /// The same for the key-value API. Shorter, so that a service's own call recovers before the
    /// gateway in front of the service gives up on the service.
    pub try_timeout_key_value: Duration,
    /// Retries in flight that each upstream may always have.
    pub retries_min: u32,
    /// Retries in flight beyond that, in percent of the upstream's requests in flight.
    pub retries_percent: u32,
    /// When real requests take an endpoint out.
    pub ejection: EjectionPolicy,
    /// A rule that is broken on purpose, so that a simulator can show that it notices.
    pub defect: Option<Defect>,
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A request that was sent is sent again, whether or not that is safe.
    RepeatsEverything,
    /// A request is given up when one endpoint cannot be reached.
    GivesUpAtOnce,
    /// A refusal counts as the whole truth, also after a try that got no answer.
    ForgetsLostTries,
}

/// When real requests, as opposed to health checks, take an endpoint out and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Consecutive requests without any answer: refused, broken or timed out.
    pub unanswered: u32,
    /// Consecutive answers with status 502, 503 or 504.
    pub errors: u32,
    /// How long the first ejection lasts. Each further one lasts twice as long.
    pub first: Duration,
    /// How long an ejection lasts at most.
    pub longest: Duration,
    /// Time without ejection after which earlier ones are forgotten.
    pub forgotten_after: Duration,
}

impl Policy {
    /// What every gateway uses.
    ///
    /// A paused replica or host accepts connections and answers nothing. With these numbers it
    /// costs a repeatable request 500 ms (250 ms at the key-value API), and after three of them
    /// it is ejected and costs nobody anything. A host that vanished costs 250 ms plus three
    /// round trips. Both stay below 1 s even when one request meets one of each. A healthy but
    /// slow upstream is not harmed: giving up on a try needs room in the retry budget, so at most
    /// a fifth of its requests are asked twice; the last try of a request is never cut short; and
    /// nobody is ejected for being slow while the others are slow too.
    pub const STANDARD: Self = Self {
        spill_at: 64,
        in_flight_max: 1024,
        streams_max: 1024,
        warm_up: Duration::from_secs(10),
        warm_share_min: 10,
        connect_timeout: Duration::from_millis(250),
        try_timeout_service: Duration::from_millis(500),
        try_timeout_key_value: Duration::from_millis(250),
        retries_min: 3,
        retries_percent: 20,
        ejection: EjectionPolicy {
            unanswered: 3,
            errors: 5,
            first: Duration::from_secs(3),
            longest: Duration::from_secs(60),
            forgotten_after: Duration::from_secs(60),
        },
        defect: None,
    };
}
