//! What is accepted, what is refused, and with which words.

use std::path::Path;

use super::*;

fn read_file(text: &str) -> Result<Config, Problems> {
    let nothing = Overrides { environment: &|_| None, flags: &[] };
    read(Some((Path::new("grange.toml"), text)), &nothing)
}

/// The whole message of a wrong file.
fn refused(text: &str) -> String {
    read_file(text).expect_err(text).to_string()
}

fn row(config: &Config, key: &str) -> (String, String) {
    let row = config.rows().into_iter().find(|row| row.key == key).unwrap();
    (row.value, row.origin.to_string())
}

#[test]
fn each_wrong_value_has_one_exact_message() {
    let cases = [
        // Kinds of values, with a wrong one each.
        ("name = 3", "grange.toml:1: name: expected a name of 1 to 32 bytes without control characters, found 3"),
        ("name = \"\"", "grange.toml:1: name: expected a name of 1 to 32 bytes without control characters, found \"\""),
        (
            "name = \"123456789012345678901234567890123\"",
            "grange.toml:1: name: expected a name of 1 to 32 bytes without control characters, found \"123456789012345678901234567890123\"",
        ),
        (
            "\n\n[uplink]\n# to share\nshare = \"yes\"",
            "grange.toml:5: uplink.share: expected true or false, found \"yes\"",
        ),
        ("uplink.share = 1", "grange.toml:1: uplink.share: expected true or false, found 1"),
        ("[mesh]\nport = 0", "grange.toml:2: mesh.port: expected a port number from 1 to 65535, found 0"),
        ("[mesh]\nport = 65536", "grange.toml:2: mesh.port: expected a port number from 1 to 65535, found 65536"),
        ("[mesh]\nport = -1", "grange.toml:2: mesh.port: expected a port number from 1 to 65535, found -1"),
        (
            "[mesh]\nport = 99999999999999999999",
            "grange.toml:2: mesh.port: expected a port number from 1 to 65535, found 99999999999999999999",
        ),
        ("[mesh]\nport = \"7264\"", "grange.toml:2: mesh.port: expected a port number from 1 to 65535, found \"7264\""),
        ("[mesh]\nport = 72.64", "grange.toml:2: mesh.port: expected a port number from 1 to 65535, found 72.64"),
        (
            "[mesh]\ninterfaces = \"eth0\"",
            "grange.toml:2: mesh.interfaces: expected \"auto\" or a list of interface names, as in [\"eth0\", \"wlan0\"], found \"eth0\"",
        ),
        ("[mesh]\ninterfaces = [\"eth0\", 1]", "grange.toml:2: mesh.interfaces: expected texts in the list, found 1"),
        (
            "[mesh]\ninterfaces = [\"a/b\"]",
            "grange.toml:2: mesh.interfaces: \"a/b\" is no interface name (1 to 15 bytes, without '/', ':' and blanks)",
        ),
        (
            "[mesh]\nexclude = \"auto\"",
            "grange.toml:2: mesh.exclude: expected a list of interface names, as in [\"eth0\", \"wlan0\"], found \"auto\"",
        ),
        (
            "[mesh]\npeers = \"mill:7264\"",
            "grange.toml:2: mesh.peers: expected a list of host:port, as in [\"mill.example.org:7264\", \"[2001:db8::1]:7264\"], found \"mill:7264\"",
        ),
        (
            "[mesh]\npeers = [\"mill\"]",
            "grange.toml:2: mesh.peers: \"mill\" is no peer: expected HOST:PORT, as in mesh.example.org:7264 or [2001:db8::1]:7264",
        ),
        (
            "[mesh]\npeers = [\"mill:0\"]",
            "grange.toml:2: mesh.peers: \"mill:0\" is no peer: the port must be a number from 1 to 65535",
        ),
        ("[mesh]\nmdns = \"on\"", "grange.toml:2: mesh.mdns: expected true or false, found \"on\""),
        (
            "[mesh]\ntun = \"a-very-long-name\"",
            "grange.toml:2: mesh.tun: expected an interface name (1 to 15 bytes, without '/', ':' and blanks), found \"a-very-long-name\"",
        ),
        (
            "[lan]\ninterfaces = true",
            "grange.toml:2: lan.interfaces: expected \"auto\" or a list of interface names, as in [\"eth0\", \"wlan0\"], found true",
        ),
        (
            "[uplink]\ninterface = [\"wan\"]",
            "grange.toml:2: uplink.interface: expected \"auto\" or an interface name, as in \"wan\", found a list of 1 entry",
        ),
        (
            "[uplink]\ngateways = \"some\"",
            "grange.toml:2: uplink.gateways: expected \"any\", \"nobody\" or a list of node addresses or ids, found \"some\"",
        ),
        (
            "[uplink]\ngateways = [\"2001:db8::1\"]",
            "grange.toml:2: uplink.gateways: \"2001:db8::1\" is no node: expected its address, as `grange key` shows it, or its id of 64 hexadecimal digits",
        ),
        (
            "[log]\nlevel = \"loud\"",
            "grange.toml:2: log.level: expected a level (off, error, warn, info, debug, trace), or one for each part, as in \"info,grange_mesh=debug\", found \"loud\"",
        ),
        (
            "[log]\nlevel = 1979-05-27",
            "grange.toml:2: log.level: expected a level (off, error, warn, info, debug, trace), or one for each part, as in \"info,grange_mesh=debug\", found 1979-05-27",
        ),
        // Keys and sections.
        ("mash.port = 1", "grange.toml:1: mash: there is no such section; did you mean [mesh]?"),
        ("[uplnk]\nshare = true", "grange.toml:1: uplnk: there is no such section; did you mean [uplink]?"),
        (
            "[weather]\nrain = true",
            "grange.toml:1: weather: there is no such section; `grange config` lists all settings",
        ),
        ("[uplink]\nshair = true", "grange.toml:2: uplink.shair: there is no such setting; did you mean uplink.share?"),
        ("[mesh]\nshare = true", "grange.toml:2: mesh.share: there is no such setting; did you mean uplink.share?"),
        ("port = 7264", "grange.toml:1: port: there is no such setting; did you mean mesh.port?"),
        (
            "[mesh]\nfrequency = 5",
            "grange.toml:2: mesh.frequency: there is no such setting; `grange config` lists all settings",
        ),
        ("mesh = 7264", "grange.toml:1: mesh: expected a section [mesh], found 7264"),
        (
            "[name]\nfirst = \"a\"",
            "grange.toml:1: name: expected a name of 1 to 32 bytes without control characters, found a section",
        ),
        ("[[mesh]]\nport = 1", "grange.toml:1: mesh: expected a section [mesh], found a list of 1 entry"),
    ];
    for (text, message) in cases {
        assert_eq!(refused(text), message, "{text}");
    }
}

