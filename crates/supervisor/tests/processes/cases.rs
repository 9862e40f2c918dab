//! The tests.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::Read as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_supervisor::process::MARKER;
use evenkeel_supervisor::process::ProcessStat;
use evenkeel_supervisor::protocol::ChildState;
use evenkeel_supervisor::shims::{self, ControlError, ShimEvent, StartError};
use evenkeel_supervisor_core::status::ExitStatus;
use nix::sys::signal::Signal;

use crate::world::{World, eventually, lives, program, script, send_signal, spec};

/// A test by name.
type Case = (&'static str, fn(&World));

pub(crate) const ALL: &[Case] = &[
    ("start_exit_and_log", start_exit_and_log),
    ("command_that_cannot_run", command_that_cannot_run),
    ("environment", environment),
    ("adoption_after_node_was_killed", adoption_after_node_was_killed),
    ("stop_in_order", stop_in_order),
    ("stop_with_deadline", stop_with_deadline),
    ("group_ends_with_child", group_ends_with_child),
    ("killed_shim_with_node", killed_shim_with_node),
    ("killed_shim_without_node", killed_shim_without_node),
    ("node_killed_at_any_moment", node_killed_at_any_moment),
    ("shim_killed_at_any_moment", shim_killed_at_any_moment),
    ("paused_shim", paused_shim),
    ("kill_behind_paused_shim", kill_behind_paused_shim),
    ("stop_all_leaves_nothing", stop_all_leaves_nothing),
    ("socket_outlives_child", socket_outlives_child),
    ("log_is_bounded", log_is_bounded),
    ("second_shim_is_refused", second_shim_is_refused),
    ("forsaken_shim_ends", forsaken_shim_ends),
    ("removal", removal),
];

const NOBODY: [u32; 0] = [];

const MINUTES: &str = "while :; do sleep 60; done";

/// Has a member of its group and one that has left group and session; both ignore SIGTERM.
const FAMILY: &str = "(trap '' TERM; echo member; while :; do sleep 60; done) & \
    setsid sh -c 'trap \"\" TERM; echo runaway; while :; do sleep 60; done' & \
    wait; wait";

fn start_exit_and_log(world: &World) {
    let mut node = world.open_node();
    let pid = node.start(script("web-1", "echo out; echo err >&2; pwd; exit 7"));
    assert_eq!(node.next_event(), ShimEvent::Started { id: "web-1".to_owned(), pid });
    let status = ExitStatus::Code(7);
    assert_eq!(node.next_event(), ShimEvent::Exited { id: "web-1".to_owned(), status });
    let folder = world.shim_folder("web-1");
    let data = folder.join("data").display().to_string();
    assert_eq!(node.shims.log_tail("web-1", 9), ["out", "err", &data]);
    assert_eq!(node.shims.log_tail("web-1", 1), [data]);
    let list = node.shims.list();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].child, ChildState::Exited { pid, status });
    assert!(list[0].shim.is_some_and(lives));
    let exit = std::fs::read_to_string(folder.join("exit.json")).unwrap();
    assert!(exit.contains("\"code\":7"), "{exit}");

    // The same shim runs the next one.
    let pid = node.start(script("web-1", "kill -SEGV $$"));
    assert_eq!(node.next_event(), ShimEvent::Started { id: "web-1".to_owned(), pid });
    let status = ExitStatus::Signal(libc::SIGSEGV);
    assert_eq!(node.next_event(), ShimEvent::Exited { id: "web-1".to_owned(), status });
    assert_eq!(node.shims.list()[0].shim, list[0].shim);
}

