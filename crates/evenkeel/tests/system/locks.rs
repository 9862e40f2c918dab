//! `evenkeel kv lock` and `kv elect`, as they are typed on a host, through the host's own gateway.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::rig::{PROGRAM, Rig, eventually};

/// Says its token and who it is, and stays.
const STAY: &str = "echo $EVENKEEL_LOCK_TOKEN $$; exec sleep 1000";

/// Somebody who holds a lock while a command runs, or waits for it.
struct Holder {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Holder {
    fn begin(rig: &Rig, host: &str) -> Self {
        let mut command = rig.inside(host).command(PROGRAM).unwrap();
        command.args(["kv", "lock", "job", "--ttl", "6s", "--", "sh", "-c", STAY]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Waits until the command runs; returns the token and the command's process.
    fn held(&mut self) -> (u64, Pid) {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let (token, pid) = line.trim().split_once(' ').unwrap();
        (token.parse().unwrap(), Pid::from_raw(pid.parse().unwrap()))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn state(rig: &Rig) -> Result<Value, String> {
    let words = ["kv", "elect", "job", "--observe", "--once", "--json", "--timeout", "30s"];
    let said = rig.run("waw-a1", &words);
    serde_json::from_str(&said.out).map_err(|error| format!("{error}: {said:?}"))
}

fn wait_for(rig: &Rig, token: Option<u64>, waiting: u64) {
    eventually("the lock is so", || {
        let state = state(rig)?;
        let found = (state["holder"]["token"].as_u64(), state["waiting"].as_u64());
        if found == (token, Some(waiting)) { Ok(()) } else { Err(state.to_string()) }
    });
}

/// Holders, waiting clients and the leader are killed, and there is one holder after the other.
pub(crate) fn a_lock_passes_on_whoever_is_killed(rig: &mut Rig) {
    let run = |words: &[&str]| {
        rig.run("ams-b2", &[&["kv", "--timeout", "30s", "lock", "job"], words].concat())
    };
    let said = run(&["--", "sh", "-c", "echo $EVENKEEL_LOCK_TOKEN; exit 7"]);
    assert_eq!(said.code, Some(7), "{said:?}");
    let before: u64 = said.out.trim().parse().unwrap();
    let missing = run(&["--", "/no/such/command"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    let mut first = Holder::begin(rig, "fra-a1");
    let (token, command) = first.held();
    assert!(token > before);
    let busy = run(&["--wait", "100ms", "--", "true"]);
    assert_eq!(busy.code, Some(1), "{busy:?}");
    assert!(busy.err.contains(&format!("is held under token {token}")), "{busy:?}");
    let mut second = Holder::begin(rig, "ams-b2");
    wait_for(rig, Some(token), 1);
    let third = Holder::begin(rig, "ams-a1");
    wait_for(rig, Some(token), 2);
    third.signal(Signal::SIGKILL);
    third.end();
    wait_for(rig, Some(token), 1);
    let leader = rig.status("waw-a1").unwrap().leader.unwrap();
    rig.kill_node(&leader);
    rig.wait_until_complete();
    wait_for(rig, Some(token), 1);
    first.signal(Signal::SIGKILL);
    first.end();
    eventually("the command ends with its holder", || match kill(command, None) {
        Err(Errno::ESRCH) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (next, _) = second.held();
    assert!(next > token);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.end(), Some(128 + 15));
    wait_for(rig, None, 0);
}

/// Who campaigns leads, says so to everybody, and resigns when it is told to end.
pub(crate) fn an_election_says_who_leads(rig: &mut Rig) {
    let observe = || rig.run("waw-a1", &["kv", "elect", "chief", "--observe", "--once"]);
    let nobody = observe();
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(1), "-  nobody\n"), "{nobody:?}");
    let mut command = rig.inside("ams-b2").command(PROGRAM).unwrap();
    command.args(["kv", "elect", "chief", "10.2.0.13:80", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let token = serde_json::from_str::<Value>(&line).unwrap()["token"].as_u64().unwrap();
    let leader = observe();
    assert_eq!((leader.code, leader.out), (Some(0), format!("{token}  10.2.0.13:80\n")));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(observe().out, nobody.out);
}
