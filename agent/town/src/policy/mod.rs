//! The policy: the rules that all nodes of a town follow, as a TOML document that the stewards decide (`docs/town.md`, Policy).
//!
//! A document is taken as a whole or not at all. What it does not say has the value of a new town.

mod value;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub use value::{
    Allowed, AtLeast, AtMost, Fixed, Gateways, LIST_MAX, Limit, Required, Settlement, Version, Wanted, Weights, Within,
    Without,
};
use value::{Value, found};

use crate::{fact::POLICY_MAX, nearest};

/// Mistakes that are reported of one document, at most: anybody can send one that has thousands.
const PROBLEMS_MAX: usize = 20;
/// The version of the document that this program knows.
const VERSION: u64 = 1;

/// One mistake in a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// Counted from 1.
    pub line: usize,
    /// The key, what is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// The mistakes of a document, in the order of its lines: at least one, and at most 20.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyProblems(pub Vec<PolicyProblem>);

impl PolicyProblems {
    /// The first mistake as a sentence.
    pub(crate) fn first(&self) -> String {
        self.0.first().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for PolicyProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// A key, for showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// As in `store.copies`.
    pub key: &'static str,
    /// As TOML.
    pub value: String,
    /// What it means.
    pub meaning: &'static str,
    /// What it may be.
    pub expected: String,
    /// Whether a node's own settings may make it stricter.
    pub local: bool,
}

macro_rules! settings {
    ($($field:ident: $type:ty = $key:literal, $default:expr, $meaning:literal;)*) => {
        /// The rules of a town.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Policy {
            $(#[doc = $meaning] pub $field: $type,)*
        }

        impl Default for Policy {
            /// The rules of a new town.
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Policy {
            /// All keys, in the order of the document.
            pub const KEYS: &'static [&'static str] = &[$($key),*];

            fn take(given: &mut Given<'_>) -> Self {
                Self { $($field: given.take($key).unwrap_or_else(|| $default),)* }
            }

            /// All keys with their values.
            #[must_use]
            pub fn rows(&self) -> Vec<PolicyRow> {
                vec![$(PolicyRow {
                    key: $key,
                    value: self.$field.show(),
                    meaning: $meaning,
                    expected: <$type as Value>::expected(),
                    local: <$type as Value>::LOCAL,
                }),*]
            }

            /// These rules, made stricter by a node's own settings: what both allow.
            #[must_use]
            pub fn merge_local(&self, local: &LocalSettings) -> Self {
                Self { $($field: match &local.$field {
                    Some(local) => self.$field.stricter(local),
                    None => self.$field.clone(),
                },)* }
            }

            /// The first key in which these rules allow something that `other` does not.
            #[must_use]
            pub fn looser_than(&self, other: &Self) -> Option<&'static str> {
                $(if !self.$field.within(&other.$field) {
                    return Some($key);
                })*
                None
            }
        }

        /// What a node's owner asks for beyond the town's rules: for each key a value, or nothing.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct LocalSettings {
            $(#[doc = $meaning] pub $field: Option<$type>,)*
        }

        impl LocalSettings {
            fn take(given: &mut Given<'_>) -> Self {
                Self { $($field: if <$type as Value>::LOCAL {
                    given.take($key)
                } else {
                    given.refuse($key);
                    None
                },)* }
            }
        }
    };
}

