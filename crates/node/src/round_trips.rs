//! Round trips to other hosts over the last probes, summed up for the coordinator's timings.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evenkeel_coordinator::options::{RoundTrip, RoundTrips};
use evenkeel_model::name::HostName;

/// Probes remembered for each host.
const WINDOW: usize = 64;

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
    let count = u32::try_from(known.len()).ok().filter(|count| *count > 0)?;
    let mut sorted: Vec<Duration> = known.iter().copied().collect();
    sorted.sort_unstable();
    let p99 = sorted.get(sorted.len() * 99 / 100).copied()?;
    Some(RoundTrip { mean: known.iter().sum::<Duration>() / count, p99 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let host = HostName::parse("a1").unwrap();
        let mut window = Window::default();
        assert!(window.summary().is_empty());
        window.note(host.clone(), Duration::from_secs(9));
        for millis in 1..=u64::try_from(WINDOW).unwrap() {
            window.note(host.clone(), Duration::from_millis(millis));
        }
        let summary = window.summary();
        assert_eq!(summary[&host].p99, Duration::from_millis(64));
        assert_eq!(summary[&host].mean, Duration::from_micros(32_500));
    }
}
