//! Names the causes of what a system does not survive on paper, and their cures.

use evenkeel_diagnostic::Severity;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::name::ServiceName;
use evenkeel_model::place::SurvivalGoal;
use evenkeel_model::system::System;

use crate::assessment::Assessment;
use crate::cascade::Cascade;
use crate::component::Component;
use crate::finding::{Finding, path_of};
use crate::system::SystemGraph;

pub(crate) fn findings(
    system: &System,
    graph: &SystemGraph,
    assessment: &Assessment,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let places = system.domains(system.goal).len();
    if system.goal > SurvivalGoal::Process && places <= 1 {
        findings.push(one_domain(system, assessment));
    } else {
        findings.extend(no_quorum(system, graph, assessment, places));
    }
    for service in system.services.keys() {
        findings.extend(service_stops(system, graph, service, places));
    }
    let explained = findings.iter().any(|finding| finding.severity == Severity::Error);
    if !explained {
        findings.extend(unexplained(system, assessment));
        findings.extend(only_processes(assessment));
    }
    findings
}

fn one_domain(system: &System, assessment: &Assessment) -> Finding {
    let goal = system.goal;
    let message = format!("surviving the loss of a {goal} needs more than one {goal}");
    let finding = Finding::new(Code::OneDomain, Severity::Error, message)
        .part("survive", "this goal cannot be met");
    let finding = match system.domains(goal).pop() {
        None => finding,
        Some(only) => {
            let only = Component::Place(only);
            let text = format!("everything stands in this {goal}");
            finding.part(path_of(&only), text).breaks(&only)
        }
    };
    finding.help(format!(
        "add two more {goal}s; one of them may be a single host with `role = \"witness\"`{}",
        or_weaker(assessment)
    ))
}

/// Returns the rest of a help that offers the strongest goal that is met.
fn or_weaker(assessment: &Assessment) -> String {
    match assessment.survives {
        Some(goal) => format!(", or say `survive = \"{goal}\"`"),
        None => String::new(),
    }
}

fn no_quorum(
    system: &System,
    graph: &SystemGraph,
    assessment: &Assessment,
    places: usize,
) -> Option<Finding> {
    let goal = system.goal;
    let breaks = |component: &&Component| component.level() <= goal && !component.is_restarted();
    // The largest place is the one the promise speaks of.
    let lost = assessment.quorum_cuts.iter().filter(breaks).max_by_key(|cut| cut.level())?;
    let count = match places {
        2 => format!("surviving the loss of a {goal} needs 3 {goal}s, 2 are declared"),
        _ => format!("surviving the loss of a {goal} needs a majority of the voters elsewhere"),
    };
    let voters = |component: &&Component| matches!(component, Component::Voter(_));
    let all = graph.components.keys().filter(voters).count();
    let left = voters_left(graph, lost);
    let help = match places {
        2 => {
            format!("add a third {goal}; one small host with `role = \"witness\"` in it is enough")
        }
        _ => format!("spread the hosts more evenly over the {goal}s"),
    };
    let voters = if all == 1 { "voter" } else { "voters" };
    let mut finding = Finding::new(Code::NoQuorum, Severity::Error, count)
        .breaks(lost)
        .part("survive", "this goal cannot be met")
        .part(path_of(lost), format!("losing this leaves {left} of {all} {voters}, no majority"));
    if places == 2 {
        finding = finding.note(format!(
            "two {goal}s are not a quorum: neither can tell the other's death from a cut link"
        ));
    }
    Some(finding.help(help + &or_weaker(assessment)))
}

fn voters_left(graph: &SystemGraph, lost: &Component) -> usize {
    let mut cascade = Cascade::new(&graph.graph, &[]);
    let failed = cascade.failed_with(&graph.nodes([lost]));
    let standing = graph.components.iter().filter(|(component, node)| {
        matches!(component, Component::Voter(_)) && !failed[node.index()]
    });
    standing.count()
}

/// Finds a loss within the goal that leaves a service without a replica.
fn service_stops(
    system: &System,
    graph: &SystemGraph,
    service: &ServiceName,
    places: usize,
) -> Option<Finding> {
    let nodes = graph.services.get(service)?;
    let replicas = system.services.get(service)?.replicas;
    if replicas > 1 && places <= 1 {
        // That everything stands in one place is said already.
        return None;
    }
    let mut cascade = Cascade::new(&graph.graph, &[]);
    let mut stopping = graph.components.iter().filter(|(component, node)| {
        component.level() <= system.goal
            && !component.is_restarted()
            && cascade.fails_with(&[**node], nodes.replicas)
    });
    // A lone replica is to blame itself; for several, the largest place that holds them all is.
    let (lost, _) = if replicas > 1 { stopping.last()? } else { stopping.next()? };
    let (severity, code) = match (nodes.promised, replicas) {
        (false, _) => (Severity::Warning, Code::WorkerStops),
        (true, 0 | 1) => (Severity::Error, Code::TooFewReplicas),
        (true, _) => (Severity::Error, Code::ReplicasTogether),
    };
    let path = format!("service.{service}.replicas");
    let finding = if replicas > 1 {
        let message = format!("the {replicas} replicas of service `{service}` are all in {lost}");
        let level = lost.level();
        Finding::new(code, severity, message)
            .part(path_of(lost), format!("losing this stops service `{service}`"))
            .part(path, "all of these")
            .help(format!(
                "give another {level} a host that runs services, one without `role = \"witness\"`"
            ))
    } else {
        let message = format!("service `{service}` has one replica only");
        Finding::new(code, severity, message)
            .part(path, format!("losing the {lost} stops the service"))
            .help(format!("say `replicas = 2` for `{service}`, or more"))
    };
    let finding = if nodes.promised {
        finding
    } else {
        finding.note("no route leads to it, so that no request fails meanwhile")
    };
    Some(finding.breaks(lost))
}

/// Names what breaks the goal for no reason that has a text of its own.
fn unexplained(system: &System, assessment: &Assessment) -> Option<Finding> {
    if assessment.goal_met {
        return None;
    }
    let Some(lost) = assessment.breaking(system.goal).last() else {
        let message = "the system does not work even with nothing lost".to_owned();
        return Some(Finding::new(Code::Down, Severity::Error, message).part("survive", "not met"));
    };
    Some(
        Finding::new(
            Code::SinglePoint,
            Severity::Error,
            format!("the loss of {lost} is not survived"),
        )
        .breaks(lost)
        .part("survive", "this goal is not met")
        .part(path_of(lost), "a single point of failure"),
    )
}

/// Names Evenkeel's own processes that have no second, if any.
fn only_processes(assessment: &Assessment) -> Option<Finding> {
    let only = |component: &&Component| match component {
        // With its node goes the voter: one of the two is enough to name.
        Component::Voter(_) => false,
        Component::Gateway(_) | Component::Node(_) => true,
        Component::Replica(..) | Component::Place(_) => false,
    };
    let mut processes: Vec<&Component> =
        assessment.cuts.iter().chain(&assessment.quorum_cuts).filter(only).collect();
    processes.sort();
    processes.dedup();
    let first = *processes.first()?;
    let names: Vec<String> = processes.iter().map(|process| format!("the {process}")).collect();
    let verb = if names.len() == 1 { "has" } else { "have" };
    Some(
        Finding::new(
            Code::OnlyProcess,
            Severity::Warning,
            format!("{} {verb} no second", names.join(" and ")),
        )
        .breaks(first)
        .part(path_of(first), "a killed process is started again here within about a second")
        .note("requests wait meanwhile; those under way fail")
        .help("declare three hosts or more; one of them may have `role = \"witness\"`"),
    )
}
