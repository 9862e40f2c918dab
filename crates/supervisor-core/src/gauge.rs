//! Decides when one health question is asked, and what its answers mean together.

use std::time::Duration;

use evenkeel_model::service::HealthCheck;
use evenkeel_model::time::Timestamp;

/// Longest time between two questions while a process starts, so that it is used soon.
const EVERY_MAX_AT_START: Duration = Duration::from_millis(200);

/// Asks one question again and again and counts the answers in a row.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    every: Duration,
    answer_max: Duration,
    healthy_after: u32,
    unhealthy_after: u32,
    healthy: Option<bool>,
    streak: Streak,
    question: Question,
}

/// Answers of one kind without one of the other kind between them.
#[derive(Debug, Clone, Copy)]
enum Streak {
    Successes(u32),
    Failures(u32),
}

/// Whether an answer is awaited.
#[derive(Debug, Clone, Copy)]
enum Question {
    DueAt(Timestamp),
    Asked { number: u64, overdue_at: Timestamp },
}

impl Gauge {
    /// Starts with no opinion and a question that is due at once.
    pub(crate) fn new(check: &HealthCheck, now: Timestamp) -> Self {
        Self {
            every: check.every,
            // Whoever asks reports a timeout by itself; this is only so that a lost answer does
            // not end the questions for ever.
            answer_max: check.timeout.saturating_mul(2) + check.every,
            healthy_after: check.healthy_after.max(1),
            unhealthy_after: check.unhealthy_after.max(1),
            healthy: None,
            streak: Streak::Successes(0),
            question: Question::DueAt(now),
        }
    }

    /// Starts with one answer from being healthy: for a process that ran before it was adopted.
    pub(crate) fn new_adopted(check: &HealthCheck, now: Timestamp) -> Self {
        let mut gauge = Self::new(check, now);
        gauge.streak = Streak::Successes(gauge.healthy_after - 1);
        gauge
    }

    /// Returns the verdict, absent until a threshold was reached for the first time.
    pub(crate) const fn healthy(&self) -> Option<bool> {
        self.healthy
    }

    /// Returns when [`Self::ask`] must next be called.
    pub(crate) const fn next_at(&self) -> Timestamp {
        match self.question {
            Question::DueAt(at) => at,
            Question::Asked { overdue_at, .. } => overdue_at,
        }
    }

    /// Notes that question `number` is asked now, if it is time for one.
    pub(crate) fn ask(&mut self, number: u64, now: Timestamp) -> bool {
        let due = now >= self.next_at();
        if due {
            self.question = Question::Asked { number, overdue_at: now + self.answer_max };
        }
        due
    }

    /// Takes the answer to question `number`; during the start, failures do not count and the
    /// next question comes sooner. The answer to an older question changes nothing and returns
    /// `false`: it may be about a process that is gone.
    pub(crate) fn answer(&mut self, number: u64, ok: bool, start: bool, now: Timestamp) -> bool {
        match self.question {
            Question::Asked { number: asked, .. } if asked == number => {}
            Question::Asked { .. } | Question::DueAt(_) => return false,
        }
        let every = if start { self.every.min(EVERY_MAX_AT_START) } else { self.every };
        self.question = Question::DueAt(now + every);
        self.streak = match (self.streak, ok) {
            (Streak::Successes(count), true) => Streak::Successes(count.saturating_add(1)),
            (Streak::Failures(_), true) => Streak::Successes(1),
            (_, false) if start => Streak::Successes(0),
            (Streak::Failures(count), false) => Streak::Failures(count.saturating_add(1)),
            (Streak::Successes(_), false) => Streak::Failures(1),
        };
        match self.streak {
            Streak::Successes(count) if count >= self.healthy_after => self.healthy = Some(true),
            Streak::Failures(count) if count >= self.unhealthy_after => self.healthy = Some(false),
            Streak::Successes(_) | Streak::Failures(_) => {}
        }
        true
    }
}
