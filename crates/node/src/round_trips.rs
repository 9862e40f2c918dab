//! Round trips to other hosts over the last probes, summed up for the coordinator's timings.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evenkeel_coordinator::options::{RoundTrip, RoundTrips};
use evenkeel_model::name::HostName;

/// Probes remembered for each host.
const WINDOW: usize = 64;

/// Fewer probes say too little about a host.
const ENOUGH: usize = 4;

/// The last round trips to each host.
#[derive(Debug, Default)]
pub struct Window {
    hosts: BTreeMap<HostName, VecDeque<Duration>>,
}

impl Window {
    /// Notes one more round trip.
    pub fn note(&mut self, host: HostName, round_trip: Duration) {
        let known = self.hosts.entry(host).or_default();
        if known.len() == WINDOW {
            known.pop_front();
        }
        known.push_back(round_trip);
    }

    /// Sums up what is remembered.
    #[must_use]
    pub fn summary(&self) -> RoundTrips {
        self.hosts.iter().filter_map(|(host, known)| Some((host.clone(), sum_up(known)?))).collect()
    }
}

fn sum_up(known: &VecDeque<Duration>) -> Option<RoundTrip> {
    if known.len() < ENOUGH {
        return None;
    }
    let mut sorted: Vec<Duration> = known.iter().copied().collect();
    sorted.sort_unstable();
    let below = |percent: usize| sorted.get(sorted.len() * percent / 100);
    Some(RoundTrip { median: *below(50)?, p90: *below(90)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let host = HostName::parse("a1").unwrap();
        let mut window = Window::default();
        assert!(window.summary().is_empty());
        for seconds in 1..=9 {
            window.note(host.clone(), Duration::from_secs(seconds));
        }
        for millis in 1..=u64::try_from(WINDOW).unwrap() {
            window.note(host.clone(), Duration::from_millis(millis));
        }
        let summary = window.summary();
        assert_eq!(summary[&host].median, Duration::from_millis(33));
        assert_eq!(summary[&host].p90, Duration::from_millis(58));
    }

    #[test]
    fn a_late_answer_moves_nothing() {
        let host = HostName::parse("a1").unwrap();
        let mut window = Window::default();
        for _ in 0..20 {
            window.note(host.clone(), Duration::from_millis(10));
        }
        window.note(host.clone(), Duration::from_millis(900));
        let expected =
            RoundTrip { median: Duration::from_millis(10), p90: Duration::from_millis(10) };
        assert_eq!(window.summary()[&host], expected);
    }
}
