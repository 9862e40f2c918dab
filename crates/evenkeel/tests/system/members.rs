//! Voters are replaced: by themselves, while everybody else goes on.

use std::collections::BTreeSet;

use evenkeel_lab::world::World;
use evenkeel_node::status::StatusWire;

use crate::http::Request;
use crate::rig::{Rig, eventually, with_profiles};

/// Four hosts, of which three vote, and little patience with those that are missing.
pub(crate) fn three_of_four(world: &World) -> Rig {
    let text = r#"
system = "members"
survive = "host"
[region.fra]
zones = { a = { h1 = "10.1.0.1", h2 = "10.1.0.2", h3 = "10.1.0.3", h4 = "10.1.0.4" } }
"#;
    let text = with_profiles(text, 4) + "[coordinator]\nreplace_after = \"3s\"\n";
    let rig = Rig::build(world, &text, 64 << 20);
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
    rig.power_off(&leader);
    eventually("those that are left elect and write", || {
        let answer = rig.try_api(&spare, &Request::put("/v1/kv/after", b"written"));
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status < 300 { Ok(()) } else { Err(format!("{answer:?}")) }
    });

    rig.power_on(&leader);
    rig.power_on(&dead);
    rig.wait_until_complete();
    for host in rig.hosts() {
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/before")).text(), "kept");
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/after")).text(), "written");
        let found = voters(rig, &host);
        assert_eq!(found.len(), 3, "{host}: {found:?}");
    }
}
