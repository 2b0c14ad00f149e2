//! The node's seed: `node.key`.

use std::path::Path;

use data_encoding::HEXLOWER;
use grange_core::Identity;
use zeroize::Zeroizing;

use super::{
    file::{self, Kind, Locked},
    town::TOWN,
};
use crate::failure::{Code, Failure};

/// The node's key file.
pub(crate) const NODE_KEY: Kind = Kind {
    file: "node.key",
    title: "node key",
    remedy: "Without a copy, move the file away and run `grange key --new`: the node then has another id and address, and must join its town again.",
};

/// 32 secret bytes from which keys follow.
pub(crate) type Seed = Zeroizing<[u8; 32]>;

/// Fresh random bytes.
pub(crate) fn random() -> Result<Seed, Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| {
        Failure::new(
            Code::Other,
            format!("the system gives no random numbers ({error}), and without them no key can be made. Try again in a minute."),
        )
    })?;
    Ok(seed)
}

/// The seed in the state directory; `None` if there is none.
pub(crate) fn read(dir: &Path) -> Result<Option<Seed>, Failure> {
    let Some(body) = file::read(dir, NODE_KEY)? else { return Ok(None) };
    seed(dir, NODE_KEY, body.get("seed").map(|text| text.as_str())).map(Some)
}

/// The seed in the state directory, made if there is none. The second value says whether it was.
pub(crate) fn read_or_make(dir: &Path) -> Result<(Seed, bool), Failure> {
    if let Some(seed) = read(dir)? {
        return Ok((seed, false));
    }
    if dir.join(TOWN.file).exists() {
        let (key, town) = (dir.join(NODE_KEY.file), dir.join(TOWN.file));
        return Err(Failure::new(
            Code::State,
            format!(
                "the node key {} is missing, but the membership {} that was made for it is there. Put a copy of the key from a backup in its place. Without a \
                 copy, run `grange town leave`: the node then gets another id and address, and must join its town again.",
                key.display(),
                town.display()
            ),
        ));
    }
    let locked = Locked::new(dir)?;
    // Another process may have made one before we had the lock.
    if let Some(seed) = read(dir)? {
        return Ok((seed, false));
    }
    Ok((make(&locked)?, true))
}

/// Makes a seed; fails if there is one.
pub(crate) fn make(locked: &Locked) -> Result<Seed, Failure> {
    let seed = random()?;
    locked.write(NODE_KEY, &[("seed", &Zeroizing::new(HEXLOWER.encode(&*seed)))])?;
    Ok(seed)
}

/// The node's keys, or the advice to make some.
pub(crate) fn identity(dir: &Path) -> Result<Identity, Failure> {
    match read(dir)? {
        Some(seed) => Ok(Identity::from_seed(&seed)),
        None => Err(Failure::new(
            Code::State,
            format!(
                "this node has no key yet: there is no {}. `grange run` makes one on its first start, and `grange key --new` makes one now.",
                dir.join(NODE_KEY.file).display()
            ),
        )),
    }
}

/// 32 bytes from 64 hexadecimal digits.
pub(super) fn seed(dir: &Path, kind: Kind, text: Option<&str>) -> Result<Seed, Failure> {
    bytes(text)
        .map(Zeroizing::new)
        .ok_or_else(|| file::damaged(dir, kind, "its seed is missing or has not 64 hexadecimal digits"))
}

/// `N` bytes from hexadecimal digits.
pub(super) fn bytes<const N: usize>(text: Option<&str>) -> Option<[u8; N]> {
    let digits = text?.as_bytes();
    let mut bytes = [0; N];
    let right = digits.len() == 2 * N && HEXLOWER.decode_mut(digits, &mut bytes).is_ok();
    right.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let (first, made) = read_or_make(dir.path()).unwrap();
        let (again, made_again) = read_or_make(dir.path()).unwrap();
        assert!(made && !made_again);
        assert_eq!(*first, *again);
        assert!(make(&Locked::new(dir.path()).unwrap()).is_err());
    }

    #[test]
    fn no_key_is_made_beside_a_membership_of_a_lost_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(TOWN.file), "").unwrap();
        let error = read_or_make(dir.path()).err().unwrap().to_string();
        assert!(error.contains("is missing, but the membership"), "{error}");
        assert!(!dir.path().join(NODE_KEY.file).exists());
    }

    #[test]
    fn a_short_seed_with_a_good_checksum_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        Locked::new(dir.path()).unwrap().write(NODE_KEY, &[("seed", "00ff")]).unwrap();
        let error = read(dir.path()).err().unwrap();
        assert!(error.to_string().contains("64 hexadecimal digits"), "{error}");
        assert!(read_or_make(dir.path()).is_err());
    }
}
