//! Says where a system would end if all went well: the planner itself, asked again and again with
//! hosts that do at once what they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::instance::InstancePhase;
use evenkeel_model::name::HostName;

use crate::declaration::Wanted;
use crate::plan::Plan;
use crate::planner::{HostView, Inventory, next_plan};
use crate::report::HostReport;

/// Most plans on the way. A planner that still has something to change then is at odds with itself.
const STEPS_MAX: usize = 10_000;

/// Returns the plan that follows `current` in the end, on the hosts of `up` and with no other.
#[must_use]
pub fn preview(wanted: &Wanted, current: &Plan, up: &[HostName]) -> Plan {
    let mut plan = current.clone();
    for _ in 0..STEPS_MAX {
        let report = |host| HostReport::all_well(host, plan.number, plan.on_host(host));
        let reports: BTreeMap<&HostName, HostReport> =
            up.iter().map(|host| (host, report(host))).collect();
        let view =
            |host: &HostName| HostView { up: true, settled: true, report: reports.get(host) };
        let serving = plan.instances.iter();
        let draining =
            plan.instances.iter().filter(|instance| instance.phase == InstancePhase::Draining);
        let inventory = Inventory {
            hosts: up.iter().map(|host| (host.clone(), view(host))).collect(),
            drained: draining.map(|instance| instance.id.clone()).collect(),
            ready_for: serving.map(|instance| (instance.id.clone(), Duration::MAX)).collect(),
            moves_max: usize::MAX,
        };
        match next_plan(wanted, &plan, &inventory, plan.number + 1) {
            Some(next) => plan = next,
            None => break,
        }
    }
    plan
}
