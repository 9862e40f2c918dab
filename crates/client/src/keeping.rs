//! Decides when a lease is kept alive, and how long what goes with it is sure. Does no IO.
//!
//! ```text
//!  sent          ⅓ of its time            ⅔                   9⁄10         its time
//!   ├─────────────────┼────────────────────┼────────────────────┼─────────────┤
//!   acknowledged      kept alive again     holder must stop     nobody else   it may end
//! ```
//! A lease lasts from when a request was sent that kept it alive, not from its answer: the leader
//! took it in later. The last tenth is for clocks that differ.

use std::time::Duration;

use tokio::time::Instant;

/// Least pause after a request that failed.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause after a request that failed.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A lease that somebody rests on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    ttl: Duration,
    /// When the last request was sent that was acknowledged.
    sent: Instant,
    try_at: Instant,
}

impl Keeping {
    /// Begins with a lease that was granted to a request sent at `sent`.
    pub(crate) fn new(ttl: Duration, sent: Instant) -> Self {
        Self { ttl, sent, try_at: sent + ttl / 3 }
    }

    /// Returns when to keep it alive next.
    pub(crate) const fn try_at(&self) -> Instant {
        self.try_at
    }

    /// Returns how long one host may take to answer: several must be asked in time.
    pub(crate) fn patience(&self) -> Duration {
        (self.ttl / 8).max(PAUSE_MIN)
    }

    /// Takes in that a request was acknowledged.
    pub(crate) fn kept(&mut self, sent: Instant) {
        self.sent = self.sent.max(sent);
        self.try_at = self.sent + self.ttl / 3;
    }

    /// Takes in that a request failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.try_at = now + (self.ttl / 20).clamp(PAUSE_MIN, PAUSE_MAX);
    }

    /// Returns when the holder must begin to stop.
    pub(crate) fn stop_at(&self) -> Instant {
        self.sent + self.ttl * 2 / 3
    }

    /// Returns until when nobody else can hold what goes with it.
    pub(crate) fn sure_until(&self) -> Instant {
        self.sent + self.ttl * 9 / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lease_is_as_sure_as_its_last_acknowledged_request() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut keeping = Keeping::new(Duration::from_secs(30), begun);
        assert_eq!(keeping.try_at(), at(10));
        assert_eq!((keeping.stop_at(), keeping.sure_until()), (at(20), at(27)));
        keeping.failed(at(13));
        assert_eq!(keeping.try_at(), at(14));
        assert_eq!(keeping.stop_at(), at(20));
        // Its answer came at 19: that does not count.
        keeping.kept(at(14));
        assert_eq!((keeping.try_at(), keeping.stop_at()), (at(24), at(34)));
        // A late answer to an earlier request takes nothing back.
        keeping.kept(at(10));
        assert_eq!(keeping.stop_at(), at(34));
    }
}
