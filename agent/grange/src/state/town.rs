//! The node's membership (`town.toml`) and, at the founder, the steward's seed (`steward.key`).

use std::path::Path;

use data_encoding::HEXLOWER;
use grange_core::{
    Identity, Town,
    certificate::{self, CertificateError, Steward},
};
use grange_wire::{Invitation, TownId, TownName};
use zeroize::Zeroizing;

use super::{
    file::{self, Kind, Locked},
    key::{self, Seed},
};
use crate::failure::{Code, Failure};

/// The membership file.
pub(crate) const TOWN: Kind = Kind {
    file: "town.toml",
    title: "town membership",
    remedy: "Without a copy, run `grange town leave` and join again with a new invitation.",
};

/// The steward's key file.
pub(crate) const STEWARD: Kind = Kind {
    file: "steward.key",
    title: "steward key",
    remedy: "Without a copy nobody can invite to this town any more: those who are in it stay, and newcomers need a new town.",
};

/// The membership in the state directory; `None` if the node is in no town.
///
/// # Errors
/// If the file is damaged, or its certificate is not one of this node.
pub(crate) fn read(dir: &Path, identity: &Identity) -> Result<Option<Town>, Failure> {
    let Some(body) = file::read(dir, TOWN)? else { return Ok(None) };
    let field = |name: &str| body.get(name).map(|text| text.as_str());
    let damaged = |what: &str| file::damaged(dir, TOWN, what);
    let id = TownId(key::bytes(field("id")).ok_or_else(|| damaged("its town id is missing or wrong"))?);
    let key: [u8; 32] = key::bytes(field("key")).ok_or_else(|| damaged("its town key is missing or wrong"))?;
    let name = field("name").and_then(TownName::new).ok_or_else(|| damaged("its town name is missing or wrong"))?;
    let certificate = field("certificate")
        .and_then(|text| HEXLOWER.decode(text.as_bytes()).ok())
        .ok_or_else(|| damaged("its certificate is missing or wrong"))?;
    match certificate::verify(&certificate, &id, &identity.link_public()) {
        Ok(verified) if verified.id == identity.id() => {}
        Ok(_) | Err(CertificateError::StaticKey) => {
            return Err(Failure::new(
                Code::State,
                format!(
                    "the membership in {} was made for another node key than the one in {}: was a file copied from another node, or the key replaced? \
                     Put the right key back, or run `grange town leave` and join again with a new invitation.",
                    dir.join(TOWN.file).display(),
                    dir.join(key::NODE_KEY.file).display()
                ),
            ));
        }
        Err(error) => return Err(damaged(&format!("its certificate is not good: {error}"))),
    }
    Ok(Some(Town { id, name: name.as_str().into(), key, certificate }))
}

/// Writes the membership.
pub(crate) fn write(locked: &Locked, town: &Town) -> Result<(), Failure> {
    let key = Zeroizing::new(HEXLOWER.encode(&town.key));
    let body = [
        ("id", &*town.id.to_string()),
        ("name", town.name.as_str()),
        ("key", key.as_str()),
        ("certificate", &*HEXLOWER.encode(&town.certificate)),
    ];
    locked.write(TOWN, &body)
}

/// The steward's key, if this node has it.
pub(crate) fn read_steward(dir: &Path) -> Result<Option<Steward>, Failure> {
    let Some(body) = file::read(dir, STEWARD)? else { return Ok(None) };
    let seed = key::seed(dir, STEWARD, body.get("seed").map(|text| text.as_str()))?;
    Ok(Some(Steward::from_seed(&seed)))
}

/// Founds a town: steward key, town key and this node's own certificate. All or nothing is written.
pub(crate) fn found(locked: &Locked, identity: &Identity, name: &TownName, now: u64) -> Result<Town, Failure> {
    let seed = key::random()?;
    let steward = Steward::from_seed(&seed);
    let key = key::random()?;
    let town = Town {
        id: steward.town(),
        name: name.as_str().into(),
        key: *key,
        certificate: certificate::by_steward(&steward, identity, now),
    };
    let text = Zeroizing::new(HEXLOWER.encode(&*seed));
    locked.write(STEWARD, &[("seed", &text), ("town", &town.id.to_string())])?;
    write(locked, &town).inspect_err(|_| {
        // The town never was: its key is worth nothing, and would stand in the way of the next try.
        let _ = locked.remove(STEWARD);
    })?;
    Ok(town)
}

/// The membership that an invitation gives this node.
///
/// # Errors
/// [`CertificateError`] if the invitation is forged or expired before `now`.
pub(crate) fn join(identity: &Identity, invitation: &Invitation, now: u64) -> Result<Town, CertificateError> {
    Ok(Town {
        id: invitation.town,
        name: invitation.name.as_str().into(),
        key: invitation.town_key,
        certificate: certificate::by_invitation(invitation, identity, now)?,
    })
}

/// Makes an invitation to this node's town.
pub(crate) fn invite(steward: &Steward, town: &Town, uses: u16, expires: u64) -> Result<Invitation, Failure> {
    let seed: Seed = key::random()?;
    let name = TownName::new(&town.name)
        .ok_or_else(|| Failure::new(Code::Town, format!("the town's name {:?} fits into no invitation.", town.name)))?;
    Ok(steward.invite(&town.key, name, uses, expires, &seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_town_is_founded_kept_and_joined() {
        let (founder_dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (founder, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let locked = Locked::new(founder_dir.path()).unwrap();
        let town = found(&locked, &founder, &TownName::new("Oberdorf").unwrap(), 1000).unwrap();
        let read_back = read(founder_dir.path(), &founder).unwrap().unwrap();
        assert_eq!((read_back.id, &read_back.key, &read_back.name), (town.id, &town.key, &town.name));

        let steward = read_steward(founder_dir.path()).unwrap().unwrap();
        assert_eq!(steward.town(), town.id);
        let invitation = invite(&steward, &town, 1, 2000).unwrap();
        let joined = join(&other, &invitation, 1500).unwrap();
        write(&Locked::new(other_dir.path()).unwrap(), &joined).unwrap();
        assert_eq!(read(other_dir.path(), &other).unwrap().unwrap().id, town.id);
        assert_eq!(join(&other, &invitation, 2000).err(), Some(CertificateError::Expired));

        // Copied to another node, the membership is not good.
        let error = read(other_dir.path(), &founder).err().unwrap().to_string();
        assert!(error.contains("was made for another node key"), "{error}");
    }

    #[test]
    fn a_second_founding_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::from_seed(&[1; 32]);
        let locked = Locked::new(dir.path()).unwrap();
        let name = TownName::new("Oberdorf").unwrap();
        let town = found(&locked, &identity, &name, 0).unwrap();
        assert!(found(&locked, &identity, &name, 0).is_err());
        assert_eq!(read_steward(dir.path()).unwrap().unwrap().town(), town.id);
    }
}
