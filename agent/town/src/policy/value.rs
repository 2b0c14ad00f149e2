//! Kinds of values in a policy: what each accepts, how it is written, and which of two is stricter.

use std::{collections::BTreeMap, fmt, net::Ipv6Addr};

use data_encoding::HEXLOWER_PERMISSIVE;
use grange_core::GatewayPolicy;
use grange_wire::{MESH_V6, NodeId, Prefix, node_address};
use toml::{Spanned, de::DeValue};

/// More entries in one list than this are refused.
pub const LIST_MAX: usize = 128;

/// A kind of value.
pub(super) trait Value: Sized + Clone {
    /// Whether a node's own settings may make it stricter.
    const LOCAL: bool;

    /// What is accepted, to stand behind "expected".
    fn expected() -> String;

    /// The value.
    ///
    /// # Errors
    /// `None`: it is not what [`Self::expected`] says; `Some`: the reason, instead of that.
    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>>;

    /// The value as TOML.
    fn show(&self) -> String;

    /// The stricter of both: what each of them allows.
    fn stricter(&self, local: &Self) -> Self;

    /// Whether it allows nothing that `other` does not.
    fn within(&self, other: &Self) -> bool;
}

/// A value as a person would write it, shortened.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let short: String = text.chars().take(60).collect();
            let dots = if short.len() < text.len() { "..." } else { "" };
            format!("{:?}", format!("{short}{dots}"))
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(list) if list.is_empty() => "an empty list".into(),
        DeValue::Array(list) if list.len() == 1 => "a list of 1 entry".into(),
        DeValue::Array(list) => format!("a list of {} entries", list.len()),
        DeValue::Table(_) => "a section".into(),
    }
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn texts<'a>(value: &'a DeValue<'_>) -> Result<Vec<&'a str>, Option<String>> {
    let DeValue::Array(list) = value else { return Err(None) };
    if list.len() > LIST_MAX {
        return Err(Some(format!("expected at most {LIST_MAX} entries, found {}", list.len())));
    }
    let item = |item: &'a Spanned<DeValue<'_>>| match item.as_ref() {
        DeValue::String(text) => Ok(text.as_ref()),
        other => Err(Some(format!("expected texts in the list, found {}", found(other)))),
    };
    list.iter().map(item).collect()
}

pub(super) fn quoted(text: &str) -> String {
    // A basic string of TOML: quotes, backslashes and control characters escaped.
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.map(|item| quoted(&item)).collect::<Vec<_>>().join(", "))
}

macro_rules! number {
    ($(#[$meta:meta])* $name:ident, local $local:literal, |$a:ident, $b:ident| $stricter:expr, $within:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<const MIN: u64, const MAX: u64>(pub u64);

        impl<const MIN: u64, const MAX: u64> Value for $name<MIN, MAX> {
            const LOCAL: bool = $local;

            fn expected() -> String {
                format!("a whole number from {MIN} to {MAX}")
            }

            fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
                number(value).filter(|number| (MIN..=MAX).contains(number)).map(Self).ok_or(None)
            }

            fn show(&self) -> String {
                self.0.to_string()
            }

            fn stricter(&self, local: &Self) -> Self {
                let ($a, $b) = (self.0, local.0);
                Self($stricter)
            }

            fn within(&self, other: &Self) -> bool {
                let ($a, $b) = (self.0, other.0);
                $within
            }
        }
    };
}

number! {
    /// A number of which less is stricter.
    AtMost, local true, |a, b| a.min(b), a <= b
}

number! {
    /// A number of which more is stricter.
    AtLeast, local true, |a, b| a.max(b), a >= b
}

number! {
    /// A limit of which less is stricter; 0: no limit.
    Limit, local true, |a, b| if a == 0 || (b != 0 && b < a) { b } else { a }, b == 0 || (a != 0 && a <= b)
}

number! {
    /// A number that the town decides alone.
    Fixed, local false, |a, b| { let _ = b; a }, a == b
}

macro_rules! flag {
    ($(#[$meta:meta])* $name:ident, |$a:ident, $b:ident| $stricter:expr, $within:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub bool);

        impl Value for $name {
            const LOCAL: bool = true;

            fn expected() -> String {
                "true or false".into()
            }

            fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
                if let DeValue::Boolean(value) = value { Ok(Self(*value)) } else { Err(None) }
            }

            fn show(&self) -> String {
                self.0.to_string()
            }

            fn stricter(&self, local: &Self) -> Self {
                let ($a, $b) = (self.0, local.0);
                Self($stricter)
            }

            fn within(&self, other: &Self) -> bool {
                let ($a, $b) = (self.0, other.0);
                $within
            }
        }
    };
}

