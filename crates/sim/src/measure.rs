//! Measures how fast the control plane of a large system is, in real time.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use evenkeel_control::controller::{Controller, Event, Settings};
use evenkeel_control::declaration::Wanted;
use evenkeel_control::plan::Plan;
use evenkeel_control::planner::{HostView, Inventory, next_plan};
use evenkeel_control::report::HostReport;
use evenkeel_model::instance::Instance;
use evenkeel_model::name::HostName;
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use evenkeel_sim::scale;

/// The system that is measured.
const HOSTS: usize = 1000;
const REPLICAS: usize = 10_000;

/// Measures the planner over several rounds.
pub(crate) fn planner(rounds: usize) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for (hosts, replicas) in [(30, 100), (100, 1000), (HOSTS, REPLICAS)] {
        let system = scale::system(hosts, replicas).map_err(io::Error::other)?;
        writeln!(
            out,
            "{hosts} hosts, {replicas} replicas, median and maximum of {rounds} rounds:"
        )?;
        for (what, times) in measure(&system, rounds) {
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let longest = times.last().copied().unwrap_or_default();
            writeln!(out, "  {what:44} {:>9} {:>9}", show(median), show(longest))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Everything that is measured of one system.
fn measure(system: &System, rounds: usize) -> Vec<(&'static str, Vec<Duration>)> {
    let wanted = &Wanted::new(1, "large", system.clone());
    let all = |_: &HostName| true;
    let empty = Plan::empty();
    let nothing = BTreeMap::new();
    let first = next_plan(wanted, &empty, &inventory(system, &nothing, all), 1);
    let first = first.unwrap_or_else(Plan::empty);
    let reports = reports(system, &first);
    let here = |host: &HostName| !host.as_str().starts_with("waw");
    let other = |host: &HostName| host.as_str() != "ams-0";
    let plan = |current: &Plan, inventory: &Inventory<'_>| {
        drop(std::hint::black_box(next_plan(wanted, current, inventory, 2)));
    };
    vec![
        ("a first plan for all", time(rounds, || plan(&empty, &inventory(system, &nothing, all)))),
        ("a plan when nothing is to be done", {
            time(rounds, || plan(&first, &inventory(system, &reports, all)))
        }),
        ("a plan after the loss of a host", {
            time(rounds, || plan(&first, &inventory(system, &reports, other)))
        }),
        ("a plan after the loss of a region", {
            time(rounds, || plan(&first, &inventory(system, &reports, here)))
        }),
        ("a report that says nothing new, and its answer", answers(wanted, &first, rounds)),
    ]
}

/// Returns how long each round took, the shortest first.
fn time(rounds: usize, mut work: impl FnMut()) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..rounds.max(1))
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

/// Returns the report of every host on which every replica is ready.
fn reports(system: &System, plan: &Plan) -> BTreeMap<HostName, HostReport> {
    let mut by_host: BTreeMap<&HostName, Vec<&Instance>> = BTreeMap::new();
    for instance in &plan.instances {
        by_host.entry(&instance.host).or_default().push(instance);
    }
    let reachable: BTreeMap<HostName, Option<Duration>> =
        system.hosts.keys().map(|host| (host.clone(), Some(Duration::from_millis(10)))).collect();
    system
        .hosts
        .keys()
        .map(|host| {
            let instances = by_host.get(host).map_or(&[][..], Vec::as_slice);
            let all_well = HostReport::all_well(host, plan.number, instances.iter().copied());
            let reachable = reachable.clone();
            (host.clone(), HostReport { sequence: 1, reachable, ..all_well })
        })
        .collect()
}

fn inventory<'a>(
    system: &System,
    reports: &'a BTreeMap<HostName, HostReport>,
    up: impl Fn(&HostName) -> bool,
) -> Inventory<'a> {
    let view =
        |host: &HostName| HostView { up: up(host), settled: true, report: reports.get(host) };
    Inventory {
        hosts: system.hosts.keys().map(|host| (host.clone(), view(host))).collect(),
        drained: std::collections::BTreeSet::new(),
        ready_for: BTreeMap::new(),
        moves_max: 2,
    }
}

/// Measures what a leader at rest does for each report.
fn answers(wanted: &Wanted, plan: &Plan, rounds: usize) -> Vec<Duration> {
    let now = Timestamp::ZERO;
    let stored = Some(plan.clone());
    let mut controller = Controller::new(wanted.clone(), Settings::STANDARD, 1, stored, now);
    let reports = reports(wanted.system(), plan);
    for report in reports.values() {
        controller.handle_event(Event::Heartbeat(report.clone()), now);
    }
    let Some(report) = reports.into_values().next() else { return Vec::new() };
    let mut sequence = 1;
    time(rounds.max(1), || {
        sequence += 1;
        let report = HostReport { sequence, ..report.clone() };
        controller.handle_event(Event::Heartbeat(report), now);
        drop(std::hint::black_box(controller.answer_for(plan.number, now)));
    })
}

/// Runs a large system through the loss of a region.
pub(crate) fn scale() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for (hosts, replicas) in [(30, 100), (300, 3000), (HOSTS, REPLICAS)] {
        let begun = Instant::now();
        let figures = scale::run(hosts, replicas).map_err(io::Error::other)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            out,
            "{hosts} hosts, {replicas} replicas ({:.1} s of real time):\n  \
             at rest each second: {} reports ({:.2} MiB), answers {:.2} MiB, {} probes ({:.2} MiB)\n  \
             first whole after {} ms; {} plans\n  \
             a region with {} replicas is lost: detected after {} ms, replaced by a plan after \
             {} ms, whole after {} ms",
            begun.elapsed().as_secs_f64(),
            figures.reports,
            mib(figures.report_bytes),
            mib(figures.answer_bytes),
            figures.probes,
            mib(figures.probe_bytes),
            figures.first_whole.as_millis(),
            figures.plans,
            figures.lost,
            figures.detected.as_millis(),
            figures.planned.as_millis(),
            figures.whole.as_millis(),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
