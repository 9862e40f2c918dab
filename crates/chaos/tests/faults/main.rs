//! Injects every kind of fault into the hosts of a lab and sees both its effect and its end.
//!
//! `faults [FILTER]` runs the scenarios whose name contains FILTER as whoever starts it; root runs
//! them as an ordinary user as well.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test with a `main` of its own")]

#[path = "../../../lab/tests/lab/support.rs"]
mod support;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_chaos::{Chaos, Effect, InjectError, Injected, Means, Reach, Site};
use evenkeel_lab::world::{self, Entered, Isolation, World};
use evenkeel_lab::{HostStatus, Lab, ProcessRole, ping};
use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::instance::InstanceId;
use evenkeel_model::name::ZoneName;
use evenkeel_model::system::System;

use support::{echoes, eventually, five_hosts, five_hosts_v6, host, options, region};

/// Time after which nothing is expected any more from what is broken.
const QUICK: Duration = Duration::from_millis(200);
/// Time that what works is given on a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// A fault that the test ends itself.
const LONG: Duration = Duration::from_secs(60);

type Scenario = (&'static str, fn(&Bench));

const SCENARIOS: [Scenario; 8] = [
    ("isolate-host", isolate_host),
    ("isolate-region", isolate_region),
    ("pause-host", pause_host),
    ("pause-replica", pause_replica),
    ("kill", kill),
    ("link", cut_link),
    ("injector-dies", injector_dies),
    ("not-verified", not_verified),
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let hidden = evenkeel_lab::run_hidden(&arguments);
    let hidden = hidden.or_else(|| evenkeel_chaos::run_hidden(&arguments));
    if let Some(code) = hidden.or_else(|| support::play(&arguments)) {
        return code;
    }
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    if let ["injector", kind, init, address] = words.as_slice() {
        return inject_and_wait(kind, init.parse().unwrap(), address.parse().unwrap());
    }
    let filter = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    let world = match world::enter(Vec::new()).unwrap() {
        Entered::Left(code) if code == ExitCode::SUCCESS => return run_as_user(&arguments),
        Entered::Left(code) => return code,
        Entered::Inside(world) => world,
    };
    if let Isolation::None { reason } = &world.isolation {
        return without_namespaces(reason, filter);
    }
    for system in [five_hosts(), five_hosts_v6()] {
        let bench = Bench::new(&world, &system);
        for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| name.contains(filter)) {
            let begun = Instant::now();
            scenario(&bench);
            println!("ok {name} ({} ms)", begun.elapsed().as_millis());
        }
    }
    ExitCode::SUCCESS
}

/// Only an ordinary user may do without namespaces: as root, something is missing.
fn without_namespaces(reason: &str, filter: &str) -> ExitCode {
    if nix::unistd::geteuid().is_root() {
        println!("FAILED, nothing was tested: no namespaces: {reason}");
        return ExitCode::FAILURE;
    }
    println!("SKIPPED, nothing was tested: no namespaces: {reason}");
    let skipped = SCENARIOS.iter().filter(|(name, _)| name.contains(filter)).count();
    println!("0 passed, 0 failed, {skipped} skipped");
    ExitCode::SUCCESS
}

fn run_as_user(arguments: &[OsString]) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        return ExitCode::SUCCESS;
    }
    println!("as an ordinary user:");
    let copy = support::ProgramCopy::new();
    let mut command = Command::new(&copy.program);
    command.args(arguments).uid(support::NOBODY).gid(support::NOBODY).current_dir("/");
    if command.status().unwrap().success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A lab with everything on, and an injector.
struct Bench {
    lab: Arc<Lab>,
    chaos: Chaos,
    journal: PathBuf,
}

impl Bench {
    fn new(world: &World, system: &System) -> Self {
        let lab = Arc::new(Lab::build(world, system, options(system)).unwrap());
        lab.power_on_all().unwrap();
        support::wait_for_hosts(&lab);
        // In the world's own memory, which goes with it.
        let journal = lab.data(&host("fra-a1")).join("../../chaos");
        let (chaos, unfinished) = Chaos::open(&journal).unwrap();
        assert!(unfinished.is_empty());
        Self { lab, chaos, journal }
    }

    fn address(&self, name: &str) -> IpAddr {
        self.lab.system().hosts.get(&host(name)).unwrap().address
    }

