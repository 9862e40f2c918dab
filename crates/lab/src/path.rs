//! Decides when a frame reaches the other end of a wide-area path, and whether it does. Does no
//! IO: the switch holds the frame until then.

use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

use crate::options::WanLink;

/// Longest time that a frame waits for bandwidth before the queue counts as full.
const QUEUE_MAX: Duration = Duration::from_millis(200);
/// Denominator of [`WanLink::loss_per_million`].
const MILLION: u64 = 1_000_000;

/// One direction between two ends.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    /// When the last bit accepted so far has left.
    busy_until: Timestamp,
    /// When the last accepted frame arrives: frames keep their order, as on one real link.
    last_arrival: Timestamp,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It reaches the other end then.
    Arrives(Timestamp),
    /// The link lost it.
    Lost,
    /// Too many frames wait for bandwidth.
    QueueFull,
}

impl Path {
    /// Starts with an idle link.
    pub(crate) const fn new() -> Self {
        Self { busy_until: Timestamp::ZERO, last_arrival: Timestamp::ZERO }
    }

    /// Takes a frame of `bytes` that entered at `now`.
    pub(crate) fn admit(
        &mut self,
        link: &WanLink,
        bytes: usize,
        now: Timestamp,
        rng: &mut Rng,
    ) -> Fate {
        if rng.chance(u64::from(link.loss_per_million), MILLION) {
            return Fate::Lost;
        }
        let start = self.busy_until.max(now);
        if start.since(now) > QUEUE_MAX {
            return Fate::QueueFull;
        }
        self.busy_until = start + sending_time(bytes, link.bandwidth_bits_per_second);
        let extra = rng.below(u64::try_from(link.jitter.as_nanos()).unwrap_or(u64::MAX));
        let arrival = self.busy_until + link.round_trip / 2 + Duration::from_nanos(extra);
        self.last_arrival = self.last_arrival.max(arrival);
        Fate::Arrives(self.last_arrival)
    }
}

/// Returns the time that `bytes` occupy a link, zero on an unlimited one.
fn sending_time(bytes: usize, bits_per_second: Option<u64>) -> Duration {
    let Some(rate) = bits_per_second else { return Duration::ZERO };
    let bits = bytes as u128 * 8;
    let nanos = bits * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(link: &WanLink, frames: &[(u64, usize)], expected: &[Fate]) {
        let mut rng = Rng::from_seed(1);
        let mut path = Path::new();
        let fates: Vec<Fate> = frames
            .iter()
            .map(|(at, bytes)| {
                path.admit(link, *bytes, Timestamp::from_nanos(at * 1_000_000), &mut rng)
            })
            .collect();
        assert_eq!(fates, expected);
    }

    const fn arrives(millis: u64) -> Fate {
        Fate::Arrives(Timestamp::from_nanos(millis * 1_000_000))
    }

    #[test]
    fn delays_by_half_a_round_trip_and_by_the_size() {
        let mut link = WanLink::new(Duration::from_millis(20));
        check(&link, &[(0, 1500), (5, 1500)], &[arrives(10), arrives(15)]);
        link.bandwidth_bits_per_second = Some(8_000_000);
        check(&link, &[(0, 1000), (0, 1000)], &[arrives(11), arrives(12)]);
    }

    #[test]
    fn refuses_what_would_wait_too_long() {
        let mut link = WanLink::new(Duration::ZERO);
        link.bandwidth_bits_per_second = Some(8_000);
        check(
            &link,
            &[(0, 1000), (0, 10), (2000, 10)],
            &[arrives(1000), Fate::QueueFull, arrives(2010)],
        );
    }

    #[test]
    fn loses_about_the_stated_share_and_keeps_the_order() {
        let mut link = WanLink::new(Duration::from_millis(10));
        link.loss_per_million = 200_000;
        link.jitter = Duration::from_millis(5);
        let (mut rng, mut path) = (Rng::from_seed(3), Path::new());
        let (mut lost, mut last) = (0, Timestamp::ZERO);
        for at in 0..10_000_u64 {
            match path.admit(&link, 100, Timestamp::from_nanos(at * 1_000_000), &mut rng) {
                Fate::Arrives(then) => {
                    assert!(then >= last, "frame {at} overtook");
                    last = then;
                }
                Fate::Lost => lost += 1,
                Fate::QueueFull => panic!("frame {at} was refused"),
            }
        }
        assert!((1_800..2_200).contains(&lost), "lost {lost} of 10000");
    }
}
