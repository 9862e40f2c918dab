//! Builds real labs: namespaces, processes and frames. Each scenario runs in a process of its own,
//! as root and as an ordinary user.
//!
//! `lab [FILTER]` runs the scenarios whose name contains FILTER.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test with a `main` of its own")]

mod scenarios;
mod support;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use evenkeel_lab::world::{self, Entered, Isolation, World};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::{NOBODY, ProgramCopy};

/// Marks every process of one run of one test, so that what is left over can be found.
const MARK: &str = "EVENKEEL_TEST_RUN";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = evenkeel_lab::run_hidden(&arguments) {
        return code;
    }
    if let Some(code) = support::play(&arguments) {
        return code;
    }
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    if let ["scenario", name] = words.as_slice() {
        return run_scenario(name);
    }
    let filter = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    run_all(filter)
}

/// Enters a world and plays one scenario in it.
fn run_scenario(name: &str) -> ExitCode {
    if name == "linger-loopback" {
        scenarios::linger_on_loopback();
    }
    let listeners =
        if name == "listener" { vec![TcpListener::bind("127.0.0.1:0").unwrap()] } else { vec![] };
    if let Some(address) =
        listeners.first().filter(|_| std::env::var("EVENKEEL_LAB_WORLD").is_err())
    {
        println!("{}", address.local_addr().unwrap());
    }
    match world::enter(listeners).unwrap() {
        Entered::Left(code) => code,
        Entered::Inside(World { isolation: Isolation::None { reason }, .. }) => {
            without_namespaces(&reason)
        }
        Entered::Inside(world) => scenarios::play(name, world),
    }
}

/// Only an ordinary user may do without namespaces: as root, something is missing.
fn without_namespaces(reason: &str) -> ExitCode {
    if nix::unistd::geteuid().is_root() {
        println!("FAILED: no namespaces: {reason}");
        return ExitCode::FAILURE;
    }
    println!("{SKIPPED}: no namespaces: {reason}");
    ExitCode::SUCCESS
}

/// Begins what a scenario says that an ordinary user can't play.
const SKIPPED: &str = "SKIPPED";

/// Starts scenarios as root and as an ordinary user.
struct Stage {
    copy: ProgramCopy,
    /// Whether a part of the test at hand was skipped.
    skipped: AtomicBool,
}

