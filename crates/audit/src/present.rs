//! Names what is wrong with a system that runs: what is down, and what must not fail now.

use std::collections::BTreeSet;

use evenkeel_diagnostic::Severity;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::system::System;

use crate::assessment::Assessment;
use crate::cascade::Cascade;
use crate::component::Component;
use crate::finding::{Finding, path_of};
use crate::system::SystemGraph;

/// Most components that one message lists.
const LISTED_MAX: usize = 3;

pub(crate) fn findings(
    system: &System,
    graph: &SystemGraph,
    assessment: &Assessment,
    lost: &BTreeSet<Component>,
) -> Vec<Finding> {
    let cascade = Cascade::new(&graph.graph, &graph.nodes(lost));
    let mut findings = Vec::new();
    let cure = cure(lost);
    let mut down = |message: String, path: String| {
        findings.push(
            Finding::new(Code::Down, Severity::Error, message).part(path, "down now").help(&cure),
        );
    };
    if !assessment.up && cascade.has_failed(graph.gateways) {
        down("no gateway is up".to_owned(), "gateway".to_owned());
    }
    for (service, nodes) in graph.services.iter().filter(|(_, nodes)| nodes.promised) {
        if cascade.has_failed(nodes.replicas) {
            let message = format!("service `{service}` has no replica that works");
            down(message, format!("service.{service}"));
        }
    }
    if !assessment.has_quorum {
        let message = "the coordinator has no majority of its voters".to_owned();
        findings.push(
            Finding::new(Code::NoQuorum, Severity::Error, message)
                .part("survive", "not met now")
                .note("the key-value store stops, and nothing that fails is replaced")
                .help(&cure),
        );
    }
    if assessment.up {
        let stops = "would make requests fail";
        findings.extend(single_point(system, &assessment.cuts, &[], stops, &cure));
    }
    if assessment.has_quorum {
        let stops = "would lose the majority of the voters";
        let known = &assessment.cuts;
        findings.extend(single_point(system, &assessment.quorum_cuts, known, stops, &cure));
    }
    findings
}

/// Names the components within the goal of which none may fail now, without those that are `known`
/// and without places in which a smaller one is named already.
fn single_point(
    system: &System,
    cuts: &[Component],
    known: &[Component],
    stops: &str,
    cure: &str,
) -> Option<Finding> {
    let within: Vec<&Component> = cuts
        .iter()
        .filter(|cut| cut.level() <= system.goal && !cut.is_restarted() && !known.contains(cut))
        .collect();
    let smallest = within.iter().map(|cut| cut.level()).min()?;
    let named: Vec<&Component> = within.into_iter().filter(|cut| cut.level() == smallest).collect();
    let first = *named.first()?;
    let mut names: Vec<String> =
        named.iter().take(LISTED_MAX).map(|cut| format!("the {cut}")).collect();
    if named.len() > LISTED_MAX {
        names.push(format!("{} more", named.len() - LISTED_MAX));
    }
    let message = format!("the loss of {} {stops}", names.join(" or "));
    Some(
        Finding::new(Code::SinglePoint, Severity::Error, message)
            .breaks(first)
            .part("survive", "not met now")
            .part(path_of(first), "must not fail now")
            .help(cure),
    )
}

fn cure(lost: &BTreeSet<Component>) -> String {
    let names: Vec<String> = lost.iter().map(|component| format!("the {component}")).collect();
    match names.len() {
        0 => "wait for new replicas to become ready; `evenkeel status` shows each".to_owned(),
        1..=LISTED_MAX => format!("bring back {}", names.join(" and ")),
        more => {
            format!("bring back {} and {} more", names[..LISTED_MAX].join(", "), more - LISTED_MAX)
        }
    }
}
