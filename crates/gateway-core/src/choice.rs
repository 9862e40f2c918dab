//! Decides which endpoint gets a request.
//!
//! In order: the best [`Standing`] that is left (fail open: only an endpoint that proved to be
//! another one is never used, and the key-value API only where somebody answers); the nearest
//! [`Tier`] with room; in it the less loaded of two drawn at random (Mitzenmacher, "The power of two
//! choices", 2001). Streams take no room; they count where two have equally many requests.

use std::net::SocketAddr;

use evenkeel_model::time::Timestamp;

use crate::balancer::{Balancer, EndpointKey, Slot};
use crate::health::Standing;
use crate::policy::Policy;
use crate::pool::Tier;
use crate::table::UpstreamId;

/// The answer of [`Balancer::choose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Send the request there.
    Endpoint(Chosen),
    /// The only ones left were never heard of, but their first check is under way: wait for it.
    Unchecked,
    /// Every endpoint that is fit has as many requests as it may have.
    Overloaded,
    /// There is no endpoint that was not tried.
    Nothing,
}

/// An endpoint that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Stands for it in events.
    pub endpoint: EndpointKey,
    /// Where it listens.
    pub address: SocketAddr,
    /// How far away it is.
    pub tier: Tier,
    /// How fit it was.
    pub standing: Standing,
}

/// Whether a caller of [`Balancer::choose`] can wait for a first health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It can.
    Wait,
    /// It waited already.
    Spent,
}

/// How many requests an endpoint may have for the question at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Up to where other tiers help, less while warming.
    Ordinary,
    /// Up to the bound.
    All,
}

impl Balancer {
    /// Chooses an endpoint that is not in `tried`. A chosen one has one more request in flight
    /// until [`crate::balancer::Event::TryEnded`].
    pub fn choose(
        &mut self,
        upstream: &UpstreamId,
        tried: &[EndpointKey],
        patience: Patience,
        now: Timestamp,
    ) -> Choice {
        let Some(pool) = self.pools.get(upstream) else { return Choice::Nothing };
        let left = || pool.keys().filter(|key| !tried.contains(key));
        let standings = left().filter_map(|key| Some(self.slots.get(&key)?.standing(now)));
        let best = match standings.min() {
            None | Some(Standing::Foreign) => return Choice::Nothing,
            // A hung node takes requests and never answers: the store's own promise is to refuse at
            // once what it cannot serve.
            Some(Standing::Silent) if *upstream == UpstreamId::KeyValue => return Choice::Nothing,
            Some(Standing::Unchecked) if patience == Patience::Wait => return Choice::Unchecked,
            Some(best) => best,
        };
        let mut candidates = std::mem::take(&mut self.candidates);
        let chosen = match self.gather(upstream, tried, best, now, &mut candidates) {
            Some(tier) => {
                self.spare_warming(&mut candidates, now);
                self.draw(&candidates, tier, best)
            }
            None => Choice::Overloaded,
        };
        candidates.clear();
        self.candidates = candidates;
        chosen
    }

    /// Fills `candidates` with the endpoints of one standing in the nearest tier that has room,
    /// and returns that tier. If none has room, room is what no endpoint may exceed.
    fn gather(
        &self,
        upstream: &UpstreamId,
        tried: &[EndpointKey],
        standing: Standing,
        now: Timestamp,
        candidates: &mut Vec<EndpointKey>,
    ) -> Option<Tier> {
        let pool = self.pools.get(upstream)?;
        for room in [Room::Ordinary, Room::All] {
            for tier in pool.tiers() {
                let keys = tier.iter().map(|(_, key)| *key).filter(|key| !tried.contains(key));
                let slots = keys.filter_map(|key| Some((key, self.slots.get(&key)?)));
                let fit = slots
                    .filter(|(_, slot)| slot.standing(now) == standing)
                    .filter(|(_, slot)| slot.has_room(room, &self.policy, now));
                candidates.extend(fit.map(|(key, _)| key));
                if let (false, Some((place, _))) = (candidates.is_empty(), tier.first()) {
                    return Some(*place);
                }
            }
        }
        None
    }

    /// Drops each warming candidate with the probability of what its share lacks, as long as one
    /// candidate stays.
    fn spare_warming(&mut self, candidates: &mut Vec<EndpointKey>, now: Timestamp) {
        let mut at = candidates.len();
        while at > 0 && candidates.len() > 1 {
            at -= 1;
            let slot = candidates.get(at).and_then(|key| self.slots.get(key));
            let share = slot.map_or(0, |slot| slot.health.share(&self.policy, now));
            if share < 100 && !self.rng.chance(u64::from(share), 100) {
                candidates.remove(at);
            }
        }
    }

    /// Draws two candidates and takes the less loaded.
    fn draw(&mut self, candidates: &[EndpointKey], tier: Tier, standing: Standing) -> Choice {
        let first = self.rng.index(candidates.len());
        let mut second = self.rng.index(candidates.len().saturating_sub(1));
        if second >= first {
            second += 1;
        }
        let load = |key: &&EndpointKey| {
            self.slots.get(key).map_or((u32::MAX, 0), |slot| (slot.in_flight, slot.streams))
        };
        let drawn = [candidates.get(first), candidates.get(second)];
        let Some(key) = drawn.into_iter().flatten().min_by_key(load).copied() else {
            return Choice::Nothing;
        };
        let Some(slot) = self.slots.get_mut(&key) else { return Choice::Nothing };
        slot.in_flight += 1;
        Choice::Endpoint(Chosen { endpoint: key, address: slot.endpoint.address, tier, standing })
    }

    /// Returns how many endpoints of an upstream are not in `tried` and not known to be others.
    #[must_use]
    pub fn count_untried(
        &self,
        upstream: &UpstreamId,
        tried: &[EndpointKey],
        now: Timestamp,
    ) -> usize {
        let Some(pool) = self.pools.get(upstream) else { return 0 };
        let left = pool.keys().filter(|key| !tried.contains(key));
        left.filter_map(|key| self.slots.get(&key))
            .filter(|slot| slot.standing(now) != Standing::Foreign)
            .count()
    }

    /// Returns whether an endpoint that is ready is not in `tried`.
    #[must_use]
    pub fn has_ready(&self, upstream: &UpstreamId, tried: &[EndpointKey], now: Timestamp) -> bool {
        let Some(pool) = self.pools.get(upstream) else { return false };
        let mut left = pool.keys().filter(|key| !tried.contains(key));
        left.any(|key| self.slots.get(&key).is_some_and(|s| s.standing(now) == Standing::Ready))
    }
}

impl Slot {
    fn has_room(&self, room: Room, policy: &Policy, now: Timestamp) -> bool {
        let bound = match room {
            Room::Ordinary => (policy.spill_at * self.health.share(policy, now) / 100).max(1),
            Room::All => policy.in_flight_max,
        };
        self.in_flight < bound
    }
}
