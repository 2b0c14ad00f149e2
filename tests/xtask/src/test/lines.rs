//! The length of source files: a file that grows too long is split while that is easy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{Context, Outcome};

/// From here on a file is named as one to split.
const LONG: usize = 600;
/// Above this the step fails.
const TOO_LONG: usize = 700;

const FOLDERS: [&str; 4] = ["firmware", "hw", "agent", "tests"];

pub(super) fn run(context: &Context<'_>) -> Result<Outcome> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        sources(&context.root.join(folder), &mut files)?;
    }
    files.sort();
    let mut too_long = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let count = count(&text);
        let name = file.strip_prefix(context.root).unwrap_or(file).display();
        if count > TOO_LONG {
            too_long.push(format!("{name} has {count} lines without tests, the limit is {TOO_LONG}"));
        } else if count > LONG {
            println!("   {name} has {count} lines without tests: split it soon");
        }
    }
    if too_long.is_empty() {
        println!("   {} files", files.len());
        return Ok(Outcome::passed());
    }
    bail!("{}", too_long.join("; "));
}

/// Rust files under `folder`, but for those that Cargo takes for tests: `tests/` beside a `Cargo.toml`.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let is_crate = folder.join("Cargo.toml").is_file();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        let skipped = name == "target" || name == "tests.rs" || (is_crate && name == "tests");
        if skipped {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Lines outside of `#[cfg(test)] mod name { ... }` at the left margin, as rustfmt writes it.
fn count(text: &str) -> usize {
    let mut lines = text.lines().peekable();
    let mut count = 0;
    while let Some(line) = lines.next() {
        let opens = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line == "#[cfg(test)]" && lines.peek().is_some_and(opens) {
            lines.by_ref().find(|line| *line == "}");
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_tests_do_not_count() {
        let text = "fn a() {\n}\n\n#[cfg(test)]\nmod tests {\n    fn t() {\n    }\n}\nfn b() {}\n";
        assert_eq!(count(text), 4);
        assert_eq!(count("#[cfg(test)]\nextern crate std;\n"), 2);
        assert_eq!(count("#[cfg(test)]\nmod tests {\n    x\n"), 0);
    }
}
