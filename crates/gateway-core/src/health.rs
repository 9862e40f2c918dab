//! Decides whether one endpoint takes requests, from health checks and from real requests.
//!
//! ```text
//!              first success                    `unhealthy_after` failures
//! unchecked ─────────────────▶ passing ───────────────────────────────────▶ failing
//!     │                        │  ▲ ▲                                         │
//!     │        another         │  │ └─────────────────────────────────────────┘
//!     └────────identity────────┤  │          `healthy_after` successes
//!                              ▼  │ its own identity
//!                            foreign ── refused ──▶ failing
//! ```
//! Beside this, real requests *eject* an endpoint for a growing time. A passing health check never
//! ends an ejection: what is asked by a check is not what fails (Envoy issue 32442).

use std::time::Duration;

use evenkeel_model::instance::InstancePhase;
use evenkeel_model::service::HealthCheck;
use evenkeel_model::time::Timestamp;

use crate::policy::{EjectionPolicy, Policy};
use crate::table::EndpointId;

/// How fit an endpoint is to get a request, the fittest first. A worse one is used only when no
/// better one is left; [`Self::Foreign`] never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Passes its checks.
    Ready,
    /// Passes its checks, but real requests failed.
    Ejected,
    /// Passes its checks and is about to be stopped.
    Draining,
    /// Was not heard of yet.
    Unchecked,
    /// Answers, but not that it is healthy.
    Failing,
    /// Does not answer.
    Silent,
    /// Said that it is another endpoint.
    Foreign,
}

impl Standing {
    /// Returns the word used in logs, metrics and state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Unchecked => "unchecked",
            Self::Failing => "failing",
            Self::Silent => "silent",
            Self::Foreign => "foreign",
        }
    }
}

/// Whom an answer says it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It does not say.
    Unsaid,
    /// The endpoint that was asked.
    Same,
    /// Another endpoint: the address was given to somebody else.
    Other,
}

impl Identity {
    /// Compares the value of [`EndpointId::identity_header`] with `id`.
    #[must_use]
    pub fn of(said: Option<&str>, id: &EndpointId) -> Self {
        match said {
            None => Self::Unsaid,
            Some(said) if said == id.identity() => Self::Same,
            Some(_) => Self::Other,
        }
    }
}

/// What a health check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The answer was that all is well.
    Passed(Identity),
    /// The answer was another.
    Failed(Identity),
    /// The connection was refused or broken: nobody is there.
    Refused,
    /// No answer came in time.
    Silent,
}

/// What a real request found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The head of an answer came.
    Answered {
        /// Its status code.
        status: u16,
        /// Whom it says it comes from. Another name is a reason to ask at once, but no proof: the
        /// endpoint may have passed on the headers of a service that it asked itself.
        identity: Identity,
    },
    /// No connection could be opened, or it ended or stayed silent before an answer.
    Unanswered,
}

/// The last word of the health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    /// Never passed. `answered` is `None` until the first check ended.
    Never { answered: Option<bool> },
    /// `failures` checks in a row failed since the last success.
    Passing { failures: u32 },
    /// `successes` checks in a row passed since the last failure.
    Failing { successes: u32, answered: bool },
    /// Said that it is another endpoint.
    Foreign,
}

/// The health of one endpoint as this gateway sees it.
#[derive(Debug, Clone)]
pub struct Health {
    checked: Checked,
    /// Requests in a row without an answer, and with an error as answer.
    unanswered: u32,
    errors: u32,
    ejected_until: Timestamp,
    ejections: u32,
    /// When the share began to grow; `None` takes the whole share from the first moment.
    warm_since: Option<Timestamp>,
    /// Whether the share grows after the first success: not for endpoints that were there before
    /// this gateway.
    warms: bool,
}

impl Health {
    /// Begins unchecked. `age` tells whether the endpoint is as young as this gateway's knowledge
    /// of it.
    #[must_use]
    pub const fn new(age: Age) -> Self {
        Self {
            checked: Checked::Never { answered: None },
            unanswered: 0,
            errors: 0,
            ejected_until: Timestamp::ZERO,
            ejections: 0,
            warm_since: None,
            warms: matches!(age, Age::New),
        }
    }

    /// Returns how fit the endpoint is.
    #[must_use]
    pub fn standing(&self, phase: InstancePhase, now: Timestamp) -> Standing {
        match self.checked {
            Checked::Never { answered: None } => Standing::Unchecked,
            Checked::Never { answered: Some(true) } | Checked::Failing { answered: true, .. } => {
                Standing::Failing
            }
            Checked::Never { answered: Some(false) } | Checked::Failing { answered: false, .. } => {
                Standing::Silent
            }
            Checked::Foreign => Standing::Foreign,
            Checked::Passing { .. } if phase == InstancePhase::Draining => Standing::Draining,
            Checked::Passing { .. } if self.is_ejected(now) => Standing::Ejected,
            Checked::Passing { .. } => Standing::Ready,
        }
    }