flag! {
    /// Something that is allowed: `false` is stricter.
    Allowed, |a, b| a && b, !a || b
}

flag! {
    /// Something that is asked for: `true` is stricter.
    Required, |a, b| a || b, a || !b
}

/// Nodes that may be gateways: fewer are stricter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateways(pub GatewayPolicy);

/// A node by its id or its address. An address holds the first 120 bits of the id, and no more of them are compared.
fn node(text: &str) -> Option<NodeId> {
    let mut id = [0; 32];
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        if !MESH_V6.contains(address.into()) {
            return None;
        }
        id[..15].copy_from_slice(&address.octets()[1..]);
        return Some(NodeId(id));
    }
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(NodeId)
}

impl Value for Gateways {
    const LOCAL: bool = true;

    fn expected() -> String {
        "\"any\", \"nobody\" or a list of node addresses or ids".into()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        match value {
            DeValue::String(word) if word == "any" => return Ok(Self(GatewayPolicy::Any)),
            DeValue::String(word) if word == "nobody" => return Ok(Self(GatewayPolicy::Nobody)),
            _ => {}
        }
        let read = |text: &str| {
            node(text).ok_or_else(|| {
                Some(format!(
                    "{text:?} is no node: expected its address, as `grange key` shows it, or its id of 64 hexadecimal digits"
                ))
            })
        };
        let nodes: Vec<NodeId> = texts(value)?.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self(if nodes.is_empty() { GatewayPolicy::Nobody } else { GatewayPolicy::Only(nodes) }))
    }

    fn show(&self) -> String {
        match &self.0 {
            GatewayPolicy::Any => quoted("any"),
            GatewayPolicy::Nobody => quoted("nobody"),
            GatewayPolicy::Only(nodes) => list(nodes.iter().map(|id| {
                let address_only = id.0[15..].iter().all(|byte| *byte == 0);
                if address_only { node_address(id).to_string() } else { id.to_string() }
            })),
        }
    }

    fn stricter(&self, local: &Self) -> Self {
        Self(match (&self.0, &local.0) {
            (GatewayPolicy::Any, other) | (other, GatewayPolicy::Any) => other.clone(),
            (GatewayPolicy::Nobody, _) | (_, GatewayPolicy::Nobody) => GatewayPolicy::Nobody,
            (GatewayPolicy::Only(nodes), other) => {
                let both: Vec<NodeId> = nodes.iter().filter(|node| other.allows(node)).copied().collect();
                if both.is_empty() { GatewayPolicy::Nobody } else { GatewayPolicy::Only(both) }
            }
        })
    }

    fn within(&self, other: &Self) -> bool {
        match &self.0 {
            GatewayPolicy::Any => other.0 == GatewayPolicy::Any,
            GatewayPolicy::Only(nodes) => nodes.iter().all(|node| other.0.allows(node)),
            GatewayPolicy::Nobody => true,
        }
    }
}

fn prefixes(value: &DeValue<'_>) -> Result<Vec<Prefix>, Option<String>> {
    let read = |text: &str| {
        let bad = || Some(format!("{text:?} is no prefix: expected one as in \"10.12.0.0/16\" or \"2001:db8::/32\""));
        text.parse().map_err(|_| bad())
    };
    texts(value)?.into_iter().map(read).collect()
}

const PREFIXES: &str = "a list of prefixes, as in [\"10.12.0.0/16\", \"2001:db8::/32\"]";

/// Whether all of `inner` lies in `outer`.
fn covers(outer: &Prefix, inner: &Prefix) -> bool {
    outer.is_v4() == inner.is_v4() && outer.len() <= inner.len() && outer.contains(inner.addr())
}

fn sorted(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    prefixes.sort_by_key(|prefix| (prefix.addr(), prefix.len()));
    prefixes.dedup();
    prefixes
}

/// Prefixes within which routes are taken or told: fewer are stricter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Within(pub Vec<Prefix>);

impl Within {
    /// Whether a route to this prefix may pass.
    #[must_use]
    pub fn allows(&self, prefix: &Prefix) -> bool {
        self.0.iter().any(|outer| covers(outer, prefix))
    }
}

impl Value for Within {
    const LOCAL: bool = true;

    fn expected() -> String {
        PREFIXES.into()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        prefixes(value).map(Self)
    }

    fn show(&self) -> String {
        list(self.0.iter().map(ToString::to_string))
    }

