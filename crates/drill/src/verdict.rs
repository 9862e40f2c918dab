//! From what was seen to a verdict. Decides alone from its arguments; does no IO.

use std::fmt;
use std::time::Duration;

use evenkeel_checker::history::Violation;
use evenkeel_checker::measure::Counts;

use crate::budgets::Budget;

/// Fewer operations than this prove nothing.
const OPERATIONS_MIN: u64 = 500;
/// A generator later than a tenth of the smallest limit measures itself: this for the standard
/// limits, less for a smaller one.
///
/// Such an experiment proves nothing and is invalid. It is only inconclusive where this machine was
/// busy before anything was struck, with a load that was as late or a gap above the standard limit:
/// then it is known that the system is not the cause, and a calmer machine is the cure.
const LATENESS_MAX: Duration = Duration::from_millis(100);

/// A machine that gives more than this share of its processors to something else starves the system:
/// what that does too late, or fails to do, proves nothing. It loses nothing all the same.
const FOREIGN_PERCENT_MAX: u64 = 25;

/// The verdict on an experiment, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every limit was kept.
    Pass,
    /// This machine was too restless, already before the fault, or had other things to do.
    Inconclusive,
    /// Nothing is proven: not made, the fault not seen to take effect, too little asked, or what
    /// was written could not be read back.
    Invalid,
    /// A promise was broken.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Invalid => "invalid",
            Self::Fail => "fail",
        })
    }
}

/// Everything that one experiment showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Why the experiment says nothing, if so: the fault did not take effect.
    pub invalid: Option<String>,
    /// Operations by outcome.
    pub counts: Counts,
    /// Acknowledged writes that are gone.
    pub lost_writes: u64,
    /// Every broken rule of the store.
    pub violations: Vec<Violation>,
    /// What could not be proven, although nothing is known to be broken: a member that was not read
    /// back, a key without an order.
    pub unproven: Vec<String>,
    /// Longest gap of one client, over the whole experiment.
    pub gap: Duration,
    /// The same before the fault.
    pub gap_before: Duration,
    /// Requests that had failed or were in doubt before the fault.
    pub failed_before: u64,
    /// From the fault to the system's first event that names it.
    pub detect: Option<Duration>,
    /// From the fault until clients were served steadily again.
    pub recover: Option<Duration>,
    /// From the fault to its end, or to the end of looking.
    pub held: Duration,
    /// From the end of the fault until full redundancy.
    pub full_redundancy: Option<Duration>,
    /// How late the load was (99.9 %).
    pub lateness: Duration,
    /// The same before the fault.
    pub lateness_before: Duration,
    /// Share of this machine's processors that went to something else, in percent.
    pub foreign_percent: u64,
}

impl Measured {
    /// Returns whether clients were served again while the fault lasted, with nothing lost.
    #[must_use]
    pub fn survived(&self) -> bool {
        self.violations.is_empty() && self.recover.is_some_and(|recover| recover <= self.held)
    }
}

/// A verdict with its reasons, the worst first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not [`Verdict::Pass`].
    pub reasons: Vec<String>,
}

/// Judges an experiment.
#[must_use]
pub fn judge(measured: &Measured, budget: &Budget) -> Judgement {
    let mut found: Vec<(Verdict, String)> = Vec::new();
    for violation in &measured.violations {
        found.push((Verdict::Fail, violation.to_string()));
    }
    found.extend(validity(measured, budget));
    found.extend(limits(measured, budget));
    found.extend(measured.unproven.iter().map(|what| (Verdict::Invalid, what.clone())));
    found.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let verdict = found.first().map_or(Verdict::Pass, |(verdict, _)| *verdict);
    Judgement { verdict, reasons: found.into_iter().map(|(_, reason)| reason).collect() }
}

/// Returns whether this machine kept clients waiting already before the fault.
fn is_restless(measured: &Measured, budget: &Budget) -> bool {
    budget.noise_max.is_some_and(|noise| measured.gap_before > noise)
}

