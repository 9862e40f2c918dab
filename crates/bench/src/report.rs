//! What was measured, side by side, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;
use crate::usage::Usage;

/// Which way a figure gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One figure of both systems, once a round.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) evenkeel: Vec<f64>,
    pub(crate) etcd: Vec<f64>,
    /// How many times better Evenkeel is.
    pub(crate) ratio: Option<Spread>,
}

/// Minimum, median and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// Where the processor time of one run went.
#[derive(Debug, Serialize)]
pub(crate) struct Used {
    pub(crate) system: String,
    pub(crate) run: String,
    /// The member that led, as an index into the processes.
    pub(crate) leader: usize,
    pub(crate) usage: Usage,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) seconds: u64,
    pub(crate) rounds: u32,
    /// Load average when each round began.
    pub(crate) load_average: Vec<f64>,
    pub(crate) figures: Vec<Figure>,
    /// Each fail-over in ms, by system.
    pub(crate) failover_ms: BTreeMap<String, Vec<f64>>,
    /// Figures of one run each.
    pub(crate) growth: Vec<Figure>,
    /// Requests that failed under load, by system; of fail-overs none are counted.
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) used: Vec<Used>,
}

/// Figures by name, in the order in which they came up.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

/// Which of the two a value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Evenkeel,
    Etcd,
}

impl Figures {
    /// Adds a value to the figure of that name.
    pub(crate) fn add(
        &mut self,
        side: Side,
        name: &str,
        unit: &'static str,
        better: Better,
        value: f64,
    ) {
        let place = match self.0.iter().position(|figure| figure.name == name) {
            Some(place) => place,
            None => {
                let name = name.to_owned();
                let (evenkeel, etcd) = (Vec::new(), Vec::new());
                self.0.push(Figure { name, unit, better, evenkeel, etcd, ratio: None });
                self.0.len() - 1
            }
        };
        let figure = &mut self.0[place];
        match side {
            Side::Evenkeel => figure.evenkeel.push(value),
            Side::Etcd => figure.etcd.push(value),
        }
    }

    /// Returns them with their ratios, each of the values of one round.
    pub(crate) fn finish(mut self) -> Vec<Figure> {
        for figure in &mut self.0 {
            let pairs = figure.evenkeel.iter().zip(&figure.etcd);
            let ratios = pairs.map(|(evenkeel, etcd)| match figure.better {
                Better::Higher => evenkeel / etcd,
                Better::Lower => etcd / evenkeel,
            });
            figure.ratio = Spread::of(&ratios.collect::<Vec<_>>());
        }
        self.0
    }
}

impl Spread {
    /// Returns the spread of some values, if there are any.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 {
            upper
        } else {
            f64::midpoint(*sorted.get(middle - 1)?, upper)
        };
        Some(Self { min, median, max })
    }

    fn show(self) -> String {
        let decimals = if self.median >= 100.0 { 0 } else { 2 };
        let Self { min, median, max } = self;
        if min.total_cmp(&max).is_eq() {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }
}

/// Puts figures into a Markdown table: median (minimum–maximum) of the rounds.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = "| | evenkeel | etcd | × better than etcd |\n|---|---|---|---|\n".to_owned();
    for figure in figures {
        let show = |values: &[f64]| Spread::of(values).map_or_else(String::new, Spread::show);
        let ratio = figure.ratio.map_or_else(String::new, Spread::show);
        // Writing to a string does not fail.
        let _infallible = writeln!(
            text,
            "| {} ({}) | {} | {} | {ratio} |",
            figure.name,
            figure.unit,
            show(&figure.evenkeel),
            show(&figure.etcd)
        );
    }
    text
}

/// Puts fail-over times into a Markdown table.
pub(crate) fn failover_table(failover: &BTreeMap<String, Vec<f64>>) -> String {
    let mut text =
        "| fail-over, ms | kills | min | median | max |\n|---|---|---|---|---|\n".to_owned();
    for (system, times) in failover {
        let Some(Spread { min, median, max }) = Spread::of(times) else { continue };
        let kills = times.len();
        let _infallible =
            writeln!(text, "| {system} | {kills} | {min:.0} | {median:.0} | {max:.0} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_says_how_many_times_better() {
        let check = |better: Better, evenkeel: f64, etcd: f64, expected: f64| {
            let mut figures = Figures::default();
            figures.add(Side::Evenkeel, "x", "s", better, evenkeel);
            figures.add(Side::Etcd, "x", "s", better, etcd);
            let ratio = figures.finish()[0].ratio.unwrap().median;
            assert!((ratio - expected).abs() < 1e-9, "{ratio}");
        };
        check(Better::Higher, 30.0, 10.0, 3.0);
        check(Better::Lower, 30.0, 10.0, 1.0 / 3.0);
    }

    #[test]
    fn a_median_of_an_even_number_is_between_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(Spread::of(&[]), None);
    }
}
