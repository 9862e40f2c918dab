//! `report.json`: the verdicts for machines.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use evenkeel_model::fault::Target;
use evenkeel_model::place::SurvivalGoal;
use serde::Serialize;

use crate::budgets::Budget;
use crate::plan::Experiment;
use crate::verdict::{Judgement, Measured, Verdict, worst};

/// Files that a drill writes into the report's folder.
pub const FILES: [&str; 3] = ["report.json", "history.jsonl", "history-first-act.jsonl"];

/// One experiment that had to be made.
#[derive(Debug, Clone)]
pub enum Row {
    /// It was.
    Made(Box<Made>),
    /// It was not.
    NotMade(NotMade),
}

/// One experiment that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// What was planned.
    pub experiment: Experiment,
    /// What it struck.
    pub target: Target,
    /// Whether the audit expects the system to survive it.
    pub predicted: bool,
    /// Why.
    pub because: String,
    /// What was seen.
    pub measured: Measured,
    /// The limits.
    pub budget: Budget,
    /// The verdict.
    pub judgement: Judgement,
}

/// One experiment that could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMade {
    /// What was planned.
    pub experiment: Experiment,
    /// [`Verdict::Invalid`], or [`Verdict::Fail`] where the system itself is the reason.
    pub verdict: Verdict,
    /// Why it was not made.
    pub reason: String,
}

impl Row {
    /// Returns what was planned.
    #[must_use]
    pub const fn experiment(&self) -> &Experiment {
        match self {
            Self::Made(made) => &made.experiment,
            Self::NotMade(not_made) => &not_made.experiment,
        }
    }

    /// Returns the verdict.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Made(made) => made.judgement.verdict,
            Self::NotMade(not_made) => not_made.verdict,
        }
    }

    /// Returns why the verdict is not [`Verdict::Pass`], the worst first.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Made(made) => &made.judgement.reasons,
            Self::NotMade(not_made) => std::slice::from_ref(&not_made.reason),
        }
    }

    /// Returns what the audit expected.
    #[must_use]
    pub const fn predicted(&self) -> &'static str {
        match self {
            Self::Made(made) => word(made.predicted),
            Self::NotMade(_) => UNKNOWN,
        }
    }

    /// Returns what was observed.
    #[must_use]
    pub fn observed(&self) -> &'static str {
        match self {
            Self::Made(made) => word(made.measured.survived()),
            Self::NotMade(_) => "not made",
        }
    }
}

/// Stands where nothing is known.
const UNKNOWN: &str = "unknown";

/// All experiments of a drill.
#[derive(Debug, Clone)]
pub struct Report {
    /// The promise.
    pub survive: SurvivalGoal,
    /// The experiments that had to be made, in their order.
    pub rows: Vec<Row>,
    /// How many more were left out: the system has no such part, or an outage beyond its promise is
    /// expected.
    pub left_out: usize,
    /// The path that clients read, where nothing could be written: see
    /// [`Traffic::Page`](crate::load::Traffic::Page).
    pub only_read: Option<String>,
}

/// Returns the word for a prediction or an observation.
#[must_use]
pub const fn word(survives: bool) -> &'static str {
    if survives { "survives" } else { "fails" }
}

#[derive(Serialize)]
struct ReportJson {
    survive: &'static str,
    verdict: String,
    experiments: Vec<RowJson>,
}

#[derive(Serialize)]
struct RowJson {
    id: String,
    fault: String,
    target: String,
    predicted: &'static str,
    observed: &'static str,
    operations: u64,
    failed: u64,
    unknown: u64,
    lost_writes: u64,
    max_gap_ms: u64,
    detect_ms: Option<u64>,
    recover_ms: Option<u64>,
    full_redundancy_ms: Option<u64>,
    verdict: String,
    reasons: Vec<String>,
}

impl Report {
    /// Returns the worst verdict; a drill without experiments proves nothing.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        worst(self.rows.iter().map(Row::verdict))
    }

    /// Returns the experiments that were made.
    pub fn made(&self) -> impl Iterator<Item = &Made> {
        self.rows.iter().filter_map(|row| match row {
            Row::Made(made) => Some(&**made),
            Row::NotMade(_) => None,
        })
    }

    /// Returns the report as JSON.
    ///
    /// # Errors
    /// Never in practice: every field can be written.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let report = ReportJson {
            survive: self.survive.as_str(),
            verdict: self.verdict().to_string(),
            experiments: self.rows.iter().map(row_json).collect(),
        };
        serde_json::to_string_pretty(&report)
    }

    /// Writes `report.json` into `folder`.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut text = self.to_json()?;
        text.push('\n');
        fs::write(folder.join("report.json"), text)
    }
}

