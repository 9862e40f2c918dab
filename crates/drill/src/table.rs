//! The drill's result for people: one line an experiment, budgets beside what was seen.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::{Report, Row, word};
use crate::targets::{Role, place_of};
use crate::verdict::Verdict;

/// Whether the reader's terminal shows colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// It does.
    Ansi,
    /// It does not, or is a file.
    None,
}

const HEAD: [&str; 11] = [
    "fault",
    "target",
    "predicted",
    "observed",
    "failed",
    "lost",
    "longest gap",
    "detected",
    "recovered",
    "full redundancy",
    "verdict",
];

/// Writes the table and the reasons of every verdict that is not `pass`.
#[must_use]
pub fn render(report: &Report, colours: Colours) -> String {
    let lines: Vec<[String; 11]> = report.rows.iter().map(cells).collect();
    let mut widths = HEAD.map(|head| head.chars().count());
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    push_line(&mut text, &HEAD.map(str::to_owned), &widths, "");
    let rule = widths.map(|width| "─".repeat(width));
    push_line(&mut text, &rule, &widths, "");
    for (row, line) in report.rows.iter().zip(&lines) {
        push_line(&mut text, line, &widths, paint(row.judgement.verdict, colours));
    }
    text.push('\n');
    for row in &report.rows {
        for reason in row.judgement.reasons.iter().take(3) {
            line(&mut text, format_args!("{}: {reason}", row.experiment.id()));
        }
    }
    text
}

/// Writes for each row the command that repeats it: `command` with `--only` and `--seed`.
#[must_use]
pub fn commands(report: &Report, command: &str, seed: u64) -> String {
    let mut text = String::from("Repeat one with:\n");
    for row in &report.rows {
        let place = place_of(&row.target);
        let (fault, role) = (row.experiment.fault, row.experiment.selector.role);
        line(&mut text, format_args!("  {command} --only {fault}@{role}:{place} --seed {seed}"));
    }
    text
}

/// Sums up a drill in one sentence.
#[must_use]
pub fn sentence(report: &Report) -> String {
    let operations: u64 = report.rows.iter().map(|row| row.measured.counts.operations).sum();
    let lost: u64 = report.rows.iter().map(|row| row.measured.lost_writes).sum();
    let survived = report.rows.iter().filter(|row| row.measured.survived()).count();
    let gap = report.rows.iter().map(|row| row.measured.gap).max().unwrap_or_default();
    let judged = match report.verdict() {
        Verdict::Pass => "the promise was kept",
        Verdict::Inconclusive => "nothing was broken, but not everything could be judged",
        Verdict::Invalid => "some experiments prove nothing",
        Verdict::Fail => "the promise was broken",
    };
    let not_made = match report.not_made {
        0 => String::new(),
        count => format!(" ({count} more were not made, see above)"),
    };
    format!(
        "survive = \"{}\": {judged}. {survived} of {} faults survived{not_made}, {lost} acknowledged \
         writes lost in {operations} operations, longest gap of any client {}.",
        report.survive,
        report.rows.len(),
        time(gap)
    )
}

/// Writes a time as people read it: `840 ms`, `1.24 s`.
#[must_use]
pub fn time(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        format!("{millis} ms")
    } else {
        format!("{}.{:02} s", millis / 1000, millis % 1000 / 10)
    }
}

fn cells(row: &Row) -> [String; 11] {
    let (measured, budget) = (&row.measured, &row.budget);
    let maybe = |value: Option<Duration>| value.map_or_else(|| "–".to_owned(), time);
    let errors = measured.counts.failed + measured.counts.unknown;
    let failed = match budget.failed_max {
        Some(limit) => format!("{errors} (≤ {limit})"),
        None => errors.to_string(),
    };
    [
        row.experiment.fault.to_string(),
        target(row),
        word(row.predicted).to_owned(),
        word(measured.survived()).to_owned(),
        failed,
        format!("{} (≤ 0)", measured.lost_writes),
        format!("{} (≤ {})", time(measured.gap), time(budget.gap_max)),
        maybe(measured.detect),
        format!("{} (≤ {})", maybe(measured.recover), time(budget.recover_max)),
        format!("{} (≤ {})", maybe(measured.full_redundancy), time(budget.full_redundancy_max)),
        row.judgement.verdict.to_string(),
    ]
}

/// Names the target, with what it was at that time where its name does not say it.
fn target(row: &Row) -> String {
    match row.experiment.selector.role {
        role @ (Role::Leader | Role::Follower) => format!("{} ({role})", row.target),
        Role::Replica
        | Role::Gateway
        | Role::Node
        | Role::Shim
        | Role::Host
        | Role::Zone
        | Role::Region
        | Role::Link => row.target.to_string(),
    }
}

/// Returns the colour of a row.
const fn paint(verdict: Verdict, colours: Colours) -> &'static str {
    match (colours, verdict) {
        (Colours::None, _) => "",
        (Colours::Ansi, Verdict::Pass) => "\x1b[32m",
        (Colours::Ansi, Verdict::Inconclusive) => "\x1b[33m",
        (Colours::Ansi, Verdict::Invalid | Verdict::Fail) => "\x1b[31m",
    }
}

fn push_line(text: &mut String, cells: &[String; 11], widths: &[usize; 11], colour: &str) {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    let joined = padded.collect::<Vec<_>>().join("  ");
    let reset = if colour.is_empty() { "" } else { "\x1b[0m" };
    line(text, format_args!("{colour}{}{reset}", joined.trim_end()));
}

/// Adds a line; writing to a string cannot fail.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::row;
    use evenkeel_model::place::SurvivalGoal;

    #[test]
    fn a_table_shows_budgets_reasons_and_commands() {
        let rows = vec![row(Duration::from_millis(1180)), row(Duration::from_millis(2345))];
        let report = Report { survive: SurvivalGoal::Region, rows, not_made: 3 };
        let text = render(&report, Colours::None);
        let expected = "\
fault  target      predicted  observed  failed  lost     longest gap        detected  recovered          full redundancy     verdict
─────  ──────────  ─────────  ────────  ──────  ───────  ─────────────────  ────────  ─────────────────  ──────────────────  ───────
kill   host fra-1  survives   survives  7       0 (≤ 0)  1.18 s (≤ 2.00 s)  1.01 s    1.20 s (≤ 3.00 s)  2.95 s (≤ 20.00 s)  pass
kill   host fra-1  survives   survives  7       0 (≤ 0)  2.34 s (≤ 2.00 s)  1.01 s    1.20 s (≤ 3.00 s)  2.95 s (≤ 20.00 s)  fail

kill-host: longest gap 2345 ms, the limit is 2000 ms
";
        assert_eq!(text, expected);
        let commands = commands(&report, "evenkeel demo --once", 7);
        assert!(commands.contains("  evenkeel demo --once --only kill@host:fra-1 --seed 7\n"));
        let red = render(&report, Colours::Ansi);
        assert!(red.contains("\x1b[31mkill"), "{red}");
        let sentence = sentence(&report);
        let expected =
            "the promise was broken. 2 of 2 faults survived (3 more were not made, see above)";
        assert!(sentence.contains(expected), "{sentence}");
    }
}