#[test]
fn all_mistakes_are_told_in_the_order_of_their_lines() {
    let text = "[uplink]\nshare = \"yes\"\n[mesh]\nport = 0\nprot = 1\n";
    assert_eq!(
        refused(text),
        "grange.toml:2: uplink.share: expected true or false, found \"yes\"\n\
         grange.toml:4: mesh.port: expected a port number from 1 to 65535, found 0\n\
         grange.toml:5: mesh.prot: there is no such setting; did you mean mesh.port?"
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    assert!(refused("[mesh]\nport = \n").starts_with("grange.toml:2: this is not TOML: "));
    assert!(refused("name = \"a\"\nname = \"b\"\n").starts_with("grange.toml:2: this is not TOML: duplicate key"));
    assert!(
        refused("[mesh]\nport = 1\n\n[mesh]\nmdns = true")
            .starts_with("grange.toml:4: this is not TOML: duplicate key")
    );
}

#[test]
fn without_a_file_everything_has_its_default() {
    let config = read(None, &Overrides { environment: &|_| None, flags: &[] }).unwrap();
    for (key, value) in [
        ("mesh.port", "7264"),
        ("mesh.interfaces", "\"auto\""),
        ("mesh.exclude", "[]"),
        ("mesh.peers", "[]"),
        ("mesh.mdns", "true"),
        ("mesh.tun", "\"grange0\""),
        ("lan.interfaces", "\"auto\""),
        ("uplink.share", "false"),
        ("uplink.interface", "\"auto\""),
        ("uplink.gateways", "\"any\""),
        ("log.level", "\"info\""),
    ] {
        assert_eq!(row(&config, key), (value.into(), "default".into()));
    }
}

#[test]
fn good_values_are_taken_and_shown_as_they_were_written() {
    let text = r#"
name = "Mühle \"am\" Bach"
[mesh]
port = 0x1c60
interfaces = ["eth1", "mesh0"]
exclude = ["eth2"]
peers = ["mill.example.org:7264", "[2001:db8::1]:1"]
mdns = false
tun = "town0"
[lan]
interfaces = []
[uplink]
share = true
interface = "wan"
gateways = ["fd12:3456:789a:bcde:f012:3456:789a:bcde", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"]
[log]
level = "info,grange_mesh=debug"
"#;
    let config = read_file(text).unwrap();
    for (key, value, line) in [
        ("name", r#""Mühle \"am\" Bach""#, 2),
        ("mesh.port", "7264", 4),
        ("mesh.interfaces", r#"["eth1", "mesh0"]"#, 5),
        ("mesh.exclude", r#"["eth2"]"#, 6),
        ("mesh.peers", r#"["mill.example.org:7264", "[2001:db8::1]:1"]"#, 7),
        ("mesh.mdns", "false", 8),
        ("mesh.tun", r#""town0""#, 9),
        ("lan.interfaces", "[]", 11),
        ("uplink.share", "true", 13),
        ("uplink.interface", r#""wan""#, 14),
        (
            "uplink.gateways",
            r#"["fd12:3456:789a:bcde:f012:3456:789a:bcde", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"]"#,
            15,
        ),
        ("log.level", r#""info,grange_mesh=debug""#, 17),
    ] {
        assert_eq!(row(&config, key), (value.into(), format!("grange.toml:{line}")));
    }
}

#[test]
fn a_gateway_named_by_its_address_is_that_node() {
    let id = grange_wire::NodeId::of_key(&[7; 32]);
    let config = read_file(&format!("uplink.gateways = [\"{}\"]", grange_wire::node_address(&id))).unwrap();
    assert!(config.uplink_gateways.value.0.allows(&id));
    assert!(!config.uplink_gateways.value.0.allows(&grange_wire::NodeId::of_key(&[8; 32])));
}

#[test]
fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let environment = |name: &str| match name {
        "GRANGE_MESH_PORT" => Some("7001".to_owned()),
        "GRANGE_NAME" => Some("from the environment".to_owned()),
        "GRANGE_LOG" => Some("debug".to_owned()),
        _ => None,
    };
    let flags = ["mesh.port=7002".to_owned(), "mesh.exclude = [\"eth0\"]".to_owned()];
    let overrides = Overrides { environment: &environment, flags: &flags };
    let text = "name = \"from the file\"\nmesh.port = 7000\nmesh.mdns = false\n";
    let config = read(Some((Path::new("grange.toml"), text)), &overrides).unwrap();
    assert_eq!(row(&config, "mesh.port"), ("7002".into(), "flag --set mesh.port".into()));
    assert_eq!(row(&config, "mesh.exclude"), ("[\"eth0\"]".into(), "flag --set mesh.exclude".into()));
    assert_eq!(row(&config, "name"), ("\"from the environment\"".into(), "environment GRANGE_NAME".into()));
    assert_eq!(row(&config, "log.level"), ("\"debug\"".into(), "environment GRANGE_LOG".into()));
    assert_eq!(row(&config, "mesh.mdns"), ("false".into(), "grange.toml:3".into()));
}

#[test]
fn wrong_flags_and_variables_say_which() {
    let environment = |name: &str| (name == "GRANGE_UPLINK_SHARE").then(|| "maybe".to_owned());
    let flags = ["mesh.port=high".to_owned(), "mesh.prot=1".to_owned(), "share".to_owned()];
    let overrides = Overrides { environment: &environment, flags: &flags };
    let message = read(None, &overrides).unwrap_err().to_string();
    for line in [
        "environment GRANGE_UPLINK_SHARE: uplink.share: expected true or false, found \"maybe\"",
        "--set mesh.port: mesh.port: expected a port number from 1 to 65535, found \"high\"",
        "--set: mesh.prot: there is no such setting; did you mean mesh.port?",
        "--set share: expected KEY=VALUE, as in --set uplink.share=true",
    ] {
        assert!(message.lines().any(|found| found == line), "{message}");
    }
}

#[test]
fn a_host_name_makes_a_good_name() {
    assert!(NodeName::read(&Raw::Text(NodeName::of_host().0)).is_ok());
}
