//! The configuration: every key once, with its default, its meaning and where its value came from.
//!
//! A value comes from, the first that has it: a `--set KEY=VALUE` flag, an environment variable, the file, the default.

mod error;
mod raw;
#[cfg(test)]
mod tests;
mod value;

use std::{collections::BTreeMap, fmt, path::Path};

use grange_town::nearest;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use raw::Raw;

pub(crate) use error::{Problem, Problems};
pub(crate) use value::{
    Cipher, Gateways, InterfaceList, InterfaceName, Interfaces, LogFilter, NodeName, Peers, Plane, Port,
    UplinkInterface, Value,
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File {
        /// As the person named it.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// A key for display.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// As in `mesh.port`.
    pub(crate) key: &'static str,
    /// As TOML.
    pub(crate) value: String,
    /// Where the value came from.
    pub(crate) origin: Origin,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// What it may be.
    pub(crate) expected: &'static str,
}

macro_rules! settings {
    ($($field:ident: $type:ty = $key:literal, $default:expr, $meaning:literal;)*) => {
        /// The effective configuration.
        #[derive(Clone, Debug)]
        pub(crate) struct Config {
            $(#[doc = $meaning] pub(crate) $field: Setting<$type>,)*
        }

        impl Config {
            /// All keys, in the order of the documentation.
            pub(crate) const KEYS: &'static [&'static str] = &[$($key),*];

            fn take(given: &mut Given) -> Self {
                Self { $($field: given.take($key, || $default),)* }
            }

            /// All keys with value and origin.
            pub(crate) fn rows(&self) -> Vec<Row> {
                vec![$(Row {
                    key: $key,
                    value: self.$field.value.show(),
                    origin: self.$field.origin.clone(),
                    meaning: $meaning,
                    expected: <$type as Value>::EXPECTED,
                }),*]
            }
        }
    };
}

settings! {
    name: NodeName = "name", NodeName::of_host(),
        "The name that neighbours see. By default the host name.";
    mesh_port: Port = "mesh.port", Port(grange_wire::PORT),
        "UDP port of links and beacons. All nodes of a town that find each other by beacons use the same.";
    mesh_interfaces: Interfaces = "mesh.interfaces", Interfaces::Auto,
        "Interfaces on which to look for neighbours: every wired and mesh interface except the uplink, or those named.";
    mesh_exclude: InterfaceList = "mesh.exclude", InterfaceList::default(),
        "Interfaces that are never used for the mesh.";
    mesh_peers: Peers = "mesh.peers", Peers::default(),
        "Nodes at fixed places, over a cable run or the Internet, to keep a link with. At most 64.";
    mesh_mdns: bool = "mesh.mdns", true,
        "Whether to look for nodes on the local network by mDNS too.";
    mesh_tun: InterfaceName = "mesh.tun", InterfaceName("grange0".into()),
        "Name of the interface that leads into the mesh.";
    mesh_seals: bool = "mesh.seals", true,
        "Whether traffic to nodes that are not neighbours is encrypted from end to end too, so that nobody on the way reads it.";
    mesh_plane: Plane = "mesh.plane", Plane::Auto,
        "What moves packets: the kernel's WireGuard where both ends of a link have it, else the agent; or always the agent.";
    mesh_cipher: Cipher = "mesh.cipher", Cipher::Auto,
        "Cipher of packets that the agent moves: AES-256-GCM where both processors have instructions for it, else ChaCha20-Poly1305; or always that.";
    lan_interfaces: Interfaces = "lan.interfaces", Interfaces::Auto,
        "Interfaces whose hosts get addresses of this node's own network and reach the mesh through it.";
    uplink_share: bool = "uplink.share", false,
        "Whether this node lets the town use its Internet connection.";
    uplink_interface: UplinkInterface = "uplink.interface", UplinkInterface::Auto,
        "The interface of the Internet connection: where the machine's default route leads, or the one named.";
    uplink_gateways: Gateways = "uplink.gateways", Gateways::default(),
        "Through whom this node reaches the Internet: any node of the town that shares, nobody, or only the nodes named.";
    log_level: LogFilter = "log.level", LogFilter("info".into()),
        "How much is logged to standard error.";
}

/// What stands beside the file.
pub(crate) struct Overrides<'a> {
    /// Reads an environment variable.
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
    /// `KEY=VALUE` of each `--set` flag.
    pub(crate) flags: &'a [String],
}

/// The environment variable that sets a key: `GRANGE_LOG` for the log level, else `GRANGE_` and the key in capitals.
pub(crate) fn variable(key: &str) -> String {
    if key == "log.level" { "GRANGE_LOG".into() } else { format!("GRANGE_{}", key.replace('.', "_").to_uppercase()) }
}

