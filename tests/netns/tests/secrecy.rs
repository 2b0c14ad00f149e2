//! What a listener on a wire learns: nothing of what is said, and not who speaks.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use grange_netns::{Download, EchoServer, EchoStream, Recording, Town, WebServer, town_test, wait_until};

/// Long enough that ciphertext does not hold them by chance.
const NAMES: [&str; 3] = ["watermill-north", "old-oak-corner", "fishpond-south"];

/// Everything that must be on no wire, with what it is.
fn secrets(town: &Town) -> Result<Vec<(String, Vec<u8>)>> {
    let mut secrets = vec![
        ("the town's name".to_owned(), Town::NAME.as_bytes().to_vec()),
        // The echo stream's filling and the web server's page.
        ("a payload".to_owned(), vec![b'x'; 24]),
        ("a payload".to_owned(), b"HTTP/1.0".to_vec()),
    ];
    for node in town.nodes() {
        let name = node.name();
        let keys = node.keys()?;
        secrets.push((format!("the name {name}"), name.as_bytes().to_vec()));
        secrets.push((format!("the address of {name}"), node.address()?.octets()[..12].to_vec()));
        for (what, text) in [("id", &keys.id), ("identity key", &keys.identity_key), ("link key", &keys.link_key)] {
            let bytes = hex(text);
            ensure!(bytes.len() == 32, "the {what} of {name} is {text}");
            secrets.push((format!("the {what} of {name}"), bytes[..12].to_vec()));
            secrets.push((format!("the {what} of {name}"), bytes[20..].to_vec()));
            secrets.push((format!("the {what} of {name} as text"), text.as_bytes()[..24].to_vec()));
        }
        // Whatever hexadecimal stands in the secret files.
        for entry in std::fs::read_dir(node.state_dir())? {
            let text = String::from_utf8_lossy(&std::fs::read(entry?.path())?).into_owned();
            for word in text.split(|letter: char| !letter.is_ascii_hexdigit()).filter(|word| word.len() >= 32) {
                secrets.push((format!("a secret of {name}"), hex(word)[..12].to_vec()));
            }
        }
    }
    Ok(secrets)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).filter_map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()).collect()
}

fn expect_secret(wire: &str, recording: &Recording, secrets: &[(String, Vec<u8>)]) -> Result<()> {
    ensure!(recording.dropped == 0, "the capture of {wire} is not whole");
    for (what, bytes) in secrets {
        if let Some(at) = recording.find(bytes) {
            let frame = &recording.frames[at];
            anyhow::bail!("{what} is on the wire {wire}, in frame {at}: {:02x?}", &frame.bytes);
        }
    }
    Ok(())
}

#[test]
fn the_wires_show_no_payload_no_key_no_name_and_no_address() {
    town_test("the_wires_show_no_payload_no_key_no_name_and_no_address", || {
        let town = Town::builder()
            .nodes(&NAMES)
            .links(&[(NAMES[0], NAMES[1]), (NAMES[1], NAMES[2])])
            .laptop("lena", NAMES[0])
            .laptop("tom", NAMES[2])
            .build()?;
        town.found()?;
        // From before the first beacon on.
        let captures = town.wires().iter().map(|wire| wire.capture()).collect::<Result<Vec<_>>>()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;

        let (lena, tom) = (town.laptop("lena")?, town.laptop("tom")?);
        let server: IpAddr = tom.v6()?.into();
        let _echo = EchoServer::start(tom.namespace(), server)?;
        let _web = WebServer::start(tom.namespace(), &[server])?;
        let stream = EchoStream::start(lena.namespace(), server, Duration::from_millis(5), 600)?;
        stream.wait_flowing(Duration::from_secs(5))?;
        Download::start(lena.namespace(), server, 9, 2_000_000, 0)?.finish(Duration::from_secs(20))?;
        town.node(NAMES[0])?.trace(&server.to_string())?;
        // A restart of one end and a goodbye are on the wire too.
        let middle = town.node(NAMES[1])?;
        middle.stop()?;
        middle.start()?;
        town.wait_reachable(Duration::from_secs(10))?;

        let secrets = secrets(&town)?;
        for (wire, capture) in town.wires().iter().zip(captures) {
            let recording = capture.stop();
            let bytes: usize = recording.frames.iter().map(|frame| frame.bytes.len()).sum();
            ensure!(bytes > 2_000_000, "the capture of {} holds {bytes} bytes only", wire.name());
            expect_secret(wire.name(), &recording, &secrets)?;
        }
        Ok(())
    });
}

#[test]
fn a_capture_would_have_shown_them() {
    town_test("a_capture_would_have_shown_them", || {
        // The same search on a laptop's side of the router, where all is in the clear.
        let town = Town::builder().nodes(&NAMES[..2]).link(NAMES[0], NAMES[1]).laptop("lena", NAMES[0]).build()?;
        town.found()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        let router = town.node(NAMES[0])?;
        let server = town.node(NAMES[1])?.address()?;
        let _echo = EchoServer::start(town.node(NAMES[1])?.namespace(), server.into())?;
        let stream = EchoStream::start(town.laptop("lena")?.namespace(), server.into(), Duration::from_millis(5), 600)?;
        stream.wait_flowing(Duration::from_secs(5))?;
        let socket = grange_netns::PacketSocket::open(router.namespace(), "to-lena", false)?;
        let mut buffer = vec![0; 65536];
        wait_until("a readable datagram on the LAN", Duration::from_secs(3), || {
            let Some((length, _)) = socket.receive(&mut buffer)? else { return Ok(None) };
            let frame = &buffer[..length];
            let holds = |needle: &[u8]| frame.windows(needle.len()).any(|window| window == needle);
            Ok((holds(&[b'x'; 24]) && holds(&server.octets()[..12])).then_some(()))
        })?;
        Ok(())
    });
}
