//! Counters in the Prometheus text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::http::StatusCode;

/// What this replica has answered since it started.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Answers by the first digit of their status.
    answers: [AtomicU64; 6],
    microseconds: AtomicU64,
}

impl Metrics {
    /// Counts one answer.
    pub(crate) fn count(&self, status: StatusCode, took: Duration) {
        if let Some(counter) = self.answers.get(usize::from(status.as_u16() / 100)) {
            counter.fetch_add(1, Relaxed);
        }
        self.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Writes all counters.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "# HELP profiles_requests_total Requests answered.\n\
             # TYPE profiles_requests_total counter\n",
        );
        let mut total = 0;
        for class in 1..self.answers.len() {
            let count = self.answers[class].load(Relaxed);
            total += count;
            // Writing to a string cannot fail.
            writeln!(text, "profiles_requests_total{{status=\"{class}xx\"}} {count}").ok();
        }
        let micros = self.microseconds.load(Relaxed);
        let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        text.push_str("# HELP profiles_request_seconds Time to answer.\n");
        text.push_str("# TYPE profiles_request_seconds summary\n");
        writeln!(text, "profiles_request_seconds_sum {seconds}").ok();
        writeln!(text, "profiles_request_seconds_count {total}").ok();
        text
    }
}
