//! Keeps what one gateway knows of its endpoints, and decides when each is asked for its health.
//!
//! A machine: facts come in by [`Balancer::handle_event`], health checks to make come out of
//! [`Balancer::poll_action`]. Beside it, [`Balancer::choose`] answers for each request at once:
//! [`crate::choice`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::service::{HealthCheck, Probe};
use evenkeel_model::time::Timestamp;

use crate::health::{Age, Finding, Health, Identity, Outcome, Standing, Verdict};
use crate::policy::Policy;
use crate::pool::{Pool, Tier};
use crate::retry::Budget;
use crate::table::{Endpoint, EndpointId, RouteTable, TableError, UpstreamId};

/// Stands for an endpoint while it exists or has requests in flight. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey(u64);

/// What happened to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A health check asked for by [`Action::Check`] ended.
    CheckFinished(Finding),
    /// A request that was given to the endpoint got its head, or failed. One whose client left
    /// says nothing about the endpoint.
    TryJudged(Outcome),
    /// Such a request ended altogether. This or [`Self::StreamEnded`], once for every
    /// [`crate::choice::Choice::Endpoint`].
    TryEnded,
    /// Such a request ended that had become a stream by [`Balancer::begin_stream`].
    StreamEnded,
}

/// What the gateway is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask an endpoint for its health, and report [`Event::CheckFinished`].
    Check {
        /// The endpoint.
        endpoint: EndpointKey,
        /// Its name, against which the answer's identity is compared.
        id: EndpointId,
        /// Where to ask.
        address: SocketAddr,
        /// The question.
        probe: Probe,
        /// An answer later than this is [`Finding::Silent`].
        timeout: Duration,
    },
    /// Tell the operator that an endpoint's standing changed.
    Announce {
        /// The endpoint's name.
        id: EndpointId,
        /// What it was.
        from: Standing,
        /// What it is now.
        to: Standing,
    },
}

/// Reports why a table was not taken. The one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedTable {
    /// It belongs elsewhere.
    #[error("the table is of system `{offered}`, this gateway belongs to `{own}`")]
    OtherSystem {
        /// The gateway's system.
        own: String,
        /// The table's.
        offered: String,
    },
    /// It is older, or another of the same generation.
    #[error("the table has generation {offered}, this gateway has {own}")]
    NotNewer {
        /// The gateway's generation.
        own: u64,
        /// The table's.
        offered: u64,
    },
    /// It contradicts itself.
    #[error("the table cannot be used")]
    Invalid(#[source] TableError),
}

/// One endpoint of a table, with what this gateway knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) endpoint: Endpoint,
    upstream: UpstreamId,
    /// Whether the table in force still names it. If not, it is kept until its last request ends.
    listed: bool,
    pub(crate) health: Health,
    pub(crate) in_flight: u32,
    /// Requests that go on for long; not among those in flight.
    pub(crate) streams: u32,
    check_at: Timestamp,
    announced: Standing,
}

/// The state of one endpoint, for people and metrics.
#[derive(Debug, Clone, Copy)]
pub struct EndpointView<'a> {
    /// The upstream it belongs to.
    pub upstream: &'a UpstreamId,
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// How fit it is.
    pub standing: Standing,
    /// How far away it is; `None` once the table does not name it any more.
    pub tier: Option<Tier>,
    /// The part of its load that it may get, in percent.
    pub share: u32,
    /// For how much longer real requests keep it out; zero if they do not.
    pub ejected_for: Duration,
    /// Requests in flight from this gateway.
    pub in_flight: u32,
    /// Streams from this gateway: watches, requests that wait, other protocols.
    pub streams: u32,
}

/// Chooses endpoints for one gateway.
#[derive(Debug)]
pub struct Balancer {
    pub(crate) policy: Policy,
    table: Arc<RouteTable>,
    pub(crate) slots: BTreeMap<EndpointKey, Slot>,
    keys: BTreeMap<EndpointId, EndpointKey>,
    pub(crate) pools: BTreeMap<UpstreamId, Pool>,
    budgets: BTreeMap<UpstreamId, Budget>,
    next_key: u64,
    pub(crate) rng: Rng,
    actions: VecDeque<Action>,
    /// Kept for its memory only.
    pub(crate) candidates: Vec<EndpointKey>,
}

