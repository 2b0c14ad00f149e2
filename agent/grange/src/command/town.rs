//! `grange town`

use std::{
    io::{self, Read},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use grange_core::{Identity, certificate::CertificateError};
use grange_town::Date;
use grange_wire::{Invitation, TownName};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    cli::Town as Ask,
    control::{client, protocol},
    failure::{Code, Failure},
    output::{Output, note, print},
    report,
    state::{
        Places,
        file::Locked,
        key,
        town::{self, STEWARD, TOWN},
    },
};

/// Before this second (1 January 2025) this program was not written: a clock that shows less is not set.
const CLOCK_IS_SET: u64 = 1_735_689_600;

/// Found, invite, join, show or leave.
pub(crate) fn run(places: &Places, output: &Output, ask: &Ask) -> Result<(), Failure> {
    match ask {
        Ask::Found { name } => found(places, output, name),
        Ask::Invite { uses, hours } => invite(places, output, *uses, *hours),
        Ask::Join { invitation } => join(places, output, invitation),
        Ask::Show => show(places, output),
        Ask::Leave { give_up_steward } => leave(places, output, *give_up_steward),
    }
}

/// Seconds of Unix time; 0 if the clock is not set, as on a router without a battery.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now >= CLOCK_IS_SET { now } else { 0 }
}

fn found(places: &Places, output: &Output, name: &str) -> Result<(), Failure> {
    let name = TownName::new(name).ok_or_else(|| {
        Failure::new(
            Code::Town,
            format!(
                "{name:?} cannot be a town's name: it needs 1 to {} bytes, no blank at its ends and no control characters. Choose another.",
                TownName::MAX
            ),
        )
    })?;
    let (seed, _) = key::read_or_make(&places.state)?;
    let identity = Identity::from_seed(&seed);
    let locked = Locked::new(&places.state)?;
    refuse_other_town(places, &identity, None)?;
    let steward = places.state.join(STEWARD.file);
    if steward.exists() {
        return Err(Failure::new(
            Code::Town,
            format!(
                "the steward key of another town stands in {}, and is not overwritten. Move it to a safe place if that town still lives, or remove it, and try again.",
                steward.display()
            ),
        ));
    }
    let town = town::found(&locked, &identity, &name, now())?;
    drop(locked);
    let told = tell_agent(places, &town);
    let shown = report::Town::from(&town);
    output.show(&shown, |output| {
        format!(
            "Founded the town {} ({}).\nKeep a copy of {} in a safe place: only who has it can invite others.\nInvite a node: grange town invite\n{told}",
            output.bold(&shown.name),
            shown.id,
            steward.display(),
        )
    })
}

fn invite(places: &Places, output: &Output, uses: u16, hours: u32) -> Result<(), Failure> {
    let identity = key::identity(&places.state)?;
    let town = town::read(&places.state, &identity)?.ok_or_else(|| {
        Failure::new(
            Code::Town,
            "this node is in no town, so it can invite nobody. Found a town with `grange town found NAME`, or join one first.",
        )
    })?;
    let steward = town::read_steward(&places.state)?.filter(|steward| steward.town() == town.id).ok_or_else(|| {
        Failure::new(
            Code::Town,
            format!(
                "only the steward of the town {:?} can invite, and {} with the steward's key is not on this node. Ask the person who founded the town, \
                 or run this command on the node where that was done.",
                town.name,
                places.state.join(STEWARD.file).display()
            ),
        )
    })?;
    let expires = match (hours, now()) {
        (0, _) => 0,
        (_, 0) => {
            return Err(Failure::new(
                Code::Town,
                "this machine's clock is not set, so nobody can say when the invitation would expire. Set the clock, or make an invitation \
                 that never expires with --hours 0.",
            ));
        }
        (hours, now) => now + u64::from(hours) * 3600,
    };
    let invitation = town::invite(&steward, &town, uses, expires)?;
    let mut text = Zeroizing::new(String::new());
    invitation.write_text(&mut *text).map_err(|error| Failure::new(Code::Other, error.to_string()))?;
    let json = json!({
        "invitation": *text,
        "town": report::Town::from(&town),
        "uses": uses,
        "expires": expires,
    });
    if output.json {
        return output.show(&json, |_| String::new());
    }
    // The invitation alone goes to standard output, so that it can be piped.
    print(&format!("{}\n", *text))?;
    let nodes = match uses {
        0 => "any number of nodes".into(),
        1 => "one node".into(),
        many => format!("{many} nodes"),
    };
    let until = if expires == 0 { "for ever".into() } else { format!("until {}", Date(expires)) };
    note(format_args!(
        "Invitation to {:?} for {nodes}, good {until}. On the new node: grange town join STRING\nWhoever has it can join: give it to nobody else.",
        town.name
    ));
    Ok(())
}