    /// Asks a host's kernel from a client in `waw`.
    fn answers(&self, name: &str, within: Duration) -> bool {
        let from = self.lab.client_namespace(&region("waw")).unwrap();
        ping(from, self.address(name), within).unwrap().is_some()
    }

    /// Asks one host's kernel from another host.
    fn asks(&self, from: &str, to: &str, within: Duration) -> bool {
        let from = self.lab.host_namespace(&host(from)).unwrap();
        // An error is a packet dropped on its way out.
        ping(from, self.address(to), within).is_ok_and(|answer| answer.is_some())
    }

    fn is_reached(&self, name: &str) -> bool {
        self.answers(name, SOON)
    }

    fn is_cut_off(&self, name: &str) -> bool {
        !self.answers(name, QUICK)
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        self.asks(from, to, SOON)
    }

    fn misses(&self, from: &str, to: &str) -> bool {
        !self.asks(from, to, QUICK)
    }

    /// Asks a host's process from a client in `fra`.
    fn echoes(&self, name: &str, timeout: Duration) -> bool {
        let from = self.lab.client_namespace(&region("fra")).unwrap();
        echoes(from, self.address(name), timeout)
    }

    fn isolate(&self, target: &Target, hold: Duration) -> Injected {
        let sites = self.lab.sites(target);
        let names: Vec<String> = sites.iter().map(|site| site.host.to_string()).collect();
        let sites = sites.into_iter().map(|site| Site {
            name: site.host.to_string(),
            network: site.namespace.duplicate().unwrap(),
            kept: site.kept,
        });
        let mut answers = |index: usize| self.answers(&names[index], QUICK * 2);
        self.chaos.isolate(target, sites.collect(), hold, &mut answers).unwrap()
    }
}

fn check_verified(injected: &Injected) {
    match injected.effect() {
        Effect::Verified { evidence } => println!("    {evidence}"),
        Effect::Unverified { reason } => panic!("{reason}"),
    }
}

fn isolate_host(bench: &Bench) {
    let target = Target::Host(host("fra-a1"));
    let hold = Duration::from_millis(1500);
    let fault = bench.isolate(&target, hold);
    check_verified(&fault);
    assert!(bench.is_cut_off("fra-a1"));
    assert!(bench.misses("fra-b1", "fra-a1"), "its neighbour");
    assert!(bench.misses("fra-a1", "fra-b1"), "its own questions");
    assert!(bench.reaches("fra-b1", "ams-a1"), "the others");
    eventually("the kernel ends it", || bench.answers("fra-a1", QUICK));
    let lasted = fault.applied().elapsed();
    println!("    planned {hold:?}, lasted {lasted:?}");
    assert!(lasted >= hold, "{lasted:?}");
    fault.undo().unwrap();

    let fault = bench.isolate(&target, LONG);
    fault.undo().unwrap();
    assert!(bench.is_reached("fra-a1") && bench.reaches("fra-a1", "fra-b1"));
    drop(bench.isolate(&target, LONG));
    assert!(bench.is_reached("fra-a1"), "dropping ends it");
}

fn isolate_region(bench: &Bench) {
    let fault = bench.isolate(&Target::Region(region("fra")), LONG);
    check_verified(&fault);
    assert!(bench.misses("ams-a1", "fra-b1") && bench.misses("fra-b1", "ams-a1"));
    assert!(bench.reaches("fra-a1", "fra-b1") && bench.reaches("fra-b1", "fra-a1"), "inside");
    assert!(!bench.echoes("fra-a1", QUICK), "its own clients stand outside");
    fault.undo().unwrap();
    assert!(bench.reaches("ams-a1", "fra-b1"));

    let zone = Target::Zone(region("fra"), ZoneName::parse("b").unwrap());
    let fault = bench.isolate(&zone, LONG);
    check_verified(&fault);
    assert!(bench.misses("fra-a1", "fra-b1"));
    assert!(bench.reaches("fra-a1", "ams-a1"));
    fault.undo().unwrap();
}

