//! Measures what the links of a lab really take.

use std::thread;
use std::time::Duration;

use evenkeel_model::name::RegionName;

use crate::lab::Lab;
use crate::ping::ping;

/// Questions per pair, of which the quickest counts: the others waited for this machine.
const QUESTIONS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(2);

/// A round trip between hosts of two regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundTrip {
    /// Region that asked.
    pub from: RegionName,
    /// Region that answered.
    pub to: RegionName,
    /// As the link is set.
    pub planned: Duration,
    /// As it was; `None` when no answer came.
    pub measured: Option<Duration>,
}

/// Measures every pair of regions that have hosts, all at once.
pub(crate) fn round_trips(lab: &Lab) -> Vec<RoundTrip> {
    let regions = &lab.system().regions;
    let pairs = regions.iter().enumerate().flat_map(|(end, right)| {
        regions.iter().take(end).map(move |left| (left.clone(), right.clone()))
    });
    thread::scope(|scope| {
        let questions: Vec<_> =
            pairs.map(|(from, to)| scope.spawn(move || one(lab, from, to))).collect();
        questions.into_iter().filter_map(|question| question.join().ok().flatten()).collect()
    })
}

fn one(lab: &Lab, from: RegionName, to: RegionName) -> Option<RoundTrip> {
    let in_region =
        |region: &RegionName| lab.system().hosts.values().find(|host| host.region == *region);
    let (asks, answers) = (in_region(&from)?, in_region(&to)?);
    let namespace = lab.host_namespace(&asks.name)?;
    let planned = lab.wide_area()?.link(&from, &to)?.round_trip;
    let times = (0..QUESTIONS).filter_map(|_| ping(namespace, answers.address, TIMEOUT).ok()?);
    Some(RoundTrip { from, to, planned, measured: times.min() })
}
