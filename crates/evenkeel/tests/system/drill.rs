//! The drill and the demo as a user runs them: the real command, in a world of its own, its exit code
//! and the files that it leaves.
//!
//! They run the optimised program: unoptimised, five hosts and their clients do not keep up with the
//! load on two cores, and the drill rightly says that nothing is proven.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use evenkeel_lab::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::http::Request;
use crate::rig::{PROGRAM, Rig, Said, eventually, run, text};

/// Longest wait for a line of a demo that starts.
const LINE_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a command that was interrupted.
const END_MAX: Duration = Duration::from_secs(10);

/// What a line of `history.jsonl` holds, as the documentation says.
const LINE_FIELDS: [&str; 9] =
    ["client", "op", "key", "value", "expect", "invoke_ns", "return_ns", "outcome", "revision"];
/// What an experiment of `report.json` holds, as the documentation says.
const EXPERIMENT_FIELDS: [&str; 14] = [
    "id",
    "fault",
    "target",
    "predicted",
    "observed",
    "operations",
    "failed",
    "unknown",
    "lost_writes",
    "max_gap_ms",
    "detect_ms",
    "recover_ms",
    "full_redundancy_ms",
    "verdict",
];

/// The commands bring their own systems: this one stays off. The program is built where it is not
/// up to date.
pub(crate) fn no_system(world: &World) -> Rig {
    let target = Path::new(PROGRAM).ancestors().nth(2).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--offline", "--package", "evenkeel", "--target-dir"]);
    let built = build.arg(target).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let file = r#"
system = "off"
survive = "process"
[region.fra]
hosts = { fra = "10.9.0.1" }
"#;
    Rig::build(world, file, 8 << 20)
}

/// A limit that no system can keep breaks the promise, and the report says so.
pub(crate) fn a_broken_budget_ends_with_3(_: &mut Rig) {
    let folder = Folder::new("budget");
    fs::write(folder.0.join("report.json"), "of an earlier run").unwrap();
    let said = drill(&["--only", "kill@replica", "--gap-max", "1ms"], &folder);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.out.contains("--gap-max 1ms --only kill@replica"), "{said:?}");
    let report = folder.report();
    let verdict = (&report["survive"], &report["verdict"]);
    assert_eq!(verdict, (&"region".into(), &"fail".into()), "{report:#}");
    let experiments = report["experiments"].as_array().unwrap();
    assert_eq!(experiments.len(), 1, "{report}");
    for field in EXPERIMENT_FIELDS {
        assert!(experiments[0].get(field).is_some(), "{field}: {report}");
    }
    assert_eq!(experiments[0]["verdict"], "fail", "{report}");
}

