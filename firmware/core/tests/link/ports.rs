//! PLANE: each end comes to know where the other's kernel plane listens.

use grange_core::{IfaceKind, LinkId, Offer};
use grange_wire::DatagramKind;

use crate::net::{Net, ms, town};

const KERNEL: Offer = Offer { fast_aes: false, kernel_plane: true };

/// Bytes of a datagram with a PLANE: no other control frame is as long.
const PLANE_LEN: usize = 16 + 6 + 16;

fn pair(offers: [Offer; 2], entropy: u8) -> Net {
    let mut net = Net::new();
    net.add_node_with(1, Some(town(1)), entropy, offers[0]);
    net.add_node_with(2, Some(town(2)), entropy ^ 0x55, offers[1]);
    net
}

fn set(net: &mut Net, node: usize, link: LinkId, port: u16) {
    let now = net.now;
    net.peers[node].node.set_plane_port(now, link, port);
    net.settle(node);
}

fn said(net: &Net) -> usize {
    let plane = |payload: &[u8]| DatagramKind::of(payload) == Some(DatagramKind::Control) && payload.len() == PLANE_LEN;
    net.log.iter().filter(|(_, flight)| plane(&flight.payload)).count()
}

/// The only link or seal of each node.
fn ids(net: &Net) -> [LinkId; 2] {
    [0, 1].map(|node| *net.peers[node].tubes.keys().chain(net.peers[node].seals.keys()).next().expect("one"))
}

#[test]
fn ports_come_through_loss_once_each_and_stay_over_new_keys() {
    for seal in [false, true] {
        for entropy in 0..12 {
            let mut net = pair([KERNEL; 2], entropy);
            if seal {
                net.want_seal(0, 1);
                net.add_sealed_flow(0, 1, ms(500));
                net.add_sealed_flow(1, 0, ms(500));
            } else {
                net.add_wire(&[0, 1], IfaceKind::Wireless);
            }
            net.run_for(ms(1000));
            let [a, b] = ids(&net);
            let loss = if seal { &mut net.mesh.loss } else { &mut net.wires[0].loss };
            *loss = 300;
            set(&mut net, 0, a, 1000);
            net.run_for(ms(u64::from(entropy) * 60));
            set(&mut net, 1, b, 2000);
            net.run_for(ms(20_000));
            let loss = if seal { &mut net.mesh.loss } else { &mut net.wires[0].loss };
            *loss = 0;
            net.run_for(ms(10_000));
            assert_eq!((net.plane_ports(0), net.plane_ports(1)), (vec![2000], vec![1000]), "{seal} {entropy}");
            let said_so_far = said(&net);
            net.run_for(ms(400_000));
            assert!(net.rekeys(0) >= 2);
            assert_eq!(said(&net), said_so_far, "nothing is said that is known");
            assert_eq!((net.plane_ports(0).len(), net.plane_ports(1).len()), (1, 1));
            set(&mut net, 1, b, 0);
            net.run_for(ms(100));
            assert_eq!(net.plane_ports(0), [2000, 0]);
            assert_eq!(said(&net), said_so_far + 2);
        }
    }
}

#[test]
fn a_neighbour_whose_port_changes_all_the_time_is_believed_once_a_second() {
    for seal in [false, true] {
        let mut net = pair([KERNEL; 2], 5);
        if seal {
            net.want_seal(0, 1);
        } else {
            net.add_wire(&[0, 1], IfaceKind::Wired);
        }
        net.run_for(ms(1000));
        let [_, b] = ids(&net);
        for port in 1..=1000 {
            set(&mut net, 1, b, port);
            net.run_for(ms(10));
        }
        net.run_for(ms(2000));
        let passed_on = net.plane_ports(0);
        assert!((10..=12).contains(&passed_on.len()), "{passed_on:?}");
        assert_eq!(passed_on.last(), Some(&1000));
        net.run_for(ms(100_000));
        assert_eq!(net.plane_ports(0).len(), passed_on.len());
    }
}

#[test]
fn nothing_is_said_where_not_both_have_a_kernel_plane() {
    let mut net = pair([KERNEL, Offer::default()], 1);
    net.add_wire(&[0, 1], IfaceKind::Wired);
    net.run_for(ms(1000));
    let [a, b] = ids(&net);
    set(&mut net, 0, a, 1000);
    set(&mut net, 1, b, 2000);
    net.run_for(ms(10_000));
    assert_eq!((said(&net), net.plane_ports(0), net.plane_ports(1)), (0, vec![], vec![]));
}

#[test]
fn a_new_link_knows_no_port_of_the_old_one() {
    let mut net = pair([KERNEL; 2], 1);
    net.add_wire(&[0, 1], IfaceKind::Wired);
    net.run_for(ms(1000));
    let [a, b] = ids(&net);
    set(&mut net, 0, a, 1000);
    set(&mut net, 1, b, 2000);
    net.run_for(ms(1000));
    net.restart(1, 0, IfaceKind::Wired, 9);
    net.run_for(ms(1000));
    net.assert_linked(0, 1);
    let [a, b] = ids(&net);
    set(&mut net, 0, a, 1001);
    net.run_for(ms(1000));
    set(&mut net, 1, b, 2001);
    net.run_for(ms(1000));
    assert_eq!((net.plane_ports(0), net.plane_ports(1)), (vec![2000, 2001], vec![1000, 1001]));
}
