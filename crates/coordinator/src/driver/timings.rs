//! How often a leader must be heard, from how long messages take.

use std::time::Duration;

use evenkeel_model::name::HostName;

use crate::options::RoundTrips;

/// Bounds on a LAN.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const ELECTION_MIN: Duration = Duration::from_millis(150);
/// Longest election timeout, however slow the network is.
const ELECTION_MAX: Duration = Duration::from_secs(5);

/// The timings of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timings {
    /// How often a leader says that it lives.
    pub(crate) heartbeat: Duration,
    /// How long a follower waits at least before it calls an election; at most twice as long.
    pub(crate) election_min: Duration,
}

impl Timings {
    /// The timings before anything was measured: good for neighbouring regions, so that the first
    /// election succeeds everywhere.
    pub(crate) const FIRST: Self =
        Self { heartbeat: HEARTBEAT_MIN, election_min: Duration::from_millis(300) };

    /// Returns the timings for the round trips to the other voters. The heartbeat is the slowest
    /// voter's 90th percentile, the election timeout at least ten median round trips and three
    /// heartbeats. A host that was paused answers one probe very late: that must not make the
    /// others patient with the next leader that falls silent.
    pub(crate) fn for_round_trips<'a>(
        round_trips: &RoundTrips,
        others: impl IntoIterator<Item = &'a HostName>,
    ) -> Option<Self> {
        let measured = others.into_iter().filter_map(|host| round_trips.get(host));
        let slowest = measured.fold(None, |slowest: Option<(Duration, Duration)>, trip| {
            let (median, p90) = slowest.unwrap_or_default();
            Some((median.max(trip.median), p90.max(trip.p90)))
        });
        let (median, p90) = slowest?;
        // What is far beyond the median is a busy host, not a slow network.
        let heartbeat = HEARTBEAT_MIN.max(p90.min(2 * median)).min(ELECTION_MAX / 5);
        let election_min = ELECTION_MIN.max(10 * median).max(3 * heartbeat).min(ELECTION_MAX);
        Some(Self { heartbeat, election_min })
    }

    /// Returns whether `other` is so far away (more than a fifth) that a change is worth it.
    pub(crate) fn is_off(self, other: Self) -> bool {
        let off = |now: Duration, wanted: Duration| now.abs_diff(wanted) * 5 > now;
        off(self.heartbeat, other.heartbeat) || off(self.election_min, other.election_min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RoundTrip;

    fn check(trips: &[(&str, u64, u64)], expected: Option<(u64, u64)>) {
        let host = |name: &str| HostName::parse(name).unwrap();
        let millis = Duration::from_millis;
        let trips = trips.iter().map(|(name, median, p90)| {
            (host(name), RoundTrip { median: millis(*median), p90: millis(*p90) })
        });
        let timings = Timings::for_round_trips(&trips.collect(), &[host("b"), host("c")]);
        let expected = expected.map(|(heartbeat, election_min)| Timings {
            heartbeat: millis(heartbeat),
            election_min: millis(election_min),
        });
        assert_eq!(timings, expected);
    }

    #[test]
    fn follows_the_slowest_voter() {
        check(&[], None);
        check(&[("client", 900, 900)], None);
        check(&[("b", 0, 1), ("client", 900, 900)], Some((50, 150)));
        check(&[("b", 10, 12), ("c", 40, 45)], Some((50, 400)));
        check(&[("b", 10, 70), ("c", 40, 45)], Some((70, 400)));
        check(&[("b", 10, 900), ("c", 40, 45)], Some((80, 400)));
        check(&[("b", 4000, 9000)], Some((1000, 5000)));
        check(&[("b", 1, 40)], Some((50, 150)));
    }

    #[test]
    fn small_changes_are_not_worth_it() {
        let of = |heartbeat, election_min| Timings {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
        };
        assert!(!of(50, 300).is_off(of(50, 350)));
        assert!(of(50, 300).is_off(of(50, 400)));
        assert!(of(100, 500).is_off(of(70, 500)));
    }
}
