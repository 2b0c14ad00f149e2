//! Counters of the machine's interfaces.
//!
//! Read from `/proc` rather than asked for by netlink: one file tells all of them at once, several times a second, for
//! less than one request would cost. What WireGuard's interfaces count as received has authenticated.

use std::{collections::BTreeMap, fs};

use super::tunnel::Counts;

/// Of the namespace of this thread, which in tests is not that of the process.
const FILE: &str = "/proc/thread-self/net/dev";

/// The counters of all interfaces by name; none if the file cannot be read.
pub(super) fn read() -> BTreeMap<String, Counts> {
    fs::read_to_string(FILE).map(|text| parse(&text)).unwrap_or_default()
}

/// `NAME: bytes packets errs drop fifo frame compressed multicast`, and eight such numbers of what was sent.
fn parse(text: &str) -> BTreeMap<String, Counts> {
    let line = |line: &str| {
        let (name, numbers) = line.rsplit_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        let (received_bytes, received_packets) = (next()?, next()?);
        for _ in 0..6 {
            next()?;
        }
        let counts = Counts { received_bytes, received_packets, sent_bytes: next()?, sent_packets: next()? };
        Some((name.trim().to_owned(), counts))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  179552    1994    0    0    0     0          0         0   179552    1994    0    0    0     0       0          0
grange1:1234567890123    5    1    2    3     4          6         7   89    10    0    0    0     0       0          0
 wg:x0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0
broken: 1 2 3
";
        let counters = parse(text);
        assert_eq!(counters.len(), 3);
        let expected =
            Counts { received_bytes: 1_234_567_890_123, received_packets: 5, sent_bytes: 89, sent_packets: 10 };
        assert_eq!(counters["grange1"], expected);
        assert_eq!(counters["wg:x0"].sent_packets, 4);
    }

    #[test]
    fn this_machine_has_counters() {
        assert!(read().contains_key("lo"));
    }
}
