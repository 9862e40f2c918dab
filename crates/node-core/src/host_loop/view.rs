//! What a host answers when it is asked: by the leader's hosts, by people, by its own shell.
//!
//! Nothing here changes the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_control::controller::Controller;
use evenkeel_control::declaration::{Declaration, Wanted};
use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::Plan;
use evenkeel_control::preview::preview;
use evenkeel_control::redundancy::Redundancy;
use evenkeel_control::report::LeaderAnswer;
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::name::HostName;
use evenkeel_model::time::Timestamp;

use super::HostLoop;
use crate::status::{HostStatus, InstanceStatus, Status};

impl HostLoop {
    /// Returns the answer to a host whose report names `plan_number`; `None` while this host
    /// does not lead.
    #[must_use]
    pub fn answer_for(&self, plan_number: u64, now: Timestamp) -> Option<LeaderAnswer> {
        self.controller.as_ref().map(|controller| controller.answer_for(plan_number, now))
    }

    /// Returns the plan that would follow in the end if the store wanted `wanted`, beginning with
    /// the plan in force here, on the hosts that are up as far as this host knows.
    #[must_use]
    pub fn preview(&self, wanted: &Wanted, now: Timestamp) -> Plan {
        let states = match &self.controller {
            Some(controller) => controller.hosts().states(now),
            None => self.leader.hosts.clone(),
        };
        let known = wanted.system().hosts.keys().cloned();
        // A host that nobody has spoken of yet is one that is to be added.
        let up = known.filter(|host| states.get(host).is_none_or(|state| *state == HostState::Up));
        let empty = Plan::empty();
        preview(wanted, self.planned().unwrap_or(&empty), &up.collect::<Vec<HostName>>())
    }

    /// Returns the newest plan that this host knows to be stored.
    #[must_use]
    pub fn planned(&self) -> Option<&Plan> {
        self.controller.as_ref().map(Controller::plan).or(self.plan.as_ref())
    }

    /// Returns the system file whose places and routes are in force on this host.
    #[must_use]
    pub const fn declaration(&self) -> &Declaration {
        &self.settings.declaration
    }

    /// Returns the plan in force on this host.
    #[must_use]
    pub const fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Returns the routes last written.
    #[must_use]
    pub const fn routes(&self) -> Option<&RouteTable> {
        self.routes.as_ref()
    }

    /// Returns the whole local view.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        let redundancy = match &self.controller {
            Some(controller) => Some(controller.redundancy(now)),
            None => self.leader.missing.clone().map(|missing| Redundancy { missing }),
        };
        let contact = match self.controller {
            Some(_) => Some(Duration::ZERO),
            None => self.leader.contact_at.map(|at| now.since(at)),
        };
        Status {
            host: self.settings.host.clone(),
            leader: self.leader.host.clone(),
            is_leader: self.controller.is_some(),
            term: self.leader.term,
            leader_contact: contact,
            plan: self.plan.clone(),
            routes_generation: self.routes.as_ref().map_or(0, |routes| routes.generation),
            hosts: self.host_statuses(now),
            releases: self.planned().map(|plan| plan.releases.clone()).unwrap_or_default(),
            wanted: self.controller.as_ref().map(|controller| {
                let Wanted { declaration, drained, drained_revision } = controller.wanted();
                (declaration.revision, *drained_revision, drained.clone())
            }),
            processes: self.agent.statuses(),
            instances: self.instance_statuses(),
            redundancy,
            disk_error: self.disk_error(),
            stopping: self.stopping,
        }
    }

    pub(super) fn disk_error(&self) -> Option<String> {
        let host = &self.settings.host;
        let full = || format!("the disk of host `{host}` is full: it stores no more changes");
        let log = self.log_full.then(full);
        log.or_else(|| self.plan_error.clone()).or_else(|| self.routes_error.clone())
    }

    fn host_statuses(&self, now: Timestamp) -> BTreeMap<HostName, HostStatus> {
        let reachable = self.reach.reachable(now);
        let states = match &self.controller {
            Some(controller) => controller.hosts().states(now),
            None => self.leader.hosts.clone(),
        };
        let report = |host: &HostName| self.controller.as_ref()?.hosts().report(host);
        let status = |host: &HostName| HostStatus {
            state: states.get(host).copied(),
            round_trip: match reachable.get(host) {
                Some(round_trip) => *round_trip,
                None => Some(Duration::ZERO),
            },
            disk_ok: report(host).is_none_or(|report| report.disk_ok),
            gateway_up: report(host).is_none_or(|report| report.gateway_up),
        };
        self.settings.system().hosts.keys().map(|host| (host.clone(), status(host))).collect()
    }

    fn instance_statuses(&self) -> Vec<InstanceStatus> {
        let own = self.agent.reports();
        let plan = self.controller.as_ref().map(Controller::plan).or(self.plan.as_ref());
        let instances = plan.into_iter().flat_map(|plan| &plan.instances);
        let status = |instance: &evenkeel_model::instance::Instance| {
            let remote = || {
                let controller = self.controller.as_ref()?;
                controller.hosts().report(&instance.host)?.instance(&instance.id)
            };
            let report = own.iter().find(|report| report.id == instance.id).or_else(remote);
            InstanceStatus {
                instance: instance.clone(),
                state: report.map(|report| report.state),
                last_error: report.and_then(|report| report.last_error.clone()),
            }
        };
        instances.map(status).collect()
    }
}