fn command_that_cannot_run(world: &World) {
    let mut node = world.open_node();
    let error = node.run(node.shims.start(spec("web-1", &["/no/such/program"]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot run `/no/such/program`: No such file or directory (os error 2)"
    );
    let mut elsewhere = script("web-1", "true");
    elsewhere.directory = Some("/no/such/folder".into());
    let error = node.run(node.shims.start(elsewhere)).unwrap_err();
    assert!(error.to_string().starts_with("cannot enter the directory `/no/such/folder`"));
    let error = node.run(node.shims.start(spec("../web", &["true"]))).unwrap_err();
    assert!(matches!(error, StartError::Id { .. }), "{error}");
    let mut taken = script("web-1", "true");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    taken.listen = vec![socket.local_addr().unwrap()];
    let error = node.run(node.shims.start(taken)).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
    assert!(!node.has_event(), "nothing has started");
    node.start(script("web-1", "true"));
    assert!(matches!(node.next_event(), ShimEvent::Started { .. }));
}

fn environment(world: &World) {
    let mut node = world.open_node();
    let mut spec = script("web-1", "echo \"$COLOUR-$LISTEN_FDS-$EVENKEEL_SHIM\"");
    spec.environment.insert("COLOUR".to_owned(), "red = \"rot\"".to_owned());
    node.start(spec);
    node.next_event();
    node.next_event();
    let folder = world.shim_folder("web-1");
    let log = node.shims.log_tail("web-1", 9);
    assert_eq!(log[0], format!("red = \"rot\"--{}", folder.display()));
    node.start(script("web-1", "cat /proc/self/status; readlink /proc/self/fd/*"));
    node.next_event();
    node.next_event();
    let log = node.shims.log_tail("web-1", 99);
    for name in ["SigBlk", "SigIgn"] {
        let line = log.iter().find_map(|line| line.strip_prefix(name)).unwrap();
        let mask = u64::from_str_radix(line.trim_start_matches([':', '\t']), 16).unwrap();
        // 32 and 33 belong to the C library, which lets nobody touch them.
        assert_eq!(mask & !(0b11 << 31), 0, "{name}{line}");
    }
    let sockets = log.iter().filter(|line| line.contains("socket:")).count();
    assert_eq!(sockets, 0, "no descriptor of the shim is passed on: {log:?}");
}

fn adoption_after_node_was_killed(world: &World) {
    let brief = "echo one; until [ -e end ]; do sleep 0.02; done; echo two; exit 5";
    let (mut killed, pids) = world.spawn_node(&[("long-1", MINUTES), ("brief-2", brief)]);
    let before: Vec<_> = pids.iter().map(|pid| ProcessStat::read(*pid).unwrap()).collect();
    killed.kill().unwrap();
    killed.wait().unwrap();
    std::fs::write(world.shim_folder("brief-2").join("data/end"), "").unwrap();
    let exit = world.shim_folder("brief-2").join("exit.json");
    eventually("an exit without a node", || exit.exists());
    assert_eq!(ProcessStat::read(pids[0]).unwrap(), before[0], "it has noticed nothing");

    let mut node = world.open_node();
    let mut events = vec![node.next_event(), node.next_event(), node.next_event()];
    events.sort_by_key(|event| format!("{event:?}"));
    let (long, brief) = ("long-1".to_owned(), "brief-2".to_owned());
    let expected = [
        ShimEvent::Adopted { id: brief.clone(), pid: pids[1], running: false },
        ShimEvent::Adopted { id: long, pid: pids[0], running: true },
        ShimEvent::Exited { id: brief, status: ExitStatus::Code(5) },
    ];
    assert_eq!(events, expected);
    assert_eq!(node.shims.log_tail("brief-2", 9), ["one", "two"]);
    let shim = node.shims.list()[1].shim.unwrap();
    let stat = ProcessStat::read(shim).unwrap();
    assert_eq!((stat.session, stat.group), (shim, shim), "a shim has its own session");

    // It is the same shim still: it reports to the new node.
    let status = node.run(node.shims.stop("long-1", Duration::from_secs(10))).unwrap();
    assert_eq!(status, Some(ExitStatus::Signal(libc::SIGTERM)));
    assert!(!lives(pids[0]));
}

fn stop_in_order(world: &World) {
    let node = world.open_node();
    let polite = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let pid = node.start(script("web-1", polite));
    node.wait_for_line("web-1", "ready");
    let shim = node.shims.list()[0].shim.unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        send_signal(shim, signal);
    }
    let status = node.run(node.shims.stop("web-1", Duration::from_secs(20))).unwrap();
    assert_eq!(status, Some(ExitStatus::Code(3)));
    assert_eq!(node.shims.log_tail("web-1", 1), ["bye"]);
    assert!(!lives(pid));
    assert!(lives(shim), "it ends only when told to quit");
    let again = node.run(node.shims.stop("web-1", Duration::from_secs(20))).unwrap();
    assert_eq!(again, Some(ExitStatus::Code(3)), "there was nothing more to stop");
    let error = node.run(node.shims.stop("web-2", Duration::ZERO)).unwrap_err();
    assert!(matches!(error, ControlError::Unknown { .. }), "{error}");
}

fn stop_with_deadline(world: &World) {
    let node = world.open_node();
    node.start(script("web-1", "trap '' TERM; echo ready; while :; do sleep 0.02; done"));
    node.wait_for_line("web-1", "ready");
    let (grace, begun) = (Duration::from_millis(400), Instant::now());
    let status = node.run(node.shims.stop("web-1", grace)).unwrap();
    assert_eq!(status, Some(ExitStatus::Signal(libc::SIGKILL)));
    assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
}

fn group_ends_with_child(world: &World) {
    let mut node = world.open_node();
    let family = FAMILY.replace("wait; wait", "until [ -e end ]; do sleep 0.02; done; exit 4");
    node.start(script("web-1", &family));
    node.wait_for_line("web-1", "member");
    node.wait_for_line("web-1", "runaway");
    assert!(world.processes().len() >= 4);
    node.next_event();
    std::fs::write(world.shim_folder("web-1").join("data/end"), "").unwrap();
    let status = ExitStatus::Code(4);
    assert_eq!(node.next_event(), ShimEvent::Exited { id: "web-1".to_owned(), status });
    let shim = node.shims.list()[0].shim.unwrap();
    assert_eq!(world.processes(), [shim], "the rest had ended before the exit was reported");
}

fn killed_shim_with_node(world: &World) {
    let mut node = world.open_node();
    let pid = node.start(script("web-1", FAMILY));
    node.wait_for_line("web-1", "member");
    node.wait_for_line("web-1", "runaway");
    node.next_event();
    let shim = node.shims.list()[0].shim.unwrap();
    send_signal(shim, Signal::SIGKILL);
    assert_eq!(node.next_event(), ShimEvent::ShimLost { id: "web-1".to_owned() });
    assert!(!lives(pid));
    assert_eq!(world.processes(), NOBODY, "the whole group has ended with it");
    assert_eq!(node.shims.list()[0].shim, None);
    let status = node.run(node.shims.stop("web-1", Duration::ZERO)).unwrap();
    assert_eq!(status, None);

    let pid = node.start(script("web-1", MINUTES));
    assert_eq!(node.next_event(), ShimEvent::Started { id: "web-1".to_owned(), pid });
}

fn killed_shim_without_node(world: &World) {
    let (mut killed, pids) = world.spawn_node(&[("web-1", FAMILY), ("web-2", FAMILY)]);
    let node = world.open_node();
    for id in ["web-1", "web-2"] {
        node.wait_for_line(id, "member");
        node.wait_for_line(id, "runaway");
    }
    let shims: Vec<_> = node.shims.list().into_iter().filter_map(|state| state.shim).collect();
    killed.kill().unwrap();
    killed.wait().unwrap();
    drop(node);
    send_signal(shims[0], Signal::SIGKILL);
    eventually("the child ends with its shim", || !lives(pids[0]));
    assert!(world.processes().len() > 4, "others of its group are still there");

    let mut node = world.open_node();
    let mut events = vec![node.next_event(), node.next_event()];
    events.sort_by_key(|event| format!("{event:?}"));
    let (first, second) = ("web-1".to_owned(), "web-2".to_owned());
    let adopted = ShimEvent::Adopted { id: second, pid: pids[1], running: true };
    assert_eq!(events, [adopted, ShimEvent::ShimLost { id: first }]);
    node.run(node.shims.quit("web-2")).unwrap();
    assert_eq!(world.processes(), NOBODY);
    drop(node);
    assert!(!world.open_node().has_event(), "what was reported once is not reported again");
}

fn node_killed_at_any_moment(world: &World) {
    for round in 0..20 {
        let id = format!("web-{round}");
        let mut killed = world.begin_node(&[(&id, "exec sleep 1000")]);
        // Not waiting for anything: this is the moment, between nothing and all is done.
        std::thread::sleep(Duration::from_millis(2 * round));
        killed.kill().unwrap();
        killed.wait().unwrap();
        let node = world.open_node();
        let pid = node.start(script(&id, "exec sleep 1000"));
        let mut expected = [node.shims.list()[0].shim.unwrap(), pid];
        expected.sort_unstable();
        eventually("one shim with one child", || {
            let mut processes = world.processes();
            processes.sort_unstable();
            processes == expected
        });
        node.run(node.shims.stop_all(Duration::from_secs(10))).unwrap();
        assert_eq!(world.processes(), NOBODY);
    }
}

fn shim_killed_at_any_moment(world: &World) {
    let mut node = world.open_node();
    for round in 0..20 {
        let begun = Instant::now();
        node.start(script("web-1", MINUTES));
        assert!(matches!(node.next_event(), ShimEvent::Started { .. }));
        let shim = node.shims.list()[0].shim.unwrap();
        node.run(async {
            let stop = node.shims.stop("web-1", Duration::from_secs(10));
            let kill = async {
                tokio::time::sleep(Duration::from_micros(100 * round)).await;
                send_signal(shim, Signal::SIGKILL);
            };
            tokio::join!(stop, kill).0.unwrap();
        });
        let lost = ShimEvent::ShimLost { id: "web-1".to_owned() };
        while node.next_event() != lost {}
        assert_eq!(world.processes(), NOBODY);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }
}

fn paused_shim(world: &World) {
    let node = world.open_node();
    let pid = node.start(script("web-1", FAMILY));
    let shim = node.shims.list()[0].shim.unwrap();
    send_signal(shim, Signal::SIGSTOP);
    let status = node.run(node.shims.stop("web-1", Duration::from_millis(100))).unwrap();
    assert_eq!(status, None, "a shim that does not answer is ended with its group");
    assert!(!lives(pid) && !lives(shim));
    assert_eq!(world.processes(), NOBODY);
}

fn kill_behind_paused_shim(world: &World) {
    let mut node = world.open_node();
    let pid = node.start(script("web-1", FAMILY));
    assert_eq!(node.next_event(), ShimEvent::Started { id: "web-1".to_owned(), pid });
    send_signal(node.shims.list()[0].shim.unwrap(), Signal::SIGSTOP);
    let told = node.run(node.shims.signal("web-1", shims::Signal::Terminate));
    assert!(matches!(told, Err(ControlError::Silent { .. })), "{told:?}");
    node.run(node.shims.signal("web-1", shims::Signal::Kill)).unwrap();
    assert_eq!(node.next_event(), ShimEvent::ShimLost { id: "web-1".to_owned() });
    assert_eq!(world.processes(), NOBODY);
}

fn stop_all_leaves_nothing(world: &World) {
    let node = world.open_node();
    node.start(script("gateway", MINUTES));
    node.start(script("web-1", "trap '' TERM; echo ready; while :; do sleep 0.02; done"));
    node.start(script("web-2", FAMILY));
    node.start(script("web-3", "exit 0"));
    node.wait_for_line("web-1", "ready");
    node.wait_for_line("web-2", "runaway");
    node.run(node.shims.stop_all(Duration::from_millis(200))).unwrap();
    assert_eq!(world.processes(), NOBODY);
    assert!(node.shims.list().is_empty());
    assert_eq!(node.shims.log_tail("web-1", 1), ["ready"], "logs are kept");
    drop(node);
    assert!(!world.open_node().has_event());
}

fn socket_outlives_child(world: &World) {
    let node = world.open_node();
    let program = program();
    let mut spec = spec("gateway", &[program.to_str().unwrap(), "server"]);
    spec.listen = vec!["127.0.0.1:0".parse().unwrap()];
    let first = node.start(spec.clone());
    node.wait_for_line("gateway", "given 1 true");
    let port = || {
        let log = node.shims.log_tail("gateway", 1000);
        log.iter().rev().find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok())
    };
    eventually("a port", || port().is_some());
    let port = port().unwrap();
    let read = |mut connection: TcpStream| {
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    };
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(read(connect()), first.to_string());
    node.run(node.shims.stop("gateway", Duration::from_secs(10))).unwrap();
    let waiting = connect();
    let second = node.start(spec);
    assert_eq!(read(waiting), second.to_string(), "made while it was down, served after");
    assert_eq!(read(connect()), second.to_string());
    node.run(node.shims.quit("gateway")).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "closed with the shim");
}

