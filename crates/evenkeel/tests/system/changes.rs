//! Changes of a running system, each under load that must not lose a request.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_checker::history::Outcome;
use evenkeel_drill::load::{Load, LoadOptions, Page, Station, Traffic};
use evenkeel_lab::world::World;
use evenkeel_node::change::Examination;
use evenkeel_node::status::InstanceWire;

use crate::joining;
use crate::rig::{GATEWAY, PROGRAM, Rig, Said, eventually, name, text};

/// Operations a second: enough to meet every moment of a change, few enough for a build without
/// optimisation.
const RATE: u32 = 40;

/// The system as it begins: one host of the lab, `fra-d`, is not part of it yet.
fn file(hosts: &str, services: &str, routes: &str) -> String {
    format!(
        r#"
system = "changing"
survive = "zone"
[region.fra]
zones = {{ a = {{ fra-a = "10.1.0.1" }}, b = {{ fra-b = "10.1.0.2" }}, c = {{ fra-c = "10.1.0.3" }}{hosts} }}
{services}
[gateway.public]
listen = ":{GATEWAY}"
routes = [{{ path = "/", to = "profiles" }}{routes}]
"#
    )
}

/// A service like the example, of this name, version and number.
fn service(name: &str, version: &str, replicas: u32) -> String {
    format!(
        r#"
[service.{name}]
command = ["{PROGRAM}", "profiles"]
env = {{ VERSION = "{version}" }}
needs = ["kv"]
replicas = {replicas}
health = {{ http = "/readyz", every = "250ms" }}
drain = "500ms"
deploy = {{ healthy_for = "500ms" }}
"#
    )
}

const FOURTH: &str = r#", d = { fra-d = "10.1.0.4" }"#;

fn begun() -> String {
    file("", &service("profiles", "1", 3), "")
}

/// Three hosts that run, and a fourth that is not part of the system yet.
pub(crate) fn three_of_four(world: &World) -> Rig {
    let rig = Rig::build(world, &file(FOURTH, &service("profiles", "1", 3), ""), 64 << 20);
    joining::keep_authority(&rig, "fra-a");
    for host in ["fra-a", "fra-b", "fra-c"] {
        fs::write(rig.file(host), begun()).unwrap();
        rig.power_on(host);
    }
    wait_until_complete(&rig);
    rig
}

fn wait_until_complete(rig: &Rig) {
    eventually("the system is complete", || {
        let status = rig.status("fra-a")?;
        let complete = status.goal_met && status.redundancy.full;
        if complete { Ok(()) } else { Err(format!("{:?}", status.redundancy)) }
    });
}

/// Writes a system file beside those of the hosts.
fn written(rig: &Rig, content: &str) -> PathBuf {
    let path = rig.file("fra-a").with_file_name("wanted.toml");
    fs::write(&path, content).unwrap();
    path
}

pub(crate) fn command(rig: &Rig, words: &[&str], more: &[&str]) -> Said {
    let data = rig.data("fra-a");
    rig.run("fra-a", &[words, &["--data", text(&data)], more].concat())
}

fn apply(rig: &Rig, content: &str, more: &[&str]) -> Said {
    let path = written(rig, content);
    command(rig, &["apply", text(&path)], more)
}

/// Makes changes under load: not one operation may fail or stay in doubt.
fn under_load<T>(rig: &Rig, prefix: &str, change: impl FnOnce(&Rig) -> T) -> T {
    under_traffic(rig, Traffic::Profiles, prefix, change)
}

fn under_traffic<T>(
    rig: &Rig,
    traffic: Traffic,
    prefix: &str,
    change: impl FnOnce(&Rig) -> T,
) -> T {
    let region = rig.lab.system().regions[0].clone();
    let namespace = rig.lab.client_namespace(&region).unwrap().clone();
    let station = Station {
        region,
        enter: Arc::new(move || namespace.enter_thread()),
        near: ["fra-a", "fra-b", "fra-c"].map(|host| rig.gateway(host)).to_vec(),
        far: Vec::new(),
    };
    let options = LoadOptions {
        traffic,
        prefix: prefix.to_owned(),
        clients_per_station: 3,
        rate: RATE,
        seed: 1,
        keep: true,
    };
    let load = Load::start(&[station], &options, None).unwrap();
    let changed = change(rig);
    let operations = load.stop().unwrap().operations;
    assert!(operations.len() > 20, "only {} operations met the change", operations.len());
    let bad: Vec<_> = operations.iter().filter(|done| done.outcome != Outcome::Ok).collect();
    assert!(bad.is_empty(), "{} of {}: {:?}", bad.len(), operations.len(), bad.first());
    changed
}

