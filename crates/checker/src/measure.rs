//! What clients felt: failures, latency and gaps, all from the intended start of each operation.
//!
//! Counting from the intended start keeps the measure honest while the system hangs: a client that
//! waits does not stop the schedule ("coordinated omission").

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::time::Timestamp;

use crate::history::{Operation, Outcome};

/// How many operations ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub operations: u64,
    /// Acknowledged.
    pub ok: u64,
    /// Surely without effect, refusals included: the drill's clients ask for nothing that a healthy
    /// system refuses.
    pub failed: u64,
    /// In doubt.
    pub unknown: u64,
}

/// Counts outcomes.
#[must_use]
pub fn count<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Counts {
    let mut counts = Counts::default();
    for operation in operations {
        counts.operations += 1;
        match operation.outcome {
            Outcome::Ok => counts.ok += 1,
            Outcome::Fail | Outcome::Refused => counts.failed += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
    }
    counts
}

/// Latencies of acknowledged operations, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Collects them.
    #[must_use]
    pub fn of<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Self {
        let mut latencies: Vec<Duration> = operations
            .into_iter()
            .filter(|operation| operation.outcome == Outcome::Ok)
            .map(|operation| operation.returned.since(operation.intended))
            .collect();
        latencies.sort_unstable();
        Self(latencies)
    }

    /// Returns the latency that `per_mille` of 1000 operations do not exceed (nearest rank);
    /// `None` when there are none. 1000 gives the longest.
    #[must_use]
    pub fn percentile(&self, per_mille: u32) -> Option<Duration> {
        let per_mille = usize::try_from(per_mille.min(1000)).unwrap_or(1000);
        let rank = (self.0.len() * per_mille).div_ceil(1000).max(1);
        self.0.get(rank - 1).copied()
    }
}

/// A time for which one client got nothing acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The client.
    pub client: String,
    /// Intended start of the last operation before it that was acknowledged.
    pub from: Timestamp,
    /// How long it lasted.
    pub length: Duration,
}

/// Returns the longest gap of any one client: from the intended start of an acknowledged operation
/// to the first acknowledgement of anything that the client intended later.
///
/// Reads and writes are looked at apart: a client that can still read is not served if it cannot
/// write. `from` and `to` bound the measured time; a client with no acknowledgement at all has a
/// gap of that whole time. `None` only without operations.
#[must_use]
pub fn longest_gap(operations: &[Operation], from: Timestamp, to: Timestamp) -> Option<Gap> {
    let mut streams: BTreeMap<(&str, bool), Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        streams.entry((&operation.client, operation.is_write())).or_default().push(operation);
    }
    let gaps = streams.iter().map(|((client, _), operations)| {
        let (from, length) = longest_wait(operations, from, to);
        Gap { client: (*client).to_owned(), from, length }
    });
    gaps.max_by_key(|gap| gap.length)
}

fn longest_wait(
    operations: &[&Operation],
    from: Timestamp,
    to: Timestamp,
) -> (Timestamp, Duration) {
    let mut acknowledged: Vec<(Timestamp, Timestamp)> = operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Ok)
        .map(|operation| (operation.intended, operation.returned))
        .collect();
    acknowledged.sort_unstable();
    // From the back: the earliest acknowledgement of anything intended at or after each start.
    let mut served = to;
    let mut worst = (from, Duration::ZERO);
    let mut consider = |start: Timestamp, served: Timestamp| {
        if served.since(start) >= worst.1 {
            worst = (start, served.since(start));
        }
    };
    for (intended, returned) in acknowledged.into_iter().rev() {
        consider(intended, served);
        served = served.min(returned);
    }
    consider(from, served);
    worst
}

/// What counts as being served again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    /// Every operation is acknowledged within this.
    pub latency_max: Duration,
    /// For at least this long.
    pub window: Duration,
}

/// Returns how long after `effect` the clients were served steadily again: the first moment from
/// which on every operation intended within the window is good. Zero when nothing was felt, `None`
/// when that moment is not in the history.
#[must_use]
pub fn recovery(operations: &[Operation], effect: Timestamp, steady: Steady) -> Option<Duration> {
    let last = operations.iter().map(|operation| operation.intended).max()?;
    let mut bad: Vec<Timestamp> = operations
        .iter()
        .filter(|operation| operation.intended >= effect && !is_good(operation, steady))
        .map(|operation| operation.intended)
        .collect();
    bad.sort_unstable();
    let mut since = effect;
    for at in bad {
        if at.since(since) >= steady.window {
            break;
        }
        since = at + Duration::from_nanos(1);
    }
    (last >= since + steady.window).then(|| since.since(effect))
}

fn is_good(operation: &Operation, steady: Steady) -> bool {
    operation.outcome == Outcome::Ok
        && operation.returned.since(operation.intended) <= steady.latency_max
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::parse::history;

    const fn nanos(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    fn check_gap(text: &str, expected: (u64, u64)) {
        let (from, to) = (Timestamp::ZERO, Timestamp::from_nanos(100));
        let gap = longest_gap(&history(text), from, to).unwrap();
        assert_eq!((gap.from.as_nanos(), gap.length), (expected.0, nanos(expected.1)), "{text}");
    }

    #[test]
    fn a_gap_lasts_until_anything_later_is_acknowledged() {
        check_gap("10-11 get | 20-21 get | 90-91 get", (20, 71));
        // Failed and doubtful operations do not end it, slow ones end it when they are answered.
        check_gap("10-11 get | 30-31 get ! | 50-51 get ? | 90-91 get", (10, 81));
        check_gap("1-2 get | 10-80 get | 20-70 get | 80-81 get", (1, 69));
        check_gap("1-2 get | 10-80 get | 20-21 get | 90-91 get", (20, 71));
        // Edges of the measured time count.
        check_gap("60-61 get | 90-91 get", (0, 61));
        check_gap("10-11 get | 20-21 get", (20, 80));
        check_gap("10-11 get !", (0, 100));
    }

    #[test]
    fn a_gap_belongs_to_one_client_and_one_kind() {
        check_gap("10-11 get ~a | 20-21 get ~b | 90-91 get ~a | 95-96 get ~b", (10, 81));
        check_gap("5-6 put a | 10-11 get | 50-51 get | 90-91 get | 95-96 put b", (5, 91));
    }

    #[test]
    fn counts_and_ranks() {
        let operations = history("0-9 get | 0-1 put a ! | 0-3 put b ? | 0-5 get");
        let counts = count(&operations);
        assert_eq!(counts, Counts { operations: 4, ok: 2, failed: 1, unknown: 1 });
        let latencies = Latencies::of(&operations);
        let ranks = [0, 500, 501, 1000].map(|rank| latencies.percentile(rank).unwrap());
        assert_eq!(ranks, [5, 5, 9, 9].map(nanos));
        assert_eq!(Latencies::default().percentile(500), None);
    }

    #[test]
    fn recovery_is_the_start_of_the_first_steady_window() {
        let steady = Steady { latency_max: nanos(5), window: nanos(30) };
        let check = |text: &str, expected: Option<u64>| {
            let found = recovery(&history(text), Timestamp::from_nanos(10), steady);
            assert_eq!(found, expected.map(nanos), "{text}");
        };
        check("10-11 get | 20-21 get | 30-31 get | 45-46 get", Some(0));
        check("5-50 get | 10-11 get | 20-29 get | 30-31 get ! | 40-41 get | 61-62 get", Some(21));
        check("10-11 get | 20-21 get ! | 45-46 get", None);
        check("5-6 get", None);
    }
}
