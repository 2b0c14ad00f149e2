//! Which crate may know which (docs/architecture.md), and what firmware crates promise.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{Context, Outcome};
use crate::command::{cargo, output};

/// The agent's crates from the bottom to the top: each may use those with a lower number.
const AGENT: [(&str, u8); 7] = [
    ("grange-mesh", 1),
    ("grange-town", 2),
    ("grange-uplink", 2),
    ("grange-store", 2),
    ("grange-village", 3),
    ("grange-web", 4),
    ("grange", 5),
];

/// Firmware from the bottom to the top.
const FIRMWARE: [(&str, u8); 3] = [("grange-wire", 1), ("grange-core", 2), ("grange-leaf", 3)];

/// What `cargo metadata` says, as far as this asks.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

#[derive(Clone, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, Deserialize)]
struct Dependency {
    name: String,
}

/// Where a crate stands, by its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Firmware(u8),
    Hw,
    Agent(u8),
    Tests,
}

pub(super) fn run(context: &Context<'_>) -> Result<Outcome> {
    let json = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Metadata = serde_json::from_str(&json).context("reading what `cargo metadata` says")?;
    let mut wrong = directions(&metadata.packages, &metadata.workspace_root);
    for package in &metadata.packages {
        let manifest = Path::new(&package.manifest_path);
        let text = fs::read_to_string(manifest).with_context(|| format!("reading {}", manifest.display()))?;
        wrong.extend(manifest_faults(&package.name, &text)?);
        if manifest.starts_with(context.root.join("firmware")) {
            wrong.extend(firmware_faults(package, manifest)?);
        }
    }
    if wrong.is_empty() {
        println!("   {} crates, all arrows point down", metadata.packages.len());
        return Ok(Outcome::passed());
    }
    bail!("{}", wrong.join("; "));
}

/// Dependencies that point the wrong way, of every kind: normal, build and dev.
fn directions(packages: &[Package], root: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sides = BTreeMap::new();
    for package in packages {
        match side(package, root) {
            Some(side) => drop(sides.insert(package.name.as_str(), side)),
            None => wrong.push(format!("{} has no place in the layers (tests/xtask/src/test/layers.rs)", package.name)),
        }
    }
    for package in packages {
        let Some(&from) = sides.get(package.name.as_str()) else { continue };
        for dependency in &package.dependencies {
            let Some(&to) = sides.get(dependency.name.as_str()) else { continue };
            if !may_use(from, to) {
                wrong.push(format!("{} must not use {}", package.name, dependency.name));
            }
        }
    }
    wrong
}

fn side(package: &Package, root: &str) -> Option<Side> {
    let number = |list: &[(&str, u8)]| list.iter().find(|(name, _)| *name == package.name).map(|(_, number)| *number);
    let path = Path::new(&package.manifest_path).strip_prefix(root).ok()?;
    match path.components().next()?.as_os_str().to_str()? {
        "firmware" => number(&FIRMWARE).map(Side::Firmware),
        "hw" => Some(Side::Hw),
        "agent" => number(&AGENT).map(Side::Agent),
        "tests" => Some(Side::Tests),
        _ => None,
    }
}

fn may_use(from: Side, to: Side) -> bool {
    match (from, to) {
        (Side::Tests, _) => true,
        (_, Side::Tests) => false,
        (Side::Firmware(from), Side::Firmware(to)) | (Side::Agent(from), Side::Agent(to)) => to < from,
        (Side::Hw, Side::Firmware(to)) => to == 1,
        (Side::Agent(_), Side::Firmware(to)) => to < 3,
        (Side::Agent(_), Side::Hw) => true,
        (Side::Firmware(_), Side::Hw | Side::Agent(_)) | (Side::Hw, Side::Hw | Side::Agent(_)) => false,
    }
}

/// Versions of dependencies and lints stand once, in the workspace.
fn manifest_faults(name: &str, text: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = text.parse().with_context(|| format!("reading the manifest of {name}"))?;
    let inherits = |value: &toml::Value| value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
    let mut wrong = Vec::new();
    if !manifest.get("lints").is_some_and(inherits) {
        wrong.push(format!("{name} does not take the workspace's lints"));
    }
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = std::iter::once(&manifest)
        .chain(targets.into_iter().flat_map(|table| table.values()).filter_map(toml::Value::as_table));
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = table.get(kind).and_then(toml::Value::as_table).into_iter().flatten();
            wrong.extend(entries.filter(|(_, value)| !inherits(value)).map(|(dependency, _)| {
                format!("{name} states the version of {dependency} itself; it belongs in the root Cargo.toml")
            }));
        }
    }
    Ok(wrong)
}

/// Crates that run on a microcontroller say so in their first lines.
fn firmware_faults(package: &Package, manifest: &Path) -> Result<Vec<String>> {
    let library = manifest.with_file_name("src").join("lib.rs");
    let text = fs::read_to_string(&library).with_context(|| format!("reading {}", library.display()))?;
    let promises = ["#![no_std]", "#![forbid(unsafe_code)]"];
    let missing = promises.iter().filter(|promise| !text.lines().any(|line| line.trim() == **promise));
    Ok(missing.map(|promise| format!("{} lacks {promise} in src/lib.rs", package.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &str, name: &str, uses: &[&str]) -> Package {
        Package {
            name: name.into(),
            manifest_path: format!("/house/{folder}/Cargo.toml"),
            dependencies: uses.iter().map(|&name| Dependency { name: name.into() }).collect(),
        }
    }

    fn house(extra: Package) -> Vec<String> {
        let mut packages = vec![
            package("firmware/wire", "grange-wire", &["blake3"]),
            package("firmware/core", "grange-core", &["grange-wire"]),
            package("hw", "grange-hw", &["grange-wire"]),
            package("agent/mesh", "grange-mesh", &["grange-core", "grange-wire"]),
            package("agent/grange", "grange", &["grange-mesh", "grange-hw"]),
            package("tests/sim", "grange-sim", &["grange-core", "grange"]),
        ];
        packages.retain(|one| one.name != extra.name);
        packages.push(extra);
        directions(&packages, "/house")
    }

    #[test]
    fn the_house_as_designed_is_right() {
        assert!(house(package("tests/xtask", "xtask", &["grange-sim", "grange"])).is_empty());
    }

    #[test]
    fn arrows_that_point_up_are_found() {
        for (folder, name, uses) in [
            ("firmware/wire", "grange-wire", "grange-core"),
            ("firmware/core", "grange-core", "grange-hw"),
            ("firmware/core", "grange-core", "grange-mesh"),
            ("firmware/core", "grange-core", "grange-sim"),
            ("hw", "grange-hw", "grange-core"),
            ("hw", "grange-hw", "grange-mesh"),
            ("agent/mesh", "grange-mesh", "grange"),
            ("agent/mesh", "grange-mesh", "grange-sim"),
        ] {
            assert_eq!(house(package(folder, name, &[uses])), [format!("{name} must not use {uses}")]);
        }
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        let wrong = house(package("agent/utility", "grange-utility", &[]));
        assert!(wrong[0].starts_with("grange-utility has no place"), "{wrong:?}");
    }

    #[test]
    fn versions_and_lints_stand_in_the_workspace() {
        let right = "[lints]\nworkspace = true\n[dependencies]\na.workspace = true\nb = { workspace = true, optional = true }\n";
        assert!(manifest_faults("x", right).unwrap().is_empty());
        let wrong = "[dependencies]\na = \"1\"\n[target.'cfg(unix)'.dev-dependencies]\nb = { version = \"1\" }\n";
        assert_eq!(manifest_faults("x", wrong).unwrap().len(), 3);
    }
}
