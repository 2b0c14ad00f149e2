//! An invitation: the string that lets a fresh router join a town with no server (`docs/protocol.md`, Invitation).
//!
//! ```text
//!    0  | ver u8 = 1 | flags u8 | uses u16 | expires u64 | town key [32] | signer [32] | invitation seed [32] |
//!  108  | signature of the signer [64] | name_len u8 | town name | town id [16], if flags | checksum [4] |
//! ```
//!
//! Flags 0: the signer founded the town. Flags 1: it is another steward, and the town's id stands there.
//!
//! As text: `grange1`, then base32 of these bytes. People type, copy and photograph it, so reading says what is wrong
//! with a damaged one, and where.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::TownId;

/// What every invitation begins with, so that a person and a router recognise it.
pub const INVITATION_PREFIX: &str = "grange1";
const VERSION: u8 = 1;
/// Bytes before the town's name, with its length.
const FIXED: usize = 173;
const CHECKSUM: usize = 4;
/// Bytes of the town's id, where it stands.
const TOWN: usize = 16;
/// The longest invitation in bytes.
const MAX: usize = FIXED + TownName::MAX + TOWN + CHECKSUM;
/// The shortest in bytes.
const MIN: usize = FIXED + 1 + CHECKSUM;
/// The longest in base32 characters.
const MAX_CHARS: usize = chars(MAX);
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A town's name: 1 to 32 bytes of UTF-8 without control characters, not beginning or ending with a blank.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TownName {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl TownName {
    /// The longest name in bytes.
    pub const MAX: usize = 32;

    /// The name, or `None` if it is none.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let good =
            !name.is_empty() && name.len() <= Self::MAX && name.trim() == name && !name.chars().any(char::is_control);
        good.then(|| {
            let mut bytes = [0; Self::MAX];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            Self { bytes, len: u8::try_from(name.len()).unwrap_or(0) }
        })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for TownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// An invitation. Who has it can join, so it is neither `Display` nor shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Invitation {
    /// For how many nodes it is meant; 0: any number.
    #[zeroize(skip)]
    pub uses: u16,
    /// Second of mesh time (Unix time) from which it is void; 0: never.
    #[zeroize(skip)]
    pub expires: u64,
    /// The town key.
    pub town_key: [u8; 32],
    /// The town's id: the hash of its founder's key.
    #[zeroize(skip)]
    pub town: TownId,
    /// The Ed25519 public key of the steward who invites.
    #[zeroize(skip)]
    pub signer: [u8; 32],
    /// What the invitation's signing key is derived from.
    pub seed: [u8; 32],
    /// The steward's signature over the [`Grant`](crate::Grant).
    #[zeroize(skip)]
    pub signature: [u8; 64],
    /// The town's name.
    #[zeroize(skip)]
    pub name: TownName,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({:?}, uses {}, expires {})", self.name, self.uses, self.expires)
    }
}

/// A character that was probably mistyped. Places count from 1, `grange1` included, blanks and hyphens left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typo {
    /// One character is wrong.
    Wrong {
        /// Where.
        place: usize,
        /// What is there.
        found: char,
        /// What was meant.
        meant: char,
    },
    /// Two neighbours changed places.
    Swapped {
        /// Where the first of them stands.
        place: usize,
        /// What is there.
        first: char,
        /// What follows.
        second: char,
    },
}

impl fmt::Display for Typo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { place, found, meant } => {
                write!(f, "character {place} is '{found}' and was probably meant to be '{meant}'")
            }
            Self::Swapped { place, first, second } => {
                write!(f, "characters {place} and {} ('{first}' and '{second}') probably changed places", place + 1)
            }
        }
    }
}

/// Why a text is no invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It does not begin with `grange1`.
    #[error("an invitation begins with \"grange1\", this text does not")]
    Prefix,
    /// A newer format.
    #[error("this invitation has a format that this version of grange does not know: update grange on this node")]
    Version,
    /// A character that no invitation has.
    #[error("character {place} is '{found}', which no invitation contains{}", hint(*.found))]
    Character {
        /// Counted from 1.
        place: usize,
        /// What is there.
        found: char,
    },
    /// Characters are missing.
    #[error("it is cut short: {} {missing} of its characters {} missing",
        if *.exact { "exactly" } else { "at least" }, if *.missing == 1 { "is" } else { "are" })]
    Truncated {
        /// How many characters, at least.
        missing: usize,
        /// Whether it is that many exactly.
        exact: bool,
    },
    /// Characters too many.
    #[error("it has {extra} {} too many: was something typed twice, or pasted after it?",
        if *.extra == 1 { "character" } else { "characters" })]
    TooLong {
        /// How many.
        extra: usize,
    },
    /// The checksum does not fit: mistyped.
    #[error("it is mistyped: {}", Guess(.likely))]
    Checksum {
        /// The mistake, if a single one explains it.
        likely: Option<Typo>,
    },
    /// The checksum fits and the content is still no invitation.
    #[error("it was made wrongly: its checksum fits, but its content is no invitation")]
    Content,
}

