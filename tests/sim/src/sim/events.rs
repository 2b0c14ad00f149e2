//! What nodes tell their shells, held against what they may tell.

use grange_core::{Cipher, DataKeys, Endpoint, Event, IfaceId, IfaceKind, IfaceState, LinkId, PeerInfo};

use super::{LinkNote, Note, Sim};
use crate::{
    host::{Host, PlaneLink, Route},
    report,
};

impl Sim {
    pub(super) fn event(&mut self, host: usize, event: Event) {
        let text = format!("{event:?}");
        if self.verbose {
            report::say(format_args!("{:?} node {host}: {text}", self.now));
        }
        self.trace("says", host, text.as_bytes());
        match event {
            Event::LinkUp { link, peer, endpoint, keys, mtu, kernel } => {
                assert!(mtu >= 1280, "{}: an inner MTU of {mtu}", self.context());
                let plane = self.plane_link(host, link, &peer, endpoint, keys, mtu, kernel);
                self.hosts[host].links.insert(link, plane);
                self.note(host, link, Note::Up);
                self.tell_mesh_mtu(host);
            }
            Event::SealUp { seal, peer, endpoint, keys, mtu, kernel } => {
                assert!(mtu >= 1199, "{}: an inner MTU of {mtu}", self.context());
                let plane = self.plane_link(host, seal, &peer, endpoint, keys, mtu, kernel);
                assert_eq!(endpoint, self.hosts[plane.peer].place(), "{}: somebody else's seal", self.context());
                let twin = self.hosts[host].seal_with(plane.peer);
                assert!(twin.is_none(), "{}: two seals of node {host} with {}", self.context(), plane.peer);
                self.hosts[host].seals.insert(seal, plane);
                self.note(host, seal, Note::Up);
            }
            Event::SealDown { seal, reason } => {
                self.note(host, seal, Note::Down(reason));
                let gone = self.hosts[host].seals.remove(&seal);
                assert!(gone.is_some(), "{}: node {host}'s {seal:?} is no seal", self.context());
            }
            Event::LinkKeysOffered { link, keys } => self.link_mut(host, link).offered = Some(keys),
            Event::LinkRekeyed { link, keys } => {
                self.note(host, link, Note::Rekeyed);
                let link = self.link_mut(host, link);
                link.offered = None;
                link.old_keys = Some(std::mem::replace(&mut link.keys, keys));
            }
            Event::LinkMoved { link, endpoint } => {
                self.note(host, link, Note::Moved);
                assert!(!self.hosts[host].seals.contains_key(&link), "{}: a seal moved", self.context());
                self.link_mut(host, link).endpoint = endpoint;
            }
            Event::LinkMtu { link, mtu } => {
                self.note(host, link, Note::Mtu(mtu));
                self.link_mut(host, link).mtu = mtu;
                self.tell_mesh_mtu(host);
            }
            Event::LinkDown { link, reason } => {
                self.note(host, link, Note::Down(reason));
                self.hosts[host].links.remove(&link);
                let left = self.hosts[host].fib.iter().find(|(_, route)| route.via == link);
                assert!(left.is_none(), "{}: node {host}'s {link:?} is down, but {left:?}", self.context());
                self.tell_mesh_mtu(host);
            }
            Event::RouteChanged { prefix, via, metric, owner, router_id } => {
                assert!(self.hosts[host].links.contains_key(&via), "{}: a route over no link", self.context());
                assert!(self.by_id.contains_key(&owner), "{}: a stranger's {prefix}", self.context());
                assert!(metric < u16::MAX, "{}: {prefix} at an infinite metric", self.context());
                assert!(!self.hosts[host].owns(&prefix), "{}: node {host} routes its {prefix}", self.context());
                self.hosts[host].fib.insert(prefix, Route { via, metric, owner, router_id });
                self.check_loops(prefix);
            }
            Event::RouteRemoved { prefix } => {
                let was = self.hosts[host].fib.remove(&prefix);
                assert!(was.is_some(), "{}: node {host} removes {prefix}, which was not there", self.context());
            }
            Event::LinkRtt { .. } | Event::LinkPlanePort { .. } => return,
        }
        self.version += 1;
    }

    /// What a plane is told of a link or seal that came up.
    #[expect(clippy::too_many_arguments, reason = "all that an event tells")]
    pub(super) fn plane_link(
        &mut self,
        host: usize,
        link: LinkId,
        peer: &PeerInfo,
        endpoint: Endpoint,
        keys: DataKeys,
        mtu: u16,
        kernel: bool,
    ) -> PlaneLink {
        let known = self.by_id.get(&peer.id).copied();
        let other = known.unwrap_or_else(|| panic!("{}: a link with a stranger", self.context()));
        assert_ne!(other, host, "{}: a link with itself", self.context());
        let (a, b) = (self.hosts[host].offer, self.hosts[other].offer);
        let aes = keys.cipher == Cipher::Aes256Gcm;
        assert_eq!(aes, a.fast_aes && b.fast_aes, "{}: cipher of {host} and {other}", self.context());
        assert_eq!(kernel, a.kernel_plane && b.kernel_plane, "{}: plane of {host} and {other}", self.context());
        let fresh = self.hosts[host].used.insert(link);
        assert!(fresh, "{}: {link:?} of node {host} was used before", self.context());
        let run = self.hosts[other].node.is_some().then_some(self.hosts[other].run);
        PlaneLink::new(other, run, endpoint, keys, mtu)
    }

    /// The mesh carries what the best link does.
    pub(super) fn tell_mesh_mtu(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let mtu = it.links.values().map(|link| link.mtu).max().unwrap_or(it.mesh_mtu);
        if mtu == it.mesh_mtu {
            return;
        }
        it.mesh_mtu = mtu;
        let now = it.instant(self.now);
        let state = IfaceState { kind: IfaceKind::Tunnel, mtu, up: true, beacons: false };
        if let Some(node) = &mut it.node {
            node.set_iface(now, IfaceId::MESH, Some(state));
        }
    }

    pub(super) fn note(&mut self, host: usize, link: LinkId, note: Note) {
        let peer = self.link_mut(host, link).peer;
        let seal = self.hosts[host].seals.contains_key(&link);
        self.notes.push(LinkNote { at: self.now, host, peer, link, seal, note });
    }

    pub(super) fn link_mut(&mut self, host: usize, link: LinkId) -> &mut PlaneLink {
        let context = self.context();
        let Host { links, seals, .. } = &mut self.hosts[host];
        let found = links.get_mut(&link).or_else(|| seals.get_mut(&link));
        found.unwrap_or_else(|| panic!("{context}: node {host} speaks of {link:?}, which is not up"))
    }
}
