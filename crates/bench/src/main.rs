//! Compares the coordinator with etcd, from outside: real processes, real sockets, a real disk.
#![expect(clippy::print_stdout, reason = "a command line program speaks on its standard output")]

mod client;
mod cluster;
mod failover;
mod grpc;
mod http;
mod http1;
mod http2;
mod load;
mod machine;
mod report;
mod rounds;
mod system;
mod usage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use machine::Machine;
use report::{Figures, Report};
use rounds::Course;
use system::Programs;

/// Measures Evenkeel's coordinator and etcd in turn, on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program `evenkeel`, as shipped
    #[arg(long)]
    evenkeel: PathBuf,
    /// The program `etcd`
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Folder for the report and, while it runs, for all data
    #[arg(long)]
    folder: PathBuf,
    /// Seconds of each load
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How often each system is measured; 0 leaves load and idling out
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How often each system's leader is killed; 0 leaves that out
    #[arg(long, default_value_t = 10)]
    failovers: u32,
    /// Also measure how puts get slower with keys and members
    #[arg(long)]
    growth: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // One thread: the members and their clients share the same few cores, and a generator that
    // runs on several costs both systems more than it gives.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
        // What runs is stopped when the comparison is dropped.
        tokio::select! {
            result = compare(arguments) => result,
            _ = interrupt.recv() => bail!("interrupted; everything was stopped"),
            _ = terminate.recv() => bail!("told to end; everything was stopped"),
        }
    })
}

async fn compare(arguments: &Arguments) -> Result<()> {
    let _lock = cluster::lock(&arguments.folder)?;
    let folder = arguments.folder.join("data");
    // An earlier run may have been killed.
    cluster::clear(&arguments.evenkeel, &folder)?;
    let machine = Machine::observe(&arguments.folder, &arguments.etcd, &arguments.evenkeel)?;
    println!("{}", machine.describe());
    let mut course = Course {
        programs: Programs { evenkeel: arguments.evenkeel.clone(), etcd: arguments.etcd.clone() },
        folder,
        time: Duration::from_secs(arguments.seconds),
        figures: Figures::default(),
        failed: BTreeMap::new(),
        used: Vec::new(),
    };
    let mut load_average = Vec::new();
    for round in 1..=arguments.rounds {
        let load = machine::load_average();
        println!("round {round} of {}, load average {load:.2}", arguments.rounds);
        load_average.push(load);
        course.round().await?;
    }
    let figures = std::mem::take(&mut course.figures).finish();
    if arguments.failovers > 0 {
        println!("fail-overs");
    }
    let failover_ms = course.failovers(arguments.failovers).await?;
    if arguments.growth {
        println!("growth");
        course.growth().await?;
    }
    let growth = course.figures.finish();
    let report = Report {
        machine,
        seconds: arguments.seconds,
        rounds: arguments.rounds,
        load_average,
        figures,
        failover_ms,
        growth,
        failed: course.failed,
        used: course.used,
    };
    show(&report);
    let path = arguments.folder.join("report.json");
    let text = serde_json::to_string_pretty(&report).context("write the report as JSON")?;
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

fn show(report: &Report) {
    println!(
        "\n{}\n\nThree members each, asked by HTTP/2 on at most 8 connections: etcd in gRPC, \
         Evenkeel in HTTP; median (minimum–maximum) of {} rounds.\n",
        report.machine.describe(),
        report.rounds
    );
    if !report.figures.is_empty() {
        println!("{}", report::table(&report.figures));
    }
    if !report.failover_ms.is_empty() {
        println!("{}", report::failover_table(&report.failover_ms));
    }
    if !report.growth.is_empty() {
        println!("{}", report::table(&report.growth));
    }
    for (system, failed) in &report.failed {
        println!("{system}: {failed} requests failed under load");
    }
}