struct Guess<'a>(&'a Option<Typo>);

impl fmt::Display for Guess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(typo) => typo.fmt(f),
            None => f.write_str("its checksum does not fit, and more than one character is wrong"),
        }
    }
}

fn hint(found: char) -> &'static str {
    match found {
        '0' => " (the letter 'o'?)",
        '1' => " (the letter 'l' or 'i'?)",
        '8' => " (the letter 'b'?)",
        _ => "",
    }
}

impl Invitation {
    /// Writes the invitation as text into `out`.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_text(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let mut bytes = [0; MAX];
        let len = self.write_bytes(&mut bytes);
        out.write_str(INVITATION_PREFIX)?;
        let mut hold = 0_u32;
        let mut bits = 0;
        for byte in &bytes[..len] {
            hold = hold << 8 | u32::from(*byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                out.write_char(letter(hold >> bits))?;
            }
        }
        if bits > 0 {
            out.write_char(letter(hold << (5 - bits)))?;
        }
        bytes.zeroize();
        Ok(())
    }

    /// Reads an invitation from text. Blanks, line ends and hyphens are ignored, as is the case of letters.
    ///
    /// # Errors
    /// What exactly is wrong with the text.
    pub fn from_text(text: &str) -> Result<Self, InvitationError> {
        let mut values = [0; MAX_CHARS];
        let result = Self::from_values(text, &mut values);
        values.zeroize();
        result
    }

    fn from_values(text: &str, values: &mut [u8; MAX_CHARS]) -> Result<Self, InvitationError> {
        let mut letters = text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_lowercase());
        let mut given = 0;
        for expected in INVITATION_PREFIX.chars() {
            match letters.next() {
                Some(found) if found == expected => given += 1,
                Some('2'..='9') if expected == '1' => return Err(InvitationError::Version),
                None if given > 0 => {
                    let missing = INVITATION_PREFIX.len() - given + chars(MIN);
                    return Err(InvitationError::Truncated { missing, exact: false });
                }
                _ => return Err(InvitationError::Prefix),
            }
        }
        let mut count = 0;
        for found in letters {
            let value = match found {
                'a'..='z' => found as u8 - b'a',
                '2'..='7' => found as u8 - b'2' + 26,
                _ => {
                    return Err(InvitationError::Character { place: INVITATION_PREFIX.len() + count + 1, found });
                }
            };
            if let Some(slot) = values.get_mut(count) {
                *slot = value;
            }
            count += 1;
        }
        Self::check_length(values, count)?;
        let values = &mut values[..count];
        if let Some(invitation) = Self::decode(values)? {
            return Ok(invitation);
        }
        Err(InvitationError::Checksum { likely: find_typo(values) })
    }

    /// Compares the number of characters with what the length of the name asks for.
    fn check_length(values: &[u8; MAX_CHARS], count: usize) -> Result<(), InvitationError> {
        if count < chars(MIN) {
            return Err(InvitationError::Truncated { missing: chars(MIN) - count, exact: false });
        }
        if count > MAX_CHARS {
            return Err(InvitationError::TooLong { extra: count - MAX_CHARS });
        }
        let mut bytes = [0; MAX];
        decode_base32(values, &mut bytes);
        let name_len = usize::from(bytes[FIXED - 1]);
        let flags = bytes[1];
        bytes.zeroize();
        if name_len == 0 || name_len > TownName::MAX {
            // The length itself is damaged; the checksum will say so.
            return Ok(());
        }
        let founders = chars(FIXED + name_len + CHECKSUM);
        let others = chars(FIXED + name_len + TOWN + CHECKSUM);
        if count == founders || count == others {
            // Which of them it should be is for the checksum to say: the flags may be mistyped.
            return Ok(());
        }
        let expected = if flags == 0 { founders } else { others };
        if count < expected {
            Err(InvitationError::Truncated { missing: expected - count, exact: true })
        } else if count > expected {
            Err(InvitationError::TooLong { extra: count - expected })
        } else {
            Ok(())
        }
    }

    /// The invitation in `values` (five bits each); `None` if the checksum does not fit.
    fn decode(values: &[u8]) -> Result<Option<Self>, InvitationError> {
        let mut bytes = [0; MAX];
        let len = decode_base32(values, &mut bytes);
        let good = checksum_fits(&bytes[..len]) && chars(len) == values.len();
        let result = if good { Self::from_bytes(&bytes[..len]).map(Some) } else { Ok(None) };
        bytes.zeroize();
        result
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, InvitationError> {
        let (Some(&VERSION), Some(&flags @ 0..=1)) = (bytes.first(), bytes.get(1)) else {
            return Err(InvitationError::Version);
        };
        let signer = field(bytes, 44);
        let end = bytes.len().saturating_sub(CHECKSUM + if flags == 0 { 0 } else { TOWN });
        let town = if flags == 0 { TownId::of_founder(&signer) } else { TownId(field(bytes, end)) };
        if flags == 1 && town == TownId::of_founder(&signer) {
            return Err(InvitationError::Content);
        }
        let name = bytes
            .get(FIXED..end)
            .filter(|name| bytes.get(FIXED - 1).is_some_and(|len| usize::from(*len) == name.len()))
            .and_then(|name| str::from_utf8(name).ok())
            .and_then(TownName::new)
            .ok_or(InvitationError::Content)?;
        Ok(Self {
            uses: u16::from_be_bytes(field(bytes, 2)),
            expires: u64::from_be_bytes(field(bytes, 4)),
            town_key: field(bytes, 12),
            town,
            signer,
            seed: field(bytes, 76),
            signature: field(bytes, 108),
            name,
        })
    }

    fn write_bytes(&self, bytes: &mut [u8; MAX]) -> usize {
        let name = self.name.as_str().as_bytes();
        let mut end = FIXED + name.len();
        bytes[0] = VERSION;
        bytes[2..4].copy_from_slice(&self.uses.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.expires.to_be_bytes());
        bytes[12..44].copy_from_slice(&self.town_key);
        bytes[44..76].copy_from_slice(&self.signer);
        bytes[76..108].copy_from_slice(&self.seed);
        bytes[108..172].copy_from_slice(&self.signature);
        bytes[172] = self.name.len;
        bytes[FIXED..end].copy_from_slice(name);
        if self.town != TownId::of_founder(&self.signer) {
            bytes[1] = 1;
            bytes[end..end + TOWN].copy_from_slice(&self.town.0);
            end += TOWN;
        }
        let sum = checksum(&bytes[..end]);
        bytes[end..end + CHECKSUM].copy_from_slice(&sum);
        end + CHECKSUM
    }
}

