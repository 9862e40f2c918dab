//! While a definition replaces another, each endpoint is asked what its own definition says.

use evenkeel_gateway_core::balancer::{Action, Balancer};
use evenkeel_gateway_core::policy::Policy;
use evenkeel_gateway_core::table::Endpoint;
use evenkeel_model::instance::InstancePhase;
use evenkeel_model::random::Rng;
use evenkeel_model::service::{HealthCheck, Probe};
use evenkeel_model::time::Timestamp;

use crate::world::{endpoint, table, web};

#[test]
fn an_endpoint_may_be_asked_something_else() {
    let common = table(1, Vec::new()).upstreams[&web()].health.clone();
    let other = HealthCheck { probe: Probe::Tcp, ..common.clone() };
    let endpoints = vec![
        endpoint(1, "h1", InstancePhase::Serving),
        Endpoint { health: Some(other), ..endpoint(2, "h2", InstancePhase::Serving) },
    ];
    let now = Timestamp::ZERO;
    let table = table(1, endpoints);
    let mut balancer = Balancer::new(Policy::STANDARD, table, Rng::from_seed(1), now).unwrap();
    balancer.handle_timeout(now);
    let mut asked: Vec<(String, Probe)> = std::iter::from_fn(|| balancer.poll_action())
        .filter_map(|action| match action {
            Action::Check { id, probe, .. } => Some((id.to_string(), probe)),
            Action::Announce { .. } => None,
        })
        .collect();
    asked.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [("web-1", common.probe), ("web-2", Probe::Tcp)];
    assert_eq!(asked, expected.map(|(id, probe)| (id.to_owned(), probe)));
}