impl Stage {
    fn command(&self, scenario: &str, as_user: bool) -> Command {
        let mut command = if scenario == "signals" {
            let mut shell = Command::new("sh");
            shell.args(["-c", "trap '' INT QUIT; exec \"$0\" \"$@\""]).arg(&self.copy.program);
            shell
        } else {
            Command::new(&self.copy.program)
        };
        command.args(["scenario", scenario]).current_dir("/").env(MARK, scenario);
        if as_user {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs a scenario to its end.
    fn play(&self, scenario: &str, as_user: bool) {
        let output = self.command(scenario, as_user).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let cried = String::from_utf8_lossy(&output.stderr);
        print!("{}", indented(&said));
        self.note(&said);
        assert!(output.status.success(), "{scenario}: {}\n{said}{cried}", output.status);
    }

    /// Takes in whether a scenario was skipped.
    fn note(&self, said: &str) -> bool {
        let skipped = said.contains(SKIPPED);
        self.skipped.fetch_or(skipped, Ordering::Relaxed);
        skipped
    }

    /// Starts a scenario and returns it with its first line.
    fn begin(
        &self,
        scenario: &str,
        as_user: bool,
    ) -> (Child, BufReader<impl std::io::Read>, String) {
        let mut child = self
            .command(scenario, as_user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        (child, lines, line.trim().to_owned())
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

type Test = (&'static str, fn(&Stage, bool));

const TESTS: [Test; 9] = [
    ("ipv4", |stage, as_user| stage.play("ipv4", as_user)),
    ("ipv6", |stage, as_user| stage.play("ipv6", as_user)),
    ("links", |stage, as_user| stage.play("links", as_user)),
    ("power", |stage, as_user| stage.play("power", as_user)),
    ("signals", |stage, as_user| stage.play("signals", as_user)),
    ("statuses", statuses_come_out),
    ("listener", outsiders_come_in),
    ("killed", nothing_is_left),
    ("two", two_at_once),
];

fn run_all(filter: &str) -> ExitCode {
    let stage = Stage { copy: ProgramCopy::new(), skipped: AtomicBool::new(false) };
    let (mut passed, mut skipped) = (0_u32, 0_u32);
    let is_root = nix::unistd::geteuid().is_root();
    if "loopback".contains(filter) {
        scenarios::loopback();
        println!("ok loopback");
        passed += 1;
    }
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(filter)) {
        for as_user in [false, true] {
            // Without root every run is an ordinary user's.
            if as_user && !is_root {
                continue;
            }
            let begun = Instant::now();
            test(&stage, as_user);
            let who = if as_user || !is_root { "user" } else { "root" };
            let was_skipped = stage.skipped.swap(false, Ordering::Relaxed);
            *(if was_skipped { &mut skipped } else { &mut passed }) += 1;
            let outcome = if was_skipped { "skipped" } else { "ok" };
            println!("{outcome} {name} as {who} ({} ms)", begun.elapsed().as_millis());
        }
    }
    println!("{passed} passed, 0 failed, {skipped} skipped");
    ExitCode::SUCCESS
}

fn statuses_come_out(stage: &Stage, as_user: bool) {
    let output = stage.command("seven", as_user).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{}", indented(&said));
    if stage.note(&said) {
        return;
    }
    assert_eq!(output.status.code(), Some(7), "{said}");
    let (mut child, lines, line) = stage.begin("linger", as_user);
    assert_eq!(line, "ready");
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    drop(lines);
    assert_eq!(left_over(&stage.copy.program), Vec::<i32>::new());
}

fn outsiders_come_in(stage: &Stage, as_user: bool) {
    let (mut child, mut lines, address) = stage.begin("listener", as_user);
    let ask = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"ahoy").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).is_ok_and(|()| answer == *b"ahoy")
    };
    if ask() {
        // The first target dies, and the second one answers.
        let mut orders = child.stdin.take().unwrap();
        writeln!(orders, "fra-a1").unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "off\n");
        assert!(ask());
    } else {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert!(stage.note(&rest), "no answer: {rest}");
        print!("{}", indented(&rest));
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn nothing_is_left(stage: &Stage, as_user: bool) {
    nothing_is_left_of(stage, "linger", as_user);
    let pid = nothing_is_left_of(stage, "linger-loopback", as_user);
    // Without a world of its own its data is left on disk, until the next lab is built.
    let data = std::env::temp_dir().join(format!("evenkeel-lab-{pid}-0"));
    assert!(data.exists());
    scenarios::loopback();
    assert!(!data.exists());
}

/// Kills a scenario in the middle and returns what its pid was.
fn nothing_is_left_of(stage: &Stage, scenario: &str, as_user: bool) -> Pid {
    let (mut child, lines, line) = stage.begin(scenario, as_user);
    let pid = pid(&child);
    if line != "ready" {
        println!("    {line}");
        assert!(stage.note(&line), "{scenario}: {line}");
        return pid;
    }
    assert!(left_over(&stage.copy.program).len() > 20, "the lab runs nothing");
    kill(pid, Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    support::eventually("every process is gone", || left_over(&stage.copy.program).is_empty());
    drop(lines);
    pid
}

fn two_at_once(stage: &Stage, as_user: bool) {
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| stage.play("ipv4", as_user));
        }
    });
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Returns processes of this test's program or with its mark.
fn left_over(program: &Path) -> Vec<i32> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| *pid != own && pid.parse::<i32>().is_ok())
        .filter(|pid| {
            let is_ours = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut entries = environment.split(|byte| *byte == 0);
            is_ours || entries.any(|entry| entry.starts_with(MARK.as_bytes()))
        })
        .map(|pid| pid.parse().unwrap())
        .collect()
}