/// The single mistake that explains a checksum that does not fit: some ten thousand hashes, and a false guess once in
/// half a million damaged texts.
fn find_typo(values: &mut [u8]) -> Option<Typo> {
    let shown = |value: u8| letter(u32::from(value));
    let fits = |values: &[u8]| {
        let mut bytes = [0; MAX];
        let len = decode_base32(values, &mut bytes);
        let fits = checksum_fits(&bytes[..len]) && chars(len) == values.len();
        bytes.zeroize();
        fits
    };
    for at in 0..values.len() {
        let place = INVITATION_PREFIX.len() + at + 1;
        let found = values[at];
        for meant in (0..32).filter(|meant| *meant != found) {
            values[at] = meant;
            if fits(values) {
                return Some(Typo::Wrong { place, found: shown(found), meant: shown(meant) });
            }
        }
        values[at] = found;
        if at + 1 < values.len() && found != values[at + 1] {
            values.swap(at, at + 1);
            if fits(values) {
                return Some(Typo::Swapped { place, first: shown(found), second: shown(values[at]) });
            }
            values.swap(at, at + 1);
        }
    }
    None
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    field(blake3::hash(bytes).as_bytes(), 0)
}

fn checksum_fits(bytes: &[u8]) -> bool {
    bytes.split_last_chunk().is_some_and(|(before, sum)| checksum(before) == *sum)
}

/// Five bits a value; bits beyond the last whole byte must be zero, else the result is one byte too long and no
/// checksum fits. Gives the number of bytes.
fn decode_base32(values: &[u8], bytes: &mut [u8; MAX]) -> usize {
    let mut hold = 0_u32;
    let mut bits = 0;
    let mut len = 0;
    for value in values {
        hold = (hold << 5 | u32::from(*value)) & 0xffff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            if let Some(slot) = bytes.get_mut(len) {
                *slot = ((hold >> bits) & 0xff) as u8;
                len += 1;
            }
        }
    }
    if hold & ((1 << bits) - 1) != 0 { 0 } else { len }
}