settings! {
    uplink_gateways: Gateways = "uplink.gateways", Gateways(grange_core::GatewayPolicy::Any),
        "Nodes whose Internet connections the town uses.";
    uplink_weights: Weights = "uplink.weights", Weights::default(),
        "Shares of households at a busy gateway; those that are not named have 1.";
    uplink_quota_gb: Limit<0, 1_000_000> = "uplink.quota_gb", Limit(0),
        "Gigabytes that a household may move in a month at full speed; 0: any number.";
    uplink_slow_kbit: AtMost<0, 10_000_000> = "uplink.slow_kbit", AtMost(1000),
        "Speed in kbit/s of a household beyond its quota.";
    uplink_test_mb: AtMost<0, 10_000> = "uplink.test_mb", AtMost(50),
        "Megabytes a day that a gateway may spend on tests of its connection.";
    uplink_settlement: Settlement = "uplink.settlement", Settlement::Equal,
        "How the cost of the connections is divided: equally, by use, or half and half.";
    guests_allowed: Allowed = "guests.allowed", Allowed(true),
        "Whether members may let guests in with vouchers.";
    guests_hours: AtMost<1, 8784> = "guests.hours", AtMost(168),
        "Hours that a voucher lasts at most.";
    guests_quota_mb: Limit<0, 1_000_000> = "guests.quota_mb", Limit(10_000),
        "Megabytes that a voucher holds at most; 0: any number.";
    store_copies: AtLeast<1, 8> = "store.copies", AtLeast(4),
        "Copies that the town keeps of every chunk.";
    store_quota_gb: Limit<0, 1_000_000> = "store.quota_gb", Limit(0),
        "Gigabytes that a household may keep in the store, copies not counted; 0: any number.";
    store_repair_percent: AtMost<1, 80> = "store.repair_percent", AtMost(30),
        "Share of the measured airtime that making lost copies again may use.";
    store_grace_days: AtLeast<1, 365> = "store.grace_days", AtLeast(30),
        "Days that a chunk stays after its last lease ended.";
    credits_carried: Fixed<0, 1_000_000> = "credits.carried", Fixed(1),
        "Credits for a gigabyte carried for others.";
    credits_kept: Fixed<0, 1_000_000> = "credits.kept", Fixed(1),
        "Credits for a gigabyte kept for others for a month.";
    babel_accept: Within = "babel.accept", Within::default(),
        "Prefixes within which routes are taken from another network's Babel routers.";
    babel_announce: Within = "babel.announce", Within::default(),
        "Prefixes within which routes are told to another network's Babel routers.";
    babel_deny: Without = "babel.deny", Without::default(),
        "Prefixes within which no routes are taken from them or told to them.";
    seals_required: Required = "seals.required", Required(true),
        "Whether nodes seal all that they send to nodes that are not neighbours.";
    firmware_minimum: Version = "firmware.minimum", Version([0, 0, 0]),
        "The lowest version of grange that nodes should run; others are shown.";
    firmware_wanted: Wanted = "firmware.wanted", Wanted(Version([0, 0, 0])),
        "The version of grange that nodes update to; 0.0.0: none.";
}

impl Policy {
    /// The rules that a document says. Keys that it leaves out have the values of a new town.
    ///
    /// # Errors
    /// What is wrong, in the order of the lines; then none of it counts.
    pub fn parse(text: &str) -> Result<Self, PolicyProblems> {
        let mut given = Given::read(text);
        let policy = Self::take(&mut given);
        let (wanted, minimum) = (policy.firmware_wanted.0, policy.firmware_minimum);
        if wanted != Version::default() && wanted < minimum {
            let line = given.lines.get("firmware.wanted").copied().unwrap_or(1);
            let text = format!(
                "firmware.wanted: {wanted} is below firmware.minimum, {minimum}; raise it, or lower the minimum"
            );
            given.problem(line, text);
        }
        given.end(policy)
    }

    /// The whole document, with what each key means: for editing.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "# The policy of a Grange town. What is left out has the value of a new town.\nversion = {VERSION}\n"
        );
        let mut section = "";
        for row in self.rows() {
            let (head, key) = row.key.split_once('.').unwrap_or(("", row.key));
            if head != section {
                text.push_str(&format!("\n[{head}]\n"));
                section = head;
            }
            text.push_str(&format!("# {} Expected: {}.\n{key} = {}\n", row.meaning, row.expected, row.value));
        }
        text
    }

    /// What changes from these rules to others: two lines a key, `-` and `+`. Empty: nothing.
    #[must_use]
    pub fn diff(&self, new: &Self) -> Vec<String> {
        let both = self.rows().into_iter().zip(new.rows());
        both.filter(|(old, new)| old.value != new.value)
            .flat_map(|(old, new)| [format!("-{} = {}", old.key, old.value), format!("+{} = {}", new.key, new.value)])
            .collect()
    }
}

impl LocalSettings {
    /// What a node's owner wrote, in the form of a policy document.
    ///
    /// # Errors
    /// Everything that is wrong, keys among it that only the town decides.
    pub fn parse(text: &str) -> Result<Self, PolicyProblems> {
        let mut given = Given::read(text);
        let local = Self::take(&mut given);
        given.end(local)
    }
}

