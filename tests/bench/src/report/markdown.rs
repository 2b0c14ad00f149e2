//! The report as Markdown that is as readable in a terminal.

use std::fmt::Write as _;

use super::{Report, Table, goals};

/// A table with columns of even width: the first to the left, the others to the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(3)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let _ = if column == 0 { write!(text, "| {cell:width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                text +=
                    &if column == 0 { format!("|{:-<1$}", "", width + 2) } else { format!("|{:-<1$}:", "", width + 1) };
            }
            text.push_str("|\n");
        }
    }
    text
}

impl Table {
    /// Heading, figures, and who was left out.
    fn markdown(&self) -> String {
        // Columns that nobody has a figure for are left out.
        let filled = |key: &str| self.rows.iter().any(|row| row.figures.contains_key(key));
        let columns: Vec<_> = self.columns.iter().filter(|column| filled(column.key)).collect();
        let mut cells = vec![vec![String::new()]];
        cells[0].extend(columns.iter().map(|column| column.head.to_owned()));
        for row in self.rows.iter().filter(|row| row.left_out.is_none()) {
            let mut line = vec![row.title.to_owned()];
            line.extend(columns.iter().map(|column| {
                row.figures.get(column.key).map_or_else(|| "-".into(), |value| number(*value, column.digits))
            }));
            cells.push(line);
        }
        let mut text = format!("### {}\n\n", self.title);
        if cells.len() > 1 {
            text += &aligned(&cells);
            text.push('\n');
        }
        for row in &self.rows {
            match &row.left_out {
                Some(reason) => text += &format!("- Left out: {}: {reason}.\n", row.title),
                None if row.failures.is_empty() => {}
                None => {
                    let (count, last) = (row.failures.len(), row.failures.last().map_or("", String::as_str));
                    text += &format!("- {}: {count} of {} rounds failed: {last}.\n", row.title, row.rounds.len());
                }
            }
        }
        text
    }
}

/// With commas between thousands, as 12,345.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

impl Report {
    /// All tables, and how they were made.
    pub(crate) fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{}, {} cores, Linux {}{}; medians of {} rounds, transfers of {} s.\n",
            machine.processor,
            machine.cores,
            machine.kernel,
            if machine.wireguard { "" } else { " without WireGuard" },
            self.rounds,
            self.seconds,
        );
        if let Some((median, largest)) = self.noise() {
            text += &format!(
                "While nothing was measured the machine was {:.0} % busy with other things (median; at most {:.0} %).\n",
                median * 100.0,
                largest * 100.0
            );
        }
        let packages = self.versions.packages.iter().map(|(name, version)| format!("{name} {version}"));
        let programs = self.versions.grange.iter().chain(&self.versions.iperf3).cloned();
        text += &format!("\nVersions: {}.\n\n", programs.chain(packages).collect::<Vec<_>>().join(", "));
        for table in &self.tables {
            text += &table.markdown();
            text.push('\n');
        }
        let goals = goals::compared(self);
        if goals.len() > 1 {
            text += "### Goals\n\n";
            text += &aligned(&goals);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::{MEASURES, Sample},
        report::Row,
    };

    #[test]
    fn a_table_is_readable_as_text_and_as_markdown() {
        let rows = [vec![String::new(), "Mbit/s".into()], vec!["raw".into(), "24,000".into()], vec!["x".into()]];
        let text = aligned(&rows);
        assert_eq!(text, "|     | Mbit/s |\n|-----|-------:|\n| raw | 24,000 |\n| x   |        |\n");
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(number(1_234_567.891, 1), "1,234,567.9");
        assert_eq!(number(-1234.0, 0), "-1,234");
        assert_eq!(number(0.25, 3), "0.250");
    }

    #[test]
    fn who_is_left_out_is_said() {
        let measure = MEASURES.iter().find(|it| it.name == "queue").unwrap();
        let mut there = Row::new("raw", "raw veth");
        there.rounds = vec![Some(Sample::from([("mbit", 95.61)])), None];
        there.failures = vec!["no answer".into()];
        let mut missing = Row::new("grange-kernel", "Grange, kernel plane");
        missing.left_out = Some("this kernel has no WireGuard".into());
        let text = Table::new(measure, vec![there, missing]).markdown();
        assert!(text.contains("| raw veth |   95.6 |"), "{text}");
        assert!(text.contains("- Left out: Grange, kernel plane: this kernel has no WireGuard.\n"), "{text}");
        assert!(text.contains("- raw veth: 1 of 2 rounds failed: no answer.\n"), "{text}");
    }
}
