//! What a node has whether or not it is in a town: keys, interfaces, random numbers, and the queues to the shell.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use grange_wire::{DATA_OVERHEAD, MESH_V6, NAME_MAX, SEAL_PORT, UNDERLAY_V6, node_address};

use super::DropCounters;
use crate::{
    Endpoint, Event, Identity, IfaceId, IfaceKind, IfaceState, Instant, Offer, Target, Transmit, link::Random,
};

/// Interfaces that a node looks at; a router has a dozen.
const IFACES_MAX: usize = 256;

/// Static peers; a town's cable runs and Internet links are a few dozen at most.
const STATICS_MAX: usize = 128;

/// Datagrams that wait for the shell. It fetches them after every call, so this is reached only if it does not.
const TRANSMITS_MAX: usize = 4096;

/// Largest IP packet assumed where the kernel chooses the interface.
const TUNNEL_MTU: u16 = 1500;

/// Largest IP packet assumed in the mesh as long as the shell has not said what links carry: that over Ethernet.
const MESH_MTU: u16 = 1500 - (UNDERLAY_V6 + DATA_OVERHEAD) as u16;

/// Beacons in steady state.
pub(super) const BEACON_INTERVAL: Duration = Duration::from_secs(5);

/// Pauses behind the first beacons of an interface, which ask for answers.
const SOLICIT_PAUSES: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(750), Duration::from_secs(2)];

/// First and longest pause between solicits to a static peer without a link.
const STATIC_MIN: Duration = Duration::from_secs(1);
const STATIC_MAX: Duration = Duration::from_secs(30);

pub(super) struct Iface {
    pub(super) state: IfaceState,
    next_beacon: Instant,
    solicited: usize,
}

pub(super) struct StaticPeer {
    pub(super) at: Endpoint,
    /// When to ask next; `None` while there is a link.
    pub(super) next: Option<Instant>,
    pause: Duration,
}

impl StaticPeer {
    fn new(at: Endpoint, now: Instant) -> Self {
        Self { at, next: Some(now), pause: STATIC_MIN }
    }

    /// It was asked: when to ask again.
    pub(super) fn asked(&mut self, now: Instant, random: &mut Random) {
        self.next = Some(now + random.jitter(self.pause));
        self.pause = (self.pause * 2).min(STATIC_MAX);
    }

    /// Its link is gone: ask at once.
    pub(super) fn lost(&mut self, now: Instant) {
        (self.next, self.pause) = (Some(now), STATIC_MIN);
    }
}

pub(super) struct Host {
    pub(super) identity: Identity,
    pub(super) name: String,
    pub(super) offer: Offer,
    pub(super) random: Random,
    pub(super) ifaces: BTreeMap<IfaceId, Iface>,
    pub(super) statics: Vec<StaticPeer>,
    pub(super) stats: DropCounters,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    next_link: u32,
}

impl Host {
    pub(super) fn new(identity: Identity, name: &str, offer: Offer, random: Random) -> Self {
        Self {
            identity,
            name: printable(name),
            offer,
            random,
            ifaces: BTreeMap::new(),
            statics: Vec::new(),
            stats: DropCounters::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            next_link: 1,
        }
    }