    fn stricter(&self, local: &Self) -> Self {
        // Two prefixes have nothing in common, or one lies in the other.
        let in_other = |one: &Self, other: &Self| one.0.iter().filter(|prefix| other.allows(prefix)).copied().collect();
        let mut both: Vec<Prefix> = in_other(self, local);
        both.extend::<Vec<Prefix>>(in_other(local, self));
        Self(sorted(both))
    }

    fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|prefix| other.allows(prefix))
    }
}

/// Prefixes within which no route is taken or told: more are stricter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Without(pub Vec<Prefix>);

impl Without {
    /// Whether a route to this prefix may pass.
    #[must_use]
    pub fn allows(&self, prefix: &Prefix) -> bool {
        !self.0.iter().any(|outer| covers(outer, prefix))
    }
}

impl Value for Without {
    const LOCAL: bool = true;

    fn expected() -> String {
        PREFIXES.into()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        prefixes(value).map(Self)
    }

    fn show(&self) -> String {
        list(self.0.iter().map(ToString::to_string))
    }

    fn stricter(&self, local: &Self) -> Self {
        Self(sorted(self.0.iter().chain(&local.0).copied().collect()))
    }

    fn within(&self, other: &Self) -> bool {
        other.0.iter().all(|prefix| !self.allows(prefix))
    }
}

/// Weights of households; those that are not named have 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(pub BTreeMap<String, u64>);

impl Weights {
    /// The weight of a household, from 1 to 100.
    #[must_use]
    pub fn of(&self, household: &str) -> u64 {
        self.0.get(household).copied().unwrap_or(1)
    }
}

impl Value for Weights {
    const LOCAL: bool = false;

    fn expected() -> String {
        "households with a weight from 1 to 100 each, as in { \"Meier\" = 2 }".into()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let DeValue::Table(table) = value else { return Err(None) };
        if table.len() > LIST_MAX {
            return Err(Some(format!("expected at most {LIST_MAX} households, found {}", table.len())));
        }
        let read = |name: &str, value: &DeValue<'_>| {
            let weight = number(value).filter(|weight| (1..=100).contains(weight));
            let bad = || format!("expected a weight from 1 to 100 for {name:?}, found {}", found(value));
            weight.map(|weight| (name.to_owned(), weight)).ok_or_else(|| Some(bad()))
        };
        table.iter().map(|(name, value)| read(name.as_ref(), value.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            return "{}".into();
        }
        let pairs: Vec<String> = self.0.iter().map(|(name, weight)| format!("{} = {weight}", quoted(name))).collect();
        format!("{{ {} }}", pairs.join(", "))
    }

    fn stricter(&self, _: &Self) -> Self {
        self.clone()
    }

    fn within(&self, other: &Self) -> bool {
        self == other
    }
}

/// How the cost of the uplinks is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Every household the same.
    Equal,
    /// By bytes.
    Use,
    /// Half and half.
    Mix,
}

impl Value for Settlement {
    const LOCAL: bool = false;

    fn expected() -> String {
        "\"equal\", \"use\" or \"mix\"".into()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let DeValue::String(word) = value else { return Err(None) };
        match word.as_ref() {
            "equal" => Ok(Self::Equal),
            "use" => Ok(Self::Use),
            "mix" => Ok(Self::Mix),
            _ => Err(None),
        }
    }

    fn show(&self) -> String {
        quoted(match self {
            Self::Equal => "equal",
            Self::Use => "use",
            Self::Mix => "mix",
        })
    }

    fn stricter(&self, _: &Self) -> Self {
        *self
    }

    fn within(&self, other: &Self) -> bool {
        self == other
    }
}

/// A version of the firmware, as in `0.3.12`: a higher one is stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u16; 3]);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Value for Version {
    const LOCAL: bool = true;

    fn expected() -> String {
        "a version of three numbers, as in \"0.3.12\"".into()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let DeValue::String(text) = value else { return Err(None) };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Option<Vec<u16>> = text.split('.').map(|part| part.parse().ok().filter(|_| digits(part))).collect();
        parts.and_then(|parts| parts.try_into().ok()).map(Self).ok_or(None)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }

    fn stricter(&self, local: &Self) -> Self {
        *self.max(local)
    }

    fn within(&self, other: &Self) -> bool {
        self >= other
    }
}

/// A version that the town decides alone; 0.0.0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted(pub Version);

impl Value for Wanted {
    const LOCAL: bool = false;

    fn expected() -> String {
        Version::expected()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        Version::read(value).map(Self)
    }

    fn show(&self) -> String {
        self.0.show()
    }

    fn stricter(&self, _: &Self) -> Self {
        *self
    }

    fn within(&self, other: &Self) -> bool {
        self == other
    }
}