/// Reads the configuration. `file`: the name to show and the text, if there is a file.
///
/// # Errors
/// Everything that is wrong, in the order of the lines.
pub(crate) fn read(file: Option<(&Path, &str)>, overrides: &Overrides<'_>) -> Result<Config, Problems> {
    let mut given = Given::default();
    if let Some((path, text)) = file {
        given.file(&path.display().to_string(), text);
    }
    for key in Config::KEYS {
        let name = variable(key);
        if let Some(text) = (overrides.environment)(&name) {
            given.text(key, &text, Origin::Environment(name.clone()), format!("environment {name}"));
        }
    }
    for flag in overrides.flags {
        given.flag(flag);
    }
    let config = Config::take(&mut given);
    if given.problems.is_empty() {
        Ok(config)
    } else {
        given.problems.sort_by_key(|problem| problem.line);
        Err(Problems(given.problems))
    }
}

struct Entry {
    value: Raw,
    origin: Origin,
    place: String,
    line: usize,
}

/// The values that someone gave, before they are checked.
#[derive(Default)]
struct Given {
    entries: BTreeMap<String, Entry>,
    problems: Vec<Problem>,
}

impl Given {
    fn file(&mut self, path: &str, text: &str) {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = line_of(error.span().map_or(0, |span| span.start));
            let message = error.message().split('\n').collect::<Vec<_>>().join(", ");
            self.problems.push(Problem {
                place: format!("{path}:{line}"),
                line,
                text: format!("this is not TOML: {message}"),
            });
        }
        if !self.problems.is_empty() {
            // What follows a syntax error may be read wrongly: one mistake would be reported as many.
            return;
        }
        for (key, value) in table.into_inner() {
            self.file_entry(path, &line_of, None, &key, value);
        }
    }

    fn file_entry(
        &mut self,
        path: &str,
        line_of: &dyn Fn(usize) -> usize,
        section: Option<&str>,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: Spanned<DeValue<'_>>,
    ) {
        let line = line_of(key.span().start);
        let place = format!("{path}:{line}");
        let name = section.map_or_else(|| key.as_ref().to_string(), |section| format!("{section}.{}", key.as_ref()));
        let is_section = Config::KEYS.iter().any(|known| known.strip_prefix(&name).is_some_and(|r| r.starts_with('.')));
        let is_key = Config::KEYS.contains(&name.as_str());
        let mut problem = |text| self.problems.push(Problem { place: place.clone(), line, text });
        match value.into_inner() {
            DeValue::Table(table) if is_section => {
                for (key, value) in table {
                    self.file_entry(path, line_of, Some(&name), &key, value);
                }
            }
            value if is_section => {
                problem(format!("{name}: expected a section [{name}], found {}", Raw::from(&value)));
            }
            value if is_key => {
                self.entries.insert(
                    name,
                    Entry { value: Raw::from(&value), origin: Origin::File { path: path.into(), line }, place, line },
                );
            }
            DeValue::Table(_) if section.is_none() => {
                let sections = Config::KEYS.iter().filter_map(|known| known.split_once('.').map(|(s, _)| s));
                problem(match nearest(&name, sections) {
                    Some(near) => format!("{name}: there is no such section; did you mean [{near}]?"),
                    None => format!("{name}: there is no such section; `grange config` lists all settings"),
                });
            }
            _ => problem(unknown(&name)),
        }
    }

    fn flag(&mut self, flag: &str) {
        let place = format!("--set {flag}");
        let line = usize::MAX;
        let Some((key, text)) = flag.split_once('=') else {
            let text = "expected KEY=VALUE, as in --set uplink.share=true".into();
            self.problems.push(Problem { place, line, text });
            return;
        };
        let key = key.trim();
        if Config::KEYS.contains(&key) {
            self.text(key, text.trim(), Origin::Flag(format!("--set {key}")), format!("--set {key}"));
        } else {
            self.problems.push(Problem { place: "--set".into(), line, text: unknown(key) });
        }
    }

    /// A value from the environment or a flag: TOML, or else the text itself.
    fn text(&mut self, key: &str, text: &str, origin: Origin, place: String) {
        let value = match DeValue::parse(text) {
            Ok(value) => Raw::from(value.as_ref()),
            Err(_) => Raw::Text(text.to_owned()),
        };
        self.entries.insert(key.into(), Entry { value, origin, place, line: usize::MAX });
    }

    fn take<T: Value>(&mut self, key: &str, default: impl FnOnce() -> T) -> Setting<T> {
        let Some(entry) = self.entries.remove(key) else {
            return Setting { value: default(), origin: Origin::Default };
        };
        match T::read(&entry.value) {
            Ok(value) => Setting { value, origin: entry.origin },
            Err(reason) => {
                let reason = reason.unwrap_or_else(|| format!("expected {}, found {}", T::EXPECTED, entry.value));
                self.problems.push(Problem { place: entry.place, line: entry.line, text: format!("{key}: {reason}") });
                Setting { value: default(), origin: entry.origin }
            }
        }
    }
}

fn unknown(name: &str) -> String {
    // A key in the wrong section is as common as a mistyped one, and surer to be meant.
    let elsewhere = Config::KEYS.iter().find(|known| known.rsplit('.').next() == name.rsplit('.').next());
    match elsewhere.copied().or_else(|| nearest(name, Config::KEYS.iter().copied())) {
        Some(near) => format!("{name}: there is no such setting; did you mean {near}?"),
        None => format!("{name}: there is no such setting; `grange config` lists all settings"),
    }
}
