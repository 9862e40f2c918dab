//! Files of a host that are not what was written: used if there is a copy, refused if not.

use std::fs;
use std::path::{Path, PathBuf};

use crate::http::Request;
use crate::rig::{Rig, eventually, text};

/// The newest plan and the newest routes are damaged: the host starts from those before.
pub(crate) fn a_damaged_plan_costs_one_step(rig: &mut Rig) {
    // A voter would find the plan in its log as well.
    let hosts = rig.status("waw-a1").unwrap().hosts;
    let host = hosts.into_iter().find(|host| !host.voter).unwrap().name;
    // The loss of the host and its return are new plans, so that each file has one before it.
    rig.power_off(&host);
    eventually("the host's replica is replaced", || {
        let status = rig.status("waw-a1")?;
        let elsewhere = status.instances.iter().filter(|instance| instance.host != host).count();
        if elsewhere == 7 { Ok(()) } else { Err(status.sentence) }
    });
    rig.power_on(&host);
    rig.wait_until_complete();
    for host in rig.hosts() {
        rig.power_off(&host);
    }
    for file in ["plan.json", "routes.json"] {
        flip_middle(&rig.data(&host).join(file));
    }
    rig.power_on(&host);
    eventually("the host answers from the files before", || {
        let answer = rig.try_gateway(&host, &Request::get("/"));
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    let log = rig.log(&host);
    assert!(log.contains("the plan is damaged; the one before is used"), "{log}");
    rig.start();
}

/// The host of the cases with three.
const HOST: &str = "waw1";

/// The coordinator's log is damaged in the middle: this host does not start, the others go on.
pub(crate) fn a_damaged_log_is_refused(rig: &mut Rig) {
    for number in 0..20 {
        let path = format!("/v1/kv/entry-{number}");
        assert!(rig.ask_api("fra1", &Request::put(&path, b"in the log")).status < 300);
    }
    rig.power_off(HOST);
    let segments = files(&rig.data(HOST).join("log"), "segment-");
    flip_middle(segments.first().unwrap());
    let said = wait_for_refusal(rig, "the log is damaged in");
    assert!(said.contains("start once with `--rejoin-empty`"), "{said}");
    let aside = set_aside(rig, &rig.data(HOST).join("log"));
    rejoin(rig);
    fs::remove_dir_all(aside).unwrap();
    let read = rig.ask_api(HOST, &Request::get("/v1/kv/entry-7?stale"));
    assert_eq!(read.text(), "in the log");
}

/// The coordinator's log is gone: this host does not start as if it had never voted.
pub(crate) fn a_lost_log_is_not_taken_for_a_new_one(rig: &mut Rig) {
    assert!(rig.ask_api("fra1", &Request::put("/v1/kv/kept", b"by two")).status < 300);
    rig.power_off(HOST);
    let said = rig.start_node(HOST, &["--rejoin-empty"]).wait_with_output().unwrap();
    let text = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(text.contains("holds this host's log; nothing was changed"), "{text}");
    assert!(text.contains("start without `--rejoin-empty`"), "{text}");
    let log = rig.data(HOST).join("log");
    let aside = set_aside(rig, &log);
    let said = wait_for_refusal(rig, "the coordinator's log of this host is missing");
    assert!(said.contains("start once with `--rejoin-empty`"), "{said}");
    assert!(!log.exists(), "a refused node began a log");
    rig.power_off(HOST);
    rejoin(rig);
    fs::remove_dir_all(aside).unwrap();
    let read = rig.ask_api(HOST, &Request::get("/v1/kv/kept?stale"));
    assert_eq!(read.text(), "by two");
}

/// The newest snapshot is damaged: this host does not start, and says that the one before will do.
pub(crate) fn a_damaged_snapshot_is_refused(rig: &mut Rig) {
    let folder = rig.data(HOST).join("log");
    let value = vec![b'x'; 1 << 20];
    eventually("the host has two snapshots", || {
        assert!(rig.ask_api("fra1", &Request::put("/v1/kv/large", &value)).status < 300);
        let snapshots = files(&folder, "snapshot-");
        if snapshots.len() == 2 { Ok(()) } else { Err(format!("{snapshots:?}")) }
    });
    rig.power_off(HOST);
    let newest = files(&folder, "snapshot-").pop().unwrap();
    flip_middle(&newest);
    let said = wait_for_refusal(rig, "is damaged, nothing was changed");
    assert!(said.contains("the snapshot before it and the log hold the same state"), "{said}");
    let aside = set_aside(rig, &newest);
    start_again(rig);
    fs::remove_file(aside).unwrap();
    let read = rig.ask_api(HOST, &Request::get("/v1/kv/large?stale"));
    assert_eq!(read.body.len(), value.len());
}

/// Switches the host on and waits until its node refuses to run; the others go on meanwhile.
/// Returns what it said since.
fn wait_for_refusal(rig: &Rig, why: &str) -> String {
    let before = rig.log(HOST).len();
    rig.power_on(HOST);
    let said = eventually("the node refuses", || {
        let log = rig.log(HOST);
        let said = log.get(before..).unwrap_or_default();
        if said.contains(why) { Ok(said.to_owned()) } else { Err(said.to_owned()) }
    });
    let answer = rig.ask_api("ams1", &Request::put("/v1/kv/meanwhile", b"goes on"));
    assert!(answer.status < 300, "{answer:?}");
    eventually("the loss is told", || {
        let said = rig.run_status("ams1", &[]);
        if said.code == Some(3) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    said
}

/// Moves something of the host away, which is off then, and returns where to.
fn set_aside(rig: &Rig, damaged: &Path) -> PathBuf {
    rig.power_off(HOST);
    let aside = rig.data(HOST).join("aside");
    fs::rename(damaged, &aside).unwrap();
    aside
}

/// Lets the host begin with an empty log, once, as the refusal advises. The host is off.
fn rejoin(rig: &Rig) {
    let mut node = rig.start_node(HOST, &["--rejoin-empty"]);
    rig.wait_until_complete();
    let data = rig.data(HOST);
    let said = rig.run(HOST, &["down", "--data", text(&data)]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(node.wait().unwrap().success());
    start_again(rig);
}

fn start_again(rig: &Rig) {
    rig.power_off(HOST);
    rig.power_on(HOST);
    rig.wait_until_complete();
    let read = rig.ask_api(HOST, &Request::get("/v1/kv/meanwhile"));
    assert_eq!(read.text(), "goes on");
}

fn files(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let begins = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let mut files: Vec<PathBuf> = entries.filter(begins).collect();
    files.sort();
    files
}

/// Changes one byte in the middle of what a file holds, zeros apart: these may fill a gap.
fn flip_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let middle = bytes[..used / 2].iter().rposition(|byte| *byte != 0).unwrap();
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}