/// The values of a document before they are checked.
struct Given<'a> {
    values: BTreeMap<String, (usize, DeValue<'a>)>,
    lines: BTreeMap<String, usize>,
    problems: Vec<PolicyProblem>,
}

impl<'a> Given<'a> {
    fn read(text: &'a str) -> Self {
        let mut given = Self { values: BTreeMap::new(), lines: BTreeMap::new(), problems: Vec::new() };
        if text.len() > POLICY_MAX {
            let text =
                format!("the document has {} bytes, and may have {POLICY_MAX}: shorten its comments", text.len());
            given.problem(1, text);
            return given;
        }
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors.into_iter().take(PROBLEMS_MAX) {
            let message = error.message().split('\n').collect::<Vec<_>>().join(", ");
            given.problem(line_of(error.span().map_or(0, |span| span.start)), format!("this is not TOML: {message}"));
        }
        if given.problems.is_empty() {
            for (key, value) in table.into_inner() {
                given.entry(&line_of, None, &key, value);
            }
        }
        given
    }

    fn problem(&mut self, line: usize, text: String) {
        self.problems.push(PolicyProblem { line, text });
    }

    fn entry(
        &mut self,
        line_of: &dyn Fn(usize) -> usize,
        section: Option<&str>,
        key: &Spanned<Cow<'_, str>>,
        value: Spanned<DeValue<'a>>,
    ) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let line = line_of(key.span().start);
        let name = section.map_or_else(|| key.as_ref().to_string(), |section| format!("{section}.{}", key.as_ref()));
        let in_section = |known: &&str| known.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.'));
        let is_section = Policy::KEYS.iter().any(in_section);
        match value.into_inner() {
            DeValue::Table(table) if is_section => {
                for (key, value) in table {
                    self.entry(line_of, Some(&name), &key, value);
                }
            }
            value if is_section => {
                self.problem(line, format!("{name}: expected a section [{name}], found {}", found(&value)));
            }
            value if Policy::KEYS.contains(&name.as_str()) => {
                self.lines.insert(name.clone(), line);
                self.values.insert(name, (line, value));
            }
            value if name == "version" => {
                let known = matches!(&value, DeValue::Integer(number) if number.as_str() == VERSION.to_string());
                if !known {
                    let text = format!(
                        "version: this program knows version {VERSION} of the policy, found {}; update grange on this node",
                        found(&value)
                    );
                    self.problem(line, text);
                }
            }
            DeValue::Table(_) if section.is_none() => {
                let sections = Policy::KEYS.iter().filter_map(|known| known.split_once('.').map(|(head, _)| head));
                self.problem(
                    line,
                    match nearest(&name, sections) {
                        Some(near) => format!("{name}: there is no such section; did you mean [{near}]?"),
                        None => format!("{name}: there is no such section; `grange policy show` lists all keys"),
                    },
                );
            }
            _ => self.problem(line, unknown(&name)),
        }
    }

    fn take<T: Value>(&mut self, key: &str) -> Option<T> {
        let (line, value) = self.values.remove(key)?;
        match T::read(&value) {
            Ok(value) => Some(value),
            Err(reason) => {
                let reason = reason.unwrap_or_else(|| format!("expected {}, found {}", T::expected(), found(&value)));
                self.problem(line, format!("{key}: {reason}"));
                None
            }
        }
    }

    fn refuse(&mut self, key: &str) {
        if let Some((line, _)) = self.values.remove(key) {
            self.problem(line, format!("{key}: the town decides this for all; take it out here, or propose a policy"));
        }
    }

    fn end<T>(mut self, value: T) -> Result<T, PolicyProblems> {
        if self.problems.is_empty() {
            return Ok(value);
        }
        self.problems.sort();
        Err(PolicyProblems(self.problems))
    }
}

fn unknown(name: &str) -> String {
    // A key in the wrong section is as common as a mistyped one, and surer to be meant.
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let elsewhere = Policy::KEYS.iter().find(|known| last(known) == last(name));
    match elsewhere.copied().or_else(|| nearest(name, Policy::KEYS.iter().copied())) {
        Some(near) => format!("{name}: there is no such key; did you mean {near}?"),
        None => format!("{name}: there is no such key; `grange policy show` lists all keys"),
    }
}

#[cfg(test)]
mod tests;