fn validity(measured: &Measured, budget: &Budget) -> Vec<(Verdict, String)> {
    let mut found = Vec::new();
    if let Some(reason) = &measured.invalid {
        found.push((Verdict::Invalid, reason.clone()));
    }
    let operations = measured.counts.operations;
    if operations < OPERATIONS_MIN {
        let reason = format!("only {operations} operations, {OPERATIONS_MIN} are needed");
        found.push((Verdict::Invalid, reason));
    }
    let lateness_max = LATENESS_MAX.min(budget.gap_max / 10);
    if measured.lateness > lateness_max {
        let was_late = measured.lateness_before > lateness_max || is_restless(measured, budget);
        let noise = excuse(was_late, measured, budget);
        let verdict = if noise.is_empty() { Verdict::Invalid } else { Verdict::Inconclusive };
        let late = millis(measured.lateness);
        found.push((verdict, format!("the load itself was late by {late}{noise}")));
    }
    found
}

/// Returns what excuses a limit that was exceeded, if anything: that it was so before the fault, or
/// that this machine had other things to do. Nothing excuses a limit that the user gave.
fn excuse(was_so: bool, measured: &Measured, budget: &Budget) -> String {
    let foreign = measured.foreign_percent;
    if was_so {
        " (and before the fault too)".to_owned()
    } else if foreign > FOREIGN_PERCENT_MAX && budget.noise_max.is_some() {
        format!(" (something else took {foreign} % of this machine's processors)")
    } else {
        String::new()
    }
}

/// Compares with the budget. What exceeds it already before the fault is this machine's noise: slow
/// answers excuse slow answers, failures excuse failures.
fn limits(measured: &Measured, budget: &Budget) -> Vec<(Verdict, String)> {
    // An invalid experiment has felt no fault: there is nothing to compare.
    if measured.invalid.is_some() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let was_slow = is_restless(measured, budget);
    let was_failing = measured.failed_before > 0;
    let mut over = |is_noise: bool, what: String, limit: String| {
        let noise = excuse(is_noise, measured, budget);
        let verdict = if noise.is_empty() { Verdict::Fail } else { Verdict::Inconclusive };
        found.push((verdict, format!("{what}, the limit is {limit}{noise}")));
    };
    if measured.gap > budget.gap_max {
        over(was_slow, format!("longest gap {}", millis(measured.gap)), millis(budget.gap_max));
    }
    let errors = measured.counts.failed + measured.counts.unknown;
    if let Some(limit) = budget.failed_max.filter(|limit| errors > *limit) {
        over(was_failing, format!("{errors} requests failed or in doubt"), limit.to_string());
    }
    let times = [
        ("clients were served again", measured.recover, budget.recover_max),
        ("full redundancy", measured.full_redundancy, budget.full_redundancy_max),
    ];
    for (what, time, limit) in times {
        match time {
            Some(time) if time <= limit => {}
            Some(time) => over(was_slow, format!("{what} after {}", millis(time)), millis(limit)),
            None => over(was_failing, format!("{what}: not seen"), millis(limit)),
        }
    }
    found
}

