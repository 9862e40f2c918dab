//! How long to wait for another host before it is taken for silent: the one rule for every limit on
//! an answer that crosses the network.
//!
//! A constant alone is wrong somewhere: short enough to notice a dead neighbour at once, it takes a
//! host on another continent for dead. So each limit is a constant for hosts near by, and grows
//! with the measured round trip beyond that.

use std::time::Duration;

/// Round trips in a limit: one to connect, one for question and answer, and the same again for a
/// packet that was lost.
const ROUND_TRIPS: u32 = 4;

/// Time that the other host may need for itself.
const SLACK: Duration = Duration::from_millis(100);

/// Longest limit that distance makes of a shorter one: nobody waits longer for anyone.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// Returns how long to wait for an answer from a host at this round trip, a median or an average
/// of several: at least `least`, which is also the limit while nothing was measured.
#[must_use]
pub fn patience(least: Duration, round_trip: Option<Duration>) -> Duration {
    let distant =
        round_trip.map(|time| (time.saturating_mul(ROUND_TRIPS) + SLACK).min(PATIENCE_MAX));
    distant.map_or(least, |distant| distant.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(least: u64, round_trip: Option<u64>, expected: u64) {
        let patience =
            patience(Duration::from_millis(least), round_trip.map(Duration::from_millis));
        assert_eq!(patience, Duration::from_millis(expected), "{least} ms, {round_trip:?}");
    }

    #[test]
    fn grows_with_the_distance_and_is_bounded() {
        check(300, None, 300);
        check(300, Some(0), 300);
        check(300, Some(50), 300);
        check(300, Some(150), 700);
        check(500, Some(250), 1100);
        check(1000, Some(225), 1000);
        check(1000, Some(500), 2100);
        check(300, Some(60_000), 5000);
        check(9000, Some(60_000), 9000);
        check(300, Some(u64::MAX), 5000);
    }
}
