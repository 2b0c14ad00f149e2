//! Beacons out and in: how neighbours find each other.

use grange_wire::Beacon;

use super::{host::Host, membership::Membership};
use crate::{Endpoint, IfaceId, Instant, Target, link::Recognised};

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
        let beacon = self.beacons_at(&at).beacon(true);
        host.send(Target::Endpoint(at), beacon.to_vec());
    }

    pub(super) fn handle_beacon(&mut self, host: &mut Host, now: Instant, from: Endpoint, datagram: &[u8]) {
        let Ok(beacon) = Beacon::parse(datagram) else {
            host.stats.malformed += 1;
            return;
        };
        let proved = match self.beacons_at(&from).recognise(&beacon) {
            Recognised::Foreign => {
                host.stats.foreign += 1;
                return;
            }
            Recognised::Own => return,
            Recognised::Town => false,
            Recognised::Answer => true,
        };
        let (nonce, flags) = (beacon.nonce(), beacon.flags());
        if flags.solicit {
            match self.beacons_at(&from).answer(now, &from, &nonce) {
                Some(answer) => host.send(Target::Endpoint(from), answer.to_vec()),
                None => host.stats.limited += 1,
            }
        }
        if self.feed_attempt(host, now, from, nonce, flags, proved) || self.live_link_at(&from).is_some() {
            return;
        }
        // Over the mesh nobody is met by chance. Over interface 0 nobody is heard unasked: who has us for a static peer asks and then begins. Anything else
        // may be a beacon of long ago, sent in another's name to have us send him more.
        let begins = match from.iface {
            IfaceId(0) => proved || host.statics.iter().any(|peer| peer.at == from),
            iface => iface != IfaceId::MESH,
        };
        if begins {
            self.approach(host, now, from, nonce, flags.solicit);
        }
    }
}
