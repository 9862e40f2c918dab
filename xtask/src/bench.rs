//! Measurements by command: figures with their medians and maxima, never asserted in a timed test.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
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
        "etcd" => crate::etcd::run(arguments),
        "planner" | "scale" => control_plane(name, arguments),
        _ => bail!(
            "no measurement `{name}`; there are `demo [RUNS]`, `footprint`, `etcd`, `planner` and \
             `scale`"
        ),
    }
}

/// Measures the control plane of a large system, as it is shipped.
fn control_plane(name: &str, arguments: &[&str]) -> Result<()> {
    let mut all = vec!["run", "--quiet", "--release", "--package", "evenkeel-sim", "--"];
    all.extend(["--measure", name]);
    all.extend(arguments);
    crate::cargo(&all)
}

/// Runs the demo `runs` times and prints the worst and the median of every experiment's figures.
fn demo(runs: u32) -> Result<()> {
    crate::cargo(&["build", "--release", "--package", "evenkeel", "--package", "profiles"])?;
    let mut found = Found::default();
    for run in 1..=runs {
        let folder = crate::root().join("target/bench-demo").join(run.to_string());
        remove(&folder)?;
        let status = Command::new(crate::root().join("target/release/evenkeel"))
            .args(["demo", "--once", "--seed", &run.to_string(), "--report"])
            .arg(&folder)
            .current_dir(crate::root())
            .status()
            .context("start the demo")?;
        println!("xtask: run {run} of {runs}: {status}");
        // 3 means that it was carried out and a promise was broken; all else, that it was not.
        if !matches!(status.code(), Some(0 | 3)) {
            found.broken_off += 1;
            continue;
        }
        found.kept += u32::from(status.success());
        let text = fs::read_to_string(folder.join("report.json")).context("read report.json")?;
        found.add(&serde_json::from_str(&text).context("parse report.json")?);
    }
    found.print(runs);
    Ok(())
}

/// Removes an earlier run's report.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// What the runs reported.
#[derive(Default)]
struct Found {
    /// Runs that ended with exit code 0.
    kept: u32,
    /// Runs that were not carried out: their reports do not count.
    broken_off: u32,
    /// Every experiment that was made, by its id.
    made: Vec<(String, Vec<Value>)>,
    /// How often each experiment was not made.
    not_made: BTreeMap<String, u32>,
}

impl Found {
    fn add(&mut self, report: &Value) {
        let experiments = report.get("experiments").and_then(Value::as_array);
        for experiment in experiments.into_iter().flatten() {
            let id = experiment.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            if number(experiment, "operations") == 0 {
                *self.not_made.entry(id).or_default() += 1;
                continue;
            }
            match self.made.iter_mut().find(|(known, _)| *known == id) {
                Some((_, values)) => values.push(experiment.clone()),
                None => self.made.push((id, vec![experiment.clone()])),
            }
        }
    }

    fn print(&self, runs: u32) {
        let reported = runs - self.broken_off;
        println!("\nmedian / maximum over {reported} runs");
        for (id, experiments) in &self.made {
            let passed =
                experiments.iter().filter(|row| row.get("verdict") == Some(&"pass".into())).count();
            println!(
                "{id:28} pass {passed}/{} · failed {} · unknown {} · lost {} · gap ms {} · detect ms {} · recover ms {} · redundancy ms {}",
                experiments.len(),
                figure(experiments, "failed"),
                figure(experiments, "unknown"),
                figure(experiments, "lost_writes"),
                figure(experiments, "max_gap_ms"),
                figure(experiments, "detect_ms"),
                figure(experiments, "recover_ms"),
                figure(experiments, "full_redundancy_ms"),
            );
        }
        for (id, count) in &self.not_made {
            println!("{id:28} NOT MADE in {count} runs");
        }
        let sum = |key| -> u64 {
            let all = self.made.iter().flat_map(|(_, experiments)| experiments);
            all.map(|experiment| number(experiment, key)).sum()
        };
        println!(
            "{} of {runs} runs ended with exit code 0, {} were broken off; {} operations in total, \
             {} acknowledged writes lost",
            self.kept,
            self.broken_off,
            sum("operations"),
            sum("lost_writes"),
        );
    }
}

fn number(experiment: &Value, key: &str) -> u64 {
    experiment.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// Returns a figure's median and maximum.
fn figure(experiments: &[Value], key: &str) -> String {
    let mut values: Vec<f64> =
        experiments.iter().filter_map(|row| row.get(key).and_then(Value::as_f64)).collect();
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    format!("{median:.0}/{:.0}", values.last().copied().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_was_made_is_counted() {
        let mut found = Found::default();
        let experiment = |operations: u64, gap: u64| json!({"id": "kill-host", "operations": operations, "max_gap_ms": gap});
        found.add(&json!({"experiments": [experiment(900, 40), experiment(0, 0)]}));
        found.add(&json!({"experiments": [experiment(800, 60), experiment(800, 50)]}));
        assert_eq!(found.not_made["kill-host"], 1);
        assert_eq!(figure(&found.made[0].1, "max_gap_ms"), "50/60");
    }

    #[test]
    fn an_earlier_report_does_not_count() {
        let folder = std::env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("report.json"), "{}").unwrap();
        remove(&folder).unwrap();
        remove(&folder).unwrap();
        assert!(!folder.exists());
    }
}
