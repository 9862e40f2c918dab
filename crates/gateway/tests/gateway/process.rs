//! The gateway as a process of its own, with sockets that its parent holds.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use evenkeel_gateway::{Options, run, snapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Folder, Sockets, TestClient, TestUpstream, wait_until};

const SNAPSHOT: &str = "EVENKEEL_TEST_SNAPSHOT";

/// Is the gateway process when started by the other test, and nothing otherwise.
#[test]
fn as_a_process() {
    let Some(path) = std::env::var_os(SNAPSHOT) else { return };
    let options =
        Options { snapshot: path.into(), host: "h1".parse().unwrap(), trust: None, seed: 1 };
    let code = run(options);
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
}

/// Starts this test program as a gateway that inherits one socket as descriptor 3.
fn start(folder: &Folder, sockets: &Sockets) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg("LISTEN_FDS=1 exec \"$0\" --exact process::as_a_process 3<&0 0</dev/null")
        .arg(std::env::current_exe().unwrap())
        .env(SNAPSHOT, folder.snapshot())
        .stdin(OwnedFd::from(sockets.public()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_refuses_no_connection() {
    let upstream = TestUpstream::start("web-1");
    let (sockets, folder) = (Sockets::open(), Folder::new());
    let mut table = sockets.table(&[&upstream]);
    // The child binds this one itself, so it must be free.
    table.admin = "127.0.0.1:0".parse().unwrap();
    snapshot::write(&folder.snapshot(), &table).unwrap();
    let address = sockets.address();
    let mut gateway = start(&folder, &sockets);
    let mut client = TestClient::connect(address);
    assert_eq!(client.ask("GET", "/", "").text(), "web-1");

    gateway.kill().unwrap();
    gateway.wait().unwrap();
    assert!(client.answer().is_none(), "cut with the process");
    // It waits in the backlog for whoever comes next.
    let mut waiting = TestClient::connect(address);
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut gateway = start(&folder, &sockets);
    assert_eq!(waiting.answer().unwrap().text(), "web-1");

    kill(Pid::from_raw(gateway.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let mut status = None;
    wait_until("the end", || {
        status = gateway.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{status:?}");
}
