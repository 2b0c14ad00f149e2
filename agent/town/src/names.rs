//! Names of nodes and services, and what they are in the DNS (`docs/town.md`, Names).
//!
//! The town's zone is `<town>.internal`; a node is `<label>.<town>.internal` and a service
//! `_<service>._<transport>.<label>.<town>.internal`, after RFC 2782. `internal` is the domain that ICANN keeps for private
//! use. This module answers out of a [`TownState`]; the DNS server asks it and speaks the protocol.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use grange_wire::{NodeId, node_address, node_address_v4};
use serde::Serialize;

use crate::{fact::Transport, fold::TownState};

/// The longest label (RFC 1035, section 2.3.4).
const LABEL_MAX: usize = 63;
/// The domain that every town's zone is in.
const INTERNAL: &str = "internal";
/// Labels that are nobody's: what people's devices look for by themselves, and what Grange itself answers.
pub const RESERVED: [&str; 18] = [
    "autoconfig",
    "autodiscover",
    "broadcasthost",
    "dns",
    "gateway",
    "grange",
    "internal",
    "isatap",
    "local",
    "localhost",
    "mail",
    "ns",
    "ntp",
    "resolver",
    "router",
    "time",
    "town",
    "wpad",
];

/// A label as host names have it: 1 to 63 of `a` to `z`, `0` to `9` and `-`, no `-` at either end (RFC 1123, section 2.1), none that
/// looks like an encoded one (`--` at places 3 and 4, RFC 5891, section 4.2.3.1), and not reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(String);

/// Why a text is no [`Label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
pub enum LabelError {
    /// None or too many characters.
    #[error("a name has 1 to 63 characters")]
    Length,
    /// A character that is none of those allowed.
    #[error("{0:?} cannot be in a name: small letters a to z, digits and hyphens can")]
    Character(char),
    /// It begins or ends with a hyphen, or has two where encoded names have them.
    #[error("a name does not begin or end with a hyphen, and has no two of them as third and fourth character")]
    Hyphen,
    /// It is one of [`RESERVED`].
    #[error("that name is kept for the town itself or for what devices look for")]
    Reserved,
}

