//! Who is measured.

use crate::peer::{Kind, Meeting, Release, Suite};

/// Something that is measured, by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    /// For the command line and the JSON.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// What is started.
    pub(crate) kind: Kind,
}

/// What all others are compared with.
pub(crate) const REFERENCE: &str = "wireguard-go";

/// The bare cables.
pub(crate) const RAW: &str = "raw";

const fn grange(name: &'static str, title: &'static str, suite: Suite, seals: bool) -> Subject {
    Subject { name, title, kind: Kind::Grange { suite, seals, meeting: Meeting::Beacons } }
}

/// All subjects, in the order of the tables.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject { name: RAW, title: "raw veth", kind: Kind::Raw },
    grange("grange-aes", "Grange, AES-256-GCM", Suite::Aes, false),
    grange("grange-chacha", "Grange, ChaCha20-Poly1305", Suite::Chacha, false),
    Subject {
        name: "grange-aes-ipv4",
        title: "Grange, AES-256-GCM, over IPv4",
        kind: Kind::Grange { suite: Suite::Aes, seals: false, meeting: Meeting::Calls },
    },
    grange("grange-kernel", "Grange, kernel plane", Suite::Kernel, false),
    grange("grange-aes-seals", "Grange, AES-256-GCM, links and seals", Suite::Aes, true),
    grange("grange-chacha-seals", "Grange, ChaCha20-Poly1305, links and seals", Suite::Chacha, true),
    grange("grange-kernel-seals", "Grange, kernel plane, links and seals", Suite::Kernel, true),
    Subject { name: "wireguard", title: "WireGuard in the kernel", kind: Kind::Wireguard(Release::Kernel) },
    Subject { name: REFERENCE, title: "wireguard-go 20231211", kind: Kind::Wireguard(Release::Go2023) },
    Subject { name: "wireguard-go-2022", title: "wireguard-go 20220316", kind: Kind::Wireguard(Release::Go2022) },
    Subject { name: "yggdrasil", title: "yggdrasil 0.5", kind: Kind::Yggdrasil },
    Subject { name: "nebula", title: "nebula 1.9", kind: Kind::Nebula },
    Subject { name: "fastd", title: "fastd 22, salsa2012+umac", kind: Kind::Fastd },
    Subject { name: "tinc", title: "tinc 1.0", kind: Kind::Tinc },
];

impl Subject {
    /// Whether it is Grange.
    pub(crate) fn is_grange(&self) -> bool {
        matches!(self.kind, Kind::Grange { .. })
    }

    /// Whether its neighbours call each other instead of meeting on the cable.
    pub(crate) fn calls(&self) -> bool {
        matches!(self.kind, Kind::Grange { meeting: Meeting::Calls, .. })
    }

    /// Whether it seals end to end over links that are encrypted too.
    pub(crate) fn seals(&self) -> bool {
        matches!(self.kind, Kind::Grange { seals: true, .. })
    }
}
