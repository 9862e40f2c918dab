//! What whole systems survive, why not, and the cure.

#[path = "support/systems.rs"]
mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use evenkeel_audit::assessment::{Assessment, assess, assess_placed};
use evenkeel_audit::component::Component;
use evenkeel_audit::prediction::predict;
use evenkeel_audit::system::place_on_paper;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::instance::InstanceId;
use evenkeel_model::name::{HostName, RegionName, ServiceName};
use evenkeel_model::place::{Domain, SurvivalGoal};
use evenkeel_model::system::System;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use support::system;

const THREE_REGIONS: [&str; 5] =
    ["fra/a/fra-1", "fra/b/fra-2", "ams/a/ams-1", "ams/b/ams-2", "waw/a/waw-1*"];

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a name")
}

fn region(name: &str) -> RegionName {
    RegionName::parse(name).expect("a name")
}

fn lost_region(name: &str) -> Component {
    Component::Place(Domain::Region(region(name)))
}

fn show(assessment: &Assessment) -> String {
    let list = |components: &[Component]| {
        let names: Vec<String> = components.iter().map(ToString::to_string).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let mut text = format!(
        "goal {} {}, survives {:?}\ncuts: {}\nquorum cuts: {}\n",
        assessment.goal,
        if assessment.goal_met { "met" } else { "not met" },
        assessment.survives,
        list(&assessment.cuts),
        list(&assessment.quorum_cuts),
    );
    for capacity in &assessment.capacity {
        let worst = capacity.worst.as_ref().map_or("a replica".to_owned(), ToString::to_string);
        let (service, replicas, left) = (&capacity.service, capacity.replicas, capacity.left);
        writeln!(text, "{service}: {left} of {replicas} left without {worst}").expect("a string");
    }
    for finding in &assessment.findings {
        let severity = finding.severity.as_str();
        writeln!(text, "\n{severity}[{}]: {}", finding.code, finding.message).expect("a string");
        for part in &finding.parts {
            writeln!(text, "  {}: {}", part.path, part.text).expect("a string");
        }
        for note in &finding.notes {
            writeln!(text, "  note: {note}").expect("a string");
        }
        if let Some(help) = &finding.help {
            writeln!(text, "  help: {help}").expect("a string");
        }
    }
    text
}

fn check(system: &System, expected: &Expect) {
    expected.assert_eq(&show(&assess(system)));
}

#[test]
fn three_regions_with_a_witness_survive_a_region() {
    let system = system(SurvivalGoal::Region, &THREE_REGIONS, &["web 4 kv"]);
    check(
        &system,
        &expect![[r#"
        goal region met, survives Some(Region)
        cuts: none
        quorum cuts: none
        web: 2 of 4 left without region fra
    "#]],
    );
}

#[test]
fn two_regions_do_not_survive_a_region() {
    let system = system(SurvivalGoal::Region, &THREE_REGIONS[..4], &["web 4 kv"]);
    check(
        &system,
        &expect![[r#"
        goal region not met, survives Some(Zone)
        cuts: region fra
        quorum cuts: region fra
        web: 2 of 4 left without region fra

        error[EK0202]: surviving the loss of a region needs 3 regions, 2 are declared
          survive: this goal cannot be met
          region.fra: losing this leaves 1 of 3 voters, no majority
          note: two regions are not a quorum: neither can tell the other's death from a cut link
          help: add a third region; one small host with `role = "witness"` in it is enough, or say `survive = "zone"`
    "#]],
    );
}

#[test]
fn two_hosts_are_not_a_quorum() {
    let system = system(SurvivalGoal::Host, &["fra/a/fra-1", "fra/a/fra-2"], &["web 2"]);
    check(
        &system,
        &expect![[r#"
        goal host not met, survives Some(Process)
        cuts: zone fra/a, region fra
        quorum cuts: voter of fra-1, node of fra-1, host fra-1, zone fra/a, region fra
        web: 1 of 2 left without host fra-1

        error[EK0202]: surviving the loss of a host needs 3 hosts, 2 are declared
          survive: this goal cannot be met
          host.fra-1: losing this leaves 0 of 1 voter, no majority
          note: two hosts are not a quorum: neither can tell the other's death from a cut link
          help: add a third host; one small host with `role = "witness"` in it is enough, or say `survive = "process"`
    "#]],
    );
}

#[test]
fn one_host_survives_the_death_of_a_process() {
    let system = system(SurvivalGoal::Process, &["fra/a/fra-1"], &["web 2 kv"]);
    check(
        &system,
        &expect![[r#"
            goal process met, survives Some(Process)
            cuts: gateway of fra-1, voter of fra-1, node of fra-1, host fra-1, zone fra/a, region fra
            quorum cuts: voter of fra-1, node of fra-1, host fra-1, zone fra/a, region fra
            web: 1 of 2 left without a replica

            warning[EK0205]: the gateway of fra-1 and the node of fra-1 have no second
              host.fra-1: a killed process is started again here within about a second
              note: requests wait meanwhile; those under way fail
              help: declare three hosts or more; one of them may have `role = "witness"`
        "#]],
    );
}

#[test]
fn one_host_does_not_survive_its_own_loss() {
    let system = system(SurvivalGoal::Host, &["fra/a/fra-1"], &["web 2 kv", "api 1"]);
    check(
        &system,
        &expect![[r#"
        goal host not met, survives None
        cuts: replica of api on fra-1, gateway of fra-1, voter of fra-1, node of fra-1, host fra-1, zone fra/a, region fra
        quorum cuts: voter of fra-1, node of fra-1, host fra-1, zone fra/a, region fra
        api: 0 of 1 left without host fra-1
        web: 0 of 2 left without host fra-1

        error[EK0201]: surviving the loss of a host needs more than one host
          survive: this goal cannot be met
          host.fra-1: everything stands in this host
          help: add two more hosts; one of them may be a single host with `role = "witness"`

        error[EK0203]: service `api` has one replica only
          service.api.replicas: losing the replica of api on fra-1 stops the service
          help: say `replicas = 2` for `api`, or more
    "#]],
    );
}

#[test]
fn too_few_replicas_are_named_with_what_needs_them() {
    let hosts = ["fra/a/fra-1", "fra/b/fra-2", "fra/c/fra-3"];
    let system = system(SurvivalGoal::Zone, &hosts, &["web 2 api", "api! 1", "mailer! 1"]);
    check(
        &system,
        &expect![[r#"
        goal zone not met, survives None
        cuts: replica of api on fra-1, host fra-1, zone fra/a, region fra
        quorum cuts: region fra
        api: 0 of 1 left without zone fra/a
        mailer: 0 of 1 left without zone fra/a
        web: 1 of 2 left without zone fra/a

        error[EK0203]: service `api` has one replica only
          service.api.replicas: losing the replica of api on fra-1 stops the service
          help: say `replicas = 2` for `api`, or more

        warning[EK0206]: service `mailer` has one replica only
          service.mailer.replicas: losing the replica of mailer on fra-1 stops the service
          note: no route leads to it, so that no request fails meanwhile
          help: say `replicas = 2` for `mailer`, or more
    "#]],
    );
}

#[test]
fn witnesses_do_not_run_replicas() {
    let hosts = ["fra/a/fra-1", "fra/a/fra-2", "ams/a/ams-1*", "waw/a/waw-1*"];
    let system = system(SurvivalGoal::Region, &hosts, &["web 3"]);
    check(
        &system,
        &expect![[r#"
            goal region not met, survives Some(Host)
            cuts: zone fra/a, region fra
            quorum cuts: none
            web: 0 of 3 left without region fra

            error[EK0204]: the 3 replicas of service `web` are all in region fra
              region.fra: losing this stops service `web`
              service.web.replicas: all of these
              help: give another region a host that runs services, one without `role = "witness"`
        "#]],
    );
}

#[test]
fn without_services_the_store_is_promised() {
    let hosts = ["fra/a/fra-1", "fra/a/fra-2", "fra/a/fra-3"];
    check(
        &system(SurvivalGoal::Host, &hosts, &[] as &[&str]),
        &expect![[r#"
        goal host met, survives Some(Host)
        cuts: zone fra/a, region fra
        quorum cuts: zone fra/a, region fra
    "#]],
    );
}

#[test]
fn a_lost_region_leaves_no_other_to_lose() {
    let system = system(SurvivalGoal::Region, &THREE_REGIONS, &["web 4 kv"]);
    let placement = place_on_paper(&system);
    let lost = BTreeSet::from([lost_region("fra")]);
    expect![[r#"
        goal region not met, survives Some(Process)
        cuts: voter of ams-1, voter of ams-2, voter of waw-1, node of ams-1, node of ams-2, node of waw-1, host ams-1, host ams-2, host waw-1, zone ams/a, zone ams/b, zone waw/a, region ams, region waw
        quorum cuts: voter of ams-1, voter of ams-2, voter of waw-1, node of ams-1, node of ams-2, node of waw-1, host ams-1, host ams-2, host waw-1, zone ams/a, zone ams/b, zone waw/a, region ams, region waw
        web: 0 of 2 left without region ams

        error[EK0207]: the loss of the host ams-1 or the host ams-2 or the host waw-1 would make requests fail
          survive: not met now
          host.ams-1: must not fail now
          help: bring back the region fra
    "#]].assert_eq(&show(&assess_placed(&system, &placement, &lost)));
}

#[test]
fn what_is_down_is_named() {
    let system = system(SurvivalGoal::Region, &THREE_REGIONS, &["web 2 kv", "api 1"]);
    let mut placement = place_on_paper(&system);
    placement.remove(&ServiceName::parse("api").unwrap());
    let lost = BTreeSet::from([lost_region("fra"), lost_region("ams")]);
    expect![[r#"
        goal region not met, survives None
        cuts: none
        quorum cuts: none
        api: 0 of 0 left without region fra
        web: 0 of 0 left without region fra

        error[EK0208]: service `api` has no replica that works
          service.api: down now
          help: bring back the region ams and the region fra

        error[EK0208]: service `web` has no replica that works
          service.web: down now
          help: bring back the region ams and the region fra

        error[EK0202]: the coordinator has no majority of its voters
          survive: not met now
          note: the key-value store stops, and nothing that fails is replaced
          help: bring back the region ams and the region fra
    "#]]
    .assert_eq(&show(&assess_placed(&system, &placement, &lost)));
}

#[test]
fn replicas_that_have_moved_together_are_named() {
    let system = system(SurvivalGoal::Region, &THREE_REGIONS, &["web 2"]);
    let web = ServiceName::parse("web").unwrap();
    let placement = [(web, vec![host("fra-1"), host("fra-1")])].into();
    expect![[r#"
        goal region not met, survives Some(Process)
        cuts: host fra-1, zone fra/a, region fra
        quorum cuts: none
        web: 0 of 2 left without region fra

        error[EK0207]: the loss of the host fra-1 would make requests fail
          survive: not met now
          host.fra-1: must not fail now
          help: wait for new replicas to become ready; `evenkeel status` shows each
    "#]]
    .assert_eq(&show(&assess_placed(&system, &placement, &BTreeSet::new())));
}

#[test]
fn a_finding_is_shown_where_the_file_has_its_part() {
    let system = system(SurvivalGoal::Region, &THREE_REGIONS[..4], &["web 4 kv"]);
    let finding = &assess(&system).findings[0];
    let diagnostic = finding.to_diagnostic(|path| (path == "region.fra").then_some(3..6));
    assert_eq!(diagnostic.code, Code::NoQuorum);
    assert_eq!(diagnostic.message, finding.message);
    assert_eq!(diagnostic.help, finding.help);
    assert_eq!(diagnostic.labels.len(), 1, "`survive` is not in this file");
    assert_eq!(diagnostic.labels[0].span, 3..6);
}

fn check_prediction(system: &System, target: &Target, kind: FaultKind, expected: &Expect) {
    let prediction = predict(system, &place_on_paper(system), target, kind);
    let verdict = if prediction.survives { "survives" } else { "fails" };
    expected.assert_eq(&format!("{kind} {target}: {verdict}: {}", prediction.because));
}

#[test]
fn predicts_faults_of_three_regions() {
    let system = system(SurvivalGoal::Region, &THREE_REGIONS, &["web 4 kv"]);
    let check = |target: &Target, kind, expected: Expect| {
        check_prediction(&system, target, kind, &expected);
    };
    let web = InstanceId::parse("web-1").unwrap();
    let fra_1 = || host("fra-1");
    check(
        &Target::Replica(web.clone(), fra_1()),
        FaultKind::Kill,
        expect![
            "kill replica web-1 on fra-1: survives: 5 of 5 voters, 5 of 5 gateways and 3 of 4 replicas of web remain"
        ],
    );
    check(
        &Target::Shim(web, fra_1()),
        FaultKind::Kill,
        expect![
            "kill shim of web-1 on fra-1: survives: 5 of 5 voters, 5 of 5 gateways and 3 of 4 replicas of web remain"
        ],
    );
    check(
        &Target::Gateway(fra_1()),
        FaultKind::Pause,
        expect![
            "pause gateway of fra-1: survives: 5 of 5 voters, 4 of 5 gateways and 3 of 4 replicas of web remain"
        ],
    );
    check(
        &Target::Node(fra_1()),
        FaultKind::Pause,
        expect![
            "pause node of fra-1: survives: 4 of 5 voters, 5 of 5 gateways and 4 of 4 replicas of web remain"
        ],
    );
    check(
        &Target::Host(fra_1()),
        FaultKind::Kill,
        expect![
            "kill host fra-1: survives: 4 of 5 voters, 4 of 5 gateways and 3 of 4 replicas of web remain"
        ],
    );
    check(
        &Target::Region(region("fra")),
        FaultKind::Isolate,
        expect![
            "isolate region fra: survives: 3 of 5 voters, 3 of 5 gateways and 2 of 4 replicas of web remain"
        ],
    );
    check(
        &Target::Link(region("fra"), region("ams")),
        FaultKind::Isolate,
        expect![
            "isolate link fra-ams: survives: on the side of fra, 3 of 5 voters, 3 of 5 gateways and 2 of 4 replicas of web remain"
        ],
    );
    check(
        &Target::Host(host("gone")),
        FaultKind::Kill,
        expect!["kill host gone: survives: the system has no host gone"],
    );
}

#[test]
fn predicts_faults_of_small_systems() {
    let one = system(SurvivalGoal::Process, &["fra/a/fra-1"], &["web 2 kv"]);
    check_prediction(
        &one,
        &Target::Gateway(host("fra-1")),
        FaultKind::Kill,
        &expect![
            "kill gateway of fra-1: survives: the gateway of fra-1 has no second, but is started again within about a second"
        ],
    );
    check_prediction(
        &one,
        &Target::Gateway(host("fra-1")),
        FaultKind::Pause,
        &expect![
            "pause gateway of fra-1: fails: 1 of 1 voters, 0 of 1 gateways and 0 of 2 replicas of web remain"
        ],
    );
    check_prediction(
        &one,
        &Target::Host(host("fra-1")),
        FaultKind::Kill,
        &expect![
            "kill host fra-1: fails: 0 of 1 voters (no majority), 0 of 1 gateways and 0 of 2 replicas of web remain"
        ],
    );
    let two = system(SurvivalGoal::Host, &["fra/a/fra-1", "ams/a/ams-1"], &["web 2 kv"]);
    let link = Target::Link(region("fra"), region("ams"));
    check_prediction(
        &two,
        &link,
        FaultKind::Isolate,
        &expect![
            "isolate link fra-ams: survives: on the side of fra, 1 of 1 voters, 1 of 2 gateways and 1 of 2 replicas of web remain"
        ],
    );
    check_prediction(
        &two,
        &Target::Host(host("fra-1")),
        FaultKind::Kill,
        &expect![
            "kill host fra-1: fails: 0 of 1 voters (no majority), 1 of 2 gateways and 1 of 2 replicas of web remain"
        ],
    );
    let apart = system(SurvivalGoal::Host, &["fra/a/f*", "ams/a/a", "ams/a/b"], &["web 1 kv"]);
    let link = Target::Link(region("fra"), region("ams"));
    check_prediction(
        &apart,
        &link,
        FaultKind::Isolate,
        &expect![
            "isolate link fra-ams: survives: on the side of ams, 2 of 3 voters, 2 of 3 gateways and 1 of 1 replicas of web remain"
        ],
    );
}

/// Random systems of up to nine hosts in up to three regions and zones.
fn systems() -> impl Strategy<Value = System> {
    let goal = prop::sample::select(SurvivalGoal::ALL.to_vec());
    let hosts = prop::collection::vec((0..3_u8, 0..3_u8, prop::bool::weighted(0.2)), 1..9);
    let services =
        prop::collection::vec((1..6_u32, any::<bool>(), any::<bool>(), 0..4_usize), 0..4);
    (goal, hosts, services).prop_map(|(goal, hosts, services)| {
        let host = |(index, (region, zone, witness)): (usize, &(u8, u8, bool))| {
            format!("r{region}/z{zone}/h{index}{}", if *witness { "*" } else { "" })
        };
        let hosts: Vec<String> = hosts.iter().enumerate().map(host).collect();
        let last = services.len();
        let service =
            |(index, (replicas, kv, routed, need)): (usize, &(u32, bool, bool, usize))| {
                let kv = if *kv { " kv" } else { "" };
                let need = if *need < last { format!(" s{need}") } else { String::new() };
                format!("s{index}{} {replicas}{kv}{need}", if *routed { "" } else { "!" })
            };
        let services: Vec<String> = services.iter().enumerate().map(service).collect();
        system(goal, &hosts, &services)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn a_goal_is_met_exactly_if_nothing_is_found_against_it(system in systems()) {
        let paper = assess(&system);
        prop_assert_eq!(paper.goal_met, !paper.has_errors(), "{}", show(&paper));
        let placed = assess_placed(&system, &place_on_paper(&system), &BTreeSet::new());
        prop_assert_eq!(placed.goal_met, !placed.has_errors(), "{}", show(&placed));
        prop_assert_eq!(paper.goal_met, placed.goal_met);
        prop_assert_eq!(paper.cuts, placed.cuts);
    }

    #[test]
    fn predictions_agree_with_the_cuts(system in systems()) {
        let assessment = assess(&system);
        let placement = place_on_paper(&system);
        for host in system.hosts.keys() {
            let target = Target::Host(host.clone());
            let lost = Component::Place(Domain::Host(host.clone()));
            let prediction = predict(&system, &placement, &target, FaultKind::Isolate);
            let cut = assessment.cuts.contains(&lost) || !assessment.up;
            prop_assert_eq!(prediction.survives, !cut);
            let after = assess_placed(&system, &placement, &BTreeSet::from([lost]));
            prop_assert_eq!(prediction.survives, after.up);
        }
    }

    #[test]
    fn more_replicas_never_hurt(system in systems()) {
        let before = assess(&system);
        let mut more = system;
        for service in more.services.values_mut() {
            service.replicas += 1;
        }
        prop_assert!(assess(&more).survives >= before.survives);
    }
}

#[test]
fn every_code_of_the_audit_is_reached() {
    use SurvivalGoal::{Host, Process, Region, Zone};
    let three = ["a/a/h1", "a/b/h2", "a/c/h3"];
    let mut codes: BTreeSet<Code> = BTreeSet::new();
    for system in [
        system(Host, &three[..1], &["web 2"]),
        system(Host, &three[..2], &["web 2"]),
        system(Process, &three[..1], &["web 2"]),
        system(Zone, &three, &["web 1", "mailer! 1"]),
        system(Region, &["a/a/h1", "a/a/h2", "b/a/h3*", "c/a/h4*"], &["web 2"]),
    ] {
        codes.extend(assess(&system).findings.iter().map(|finding| finding.code));
    }
    let running = system(Zone, &three, &["web 2 kv"]);
    for lost in [vec!["h1"], vec!["h1", "h2", "h3"]] {
        let lost = lost.iter().map(|name| Component::Place(Domain::Host(host(name)))).collect();
        let placed = assess_placed(&running, &place_on_paper(&running), &lost);
        codes.extend(placed.findings.iter().map(|finding| finding.code));
    }
    let all: BTreeSet<Code> =
        Code::ALL.iter().copied().filter(|code| code.as_str() >= "EK0200").collect();
    assert_eq!(codes, all);
}
