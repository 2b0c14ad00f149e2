//! What the kernel says of changes to nftables, whoever made them (Linux `include/uapi/linux/netfilter/nf_tables.h`).

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

/// `NETLINK_NETFILTER`.
const NETLINK_NETFILTER: isize = 12;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

/// `NFTA_TABLE_NAME`, which is also the number of the attribute with the table's name in messages about what is in one.
const NAME: u16 = 1;

/// Longest message that is read; what is cut is as good as lost.
const DATAGRAM: usize = 16 << 10;

/// Messages of one burst that are read before anybody is told.
const BURST: usize = 256;

/// The kernel's messages about nftables.
#[derive(Debug)]
pub(super) struct Changes {
    socket: AsyncFd<Socket>,
}

impl Changes {
    /// Hears of all changes from now on.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the descriptor is the socket's own from here until both are dropped together.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket })
    }

    /// Completes when something was changed in the table of this name, in whatever family, or messages were lost. If it
    /// is dropped before, nothing is lost.
    pub(super) async fn of(&self, table: &str) {
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return std::future::pending().await };
            let mut touched = false;
            let mut datagram = Vec::with_capacity(DATAGRAM);
            for _ in 0..BURST {
                datagram.clear();
                match ready.try_io(|socket| socket.get_ref().recv(&mut datagram, 0)) {
                    Ok(Ok(len)) => touched |= len >= DATAGRAM || names(&datagram, table),
                    // `ENOBUFS`, most likely.
                    Ok(Err(_)) => touched = true,
                    Err(_) => break,
                }
            }
            if touched {
                return;
            }
        }
    }
}

/// Whether a datagram has a message about a table of this name.
fn names(mut bytes: &[u8], table: &str) -> bool {
    let number = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    while let Some(len) = bytes.first_chunk().map(|len| u32::from_ne_bytes(*len) as usize) {
        let Some(message) = bytes.get(..len).filter(|message| message.len() >= 20) else { return false };
        // Behind the two headers are attributes, the first of which is the table's name.
        let attribute = &message[20..];
        if number(message, 4).is_some_and(|kind| kind >> 8 == SUBSYSTEM)
            && number(attribute, 2) == Some(NAME)
            && let Some(value) = number(attribute, 0).and_then(|len| attribute.get(4..usize::from(len)))
            && value.strip_suffix(&[0]) == Some(table.as_bytes())
        {
            return true;
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, name: &str) -> Vec<u8> {
        let mut attribute = vec![0, 0];
        attribute.extend(NAME.to_ne_bytes());
        attribute.extend(name.as_bytes());
        attribute.push(0);
        let len = u16::try_from(attribute.len()).unwrap();
        attribute[..2].copy_from_slice(&len.to_ne_bytes());
        let mut bytes = u32::try_from(20 + attribute.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 14]);
        bytes.extend(attribute);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn only_messages_about_the_table_count() {
        let [ours, others] = ["grange", "grange_mesh"].map(|name| message(SUBSYSTEM << 8 | 2, name));
        assert!(names(&ours, "grange") && !names(&others, "grange"));
        assert!(names(&[others, ours].concat(), "grange"), "the second of two");
        assert!(!names(&message(1 << 8, "grange"), "grange"), "of another subsystem");
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(bytes: Vec<u8>, len in 0u32..64) {
            names(&bytes, "grange");
            names(&[&len.to_ne_bytes()[..], &bytes].concat(), "grange");
        }
    }
}
