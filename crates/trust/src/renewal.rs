//! Decides when a certificate is renewed, and how loudly its end is spoken of. The decision takes the
//! time as an argument.

use std::time::Duration;

use rustls::pki_types::UnixTime;

/// A time by the wall clock: certificates name no other.
pub type Time = UnixTime;

/// Reads the wall clock.
#[must_use]
pub fn now() -> Time {
    UnixTime::now()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Life of a host's certificate.
pub const HOST_LIFE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Life of the authority's certificate.
pub(crate) const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * DAY.as_secs());
/// How long before now a new certificate begins: so much may clocks differ and nobody notices.
pub(crate) const HEAD_START: Duration = Duration::from_secs(60 * 60);
/// How long a host's certificate is taken past its end. The end is the time by which renewing must
/// have worked, not the time at which hosts stop speaking with each other: a system that has been
/// without a quorum for weeks needs its links more than ever. A stolen key is of use for so much
/// longer.
pub const GRACE: Duration = Duration::from_secs(60 * DAY.as_secs());

/// When a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when on.
    pub begin: UnixTime,
    /// Until when.
    pub end: UnixTime,
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is good for a while.
    Fresh,
    /// Two thirds of its life are over: it is to be renewed.
    Due,
    /// Nine tenths are over: renewing has failed for days, and somebody should know.
    Late,
    /// It has ended; others take it for this much longer.
    Over(Duration),
}

impl Validity {
    /// Returns the validity of a certificate that is made now.
    #[must_use]
    pub fn starting(now: UnixTime, life: Duration) -> Self {
        let now = since_epoch(now);
        let begin = now.saturating_sub(HEAD_START);
        Self {
            begin: UnixTime::since_unix_epoch(begin),
            end: UnixTime::since_unix_epoch(now + life),
        }
    }

    /// Decides how a certificate stands. A clock that is behind its beginning proves nothing.
    #[must_use]
    pub fn standing(&self, now: UnixTime) -> Standing {
        let (begin, end, now) = (since_epoch(self.begin), since_epoch(self.end), since_epoch(now));
        let life = end.saturating_sub(begin);
        let used = now.saturating_sub(begin);
        if now > end {
            Standing::Over((end + GRACE).saturating_sub(now))
        } else if used * 10 >= life * 9 {
            Standing::Late
        } else if used * 3 >= life * 2 {
            Standing::Due
        } else {
            Standing::Fresh
        }
    }
}

pub(crate) const fn since_epoch(time: UnixTime) -> Duration {
    Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(days: u64, expected: Standing) {
        let at = |days: u64| UnixTime::since_unix_epoch(DAY * u32::try_from(days).unwrap());
        let validity = Validity { begin: at(1000), end: at(1030) };
        assert_eq!(validity.standing(at(days)), expected, "day {days}");
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        check(1000, Standing::Fresh);
        check(1019, Standing::Fresh);
        check(1020, Standing::Due);
        check(1026, Standing::Due);
        check(1027, Standing::Late);
        check(1030, Standing::Late);
        check(1031, Standing::Over(GRACE - DAY));
        check(1090, Standing::Over(Duration::ZERO));
        check(2000, Standing::Over(Duration::ZERO));
        // The clock lost its battery.
        check(0, Standing::Fresh);
    }

    #[test]
    fn a_new_certificate_begins_a_little_earlier() {
        let now = UnixTime::since_unix_epoch(DAY * 1000);
        let validity = Validity::starting(now, HOST_LIFE);
        assert_eq!(validity.standing(now), Standing::Fresh);
        assert_eq!(validity.end.as_secs() - now.as_secs(), HOST_LIFE.as_secs());
        assert!(validity.begin < now);
    }
}
