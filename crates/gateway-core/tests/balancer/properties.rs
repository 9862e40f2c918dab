//! What holds whatever happens, in whatever order.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_gateway_core::balancer::{Balancer, EndpointKey, Event};
use evenkeel_gateway_core::choice::{Choice, Chosen, Patience};
use evenkeel_gateway_core::health::{Finding, Identity, Outcome, Standing};
use evenkeel_gateway_core::policy::Policy;
use evenkeel_gateway_core::pool::Tier;
use evenkeel_gateway_core::retry::{Budget, Failure, Next, Tries};
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::instance::InstancePhase;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use proptest::prelude::*;

use crate::world::{HOSTS, endpoint, table, web};

/// Something that happens. Numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Wait(Duration),
    Check(usize, Finding),
    Choose {
        tried: Vec<usize>,
    },
    Judge(usize, Outcome),
    End(usize),
    /// Endpoint serials with host and whether it drains.
    Table(Vec<(u64, usize, bool)>),
}

fn finding() -> impl Strategy<Value = Finding> {
    prop_oneof![
        6 => Just(Finding::Passed(Identity::Unsaid)),
        2 => Just(Finding::Passed(Identity::Same)),
        1 => Just(Finding::Passed(Identity::Other)),
        2 => Just(Finding::Failed(Identity::Unsaid)),
        1 => Just(Finding::Refused),
        2 => Just(Finding::Silent),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let answered = |status| Outcome::Answered { status, identity: Identity::Unsaid };
    prop_oneof![
        1 => Just(answered(200)),
        1 => Just(answered(503)),
        4 => Just(Outcome::Unanswered),
    ]
}

fn endpoints() -> impl Strategy<Value = Vec<(u64, usize, bool)>> {
    let one = (0..12_u64, 0..HOSTS.len(), prop::bool::weighted(0.1));
    prop::collection::vec(one, 0..8).prop_map(|endpoints| {
        let unique: BTreeMap<u64, _> = endpoints.into_iter().map(|one| (one.0, one)).collect();
        unique.into_values().collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..5000_u64).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
        6 => (any::<usize>(), finding()).prop_map(|(at, finding)| Step::Check(at, finding)),
        8 => prop::collection::vec(any::<usize>(), 0..3).prop_map(|tried| Step::Choose { tried }),
        8 => (any::<usize>(), outcome()).prop_map(|(at, outcome)| Step::Judge(at, outcome)),
        2 => any::<usize>().prop_map(Step::End),
        1 => endpoints().prop_map(Step::Table),
    ]
}

/// A tight policy, so that few requests reach every bound.
const fn policy() -> Policy {
    let mut policy = Policy::STANDARD;
    policy.spill_at = 3;
    policy.in_flight_max = 5;
    policy
}

struct World {
    balancer: Balancer,
    now: Timestamp,
    generation: u64,
    in_flight: Vec<Chosen>,
    keys: Vec<EndpointKey>,
}

impl World {
    fn new(endpoints: &[(u64, usize, bool)], seed: u64) -> Self {
        let first = Self::table(1, endpoints);
        let (rng, now) = (Rng::from_seed(seed), Timestamp::ZERO);
        let balancer = Balancer::new(policy(), first.into(), rng, now).unwrap();
        let mut world =
            Self { balancer, now, generation: 1, in_flight: Vec::new(), keys: Vec::new() };
        world.learn_keys();
        world
    }

    fn table(generation: u64, endpoints: &[(u64, usize, bool)]) -> RouteTable {
        let endpoints = endpoints.iter().map(|(serial, host, drains)| {
            let phase = if *drains { InstancePhase::Draining } else { InstancePhase::Serving };
            endpoint(*serial, HOSTS.get(*host).unwrap().0, phase)
        });
        (*table(generation, endpoints.collect())).clone()
    }

    /// Keys come with health checks, which a new endpoint is due for at once.
    fn learn_keys(&mut self) {
        self.balancer.handle_timeout(self.now);
        while let Some(action) = self.balancer.poll_action() {
            if let evenkeel_gateway_core::balancer::Action::Check { endpoint, .. } = action
                && !self.keys.contains(&endpoint)
            {
                self.keys.push(endpoint);
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(time) => {
                self.now = self.now + time;
                self.learn_keys();
            }
            Step::Check(at, finding) => self.tell(at, Event::CheckFinished(finding)),
            Step::Judge(at, outcome) => self.tell(at, Event::TryJudged(outcome)),
            Step::End(at) if !self.in_flight.is_empty() => {
                let chosen = self.in_flight.swap_remove(at % self.in_flight.len());
                self.balancer.handle_event(chosen.endpoint, Event::TryEnded, self.now);
            }
            Step::End(_) => {}
            Step::Table(endpoints) => {
                self.generation += 1;
                let table = Self::table(self.generation, &endpoints);
                self.balancer.apply_table(table.into(), self.now).unwrap();
                self.learn_keys();
            }
            Step::Choose { tried } => self.choose(&tried),
        }
    }

    fn tell(&mut self, at: usize, event: Event) {
        if let Some(key) = self.keys.get(at.checked_rem(self.keys.len()).unwrap_or(0)) {
            self.balancer.handle_event(*key, event, self.now);
        }
    }

    fn choose(&mut self, tried: &[usize]) {
        let tried: Vec<EndpointKey> = tried
            .iter()
            .filter_map(|at| self.keys.get(at.checked_rem(self.keys.len())?).copied())
            .collect();
        let left = self.left(&tried);
        let best = left.iter().map(|(standing, ..)| *standing).min();
        let choice = self.balancer.choose(&web(), &tried, Patience::Spent, self.now);
        let Choice::Endpoint(chosen) = choice else {
            let room = left.iter().filter(|(standing, ..)| Some(*standing) == best).any(
                |(standing, .., in_flight)| {
                    *standing != Standing::Foreign && *in_flight < policy().in_flight_max
                },
            );
            assert!(!room, "{choice:?} although there is {left:?}");
            return;
        };
        self.in_flight.push(chosen);
        assert!(!tried.contains(&chosen.endpoint), "tried before");
        assert_ne!(chosen.standing, Standing::Foreign);
        assert_eq!(Some(chosen.standing), best, "a better one was left: {left:?}");
        for (standing, tier, share, in_flight) in left {
            let room = in_flight < (policy().spill_at * share / 100).max(1);
            let better = standing == chosen.standing && tier < chosen.tier && room;
            assert!(!better, "{tier:?} had room, {:?} was taken", chosen.tier);
        }
    }

    /// Standing, tier, share and requests in flight of what a choice may take.
    fn left(&self, tried: &[EndpointKey]) -> Vec<(Standing, Tier, u32, u32)> {
        let tried: Vec<_> =
            tried.iter().filter_map(|key| Some(self.balancer.endpoint(*key)?.id.clone())).collect();
        self.balancer
            .view(self.now)
            .filter(|view| !tried.contains(&view.endpoint.id))
            .filter_map(|view| Some((view.standing, view.tier?, view.share, view.in_flight)))
            .collect()
    }

    fn check(&self) {
        let views: Vec<_> = self.balancer.view(self.now).collect();
        let listed: Vec<_> = views.iter().filter(|view| view.tier.is_some()).collect();
        let ejected = listed.iter().filter(|view| view.ejected_for > Duration::ZERO).count();
        assert!(ejected * 2 <= listed.len(), "{ejected} of {} ejected", listed.len());
        let counted: usize =
            views.iter().map(|view| usize::try_from(view.in_flight).unwrap()).sum();
        assert_eq!(counted, self.in_flight.len(), "requests in flight");
        for view in views {
            assert!(view.in_flight <= policy().in_flight_max);
            assert!(view.tier.is_some() || view.in_flight > 0, "a ghost: {view:?}");
        }
    }
}

proptest! {
    #[test]
    fn choices_are_the_best_and_half_is_never_ejected(
        first in endpoints(),
        steps in prop::collection::vec(step(), 0..120),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(&first, seed);
        for step in steps {
            world.take(step);
            world.check();
        }
    }

    #[test]
    fn a_budget_bounds_retries(steps in prop::collection::vec(0..4_u8, 0..400)) {
        let (mut budget, policy) = (Budget::EMPTY, Policy::STANDARD);
        let (mut requests, mut retries) = (0_u32, 0_u32);
        for step in steps {
            match step {
                0 => {
                    budget.begin_request();
                    requests += 1;
                }
                1 if requests > 0 => {
                    budget.end_request();
                    requests -= 1;
                }
                2 if retries > 0 => {
                    budget.end_retry();
                    retries -= 1;
                }
                3 => {
                    let room = retries < 3 + requests / 5;
                    prop_assert_eq!(budget.begin_retry(&policy), room);
                    retries += u32::from(room);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_request_is_sent_a_bounded_number_of_times_in_bounded_time(
        failures in prop::collection::vec((0..4_u8, 0..2000_u64), 0..40),
        repeatable in any::<bool>(),
    ) {
        let first = World::table(1, &[(1, 0, false)]);
        let route = first.listeners.first().unwrap().routes.first().unwrap();
        let mut now = Timestamp::ZERO;
        let mut tries = Tries::new(route, repeatable, &Policy::STANDARD, now);
        let mut lost = false;
        for (failure, millis) in failures {
            now = now + Duration::from_millis(millis);
            let failure = match failure {
                0 => Failure::NotSent,
                1 => Failure::Broken,
                2 => Failure::TimedOut,
                _ => Failure::Refused,
            };
            if failure != Failure::NotSent {
                let asks_at = tries.begin_send(now);
                prop_assert!(asks_at.is_none_or(|at| repeatable && at < tries.deadline()));
            }
            let next = tries.next_after(failure, now);
            lost |= matches!(failure, Failure::Broken | Failure::TimedOut);
            prop_assert_eq!(tries.is_in_doubt(), lost);
            prop_assert!(tries.sent() <= route.tries_max);
            prop_assert!(next == Next::GiveUp || now < tries.deadline());
            if failure != Failure::NotSent && !repeatable {
                prop_assert_eq!(next, Next::GiveUp);
            }
            if next == Next::GiveUp {
                break;
            }
        }
    }
}
