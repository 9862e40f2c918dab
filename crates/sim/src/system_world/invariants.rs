//! What must hold at every moment, and what full redundancy is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::table::{Endpoint, EndpointId, RouteTable, UpstreamId};
use evenkeel_model::dealing::deal;
use evenkeel_model::instance::{Instance, InstanceId, InstancePhase};
use evenkeel_model::name::{HostName, RegionName, ServiceName};
use evenkeel_model::place::{Host, HostRole};
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::process::ProcessId;

use super::World;
use super::exchange::{Exchange, Problem};
use super::happening::ProcessLife;

/// After this long without a fault every leader must see every host.
const CALM: Duration = Duration::from_secs(5);

/// How long a gateway may take to notice how an endpoint is.
const NOTICE_MAX: Duration = Duration::from_secs(6);

/// Writes a plan in one line.
fn describe(plan: &Plan) -> String {
    let text = |instance: &Instance| {
        let draining = if instance.phase == InstancePhase::Draining { "-" } else { "" };
        format!("{draining}{}@{}", instance.id, instance.host)
    };
    plan.instances.iter().map(text).collect::<Vec<_>>().join(" ")
}

impl World {
    /// No host ever goes back to a lower plan, also not across a restart, and none follows a plan
    /// that is not on its disk.
    pub(super) fn check_host(&mut self, host: usize) {
        let plan = self.hosts[host].core().and_then(|core| core.plan());
        let number = plan.map_or(0, |plan| plan.number);
        let durable = self.hosts[host].plan.as_ref().map_or(0, |plan| plan.number);
        let before = self.hosts[host].plan_number_max;
        self.transcript.digest_number(number);
        if self.hosts[host].node.is_none() {
            return;
        }
        let name = &self.names[host];
        if number < before {
            self.violate(format!("{name} went back from plan {before} to {number}"));
        } else if number > durable {
            self.violate(format!("{name} follows plan {number}, but its disk has {durable}"));
        }
        self.hosts[host].plan_number_max = number.max(before);
        self.check_leases(host);
    }

    /// Routes never go back.
    pub(super) fn check_generation(&mut self, host: usize, generation: u64) {
        let before = self.hosts[host].routes.as_ref().map_or(0, |routes| routes.generation);
        if generation < before {
            let name = &self.names[host];
            self.violate(format!("{name} writes routes {generation} after routes {before}"));
        }
    }

    /// Routes are those of the plan in force, and name a replica of every service of which one is
    /// ready anywhere.
    pub(super) fn check_routes(&mut self, host: usize, routes: &RouteTable) {
        let name = self.names[host].clone();
        if let Err(error) = routes.validate() {
            self.violate(format!("{name} writes routes that are wrong: {error}"));
        }
        let Some(plan) = self.hosts[host].core().and_then(|core| core.plan()) else { return };
        let number = plan.number;
        let planned: BTreeSet<InstanceId> =
            plan.instances.iter().map(|instance| instance.id.clone()).collect();
        let endpoints = routes.upstreams.values().flat_map(|upstream| &upstream.endpoints);
        let routed = endpoints.filter_map(|endpoint| match &endpoint.id {
            EndpointId::Replica(id) => Some(id.clone()),
            EndpointId::Api(_) => None,
        });
        for service in self.ready_services() {
            let upstream = routes.upstreams.get(&UpstreamId::Service(service.clone()));
            let serving = upstream.is_some_and(|upstream| {
                upstream.endpoints.iter().any(|endpoint| endpoint.phase == InstancePhase::Serving)
            });
            if !serving {
                self.violate(format!("{name} has no route to {service}, which is ready"));
            }
        }
        if let Some(id) = routed.into_iter().find(|id| !planned.contains(id)) {
            self.violate(format!("{name} writes a route to {id}, which plan {number} has not"));
        }
    }

