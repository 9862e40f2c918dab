//! Decides whether a request is sent again, and what is known in the end. Does no IO.
//!
//! Every request may be sent twice: questions change nothing, and changes carry a name under which
//! the store does them once. So a lost answer costs a retry, and casts a doubt on a change that
//! only the store's own answer takes away: what a host refuses by itself says nothing of the try
//! before.

use std::time::Duration;

use crate::error::{Error, Refusal};
use crate::response::{Outcome, Response};

/// Pause after each host has failed once; it doubles each round …
const PAUSE: Duration = Duration::from_millis(50);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// Refusals that the store itself has come to, and remembers under the request's name.
const SETTLED: [&str; 10] = [
    "conflict",
    "not-found",
    "no-lease",
    "key-twice",
    "too-many-operations",
    "too-many-leases",
    "too-many-keys",
    "bad-ttl",
    "future-revision",
    "idempotency-mismatch",
];

/// What came of one try.
#[derive(Debug)]
pub(crate) enum Tried {
    /// Nobody has seen the request.
    NotSent(String),
    /// It was sent, and no answer came.
    Lost(String),
    /// An answer came.
    Answered(Response),
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This is the answer.
    Done(Response),
    /// There is none, and another try is no use.
    Fail(Error),
    /// Ask the next host after a pause.
    Again(Duration),
}

/// What one answer means.
enum Meaning {
    Final,
    NotApplied,
    InDoubt,
}

/// One request, over all its tries.
#[derive(Debug)]
pub(crate) struct Effort {
    changes: bool,
    hosts: u32,
    tries: u32,
    lost: u32,
    in_doubt: bool,
    refusal: Option<Refusal>,
    cause: String,
}

impl Effort {
    /// Begins a request; `changes` says whether it changes anything.
    pub(crate) fn new(changes: bool, hosts: usize) -> Self {
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX).max(1);
        let (refusal, cause) = (None, "there was no time".to_owned());
        Self { changes, hosts, tries: 0, lost: 0, in_doubt: false, refusal, cause }
    }

    /// Returns how long the next try may take: longer after each silence, so that retries never
    /// become the load.
    pub(crate) fn patience(&self, first: Duration) -> Duration {
        first.saturating_mul(self.lost + 1)
    }

    /// Takes in what came of a try.
    pub(crate) fn judge(&mut self, tried: Tried) -> Next {
        self.tries += 1;
        match tried {
            Tried::NotSent(cause) => self.cause = cause,
            Tried::Lost(cause) => {
                self.lost += 1;
                self.doubt(cause);
            }
            Tried::Answered(response) => match meaning(&response) {
                Meaning::Final if self.in_doubt && !settles(&response) => {
                    let last = response.refusal().message;
                    let cause = format!("an answer was lost, and then: {last}");
                    return Next::Fail(Error::Unknown { cause });
                }
                Meaning::Final => return Next::Done(response),
                Meaning::NotApplied => self.refusal = Some(response.refusal()),
                Meaning::InDoubt => {
                    let refusal = response.refusal();
                    self.doubt(refusal.message.clone());
                    self.refusal = Some(refusal);
                }
            },
        }
        Next::Again(pause(self.tries, self.hosts))
    }

    fn doubt(&mut self, cause: String) {
        self.in_doubt |= self.changes;
        self.cause = cause;
    }

    /// Says what is known when time is up.
    pub(crate) fn give_up(self) -> Error {
        match self {
            Self { in_doubt: true, cause, .. } => Error::Unknown { cause },
            Self { refusal: Some(refusal), .. } => Error::Refused(refusal),
            Self { cause, .. } => Error::Unreachable { cause },
        }
    }
}

/// Returns the pause after try number `tries`: none until each host was asked.
pub(crate) fn pause(tries: u32, hosts: u32) -> Duration {
    let rounds = tries / hosts.max(1);
    if !tries.is_multiple_of(hosts.max(1)) || rounds == 0 {
        return Duration::ZERO;
    }
    PAUSE.saturating_mul(1 << (rounds - 1).min(8)).min(PAUSE_MAX)
}