fn join(places: &Places, output: &Output, words: &[String]) -> Result<(), Failure> {
    let text = match words {
        [word] if word == "-" => stdin_text()?,
        words => Zeroizing::new(words.concat()),
    };
    let invitation = Invitation::from_text(&text).map_err(|error| {
        Failure::new(
            Code::Invitation,
            format!(
                "this is no good invitation: {error}. Compare it with the original, or ask the town's steward for a new one. Nothing was changed."
            ),
        )
    })?;
    let (seed, _) = key::read_or_make(&places.state)?;
    let identity = Identity::from_seed(&seed);
    let locked = Locked::new(&places.state)?;
    let now = now();
    let town = town::join(&identity, &invitation, now).map_err(|error| refused(error, &invitation))?;
    if refuse_other_town(places, &identity, Some(&town))? {
        return output.show(&report::Town::from(&town), |_| {
            format!("This node is in the town {} already; nothing was changed.\n", town.name)
        });
    }
    if now == 0 && invitation.expires != 0 {
        note("This machine's clock is not set: whether the invitation has expired could not be checked.");
    }
    town::write(&locked, &town)?;
    drop(locked);
    let told = tell_agent(places, &town);
    let shown = report::Town::from(&town);
    output.show(&shown, |output| format!("Joined the town {} ({}).\n{told}", output.bold(&shown.name), shown.id))
}

fn stdin_text() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(Code::Invitation, format!("standard input could not be read: {error}.")))?;
    Ok(text)
}

fn refused(error: CertificateError, invitation: &Invitation) -> Failure {
    let name = invitation.name.as_str();
    let text = match error {
        CertificateError::Expired => format!(
            "the invitation to the town {name:?} expired on {}, and now it is {}. Ask the town's steward for a new one, or set this machine's clock if it \
             is wrong. Nothing was changed.",
            Date(invitation.expires),
            Date(now())
        ),
        error => format!(
            "the invitation to the town {name:?} is not genuine: {error}. It was not mistyped, but made or changed by somebody who is not the steward. Ask \
             the steward for a new one. Nothing was changed."
        ),
    };
    Failure::new(Code::Invitation, text)
}

/// Fails if the node is in another town than `wanted`. Whether it is in that one already.
fn refuse_other_town(
    places: &Places,
    identity: &Identity,
    wanted: Option<&grange_core::Town>,
) -> Result<bool, Failure> {
    let Some(present) = town::read(&places.state, identity)? else { return Ok(false) };
    if wanted.is_some_and(|wanted| wanted.id == present.id && wanted.key == present.key) {
        return Ok(true);
    }
    Err(Failure::new(
        Code::Town,
        format!(
            "this node is in the town {:?} ({}), and a node is in one town only. Leave that with `grange town leave` first. Nothing was changed.",
            present.name, present.id
        ),
    ))
}

fn show(places: &Places, output: &Output) -> Result<(), Failure> {
    let town = match key::read(&places.state)? {
        Some(seed) => town::read(&places.state, &Identity::from_seed(&seed))?,
        None => None,
    };
    let Some(town) = town else {
        return output.show(&json!(null), |_| {
            "This node is in no town. Found one with `grange town found NAME`, or join one with `grange town join INVITATION`.\n".into()
        });
    };
    let steward = town::read_steward(&places.state)?.is_some_and(|steward| steward.town() == town.id);
    let json = json!({"id": town.id.to_string(), "name": town.name, "steward": steward});
    output.show(&json, |output| {
        output.pairs(&[
            ("town", town.name.clone()),
            ("id", town.id.to_string()),
            ("steward", if steward { "this node can invite" } else { "on another node" }.into()),
        ])
    })
}

fn leave(places: &Places, output: &Output, give_up_steward: bool) -> Result<(), Failure> {
    let membership = places.state.join(TOWN.file);
    let steward = places.state.join(STEWARD.file);
    let in_town = membership.exists() || (give_up_steward && steward.exists());
    if !in_town {
        return output.show(&json!({"left": false}), |_| "This node is in no town; nothing was changed.\n".into());
    }
    if steward.exists() && !give_up_steward {
        return Err(Failure::new(
            Code::Town,
            format!(
                "this node holds the steward's key of its town, without which nobody can be invited any more. Copy {} to a safe place, and then leave with \
                 `grange town leave --give-up-steward`. Nothing was changed.",
                steward.display()
            ),
        ));
    }
    let locked = Locked::new(&places.state)?;
    locked.remove(TOWN)?;
    if give_up_steward {
        locked.remove(STEWARD)?;
    }
    drop(locked);
    let told = told(client::ask(&places.socket(), protocol::Ask::TownChanged), None, &places.state);
    output.show(&json!({"left": true}), |_| format!("Left the town.\n{told}"))
}

/// Tells a running agent that the membership changed, and says what came of it.
fn tell_agent(places: &Places, town: &grange_core::Town) -> String {
    let answer = client::ask(&places.socket(), protocol::Ask::TownChanged);
    told(answer, Some(&town.id.to_string()), &places.state)
}

fn told(answer: Result<Option<report::Town>, Failure>, expected: Option<&str>, state: &Path) -> String {
    match answer {
        Ok(town) if town.as_ref().map(|town| town.id.as_str()) == expected => "The running agent knows.\n".into(),
        Ok(_) => {
            format!("The running agent uses another state directory than {}, and goes on as before.\n", state.display())
        }
        Err(failure) if failure.code == Code::NotRunning => {
            "The agent is not running; it will know when it starts (`grange run`).\n".into()
        }
        Err(failure) => format!("The running agent could not be told, so restart it: {failure}\n"),
    }
}
