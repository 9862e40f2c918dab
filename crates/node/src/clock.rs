//! The one clock of a node: CLOCK_MONOTONIC, which no wall clock change moves.

use evenkeel_model::time::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Returns the time now, in nanoseconds of CLOCK_MONOTONIC: comparable between the processes of
/// one machine, and so with the drill's history.
#[must_use]
pub fn now() -> Timestamp {
    // The call fails only for a clock that doesn't exist; this one does on every Linux.
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return Timestamp::ZERO };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
