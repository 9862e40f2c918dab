//! The drill's result for people: one line an experiment, budgets beside what was seen.

use std::fmt::Write as _;
use std::time::Duration;

use crate::plan::Experiment;
use crate::report::{Made, Report, Row};
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
        push_line(&mut text, line, &widths, paint(row.verdict(), colours));
    }
    text.push('\n');
    for row in &report.rows {
        for reason in row.reasons().iter().take(3) {
            line(&mut text, format_args!("{}: {reason}", row.experiment().id()));
        }
    }
    text
}

/// Writes for each row the command that repeats it: `command` with `--only` and `--seed`.
#[must_use]
pub fn commands(report: &Report, command: &str, seed: u64) -> String {
    let mut text = String::from("Repeat one with:\n");
    for row in &report.rows {
        let again = again(row);
        line(&mut text, format_args!("  {command} --only {again} --seed {seed}"));
    }
    text
}

/// Returns the experiment that does the same once more.
fn again(row: &Row) -> Experiment {
    let mut again = row.experiment().clone();
    if let Row::Made(made) = row {
        again.selector.place = match again.selector.role {
            // Who leads is another one next time: the role is what counts, and the seed chooses
            // the same host where it still has that role.
            Role::Leader | Role::Follower | Role::Node => None,
            Role::Replica
            | Role::Gateway
            | Role::Shim
            | Role::Host
            | Role::Zone
            | Role::Region
            | Role::Link => Some(place_of(&made.target)),
        };
    }
    again
}

