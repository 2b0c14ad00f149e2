//! An invitation: the string that lets a fresh router join a town with no server (`docs/protocol.md`, Invitation).
//!
//! ```text
//!    0  | ver u8 = 1 | flags u8 = 0 | uses u16 | expires u64 | town key [32] | signer [32] | invitation seed [32] |
//!  108  | signature of the signer [64] | name_len u8 | town name | checksum [4] |
//! ```
//!
//! As text: `grange1`, then base32 of these bytes. People type, copy and photograph it, so reading says what is wrong
//! with a damaged one, and where.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// What every invitation begins with, so that a person and a router recognise it.
pub const INVITATION_PREFIX: &str = "grange1";
const VERSION: u8 = 1;
/// Bytes before the town's name, with its length.
const FIXED: usize = 173;
const CHECKSUM: usize = 4;
/// The longest invitation in bytes.
const MAX: usize = FIXED + TownName::MAX + CHECKSUM;
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
    /// The steward's Ed25519 public key; its hash is the town's id.
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
        bytes.zeroize();
        if name_len == 0 || name_len > TownName::MAX {
            // The length itself is damaged; the checksum will say so.
            return Ok(());
        }
        let expected = chars(FIXED + name_len + CHECKSUM);
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
        if bytes.first() != Some(&VERSION) || bytes.get(1) != Some(&0) {
            return Err(InvitationError::Version);
        }
        let name = bytes
            .get(FIXED..bytes.len().saturating_sub(CHECKSUM))
            .filter(|name| bytes.get(FIXED - 1).is_some_and(|len| usize::from(*len) == name.len()))
            .and_then(|name| str::from_utf8(name).ok())
            .and_then(TownName::new)
            .ok_or(InvitationError::Content)?;
        Ok(Self {
            uses: u16::from_be_bytes(field(bytes, 2)),
            expires: u64::from_be_bytes(field(bytes, 4)),
            town_key: field(bytes, 12),
            signer: field(bytes, 44),
            seed: field(bytes, 76),
            signature: field(bytes, 108),
            name,
        })
    }

    fn write_bytes(&self, bytes: &mut [u8; MAX]) -> usize {
        let name = self.name.as_str().as_bytes();
        let end = FIXED + name.len();
        bytes[0] = VERSION;
        bytes[2..4].copy_from_slice(&self.uses.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.expires.to_be_bytes());
        bytes[12..44].copy_from_slice(&self.town_key);
        bytes[44..76].copy_from_slice(&self.signer);
        bytes[76..108].copy_from_slice(&self.seed);
        bytes[108..172].copy_from_slice(&self.signature);
        bytes[172] = self.name.len;
        bytes[FIXED..end].copy_from_slice(name);
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
