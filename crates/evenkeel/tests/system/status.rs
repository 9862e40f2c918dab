//! What `evenkeel status` says, and with which exit code.

use std::fs;

use evenkeel_node::status::{Source, StatusWire};

use crate::rig::{Rig, eventually};

/// 0 while the goal is met, 3 while it is not; 4 is told by the case that has no quorum.
pub(crate) fn exit_codes_tell_how_it_is(rig: &mut Rig) {
    // The leader may still be moving what an earlier fault has moved.
    eventually("nothing is missing", || {
        let said = rig.run_status("fra-a1", &[]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let first = said.out.lines().next().unwrap_or_default();
        let all = "seven survives the loss of any one region: 7 of 7 hosts up, nothing is missing";
        if first == all { Ok(()) } else { Err(first.to_owned()) }
    });
    let said = rig.run_status("fra-a1", &["--json"]);
    let status: StatusWire = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, status.goal_met, status.source), (Some(0), true, Source::Leader));

    // Two voters each are left in two regions: without either there is no majority.
    rig.power_off("waw-a1");
    let said = eventually("the loss is told", || {
        let said = rig.run_status("fra-a1", &[]);
        if said.code == Some(3) { Ok(said) } else { Err(format!("{said:?}")) }
    });
    let first = said.out.lines().next().unwrap_or_default();
    assert!(first.starts_with("seven would not survive the loss of any one region: "), "{first}");
    let said = rig.run_status("fra-a1", &["--json"]);
    let status: StatusWire = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, status.goal_met), (Some(3), false));
    rig.power_on("waw-a1");
    rig.wait_until_complete();
    assert_eq!(rig.run_status("waw-a1", &[]).code, Some(0));
}

/// A host starts with another version of the system file: it takes the replicated one and says so.
pub(crate) fn the_replicated_file_wins(rig: &mut Rig) {
    let host = "waw1";
    let agreed = fs::read_to_string(rig.file(host)).unwrap();
    let other = agreed.replace("replicas = 3", "replicas = 2");
    assert_ne!(agreed, other);
    rig.power_off(host);
    fs::write(rig.file(host), &other).unwrap();
    rig.power_on(host);
    let said = eventually("the difference is told", || {
        let said = rig.run_status(host, &[]);
        let warned = said.out.contains("differs from the replicated system file");
        if warned { Ok(said) } else { Err(format!("{said:?}")) }
    });
    assert_eq!(said.err, "");
    assert_eq!(fs::read_to_string(rig.data(host).join("system.toml")).unwrap(), agreed);
    rig.wait_until_complete();
    let replicas = rig.status(host).unwrap().instances.len();
    assert_eq!(replicas, 3);

    // With the agreed file again nothing differs.
    rig.power_off(host);
    fs::write(rig.file(host), &agreed).unwrap();
    rig.power_on(host);
    rig.wait_until_complete();
    let said = rig.run_status(host, &[]);
    assert!(!said.out.contains("differs"), "{said:?}");
}