fn pause_host(bench: &Bench) {
    let target = Target::Host(host("ams-a1"));
    let hold = Duration::from_millis(1200);
    let pids = bench.lab.pids(&target);
    assert_eq!(pids.len(), 6);
    // Naming one process is enough: all of the host's pid namespace belong to it.
    let init = [*pids.iter().min().unwrap()];
    let fault = bench.chaos.pause(&target, &init, Reach::PidNamespaces, hold).unwrap();
    check_verified(&fault);
    assert!(pids.iter().all(|pid| state(*pid) == 't'));
    assert!(!bench.echoes("ams-a1", Duration::from_millis(400)));
    assert!(bench.is_reached("ams-a1"), "its kernel is not paused");
    assert!(bench.echoes("ams-b1", SOON));
    assert!(bench.echoes("ams-a1", LONG), "answered late");
    let lasted = fault.applied().elapsed();
    println!("    planned {hold:?}, lasted {lasted:?}");
    assert!(lasted >= hold, "{lasted:?}");
    assert!(pids.iter().all(|pid| state(*pid) != 't'));
    fault.undo().unwrap();

    let fault = bench.chaos.pause(&target, &pids, Reach::PidNamespaces, LONG).unwrap();
    assert!(!bench.echoes("ams-a1", QUICK));
    fault.undo().unwrap();
    assert!(bench.echoes("ams-a1", SOON), "ended early");
    assert_eq!(bench.lab.pids(&target).len(), 6, "nothing died of it");
}

fn pause_replica(bench: &Bench) {
    let name = host("ams-b1");
    let target = Target::Replica(InstanceId::parse("web-1").unwrap(), name.clone());
    eventually("it runs", || bench.lab.pids(&target).len() == 1);
    let pids = bench.lab.pids(&target);
    let fault = bench.chaos.pause(&target, &pids, Reach::Descendants, LONG).unwrap();
    check_verified(&fault);
    assert_eq!(state(pids[0]), 't');
    let node = bench.lab.pids(&Target::Node(name));
    assert_ne!(state(node[0]), 't');
    assert!(bench.echoes("ams-b1", SOON));
    let again = bench.chaos.pause(&target, &pids, Reach::Exactly, LONG);
    assert!(matches!(again, Err(InjectError::Refused { .. })), "it is held already");
    fault.undo().unwrap();
    assert_ne!(state(pids[0]), 't');
}

fn kill(bench: &Bench) {
    let name = host("waw-a1");
    let node = Target::Node(name.clone());
    let before = bench.lab.pids(&node);
    check_verified(&bench.chaos.kill(&node, &before).unwrap());
    eventually("it is started again", || {
        let now = bench.lab.pids(&node);
        !now.is_empty() && now != before
    });
    let whole = Target::Host(name.clone());
    let pids = bench.lab.pids(&whole);
    // Being paused protects nobody.
    let pause = bench.chaos.pause(&whole, &pids, Reach::PidNamespaces, LONG).unwrap();
    let fault = bench.chaos.kill(&whole, &pids).unwrap();
    check_verified(&fault);
    eventually("it is off", || bench.lab.status(&name) == HostStatus::Off);
    assert!(bench.lab.pids(&whole).is_empty());
    let nothing = bench.chaos.kill(&whole, &pids);
    assert!(matches!(nothing, Err(InjectError::NothingThere(_))), "{nothing:?}");
    fault.undo().unwrap();
    pause.undo().unwrap();
    bench.lab.power_on(&name).unwrap();
    support::wait_for_hosts(&bench.lab);
    let roles = || bench.lab.processes(&name).into_iter().map(|found| found.role);
    eventually("all is back", || roles().any(|role| role == ProcessRole::Gateway));
}

fn cut_link(bench: &Bench) {
    let (fra, ams) = (region("fra"), region("ams"));
    let target = Target::Link(fra.clone(), ams.clone());
    let wide_area = bench.lab.wide_area().unwrap();
    let before = wide_area.counters(&fra, &ams).unwrap().cut;
    let means = Means {
        apply: Box::new(|| {
            wide_area.cut(&fra, &ams, LONG).then_some(()).ok_or_else(|| "no such link".to_owned())
        }),
        evidence: Box::new(|| {
            let silent = bench.misses("fra-a1", "ams-a1") && bench.misses("ams-a1", "fra-a1");
            let cut = wide_area.counters(&fra, &ams)?.cut - before;
            (silent && cut > 0).then(|| format!("{cut} frames cut"))
        }),
        undo: Box::new({
            let (lab, fra, ams) = (Arc::clone(&bench.lab), fra.clone(), ams.clone());
            move || assert!(lab.wide_area().unwrap().mend(&fra, &ams))
        }),
    };
    let fault = bench.chaos.inject(FaultKind::Isolate, &target, LONG, means).unwrap();
    check_verified(&fault);
    assert!(bench.reaches("fra-a1", "waw-a1") && bench.reaches("waw-a1", "ams-a1"));
    fault.undo().unwrap();
    assert!(bench.reaches("fra-a1", "ams-a1"));
}