fn letter(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

/// Number of base32 characters for so many bytes.
const fn chars(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// `N` bytes of `bytes` from `at`. The callers have checked the length; out of range gives zeros, never a panic.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::*;

    fn invitation(name: &str) -> Invitation {
        Invitation {
            uses: 3,
            expires: 1_800_000_000,
            town_key: [0xa1; 32],
            town: TownId::of_founder(&[0xb2; 32]),
            signer: [0xb2; 32],
            seed: [0xc3; 32],
            signature: [0xd4; 64],
            name: TownName::new(name).unwrap(),
        }
    }

    fn text(invitation: &Invitation) -> String {
        let mut text = String::new();
        invitation.write_text(&mut text).unwrap();
        text
    }

    /// `text` with the character at `place` (from 1) replaced.
    fn with(text: &str, place: usize, by: &str) -> String {
        std::format!("{}{by}{}", &text[..place - 1], &text[place..])
    }

    #[test]
    fn the_first_bytes_are_in_their_places() {
        // RFC 4648 by hand: version 1, flags 0, uses 3, expires 0x6b49d200, first bits of the town key 0xa1...
        let text = text(&invitation("Oberdorf"));
        assert!(text.starts_with("grange1aeaaaayaaaaaa22j2iakdinbug"), "{text}");
        assert_eq!(text.len(), INVITATION_PREFIX.len() + chars(FIXED + 8 + CHECKSUM));
    }

    #[test]
    fn blanks_hyphens_and_capitals_do_not_matter() {
        let good = invitation("Mühle am Bach");
        let plain = text(&good);
        let mut spread = String::from(" ");
        for (index, letter) in plain.to_uppercase().chars().enumerate() {
            spread.push(letter);
            spread.push_str(["", "\n", "-", "\r\n\t"][index % 4]);
        }
        assert_eq!(Invitation::from_text(&spread), Ok(good));
    }

    #[test]
    fn each_mistake_is_named() {
        let good = text(&invitation("Oberdorf"));
        let error = |text: &str| Invitation::from_text(text).unwrap_err().to_string();
        assert_eq!(error("hello"), "an invitation begins with \"grange1\", this text does not");
        assert_eq!(error(""), "an invitation begins with \"grange1\", this text does not");
        assert_eq!(Invitation::from_text("gran"), Err(InvitationError::Truncated { missing: 288, exact: false }));
        assert_eq!(Invitation::from_text("grange2abc"), Err(InvitationError::Version));
        assert_eq!(error(&with(&good, 40, "0")), "character 40 is '0', which no invitation contains (the letter 'o'?)");
        assert_eq!(error(&with(&good, 9, "ß")), "character 9 is 'ß', which no invitation contains");
        assert_eq!(error(&good[..good.len() - 1]), "it is cut short: exactly 1 of its characters is missing");
        assert_eq!(error(&good[..100]), "it is cut short: at least 192 of its characters are missing");
        assert_eq!(
            error(&std::format!("{good}a")),
            "it has 1 character too many: was something typed twice, or pasted after it?"
        );
        let many = std::format!("{good}{}", &good[7..]);
        assert!(matches!(Invitation::from_text(&many), Err(InvitationError::TooLong { .. })), "{many}");
    }

    #[test]
    fn a_mistyped_length_or_two_mistakes_are_mistyped() {
        let good = text(&invitation("Oberdorf"));
        let first = if &good[49..50] == "x" { "y" } else { "x" };
        let second = if &good[199..200] == "x" { "y" } else { "x" };
        let twice = with(&with(&good, 50, first), 200, second);
        assert_eq!(Invitation::from_text(&twice), Err(InvitationError::Checksum { likely: None }));
        assert_eq!(
            Invitation::from_text(&twice).unwrap_err().to_string(),
            "it is mistyped: its checksum does not fit, and more than one character is wrong"
        );
    }

    #[test]
    fn another_stewards_invitation_names_the_town() {
        let founders = text(&invitation("Oberdorf"));
        let others = Invitation { town: TownId([0xee; 16]), ..invitation("Oberdorf").clone() };
        let longer = text(&others);
        assert_eq!(longer.len(), INVITATION_PREFIX.len() + chars(FIXED + 8 + TOWN + CHECKSUM));
        assert_eq!(Invitation::from_text(&longer), Ok(others));
        // Cut by all of the id, or by less.
        let cut = &longer[..founders.len()];
        assert_eq!(Invitation::from_text(cut), Err(InvitationError::Checksum { likely: None }));
        let cut = &longer[..founders.len() + 3];
        let missing = longer.len() - cut.len();
        assert_eq!(Invitation::from_text(cut), Err(InvitationError::Truncated { missing, exact: true }));
        // A mistyped flag.
        let wrong = with(&founders, 11, if &founders[10..11] == "q" { "a" } else { "q" });
        assert!(matches!(
            Invitation::from_text(&wrong),
            Err(InvitationError::Checksum { likely: Some(Typo::Wrong { place: 11, .. }) })
        ));
    }

    #[test]
    fn a_name_is_one_only_if_it_can_be_shown() {
        for bad in ["", " x", "x ", "a\nb", "a\u{7f}", "123456789012345678901234567890123"] {
            assert_eq!(TownName::new(bad), None, "{bad:?}");
        }
        assert_eq!(TownName::new("12345678901234567890123456789012").unwrap().as_str().len(), 32);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_written_is_read(
            uses: u16, expires: u64, town_key: [u8; 32], signer: [u8; 32], seed: [u8; 32], half: [u8; 32],
            other: Option<[u8; 16]>,
            name in "[a-zA-Zäöü0-9]{1,16}",
        ) {
            let mut signature = [0; 64];
            signature[16..48].copy_from_slice(&half);
            let name = TownName::new(&name).unwrap();
            let town = other.map_or(TownId::of_founder(&signer), TownId);
            let invitation = Invitation { uses, expires, town_key, town, signer, seed, signature, name };
            prop_assert_eq!(Invitation::from_text(&text(&invitation)), Ok(invitation));
        }

        #[test]
        fn one_wrong_character_is_found(at in 7..300_usize, by in 0..31_u32) {
            let good = text(&invitation("Oberdorf"));
            let at = at.min(good.len() - 1);
            let meant = good.as_bytes()[at] as char;
            let found = (0..32).map(letter).filter(|letter| *letter != meant).nth(by as usize).unwrap();
            let bad = with(&good, at + 1, &found.to_string());
            match Invitation::from_text(&bad) {
                Err(InvitationError::Checksum { likely }) => {
                    prop_assert_eq!(likely, Some(Typo::Wrong { place: at + 1, found, meant }));
                }
                // The character was of the length: the text seems to have another one.
                Err(InvitationError::Truncated { .. } | InvitationError::TooLong { .. }) => {
                    let length = (FIXED - 1) * 8 / 5 + 7..=(FIXED * 8 - 1) / 5 + 7;
                    prop_assert!(length.contains(&at), "{}", at);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn two_swapped_characters_are_found(at in 7..290_usize) {
            let good = text(&invitation("Oberdorf"));
            let (first, second) = (good.as_bytes()[at] as char, good.as_bytes()[at + 1] as char);
            prop_assume!(first != second);
            let bad = with(&with(&good, at + 1, &second.to_string()), at + 2, &first.to_string());
            let error = Invitation::from_text(&bad).unwrap_err();
            let length = (FIXED - 1) * 8 / 5 + 6..=(FIXED * 8 - 1) / 5 + 7;
            prop_assert!(
                length.contains(&at)
                    || error == InvitationError::Checksum {
                        likely: Some(Typo::Swapped { place: at + 1, first: second, second: first })
                    },
                "{:?}", error
            );
        }

        #[test]
        fn any_part_of_an_invitation_says_that_it_is_cut(len in 8..295_usize) {
            let good = text(&invitation("Oberdorf"));
            let cut = &good[..len.min(good.len() - 1)];
            match Invitation::from_text(cut) {
                Err(InvitationError::Truncated { missing, exact }) => {
                    let whole = cut.len() + missing;
                    prop_assert!(whole == good.len() || (!exact && whole < good.len()));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(grange1)?\\PC{0,400}") {
            let _ = Invitation::from_text(&text);
        }

        #[test]
        fn any_base32_is_read_or_refused(values in proptest::collection::vec(0..32_u32, 284..340)) {
            let text: String = INVITATION_PREFIX.chars().chain(values.into_iter().map(letter)).collect();
            prop_assert!(Invitation::from_text(&text).is_err());
        }
    }
}
