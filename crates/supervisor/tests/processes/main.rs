//! Shims with real processes. The test program is also the program under test: it calls itself as
//! `shim FOLDER`, as a node to be killed, and as a server that is given its socket.
//!
//! ```text
//! processes [FILTER]          makes a folder, runs the tests in a second process, cleans up
//!   └─ processes test …       the tests; may be killed at any moment
//!        ├─ processes node …  the node that a test kills
//!        └─ processes shim …  shims, which outlive both
//! ```
#![expect(clippy::print_stdout, reason = "a test program reports on its output")]

mod cases;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use evenkeel_supervisor::process::{Scope, end_marked};
use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["shim", folder] => evenkeel_supervisor::shim::run(Path::new(folder)),
        ["node", folder] => world::be_node(Path::new(folder)),
        ["server"] => world::be_server(),
        ["test", root, filter] => run_tests(Path::new(root), filter),
        options => guard(options.iter().find(|word| !word.starts_with('-')).unwrap_or(&"")),
    }
}

/// Runs the tests in a process that may die, and cleans up after it however it ended.
fn guard(filter: &str) -> ExitCode {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGTERM);
    mask.thread_block().expect("signals can be blocked");
    let name = format!("evenkeel-supervisor-{}", std::process::id());
    let root = std::env::temp_dir().join(name);
    std::fs::create_dir(&root).expect("a new folder");
    let root = root.canonicalize().expect("the folder that was just made");
    let program = world::program();
    let status = Command::new(program).arg("test").arg(&root).arg(filter).status();
    // The folders of shims stand two levels below the root.
    let cases = std::fs::read_dir(&root).into_iter().flatten().flatten();
    let left: Vec<u32> =
        cases.flat_map(|case| end_marked(Scope::AllIn(&case.path().join("shims")))).collect();
    std::fs::remove_dir_all(&root).expect("a folder that nobody uses");
    assert!(left.is_empty(), "processes {left:?} are left");
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

fn run_tests(root: &Path, filter: &str) -> ExitCode {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("end with the guard");
    let chosen: Vec<_> = cases::ALL.iter().filter(|(name, _)| name.contains(filter)).collect();
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        // Longer than a socket's path may be.
        let folder: PathBuf = root.join(format!("{name}-{}", "x".repeat(100)));
        let world = world::World::new(folder);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&world)));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        if result.is_err() {
            world.show_logs();
            failed.push(*name);
        }
    }
    println!(
        "test result: {} passed; {} failed {failed:?}",
        chosen.len() - failed.len(),
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