const INJECTOR_HOLD: Duration = Duration::from_secs(4);

/// Runs as a process of its own, so that it can be killed in the middle of a fault.
fn inject_and_wait(kind: &str, init: i32, address: IpAddr) -> ExitCode {
    let journal = std::env::var("JOURNAL").unwrap();
    let (chaos, _) = Chaos::open(Path::new(&journal)).unwrap();
    let target = Target::Host(host("fra-b1"));
    let hold = INJECTOR_HOLD;
    let fault = if kind == "pause" {
        chaos.pause(&target, &[init], Reach::PidNamespaces, hold).unwrap()
    } else {
        let open = || File::open(format!("/proc/{init}/ns/net")).unwrap().into();
        let site = Site { name: "fra-b1".to_owned(), network: open(), kept: vec![address] };
        chaos.isolate(&target, vec![site], hold, &mut |_| true).unwrap()
    };
    println!("applied");
    std::thread::sleep(LONG);
    drop(fault);
    ExitCode::SUCCESS
}

fn injector_dies(bench: &Bench) {
    let HostStatus::On { init } = bench.lab.status(&host("fra-b1")) else { panic!("it is on") };
    let journal = bench.journal.with_file_name("injector");
    let begin = |kind: &str| -> (Child, Instant) {
        let kept = bench.address("fra-a1").to_string();
        let begun = Instant::now();
        let mut child = Command::new("/proc/self/exe")
            .args(["injector", kind, &init.to_string(), &kept])
            .env("JOURNAL", &journal)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "applied\n");
        (child, begun)
    };
    let (mut injector, begun) = begin("pause");
    assert!(!bench.echoes("fra-b1", QUICK));
    injector.kill().unwrap();
    injector.wait().unwrap();
    eventually("the pause ends with its injector", || bench.echoes("fra-b1", SOON));
    println!(
        "    a pause of {INJECTOR_HOLD:?} ended with its injector after {:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() < INJECTOR_HOLD);

    let (mut injector, begun) = begin("isolate");
    injector.kill().unwrap();
    injector.wait().unwrap();
    assert!(bench.is_cut_off("fra-b1"), "it does not depend on its injector");
    assert!(bench.reaches("fra-a1", "fra-b1"), "a kept address");
    let (_, unfinished) = Chaos::open(&journal).unwrap();
    assert_eq!(unfinished.last().unwrap().target, "host fra-b1");
    eventually("the kernel ends it", || bench.answers("fra-b1", QUICK));
    println!("    an isolation of {INJECTOR_HOLD:?} ended without it after {:?}", begun.elapsed());
    let (_, unfinished) = Chaos::open(&journal).unwrap();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

fn not_verified(bench: &Bench) {
    let target = Target::Host(host("waw-a1"));
    let site = |bench: &Bench| Site {
        name: "waw-a1".to_owned(),
        network: bench.lab.host_namespace(&host("waw-a1")).unwrap().duplicate().unwrap(),
        kept: Vec::new(),
    };
    for answer in [true, false] {
        let fault = bench.chaos.isolate(&target, vec![site(bench)], LONG, &mut |_| answer).unwrap();
        let Effect::Unverified { reason } = fault.effect() else { panic!("nobody saw it") };
        println!("    {reason}");
        fault.undo().unwrap();
    }
    let too_long = bench.chaos.isolate(&target, vec![site(bench)], LONG * 11, &mut |_| true);
    assert!(matches!(too_long, Err(InjectError::TooLong { .. })));
    let nobody = bench.chaos.isolate(&target, Vec::new(), LONG, &mut |_| true);
    assert!(matches!(nobody, Err(InjectError::NothingThere(_))));
    let gone = bench.chaos.pause(&target, &[i32::MAX - 1], Reach::Exactly, LONG);
    assert!(matches!(gone, Err(InjectError::Refused { .. })), "{gone:?}");
    let (_, unfinished) = Chaos::open(&bench.journal).unwrap();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

fn state(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}
