//! Kinds of configuration values: what each accepts, and how it is written.

use std::net::Ipv6Addr;

use grange_core::GatewayPolicy;
use grange_mesh::{MAX_STATIC_PEERS, ParsePeerError, StaticPeer};
use grange_wire::{MESH_V6, NodeId};

use super::raw::Raw;

/// More names in one list than this are refused.
const MAX_NAMES: usize = 256;

/// A kind of value.
pub(crate) trait Value: Sized {
    /// What is accepted, to stand behind "expected".
    const EXPECTED: &'static str;

    /// The value.
    ///
    /// # Errors
    /// `None`: it is not what [`Self::EXPECTED`] says; `Some`: the reason, instead of that.
    fn read(value: &Raw) -> Result<Self, Option<String>>;

    /// The value as TOML.
    fn show(&self) -> String;
}

fn quoted(text: &str) -> String {
    // JSON's escapes are TOML's as far as names and levels go.
    serde_json::Value::from(text).to_string()
}

fn quoted_list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
}

/// Texts of a list; the error names the element that is none.
fn texts(value: &Raw, limit: usize) -> Result<Vec<&str>, Option<String>> {
    let Raw::List(list) = value else { return Err(None) };
    if list.len() > limit {
        return Err(Some(format!("expected at most {limit} entries, found {}", list.len())));
    }
    list.iter()
        .map(|item| item.text().ok_or_else(|| Some(format!("expected texts in the list, found {item}"))))
        .collect()
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        if let Raw::Boolean(value) = value { Ok(*value) } else { Err(None) }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port(pub(crate) u16);

impl Value for Port {
    const EXPECTED: &'static str = "a port number from 1 to 65535";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        match value {
            Raw::Integer(Some(number), _) => u16::try_from(*number).ok().filter(|port| *port > 0).map(Self).ok_or(None),
            _ => Err(None),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// The name that a node gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeName(pub(crate) String);

impl NodeName {
    /// The host name, as far as it makes a node's name.
    pub(crate) fn of_host() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut name = String::new();
        for character in host.trim().chars().filter(|c| !c.is_control()) {
            if name.len() + character.len_utf8() > 32 {
                break;
            }
            name.push(character);
        }
        Self(if name.is_empty() { "grange".into() } else { name })
    }
}

impl Value for NodeName {
    const EXPECTED: &'static str = "a name of 1 to 32 bytes without control characters";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        let name = value.text().ok_or(None)?;
        let good = !name.is_empty() && name.len() <= 32 && name.trim() == name && !name.chars().any(char::is_control);
        if good { Ok(Self(name.into())) } else { Err(None) }
    }

    fn show(&self) -> String {
        quoted(&self.0)
    }
}

/// Whether Linux could name an interface so.
fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

fn interface_names(value: &Raw) -> Result<Vec<String>, Option<String>> {
    let names = texts(value, MAX_NAMES)?;
    match names.iter().find(|name| !is_interface_name(name)) {
        Some(bad) => Err(Some(format!("{bad:?} is no interface name (1 to 15 bytes, without '/', ':' and blanks)"))),
        None => Ok(names.into_iter().map(String::from).collect()),
    }
}

/// The name of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceName(pub(crate) String);

impl Value for InterfaceName {
    const EXPECTED: &'static str = "an interface name (1 to 15 bytes, without '/', ':' and blanks)";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        let name = value.text().ok_or(None)?;
        if is_interface_name(name) { Ok(Self(name.into())) } else { Err(None) }
    }

    fn show(&self) -> String {
        quoted(&self.0)
    }
}

/// Interfaces by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InterfaceList(pub(crate) Vec<String>);

impl Value for InterfaceList {
    const EXPECTED: &'static str = "a list of interface names, as in [\"eth0\", \"wlan0\"]";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        interface_names(value).map(Self)
    }

    fn show(&self) -> String {
        quoted_list(self.0.iter().map(String::as_str))
    }
}

/// Interfaces by name, or those that grange finds itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interfaces {
    /// What the machine tells.
    Auto,
    /// These.
    These(Vec<String>),
}

impl Value for Interfaces {
    const EXPECTED: &'static str = "\"auto\" or a list of interface names, as in [\"eth0\", \"wlan0\"]";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        if value.text() == Some("auto") { Ok(Self::Auto) } else { interface_names(value).map(Self::These) }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => quoted("auto"),
            Self::These(names) => quoted_list(names.iter().map(String::as_str)),
        }
    }
}

/// One interface by name, or the one that grange finds itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UplinkInterface {
    /// Where the machine's default route leads.
    Auto,
    /// This one.
    This(String),
}