    fn ready_services(&self) -> BTreeSet<ServiceName> {
        let processes = self.hosts.iter().flat_map(|host| &host.processes);
        let ready = processes.filter(|(_, process)| process.is_ready(self.now));
        ready
            .filter_map(|(id, _)| match id {
                ProcessId::Gateway => None,
                ProcessId::Replica(id) => Some(id.service.clone()),
            })
            .collect()
    }

    /// No process starts twice, or on a port of the range that another one uses. Returns whether
    /// its port is in use.
    pub(super) fn check_start(&mut self, host: usize, id: &ProcessId, port: Option<u16>) -> bool {
        let clash = self.hosts[host].processes.iter().find(|(other, process)| {
            process.running && (*other == id || (port.is_some() && process.port == port))
        });
        let Some((other, _)) = clash else { return false };
        // A fixed port is free only once the replica that had it before has ended.
        let fixed = port.is_none_or(|port| !self.system.ports.replicas.contains(&port));
        if other == id || !fixed {
            self.violate(format!("{} starts {id} while {other} runs", self.names[host]));
        }
        true
    }

    /// A leader plans with what it has heard, and gives no host a second replica of a service
    /// while another host could take its first.
    pub(super) fn check_proposal(&mut self, host: usize, plan: &Plan) {
        let (name, number) = (self.names[host].clone(), plan.number);
        if self.transcript.is_in_words() {
            let text = describe(plan);
            self.transcript.line(self.now, format_args!("{name}: plan {number} is wanted: {text}"));
        }
        let Some(node) = &self.hosts[host].node else { return };
        let status = node.core.status(node.clock.read(self.now));
        let empty = Plan::empty();
        let before = if plan.parent == 0 { Some(&empty) } else { self.plans.get(&plan.parent) };
        let Some(before) = before else { return };
        let new: Vec<&Instance> =
            plan.instances.iter().filter(|it| it.id.serial >= before.next_serial).collect();
        let up = |host: &HostName| {
            status.hosts.get(host).is_some_and(|it| it.state == Some(HostState::Up) && it.disk_ok)
        };
        let mut violations = Vec::new();
        for instance in new {
            let id = &instance.id;
            let heard = self.index(&instance.host).is_some_and(|host| node.heard.contains(&host));
            if !heard {
                let host = &instance.host;
                violations.push(format!("{name} plans {id} on {host}, which it never heard"));
            }
            let on = |host: &HostName| {
                plan.of_service(&id.service).filter(|other| other.host == *host).count()
            };
            let serving = plan.of_service(&id.service).filter(|other| {
                other.host == instance.host && other.phase == InstancePhase::Serving
            });
            let free = self.system.service_hosts().find(|host| {
                let place = (id.service.clone(), host.name.clone());
                up(&host.name) && on(&host.name) == 0 && !plan.avoided.contains_key(&place)
            });
            if let Some(free) = free.filter(|_| serving.count() > 1) {
                let (host, free) = (&instance.host, &free.name);
                violations.push(format!("{id} is a second one on {host}, but {free} has none"));
            }
        }
        if let Some(violation) = violations.pop() {
            self.violate(violation);
        }
    }

    /// Takes note of the plan that a voter has applied. Every plan that is stored follows from the
    /// one before.
    pub(super) fn note_plan(&mut self, host: usize) {
        let Some(plan) = self.applied_plan(host) else { return };
        let newest = self.newest_plan();
        if let Some(known) = self.plans.get(&plan.number) {
            if *known != plan {
                self.violate(format!("there are two plans {}", plan.number));
            }
            return;
        }
        // A voter that is behind may show an older one for the first time.
        let empty = Plan::empty();
        let before = if plan.parent == 0 { Some(&empty) } else { self.plans.get(&plan.parent) };
        let mut violations = before.map_or_else(Vec::new, |before| self.find_breach(before, &plan));
        if plan.parent < newest && plan.number > newest {
            violations.push(format!("it replaced plan {}, not {newest}", plan.parent));
        }
        if let Some(violation) = violations.first() {
            self.violate(format!("plan {}: {violation}", plan.number));
        }
        self.plans.insert(plan.number, plan);
    }