impl Balancer {
    /// Begins with a first table. Its endpoints may have run for long, so they do not warm.
    ///
    /// # Errors
    /// The rule that `table` breaks.
    pub fn new(
        policy: Policy,
        table: Arc<RouteTable>,
        rng: Rng,
        now: Timestamp,
    ) -> Result<Self, TableError> {
        table.validate()?;
        let mut balancer = Self {
            policy,
            table,
            slots: BTreeMap::new(),
            keys: BTreeMap::new(),
            pools: BTreeMap::new(),
            budgets: BTreeMap::new(),
            next_key: 0,
            rng,
            actions: VecDeque::new(),
            candidates: Vec::new(),
        };
        balancer.adopt_endpoints(Age::Unknown, now);
        Ok(balancer)
    }

    /// Returns the table in force.
    #[must_use]
    pub const fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// Returns the numbers that decisions are made with.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Puts a newer table in force. Health and counters of endpoints that stay are kept. The table
    /// in force once more is taken and changes nothing.
    ///
    /// # Errors
    /// Why the table was refused; nothing was changed.
    pub fn apply_table(
        &mut self,
        table: Arc<RouteTable>,
        now: Timestamp,
    ) -> Result<(), RefusedTable> {
        let (own, offered) = (&*self.table, &*table);
        if (&own.system, &own.host) != (&offered.system, &offered.host) {
            return Err(RefusedTable::OtherSystem {
                own: format!("{}/{}", own.system, own.host),
                offered: format!("{}/{}", offered.system, offered.host),
            });
        }
        if own == offered {
            return Ok(());
        }
        if offered.generation <= own.generation {
            let (own, offered) = (own.generation, offered.generation);
            return Err(RefusedTable::NotNewer { own, offered });
        }
        table.validate().map_err(RefusedTable::Invalid)?;
        self.table = table;
        self.adopt_endpoints(Age::New, now);
        Ok(())
    }

    fn adopt_endpoints(&mut self, age: Age, now: Timestamp) {
        for slot in self.slots.values_mut() {
            slot.listed = false;
        }
        self.pools.clear();
        let table = Arc::clone(&self.table);
        for (id, upstream) in &table.upstreams {
            let mut members = Vec::with_capacity(upstream.endpoints.len());
            for endpoint in &upstream.endpoints {
                members.push((Tier::of(endpoint, &table), self.adopt(id, endpoint, age, now)));
            }
            self.pools.insert(id.clone(), Pool::new(members));
            self.limit_ejections(id, now);
        }
        let gone: Vec<EndpointKey> = self.slots.keys().copied().collect();
        for key in gone {
            self.forget_if_gone(key);
        }
        self.forget_idle_budgets();
        self.announce_changes(now);
    }

    fn adopt(
        &mut self,
        upstream: &UpstreamId,
        endpoint: &Endpoint,
        age: Age,
        now: Timestamp,
    ) -> EndpointKey {
        let known = self.keys.get(&endpoint.id).copied();
        if let Some((key, slot)) = known.and_then(|key| Some((key, self.slots.get_mut(&key)?)))
            && slot.endpoint.address == endpoint.address
            && slot.endpoint.link == endpoint.link
            && slot.upstream == *upstream
        {
            slot.endpoint = endpoint.clone();
            slot.listed = true;
            return key;
        }
        let key = EndpointKey(self.next_key);
        self.next_key += 1;
        let slot = Slot {
            endpoint: endpoint.clone(),
            upstream: upstream.clone(),
            listed: true,
            health: Health::new(age),
            in_flight: 0,
            streams: 0,
            check_at: now,
            announced: Standing::Unchecked,
        };
        self.slots.insert(key, slot);
        self.keys.insert(endpoint.id.clone(), key);
        key
    }

    fn forget_if_gone(&mut self, key: EndpointKey) {
        let Some(slot) = self.slots.get(&key) else { return };
        if slot.listed || slot.in_flight + slot.streams > 0 {
            return;
        }
        // The name may belong to a younger slot by now, at another address.
        if self.keys.get(&slot.endpoint.id) == Some(&key) {
            self.keys.remove(&slot.endpoint.id);
        }
        self.slots.remove(&key);
    }

