//! What is printed: JSON for programs, aligned tables with units for people.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

use crate::failure::{Code, Failure};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// Bold and dim.
    pub(crate) colours: bool,
}

impl Output {
    /// For standard output: colours only on a terminal and without `NO_COLOR`.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, colours: colours(&io::stdout()) }
    }

    /// Prints `value` as JSON, or what `text` makes.
    pub(crate) fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&Self) -> String) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(value);
            print(&(json.map_err(|error| Failure::new(Code::Other, error.to_string()))? + "\n"))
        } else {
            print(&text(self))
        }
    }

    /// Text that stands out.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    /// Text that stands back.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.into() }
    }

    /// Names and values, one pair a line.
    pub(crate) fn pairs(&self, pairs: &[(&str, String)]) -> String {
        let width = pairs.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
        let line = |(name, value): &(&str, String)| {
            let name = self.dim(&format!("{name:width$}"));
            format!("{name}  {}\n", clean(value))
        };
        pairs.iter().map(line).collect()
    }
}

/// Whether this stream takes colours.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints to standard output. Whoever reads it may stop early, as `head` does.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Other, format!("the output could not be written: {error}.")))
        }
        _ => Ok(()),
    }
}

/// Prints a line for the person beside the output, to standard error.
pub(crate) fn note(text: impl fmt::Display) {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// On which side a column's texts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with a head.
pub(crate) struct Table {
    head: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(head: &[(&'static str, Side)]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    /// The table as lines.
    pub(crate) fn text(&self, output: &Output) -> String {
        let columns = 0..self.head.len();
        let widths: Vec<usize> = columns
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
                cells.chain([width(self.head[column].0)]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[&str]| {
            let mut line = String::new();
            for ((cell, wide), (_, side)) in cells.iter().zip(&widths).zip(&self.head) {
                let gap = " ".repeat(wide - width(cell).min(*wide));
                match side {
                    Side::Left => line.push_str(&format!("{cell}{gap}  ")),
                    Side::Right => line.push_str(&format!("{gap}{cell}  ")),
                }
            }
            line.trim_end().to_owned()
        };
        let names: Vec<&str> = self.head.iter().map(|(name, _)| *name).collect();
        let mut text = output.bold(&line(&names)) + "\n";
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            text.push_str(&(line(&cells) + "\n"));
        }
        text
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A text without anything that a terminal would obey: names come from neighbours.
fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// A number of bytes with a unit, to three digits.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 999.5 {
            return if unit == "B" || value >= 99.95 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Microseconds as milliseconds.
pub(crate) fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1000.0;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.1} ms") }
}

/// Seconds as a person says them: the two largest units.
pub(crate) fn ago(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { json: false, colours: false };

    #[test]
    fn columns_are_aligned_and_terminals_not_commanded() {
        let mut table = Table::new(&[("NAME", Side::Left), ("COST", Side::Right)]);
        table.row(vec!["Mühle".into(), "96".into()]);
        table.row(vec!["\x1b[2Jx".into(), "65535".into()]);
        assert_eq!(table.text(&PLAIN), "NAME    COST\nMühle     96\n\u{fffd}[2Jx  65535\n");
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(
            [0, 999, 1000, 1536, 1 << 20, 1 << 40].map(bytes),
            ["0 B", "999 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 TiB"]
        );
        assert_eq!([350, 12_345].map(millis), ["0.35 ms", "12.3 ms"]);
        assert_eq!([59, 61, 7260, 90_000].map(ago), ["59 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]);
    }
}
