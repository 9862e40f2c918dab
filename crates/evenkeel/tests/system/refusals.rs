//! Nodes that are not to start: each says why, and harms nobody.

use std::fs;
use std::net::TcpListener;

use crate::rig::{Rig, Said, eventually, text};

/// A second node on the folder of one that runs.
pub(crate) fn a_second_node_is_refused(rig: &mut Rig) {
    eventually("the node answers", || rig.status("solo"));
    let node = rig.node("solo");
    let said = start(rig, "solo", text(&rig.file("solo")), text(&rig.data("solo")), &[]);
    check(&said, 1, &["another node runs on data folder", "evenkeel down"]);
    assert_eq!(rig.node("solo"), node);
    rig.status("solo").unwrap();
}

/// Whatever is wrong with file, host, addresses or ports is told before anything is changed.
pub(crate) fn a_bad_start_says_why(rig: &mut Rig) {
    let folder = rig.file("solo").with_file_name("fresh");
    let (file, fresh) = (rig.file("solo"), text(&folder).to_owned());
    let said = start(rig, "nobody", text(&file), &fresh, &[]);
    check(&said, 2, &["there is no host `nobody`", "solo"]);
    let said = start(rig, "solo", text(&file), &fresh, &[]);
    check(&said, 2, &["host `solo` has no certificate", "evenkeel host token solo"]);
    let said = start(rig, "solo", "/nowhere.toml", &fresh, &[]);
    check(&said, 2, &["can't read `/nowhere.toml`", "no such file"]);

    let bad = file.with_file_name("bad.toml");
    let text_of_bad = fs::read_to_string(&file).unwrap().replace("replicas = 1", "replica = 1");
    fs::write(&bad, text_of_bad).unwrap();
    let said = start(rig, "solo", text(&bad), &fresh, &[]);
    check(&said, 2, &["error[EK", "bad.toml:8:", "replicas"]);
    assert!(!folder.exists(), "a refused node left a folder");

    // The first node holds the API's port.
    let said = start(rig, "solo", text(&file), &fresh, &["--bootstrap"]);
    check(&said, 1, &["can't listen on 10.9.0.1:7401"]);
}

/// The folder belongs to another system or to another host. The host is off.
pub(crate) fn a_foreign_folder_is_refused(rig: &mut Rig) {
    let identity = rig.data("solo").join("identity.json");
    eventually("the folder has an owner", || {
        if identity.exists() { Ok(()) } else { Err("nobody yet".to_owned()) }
    });
    rig.power_off("solo");
    let (own, data) = (rig.file("solo"), rig.data("solo"));
    let text_of_own = fs::read_to_string(&own).unwrap();
    let other = own.with_file_name("other.toml");
    fs::write(&other, text_of_own.replace("system = \"one\"", "system = \"two\"")).unwrap();
    let wanted = ["belongs to system `one`, not `two`", "--data"];
    check(&start(rig, "solo", text(&other), text(&data), &[]), 1, &wanted);
    // Also when the folder holds a replicated system file.
    fs::write(data.join("system.toml"), &text_of_own).unwrap();
    check(&start(rig, "solo", text(&other), text(&data), &[]), 1, &wanted);
    fs::remove_file(data.join("system.toml")).unwrap();

    let twins = "hosts = { solo = \"10.9.0.1\", twin = \"10.9.0.2\" }";
    let more = text_of_own.replace("hosts = { solo = \"10.9.0.1\" }", twins);
    fs::write(&other, more).unwrap();
    let said = start(rig, "twin", text(&other), text(&data), &[]);
    check(&said, 1, &["belongs to host `solo`, not `twin`"]);
    assert!(rig.inside("solo").run(|| TcpListener::bind(rig.api("solo"))).unwrap().is_ok());
}

fn start(rig: &Rig, host: &str, file: &str, data: &str, flags: &[&str]) -> Said {
    let words = ["node", "--system", file, "--host", host, "--data", data];
    rig.run("solo", &[&words, flags].concat())
}

#[track_caller]
fn check(said: &Said, code: i32, wanted: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    for part in wanted {
        assert!(said.err.contains(part), "`{part}` is not in {said:?}");
    }
}
