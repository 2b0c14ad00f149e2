//! What was measured: every sample, and what follows from them.

mod goals;
mod markdown;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};

use crate::{
    machine::Machine,
    measure::{Column, Measure, Sample, Sum},
    stats::median,
};

/// Between these lines the document holds what [`Report::write_doc`] writes.
const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// Which programs were measured, and by what.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Versions {
    /// The agent.
    pub(crate) grange: Option<String>,
    /// What makes flows.
    pub(crate) iperf3: Option<String>,
    /// The peers, by `SUITE/PACKAGE`.
    pub(crate) packages: BTreeMap<String, String>,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    versions: Versions,
    rounds: u32,
    seconds: u32,
    /// One for each measurement.
    pub(crate) tables: Vec<Table>,
}

/// A measurement's result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    name: &'static str,
    title: &'static str,
    rows: Vec<Row>,
    #[serde(skip)]
    columns: &'static [Column],
}

/// A subject's part of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// For programs.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// Why there are no figures.
    pub(crate) left_out: Option<String>,
    /// What was said of rounds that failed.
    pub(crate) failures: Vec<String>,
    /// Each round, if it did not fail.
    pub(crate) rounds: Vec<Option<Sample>>,
    /// One figure of all rounds.
    #[serde(serialize_with = "shortened")]
    figures: Sample,
}

/// Medians with no more digits than mean something.
fn shortened<S: Serializer>(figures: &Sample, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|(key, value)| (key, (value * 1e4).round() / 1e4)))
}

impl Row {
    /// A row without figures.
    pub(crate) fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title, left_out: None, failures: Vec::new(), rounds: Vec::new(), figures: Sample::new() }
    }

    fn values(&self, key: &str) -> Vec<f64> {
        self.rounds.iter().flatten().filter_map(|sample| sample.get(key).copied()).collect()
    }

    fn figure(&self, column: &Column) -> Option<f64> {
        let values = self.values(column.key);
        match column.sum {
            Sum::Median => median(&values),
            Sum::Largest => values.into_iter().max_by(f64::total_cmp),
        }
    }
}

impl Table {
    /// Takes the figures from the rounds.
    pub(crate) fn new(measure: &Measure, mut rows: Vec<Row>) -> Self {
        for row in &mut rows {
            let figures = measure.columns.iter().filter_map(|column| Some((column.key, row.figure(column)?)));
            row.figures = figures.collect();
        }
        Self { name: measure.name, title: measure.title, rows, columns: measure.columns }
    }
}

impl Report {
    /// A run that has not measured anything.
    pub(crate) fn new(machine: Machine, versions: Versions, rounds: u32, seconds: u32) -> Self {
        Self { machine, versions, rounds, seconds, tables: Vec::new() }
    }

    /// A figure, if it was measured.
    fn figure(&self, table: &str, row: &str, key: &str) -> Option<f64> {
        let table = self.tables.iter().find(|it| it.name == table)?;
        table.rows.iter().find(|it| it.name == row)?.figures.get(key).copied()
    }

    /// The share of the machine that others used while nothing was measured: median and largest of all samples.
    fn noise(&self) -> Option<(f64, f64)> {
        let rows = self.tables.iter().flat_map(|table| &table.rows);
        let shares: Vec<f64> = rows.flat_map(|row| row.values("busy_before")).collect();
        Some((median(&shares)?, shares.into_iter().max_by(f64::total_cmp)?))
    }

    /// Writes everything as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("putting the report into JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
    }

    /// Puts the tables between two marks of a document.
    ///
    /// # Errors
    /// If the document cannot be read or written, or has no such marks.
    pub(crate) fn write_doc(&self, file: &Path) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let new = between_marks(&text, &self.markdown())
            .with_context(|| format!("{} lacks the lines `{BEGIN}` and `{END}`", file.display()))?;
        fs::write(file, new).with_context(|| format!("writing {}", file.display()))
    }
}

/// The text with what is between the marks replaced.
fn between_marks(text: &str, new: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", new.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let new = between_marks(&text, "new\n").unwrap();
        assert_eq!(new, format!("head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"));
        assert_eq!(between_marks(&new, "new"), Some(new));
        assert_eq!(between_marks("head\n", "new"), None);
    }

    #[test]
    fn failed_rounds_do_not_count() {
        let mut row = Row::new("x", "x");
        row.rounds = vec![Some(Sample::from([("mbit", 1.0)])), None, Some(Sample::from([("mbit", 3.0)]))];
        let column = |sum| Column { key: "mbit", head: "", digits: 0, sum };
        assert_eq!(row.figure(&column(Sum::Median)), Some(2.0));
        assert_eq!(row.figure(&column(Sum::Largest)), Some(3.0));
    }
}