/// The same experiment with the usual limits is survived, and leaves a whole history.
pub(crate) fn a_survived_fault_leaves_its_history(_: &mut Rig) {
    let folder = Folder::new("history");
    let said = drill(&["--only", "kill@replica"], &folder);
    assert_eq!(said.code, Some(0), "{said:?}");
    let report = folder.report();
    let experiment = &report["experiments"][0];
    assert_eq!(
        (&experiment["id"], &experiment["lost_writes"]),
        (&"kill-replica".into(), &0.into())
    );
    // A member that is not read back would have made it invalid.
    assert_eq!(said.out.matches("could not be read back").count(), 0, "{said:?}");
    let lines = fs::read_to_string(folder.0.join("history.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let operations = experiment["operations"].as_u64().unwrap();
    assert!(operations >= 500 && lines.len() as u64 == operations, "{operations} {}", lines.len());
    lines.iter().for_each(check_line);
}

/// Checks the documented format: a value and a revision for every acknowledged write.
fn check_line(line: &Value) {
    let fields: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = LINE_FIELDS.into_iter().collect();
    let more: Vec<&&str> = fields.difference(&expected).collect();
    assert!(fields.is_superset(&expected) && more.iter().all(|more| **more == "refused"), "{line}");
    let word = |field: &str| line[field].as_str().unwrap().to_owned();
    let (op, outcome) = (word("op"), word("outcome"));
    assert!(["put", "get", "cas", "delete"].contains(&op.as_str()), "{line}");
    assert!(["ok", "fail", "unknown"].contains(&outcome.as_str()), "{line}");
    assert!(word("client").contains('-') && word("key").starts_with("x1-"), "{line}");
    assert!(line["invoke_ns"].as_u64().unwrap() <= line["return_ns"].as_u64().unwrap(), "{line}");
    assert_eq!(op == "cas", line["expect"].is_u64(), "{line}");
    if outcome == "ok" && op != "get" {
        assert!(line["revision"].is_u64(), "{line}");
        assert_eq!(line["value"].is_string(), op != "delete", "{line}");
    }
}

/// A seed chooses the same target again.
pub(crate) fn a_seed_repeats_the_choice(_: &mut Rig) {
    let target = |name: &str| {
        let folder = Folder::new(name);
        drill(&["--only", "kill@gateway", "--seed", "7"], &folder);
        folder.report()["experiments"][0]["target"].as_str().unwrap().to_owned()
    };
    let first = target("seed-first");
    assert!(first.starts_with("gateway of "), "{first}");
    assert_eq!(target("seed-second"), first);
}

/// Ctrl-C in the middle of an experiment ends everything that the demo had started.
pub(crate) fn an_interrupt_leaves_nothing(_: &mut Rig) {
    // Not `--quick`: where lines stay, the live line of an experiment comes every five seconds.
    let mut demo = Demo::start(&["--once", "--only", "kill@gateway"]);
    demo.line("requests/s");
    let running = processes().len();
    assert!(running > 10, "only {running} processes of five hosts are seen");
    demo.interrupt();
    assert_eq!(demo.end(), Some(130));
    eventually("nothing of the demo is left", || match processes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// A second demo takes another port for browsers, and both answer there.
pub(crate) fn two_demos_run_side_by_side(_: &mut Rig) {
    let arguments = ["--once", "--quick", "--only", "kill@gateway"];
    let mut demos = [Demo::start(&arguments), Demo::start(&arguments)];
    let addresses = demos.each_mut().map(|demo| {
        let line = demo.line("open http://");
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap();
        address.parse::<SocketAddr>().unwrap()
    });
    assert_ne!(addresses[0], addresses[1]);
    for address in addresses {
        let answer = Request::get("/").send(address).unwrap();
        assert_eq!(answer.status, 200, "{address}: {answer:?}");
    }
    for demo in &mut demos {
        demo.interrupt();
        assert_eq!(demo.end(), Some(130));
    }
}

fn program() -> PathBuf {
    Path::new(PROGRAM).ancestors().nth(2).unwrap().join("release/evenkeel")
}

/// Returns every process of the program: all hosts of all demos.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_ours =
        |pid: &String| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program());
    pids.filter(is_ours).collect()
}

/// Returns the command under test, as if it was called outside of every world.
fn command() -> Command {
    let mut command = Command::new(program());
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

fn drill(arguments: &[&str], folder: &Folder) -> Said {
    let mut command = command();
    command.args(["drill", "--quick", "--report", text(&folder.0)]).args(arguments);
    run(command)
}

/// A folder for a report: not in `/dev/shm`, of which every world has its own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("drill-{name}"));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn report(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.0.join("report.json")).unwrap()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The next run uses it again.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A demo that runs, with what it prints.
struct Demo {
    process: Child,
    lines: Receiver<String>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = command();
        command.arg("demo").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody waits for a line any more.
                sender.send(line).ok();
            }
        });
        Self { process, lines }
    }

    /// Waits for a line that contains `wanted`.
    fn line(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + LINE_MAX;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line with `{wanted}`: {error}; seen: {seen:#?}"),
            }
        }
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    }

    /// Waits for its end and returns the exit code.
    fn end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        let status = eventually("the demo ends", || {
            let status = self.process.try_wait().map_err(|error| error.to_string())?;
            status.ok_or_else(|| format!("it runs after {:?}", begun.elapsed()))
        });
        assert!(begun.elapsed() < END_MAX, "it took {:?} to end", begun.elapsed());
        status.code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its world ends with it.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
