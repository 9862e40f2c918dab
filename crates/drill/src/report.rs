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

/// One experiment that was made.
#[derive(Debug, Clone)]
pub struct Row {
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

/// All experiments of a drill.
#[derive(Debug, Clone)]
pub struct Report {
    /// The promise.
    pub survive: SurvivalGoal,
    /// The experiments, in the order in which they were made.
    pub rows: Vec<Row>,
    /// How many more were planned but could not be made here, or not without an expected outage.
    pub not_made: usize,
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
}

impl Report {
    /// Returns the worst verdict; a drill without experiments proves nothing.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        worst(self.rows.iter().map(|row| row.judgement.verdict))
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

fn row_json(row: &Row) -> RowJson {
    let Measured { counts, .. } = row.measured;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    RowJson {
        id: row.experiment.id(),
        fault: row.experiment.fault.to_string(),
        target: row.target.to_string(),
        predicted: word(row.predicted),
        observed: word(row.measured.survived()),
        operations: counts.operations,
        failed: counts.failed,
        unknown: counts.unknown,
        lost_writes: row.measured.lost_writes,
        max_gap_ms: millis(row.measured.gap),
        detect_ms: row.measured.detect.map(millis),
        recover_ms: row.measured.recover.map(millis),
        full_redundancy_ms: row.measured.full_redundancy.map(millis),
        verdict: row.judgement.verdict.to_string(),
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
            unseen: Vec::new(),
            gap,
            gap_before: Duration::from_millis(90),
            detect: Some(Duration::from_millis(1012)),
            recover: Some(Duration::from_millis(1204)),
            held: Duration::from_secs(4),
            full_redundancy: Some(Duration::from_millis(2950)),
            lateness: Duration::from_millis(2),
        };
        Row {
            experiment: Experiment { fault: FaultKind::Kill, selector },
            target: Target::Host(HostName::parse("fra-1").unwrap()),
            predicted: true,
            because: "3 of 4 replicas of web remain".to_owned(),
            judgement: crate::verdict::judge(&measured, &budget),
            measured,
            budget,
        }
    }

    #[test]
    fn the_report_has_exactly_the_promised_fields() {
        let rows = vec![row(Duration::from_millis(1180))];
        let report = Report { survive: SurvivalGoal::Region, rows, not_made: 0 };
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        let expected = serde_json::json!({
            "survive": "region",
            "verdict": "pass",
            "experiments": [{
                "id": "kill-host", "fault": "kill", "target": "host fra-1",
                "predicted": "survives", "observed": "survives",
                "operations": 1900, "failed": 3, "unknown": 4, "lost_writes": 0,
                "max_gap_ms": 1180, "detect_ms": 1012, "recover_ms": 1204,
                "full_redundancy_ms": 2950, "verdict": "pass",
            }],
        });
        assert_eq!(json, expected);
    }
}
