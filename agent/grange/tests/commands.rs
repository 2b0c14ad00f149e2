//! The binary as people and scripts use it, as far as no network is needed.
#![expect(clippy::unwrap_used, reason = "helpers of the tests unwrap outside of test functions")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A node's directories.
struct Node {
    dir: TempDir,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grange"));
        command
            .env_clear()
            .env("GRANGE_RUNTIME_DIR", self.dir.path().join("run"))
            .env("GRANGE_STATE_DIR", self.state());
        command.args(args).stdin(Stdio::null());
        command
    }

    fn grange(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    fn good(&self, args: &[&str]) -> String {
        let said = self.grange(args);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said.out
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.good(&[&["--json"], args].concat())).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.state()) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// One paragraph on standard error, nothing on standard output.
fn assert_paragraph(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    assert_eq!(said.out, "", "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(said.err.starts_with("grange: "), "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is missing: {said:?}");
    }
}

#[test]
fn a_town_is_founded_and_joined() {
    let (founder, other) = (Node::new(), Node::new());
    let town = founder.json(&["town", "found", "Oberdorf am Bach"]);
    assert_eq!(town["name"], "Oberdorf am Bach");
    assert_eq!(founder.files(), ["node.key", "steward.key", "town.toml"]);
    for file in founder.files() {
        let mode = fs::metadata(founder.state().join(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(founder.state()).unwrap().permissions().mode() & 0o777, 0o700);

    let invitation = founder.good(&["town", "invite", "--uses", "2", "--hours", "1"]);
    let joined = other.json(&["town", "join", invitation.trim()]);
    assert_eq!(joined, town);
    assert_eq!(other.files(), ["node.key", "town.toml"]);
    let shown = other.json(&["town", "show"]);
    assert_eq!((&shown["id"], &shown["steward"]), (&town["id"], &Value::from(false)));

    // Once more changes nothing; only the steward invites; leaving is possible and told.
    assert!(other.good(&["town", "join", invitation.trim()]).contains("already"));
    assert_paragraph(&other.grange(&["town", "invite"]), 11, &["only the steward", "Oberdorf am Bach"]);
    assert!(other.good(&["town", "leave"]).contains("Left the town"));
    assert_eq!(other.json(&["town", "show"]), Value::Null);
    assert!(other.good(&["town", "leave"]).contains("in no town"));
}

#[test]
fn an_invitation_is_read_in_pieces_and_from_standard_input() {
    use std::io::Write;
    let founder = Node::new();
    founder.good(&["town", "found", "Oberdorf"]);
    let json = founder.json(&["town", "invite", "--hours", "0", "--uses", "0"]);
    assert_eq!((&json["expires"], &json["uses"]), (&Value::from(0), &Value::from(0)));
    let text = json["invitation"].as_str().unwrap();
    let (first, second) = text.split_at(100);
    Node::new().good(&["town", "join", first, second]);

    let other = Node::new();
    let mut child = other.command(&["town", "join", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("  {first}\n{second}\n").as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(other.json(&["town", "show"])["name"], "Oberdorf");
}

#[test]
fn a_bad_invitation_is_explained_and_changes_nothing() {
    let (founder, other) = (Node::new(), Node::new());
    founder.good(&["town", "found", "Oberdorf"]);
    let good = founder.good(&["town", "invite"]).trim().to_owned();
    let wrong = if &good[60..61] == "x" { "y" } else { "x" };
    let mistyped = format!("{}{wrong}{}", &good[..60], &good[61..]);
    for (text, word) in [
        ("hello", "begins with \"grange1\""),
        (&good[..good.len() - 3], "exactly 3 of its characters are missing"),
        (&mistyped, "character 61 is"),
        (&format!("{good}aa"), "2 characters too many"),
    ] {
        assert_paragraph(&other.grange(&["town", "join", text]), 10, &[word, "Nothing was changed"]);
    }
    assert_eq!(other.files(), Vec::<String>::new());
}

#[test]
fn no_town_is_left_silently() {
    let (founder, other) = (Node::new(), Node::new());
    founder.good(&["town", "found", "Oberdorf"]);
    let invitation = founder.good(&["town", "invite"]);
    other.good(&["town", "found", "Unterdorf"]);
    let before = fs::read(other.state().join("town.toml")).unwrap();
    assert_paragraph(&other.grange(&["town", "join", invitation.trim()]), 11, &["Unterdorf", "grange town leave"]);
    assert_paragraph(&other.grange(&["town", "found", "Dritte"]), 11, &["Unterdorf", "grange town leave"]);
    assert_paragraph(&other.grange(&["town", "leave"]), 11, &["steward", "--give-up-steward"]);
    assert_eq!(fs::read(other.state().join("town.toml")).unwrap(), before);
    other.good(&["town", "leave", "--give-up-steward"]);
    assert_eq!(other.files(), ["node.key"]);
    other.good(&["town", "join", invitation.trim()]);
}

#[test]
fn names_that_are_none_and_a_node_without_a_town() {
    let node = Node::new();
    assert_paragraph(&node.grange(&["town", "found", ""]), 11, &["cannot be a town's name"]);
    assert_eq!(node.files(), Vec::<String>::new());
    assert_paragraph(&node.grange(&["town", "invite"]), 7, &["no key yet"]);
    node.good(&["key", "--new"]);
    assert_paragraph(&node.grange(&["town", "invite"]), 11, &["in no town"]);
}

#[test]
fn a_key_is_made_once_and_shown_without_its_secret() {
    let node = Node::new();
    assert_paragraph(&node.grange(&["key"]), 7, &["no key yet", "grange key --new"]);
    let made = node.json(&["key", "--new"]);
    let content = fs::read_to_string(node.state().join("node.key")).unwrap();
    let secret = content.lines().nth(1).unwrap().split('"').nth(1).unwrap();
    assert_eq!(secret.len(), 64);
    assert_paragraph(&node.grange(&["key", "--new"]), 7, &["exists already", "not overwritten"]);
    assert_eq!(fs::read_to_string(node.state().join("node.key")).unwrap(), content);
    assert_eq!(node.json(&["key"]), made);
    let shown = node.good(&["key"]);
    assert!(shown.contains(made["id"].as_str().unwrap()) && !shown.contains(secret), "{shown}");
    assert!(made["address"].as_str().unwrap().starts_with("fd"));
    assert_eq!(&made["id"].as_str().unwrap()[..2], &made["address"].as_str().unwrap()[2..4]);
}

#[test]
fn a_damaged_or_open_key_is_one_paragraph_and_left_alone() {
    let node = Node::new();
    node.good(&["key", "--new"]);
    let path = node.state().join("node.key");
    let good = fs::read(&path).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    for command in [&["key"][..], &["run"], &["town", "found", "Oberdorf"], &["key", "--new"]] {
        assert_paragraph(&node.grange(command), 7, &["its mode is 0640", "chmod 600"]);
    }
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let half = good[..good.len() / 2].to_vec();
    for bad in [Vec::new(), half, vec![0; good.len()], good.iter().map(u8::to_ascii_uppercase).collect()] {
        fs::write(&path, &bad).unwrap();
        for command in [&["key"][..], &["run"], &["town", "found", "Oberdorf"], &["key", "--new"]] {
            assert_paragraph(&node.grange(command), 7, &["is damaged", "backup", "grange key --new"]);
        }
        assert_eq!(fs::read(&path).unwrap(), bad);
        assert_eq!(node.files(), ["node.key"]);
    }
    // A failed start leaves no runtime directory either.
    assert!(!node.dir.path().join("run").exists());
}

#[test]
fn a_membership_of_another_key_is_told_as_such() {
    let (one, two) = (Node::new(), Node::new());
    one.good(&["town", "found", "Oberdorf"]);
    two.good(&["key", "--new"]);
    fs::copy(one.state().join("town.toml"), two.state().join("town.toml")).unwrap();
    assert_paragraph(&two.grange(&["town", "show"]), 7, &["another node key", "grange town leave"]);
    two.good(&["town", "leave"]);
    assert_eq!(two.json(&["town", "show"]), Value::Null);
}

#[test]
fn without_an_agent_the_commands_say_so() {
    let node = Node::new();
    for command in [&["status"][..], &["links"], &["seals"], &["routes"], &["trace", "fd00::1"]] {
        assert_paragraph(&node.grange(command), 4, &["the agent is not running", "grange run", "control.sock"]);
    }
    // A socket that an agent left when it was killed is as good as none.
    fs::create_dir(node.dir.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(node.dir.path().join("run/control.sock")).unwrap());
    assert_paragraph(&node.grange(&["status"]), 4, &["the agent is not running"]);
}

#[test]
fn the_configuration_shows_where_values_come_from() {
    let node = Node::new();
    let file = node.dir.path().join("grange.toml");
    fs::write(&file, "name = \"mill\"\n\n[mesh]\nport = 7000\n").unwrap();
    let file = file.to_str().unwrap();
    let mut command = node.command(&["--json", "--config", file, "--set", "mesh.mdns=false", "config"]);
    let said = said(command.env("GRANGE_LOG", "debug").output().unwrap());
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["name"]["value"], "mill");
    assert_eq!(json["mesh.port"], serde_json::json!({"value": 7000, "from": "file", "at": {"path": file, "line": 4}}));
    assert_eq!(json["mesh.mdns"]["from"], "flag");
    assert_eq!(json["log.level"], serde_json::json!({"value": "debug", "from": "environment", "at": "GRANGE_LOG"}));
    assert_eq!(json["uplink.share"]["from"], "default");
    let text = node.good(&["--config", file, "config"]);
    assert!(text.lines().any(|line| line.starts_with("mesh.port") && line.ends_with("grange.toml:4")), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn a_wrong_configuration_stops_before_anything_is_made() {
    let node = Node::new();
    let file = node.dir.path().join("grange.toml");
    fs::write(&file, "[uplink]\nshare = \"yes\"\n").unwrap();
    let file = file.to_str().unwrap();
    for command in ["run", "config"] {
        let said = node.grange(&["--config", file, command]);
        let expected = format!(
            "grange: the configuration is not right, so nothing was started or changed:\n\
             {file}:2: uplink.share: expected true or false, found \"yes\"\n\
             Correct it and try again; `grange config --example` shows every setting and what it takes.\n"
        );
        assert_eq!((said.code, said.err), (3, expected));
    }
    assert_paragraph(&node.grange(&["--config", "/nowhere/grange.toml", "run"]), 3, &["/nowhere/grange.toml"]);
    assert_eq!(node.files(), Vec::<String>::new());
    assert!(!node.dir.path().join("run").exists());
}

#[test]
fn a_state_directory_that_cannot_be_written_is_told() {
    let node = Node::new();
    // A file where the directory should be: not even root can write below it.
    fs::write(node.dir.path().join("file"), "").unwrap();
    let state = node.dir.path().join("file/state");
    for command in [&["key", "--new"][..], &["town", "found", "Oberdorf"], &["run"]] {
        let args = [&["--state-dir", state.to_str().unwrap()], command].concat();
        let said = node.grange(&args);
        assert_paragraph(&said, if command == ["key", "--new"] { 7 } else { said.code }, &["file/state"]);
        assert!([7, 8].contains(&said.code), "{said:?}");
    }
    // As for a user without rights; root has all rights, so this needs another user.
    if !rustix::process::geteuid().is_root() {
        let closed = node.dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, PermissionsExt::from_mode(0o500)).unwrap();
        let inner = closed.join("state");
        let said = node.grange(&["--state-dir", inner.to_str().unwrap(), "key", "--new"]);
        assert_paragraph(&said, 6, &["as root", "--state-dir"]);
    }
}

/// A tiny filesystem, unmounted when it is dropped.
struct Tiny(PathBuf);

impl Tiny {
    /// `None` if this user may not mount.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8k", "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.into()))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    let node = Node::new();
    let at = node.dir.path().join("tiny");
    let Some(tiny) = Tiny::mount(&at) else {
        // `cargo xtask test` looks for this line.
        println!("SKIPPED a_full_disk_leaves_nothing_half_made: it needs the right to mount a tmpfs");
        return;
    };
    fs::write(at.join("filler"), vec![0; 64 * 1024]).unwrap_err();
    let state = at.join("state");
    fs::create_dir(&state).unwrap();
    let state_dir = state.to_str().unwrap();
    for command in [&["key", "--new"][..], &["town", "found", "Oberdorf"], &["run"]] {
        let said = node.grange(&[&["--state-dir", state_dir], command].concat());
        assert_paragraph(&said, 8, &["there is no room", "node.key", "Nothing was changed", "Make room"]);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "{command:?}");
    }
    // With room for the key and not for more, the key stays and the town is not half there.
    fs::remove_file(at.join("filler")).unwrap();
    node.good(&["--state-dir", state_dir, "key", "--new"]);
    let _ = fs::write(at.join("filler"), vec![0; 64 * 1024]);
    let said = node.grange(&["--state-dir", state_dir, "town", "found", "Oberdorf"]);
    assert_paragraph(&said, 8, &["there is no room", "steward.key"]);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    drop(tiny);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let node = Node::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(node.good(&["completions", shell]).contains("grange"), "{shell}");
    }
    assert!(node.good(&["man"]).contains(".TH"));
    let dir = node.dir.path().to_str().unwrap();
    node.good(&["man", dir]);
    for page in ["grange.1", "grange-run.1", "grange-town-join.1"] {
        assert!(fs::read_to_string(node.dir.path().join(page)).unwrap().contains(".TH"), "{page}");
    }
    let help = node.good(&["--help"]);
    assert!(help.contains("grange completions SHELL") && help.contains("grange man"), "{help}");
}

#[test]
fn a_wrong_command_line_is_another_exit_code() {
    let node = Node::new();
    assert_eq!(node.grange(&["dance"]).code, 2);
    assert_eq!(node.grange(&[]).code, 2);
    assert_eq!(node.grange(&["town", "invite", "--hours", "-1"]).code, 2);
    assert_eq!(node.grange(&["--version"]).out, format!("grange {}\n", env!("CARGO_PKG_VERSION")));
}