    /// Returns the part of its ordinary load that the endpoint may get, in percent, 1–100.
    #[must_use]
    pub fn share(&self, policy: &Policy, now: Timestamp) -> u32 {
        let Some(since) = self.warm_since else { return 100 };
        let (age, whole) = (now.since(since).as_millis(), policy.warm_up.as_millis());
        if age >= whole {
            return 100;
        }
        let grown = u128::from(100 - policy.warm_share_min.min(100)) * age / whole;
        (policy.warm_share_min + u32::try_from(grown).unwrap_or(100)).clamp(1, 100)
    }

    /// Returns whether one more check would change the standing, so that it should come soon.
    #[must_use]
    pub const fn is_undecided(&self) -> bool {
        match self.checked {
            Checked::Never { .. } => true,
            Checked::Passing { failures } => failures > 0,
            Checked::Failing { successes, .. } => successes > 0,
            Checked::Foreign => false,
        }
    }

    /// Returns whether the endpoint is out because of real requests.
    #[must_use]
    pub fn is_ejected(&self, now: Timestamp) -> bool {
        self.ejected_until > now
    }

    /// Takes in the result of a health check.
    pub fn handle_finding(&mut self, finding: Finding, check: &HealthCheck, now: Timestamp) {
        match finding {
            Finding::Passed(Identity::Other) | Finding::Failed(Identity::Other) => {
                self.checked = Checked::Foreign;
            }
            Finding::Passed(identity) => self.handle_passed(identity, check, now),
            Finding::Failed(identity) => {
                // A foreign endpoint that stops saying who it is may still be the foreign one.
                if self.checked != Checked::Foreign || identity == Identity::Same {
                    self.handle_failed(true, check);
                }
            }
            // Whoever held the address has gone, and the proof with it.
            Finding::Refused => self.handle_failed(false, check),
            Finding::Silent if self.checked == Checked::Foreign => {}
            Finding::Silent => self.handle_failed(false, check),
        }
    }

    fn handle_passed(&mut self, identity: Identity, check: &HealthCheck, now: Timestamp) {
        match self.checked {
            Checked::Passing { .. } => self.checked = Checked::Passing { failures: 0 },
            Checked::Never { .. } => self.begin_passing(now),
            Checked::Foreign if identity == Identity::Same => self.begin_passing(now),
            Checked::Foreign => {}
            Checked::Failing { successes, .. } if successes + 1 >= check.healthy_after => {
                self.begin_passing(now);
            }
            Checked::Failing { successes, .. } => {
                self.checked = Checked::Failing { successes: successes + 1, answered: true };
            }
        }
    }

    fn begin_passing(&mut self, now: Timestamp) {
        self.checked = Checked::Passing { failures: 0 };
        self.warm_since = self.warms.then_some(now);
        self.warms = true;
    }

    const fn handle_failed(&mut self, answered: bool, check: &HealthCheck) {
        self.checked = match self.checked {
            Checked::Never { .. } => Checked::Never { answered: Some(answered) },
            Checked::Passing { failures } if failures + 1 < check.unhealthy_after => {
                Checked::Passing { failures: failures + 1 }
            }
            Checked::Passing { .. } | Checked::Failing { .. } | Checked::Foreign => {
                Checked::Failing { successes: 0, answered }
            }
        };
    }

    /// Takes in how a real request went. Returns whether the endpoint should be ejected; the
    /// caller decides whether it may.
    #[must_use]
    pub fn handle_outcome(&mut self, outcome: Outcome, policy: &EjectionPolicy) -> Verdict {
        match outcome {
            Outcome::Answered { status: 502..=504, .. } => {
                self.unanswered = 0;
                self.errors = self.errors.saturating_add(1);
            }
            Outcome::Answered { .. } => (self.unanswered, self.errors) = (0, 0),
            Outcome::Unanswered => self.unanswered = self.unanswered.saturating_add(1),
        }
        if self.unanswered >= policy.unanswered || self.errors >= policy.errors {
            Verdict::Eject
        } else {
            Verdict::Keep
        }
    }

    /// Takes the endpoint out and returns for how long.
    pub fn eject(&mut self, policy: &EjectionPolicy, now: Timestamp) -> Duration {
        if now.since(self.ejected_until) >= policy.forgotten_after {
            self.ejections = 0;
        }
        let factor = 1_u32.checked_shl(self.ejections).unwrap_or(u32::MAX);
        let length = policy.first.saturating_mul(factor).min(policy.longest);
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until = now + length;
        // It comes back carefully: warming, and out again at the first failure.
        self.warm_since = Some(self.ejected_until);
        self.unanswered = policy.unanswered.saturating_sub(1);
        self.errors = policy.errors.saturating_sub(1);
        length
    }

    /// Ends an ejection because too many others are out.
    pub const fn readmit(&mut self, now: Timestamp) {
        self.ejected_until = now;
    }

    /// Returns until when the endpoint is out because of real requests.
    #[must_use]
    pub const fn ejected_until(&self) -> Timestamp {
        self.ejected_until
    }
}

/// How long an endpoint may have existed when the gateway first hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It appeared while the gateway ran, so it has just been started.
    New,
    /// It stood in the gateway's first table, so it may have run for long.
    Unknown,
}

/// What [`Health::handle_outcome`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// The endpoint should get no requests for a while.
    Eject,
}
