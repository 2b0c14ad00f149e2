//! The peers' programs: Debian packages, unpacked and not installed.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use grange_netns::run;

/// Where Debian's own signing keys are on a Debian machine.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of Debian and what is taken from it.
struct Suite {
    name: &'static str,
    packages: &'static [&'static str],
}

/// `bookworm` with the libraries that its programs need, and newer versions of some from elsewhere.
const SUITES: &[Suite] = &[
    Suite {
        name: "bookworm",
        packages: &[
            "fastd",
            "tinc",
            "wireguard-go",
            "wireguard-tools",
            "libjson-c5",
            "liblzo2-2",
            "libmnl0",
            "libsodium23",
            "libuecc0",
        ],
    },
    Suite { name: "bookworm-backports", packages: &["wireguard-go", "yggdrasil"] },
    Suite { name: "trixie", packages: &["nebula"] },
];

/// Unpacked packages.
#[derive(Clone, Debug)]
pub(crate) struct Packages {
    folder: PathBuf,
    versions: BTreeMap<String, String>,
    missing: BTreeMap<&'static str, String>,
}

impl Packages {
    /// Fetches and unpacks what is not there yet, under `folder`, from the mirror that this machine's own apt uses.
    ///
    /// # Errors
    /// If `folder` cannot be made. A suite that cannot be fetched only keeps its peers out: [`Self::program`] says so.
    pub(crate) fn fetch(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mut packages = Self { folder: folder.to_owned(), versions: BTreeMap::new(), missing: BTreeMap::new() };
        for suite in SUITES {
            match packages.suite(suite) {
                Ok(versions) => packages.versions.extend(versions),
                Err(error) => drop(packages.missing.insert(suite.name, format!("{error:#}"))),
            }
        }
        Ok(packages)
    }

    /// One suite: from the folder, else from the mirror. Gives `SUITE/PACKAGE` and version.
    fn suite(&self, suite: &Suite) -> Result<BTreeMap<String, String>> {
        let (root, stamp) = (self.folder.join(suite.name), self.folder.join(format!("{}.versions", suite.name)));
        let known = |text: &str| -> BTreeMap<String, String> {
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.map(|(name, version)| (format!("{}/{name}", suite.name), version.to_owned())).collect()
        };
        if let Ok(text) = fs::read_to_string(&stamp) {
            let known = known(&text);
            if suite.packages.iter().all(|package| known.contains_key(&format!("{}/{package}", suite.name))) {
                return Ok(known);
            }
        }
        println!("   fetching peers from {}", suite.name);
        let apt = self.folder.join(format!("apt-{}", suite.name));
        for folder in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(apt.join(folder)).context("making a folder for apt")?;
        }
        fs::create_dir_all(&root).context("making a folder for packages")?;
        fs::write(apt.join("status"), "").context("writing for apt")?;
        let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        fs::write(apt.join("sources.list"), format!("deb {signed}{} {} main\n", mirror()?, suite.name))
            .context("writing for apt")?;
        run(apt_get(&apt).arg("update"), None)?;
        run(apt_get(&apt).arg("download").args(suite.packages).current_dir(apt.join("packages")), None)?;
        let mut versions = String::new();
        for entry in fs::read_dir(apt.join("packages")).context("reading the folder of packages")? {
            let path = entry?.path();
            run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&root), None)?;
            let text = run(
                Command::new("dpkg-deb").args(["--show", "--showformat=${Package} ${Version}\n"]).arg(&path),
                None,
            )?;
            versions.push_str(&text);
        }
        fs::remove_dir_all(&apt).context("removing apt's folder")?;
        fs::write(&stamp, &versions).context("writing which versions there are")?;
        Ok(known(&versions))
    }

    /// The versions by `SUITE/PACKAGE`.
    pub(crate) fn versions(&self) -> &BTreeMap<String, String> {
        &self.versions
    }

    /// A program of a suite.
    ///
    /// # Errors
    /// If it could not be fetched: why.
    pub(crate) fn program(&self, suite: &str, path: &str) -> Result<PathBuf> {
        if let Some(reason) = self.missing.get(suite) {
            anyhow::bail!("not to be had from {suite}: {reason}");
        }
        let place = self.folder.join(suite).join(path);
        anyhow::ensure!(place.is_file(), "{suite} has no {path}");
        Ok(place)
    }

    /// What makes a program of `bookworm` find its libraries: a value for `LD_LIBRARY_PATH`.
    pub(crate) fn libraries(&self) -> OsString {
        let folders = ["usr/lib", "lib"].map(|folder| self.folder.join("bookworm").join(folder));
        let mut found = Vec::new();
        for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            if entry.file_name().to_string_lossy().contains("-linux-gnu") {
                found.push(entry.path());
            }
        }
        found.iter().map(|path| path.as_os_str()).collect::<Vec<&OsStr>>().join(OsStr::new(":"))
    }
}

/// The Debian mirror of this machine's own apt.
fn mirror() -> Result<String> {
    let policy = run(Command::new("apt-cache").arg("policy"), None)?;
    let found = policy.split_whitespace().find(|word| word.starts_with("http") && word.ends_with("/debian"));
    Ok(found.context("this machine's apt has no Debian mirror")?.to_owned())
}

/// `apt-get` that knows nothing of this machine and changes nothing on it.
fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "--quiet"]);
    for (key, name) in [
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
    ] {
        command.arg("--option").arg(format!("{key}={}", apt.join(name).display()));
    }
    for option in ["Dir::Etc::sourceparts=/dev/null", "APT::Sandbox::User=root", "Acquire::Languages=none"] {
        command.args(["--option", option]);
    }
    command
}
