//! A few hosts without any delay between them: every action succeeds at once, so that a transcript
//! shows what is decided and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::controller;
use evenkeel_control::declaration::Declaration;
use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::table::{RouteTable, UpstreamId};
use evenkeel_model::instance::InstancePhase;
use evenkeel_model::name::{GatewayName, HostName, RegionName, ServiceName, SystemName, ZoneName};
use evenkeel_model::place::{Host, HostRole, SurvivalGoal};
use evenkeel_model::service::{
    DeployPolicy, Gateway, HealthCheck, Probe, Route, Service, ServicePort,
};
use evenkeel_model::system::{Ports, System};
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::action::Action;
use evenkeel_node_core::event::{Event, ProcessChange};
use evenkeel_node_core::host_loop::HostLoop;
use evenkeel_node_core::process::{ProcessId, ProcessSpec};
use evenkeel_node_core::settings::{Adopted, Restored, Settings, Timings};
use evenkeel_supervisor_core::status::ExitStatus;

/// Three hosts in three regions, one service with two replicas, one gateway.
pub(crate) fn shop() -> System {
    let host = |region: &str, name: &str, address: &str| Host {
        name: HostName::parse(name).unwrap(),
        region: RegionName::parse(region).unwrap(),
        zone: ZoneName::parse("a").unwrap(),
        address: address.parse().unwrap(),
        role: HostRole::Full,
    };
    let hosts = [
        host("fra", "fra1", "10.1.0.1"),
        host("ams", "ams1", "10.2.0.1"),
        host("waw", "waw1", "10.3.0.1"),
    ];
    let web = Service {
        name: ServiceName::parse("web").unwrap(),
        command: ["/bin/web", "--port", "${PORT}"].map(str::to_owned).to_vec(),
        directory: None,
        environment: BTreeMap::from([("STORE".to_owned(), "${kv.url}/v1/kv".to_owned())]),
        replicas: 2,
        needs: Vec::new(),
        health: HealthCheck {
            probe: Probe::Http("/readyz".to_owned()),
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            unhealthy_after: 3,
            healthy_after: 1,
            alive: None,
        },
        port: ServicePort::FromRange,
        start_grace: Duration::from_secs(10),
        drain: Duration::from_secs(2),
        stop_grace: Duration::from_secs(5),
        deploy: DeployPolicy::STANDARD,
    };
    let route = Route {
        host: None,
        path: "/".to_owned(),
        to: web.name.clone(),
        body_max: 1024,
        timeout: Duration::from_secs(5),
        tries_max: 3,
    };
    let public = Gateway {
        name: GatewayName::parse("public").unwrap(),
        address: None,
        port: 8080,
        routes: vec![route],
    };
    System {
        name: SystemName::parse("shop").unwrap(),
        goal: SurvivalGoal::Region,
        regions: ["fra", "ams", "waw"].map(|name| RegionName::parse(name).unwrap()).to_vec(),
        hosts: hosts.map(|host| (host.name.clone(), host)).into(),
        services: BTreeMap::from([(web.name.clone(), web)]),
        gateways: BTreeMap::from([(public.name.clone(), public)]),
        ports: Ports {
            peer: 7400,
            api: 7401,
            kv: 7402,
            gateway_admin: 7403,
            relay: 7404,
            replicas: 20000..=20099,
        },
        voters: Vec::new(),
        learners: Vec::new(),
        replace_after: evenkeel_model::voting::REPLACE_AFTER,
    }
}

#[derive(Default)]
struct Node {
    core: Option<HostLoop>,
    plan: Option<Plan>,
    routes: Option<RouteTable>,
    running: BTreeMap<ProcessId, u32>,
    ports_taken: BTreeSet<u16>,
    broken: bool,
    disk_full: bool,
    /// Does not run and hears nothing.
    paused: bool,
    boot: u64,
}

impl Node {
    fn awake(&mut self) -> Option<&mut HostLoop> {
        self.core.as_mut().filter(|_| !self.paused)
    }
}

