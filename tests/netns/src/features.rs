//! What a network card does for the kernel (ethtool's features, by the ioctls of linux/ethtool.h).

use std::{io, net::UdpSocket, os::fd::AsRawFd};

use anyhow::{Context, Result, ensure};

use crate::Namespace;

const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;

/// The string set of features.
const SET_OF_FEATURES: u32 = 4;

/// Bytes of a string in a set.
const NAME: usize = 32;

/// A feature that a plain card lacks, by its name in `ethtool -k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Cutting TCP super-packets (`tso`).
    TcpSegmentation,
    /// Cutting UDP super-packets, the offload behind `UDP_SEGMENT`.
    UdpSegmentation,
    /// Putting the cutting off to the last moment, in software (`gso`).
    GenericSegmentation,
    /// Putting received packets together (`gro`).
    Receive,
    /// Filling checksums in (`tx`). What needs it goes off with it.
    Checksums,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::TcpSegmentation, Self::UdpSegmentation, Self::GenericSegmentation, Self::Receive, Self::Checksums];

    /// The kernel's names.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::TcpSegmentation => &[
                "tx-tcp-segmentation",
                "tx-tcp-ecn-segmentation",
                "tx-tcp-mangleid-segmentation",
                "tx-tcp6-segmentation",
            ],
            Self::UdpSegmentation => &["tx-udp-segmentation"],
            Self::GenericSegmentation => &["tx-generic-segmentation"],
            Self::Receive => &["rx-gro"],
            Self::Checksums => &["tx-checksum-ip-generic"],
        }
    }
}

impl Namespace {
    /// Switches features of an interface on or off.
    ///
    /// # Errors
    /// If the kernel does not know one of them or it does not change.
    pub fn set_features(&self, interface: &str, features: &[Feature], on: bool) -> Result<()> {
        let missed = self
            .inside(|| set_features(interface, features, on))
            .with_context(|| format!("switching features of {interface}: {features:?}"))?;
        ensure!(missed.is_empty(), "these features of {interface} did not change: {missed:?}");
        Ok(())
    }
}

/// Gives those that did not change.
fn set_features(interface: &str, features: &[Feature], on: bool) -> io::Result<Vec<&'static str>> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
    let known = names(&socket, interface)?;
    let blocks = known.len().div_ceil(32);
    let mut wanted = Vec::new();
    for name in features.iter().flat_map(|feature| feature.names()) {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("this kernel knows no feature {name}"));
        wanted.push((*name, known.iter().position(|it| it == name).ok_or_else(unknown)?));
    }
    // struct ethtool_sfeatures: command, number of blocks, and for each block the bits that count and their values.
    let mut request = vec![0u32; 2 + 2 * blocks];
    request[..2].copy_from_slice(&[SET_FEATURES, blocks as u32]);
    for (_, bit) in &wanted {
        request[2 + 2 * (bit / 32)] |= 1 << (bit % 32);
        request[3 + 2 * (bit / 32)] |= u32::from(on) << (bit % 32);
    }
    ethtool(&socket, interface, &mut request)?;
    // struct ethtool_gfeatures: command, number of blocks, and for each block what is available, requested, active and
    // never changed.
    let mut state = vec![0u32; 2 + 4 * blocks];
    state[..2].copy_from_slice(&[GET_FEATURES, blocks as u32]);
    ethtool(&socket, interface, &mut state)?;
    let active = |bit: usize| state[4 + 4 * (bit / 32)] & 1 << (bit % 32) != 0;
    Ok(wanted.into_iter().filter(|(_, bit)| active(*bit) != on).map(|(name, _)| name).collect())
}

/// The names of the kernel's features, in the order of their bits.
fn names(socket: &UdpSocket, interface: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: command, reserved, a mask of 64 bits, and the number for each bit of the mask.
    let mut info = [GET_SET_INFO, 0, 0, 0, 0];
    let mask = (1u64 << SET_OF_FEATURES).to_ne_bytes();
    info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
    info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
    ethtool(socket, interface, &mut info)?;
    let count = info[4];
    // struct ethtool_gstrings: command, set, number, the strings.
    let mut strings = vec![0u32; 3 + count as usize * NAME / 4];
    strings[..3].copy_from_slice(&[GET_STRINGS, SET_OF_FEATURES, count]);
    ethtool(socket, interface, &mut strings)?;
    let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(bytes
        .chunks(NAME)
        .map(|name| String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned())
        .collect())
}

/// One ioctl; `words` begins with the command.
fn ethtool(socket: &UdpSocket, interface: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the request and the words it points to live through the call, and the callers size the words as the
    // command demands.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
