//! What keeps the agent from starting is said in one clear paragraph, and nothing half-made is left.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use grange_netns::{Binary, Node, Snapshot, Town, ensure_tun, measured, town_test, wait_until};

/// One node with one interface and no agent.
fn lonely() -> Result<Town> {
    ensure_tun()?;
    Town::builder().nodes(&["mill", "oak"]).link("mill", "oak").build()
}

/// All files under the node's state and runtime directories, with contents.
fn files(node: &Node) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for directory in [node.state_dir(), node.runtime_dir()] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            found.insert(entry.path().display().to_string(), fs::read(entry.path()).unwrap_or_default());
        }
    }
    found
}

/// Runs a command that must fail soon.
fn refused(command: &mut Command) -> Result<Output> {
    let line = format!("{command:?}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let ended = wait_until("a refusal", Duration::from_secs(5), || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ended.with_context(|| format!("{line} goes on: {}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(!output.status.success(), "{line} succeeded");
    Ok(output)
}

/// The one paragraph that a refusal says, without log lines.
fn paragraph(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let Some(start) = text.find("grange: ") else { bail!("no paragraph: {text}") };
    let words = text[start..].trim_end().to_owned();
    ensure!(!words.contains("\n\n") && words.lines().count() <= 6, "more than one paragraph:\n{words}");
    ensure!(!text.contains("panicked") && !words.contains("Os {"), "not for people:\n{text}");
    ensure!(words.len() > 40, "not a paragraph:\n{words}");
    Ok(words)
}

/// Runs the agent so that it must refuse, and checks that it says each of `words` and leaves no trace.
fn refuses(node: &Node, command: &mut Command, words: &[&str]) -> Result<()> {
    let (before, before_files) = (Snapshot::take(node.namespace())?, files(node));
    let output = refused(command)?;
    let text = paragraph(&output)?;
    measured(&text);
    for word in words {
        ensure!(text.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in:\n{text}");
    }
    before.expect_same(&Snapshot::take(node.namespace())?)?;
    let after_files = files(node);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    // A key made before the refusal is whole and stays: the next start goes on with it.
    let mut kept = after_files.clone();
    if !before_files.keys().any(|name| name.ends_with("node.key")) {
        kept.retain(|name, _| !name.ends_with("node.key"));
    }
    ensure!(before_files == kept, "files before: {:?}, after: {:?}", names(&before_files), names(&after_files));
    Ok(())
}

/// `grange run` inside a mount namespace prepared by a shell command.
fn prepared(node: &Node, preparation: &str) -> Result<Command> {
    let mut command = node.namespace().command("sh");
    command.arg("-c").arg(format!("{preparation} && exec \"$0\" \"$@\"")).arg(Binary::find()?.path());
    node.with_files(&mut command);
    command.arg("run");
    Ok(command)
}

/// After the cause is gone, the agent starts as if nothing had been.
fn starts_after_all(node: &Node) -> Result<()> {
    node.start()?;
    node.stop()
}

#[test]
fn a_missing_tun_device() {
    town_test("a_missing_tun_device", || {
        let town = lonely()?;
        let node = town.node("mill")?;
        let mut command = prepared(node, "mount -t tmpfs tmpfs /dev/net")?;
        refuses(node, &mut command, &["/dev/net/tun"])?;
        starts_after_all(node)
    });
}

#[test]
fn missing_rights() {
    town_test("missing_rights", || {
        let town = lonely()?;
        let node = town.node("mill")?;
        let mut command = node.namespace().command("setpriv");
        command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"]);
        command.arg(Binary::find()?.path());
        node.with_files(&mut command);
        refuses(node, command.arg("run"), &["CAP_NET_ADMIN"])?;
        starts_after_all(node)
    });
}

#[test]
fn an_occupied_port() {
    town_test("an_occupied_port", || {
        let town = lonely()?;
        let node = town.node("mill")?;
        let occupied = node.namespace().inside(|| std::net::UdpSocket::bind("[::]:7264"))?;
        refuses(node, &mut node.command(&["run"]), &["7264", "occupied", "`port` under [mesh]"])?;
        drop(occupied);
        starts_after_all(node)
    });
}

#[test]
fn a_damaged_key() {
    town_test("a_damaged_key", || {
        let town = lonely()?;
        let node = town.node("mill")?;
        node.grange(&["key", "--new"])?;
        let file = node.state_dir().join("node.key");
        let good = fs::read(&file)?;
        let mut changed = good.clone();
        let digit = changed.iter().rposition(|byte| *byte == b'"').context("a seed in quotes")? - 5;
        changed[digit] = if changed[digit] == b'0' { b'1' } else { b'0' };
        for damaged in [changed, good[..good.len() / 2].to_vec(), Vec::new(), vec![0xff; 4096]] {
            fs::write(&file, damaged)?;
            refuses(node, &mut node.command(&["run"]), &["node.key", "damaged"])?;
        }
        fs::write(&file, good)?;
        starts_after_all(node)
    });
}

#[test]
fn a_full_disk_at_the_first_start() {
    town_test("a_full_disk_at_the_first_start", || {
        let town = lonely()?;
        let node = town.node("mill")?;
        let state = node.state_dir();
        fs::create_dir_all(&state)?;
        let state = state.display();
        let full = format!(
            "mount -t tmpfs -o size=16k tmpfs '{state}' && {{ cat /dev/zero >'{state}/filler' 2>/dev/null; true; }}"
        );
        refuses(node, &mut prepared(node, &full)?, &["space"])?;
        // No file of ours is left on the full disk either: the second start there says the same.
        let twice = format!(
            "{full} && {{ '{}' --state-dir '{state}' run >/dev/null 2>&1; test \"$(ls -A '{state}')\" = filler; }}",
            Binary::find()?.path().display()
        );
        refuses(node, &mut prepared(node, &twice)?, &["space"])?;
        starts_after_all(node)
    });
}

#[test]
fn a_second_instance() {
    town_test("a_second_instance", || {
        let town = lonely()?;
        let node = town.node("mill")?;
        node.start()?;
        let pid = node.pid();
        refuses(node, &mut node.command(&["run"]), &["another grange", "already"])?;
        ensure!(node.is_running() && node.pid() == pid && node.status().is_ok(), "the first instance suffered");
        node.stop()
    });
}

#[test]
fn wrong_configuration_values() {
    town_test("wrong_configuration_values", || {
        let town = lonely()?;
        let node = town.node("mill")?;
        for (text, words) in [
            ("[mesh]\nport = 70000\n", &["grange.toml:2", "port"][..]),
            ("[mesh]\nport = \"many\"\n", &["grange.toml:2", "port"]),
            ("\n\n[mesh]\nprot = 7264\n", &["grange.toml:4", "prot"]),
            ("[mash]\n", &["grange.toml:1", "mash"]),
            ("name = \"mill\n", &["grange.toml:1"]),
            ("[mesh]\ntun = \"a-name-that-is-much-too-long\"\n", &["grange.toml:2", "tun"]),
            ("[mesh]\npeers = [\"no port\"]\n", &["grange.toml:2", "peers"]),
            ("[uplink]\ngateways = [\"everyone\"]\n", &["grange.toml:2", "gateways"]),
            ("[log]\nlevel = \"loud\"\n", &["grange.toml:2", "level"]),
        ] {
            node.write_config(text)?;
            refuses(node, &mut node.command(&["run"]), words).with_context(|| text.to_owned())?;
        }
        node.write_config("name = \"mill\"\n")?;
        starts_after_all(node)
    });
}