    fn find_breach(&self, before: &Plan, plan: &Plan) -> Vec<String> {
        let mut violations = Vec::new();
        if plan.number <= before.number || plan.next_serial < before.next_serial {
            violations.push("a number went back".to_owned());
        }
        let mut ports = BTreeSet::new();
        for instance in &plan.instances {
            if !ports.insert((&instance.host, instance.port)) {
                violations.push(format!("two replicas get port {}", instance.port));
            }
            let host = self.system.hosts.get(&instance.host);
            if host.is_none_or(|host| host.role != HostRole::Full) {
                violations.push(format!("{} is placed on a witness", instance.id));
            }
            match before.instance(&instance.id) {
                Some(old) if old.host != instance.host || old.port != instance.port => {
                    violations.push(format!("{} changed its place", instance.id));
                }
                None if instance.id.serial < before.next_serial => {
                    violations.push(format!("{} was used before", instance.id));
                }
                Some(_) | None => {}
            }
        }
        for service in self.system.services.keys() {
            let serving = |plan: &Plan| {
                let serving = |instance: &&Instance| instance.phase == InstancePhase::Serving;
                plan.of_service(service).filter(serving).count()
            };
            if serving(before) > 0 && serving(plan) == 0 {
                violations.push(format!("{service} has no replica left"));
            }
        }
        violations
    }

    /// While nothing is wrong, and clocks are no farther off than leases allow, the leader takes
    /// nobody for lost.
    fn check_leases(&mut self, host: usize) {
        let calm = !self.storming && self.habits.clocks_hold();
        if !calm || self.now.since(self.disturbed_at) < CALM {
            return;
        }
        let Some(node) = &self.hosts[host].node else { return };
        if !node.view.is_self {
            return;
        }
        let answer = node.core.answer_for(u64::MAX, node.clock.read(self.now));
        let lost = answer
            .and_then(|answer| answer.hosts.into_iter().find(|(_, state)| *state != HostState::Up));
        if let Some((host, state)) = lost {
            self.violate(format!("the leader takes {host} for {state}, and nothing is wrong"));
        }
    }

    /// A gateway may answer a request itself, although an endpoint that was not sent it was fit for
    /// long and still is, only if the request was sent and may not be sent again, or was sent as often as it may be,
    /// or if the budget of retries had no room, or if its time was over after it was sent, or if
    /// every endpoint has as many requests as it may have.
    pub(super) fn check_problem(&mut self, at: ProcessLife, exchange: &Exchange, problem: Problem) {
        let sent = exchange.tries.sent();
        let allowed = match problem {
            Problem::NoRoom | Problem::Overloaded => true,
            Problem::TooLate => sent > 0,
            Problem::NotRepeatable => {
                sent > 0 && (!exchange.repeatable || sent >= exchange.sent_max)
            }
            Problem::Exhausted => false,
        };
        if allowed || !self.links.is_calm(exchange.begun) {
            return;
        }
        let since = exchange.begun - NOTICE_MAX;
        let Some(gate) = self.hosts[at.host].process(at.pid).and_then(|it| it.gate.as_ref()) else {
            return;
        };
        let Some(balancer) = gate.balancer.as_ref().filter(|_| gate.awake_since <= since) else {
            return;
        };
        let upstream = balancer.table().upstreams.get(&exchange.upstream);
        let endpoints = upstream.into_iter().flat_map(|upstream| &upstream.endpoints);
        // None is sent a request twice.
        let unsent = endpoints.filter(|endpoint| !exchange.sent_to.contains(&endpoint.id));
        let fit = unsent.filter(|endpoint| self.is_fit(at.host, endpoint, since));
        let fit: Vec<String> = fit.map(|endpoint| endpoint.id.to_string()).collect();
        if let Some(fit) = fit.first() {
            let (name, upstream) = (&self.names[at.host], &exchange.upstream);
            let tried: Vec<String> = exchange.tried.iter().map(ToString::to_string).collect();
            let tried = tried.join(" ");
            self.violate(format!(
                "the gateway of {name} failed a request to {upstream} ({problem:?}, sent {sent} \
                 times, tried {tried}), but {fit} was fit all the time"
            ));
        }
    }