fn log_is_bounded(world: &World) {
    let mut node = world.open_node();
    let text = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let mut spec = script("web-1", text);
    spec.log_max_bytes = 32 * 1024;
    node.start(spec);
    node.next_event();
    node.next_event();
    for name in ["log", "log.1"] {
        let length = std::fs::metadata(world.shim_folder("web-1").join(name)).unwrap().len();
        assert!((1..=32 * 1024).contains(&length), "{name} has {length} bytes");
    }
    let tail = node.shims.log_tail("web-1", 1000);
    assert_eq!(tail.len(), 1000);
    let expected: Vec<String> = (19_000..20_000).map(|line| format!("line {line}")).collect();
    assert_eq!(tail, expected, "across both files");
}

fn second_shim_is_refused(world: &World) {
    let node = world.open_node();
    node.start(script("web-1", MINUTES));
    let folder = world.shim_folder("web-1");
    let output = Command::new(program()).arg("shim").arg(&folder).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.ends_with("did not start: another shim holds this folder\n"), "{text}");
    let output = Command::new(program()).arg("shim").arg("/no/such").output().unwrap();
    assert!(!output.status.success());
    let status = node.run(node.shims.stop("web-1", Duration::from_secs(10))).unwrap();
    assert_eq!(status, Some(ExitStatus::Signal(libc::SIGTERM)), "the first one still serves");
}