/// Sums up a drill in one sentence, and in a second one what was not looked at.
#[must_use]
pub fn sentence(report: &Report) -> String {
    let operations: u64 = report.made().map(|made| made.measured.counts.operations).sum();
    let lost: u64 = report.made().map(|made| made.measured.lost_writes).sum();
    let survived = report.made().filter(|made| made.measured.survived()).count();
    let made = report.made().count();
    let gap = report.made().map(|made| made.measured.gap).max().unwrap_or_default();
    let judged = match report.verdict() {
        Verdict::Pass if report.only_read.is_some() => "clients could go on reading",
        Verdict::Pass => "the promise was kept",
        Verdict::Inconclusive => "nothing was broken, but not everything could be judged",
        Verdict::Invalid => "nothing was seen to break, but the promise is not proven",
        Verdict::Fail => "the promise was broken",
    };
    let mut missing = String::new();
    let not_made = report.rows.len() - made;
    if not_made > 0 {
        missing.push_str(&format!(", {not_made} could not be made"));
    }
    if report.left_out > 0 {
        let left_out = report.left_out;
        missing.push_str(&format!(", {left_out} beyond this system or its promise left out"));
    }
    let found = match &report.only_read {
        None => format!("{lost} acknowledged writes lost in {operations} operations"),
        Some(_) => format!("{operations} reads"),
    };
    let unchecked = report.only_read.as_ref().map_or_else(String::new, |path| {
        format!(" Only reads of `{path}` were made: whether writes are lost was not checked.")
    });
    format!(
        "survive = \"{}\": {judged}. {survived} of {made} faults survived{missing}; {found}, longest \
         gap of any client {}.{unchecked}",
        report.survive,
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
    let fault = row.experiment().fault.to_string();
    let (predicted, observed) = (row.predicted().to_owned(), row.observed().to_owned());
    let verdict = row.verdict().to_string();
    let made = match row {
        Row::Made(made) => made,
        Row::NotMade(not_made) => {
            let target = not_made.experiment.selector.to_string();
            let [failed, lost, gap, detect, recover, full] = [const { "–" }; 6].map(str::to_owned);
            return [
                fault, target, predicted, observed, failed, lost, gap, detect, recover, full,
                verdict,
            ];
        }
    };
    let (measured, budget) = (&made.measured, &made.budget);
    let maybe = |value: Option<Duration>| value.map_or_else(|| "–".to_owned(), time);
    let errors = measured.counts.failed + measured.counts.unknown;
    let failed = match budget.failed_max {
        Some(limit) => format!("{errors} (≤ {limit})"),
        None => errors.to_string(),
    };
    [
        fault,
        target(made),
        predicted,
        observed,
        failed,
        format!("{} (≤ 0)", measured.lost_writes),
        format!("{} (≤ {})", time(measured.gap), time(budget.gap_max)),
        maybe(measured.detect),
        format!("{} (≤ {})", maybe(measured.recover), time(budget.recover_max)),
        format!("{} (≤ {})", maybe(measured.full_redundancy), time(budget.full_redundancy_max)),
        verdict,
    ]
}

/// Names the target, with what it was at that time where its name does not say it.
fn target(made: &Made) -> String {
    match made.experiment.selector.role {
        role @ (Role::Leader | Role::Follower) => format!("{} ({role})", made.target),
        Role::Replica
        | Role::Gateway
        | Role::Node
        | Role::Shim
        | Role::Host
        | Role::Zone
        | Role::Region
        | Role::Link => made.target.to_string(),
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
    use crate::report::tests::{not_made, report, row};
    use evenkeel_model::fault::FaultKind;

    #[test]
    fn a_table_shows_budgets_reasons_and_commands() {
        let rows = vec![
            row(Duration::from_millis(1180)),
            row(Duration::from_millis(2345)),
            not_made(FaultKind::Isolate, Role::Zone),
        ];
        let report = Report { left_out: 3, ..report(rows) };
        let text = render(&report, Colours::None);
        let expected = "\
fault    target      predicted  observed  failed  lost     longest gap        detected  recovered          full redundancy     verdict
───────  ──────────  ─────────  ────────  ──────  ───────  ─────────────────  ────────  ─────────────────  ──────────────────  ───────
kill     host fra-1  survives   survives  7       0 (≤ 0)  1.18 s (≤ 2.00 s)  1.01 s    1.20 s (≤ 3.00 s)  2.95 s (≤ 20.00 s)  pass
kill     host fra-1  survives   survives  7       0 (≤ 0)  2.34 s (≤ 2.00 s)  1.01 s    1.20 s (≤ 3.00 s)  2.95 s (≤ 20.00 s)  fail
isolate  zone        unknown    not made  –       –        –                  –         –                  –                   invalid

kill-host: longest gap 2345 ms, the limit is 2000 ms
isolate-zone: not injectable here: the program `nft` is not installed
";
        assert_eq!(text, expected);
        let commands = commands(&report, "evenkeel demo --once", 7);
        assert!(commands.contains("  evenkeel demo --once --only kill@host:fra-1 --seed 7\n"));
        assert!(commands.contains("  evenkeel demo --once --only isolate@zone --seed 7\n"));
        let red = render(&report, Colours::Ansi);
        assert!(red.contains("\x1b[31mkill"), "{red}");
        let sentence = sentence(&report);
        let expected = "the promise was broken. 2 of 2 faults survived, 1 could not be made, \
                        3 beyond this system or its promise left out; 0 acknowledged writes lost \
                        in 3800 operations";
        assert!(sentence.contains(expected), "{sentence}");
    }

    #[test]
    fn a_promise_that_was_not_tested_was_not_kept() {
        let made = row(Duration::from_millis(1180));
        let kept = sentence(&report(vec![made.clone()]));
        assert!(kept.contains("the promise was kept"), "{kept}");
        let untested = report(vec![made, not_made(FaultKind::Isolate, Role::Zone)]);
        let untested = sentence(&untested);
        assert!(!untested.contains("kept") && untested.contains("not proven"), "{untested}");
    }

    #[test]
    fn reads_alone_are_said_to_prove_nothing_of_writes() {
        let only_read = Some("/shop".to_owned());
        let report = Report { only_read, ..report(vec![row(Duration::from_millis(1180))]) };
        let sentence = sentence(&report);
        assert!(!sentence.contains("writes lost") && !sentence.contains("kept"), "{sentence}");
        let plain = "Only reads of `/shop` were made: whether writes are lost was not checked.";
        assert!(sentence.ends_with(plain), "{sentence}");
    }

    #[test]
    fn a_role_that_moves_is_repeated_without_its_host() {
        let Row::Made(mut made) = row(Duration::from_millis(1180)) else { unreachable!() };
        made.experiment.selector.role = Role::Leader;
        let commands = commands(&report(vec![Row::Made(made)]), "evenkeel drill", 7);
        assert!(commands.contains("  evenkeel drill --only kill@leader --seed 7\n"), "{commands}");
    }
}