fn replicas(rig: &Rig, service: &str) -> Vec<InstanceWire> {
    let instances = rig.status("fra-a").unwrap().instances;
    instances.into_iter().filter(|instance| instance.service == service).collect()
}

/// `plan` shows a change without making it, and `apply` makes the one that was shown or none.
pub(crate) fn a_change_is_shown_first(rig: &mut Rig) {
    let path = written(rig, &file("", &service("profiles", "1", 2), ""));
    let before = rig.status("fra-a").unwrap().plan_number;
    let said = command(rig, &["plan", text(&path)], &["--exit-code"]);
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(said.out.contains("goes from 3 to 2 replicas"), "{said:?}");
    assert!(said.out.contains("0 replicas to start, 1 to stop"), "{said:?}");
    let said = command(rig, &["plan", text(&path)], &["--json"]);
    let shown: Examination = serde_json::from_str(&said.out).unwrap();
    assert_eq!(rig.status("fra-a").unwrap().plan_number, before, "a plan changes nothing");

    let said = apply(rig, &file("", &service("profiles", "1", 4), ""), &["--wait"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let state = shown.state.to_string();
    let said = apply(rig, &file("", &service("profiles", "1", 2), ""), &["--state", &state]);
    assert_eq!(said.code, Some(1), "the state has moved: {said:?}");
    assert!(said.err.contains("somebody else has changed the system"), "{said:?}");
    assert_eq!(replicas(rig, "profiles").len(), 4);
    let said = command(rig, &["plan", text(&written(rig, &begun()))], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = apply(rig, &begun(), &["--wait"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = command(rig, &["plan", text(&written(rig, &begun()))], &["--exit-code"]);
    assert_eq!((said.code, said.out.trim()), (Some(0), "nothing to change"), "{said:?}");
}

/// What would break the promise, or can't be, is refused, and nothing is changed.
pub(crate) fn a_bad_change_is_refused(rig: &mut Rig) {
    let before = rig.status("fra-a").unwrap().wanted;
    let said = apply(rig, &file("", &service("profiles", "1", 1), ""), &[]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.out.contains("risk: "), "{said:?}");
    let moved = begun().replace("10.1.0.3", "10.1.0.9");
    for (content, told) in [
        (begun().replace("changing", "other"), "this is `changing`"),
        (moved, "host `fra-c` can't move"),
        (
            begun().replace(r#", c = { fra-c = "10.1.0.3" }"#, ""),
            "`fra-c` takes part in the coordinator",
        ),
        (begun() + "[ports]\napi = 7500\n", "[ports] can't change"),
    ] {
        let said = apply(rig, &content, &["--accept-risk"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.contains(told), "{told}: {said:?}");
    }
    let said = apply(rig, "system = ", &[]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let said = command(rig, &["drain", "nobody"], &[]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("there is no host `nobody`"), "{said:?}");
    assert_eq!(rig.status("fra-a").unwrap().wanted, before, "something was changed");
}

/// A changed definition reaches every replica, more replicas come and go, and no request fails.
pub(crate) fn a_deploy_loses_no_request(rig: &mut Rig) {
    let before = replicas(rig, "profiles");
    under_load(rig, "deploy", |rig| {
        let said = apply(rig, &file("", &service("profiles", "2", 3), ""), &["--wait"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    });
    let after = replicas(rig, "profiles");
    assert_eq!(after.len(), 3, "{after:?}");
    let stayed = after.iter().find(|new| before.iter().any(|old| old.id == new.id));
    assert!(stayed.is_none(), "{stayed:?} was not replaced");
    under_load(rig, "scale", |rig| {
        for count in [5, 2, 3] {
            let content = file("", &service("profiles", "2", count), "");
            let said = apply(rig, &content, &["--wait"]);
            assert_eq!(said.code, Some(0), "{said:?}");
        }
    });
    assert_eq!(replicas(rig, "profiles").len(), 3);
}

/// A definition that does not work is given up for the one before; the reason is told.
pub(crate) fn a_failed_deploy_is_rolled_back(rig: &mut Rig) {
    let before = replicas(rig, "profiles");
    let content = begun().replace(r#", "profiles"]"#, r#", "no-such-command"]"#);
    under_load(rig, "rollback", |rig| {
        let said = apply(rig, &content, &["--wait"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("was rolled back"), "{said:?}");
        // The last lines of the replica's own log.
        assert!(said.err.contains("unrecognized subcommand"), "{said:?}");
        eventually("only the old replicas are left", || {
            let mut left: Vec<String> =
                replicas(rig, "profiles").into_iter().map(|replica| replica.id).collect();
            let mut old: Vec<String> = before.iter().map(|replica| replica.id.clone()).collect();
            left.sort();
            old.sort();
            if left == old { Ok(()) } else { Err(format!("{left:?} instead of {old:?}")) }
        });
    });
    // What has failed hinders no other change.
    for words in [["drain", "fra-b"], ["undrain", "fra-b"]] {
        let risk: &[&str] = if words[0] == "drain" { &["--accept-risk"] } else { &[] };
        let said = command(rig, &words, &[&["--wait"], risk].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let said = apply(rig, &file("", &service("profiles", "2", 3), ""), &["--wait"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// A route to a new service is in force only once the service is ready, and goes before it does.
pub(crate) fn a_new_route_waits_for_its_service(rig: &mut Rig) {
    // It needs longer to start than a gateway waits for an endpoint, and a client for an answer.
    let slow = format!(r#"["/bin/sh", "-c", "sleep 6; exec {PROGRAM} profiles"]"#);
    let extra = service("extra", "1", 2).replace(&format!(r#"["{PROGRAM}", "profiles"]"#), &slow);
    assert!(extra.contains("sleep 6"));
    let services = service("profiles", "2", 3) + &extra;
    let route = r#", { path = "/healthz", to = "extra" }"#;
    // Answered by one service before and by another one after.
    let page = Page { path: "/healthz".to_owned(), exists: true };
    under_traffic(rig, Traffic::Page(page), "route", |rig| {
        let said = apply(rig, &file("", &services, route), &["--wait"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(replicas(rig, "extra").len(), 2);
        let said = apply(rig, &file("", &service("profiles", "2", 3), ""), &["--wait"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    });
    eventually("the removed service is gone", || {
        let left = replicas(rig, "extra");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// A drained host runs nothing, and gets its share again afterwards.
pub(crate) fn a_drained_host_is_left_and_used_again(rig: &mut Rig) {
    under_load(rig, "drain", |rig| {
        let said = command(rig, &["drain", "fra-b"], &["--wait", "--accept-risk"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let left = rig.status("fra-a").unwrap().instances;
        assert!(left.iter().all(|instance| instance.host != "fra-b"), "{left:?}");
        let said = command(rig, &["undrain", "fra-b"], &["--wait"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let back = rig.status("fra-a").unwrap().instances;
        assert!(back.iter().any(|instance| instance.host == "fra-b"), "{back:?}");
    });
}

/// A host joins by the file, is used, and leaves again after it was drained.
pub(crate) fn a_host_joins_and_leaves(rig: &mut Rig) {
    let with = file(FOURTH, &service("profiles", "2", 4), "");
    under_load(rig, "join", |rig| {
        fs::write(rig.file("fra-d"), &with).unwrap();
        let said = apply(rig, &with, &[]);
        assert_eq!(said.code, Some(0), "{said:?}");
        rig.lab.power_on(&name("fra-d")).unwrap();
        eventually("the new host runs a replica", || {
            let instances = rig.status("fra-a")?.instances;
            let there = instances.iter().any(|instance| {
                instance.host == "fra-d"
                    && instance.state == Some(evenkeel_node::wire::StateWire::Ready)
            });
            if there { Ok(()) } else { Err(format!("{instances:?}")) }
        });
        wait_until_complete(rig);
        let without = file("", &service("profiles", "2", 3), "");
        let said = apply(rig, &without, &[]);
        assert_eq!(said.code, Some(1), "it still runs something: {said:?}");
        assert!(said.out.contains("evenkeel drain fra-d"), "{said:?}");
        let said = command(rig, &["drain", "fra-d"], &["--wait"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let said = apply(rig, &without, &["--wait"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    });
    assert!(rig.status("fra-a").unwrap().hosts.iter().all(|host| host.name != "fra-d"));
    eventually("the host that left has stopped its gateway", || {
        let left = rig.local_status("fra-d")?.processes;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let said = command(rig, &["undrain", "fra-d"], &["--wait"]);
    assert_eq!(said.code, Some(0), "it may come back some day: {said:?}");
}

/// Logs are read from wherever a replica runs; events say what has changed.
pub(crate) fn logs_and_events_are_shown(rig: &mut Rig) {
    let said = command(rig, &["logs", "profiles"], &["-n", "5"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for replica in replicas(rig, "profiles") {
        assert!(said.out.contains(&replica.id), "{replica:?}: {said:?}");
    }
    let said = command(rig, &["logs", "nothing"], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let said = command(rig, &["events"], &["--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.lines().count() > 1, "{said:?}");
}