impl Label {
    /// The label that this text is.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(text: &str) -> Result<Self, LabelError> {
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(LabelError::Character(bad));
        }
        if text.is_empty() || text.len() > LABEL_MAX {
            return Err(LabelError::Length);
        }
        if text.starts_with('-') || text.ends_with('-') || text.get(2..4) == Some("--") {
            return Err(LabelError::Hyphen);
        }
        if RESERVED.contains(&text) { Err(LabelError::Reserved) } else { Ok(Self(text.into())) }
    }

    /// The label that comes nearest to a text that people chose, such as a host's name or a town's; `None` if nothing of it is
    /// left. Letters become small, the usual Latin letters with marks their plain ones (`ü`: `ue`, `é`: `e`), every
    /// run of anything else one hyphen.
    #[must_use]
    pub fn nearest(text: &str) -> Option<Self> {
        let mut label = String::new();
        for character in text.chars().flat_map(char::to_lowercase) {
            match plain(character) {
                Some(letters) => label.push_str(letters),
                None if matches!(character, 'a'..='z' | '0'..='9') => label.push(character),
                // A mark on the letter before, as decomposed texts have it.
                None if matches!(character, '\u{300}'..='\u{36f}' | '\'' | '’') => {}
                None if !label.ends_with('-') => label.push('-'),
                None => {}
            }
        }
        label.truncate(LABEL_MAX);
        let label = label.trim_matches('-');
        Self::new(label).ok()
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This label with the beginning of an id behind it: what a node is called that came second. `digits`: how many of the
    /// id's 64 hexadecimal digits.
    #[must_use]
    pub(crate) fn with_id(&self, id: &NodeId, digits: usize) -> String {
        let digits = digits.min(LABEL_MAX - 2);
        let hex: String = id.to_string().chars().take(digits).collect();
        let room = LABEL_MAX - digits - 1;
        let head = self.0.get(..self.0.len().min(room)).unwrap_or_default().trim_end_matches('-');
        format!("{head}-{hex}")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The plain letters for a Latin letter with a mark, in the way of those who have it in their alphabet.
fn plain(character: char) -> Option<&'static str> {
    Some(match character {
        'ä' | 'æ' => "ae",
        'ö' | 'ø' | 'œ' => "oe",
        'ü' => "ue",
        'ß' => "ss",
        'å' => "aa",
        'þ' => "th",
        'à' | 'á' | 'â' | 'ã' | 'ā' | 'ă' | 'ą' => "a",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ė' | 'ę' | 'ě' => "e",
        'ğ' => "g",
        'ì' | 'í' | 'î' | 'ï' | 'ī' | 'į' | 'ı' => "i",
        'ł' | 'ľ' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ō' | 'ő' => "o",
        'ŕ' | 'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ť' | 'ț' | 'ţ' => "t",
        'ù' | 'ú' | 'û' | 'ū' | 'ů' | 'ű' | 'ų' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

/// The label of a town in the DNS: the one nearest to its name; where nothing of the name is left (it is in another script), or
/// what is left is reserved, `town-` and the first eight digits of the town's id.
#[must_use]
pub fn town_label(name: &str, town: &grange_wire::TownId) -> String {
    match Label::nearest(name) {
        Some(label) => label.0,
        None => format!("town-{}", town.to_string().get(..8).unwrap_or_default()),
    }
}

/// What the DNS server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// Services at a node: port and the node's full name.
    Services(Vec<(u16, String)>),
    /// The name exists but has nothing of its own, as the zone itself.
    Nothing,
    /// There is no such name in the town.
    NoSuchName,
    /// The name is not of this town: ask the resolvers of the uplink.
    Elsewhere,
}

/// The town's names, out of one state.
#[derive(Clone, Copy, Debug)]
pub struct Zone<'a> {
    state: &'a TownState,
}

impl<'a> Zone<'a> {
    /// The names of this state.
    #[must_use]
    pub fn new(state: &'a TownState) -> Self {
        Self { state }
    }

    /// The zone's name, as `oberdorf.internal`, without a dot at its end.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}.{INTERNAL}", self.state.label)
    }

    /// The full name of a node, if it has a name.
    #[must_use]
    pub fn name_of(&self, node: &NodeId) -> Option<String> {
        let at = self.state.names.binary_search_by(|named| named.node.cmp(node)).ok()?;
        Some(format!("{}.{}", self.state.names[at].shown, self.origin()))
    }

    /// What a name stands for. Capitals and a dot at the end do not matter. A node can also be named by at least eight
    /// digits of its id, if no other node's begins with them.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let origin = self.origin();
        if name == origin {
            return Answer::Nothing;
        }
        let Some(inner) = name.strip_suffix(&origin).and_then(|inner| inner.strip_suffix('.')) else {
            return Answer::Elsewhere;
        };
        let labels: Vec<&str> = inner.split('.').collect();
        match labels[..] {
            [label] => self.node(label).map_or(Answer::NoSuchName, |node| Answer::Addresses(self.addresses(&node))),
            [service, transport, label] => self.services(service, transport, label),
            _ => Answer::NoSuchName,
        }
    }

    /// The node that has this label, or this beginning of an id.
    #[must_use]
    pub fn node(&self, label: &str) -> Option<NodeId> {
        let shown = self.state.names.iter().find(|named| named.shown == label).map(|named| named.node);
        shown.or_else(|| {
            let digits = label.len() >= 8 && label.bytes().all(|byte| byte.is_ascii_hexdigit());
            let mut found = self.state.members.iter().filter(|member| digits && starts_with(&member.node, label));
            match (found.next(), found.next()) {
                (Some(member), None) => Some(member.node),
                _ => None,
            }
        })
    }

    /// A member's addresses: IPv6 always, IPv4 where no lower id has the same one.
    #[must_use]
    pub fn addresses(&self, node: &NodeId) -> Vec<IpAddr> {
        let mut addresses = vec![IpAddr::V6(node_address(node))];
        addresses.extend(self.v4(node).map(IpAddr::V4));
        addresses
    }

    /// A member's IPv4 address, unless a lower id has it.
    #[must_use]
    pub fn v4(&self, node: &NodeId) -> Option<Ipv4Addr> {
        let address = node_address_v4(node);
        let clash = self.state.clashes.iter().find(|clash| clash.address == address);
        clash.is_none_or(|clash| clash.holder == *node).then_some(address)
    }

    /// The full name of the node that has an address; `None`: nobody of this town, or one without a name.
    #[must_use]
    pub fn reverse(&self, address: IpAddr) -> Option<String> {
        let has = |node: &NodeId| match address {
            IpAddr::V6(address) => node_address(node) == address,
            IpAddr::V4(address) => self.v4(node) == Some(address),
        };
        let named = self.state.names.iter().find(|named| has(&named.node))?;
        self.name_of(&named.node)
    }

    /// As [`Zone::reverse`], for a name under `ip6.arpa` or `in-addr.arpa` (RFC 3596, section 2.5; RFC 1035, section 3.5).
    #[must_use]
    pub fn reverse_name(&self, name: &str) -> Option<String> {
        self.reverse(arpa(name)?)
    }

    fn services(&self, service: &str, transport: &str, label: &str) -> Answer {
        let (Some(service), transport) = (
            service.strip_prefix('_'),
            match transport {
                "_tcp" => Transport::Tcp,
                "_udp" => Transport::Udp,
                _ => return Answer::NoSuchName,
            },
        ) else {
            return Answer::NoSuchName;
        };
        let Some(named) = self.state.names.iter().find(|named| named.shown == label) else { return Answer::NoSuchName };
        let host = format!("{label}.{}", self.origin());
        let found: Vec<_> = named
            .services
            .iter()
            .filter(|offered| offered.name == service && offered.transport == transport)
            .map(|offered| (offered.port, host.clone()))
            .collect();
        if found.is_empty() { Answer::NoSuchName } else { Answer::Services(found) }
    }
}

