//! What `evenkeel status` says, and with which exit code.

use std::fs;

use evenkeel_node::status::{Source, StatusWire};
use evenkeel_node::wire::HostStateWire;

use crate::rig::{Rig, eventually};

/// 0 while the goal is met, 3 while it is not; 4 is told by the case that has no quorum.
pub(crate) fn exit_codes_tell_how_it_is(rig: &mut Rig) {
    // The leader may still be moving what an earlier fault has moved.
    eventually("nothing is missing", || {
        let said = rig.run_status("fra-a1", &[]);
        let first = said.out.lines().next().unwrap_or_default();
        let all = "seven survives the loss of any one region: 7 of 7 hosts up, nothing is missing";
        if said.code == Some(0) && first == all { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let said = rig.run_status("fra-a1", &["--json"]);
    let status: StatusWire = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, status.goal_met, status.source), (Some(0), true, Source::Leader));

    // Two voters each are left in two regions: without either there is no majority.
    rig.power_off("waw-a1");
    // It may have led: a new leader takes nobody for lost before it had time to be heard.
    eventually("the loss is told", || {
        let said = rig.run_status("fra-a1", &["--json"]);
        let status: StatusWire =
            serde_json::from_str(&said.out).map_err(|error| error.to_string())?;
        let lost = status.hosts.iter().find(|host| host.name == "waw-a1");
        let is_down = lost.is_some_and(|host| host.state == Some(HostStateWire::Down));
        let told = is_down && said.code == Some(3) && !status.goal_met;
        if told { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let said = rig.run_status("fra-a1", &[]);
    let first = said.out.lines().next().unwrap_or_default();
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(first.starts_with("seven would not survive the loss of any one region: "), "{first}");
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
        let warned = said.out.contains("differs from the system file in force");
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
