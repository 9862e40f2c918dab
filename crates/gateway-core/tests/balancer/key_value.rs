//! The key-value API is refused at once when nobody is there who could serve it.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_gateway_core::balancer::{Action, Balancer, Event};
use evenkeel_gateway_core::choice::{Choice, Patience};
use evenkeel_gateway_core::health::{Finding, Identity};
use evenkeel_gateway_core::policy::Policy;
use evenkeel_gateway_core::table::{Endpoint, EndpointId, RouteTable, Upstream, UpstreamId};
use evenkeel_model::instance::InstancePhase;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

use crate::world::{endpoint, table};

/// Lets every check that is due end in the same way, until all were asked `rounds` times.
fn check_all(balancer: &mut Balancer, finding: Finding, rounds: u32, now: &mut Timestamp) {
    for _ in 0..rounds {
        *now = *now + Duration::from_secs(2);
        balancer.handle_timeout(*now);
        while let Some(action) = balancer.poll_action() {
            if let Action::Check { endpoint, .. } = action {
                balancer.handle_event(endpoint, Event::CheckFinished(finding), *now);
            }
        }
    }
}

#[test]
fn silence_of_all_is_told_at_once() {
    let api = |serial: u64, host: &str| Endpoint {
        id: EndpointId::Api(host.parse().unwrap()),
        ..endpoint(serial, host, InstancePhase::Serving)
    };
    let upstream = Upstream::key_value(vec![api(1, "h1"), api(2, "h2")]);
    let empty = RouteTable::clone(&table(1, Vec::new()));
    let table = RouteTable {
        upstreams: [(UpstreamId::KeyValue, upstream)].into(),
        listeners: Vec::new(),
        ..empty
    };
    let mut now = Timestamp::ZERO;
    let mut balancer =
        Balancer::new(Policy::STANDARD, Arc::new(table), Rng::from_seed(1), now).unwrap();
    let choose = |balancer: &mut Balancer, now| {
        balancer.choose(&UpstreamId::KeyValue, &[], Patience::Spent, now)
    };
    check_all(&mut balancer, Finding::Passed(Identity::Unsaid), 1, &mut now);
    assert!(matches!(choose(&mut balancer, now), Choice::Endpoint(_)));
    // Answering that they cannot serve is an answer: it may be out of date.
    check_all(&mut balancer, Finding::Failed(Identity::Unsaid), 2, &mut now);
    assert!(matches!(choose(&mut balancer, now), Choice::Endpoint(_)));
    check_all(&mut balancer, Finding::Silent, 2, &mut now);
    assert_eq!(choose(&mut balancer, now), Choice::Nothing);
    check_all(&mut balancer, Finding::Passed(Identity::Unsaid), 1, &mut now);
    assert!(matches!(choose(&mut balancer, now), Choice::Endpoint(_)));
}