const fn meaning(response: &Response) -> Meaning {
    match (response.outcome, response.status) {
        (Some(Outcome::Unknown), _) => Meaning::InDoubt,
        // A store that is full stays full.
        (_, ..500) | (Some(Outcome::None), 507) => Meaning::Final,
        (Some(Outcome::None), _) => Meaning::NotApplied,
        // Something between this client and the store, which promises nothing.
        (None, _) => Meaning::InDoubt,
    }
}

fn settles(response: &Response) -> bool {
    response.is_success() || SETTLED.contains(&response.refusal().code.as_str())
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn answered(status: u16, outcome: Option<Outcome>, code: &str) -> Tried {
        let body = format!(r#"{{"error": {{"code": "{code}", "message": "{code}"}}}}"#);
        let response = Response::new(status, &HeaderMap::new(), body.into());
        Tried::Answered(Response { outcome, ..response })
    }

    fn no_quorum() -> Tried {
        answered(503, Some(Outcome::None), "no-quorum")
    }

    fn lost() -> Tried {
        Tried::Lost("silence".to_owned())
    }

    /// Runs tries to their end and names it: a status, `unknown`, `unreachable` or a code.
    fn check(changes: bool, tries: Vec<Tried>, expected: &str) {
        let mut effort = Effort::new(changes, 2);
        let shown = format!("{tries:?}");
        let end = tries.into_iter().find_map(|tried| match effort.judge(tried) {
            Next::Done(response) => Some(response.status.to_string()),
            Next::Fail(error) => Some(name(&error)),
            Next::Again(_) => None,
        });
        assert_eq!(end.unwrap_or_else(|| name(&effort.give_up())), expected, "{shown}");
    }

    fn name(error: &Error) -> String {
        match error {
            Error::Unknown { .. } => "unknown".to_owned(),
            Error::Unreachable { .. } => "unreachable".to_owned(),
            Error::Refused(refusal) => refusal.code.clone(),
            Error::Malformed { .. } | Error::BadRequest { .. } => panic!("{error}"),
        }
    }

    #[test]
    fn what_was_surely_not_applied_is_reported_so() {
        check(true, vec![Tried::NotSent("refused".to_owned())], "unreachable");
        check(true, vec![no_quorum(), no_quorum()], "no-quorum");
        check(true, vec![no_quorum(), Tried::NotSent("refused".to_owned())], "no-quorum");
        check(true, vec![no_quorum(), answered(201, None, "")], "201");
        check(true, vec![answered(412, None, "conflict")], "412");
        check(true, vec![answered(507, Some(Outcome::None), "store-full")], "507");
        check(true, vec![answered(400, None, "bad-key")], "400");
    }

    #[test]
    fn a_lost_answer_stays_in_doubt_until_the_store_answers() {
        check(true, vec![lost()], "unknown");
        check(true, vec![lost(), no_quorum()], "unknown");
        check(true, vec![lost(), Tried::NotSent("refused".to_owned())], "unknown");
        check(true, vec![lost(), answered(201, None, "")], "201");
        check(true, vec![lost(), answered(412, None, "conflict")], "412");
        check(true, vec![lost(), answered(404, None, "not-found")], "404");
        check(true, vec![lost(), answered(507, Some(Outcome::None), "store-full")], "unknown");
        check(true, vec![lost(), answered(404, None, "no-route")], "unknown");
        check(true, vec![answered(504, Some(Outcome::Unknown), "outcome-unknown")], "unknown");
        check(true, vec![answered(502, None, ""), answered(200, None, "")], "200");
        check(true, vec![answered(502, None, ""), no_quorum()], "unknown");
        check(true, vec![answered(408, Some(Outcome::Unknown), "body-timeout")], "unknown");
    }

    #[test]
    fn a_question_leaves_no_doubt() {
        check(false, vec![lost()], "unreachable");
        check(false, vec![lost(), no_quorum()], "no-quorum");
        check(false, vec![lost(), answered(404, None, "no-route")], "404");
        check(false, vec![answered(502, None, "x"), answered(200, None, "")], "200");
    }

    #[test]
    fn each_host_is_asked_before_there_is_a_pause() {
        let millis = |tries, hosts| pause(tries, hosts).as_millis();
        assert_eq!([1, 2, 3, 4, 5].map(|tries| millis(tries, 3)), [0, 0, 50, 0, 0]);
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 99].map(|tries| millis(tries, 1)),
            [50, 100, 200, 400, 800, 800, 800]
        );
    }
}
