//! Beacons out and in: how neighbours find each other.

use grange_wire::Beacon;

use super::{host::Host, membership::Membership};
use crate::{Endpoint, Instant, Target};

impl Membership {
    /// Sends the beacons and the solicits that are due.
    pub(super) fn discover(&mut self, host: &mut Host, now: Instant) {
        for (iface, solicit) in host.due_beacons(now) {
            let beacon = self.beacons.beacon(solicit);
            host.send(Target::Beacon(iface), beacon.to_vec());
        }
        for n in 0..host.statics.len() {
            let peer = &mut host.statics[n];
            if peer.next.is_none_or(|next| now < next) {
                continue;
            }
            let at = peer.at;
            if self.live_link_at(&at).is_some() {
                peer.next = None;
                continue;
            }
            peer.asked(now, &mut host.random);
            if !self.attempts.contains_key(&at) {
                self.solicit(host, at);
            }
        }
    }

    /// Asks whoever is at `at` for a beacon; what follows, follows from the answer.
    pub(super) fn solicit(&mut self, host: &mut Host, at: Endpoint) {
        let beacon = self.beacons.beacon(true);
        host.send(Target::Endpoint(at), beacon.to_vec());
    }

    pub(super) fn handle_beacon(&mut self, host: &mut Host, now: Instant, from: Endpoint, datagram: &[u8]) {
        let Ok(beacon) = Beacon::parse(datagram) else {
            host.stats.malformed += 1;
            return;
        };
        if !self.beacons.recognises(&beacon) {
            host.stats.foreign += 1;
            return;
        }
        let nonce = beacon.nonce();
        if self.beacons.is_own(&nonce) {
            return; // A multicast of ours that came back.
        }
        let flags = beacon.flags();
        if flags.solicit {
            match self.beacons.answer(now, &from) {
                Some(answer) => host.send(Target::Endpoint(from), answer.to_vec()),
                None => host.stats.limited += 1,
            }
        }
        if self.feed_attempt(host, now, from, nonce, flags) || self.live_link_at(&from).is_some() {
            return;
        }
        self.approach(host, now, from, nonce, flags.solicit);
    }
}
