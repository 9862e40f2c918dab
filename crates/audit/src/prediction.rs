//! Predicts whether a system survives one fault, before the drill injects it.

use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::instance::Placement;
use evenkeel_model::name::{RegionName, ServiceName};
use evenkeel_model::place::Domain;
use evenkeel_model::system::System;

use crate::cascade::Cascade;
use crate::component::Component;
use crate::graph::NodeId;
use crate::system::SystemGraph;

/// What is expected of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// Clients that know a second address go on being answered, apart from a short fail-over.
    pub survives: bool,
    /// What remains, or what is missing.
    pub because: String,
}

/// Predicts a fault of a healthy system with this placement.
///
/// A replica stands for its shim too, since it dies with it; a node for its voter. A killed process
/// of Evenkeel's own is started again and so survived even where it is the only one, see
/// [`Component::is_restarted`]; a paused or isolated one is not.
///
/// A cut link is survived if the system would survive the loss of one of the two regions at its
/// ends: without the other, all remaining hosts reach each other, and clients beyond the cut have
/// an address among them. Who holds the leader does not matter, since pre-vote and check-quorum
/// let the side with a majority decide. Two regions that lose each other but both reach a third
/// are of this kind too.
#[must_use]
pub fn predict(
    system: &System,
    placement: &Placement,
    target: &Target,
    kind: FaultKind,
) -> Prediction {
    let graph = SystemGraph::new(system, placement);
    let component = match target {
        Target::Replica(id, host) | Target::Shim(id, host) => {
            Component::Replica(id.service.clone(), host.clone(), 0)
        }
        Target::Gateway(host) => Component::Gateway(host.clone()),
        Target::Node(host) => Component::Node(host.clone()),
        Target::Host(host) => Component::Place(Domain::Host(host.clone())),
        Target::Zone(region, zone) => Component::Place(Domain::Zone(region.clone(), zone.clone())),
        Target::Region(region) => Component::Place(Domain::Region(region.clone())),
        Target::Link(left, right) => return predict_link(&graph, left, right),
    };
    let Some(node) = graph.components.get(&component) else {
        let because = format!("the system has no {component}");
        return Prediction { survives: true, because };
    };
    let prediction = predict_loss(&graph, &[*node]);
    if !prediction.survives && kind == FaultKind::Kill && component.is_restarted() {
        let because =
            format!("the {component} has no second, but is started again within about a second");
        return Prediction { survives: true, because };
    }
    prediction
}

fn predict_link(graph: &SystemGraph, left: &RegionName, right: &RegionName) -> Prediction {
    let lose = |region: &RegionName| {
        let region = Component::Place(Domain::Region(region.clone()));
        predict_loss(graph, &graph.nodes([&region]))
    };
    let (without_right, without_left) = (lose(right), lose(left));
    let side = |region: &RegionName, prediction: Prediction| Prediction {
        survives: prediction.survives,
        because: format!("on the side of {region}, {}", prediction.because),
    };
    match (without_right.survives, without_left.survives) {
        (true, _) => side(left, without_right),
        (false, true) => side(right, without_left),
        (false, false) => {
            let (left, right) = (side(left, without_right), side(right, without_left));
            let because = format!("{}; {}", left.because, right.because);
            Prediction { survives: false, because }
        }
    }
}

fn predict_loss(graph: &SystemGraph, lost: &[NodeId]) -> Prediction {
    let failed = Cascade::new(&graph.graph, &[]).failed_with(lost);
    let survives = !failed[graph.top.index()];
    let count = |wanted: &dyn Fn(&Component) -> bool| {
        let all = graph.components.iter().filter(|(component, _)| wanted(component));
        let left = all.clone().filter(|(_, node)| !failed[node.index()]).count();
        (left, all.count())
    };
    let (voters_left, voters) = count(&|component| matches!(component, Component::Voter(_)));
    let (gateways_left, gateways) = count(&|component| matches!(component, Component::Gateway(_)));
    let has_quorum = !failed[graph.quorum.index()];
    let quorum = if has_quorum { "" } else { " (no majority)" };
    let mut parts = vec![
        format!("{voters_left} of {voters} voters{quorum}"),
        format!("{gateways_left} of {gateways} gateways"),
    ];
    for service in graph.services.iter().filter(|(_, nodes)| nodes.promised).map(|(name, _)| name) {
        let (left, all) = count(&|component| is_replica_of(component, service));
        parts.push(format!("{left} of {all} replicas of {service}"));
    }
    let last = parts.pop().unwrap_or_default();
    Prediction { survives, because: format!("{} and {last} remain", parts.join(", ")) }
}

fn is_replica_of(component: &Component, service: &ServiceName) -> bool {
    matches!(component, Component::Replica(name, _, _) if name == service)
}
