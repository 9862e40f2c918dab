//! Decides how long a process that failed waits for its next start.

use std::time::Duration;

use evenkeel_model::random::Rng;

/// Upper bound of the first wait.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Upper bound of every wait, however often the process failed.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Returns the wait after `failures` failures in a row: anything between zero and 0.1 s × 2^(n−1),
/// at most 30 s. The whole range is random ("full jitter"), so that processes that fell together
/// do not rise together.
#[must_use]
pub fn draw_wait(failures: u32, rng: &mut Rng) -> Duration {
    let nanos = u64::try_from(ceiling(failures).as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.below(nanos.saturating_add(1)))
}

/// Returns the longest wait that `failures` failures in a row can lead to.
#[must_use]
pub fn ceiling(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(30);
    BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: u32, expected: Duration) {
        assert_eq!(ceiling(failures), expected, "after {failures} failures");
    }

    #[test]
    fn doubles_up_to_the_bound() {
        check(0, Duration::from_millis(100));
        check(1, Duration::from_millis(100));
        check(2, Duration::from_millis(200));
        check(9, Duration::from_millis(25_600));
        check(10, Duration::from_secs(30));
        check(u32::MAX, Duration::from_secs(30));
    }

    #[test]
    fn draws_from_the_whole_range() {
        let mut rng = Rng::from_seed(1);
        let waits: Vec<Duration> = (0..1000).map(|_| draw_wait(5, &mut rng)).collect();
        assert!(waits.iter().all(|wait| *wait <= ceiling(5)));
        assert!(waits.iter().any(|wait| *wait < ceiling(5) / 10));
        assert!(waits.iter().any(|wait| *wait > ceiling(5) / 10 * 9));
    }
}
