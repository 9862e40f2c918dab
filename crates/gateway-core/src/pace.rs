//! Decides which requests are expected to go on for long. They take no room from those that are
//! answered at once, and their silence is no sign of trouble.

use std::time::Duration;

use crate::table::UpstreamId;

/// Longest time for which the key-value API lets a request wait for a lock.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(300);
/// Where the key-value API keeps its locks.
const LOCKS: &str = "/v1/locks/";
/// Switching Protocols.
const SWITCHING: u16 = 101;

/// When a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As soon as it can be.
    Prompt,
    /// When something happens elsewhere, or after this time.
    Waiting(Duration),
}

impl Pace {
    /// Judges a request before it is sent.
    #[must_use]
    pub fn of(method: &str, path: &str, upstream: &UpstreamId) -> Self {
        let lock = path.strip_prefix(LOCKS).is_some_and(|rest| !rest.contains('/'));
        if *upstream == UpstreamId::KeyValue && method == "POST" && lock {
            Self::Waiting(LOCK_WAIT_MAX)
        } else {
            Self::Prompt
        }
    }
}

/// Returns whether an answer goes on once it has begun: events, or another protocol.
#[must_use]
pub fn is_stream(status: u16, content_type: Option<&str>) -> bool {
    let kind = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    status == SWITCHING || kind.trim().eq_ignore_ascii_case("text/event-stream")
}

#[cfg(test)]
mod tests {
    use evenkeel_model::name::ServiceName;

    use super::*;

    #[test]
    fn only_who_wants_a_lock_waits() {
        let check = |method: &str, path: &str, waits: bool| {
            let pace = Pace::of(method, path, &UpstreamId::KeyValue);
            assert_eq!(pace != Pace::Prompt, waits, "{method} {path}");
            let service = UpstreamId::Service(ServiceName::parse("web").unwrap());
            assert_eq!(Pace::of(method, path, &service), Pace::Prompt);
        };
        check("POST", "/v1/locks/report", true);
        check("POST", "/v1/locks/report/keepalive", false);
        check("GET", "/v1/locks/report", false);
        check("DELETE", "/v1/locks/report", false);
        check("POST", "/v1/txn", false);
        check("POST", "/v1/locks", false);
    }

    #[test]
    fn events_and_other_protocols_are_streams() {
        let check = |status, kind, expected| assert_eq!(is_stream(status, kind), expected);
        check(200, Some("text/event-stream"), true);
        check(200, Some("Text/Event-Stream; charset=utf-8"), true);
        check(101, None, true);
        check(200, Some("application/json"), false);
        check(200, Some("text/event-streams"), false);
        check(200, None, false);
    }
}
