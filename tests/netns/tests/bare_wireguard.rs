//! WireGuard set up by hand: what the kernel under test can do without Grange.

use std::{net::IpAddr, time::Duration};

use anyhow::ensure;
use grange_netns::{BareWireguard, Binary, Prober, Town, iperf3, measured, town_test, wait_until};

#[test]
fn wireguard_by_hand_carries_a_stream_over_a_cable() {
    town_test("wireguard_by_hand_carries_a_stream_over_a_cable", || {
        let town = Town::builder().nodes(&["a", "b"]).link("a", "b").binary(Binary::at("/bin/false")).build()?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        let tunnel = BareWireguard::between([(a, "to-b"), (b, "to-a")], 1500)?;
        let far = BareWireguard::ADDRESSES[1];
        let mut prober = Prober::new(a)?;
        // The first packets wait for the handshake.
        wait_until("an answer through the tunnel", Duration::from_secs(20), || {
            Ok(prober.probe(&[far], Duration::from_secs(1))[0])
        })?;
        let before = tunnel.sent()?;
        let span = Duration::from_secs(5);
        let rate = iperf3(a, b, IpAddr::V6(far), span)?;
        let after = tunnel.sent()?;
        measured(&format!("WireGuard by hand over a cable: {rate:.1} Mbit/s"));
        // What iperf3 received went through the tunnel and no other way.
        let through = (after[0] - before[0]) as f64 * 8e-6;
        ensure!(through >= rate * span.as_secs_f64() * 0.9, "{through:.1} Mbit of {rate:.1} Mbit/s in {span:?}");
        Ok(())
    });
}
