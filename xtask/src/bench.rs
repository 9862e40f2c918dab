//! Measurements by command: figures with their medians and maxima, never asserted in a timed test.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Runs the measurement called `name`.
///
/// # Errors
/// When there is none of that name, or a run of it fails.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Result<()> {
    match name {
        "demo" => demo(arguments.first().map_or(Ok(10), |runs| runs.parse())?),
        "footprint" => crate::footprint::run(),
        _ => bail!("no measurement `{name}`; there are `demo [RUNS]` and `footprint`"),
    }
}

/// Runs the demo `runs` times and prints the worst and the median of every experiment's figures.
fn demo(runs: u32) -> Result<()> {
    crate::cargo(&["build", "--release", "--package", "evenkeel", "--package", "profiles"])?;
    let folder = crate::root().join("target/bench-demo");
    let mut rows: Vec<(String, Vec<Value>)> = Vec::new();
    for run in 1..=runs {
        let report = folder.join(run.to_string());
        let status = Command::new(crate::root().join("target/release/evenkeel"))
            .args(["demo", "--once", "--seed", &run.to_string(), "--report"])
            .arg(&report)
            .current_dir(crate::root())
            .status()
            .context("start the demo")?;
        println!("xtask: run {run} of {runs}: {status}");
        let text = fs::read_to_string(report.join("report.json")).context("read report.json")?;
        let parsed: Value = serde_json::from_str(&text).context("parse report.json")?;
        for experiment in parsed.get("experiments").and_then(Value::as_array).into_iter().flatten()
        {
            let fault = experiment.get("fault").and_then(Value::as_str).unwrap_or_default();
            let id = experiment.get("id").and_then(Value::as_str).unwrap_or(fault).to_owned();
            match rows.iter_mut().find(|(known, _)| *known == id) {
                Some((_, values)) => values.push(experiment.clone()),
                None => rows.push((id, vec![experiment.clone()])),
            }
        }
    }
    println!("\nmedian / maximum over {runs} runs");
    for (id, experiments) in &rows {
        let figure = |key: &str| {
            let mut values: Vec<f64> =
                experiments.iter().filter_map(|row| row.get(key).and_then(Value::as_f64)).collect();
            values.sort_by(f64::total_cmp);
            let median = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
            format!("{median:.0}/{:.0}", values.last().copied().unwrap_or(f64::NAN))
        };
        let passed =
            experiments.iter().filter(|row| row.get("verdict") == Some(&"pass".into())).count();
        println!(
            "{id:28} pass {passed}/{} · failed {} · lost {} · gap ms {} · detect ms {} · recover ms {} · redundancy ms {}",
            experiments.len(),
            figure("failed"),
            figure("lost_writes"),
            figure("max_gap_ms"),
            figure("detect_ms"),
            figure("recover_ms"),
            figure("full_redundancy_ms"),
        );
    }
    Ok(())
}