    pub(super) fn send(&mut self, to: Target, payload: Vec<u8>) {
        if self.transmits.len() < TRANSMITS_MAX {
            self.transmits.push_back(Transmit { to, payload });
        } else {
            self.stats.unsent += 1;
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// One call causes at most a few events for each link and route, both of which are bounded.
    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn next_link(&mut self) -> crate::LinkId {
        let id = crate::LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        id
    }

    /// Takes over an interface's state; gives what it was before.
    pub(super) fn set_iface(&mut self, now: Instant, iface: IfaceId, state: Option<IfaceState>) -> Option<IfaceState> {
        let unset = IfaceState { kind: IfaceKind::Tunnel, mtu: MESH_MTU, up: true, beacons: false };
        let before = self.ifaces.get(&iface).map(|iface| iface.state);
        let before = before.or((iface == IfaceId::MESH).then_some(unset));
        // Nobody is found in the mesh by beacons: routing says who is there.
        let mesh = |state| IfaceState { kind: IfaceKind::Tunnel, beacons: false, ..state };
        let state = if iface == IfaceId::MESH { state.map(mesh) } else { state };
        let room = self.ifaces.len() < IFACES_MAX && iface != IfaceId(0);
        match (state, self.ifaces.get_mut(&iface)) {
            (Some(state), Some(known)) => {
                if (state.up && !known.state.up) || (state.beacons && !known.state.beacons) {
                    (known.next_beacon, known.solicited) = (now, 0);
                }
                known.state = state;
            }
            (Some(state), None) if room => {
                self.ifaces.insert(iface, Iface { state, next_beacon: now, solicited: 0 });
            }
            (Some(_), None) => {}
            (None, _) => {
                self.ifaces.remove(&iface);
            }
        }
        before
    }

    /// Begins anew with solicits on all interfaces and to all static peers.
    pub(super) fn solicit_anew(&mut self, now: Instant) {
        for iface in self.ifaces.values_mut() {
            (iface.next_beacon, iface.solicited) = (now, 0);
        }
        self.statics.iter_mut().for_each(|peer| peer.lost(now));
    }

    pub(super) fn set_statics(&mut self, now: Instant, peers: &[Endpoint]) {
        self.statics.retain(|known| peers.contains(&known.at));
        for &at in peers {
            if self.statics.len() < STATICS_MAX
                && at.iface != IfaceId::MESH
                && !self.statics.iter().any(|known| known.at == at)
            {
                self.statics.push(StaticPeer::new(at, now));
            }
        }
    }

    /// The interfaces where a beacon is due, and whether it shall ask for answers.
    pub(super) fn due_beacons(&mut self, now: Instant) -> Vec<(IfaceId, bool)> {
        let mut due = Vec::new();
        for (id, iface) in &mut self.ifaces {
            if !(iface.state.up && iface.state.beacons) || now < iface.next_beacon {
                continue;
            }
            let pause = SOLICIT_PAUSES.get(iface.solicited);
            due.push((*id, pause.is_some()));
            iface.solicited += usize::from(pause.is_some());
            iface.next_beacon = now + self.random.jitter(*pause.unwrap_or(&BEACON_INTERVAL));
        }
        due
    }

    /// When a beacon or a solicit to a static peer is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let beacons = self.ifaces.values().filter(|iface| iface.state.up && iface.state.beacons);
        let beacons = beacons.map(|iface| iface.next_beacon);
        beacons.chain(self.statics.iter().filter_map(|peer| peer.next)).min()
    }

    /// Where a datagram came from, as links know it: the interface belongs to a link-local address or to an interface
    /// that links may form on; else the kernel chose it, and it is zero. In the mesh it is another node's address at the
    /// port of seals. `None`: no links there.
    pub(super) fn place(&self, from: Endpoint) -> Option<Endpoint> {
        if from.iface == IfaceId::MESH {
            let IpAddr::V6(v6) = from.addr.ip() else { return None };
            let other = v6 != node_address(&self.identity.id()) && MESH_V6.contains(v6.into());
            let taken = other && from.addr.port() == SEAL_PORT && self.is_up(IfaceId::MESH);
            return taken.then_some(Endpoint { iface: IfaceId::MESH, addr: (v6, SEAL_PORT).into() });
        }
        let known = self.ifaces.get(&from.iface).map(|iface| iface.state.up);
        let anywhere = Endpoint { iface: IfaceId(0), ..from };
        match from.addr.ip() {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => (known == Some(true)).then_some(from),
            _ if known != Some(true) || self.statics.iter().any(|peer| peer.at == anywhere) => Some(anywhere),
            _ => Some(from),
        }
    }

    /// Whether an interface that the shell need not name is up.
    pub(super) fn is_up(&self, iface: IfaceId) -> bool {
        self.ifaces.get(&iface).is_none_or(|iface| iface.state.up)
    }

    /// Kind and MTU of the interface of a link.
    pub(super) fn medium(&self, iface: IfaceId) -> (IfaceKind, u16) {
        let unnamed = (IfaceKind::Tunnel, if iface == IfaceId::MESH { MESH_MTU } else { TUNNEL_MTU });
        self.ifaces.get(&iface).map_or(unnamed, |iface| (iface.state.kind, iface.state.mtu))
    }
}

/// A name as others will take it: at most 32 bytes, no control characters.
fn printable(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        out.push(c);
    }
    out
}
