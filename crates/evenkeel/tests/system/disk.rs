//! A host whose disk is full: the others go on, it says so, and it recovers.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::http::Request;
use crate::rig::{Rig, Said, eventually};

/// More than the log has room for without new space.
const WRITES: usize = 40;

/// A follower's disk is full.
pub(crate) fn a_full_disk_stops_nobody(rig: &mut Rig) {
    let leader = rig.leader();
    let full = rig.hosts().into_iter().find(|host| *host != leader).unwrap();
    fill_and_free(rig, &full, &leader);
}

/// The leader's own disk is full.
pub(crate) fn a_leader_with_a_full_disk_hands_over(rig: &mut Rig) {
    let leader = rig.leader();
    let writer = rig.hosts().into_iter().find(|host| *host != leader).unwrap();
    fill_and_free(rig, &leader, &writer);
    assert_ne!(rig.leader(), leader);
}

/// Fills a host's disk, writes through another host, and frees it again.
fn fill_and_free(rig: &Rig, full: &str, writer: &str) {
    let filler = Filler::new(rig, full);
    let value = vec![b'x'; 512 << 10];
    for number in 0..WRITES {
        let request = Request::put("/v1/kv/large", &value);
        let request = request.header("idempotency-key", &format!("{full}-{number}"));
        eventually("a write is acknowledged", || {
            let answer = rig.try_api(writer, &request).map_err(|error| error.to_string())?;
            if answer.status < 300 { Ok(()) } else { Err(answer.text()) }
        });
    }
    assert!(rig.ask_api(writer, &Request::put("/v1/kv/last", full.as_bytes())).status < 300);
    // The host knows it first; with the leader's knowledge no other voter may be lost any more.
    eventually("the host and its leader say that the disk is full", || {
        let said = rig.run_status(full, &[]);
        let told = warning(&said).is_some() && said.code == Some(3);
        if told { Ok(()) } else { Err(format!("{said:?}")) }
    });
    restart_node(rig, full);

    drop(filler);
    eventually("the host has what it missed", || {
        let answer = rig.ask_api(full, &Request::get("/v1/kv/last?stale"));
        if answer.text() == full { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    rig.wait_until_complete();
    eventually("the host has nothing to say", || {
        let said = rig.run_status(full, &[]);
        if warning(&said).is_some() { Err(format!("{said:?}")) } else { Ok(()) }
    });
}

/// Finds what a status says of a full disk.
fn warning(said: &Said) -> Option<&str> {
    let mut warnings = said.out.lines().filter(|line| line.starts_with("warning: "));
    warnings.find(|line| line.contains("is full"))
}

/// Kills a host's node: also on a full disk the next one takes over, and nobody notices.
fn restart_node(rig: &Rig, host: &str) {
    let before = rig.supervised(host).unwrap();
    let killed = rig.kill_node(host);
    assert_eq!(rig.ask_gateway(host, &Request::get("/")).status, 200);
    eventually("another node takes over", || match rig.node(host) {
        Some(node) if node != killed => {
            let after = rig.supervised(host)?;
            if after == before { Ok(()) } else { Err(format!("{after:?}, not {before:?}")) }
        }
        _ => Err("no node runs".to_owned()),
    });
    assert_eq!(rig.ask_gateway(host, &Request::get("/")).status, 200);
}

/// A file that takes all the space of a host, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn new(rig: &Rig, host: &str) -> Self {
        let path = rig.data(host).join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 1 << 12] {
            let block = vec![1; size];
            let error = loop {
                if let Err(error) = file.write_all(&block) {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}