impl Value for UplinkInterface {
    const EXPECTED: &'static str = "\"auto\" or an interface name, as in \"wan\"";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        match value.text().ok_or(None)? {
            "auto" => Ok(Self::Auto),
            name if is_interface_name(name) => Ok(Self::This(name.into())),
            _ => Err(None),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => quoted("auto"),
            Self::This(name) => quoted(name),
        }
    }
}

/// A choice between what is best here and one thing.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident, $(#[$only_meta:meta])* $only:ident = $word:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            /// What is best where both ends have it.
            Auto,
            $(#[$only_meta])*
            $only,
        }

        impl Value for $name {
            const EXPECTED: &'static str = concat!("\"auto\" or \"", $word, "\"");

            fn read(value: &Raw) -> Result<Self, Option<String>> {
                match value.text() {
                    Some("auto") => Ok(Self::Auto),
                    Some($word) => Ok(Self::$only),
                    _ => Err(None),
                }
            }

            fn show(&self) -> String {
                quoted(match self {
                    Self::Auto => "auto",
                    Self::$only => $word,
                })
            }
        }
    };
}

choice! {
    /// What moves packets.
    Plane,
    /// The agent.
    Userspace = "userspace"
}

choice! {
    /// What encrypts packets that the agent moves.
    Cipher,
    /// RFC 8439: fast on every processor.
    ChaCha20Poly1305 = "chacha20-poly1305"
}

/// Peers at fixed places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers(pub(crate) Vec<StaticPeer>);

impl Value for Peers {
    const EXPECTED: &'static str = "a list of host:port, as in [\"mill.example.org:7264\", \"[2001:db8::1]:7264\"]";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        texts(value, MAX_STATIC_PEERS)?
            .into_iter()
            .map(|text| text.parse().map_err(|why: ParsePeerError| Some(format!("{text:?} is no peer: {why}"))))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn show(&self) -> String {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        quoted_list(texts.iter().map(String::as_str))
    }
}

/// Whose default routes are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateways(pub(crate) GatewayPolicy);

/// A node by its id or its address. An address holds the first 120 bits of the id, and policy compares no more than those.
fn node(text: &str) -> Option<NodeId> {
    let mut id = [0; 32];
    if let Ok(addr) = text.parse::<Ipv6Addr>() {
        if !MESH_V6.contains(addr.into()) {
            return None;
        }
        id[..15].copy_from_slice(&addr.octets()[1..]);
        return Some(NodeId(id));
    }
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok().map(NodeId)
}

impl Value for Gateways {
    const EXPECTED: &'static str = "\"any\", \"nobody\" or a list of node addresses or ids";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        match value.text() {
            Some("any") => return Ok(Self(GatewayPolicy::Any)),
            Some("nobody") => return Ok(Self(GatewayPolicy::Nobody)),
            _ => {}
        }
        texts(value, MAX_NAMES)?
            .into_iter()
            .map(|text| {
                node(text).ok_or_else(|| {
                    Some(format!(
                        "{text:?} is no node: expected its address, as `grange key` shows it, or its id of 64 hexadecimal digits"
                    ))
                })
            })
            .collect::<Result<_, _>>()
            .map(|nodes| Self(GatewayPolicy::Only(nodes)))
    }

    fn show(&self) -> String {
        match &self.0 {
            GatewayPolicy::Any => quoted("any"),
            GatewayPolicy::Nobody => quoted("nobody"),
            GatewayPolicy::Only(nodes) => {
                let texts: Vec<String> = nodes
                    .iter()
                    .map(|id| {
                        let by_address = id.0[15..].iter().all(|byte| *byte == 0);
                        if by_address { grange_wire::node_address(id).to_string() } else { id.to_string() }
                    })
                    .collect();
                quoted_list(texts.iter().map(String::as_str))
            }
        }
    }
}

/// How much is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter(pub(crate) String);

impl Value for LogFilter {
    const EXPECTED: &'static str =
        "a level (off, error, warn, info, debug, trace), or one for each part, as in \"info,grange_mesh=debug\"";

    fn read(value: &Raw) -> Result<Self, Option<String>> {
        let text = value.text().ok_or(None)?;
        let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let good = text.split(',').map(str::trim).all(|part| match part.split_once('=') {
            Some((target, level)) => {
                is_level(level)
                    && !target.is_empty()
                    && target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
            }
            None => is_level(part),
        });
        if good { Ok(Self(text.into())) } else { Err(None) }
    }

    fn show(&self) -> String {
        quoted(&self.0)
    }
}
