//! Which cipher and which plane two ends agree on, and that nobody between them has a say in it.

use grange_core::{IfaceKind, Offer};
use grange_wire::DatagramKind;

use crate::net::{Flight, Net, ms, town};

const BOTH: Offer = Offer { fast_aes: true, kernel_plane: true };

fn pair(offers: [Offer; 2], entropy: u8) -> Net {
    let mut net = Net::new();
    net.add_node_with(1, Some(town(1)), entropy, offers[0]);
    net.add_node_with(2, Some(town(2)), entropy + 1, offers[1]);
    net.add_wire(&[0, 1], IfaceKind::Wired);
    net
}

#[test]
fn all_offers_meet_in_what_both_have() {
    let offers = [(false, false), (false, true), (true, false), (true, true)];
    let offers = offers.map(|(fast_aes, kernel_plane)| Offer { fast_aes, kernel_plane });
    for a in offers {
        for b in offers {
            let mut net = pair([a, b], 1);
            net.run_for(ms(200_000));
            // Checks keys, cipher and plane of both ends against the offers.
            net.assert_linked(0, 1);
            assert_eq!((net.rekeys(0), net.rekeys(1)), (1, 1));
            net.want_seal(0, 1);
            net.run_for(ms(1000));
            net.assert_sealed(0, 1);
        }
    }
}

/// The lengths of the first handshake's messages between two nodes that offer all.
fn lengths() -> [usize; 3] {
    let mut net = pair([BOTH; 2], 1);
    net.run_for(ms(100));
    [DatagramKind::Initiation, DatagramKind::Response, DatagramKind::Finish].map(|kind| {
        let sent = net.log.iter().find(|(_, flight)| flight.kind() == Some(kind)).expect("a handshake");
        sent.1.payload.len()
    })
}

/// Somebody in the middle does this to each message of the kind for a while: there is no link as long as he does, and
/// afterwards the one that there would have been.
fn middle(kind: DatagramKind, mut alter: impl FnMut(&mut Flight) + 'static) {
    let mut net = pair([BOTH; 2], 1);
    net.keep_log = false;
    net.tamper = Box::new(move |flight| {
        if flight.kind() == Some(kind) {
            alter(flight);
        }
    });
    net.run_for(ms(400));
    assert!(net.ups(0).is_empty() && net.ups(1).is_empty(), "{kind:?}");
    net.tamper = Box::new(|_| {});
    net.run_for(ms(2500));
    net.assert_linked(0, 1);
}

#[test]
fn an_altered_byte_of_a_handshake_makes_no_link() {
    let kinds = [DatagramKind::Initiation, DatagramKind::Response, DatagramKind::Finish];
    for (kind, len) in kinds.into_iter().zip(lengths()) {
        for at in 0..len {
            middle(kind, move |flight| flight.payload[at] ^= 1 << (at % 8));
        }
    }
}

#[test]
fn the_offer_of_aes_cannot_be_taken_out() {
    // Under a stream cipher, to flip a bit of the ciphertext is to flip it in the plaintext: this would be the one.
    // Head, ephemeral key, static key and tag, index, version, planes.
    let response = 8 + 32 + 48 + 4 + 2;
    let finish = 8 + 48 + 2;
    for bits in [2, 3, 0xff] {
        middle(DatagramKind::Response, move |flight| flight.payload[response] ^= bits);
        middle(DatagramKind::Finish, move |flight| flight.payload[finish] ^= bits);
        // The same for the planes.
        middle(DatagramKind::Response, move |flight| flight.payload[response - 1] ^= bits);
        middle(DatagramKind::Finish, move |flight| flight.payload[finish - 1] ^= bits);
    }
}

#[test]
fn messages_of_another_handshake_make_no_link() {
    // The same two nodes made a link with poorer machines before; its messages come in place of those of today.
    let mut before = pair([Offer::default(); 2], 11);
    before.run_for(ms(100));
    for kind in [DatagramKind::Initiation, DatagramKind::Response, DatagramKind::Finish] {
        let old = before.log.iter().find(|(_, flight)| flight.kind() == Some(kind)).unwrap().1.payload.clone();
        // With the index that the receiver waits for.
        middle(kind, move |flight| {
            let head = flight.payload[..8].to_vec();
            flight.payload.clone_from(&old);
            if kind != DatagramKind::Initiation {
                flight.payload[..8].copy_from_slice(&head);
            }
        });
    }
}
