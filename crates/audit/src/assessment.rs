//! Judges a system against its goal: on paper, and as it runs.

use std::collections::BTreeSet;

use evenkeel_diagnostic::Severity;
use evenkeel_model::instance::Placement;
use evenkeel_model::name::ServiceName;
use evenkeel_model::place::{Domain, SurvivalGoal};
use evenkeel_model::system::System;

use crate::cascade::Cascade;
use crate::component::Component;
use crate::design;
use crate::finding::Finding;
use crate::present;
use crate::system::{SystemGraph, place_on_paper};

/// A system judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The goal it was judged against.
    pub goal: SurvivalGoal,
    /// Requests are answered, as far as the parts that are not lost can tell.
    pub up: bool,
    /// A majority of the voters is left.
    pub has_quorum: bool,
    /// Both hold, and go on to hold after the loss of any one component of the goal's size or
    /// smaller. Evenkeel's own processes are excepted, see [`Component::is_restarted`].
    pub goal_met: bool,
    /// The strongest goal that is met; `None` when not even the weakest is.
    pub survives: Option<SurvivalGoal>,
    /// Every single component, of any size, whose loss makes requests fail: the minimal cut sets
    /// of order 1. Empty when they fail already.
    pub cuts: Vec<Component>,
    /// The same for the loss of the quorum.
    pub quorum_cuts: Vec<Component>,
    /// What breaks the goal, and what is worth knowing. There is an error in it exactly if the
    /// goal is not met.
    pub findings: Vec<Finding>,
    /// What remains of each service after the worst loss of the goal's size.
    pub capacity: Vec<Capacity>,
}

/// How many replicas of a service the worst single loss leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// The service.
    pub service: ServiceName,
    /// Its replicas before the loss.
    pub replicas: u32,
    /// Its replicas after the loss.
    pub left: u32,
    /// The place that is lost; a single replica when absent.
    pub worst: Option<Domain>,
}

impl Capacity {
    /// Says how many replicas are left after the loss of any one place of the goal's size.
    #[must_use]
    pub fn sentence(&self, goal: SurvivalGoal) -> String {
        let Self { service, replicas, left, .. } = self;
        let noun = if *replicas == 1 { "replica" } else { "replicas" };
        format!("after the loss of any {goal}: {service} keeps {left} of {replicas} {noun}")
    }
}

/// Judges a system on paper: its replicas dealt over healthy hosts, nothing lost.
#[must_use]
pub fn assess(system: &System) -> Assessment {
    let placement = place_on_paper(system);
    let graph = SystemGraph::new(system, &placement);
    let mut assessment = judge(system, &placement, &graph, &BTreeSet::new());
    assessment.findings = design::findings(system, &graph, &assessment);
    assessment
}

/// Judges a system as it runs. `placement` has the replicas that work now, no others; `lost` has
/// the hosts, gateways and nodes that do not.
#[must_use]
pub fn assess_placed(
    system: &System,
    placement: &Placement,
    lost: &BTreeSet<Component>,
) -> Assessment {
    let graph = SystemGraph::new(system, placement);
    let mut assessment = judge(system, placement, &graph, lost);
    assessment.findings = present::findings(system, &graph, &assessment, lost);
    assessment
}

impl Assessment {
    /// Returns the components up to `goal` whose loss breaks it, smallest first.
    pub fn breaking(&self, goal: SurvivalGoal) -> impl Iterator<Item = &Component> {
        let all: BTreeSet<&Component> = self.cuts.iter().chain(&self.quorum_cuts).collect();
        all.into_iter().filter(move |component| breaks(component, goal))
    }

    /// Returns whether a finding breaks the goal.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

fn breaks(component: &Component, goal: SurvivalGoal) -> bool {
    component.level() <= goal && !component.is_restarted()
}

fn judge(
    system: &System,
    placement: &Placement,
    graph: &SystemGraph,
    lost: &BTreeSet<Component>,
) -> Assessment {
    let mut cascade = Cascade::new(&graph.graph, &graph.nodes(lost));
    let cuts = cascade.single_failures(graph.top);
    let quorum_cuts = cascade.single_failures(graph.quorum);
    let mut assessment = Assessment {
        goal: system.goal,
        up: !cascade.has_failed(graph.top),
        has_quorum: !cascade.has_failed(graph.quorum),
        goal_met: false,
        survives: None,
        cuts: graph.components_of(&cuts),
        quorum_cuts: graph.components_of(&quorum_cuts),
        findings: Vec::new(),
        capacity: capacity(system, placement, lost),
    };
    if assessment.up && assessment.has_quorum {
        let met = |goal: &SurvivalGoal| assessment.breaking(*goal).next().is_none();
        assessment.survives = SurvivalGoal::ALL.into_iter().rev().find(met);
        assessment.goal_met = assessment.survives >= Some(system.goal);
    }
    assessment
}

fn capacity(system: &System, placement: &Placement, lost: &BTreeSet<Component>) -> Vec<Capacity> {
    let is_lost = |domain: Domain| lost.contains(&Component::Place(domain));
    let capacity_of = |service: &ServiceName| {
        let placed = placement.get(service).map_or(&[][..], Vec::as_slice);
        let hosts: Vec<_> = placed
            .iter()
            .filter_map(|name| system.hosts.get(name))
            .filter(|host| {
                let zone = Domain::Zone(host.region.clone(), host.zone.clone());
                !is_lost(Domain::Host(host.name.clone()))
                    && !is_lost(zone)
                    && !is_lost(Domain::Region(host.region.clone()))
            })
            .collect();
        let within = |domain: &Domain| hosts.iter().filter(|host| domain.contains(host)).count();
        let domains = system.domains(system.goal);
        let worst = domains.into_iter().rev().max_by_key(|domain| within(domain));
        let gone = worst.as_ref().map_or(1, within);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Capacity {
            service: service.clone(),
            replicas: count(hosts.len()),
            left: count(hosts.len().saturating_sub(gone)),
            worst,
        }
    };
    system.services.keys().map(capacity_of).collect()
}