    fn forget_idle_budgets(&mut self) {
        let pools = &self.pools;
        self.budgets.retain(|id, budget| !budget.is_idle() || pools.contains_key(id));
    }

    /// Takes in what happened to an endpoint. One that is gone is ignored.
    pub fn handle_event(&mut self, endpoint: EndpointKey, event: Event, now: Timestamp) {
        match event {
            Event::CheckFinished(finding) => self.handle_finding(endpoint, finding, now),
            Event::TryJudged(outcome) => self.handle_outcome(endpoint, outcome, now),
            Event::TryEnded => {
                if let Some(slot) = self.slots.get_mut(&endpoint) {
                    slot.in_flight = slot.in_flight.saturating_sub(1);
                }
                self.forget_if_gone(endpoint);
            }
            Event::StreamEnded => {
                if let Some(slot) = self.slots.get_mut(&endpoint) {
                    slot.streams = slot.streams.saturating_sub(1);
                }
                self.forget_if_gone(endpoint);
            }
        }
        self.announce_change(endpoint, now);
    }

    /// Counts a request in flight as a stream from here on, so that it takes no room from others.
    /// `false`: the endpoint has as many as it may have beside its requests, and this one stays
    /// among them.
    #[must_use]
    pub fn begin_stream(&mut self, endpoint: EndpointKey) -> bool {
        let streams_max = self.policy.streams_max;
        let slot = self.slots.get_mut(&endpoint).filter(|slot| slot.streams < streams_max);
        let Some(slot) = slot else { return false };
        slot.in_flight = slot.in_flight.saturating_sub(1);
        slot.streams += 1;
        true
    }