    /// Returns whether an endpoint has answered, and was reached from a host, since a moment.
    fn is_fit(&self, from: usize, endpoint: &Endpoint, since: Timestamp) -> bool {
        let Some(to) = self.index(&endpoint.host) else { return false };
        let fit_since = match &endpoint.id {
            EndpointId::Api(_) => {
                let node = self.hosts[to].node.as_ref().filter(|node| !node.paused);
                node.map(|node| node.fit_since)
            }
            EndpointId::Replica(id) => {
                let process = self.hosts[to].processes.get(&ProcessId::Replica(id.clone()));
                let ready = process.filter(|process| process.is_ready(self.now));
                ready.map(|process| process.fit_since)
            }
        };
        let linked_since = self.linked_since(from, to);
        fit_since.zip(linked_since).is_some_and(|(fit, linked)| fit.max(linked) <= since)
    }

    /// Returns whether the leader reports full redundancy and every host follows the stored plan.
    pub(super) fn is_whole(&self) -> bool {
        let Some(leader) = self.leading_host() else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        let answer = node.core.answer_for(u64::MAX, node.clock.read(self.now));
        let full = answer.is_some_and(|answer| answer.missing.is_empty());
        let number = self.newest_plan();
        full && self.hosts.iter().all(|host| {
            let plan = host.core().and_then(|core| core.plan());
            plan.is_some_and(|plan| plan.number == number)
        })
    }

    /// Says what is missing until then.
    pub(super) fn missing(&self) -> String {
        let leader = self.leading_host();
        let node = leader.and_then(|leader| self.hosts[leader].node.as_ref());
        let answer =
            node.and_then(|node| node.core.answer_for(u64::MAX, node.clock.read(self.now)));
        match answer {
            Some(answer) => answer.missing.join("; "),
            None => "nobody leads".to_owned(),
        }
    }

    /// At full redundancy the replicas of each service stand as they would be dealt anew.
    pub(super) fn check_spread(&mut self) {
        let Some((number, plan)) = self.plans.last_key_value() else { return };
        let hosts: Vec<&Host> = self.system.service_hosts().collect();
        let regions = |names: Vec<HostName>| {
            let mut counts: BTreeMap<RegionName, u32> = BTreeMap::new();
            for host in names.iter().filter_map(|name| self.system.hosts.get(name)) {
                *counts.entry(host.region.clone()).or_insert(0) += 1;
            }
            let mut counts: Vec<u32> = counts.into_values().collect();
            counts.sort_unstable();
            counts
        };
        let mut violation = None;
        for service in self.system.services.values() {
            let avoided = plan.avoided.keys().any(|(name, _)| *name == service.name);
            if avoided {
                continue;
            }
            let serving = plan.of_service(&service.name);
            let serving = serving.filter(|instance| instance.phase == InstancePhase::Serving);
            let stands = regions(serving.map(|instance| instance.host.clone()).collect());
            let dealt = deal(&hosts, service.replicas);
            let distinct: BTreeSet<&HostName> = dealt.iter().collect();
            // Where dealing gives a host two while another has none, the rule is the stricter.
            let comparable = distinct.len() == dealt.len();
            let dealt = regions(dealt);
            if comparable && squares(&stands) != squares(&dealt) {
                let name = &service.name;
                violation = Some(format!(
                    "plan {number}: {name} stands {stands:?} in its regions, not {dealt:?}"
                ));
            }
        }
        if let Some(violation) = violation {
            self.violate(violation);
        }
    }
}

/// Returns how uneven counts of the same sum are.
fn squares(counts: &[u32]) -> u32 {
    counts.iter().map(|count| count * count).sum()
}
