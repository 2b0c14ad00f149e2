//! The TUN device of a Linux machine.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
};

use tun_rs::{DeviceBuilder, SyncDevice};

use super::PacketDevice;

/// How to open the TUN device.
#[derive(Clone, Debug)]
pub struct TunConfig {
    /// The interface's name, at most 15 bytes: `grange0` by default.
    pub name: String,
    /// The interface's MTU in bytes; [`MTU_OVER_ETHERNET`](super::MTU_OVER_ETHERNET) by default.
    pub mtu: u16,
}

impl Default for TunConfig {
    fn default() -> Self {
        Self { name: "grange0".into(), mtu: super::MTU_OVER_ETHERNET }
    }
}

/// Why the TUN device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTunError {
    /// The kernel has no TUN driver, or it is not loaded.
    #[error("/dev/net/tun is missing: load the module with `modprobe tun`, or enable CONFIG_TUN in the kernel")]
    Missing,
    /// The process may not make network interfaces.
    #[error("no right to make the interface {name}: CAP_NET_ADMIN is needed, so run as root or grant the capability")]
    Denied {
        /// The interface's name.
        name: String,
    },
    /// Another process holds an interface of that name.
    #[error("the interface {name} is in use by another process")]
    InUse {
        /// The interface's name.
        name: String,
    },
    /// The kernel does not take such a name.
    #[error("{name:?} cannot be an interface's name: 1 to 15 bytes, no slash, no white space")]
    Name {
        /// The name.
        name: String,
    },
    /// Anything else.
    #[error("cannot make the interface {name}: {source}")]
    Other {
        /// The interface's name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TUN device with checksum and segmentation offload. The interface goes when this is dropped.
pub struct Tun {
    device: SyncDevice,
    udp_segments: bool,
}

impl Tun {
    /// Makes the interface, up and without any address.
    ///
    /// # Errors
    /// [`OpenTunError`].
    pub fn open(config: &TunConfig) -> Result<Self, OpenTunError> {
        let name = config.name.clone();
        if name.is_empty() || name.len() > 15 || name.bytes().any(|b| b == b'/' || b.is_ascii_whitespace() || b == 0) {
            return Err(OpenTunError::Name { name });
        }
        // `tun-rs` would try to make the device node, which hides the cause.
        if !std::fs::exists("/dev/net/tun").unwrap_or(true) {
            return Err(OpenTunError::Missing);
        }
        let open = || -> io::Result<SyncDevice> {
            let device = DeviceBuilder::new().name(&name).mtu(config.mtu).offload(true).enable(true).build_sync()?;
            device.set_nonblocking(true)?;
            Ok(device)
        };
        match open() {
            Ok(device) => Ok(Self { udp_segments: device.udp_gso(), device }),
            Err(error) => Err(match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenTunError::Missing,
                Some(libc::EPERM | libc::EACCES) => OpenTunError::Denied { name },
                Some(libc::EBUSY) => OpenTunError::InUse { name },
                _ => OpenTunError::Other { name, source: error },
            }),
        }
    }

    /// The kernel's index of the interface.
    ///
    /// # Errors
    /// The interface was removed.
    pub fn index(&self) -> io::Result<u32> {
        self.device.if_index()
    }

    /// The interface's name.
    ///
    /// # Errors
    /// The interface was removed.
    pub fn name(&self) -> io::Result<String> {
        self.device.name()
    }
}

impl PacketDevice for Tun {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buffer)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.device.send_vectored(parts).map(|_| ())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn takes_udp_segments(&self) -> bool {
        self.udp_segments
    }
}
