//! The clock of a process: it starts with the process and runs a little fast or slow.

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

/// What a true clock counts while a host's clock counts its rate.
const TRUE_RATE: u64 = 1000;

/// A monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) origin: Timestamp,
    /// What it counts while [`TRUE_RATE`] pass.
    pub(crate) rate: u64,
}

impl Clock {
    /// Draws a clock that is off by up to a tenth.
    pub(crate) const fn draw(rng: &mut Rng) -> Self {
        Self { origin: Timestamp::ZERO, rate: 900 + rng.below(200) }
    }

    /// Makes it three times as far off.
    pub(crate) const fn spread(&mut self) {
        self.rate = 3 * self.rate - 2 * TRUE_RATE;
    }

    /// Returns what it shows at a time of the world.
    pub(crate) fn read(self, now: Timestamp) -> Timestamp {
        let passed = u64::try_from(now.since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        Timestamp::from_nanos(passed / TRUE_RATE * self.rate)
    }

    /// Returns the world's time at which the clock has reached `reading`.
    pub(crate) fn reaches(self, reading: Timestamp) -> Timestamp {
        let passed = (reading.as_nanos() / self.rate + 1).saturating_mul(TRUE_RATE);
        Timestamp::from_nanos(self.origin.as_nanos().saturating_add(passed))
    }
}