/// The hosts, the plan that the store holds, and what has happened.
pub(crate) struct Cluster {
    system: System,
    pub(crate) now: Timestamp,
    nodes: BTreeMap<HostName, Node>,
    stored: Option<Plan>,
    leader: Option<HostName>,
    term: u64,
    pids: u32,
    /// Wake-ups at the present moment.
    steps: u32,
    seen: BTreeMap<String, String>,
    pub(crate) transcript: String,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let system = shop();
        Self {
            nodes: system.hosts.keys().map(|host| (host.clone(), Node::default())).collect(),
            system,
            now: Timestamp::ZERO,
            stored: None,
            leader: None,
            term: 0,
            pids: 100,
            steps: 0,
            seen: BTreeMap::new(),
            transcript: String::new(),
        }
    }

    /// Carries out one line of a script.
    pub(crate) fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let host = |text: &str| HostName::parse(text).unwrap();
        match *words.as_slice() {
            ["start", "everything"] => {
                for host in self.nodes.keys().cloned().collect::<Vec<_>>() {
                    self.start(&host);
                }
            }
            ["start", name] => self.start(&host(name)),
            ["leader", name] => self.elect(Some(host(name))),
            ["no", "leader"] => self.elect(None),
            ["crash", id, "on", name] => {
                self.end(&host(name), &ProcessId::parse(id).unwrap(), ExitStatus::Signal(9));
            }
            ["lose", name] => {
                let node = self.nodes.get_mut(&host(name)).unwrap();
                node.core = None;
                node.running.clear();
            }
            ["kill", "node", name] => self.nodes.get_mut(&host(name)).unwrap().core = None,
            ["pause", name] => self.nodes.get_mut(&host(name)).unwrap().paused = true,
            ["resume", name] => {
                self.nodes.get_mut(&host(name)).unwrap().paused = false;
                self.wake();
            }
            ["lose", "plan", "of", name] => self.nodes.get_mut(&host(name)).unwrap().plan = None,
            ["fill", "disk", "of", name] => {
                self.nodes.get_mut(&host(name)).unwrap().disk_full = true;
            }
            ["free", "disk", "of", name] => {
                self.nodes.get_mut(&host(name)).unwrap().disk_full = false;
            }
            ["take", "port", port, "on", name] => {
                let node = self.nodes.get_mut(&host(name)).unwrap();
                node.ports_taken.insert(port.parse().unwrap());
            }
            ["break", "web", "on", name] => self.nodes.get_mut(&host(name)).unwrap().broken = true,
            ["mend", "web", "on", name] => self.nodes.get_mut(&host(name)).unwrap().broken = false,
            ["offer", name, "plan", number] => {
                let plan = Plan { number: number.parse().unwrap(), ..Plan::empty() };
                self.tell(&host(name), Event::PlanSeen { plan });
                let plan = self.nodes[&host(name)].core.as_ref().and_then(HostLoop::plan);
                let number = plan.map_or(0, |plan| plan.number);
                self.note(&format!("{name} stays with plan {number}"));
            }
            ["stop", name] => self.tell(&host(name), Event::Stop),
            ["status", name] => self.status(&host(name)),
            [seconds, "s"] => self.pass(Duration::from_secs_f64(seconds.parse().unwrap())),
            _ => panic!("`{line}` is no command"),
        }
        self.settle();
    }

    fn note(&mut self, text: &str) {
        let seconds = Duration::from_nanos(self.now.as_nanos()).as_secs_f64();
        writeln!(self.transcript, "{seconds:8.2} s  {text}").unwrap();
    }

    fn start(&mut self, host: &HostName) {
        let node = self.nodes.get_mut(host).unwrap();
        node.boot += 1;
        let settings = Settings {
            host: host.clone(),
            declaration: Declaration {
                revision: 1,
                text: "".into(),
                system: Arc::new(self.system.clone()),
            },
            boot: node.boot,
            seed: 1,
            gateway_command: vec!["evenkeel".to_owned(), "gateway".to_owned()],
            protected: false,
            timings: Timings::STANDARD,
            control: controller::Settings::STANDARD,
            defect: None,
        };
        let adopted =
            node.running.iter().map(|(id, pid)| Adopted { id: id.clone(), pid: Some(*pid) });
        let restored = Restored {
            plan: node.plan.clone(),
            routes: node.routes.clone(),
            processes: adopted.collect(),
        };
        node.core = Some(HostLoop::new(settings, restored, self.now));
        self.tell_role(&host.clone());
    }

    fn elect(&mut self, leader: Option<HostName>) {
        self.leader = leader;
        self.term += 1;
        for host in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.tell_role(&host);
        }
    }

    fn tell_role(&mut self, host: &HostName) {
        let leads = self.leader.as_ref() == Some(host);
        let plan = self.stored.clone().filter(|_| leads);
        let role = Event::Role { leader: self.leader.clone(), term: self.term, plan, wanted: None };
        self.tell(host, role);
    }

    fn tell(&mut self, host: &HostName, event: Event) {
        let now = self.now;
        if let Some(core) = self.nodes.get_mut(host).unwrap().awake() {
            core.handle_event(event, now);
        }
    }

    fn end(&mut self, host: &HostName, id: &ProcessId, status: ExitStatus) {
        if self.nodes.get_mut(host).unwrap().running.remove(id).is_some() {
            let change = ProcessChange::Exited(status);
            self.tell(host, Event::Process { id: id.clone(), change });
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            let cores = self.nodes.values_mut().filter_map(Node::awake);
            let next = cores.filter_map(|core| core.poll_timeout()).min().unwrap_or(until);
            if next > until {
                break;
            }
            assert!(next > self.now || self.steps < 1000, "a machine never rests");
            self.steps = if next > self.now { 0 } else { self.steps + 1 };
            self.now = self.now.max(next);
            self.wake();
        }
        self.now = until;
    }

    fn wake(&mut self) {
        for core in self.nodes.values_mut().filter_map(Node::awake) {
            core.handle_timeout(self.now);
        }
    }

    /// Carries out actions until nobody wants any more.
    fn settle(&mut self) {
        let hosts: Vec<HostName> = self.nodes.keys().cloned().collect();
        loop {
            let next = hosts.iter().find_map(|host| {
                let core = self.nodes.get_mut(host)?.core.as_mut()?;
                core.poll_action().map(|action| (host, action))
            });
            let Some((host, action)) = next else { break };
            self.act(host, action);
        }
        self.note_states();
    }

    fn act(&mut self, host: &HostName, action: Action) {
        match action {
            // People read logs; nothing is decided from them here.
            Action::ReadLog { .. } => {}
            Action::SendHeartbeat { to, report } => {
                let plan_number = report.plan_number;
                self.tell(&to, Event::HeartbeatReceived { report });
                let core = self.nodes[&to].core.as_ref().filter(|_| !self.nodes[&to].paused);
                let answer = core.and_then(|core| core.answer_for(plan_number, self.now));
                let event = match answer {
                    Some(answer) => Event::HeartbeatAnswered { answer },
                    None => Event::HeartbeatFailed { reason: "no answer".to_owned() },
                };
                self.tell(host, event);
            }
            Action::SendProbe { to } => {
                if self.nodes[&to].core.is_some() && !self.nodes[&to].paused {
                    let round_trip = Duration::from_millis(10);
                    self.tell(host, Event::ProbeAnswered { from: to, round_trip });
                }
            }
            Action::ChangeMembers { .. } => {}
            Action::StorePlan { plan } => {
                self.note(&format!("{host} stores plan {}: {}", plan.number, describe(&plan)));
                let number = plan.number;
                self.stored = Some(plan);
                self.tell(host, Event::PlanStored { number });
            }
            Action::SavePlan { plan } if self.nodes[host].disk_full => {
                let reason = "no space left".to_owned();
                self.tell(host, Event::PlanSaveFailed { number: plan.number, reason });
            }
            Action::SavePlan { plan } => {
                let number = plan.number;
                self.nodes.get_mut(host).unwrap().plan = Some(plan);
                self.tell(host, Event::PlanSaved { number });
            }
            Action::WriteRoutes { routes } if self.nodes[host].disk_full => {
                let (generation, reason) = (routes.generation, "no space left".to_owned());
                self.tell(host, Event::RoutesFailed { generation, reason });
            }
            Action::WriteRoutes { routes } => {
                self.note(&format!("{host} writes routes {}", describe_routes(&routes)));
                let generation = routes.generation;
                self.nodes.get_mut(host).unwrap().routes = Some(routes);
                self.tell(host, Event::RoutesWritten { generation });
            }
            Action::StartProcess { spec } => self.start_process(host, &spec),
            Action::TerminateProcess { id } => {
                self.note(&format!("{host} terminates {id}"));
                self.end(host, &id, ExitStatus::Code(0));
            }
            Action::KillProcess { id } => {
                self.note(&format!("{host} kills {id}"));
                self.end(host, &id, ExitStatus::Signal(9));
            }
            Action::RemoveProcess { id } => self.note(&format!("{host} removes {id}")),
            Action::Check { id, number, purpose, .. } => {
                let node = &self.nodes[host];
                let ok = !node.broken || id == ProcessId::Gateway;
                let result = if ok { Ok(()) } else { Err("GET /readyz: 503".to_owned()) };
                self.tell(host, Event::CheckFinished { id, number, purpose, result });
            }
            Action::Finish => {
                self.note(&format!("{host} is finished"));
                self.nodes.get_mut(host).unwrap().core = None;
            }
        }
    }

    fn start_process(&mut self, host: &HostName, spec: &ProcessSpec) {
        let id = spec.id.clone();
        let port = spec.binds.map(|address| address.port());
        let node = self.nodes.get_mut(host).unwrap();
        let change = if port.is_some_and(|port| node.ports_taken.contains(&port)) {
            self.note(&format!("{host} cannot start {id}: its port is taken"));
            ProcessChange::PortTaken
        } else {
            self.pids += 1;
            node.running.insert(id.clone(), self.pids);
            self.note(&format!("{host} starts {id}: {}", spec.command.join(" ")));
            ProcessChange::Started { pid: self.pids }
        };
        self.tell(host, Event::Process { id, change });
        if self.nodes[host].broken && spec.id != ProcessId::Gateway {
            self.end(host, &spec.id, ExitStatus::Code(1));
        }
    }

    /// Notes what the leader sees, when that has changed.
    fn note_states(&mut self) {
        let mut seen = BTreeMap::new();
        for (host, node) in &self.nodes {
            let Some(core) = node.core.as_ref().filter(|_| !node.paused) else { continue };
            let status = core.status(self.now);
            for process in &status.processes {
                seen.insert(format!("{} on {host}", process.id), process.state.to_string());
            }
            if status.is_leader {
                for (other, state) in &status.hosts {
                    let state = state.state.unwrap_or(HostState::Down);
                    seen.insert(format!("host {other}"), state.to_string());
                }
                let redundancy = status.redundancy.unwrap_or_default();
                let full = if redundancy.is_full() { "full" } else { "not full" };
                seen.insert("redundancy".to_owned(), full.to_owned());
            }
        }
        let news: Vec<String> = seen
            .iter()
            .filter(|(thing, state)| self.seen.get(*thing) != Some(state))
            .map(|(thing, state)| format!("{thing} is {state}"))
            .collect();
        for line in news {
            self.note(&format!("    {line}"));
        }
        self.seen = seen;
    }

    fn status(&mut self, host: &HostName) {
        let status = self.nodes[host].core.as_ref().unwrap().status(self.now);
        let contact = status.leader_contact.map(|age| format!("{} ms ago", age.as_millis()));
        self.note(&format!(
            "{host} follows plan {}, leader {}, heard {}, routes {}",
            status.plan.as_ref().map_or(0, |plan| plan.number),
            status.leader.map_or("unknown".to_owned(), |leader| leader.to_string()),
            contact.unwrap_or_else(|| "never".to_owned()),
            status.routes_generation,
        ));
        for instance in &status.instances {
            let state = instance.state.map_or("unknown".to_owned(), |state| state.to_string());
            let error = instance.last_error.as_deref().unwrap_or("none");
            let id = &instance.instance.id;
            self.note(&format!("    {id}: {state}, last error: {error}"));
        }
        for line in status.redundancy.unwrap_or_default().missing {
            self.note(&format!("    {line}"));
        }
    }
}

fn describe(plan: &Plan) -> String {
    let text = |instance: &evenkeel_model::instance::Instance| {
        let phase = if instance.phase == InstancePhase::Draining { " draining" } else { "" };
        format!("{}@{}:{}{phase}", instance.id, instance.host, instance.port)
    };
    plan.instances.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn describe_routes(routes: &RouteTable) -> String {
    let upstreams = routes.upstreams.iter().map(|(id, upstream)| {
        let endpoints = upstream.endpoints.iter().map(|endpoint| {
            let phase = if endpoint.phase == InstancePhase::Draining { " draining" } else { "" };
            format!("{}{phase}", endpoint.address)
        });
        (id, endpoints.collect::<Vec<_>>().join(", "))
    });
    let upstreams = upstreams.filter(|(id, _)| **id != UpstreamId::KeyValue);
    let upstreams: Vec<String> = upstreams.map(|(id, list)| format!("{id} -> [{list}]")).collect();
    let distances: Vec<String> = routes
        .distances
        .iter()
        .map(|(region, distance)| format!("{region} {} ms", distance.as_millis()))
        .collect();
    let (upstreams, distances) = (upstreams.join("; "), distances.join(", "));
    format!("{}: {upstreams}; far: {distances}", routes.generation)
}
