//! Processes that die, that are ended, and that get in each other's way.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::Request;
use crate::rig::{PORTS_HELD, Rig, eventually, left_over, text};

/// Longest time without an acknowledged write while a leader is replaced: an election takes less
/// than a second between these regions, the rest is for a busy machine.
const ELECTION_MAX: Duration = Duration::from_secs(5);

/// Another program holds the port that a replica was given: it gets another one.
pub(crate) fn a_taken_port_is_replaced(rig: &mut Rig) {
    let status = rig.status("ams-b1").unwrap();
    let here: Vec<_> =
        status.instances.iter().filter(|instance| instance.host == "ams-b1").collect();
    assert_eq!(here.len(), 1, "{here:?}");
    assert!(!PORTS_HELD.contains(&here[0].port), "{here:?}");
    let log = rig.log("ams-b1");
    assert!(log.contains("is taken by another program"), "{log}");
}

/// While a host's node is dead and comes back, its gateway and its replica go on as they were.
pub(crate) fn a_killed_node_disturbs_nobody(rig: &mut Rig) {
    let leader = rig.leader();
    let host = rig.hosts().into_iter().find(|host| *host != leader).unwrap();
    let before = rig.supervised(&host).unwrap();
    assert_eq!(before.len(), 2, "{before:?}");
    let rig = &*rig;
    answered_meanwhile(rig, &host, || {
        let killed = rig.kill_node(&host);
        let after = eventually("another node supervises the host", || {
            let node = rig.node(&host).filter(|node| *node != killed);
            node.ok_or_else(|| "no node runs".to_owned())?;
            rig.supervised(&host)
        });
        assert_eq!(after, before, "the processes of {host}");
        rig.wait_until_complete();
    });
}

/// Reads and writes through a host's gateway while something happens: each request is answered.
pub(crate) fn answered_meanwhile(rig: &Rig, host: &str, happening: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let (answers, failures) = std::thread::scope(|scope| {
        let client = scope.spawn(|| ask_until(rig, host, &over));
        // Also when something fails: the client is waited for.
        let end = SetOnDrop(&over);
        happening();
        drop(end);
        client.join().unwrap()
    });
    assert!(answers > 20, "only {answers} requests were answered");
    assert_eq!(failures, Vec::<String>::new());
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads and writes through a host's gateway, and returns how many were answered and what failed.
fn ask_until(rig: &Rig, host: &str, over: &AtomicBool) -> (u32, Vec<String>) {
    let (mut answers, mut failures) = (0, Vec::new());
    let profile = br#"{"name": "Ada"}"#;
    while !over.load(Ordering::Relaxed) {
        let write = Request::put("/profiles/ada", profile);
        let write = write.header("idempotency-key", &format!("ada-{answers}"));
        for request in [write, Request::get("/profiles/ada"), Request::get("/")] {
            match rig.try_gateway(host, &request) {
                Ok(answer) if answer.status < 400 => answers += 1,
                Ok(answer) => failures.push(format!("{request:?}: {answer:?}")),
                Err(error) => failures.push(format!("{request:?}: {error}")),
            }
        }
    }
    (answers, failures)
}

/// The leader's node dies: another leads, and writes go on.
pub(crate) fn a_killed_leader_is_replaced(rig: &mut Rig) {
    let leader = rig.leader();
    let term = rig.status(&leader).unwrap().term;
    let other = rig.hosts().into_iter().find(|host| *host != leader).unwrap();
    rig.kill_node(&leader);
    let begun = Instant::now();
    let written = eventually("a write after the leader's death", || {
        let request = Request::put("/v1/kv/after", b"the leader");
        let answer = rig.try_api(&other, &request).map_err(|error| error.to_string())?;
        if answer.status < 300 { Ok(answer) } else { Err(answer.text()) }
    });
    assert!(begun.elapsed() < ELECTION_MAX, "{:?}: {written:?}", begun.elapsed());
    eventually("another term", || {
        let status = rig.status(&other)?;
        if status.term > term { Ok(()) } else { Err(status.sentence) }
    });
    rig.wait_until_complete();
    for host in rig.hosts() {
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/after")).text(), "the leader");
    }
}

/// Ctrl-C while a node starts: whatever it has begun, it ends, leaves nothing but what `down` ends,
/// and the next one starts.
pub(crate) fn an_interrupted_start_harms_nothing(rig: &mut Rig) {
    let data = rig.data("solo");
    eventually("the host has started once", || rig.status("solo"));
    rig.power_off("solo");
    let mut endings = Vec::new();
    // From the program's first moments until after its start.
    for moment in (0..8).map(|step| Duration::from_millis(60) * step) {
        let node = rig.start_node("solo", &[]);
        std::thread::sleep(moment);
        kill(Pid::from_raw(i32::try_from(node.id()).unwrap()), Signal::SIGINT).unwrap();
        let ended = node.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let ended = ended.status;
        // Before it listens for signals, it has touched nothing and may simply die.
        let died_early = ended.signal() == Some(Signal::SIGINT as i32) && said.is_empty();
        assert!(ended.success() || died_early, "after {moment:?}: {ended}: {said}");
        endings.push(ended.success());
        let down = rig.run("solo", &["down", "--data", text(&data)]);
        assert_eq!(down.code, Some(0), "after {moment:?}: {down:?}");
        assert_eq!(left_over(), Vec::<String>::new(), "after {moment:?}");
    }
    assert_eq!(endings.last(), Some(&true), "{endings:?}");
    rig.power_on("solo");
    eventually("the host starts as if nothing had been", || {
        let status = rig.status("solo")?;
        if status.leader.is_some() { Ok(()) } else { Err(status.sentence) }
    });
}

/// `down` ends everything that a host runs; the host can be started again with its data.
pub(crate) fn down_leaves_nothing(rig: &mut Rig) {
    let host = "ams-b2";
    let data = rig.data(host);
    let said = rig.run(host, &["down", "--data", text(&data)]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("stopped: "), "{said:?}");
    rig.wait_until_empty(host);
    let said = rig.run(host, &["down", "--data", text(&data)]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("nothing runs on"), "{said:?}");
    rig.power_off(host);
    rig.power_on(host);
    rig.wait_until_complete();
}
