//! Voters are replaced: by themselves, while everybody else goes on.

use std::collections::BTreeSet;

use evenkeel_lab::world::World;
use evenkeel_node::status::StatusWire;

use crate::http::Request;
use crate::rig::{Rig, eventually, text, with_profiles};

/// Four hosts, of which three vote, and little patience with those that are missing.
pub(crate) fn three_of_four(world: &World) -> Rig {
    let places = r#"
system = "members"
survive = "host"
[region.fra]
zones = { a = { h1 = "10.1.0.1", h2 = "10.1.0.2", h3 = "10.1.0.3", h4 = "10.1.0.4" } }
"#;
    let file = with_profiles(places, 4) + "[coordinator]\nreplace_after = \"3s\"\n";
    let rig = Rig::build(world, &file, 64 << 20);
    rig.start();
    rig
}

/// Returns who votes, as `host` says.
fn voters(rig: &Rig, host: &str) -> BTreeSet<String> {
    let said = rig.run_status(host, &["--json"]);
    let status: StatusWire = serde_json::from_str(&said.out).unwrap();
    status.hosts.into_iter().filter(|host| host.voter).map(|host| host.name).collect()
}

fn wait_for_voters(rig: &Rig, host: &str, expected: &BTreeSet<String>) {
    eventually("the voters are others", || {
        let found = voters(rig, host);
        if found == *expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// A voter dies for good, the fourth host takes its place, and then the leader may die as well.
/// Both come back, and all is well.
pub(crate) fn a_dead_voter_is_replaced(rig: &mut Rig) {
    let leader = rig.leader();
    let first = voters(rig, &leader);
    assert_eq!(first.len(), 3, "{first:?}");
    let spare = rig.hosts().into_iter().find(|host| !first.contains(host)).unwrap();
    let dead = first.iter().find(|host| **host != leader).unwrap().clone();
    let third = first.iter().find(|host| **host != leader && **host != dead).unwrap().clone();
    assert!(rig.ask_api(&spare, &Request::put("/v1/kv/before", b"kept")).status < 300);

    rig.power_off(&dead);
    let second: BTreeSet<String> = [&leader, &third, &spare].map(Clone::clone).into();
    wait_for_voters(rig, &leader, &second);
    let events = rig.status(&leader).unwrap().events;
    rig.power_off(&leader);
    eventually("those that are left elect and write", || {
        let answer = rig.try_api(&spare, &Request::put("/v1/kv/after", b"written"));
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status < 300 { Ok(()) } else { Err(format!("{answer:?}")) }
    });

    rig.power_on(&leader);
    rig.power_on(&dead);
    rig.wait_until_complete();
    for (kind, host) in
        [("voter-prepared", &spare), ("voter-added", &spare), ("voter-removed", &dead)]
    {
        let told = events.iter().any(|event| event.kind == kind && event.subject == *host);
        assert!(told, "{kind} {host}: {events:?}");
    }
    for host in rig.hosts() {
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/before")).text(), "kept");
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/after")).text(), "written");
        let found = voters(rig, &host);
        assert_eq!(found.len(), 3, "{host}: {found:?}");
    }
}

/// Two of three voters are gone. The third goes on alone once a person says so, gets others beside
/// it, and those that were given up join anew when they come back.
pub(crate) fn a_system_goes_on_from_a_lone_survivor(rig: &mut Rig) {
    let leader = rig.leader();
    let all = voters(rig, &leader);
    let survivor = all.iter().find(|host| **host != leader).unwrap().clone();
    let gone: Vec<&String> = all.iter().filter(|host| **host != survivor).collect();
    let spare = rig.hosts().into_iter().find(|host| !all.contains(host)).unwrap();
    assert!(rig.ask_api(&survivor, &Request::put("/v1/kv/agreed", b"by all")).status < 300);

    let data = rig.data(&survivor);
    let recover = |more: &[&str]| {
        let words = ["recover", "--data", text(&data)];
        rig.run(&survivor, &[&words, more].concat())
    };
    let refused = recover(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("another node runs on data folder"), "{refused:?}");
    rig.power_off(&survivor);
    let refused = eventually("the others answer and refuse", || {
        let said = recover(&[]);
        if said.err.contains("leads: nothing needs to be recovered") {
            Ok(said)
        } else {
            Err(format!("{said:?}"))
        }
    });
    assert_eq!(refused.code, Some(1), "{refused:?}");
    rig.power_on(&survivor);
    rig.wait_until_complete();

    for host in &gone {
        rig.power_off(host);
    }
    rig.power_off(&survivor);
    let shown = eventually("nobody names a leader any more", || {
        let said = recover(&["--dry-run"]);
        if said.code == Some(0) { Ok(said) } else { Err(format!("{said:?}")) }
    });
    assert!(shown.out.contains("would be the only voter"), "{shown:?}");
    assert!(shown.err.contains("nothing was changed"), "{shown:?}");
    assert!(!shown.err.contains("no other host answers"), "{shown:?}");
    rig.power_off(&spare);
    let shown = recover(&["--dry-run"]);
    assert!(shown.err.contains("warning: no other host answers"), "{shown:?}");
    rig.power_on(&spare);
    let done = recover(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("is the only voter, of lineage 1."), "{done:?}");
    rig.power_on(&survivor);
    eventually("the survivor writes", || {
        let answer = rig.try_api(&spare, &Request::put("/v1/kv/alone", b"by one"));
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status < 300 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(rig.ask_api(&spare, &Request::get("/v1/kv/agreed")).text(), "by all");

    for host in &gone {
        rig.power_on(host);
    }
    rig.wait_until_complete();
    eventually("three vote again", || {
        let found = voters(rig, &survivor);
        if found.len() == 3 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    for host in rig.hosts() {
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/agreed")).text(), "by all");
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/alone")).text(), "by one");
    }
    for host in gone {
        assert!(rig.data(host).join("log.superseded-1").is_dir(), "the log of {host} is kept");
    }
}

/// The host that leads is drained: it hands over, another host votes in its place, and then the
/// system file may name it no more. Cannot be undone, so it is the group's last case.
pub(crate) fn a_host_that_leads_is_drained_and_removed(rig: &mut Rig) {
    let leaving = rig.leader();
    let stay: BTreeSet<String> = rig.hosts().into_iter().filter(|host| *host != leaving).collect();
    let asked = stay.first().unwrap();
    let data = rig.data(asked);
    let smaller = rig.data(asked).with_file_name("smaller.toml");
    let file = std::fs::read_to_string(rig.file(asked)).unwrap();
    let number = &leaving[1..];
    let without = format!("{leaving} = \"10.1.0.{number}\"");
    let file = file.replace(&format!("{without}, "), "").replace(&format!(", {without}"), "");
    std::fs::write(&smaller, file.replace("replicas = 4", "replicas = 3")).unwrap();
    let apply = || rig.run(asked, &["apply", text(&smaller), "--data", text(&data)]);
    let refused = apply();
    let cure = format!("takes part in the coordinator: `evenkeel drain {leaving}`");
    assert!(refused.out.contains(&cure), "{refused:?}");

    let drained = rig.run(asked, &["drain", &leaving, "--data", text(&data)]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    wait_for_voters(rig, asked, &stay);
    assert_ne!(rig.leader(), leaving);
    assert!(rig.ask_api(asked, &Request::put("/v1/kv/last", b"kept")).status < 300);
    eventually("the host is let go", || {
        let said = apply();
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    eventually("nobody names it any more", || {
        let told = rig.status(asked)?.hosts.into_iter().map(|host| host.name);
        let told: BTreeSet<String> = told.collect();
        if told == stay { Ok(()) } else { Err(format!("{told:?}")) }
    });
}