/// Removes what an earlier run has left in `folder`, so that nobody takes it for this run's.
///
/// # Errors
/// A file is there and cannot be removed.
pub fn remove_earlier(folder: &Path) -> io::Result<()> {
    for file in FILES {
        match fs::remove_file(folder.join(file)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn row_json(row: &Row) -> RowJson {
    let experiment = row.experiment();
    let nothing = RowJson {
        id: experiment.id(),
        fault: experiment.fault.to_string(),
        target: experiment.selector.to_string(),
        predicted: row.predicted(),
        observed: row.observed(),
        operations: 0,
        failed: 0,
        unknown: 0,
        lost_writes: 0,
        max_gap_ms: 0,
        detect_ms: None,
        recover_ms: None,
        full_redundancy_ms: None,
        verdict: row.verdict().to_string(),
        reasons: row.reasons().to_vec(),
    };
    let Row::Made(made) = row else { return nothing };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (measured, counts) = (&made.measured, made.measured.counts);
    RowJson {
        target: made.target.to_string(),
        operations: counts.operations,
        failed: counts.failed,
        unknown: counts.unknown,
        lost_writes: measured.lost_writes,
        max_gap_ms: millis(measured.gap),
        detect_ms: measured.detect.map(millis),
        recover_ms: measured.recover.map(millis),
        full_redundancy_ms: measured.full_redundancy.map(millis),
        ..nothing
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::budgets::Overrides;
    use crate::targets::{Role, Selector};
    use evenkeel_checker::measure::Counts;
    use evenkeel_model::fault::FaultKind;
    use evenkeel_model::name::HostName;

    /// A row with `gap` as the longest gap.
    pub(crate) fn row(gap: Duration) -> Row {
        let selector = Selector { role: Role::Host, place: None };
        let budget = Budget::of(Role::Host, Overrides::default());
        let measured = Measured {
            invalid: None,
            counts: Counts { operations: 1900, ok: 1893, failed: 3, unknown: 4 },
            lost_writes: 0,
            violations: Vec::new(),
            unproven: Vec::new(),
            gap,
            gap_before: Duration::from_millis(90),
            failed_before: 0,
            detect: Some(Duration::from_millis(1012)),
            recover: Some(Duration::from_millis(1204)),
            held: Duration::from_secs(4),
            full_redundancy: Some(Duration::from_millis(2950)),
            lateness: Duration::from_millis(2),
            lateness_before: Duration::from_millis(2),
            foreign_percent: 0,
        };
        Row::Made(Box::new(Made {
            experiment: Experiment { fault: FaultKind::Kill, selector },
            target: Target::Host(HostName::parse("fra-1").unwrap()),
            predicted: true,
            because: "3 of 4 replicas of web remain".to_owned(),
            judgement: crate::verdict::judge(&measured, &budget),
            measured,
            budget,
        }))
    }

    /// A row of an experiment on `role` that was not made.
    pub(crate) fn not_made(fault: FaultKind, role: Role) -> Row {
        let selector = Selector { role, place: None };
        Row::NotMade(NotMade {
            experiment: Experiment { fault, selector },
            verdict: Verdict::Invalid,
            reason: "not injectable here: the program `nft` is not installed".to_owned(),
        })
    }

    pub(crate) fn report(rows: Vec<Row>) -> Report {
        Report { survive: SurvivalGoal::Region, rows, left_out: 0, only_read: None }
    }

    #[test]
    fn the_report_has_exactly_the_promised_fields() {
        let report = report(vec![row(Duration::from_millis(1180))]);
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        let expected = serde_json::json!({
            "survive": "region",
            "verdict": "pass",
            "experiments": [{
                "id": "kill-host", "fault": "kill", "target": "host fra-1",
                "predicted": "survives", "observed": "survives",
                "operations": 1900, "failed": 3, "unknown": 4, "lost_writes": 0,
                "max_gap_ms": 1180, "detect_ms": 1012, "recover_ms": 1204,
                "full_redundancy_ms": 2950, "verdict": "pass", "reasons": [],
            }],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn what_was_not_made_is_in_the_report_and_spoils_it() {
        let skipped = not_made(FaultKind::Isolate, Role::Zone);
        let report = report(vec![row(Duration::from_millis(1180)), skipped]);
        assert_eq!(report.verdict(), Verdict::Invalid);
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        let expected = serde_json::json!({
            "id": "isolate-zone", "fault": "isolate", "target": "zone",
            "predicted": "unknown", "observed": "not made",
            "operations": 0, "failed": 0, "unknown": 0, "lost_writes": 0,
            "max_gap_ms": 0, "detect_ms": null, "recover_ms": null,
            "full_redundancy_ms": null, "verdict": "invalid",
            "reasons": ["not injectable here: the program `nft` is not installed"],
        });
        assert_eq!(json["experiments"][1], expected);
        assert_eq!(json["verdict"], "invalid");
    }

    #[test]
    fn an_earlier_report_is_removed() {
        let folder = std::env::temp_dir().join(format!("evenkeel-report-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for file in ["report.json", "history.jsonl", "notes.txt"] {
            fs::write(folder.join(file), "old").unwrap();
        }
        remove_earlier(&folder).unwrap();
        remove_earlier(&folder).unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["notes.txt"]);
    }
}
