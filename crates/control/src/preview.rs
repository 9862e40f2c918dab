//! Says where a system would end if all went well: the planner itself, asked again and again with
//! hosts that do at once what they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::instance::InstancePhase;
use evenkeel_model::name::HostName;

use crate::declaration::Wanted;
use crate::plan::Plan;
use crate::planner::{HostView, Inventory, next_plan};
use crate::report::{HostReport, InstanceReport, InstanceState};

/// Most plans on the way. A planner that still has something to change then is at odds with itself.
const STEPS_MAX: usize = 10_000;

/// Returns the plan that follows `current` in the end, on the hosts of `up` and with no other.
#[must_use]
pub fn preview(wanted: &Wanted, current: &Plan, up: &[HostName]) -> Plan {
    let mut plan = current.clone();
    for _ in 0..STEPS_MAX {
        let reports: BTreeMap<&HostName, HostReport> =
            up.iter().map(|host| (host, report(host, &plan))).collect();
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

/// What a host reports on which everything goes well.
fn report(host: &HostName, plan: &Plan) -> HostReport {
    let instances = plan.on_host(host).map(|instance| InstanceReport {
        id: instance.id.clone(),
        state: InstanceState::Ready,
        restarts: 0,
        crash_looping: false,
        last_error: None,
        last_lines: Vec::new(),
    });
    HostReport {
        host: host.clone(),
        boot: 0,
        sequence: 0,
        plan_number: plan.number,
        instances: instances.collect(),
        reachable: BTreeMap::new(),
        ports_taken: std::collections::BTreeSet::new(),
        gateway_up: true,
        disk_ok: true,
    }
}