/// Writes a duration as whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// Returns the verdict on a whole drill: the worst of its experiments.
#[must_use]
pub fn worst(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    verdicts.into_iter().max().unwrap_or(Verdict::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budgets::Overrides;
    use crate::targets::Role;
    use evenkeel_checker::history::Rule;

    fn good() -> Measured {
        let ms = Duration::from_millis;
        Measured {
            invalid: None,
            counts: Counts { operations: 1700, ok: 1700, failed: 0, unknown: 0 },
            lost_writes: 0,
            violations: Vec::new(),
            unproven: Vec::new(),
            gap: ms(120),
            gap_before: ms(110),
            failed_before: 0,
            detect: Some(ms(300)),
            recover: Some(ms(0)),
            held: ms(4000),
            full_redundancy: Some(ms(900)),
            lateness: ms(3),
            lateness_before: ms(2),
            foreign_percent: 4,
        }
    }

    fn check(measured: &Measured, expected: Verdict, reason: &str) {
        let judgement = judge(measured, &Budget::of(Role::Replica, Overrides::default()));
        assert_eq!(judgement.verdict, expected, "{judgement:?}");
        let first = judgement.reasons.first().map_or("", String::as_str);
        assert!(first.contains(reason), "{judgement:?}");
    }

    #[test]
    fn a_verdict_is_the_worst_of_its_reasons() {
        check(&good(), Verdict::Pass, "");
        check(&Measured { gap: Duration::from_secs(2), ..good() }, Verdict::Fail, "longest gap");
        check(&Measured { recover: None, ..good() }, Verdict::Fail, "not seen");
        let failed = Counts { failed: 1, ..good().counts };
        check(&Measured { counts: failed, ..good() }, Verdict::Fail, "1 requests failed");
        let few = Counts { operations: 499, ..good().counts };
        check(&Measured { counts: few, ..good() }, Verdict::Invalid, "only 499");
        let invalid = Some("no effect was seen".to_owned());
        check(&Measured { invalid, recover: None, ..good() }, Verdict::Invalid, "no effect");
        let unproven = vec!["`waw-1` could not be read back".to_owned()];
        check(&Measured { unproven, ..good() }, Verdict::Invalid, "could not be read back");
        let lost =
            Violation { rule: Rule::LostWrite, key: "k".to_owned(), evidence: "gone".to_owned() };
        let lost = Measured { violations: vec![lost], lost_writes: 1, ..good() };
        check(&lost, Verdict::Fail, "lost write on key `k`: gone");
        assert!(!lost.survived() && good().survived());
    }

    #[test]
    fn noise_before_the_fault_excuses_only_its_like() {
        let long = Duration::from_secs(3);
        let noisy = || Measured { gap: long, gap_before: long, ..good() };
        check(&noisy(), Verdict::Inconclusive, "before the fault too");
        let slow = Measured { recover: Some(long), full_redundancy: Some(10 * long), ..noisy() };
        check(&slow, Verdict::Inconclusive, "before the fault too");
        // A slow machine fails no request, and it loses no leader for good.
        let failed = Counts { failed: 1, ..good().counts };
        check(&Measured { counts: failed, ..noisy() }, Verdict::Fail, "1 requests failed");
        check(&Measured { recover: None, ..noisy() }, Verdict::Fail, "not seen");
        check(&Measured { full_redundancy: None, ..noisy() }, Verdict::Fail, "not seen");
        let failing = Measured { counts: failed, failed_before: 1, ..good() };
        check(&failing, Verdict::Inconclusive, "1 requests failed");
    }

    #[test]
    fn a_starved_system_proves_nothing_but_loses_nothing() {
        let long = Duration::from_secs(3);
        let failed = Counts { failed: 1, ..good().counts };
        let starved = || Measured { counts: failed, gap: long, foreign_percent: 40, ..good() };
        check(&starved(), Verdict::Inconclusive, "something else took 40 %");
        check(&Measured { recover: None, ..starved() }, Verdict::Inconclusive, "took 40 %");
        let late = Measured { lateness: long, ..starved() };
        check(&late, Verdict::Inconclusive, "took 40 %");
        check(&Measured { foreign_percent: 25, ..starved() }, Verdict::Fail, "longest gap");
        let lost =
            Violation { rule: Rule::LostWrite, key: "k".to_owned(), evidence: "gone".to_owned() };
        check(&Measured { violations: vec![lost], ..starved() }, Verdict::Fail, "lost write");
        let overrides = Overrides { gap_max: Some(Duration::from_millis(1)) };
        let judgement = judge(&starved(), &Budget::of(Role::Replica, overrides));
        assert_eq!(judgement.verdict, Verdict::Fail, "{judgement:?}");
    }

    #[test]
    fn a_late_load_proves_nothing() {
        let late = Duration::from_millis(101);
        let during = Measured { lateness: late, ..good() };
        check(&during, Verdict::Invalid, "late by 101 ms");
        let before = Measured { lateness_before: late, ..during.clone() };
        check(&before, Verdict::Inconclusive, "late by 101 ms (and before");
        let restless = Measured { gap_before: Duration::from_secs(2), ..during };
        check(&restless, Verdict::Inconclusive, "late by 101 ms (and before");
    }

    #[test]
    fn nothing_excuses_a_limit_that_was_given() {
        // Below what is normal here: the gap before the fault is 110 ms.
        for gap_max in [1, 50] {
            let overrides = Overrides { gap_max: Some(Duration::from_millis(gap_max)) };
            let judgement = judge(&good(), &Budget::of(Role::Replica, overrides));
            assert_eq!(judgement.verdict, Verdict::Fail, "{judgement:?}");
        }
        let overrides = Overrides { gap_max: Some(Duration::from_millis(200)) };
        let judgement = judge(&good(), &Budget::of(Role::Replica, overrides));
        assert_eq!(judgement.verdict, Verdict::Pass, "{judgement:?}");
    }
}
