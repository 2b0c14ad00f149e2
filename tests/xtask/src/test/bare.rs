//! A build of the firmware crates for processors without an operating system.
//!
//! The standard library for such a target comes from rustup. Where rustup is missing or can fetch nothing, its sources
//! do: those of the toolchain (component `rust-src`), or Debian's `rust-src` of the very same release.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{Context, LeftOut, Outcome};
use crate::{
    command::{cargo, find_program, output, succeed},
    packages,
};

/// RISC-V with atomics as in an ESP32-C6, and ARM as in an STM32F4 or nRF52840.
const TARGETS: [&str; 2] = ["riscv32imac-unknown-none-elf", "thumbv7em-none-eabihf"];

const CRATES: [&str; 2] = ["grange-wire", "grange-core"];

/// How a target's `core` and `alloc` are had.
enum Standard {
    /// Compiled, from rustup.
    Installed,
    /// As sources in this folder, to be compiled along.
    Sources(PathBuf),
}

pub(super) fn run(context: &Context<'_>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for target in TARGETS {
        let standard = match standard(context.root, target) {
            Ok(standard) => standard,
            Err(error) => {
                outcome.left_out.push(LeftOut { name: format!("bare {target}"), reason: format!("{error:#}") });
                continue;
            }
        };
        match build(context.root, target, &standard) {
            Ok(()) => outcome.passed += 1,
            Err(error) => {
                println!("   FAILED: {error:#}");
                outcome.failed += 1;
                outcome.faults.push(format!("{error:#}"));
            }
        }
    }
    Ok(outcome)
}

fn build(root: &Path, target: &str, standard: &Standard) -> Result<()> {
    let mut command = cargo();
    // Apart from the everyday folder, which would be built anew each time the flags change.
    command.env("CARGO_TARGET_DIR", root.join("target/cross"));
    command.args(["build", "--release", "--target", target]);
    for name in CRATES {
        command.args(["--package", name]);
    }
    if let Standard::Sources(library) = standard {
        // The sources are of this very release, so its compiler takes them; the variables let a stable Cargo try.
        command.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        command.arg("-Zbuild-std=core,alloc");
    }
    succeed(&mut command)
}

fn standard(root: &Path, target: &str) -> Result<Standard> {
    let rustc = || Command::new("rustc");
    let sysroot = PathBuf::from(output(rustc().args(["--print", "sysroot"]))?.trim());
    if sysroot.join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(Standard::Installed);
    }
    let by_rustup = match find_program("rustup") {
        Some(_) => output(Command::new("rustup").args(["target", "add", target])).map(drop),
        None => Err(anyhow::anyhow!("rustup is not installed")),
    };
    let Err(why) = by_rustup else { return Ok(Standard::Installed) };
    println!("   rustup does not give {target} ({why:#}): building core and alloc from sources");
    let of_toolchain = sysroot.join("lib/rustlib/src/rust/library");
    if of_toolchain.join("Cargo.lock").is_file() {
        return Ok(Standard::Sources(of_toolchain));
    }
    debian_sources(root, &output(rustc().arg("--version"))?)
        .with_context(|| format!("`rustup target add {target}` did not work ({why:#})"))
        .map(Standard::Sources)
}

/// Unpacks Debian's `rust-src` of this compiler's release into `.cross`.
fn debian_sources(root: &Path, version: &str) -> Result<PathBuf> {
    let version = version.split_whitespace().nth(1).context("rustc tells no version")?;
    let folder = root.join(".cross").join(version);
    let library = folder.join("library");
    if library.join("Cargo.lock").is_file() {
        return Ok(library);
    }
    if find_program("apt-get").is_none() {
        bail!("this is no Debian machine, whose package rust-src would do too");
    }
    packages::ensure(packages::UNPACK)?;
    let script = root.join("tests/xtask/cross/rust-src.sh");
    output(Command::new("bash").arg(script).arg(&folder).arg(version)).context("fetching Debian's rust-src")?;
    if !library.join("Cargo.lock").is_file() {
        bail!("Debian's rust-src {version} came without library/Cargo.lock");
    }
    Ok(library)
}