    fn handle_finding(&mut self, key: EndpointKey, finding: Finding, now: Timestamp) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some(upstream) = self.table.upstreams.get(&slot.upstream) else { return };
        let check = slot.endpoint.health.as_ref().unwrap_or(&upstream.health);
        slot.health.handle_finding(finding, check, now);
        slot.check_at = now + next_check(check, &slot.health, &mut self.rng);
    }

    fn handle_outcome(&mut self, key: EndpointKey, outcome: Outcome, now: Timestamp) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if let Outcome::Answered { identity: Identity::Other, .. } = outcome {
            slot.check_at = now;
        }
        let verdict = slot.health.handle_outcome(outcome, &self.policy.ejection);
        // A request sent before the ejection and failing after it is no new evidence.
        if verdict == Verdict::Keep || slot.health.is_ejected(now) || !slot.listed {
            return;
        }
        let upstream = slot.upstream.clone();
        let (ejected, members) = self.count_ejected(&upstream, now);
        if (ejected + 1) * 2 <= members
            && let Some(slot) = self.slots.get_mut(&key)
        {
            slot.health.eject(&self.policy.ejection, now);
        }
    }

    /// Returns how many endpoints of an upstream are ejected, and of how many.
    fn count_ejected(&self, upstream: &UpstreamId, now: Timestamp) -> (usize, usize) {
        let Some(pool) = self.pools.get(upstream) else { return (0, 0) };
        let out = pool.keys().filter_map(|key| self.slots.get(&key));
        (out.filter(|slot| slot.health.is_ejected(now)).count(), pool.len())
    }

    /// Ends ejections, those that would end first, until at most half of the endpoints are out: a
    /// smaller table may have lost the others.
    fn limit_ejections(&mut self, upstream: &UpstreamId, now: Timestamp) {
        let (mut ejected, members) = self.count_ejected(upstream, now);
        while ejected * 2 > members {
            let Some(pool) = self.pools.get(upstream) else { return };
            let out = pool.keys().filter_map(|key| Some((key, self.slots.get(&key)?)));
            let first = out
                .filter(|(_, slot)| slot.health.is_ejected(now))
                .min_by_key(|(key, slot)| (slot.health.ejected_until(), *key))
                .map(|(key, _)| key);
            let Some(slot) = first.and_then(|key| self.slots.get_mut(&key)) else { return };
            slot.health.readmit(now);
            ejected -= 1;
        }
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.slots.values().filter(|slot| slot.listed).map(|slot| slot.check_at).min()
    }

    /// Asks for the health checks that are due. Harmless when early.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for (key, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.listed) {
            if slot.check_at > now {
                continue;
            }
            let Some(upstream) = self.table.upstreams.get(&slot.upstream) else { continue };
            let check = slot.endpoint.health.as_ref().unwrap_or(&upstream.health);
            // Until the answer comes, so that a lost answer delays checks but never ends them.
            slot.check_at = now + check.timeout * 2 + check.every;
            self.actions.push_back(Action::Check {
                endpoint: *key,
                id: slot.endpoint.id.clone(),
                address: slot.endpoint.address,
                probe: check.probe.clone(),
                timeout: check.timeout,
            });
        }
        self.announce_changes(now);
    }

    /// Returns the next thing to do, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn announce_changes(&mut self, now: Timestamp) {
        let keys: Vec<EndpointKey> = self.slots.keys().copied().collect();
        for key in keys {
            self.announce_change(key, now);
        }
    }

    fn announce_change(&mut self, key: EndpointKey, now: Timestamp) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let to = slot.health.standing(slot.endpoint.phase, now);
        if to != slot.announced {
            let (id, from) = (slot.endpoint.id.clone(), slot.announced);
            slot.announced = to;
            self.actions.push_back(Action::Announce { id, from, to });
        }
    }

    /// Counts a request to an upstream as begun.
    pub fn begin_request(&mut self, upstream: &UpstreamId) {
        if let Some(budget) = self.budgets.get_mut(upstream) {
            budget.begin_request();
        } else {
            let mut budget = Budget::EMPTY;
            budget.begin_request();
            self.budgets.insert(upstream.clone(), budget);
        }
    }

    /// Counts a request to an upstream as ended.
    pub fn end_request(&mut self, upstream: &UpstreamId) {
        if let Some(budget) = self.budgets.get_mut(upstream) {
            budget.end_request();
        }
    }

    /// Takes room in the upstream's retry budget for a request that has begun, if there is any.
    #[must_use]
    pub fn begin_retry(&mut self, upstream: &UpstreamId) -> bool {
        let budget = self.budgets.get_mut(upstream);
        budget.is_some_and(|budget| budget.begin_retry(&self.policy))
    }

    /// Gives that room back.
    pub fn end_retry(&mut self, upstream: &UpstreamId) {
        if let Some(budget) = self.budgets.get_mut(upstream) {
            budget.end_retry();
        }
    }

    /// Returns an endpoint while it exists or has requests in flight.
    #[must_use]
    pub fn endpoint(&self, key: EndpointKey) -> Option<&Endpoint> {
        self.slots.get(&key).map(|slot| &slot.endpoint)
    }

    /// Returns the state of every endpoint.
    pub fn view(&self, now: Timestamp) -> impl Iterator<Item = EndpointView<'_>> {
        self.slots.values().map(move |slot| EndpointView {
            upstream: &slot.upstream,
            endpoint: &slot.endpoint,
            standing: slot.standing(now),
            tier: slot.listed.then(|| Tier::of(&slot.endpoint, &self.table)),
            share: slot.health.share(&self.policy, now),
            ejected_for: slot.health.ejected_until().since(now),
            in_flight: slot.in_flight,
            streams: slot.streams,
        })
    }
}

impl Slot {
    pub(crate) fn standing(&self, now: Timestamp) -> Standing {
        self.health.standing(self.endpoint.phase, now)
    }
}

/// Returns the time until the next check: the wanted interval ± 10 %, so that gateways that
/// started together do not ask together; a quarter of it while a standing is undecided.
fn next_check(check: &HealthCheck, health: &Health, rng: &mut Rng) -> Duration {
    let every = if health.is_undecided() { check.every / 4 } else { check.every };
    let jitter = rng.below(u64::try_from(every.as_nanos() / 5).unwrap_or(u64::MAX));
    every * 9 / 10 + Duration::from_nanos(jitter)
}