/// A node was killed before it could speak to the shim that it had started.
fn forsaken_shim_ends(world: &World) {
    let node = world.open_node();
    let refused = node.run(node.shims.start(spec("idle", &["/no/such/program"])));
    assert!(refused.is_err(), "{refused:?}");
    let idle = world.processes();
    let folder = world.shim_folder("forsaken");
    std::fs::create_dir(&folder).unwrap();
    let mut shim = Command::new(program());
    shim.arg("shim").arg(&folder).env(MARKER, &folder);
    assert!(shim.status().unwrap().success());
    assert_eq!(world.processes().len(), idle.len() + 1);
    eventually("the shim without a node ends", || world.processes() == idle);
    assert!(!folder.join("control.sock").exists());
    // The other one has no child either, but a node that may give it one.
    node.start(script("idle", MINUTES));
    assert_eq!(world.processes().first(), idle.first());
}

fn removal(world: &World) {
    let node = world.open_node();
    let pid = node.start(script("web-1", MINUTES));
    node.run(node.shims.remove("web-1")).unwrap();
    assert!(!lives(pid));
    assert!(!world.shim_folder("web-1").exists());
    assert!(node.shims.list().is_empty());
    node.run(node.shims.remove("web-1")).unwrap();
    node.start(script("web-1", MINUTES));
}
