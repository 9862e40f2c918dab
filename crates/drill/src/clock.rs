//! The one clock of a drill: `CLOCK_MONOTONIC`, which every process of this machine shares, so that
//! the clients' times and the system's own events can be compared.

use std::time::Duration;

use evenkeel_model::time::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Returns the present.
#[must_use]
pub fn now() -> Timestamp {
    // Fails only for a clock that the kernel does not have; this one it always has.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    Timestamp::from_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
