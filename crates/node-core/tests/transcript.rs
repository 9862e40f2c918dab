//! Replays the scripts in `tests/golden`: lines with `>` are what happens to the hosts, the others
//! what the hosts do about it. `UPDATE_EXPECT=1` rewrites the other lines.

#![allow(clippy::unwrap_used, reason = "a test that fails loudly is what is wanted")]

use std::fmt::Write as _;

use expect_test::expect_file;

#[path = "support/cluster.rs"]
mod cluster;

fn replay(script: &str) -> String {
    let mut cluster = cluster::Cluster::new();
    for line in script.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(cluster.transcript, "{line}").unwrap();
        }
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(cluster.transcript, "{line}").unwrap();
            cluster.command(command);
        }
    }
    cluster.transcript
}

macro_rules! golden {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let script = include_str!(concat!("golden/", stringify!($name), ".txt"));
                let file = concat!("golden/", stringify!($name), ".txt");
                expect_file![file].assert_eq(&replay(script));
            }
        )*
    };
}

golden! {
    cold_start
    replica_crash
    host_lost_and_back
    no_leader
    port_taken
    move_and_drain
    lower_plan_refused
    node_killed
    leader_paused
    plan_lost
    disk_full_at_start
    disk_full
    stop
}
