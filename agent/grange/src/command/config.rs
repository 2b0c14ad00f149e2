//! `grange config`

use serde_json::{Map, Value, json};

use crate::{
    config::{self, Config, Origin, Overrides, Row},
    failure::Failure,
    output::{Output, Side, Table, print},
};

/// Shows the settings in effect, and where each value came from.
pub(crate) fn run(config: &Config, output: &Output) -> Result<(), Failure> {
    let rows = config.rows();
    let json: Map<String, Value> = rows.iter().map(|row| (row.key.into(), as_json(row))).collect();
    output.show(&json, |output| {
        let mut table = Table::new(&[("SETTING", Side::Left), ("VALUE", Side::Left), ("FROM", Side::Left)]);
        for row in &rows {
            table.row(vec![row.key.into(), row.value.clone(), row.origin.to_string()]);
        }
        table.text(output)
    })
}

/// `value` is what the file would hold; `from` says which kind of source it was, `at` where.
fn as_json(row: &Row) -> Value {
    // Values are scalars and lists of texts, whose TOML is JSON.
    let value = serde_json::from_str(&row.value).unwrap_or_else(|_| Value::from(row.value.clone()));
    let (from, at) = match &row.origin {
        Origin::Default => ("default", Value::Null),
        Origin::File { path, line } => ("file", json!({"path": path, "line": line})),
        Origin::Environment(name) => ("environment", json!(name)),
        Origin::Flag(flag) => ("flag", json!(flag)),
    };
    json!({"value": value, "from": from, "at": at})
}

/// Prints a file with every setting at its default, to start from.
pub(crate) fn example() -> Result<(), Failure> {
    print(&example_text())
}

fn example_text() -> String {
    let nothing = Overrides { environment: &|_| None, flags: &[] };
    let Ok(defaults) = config::read(None, &nothing) else { return String::new() };
    let mut text =
        String::from("# Configuration of grange. Every setting has a default: take the # away from what you change.\n");
    let mut section = "";
    for row in defaults.rows() {
        let (of, name) = row.key.split_once('.').unwrap_or(("", row.key));
        if of != section {
            section = of;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&format!("\n# {}\n# Expected: {}.\n#{name} = {}\n", row.meaning, row.expected, row.value));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_example_is_a_good_file_with_and_without_its_defaults() {
        let nothing = Overrides { environment: &|_| None, flags: &[] };
        let text = example_text();
        config::read(Some((Path::new("grange.toml"), &text)), &nothing).unwrap();
        let set: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = config::read(Some((Path::new("grange.toml"), &set)), &nothing).unwrap();
        assert!(config.rows().iter().all(|row| matches!(row.origin, Origin::File { .. })));
    }
}