fn starts_with(id: &NodeId, digits: &str) -> bool {
    digits.len() <= 64 && id.to_string().starts_with(digits)
}

/// The address that a reverse name stands for.
fn arpa(name: &str) -> Option<IpAddr> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<u8> = octets.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [d, c, b, a] = parts[..] else { return None };
        return Some(Ipv4Addr::new(a, b, c, d).into());
    }
    let nibbles: Vec<u8> = name
        .strip_suffix(".ip6.arpa")?
        .split('.')
        .map(|digit| if digit.len() == 1 { u8::from_str_radix(digit, 16).ok() } else { None })
        .collect::<Option<_>>()?;
    if nibbles.len() != 32 {
        return None;
    }
    let value = nibbles.iter().rev().fold(0_u128, |value, nibble| value << 4 | u128::from(*nibble));
    Some(Ipv6Addr::from(value).into())
}

#[cfg(test)]
mod tests {
    use grange_wire::TownId;

    use super::*;

    #[test]
    fn labels_are_host_names() {
        let longest = "x".repeat(63);
        for good in ["a", "mill", "3f", "a-b-c", &longest] {
            assert_eq!(Label::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(64);
        for (bad, why) in [
            ("", LabelError::Length),
            (long.as_str(), LabelError::Length),
            ("Mill", LabelError::Character('M')),
            ("mühle", LabelError::Character('ü')),
            ("a.b", LabelError::Character('.')),
            ("-a", LabelError::Hyphen),
            ("a-", LabelError::Hyphen),
            ("xn--mhle-kva", LabelError::Hyphen),
            ("localhost", LabelError::Reserved),
        ] {
            assert_eq!(Label::new(bad), Err(why), "{bad:?}");
        }
        for reserved in RESERVED {
            assert_eq!(Label::new(reserved), Err(LabelError::Reserved));
        }
    }

    #[test]
    fn a_towns_label_follows_from_its_name() {
        let id = TownId([0xab; 16]);
        for (name, label) in [
            ("Oberdorf", "oberdorf"),
            ("Mühle am Bach", "muehle-am-bach"),
            ("Mu\u{308}hle", "muhle"),
            ("Straße 12 / Hof", "strasse-12-hof"),
            ("L'Hôpital", "lhopital"),
            ("Łódź (west)", "lodz-west"),
            ("Москва", "town-abababab"),
            ("М 7", "7"),
            ("Router", "town-abababab"),
            ("x\u{2013}\u{2013}y", "x-y"),
        ] {
            assert_eq!(town_label(name, &id), label, "{name}");
        }
        let long = town_label(&"ß".repeat(40), &id);
        assert_eq!(long.len(), 63);
    }

    #[test]
    fn the_second_of_a_name_stays_a_label() {
        let id = NodeId([0x3f; 32]);
        let longest = "x".repeat(63);
        let label = |text: &str| Label::new(text).unwrap();
        assert_eq!(label("mill").with_id(&id, 4), "mill-3f3f");
        for digits in 4..=64 {
            for text in ["a", "ab", &longest, "a-b-c-d-e-f"] {
                let shown = label(text).with_id(&id, digits);
                assert!(Label::new(&shown).is_ok(), "{shown}");
            }
        }
    }
}
