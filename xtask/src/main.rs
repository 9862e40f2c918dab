//! Developer commands: `cargo xtask check | fix | test | sim | bench | bless | ci`.
//!
//! Only runs other programs and reads files. What each command covers stands in its help text.
#![expect(clippy::print_stdout, reason = "a command line program speaks on its standard output")]

mod bench;
mod etcd;
mod footprint;
mod layers;
mod setup;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

const HELP: &str = "\
developer commands of Evenkeel

  cargo xtask check              read-only gate: format, clippy, tidy, docs
  cargo xtask fix                format and apply clippy's suggestions
  cargo xtask test [FILTER]      install what the tests need, then run every test and a short drill
  cargo xtask sim [ARGS]         the simulator: --seed N --count N --hosts N --world NAME --defect NAME,
                                 or --defects, which looks for every bug that it must find
  cargo xtask bench NAME         measurements: `demo` (ten runs, medians and maxima), `footprint`,
                                 `etcd` (in turn with ours; --seconds N --rounds N --failovers N
                                 --growth), `planner` (--rounds N) and `scale` (1,000 hosts)
  cargo xtask stability [SECONDS]  600 s without any coordinator: what must go on, and come back
  cargo xtask bless              accept the present output as golden text
  cargo xtask ci                 check, then test";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["check"] => check(),
        ["fix"] => fix(),
        ["test", filter @ ..] => test(filter),
        ["sim", rest @ ..] => simulate(rest),
        ["bench", name, rest @ ..] => bench::run(name, rest),
        ["stability"] => stability("600"),
        ["stability", seconds] => stability(seconds),
        ["bless"] => bless(),
        ["ci"] => check().and_then(|()| test(&[])),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => {
            println!("unknown command `{}`\n\n{HELP}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Runs `cargo` with `arguments` in the root folder, its output passed on.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    run(Command::new("cargo").args(arguments))
}

/// Runs `command` in the root folder and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    println!("xtask: {shown}");
    let started = Instant::now();
    let status =
        command.current_dir(root()).status().with_context(|| format!("start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    println!("xtask: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn check() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    tidy::run()?;
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    let mut doc = Command::new("cargo");
    doc.args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

fn fix() -> Result<()> {
    cargo(&["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"])?;
    cargo(&["fmt", "--all"])
}

fn test(filter: &[&str]) -> Result<()> {
    setup::install()?;
    if !filter.is_empty() {
        let mut arguments = vec!["test", "--workspace", "--"];
        arguments.extend(filter);
        return cargo(&arguments);
    }
    // Once more as it is shipped: the system tests start this binary as every process of a system.
    cargo(&["build", "--release", "--package", "evenkeel", "--package", "profiles"])?;
    cargo(&["test", "--workspace"])?;
    simulate(&["--count", "1000"])?;
    simulate(&["--defects"])?;
    let report = root().join("target/demo-report");
    run(Command::new(root().join("target/release/evenkeel"))
        .args(["demo", "--once", "--quick", "--report"])
        .arg(report))
}

fn simulate(arguments: &[&str]) -> Result<()> {
    let mut all = vec!["run", "--quiet", "--profile", "sim", "--package", "evenkeel-sim", "--"];
    all.extend(arguments);
    cargo(&all)
}

fn stability(seconds: &str) -> Result<()> {
    setup::install()?;
    let test = ["test", "--package", "evenkeel", "--test", "system", "--", "stability"];
    run(Command::new("cargo").args(test).env("STABILITY_SECONDS", seconds))
}

fn bless() -> Result<()> {
    run(Command::new("cargo").args(["test", "--workspace"]).env("UPDATE_EXPECT", "1"))
}
