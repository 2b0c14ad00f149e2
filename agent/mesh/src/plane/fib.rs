//! Longest-prefix match.

use std::net::IpAddr;

use grange_wire::Prefix;

/// A forwarding table: sorted addresses for each prefix length that occurs, the longest first.
///
/// A lookup is one binary search per length. A mesh has few lengths (`/64`, `/32`, `/0`), so this is as fast as a trie,
/// a third of its size, and cheap to copy for a new snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Fib<T> {
    v4: Family<u32, T>,
    v6: Family<u128, T>,
}

/// Tables of one family, the longest prefix length first. None of them is empty.
#[derive(Clone, Debug)]
struct Family<A, T>(Vec<Length<A, T>>);

#[derive(Clone, Debug)]
struct Length<A, T> {
    len: u8,
    mask: A,
    /// Sorted by address; the addresses apart from the values, so that a search touches few cache lines.
    addresses: Vec<A>,
    values: Vec<T>,
}

impl<T: Copy> Default for Fib<T> {
    fn default() -> Self {
        Self { v4: Family(Vec::new()), v6: Family(Vec::new()) }
    }
}

impl<A: Copy + Ord + std::ops::BitAnd<Output = A>, T: Copy> Family<A, T> {
    fn insert(&mut self, len: u8, mask: A, address: A, value: T) -> Option<T> {
        let at = self.0.partition_point(|table| table.len > len);
        if self.0.get(at).is_none_or(|table| table.len != len) {
            self.0.insert(at, Length { len, mask, addresses: Vec::new(), values: Vec::new() });
        }
        let table = &mut self.0[at];
        match table.addresses.binary_search(&address) {
            Ok(found) => Some(std::mem::replace(&mut table.values[found], value)),
            Err(place) => {
                table.addresses.insert(place, address);
                table.values.insert(place, value);
                None
            }
        }
    }

    fn remove(&mut self, len: u8, address: A) -> Option<T> {
        let at = self.0.iter().position(|table| table.len == len)?;
        let table = &mut self.0[at];
        let place = table.addresses.binary_search(&address).ok()?;
        table.addresses.remove(place);
        let value = table.values.remove(place);
        if table.addresses.is_empty() {
            self.0.remove(at);
        }
        Some(value)
    }

    fn get(&self, len: u8, address: A) -> Option<T> {
        let table = self.0.iter().find(|table| table.len == len)?;
        table.addresses.binary_search(&address).ok().map(|place| table.values[place])
    }

    fn lookup(&self, address: A) -> Option<(u8, T)> {
        self.0.iter().find_map(|table| {
            let place = table.addresses.binary_search(&(address & table.mask)).ok()?;
            Some((table.len, table.values[place]))
        })
    }

    fn retain(&mut self, mut keep: impl FnMut(T) -> bool) {
        for table in &mut self.0 {
            let kept: Vec<bool> = table.values.iter().map(|value| keep(*value)).collect();
            let mut flags = kept.iter();
            table.addresses.retain(|_| flags.next().copied().unwrap_or(false));
            let mut flags = kept.iter();
            table.values.retain(|_| flags.next().copied().unwrap_or(false));
        }
        self.0.retain(|table| !table.addresses.is_empty());
    }

    fn size(&self) -> usize {
        self.0.iter().map(|table| table.addresses.len()).sum()
    }
}

fn mask_v4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

fn mask_v6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

impl<T: Copy> Fib<T> {
    /// Sets a prefix's value; gives the one it had.
    pub(crate) fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        match prefix.addr() {
            IpAddr::V4(v4) => self.v4.insert(prefix.len(), mask_v4(prefix.len()), v4.into(), value),
            IpAddr::V6(v6) => self.v6.insert(prefix.len(), mask_v6(prefix.len()), v6.into(), value),
        }
    }

    /// Removes a prefix; gives the value it had.
    pub(crate) fn remove(&mut self, prefix: Prefix) -> Option<T> {
        match prefix.addr() {
            IpAddr::V4(v4) => self.v4.remove(prefix.len(), v4.into()),
            IpAddr::V6(v6) => self.v6.remove(prefix.len(), v6.into()),
        }
    }

    /// The value of exactly this prefix.
    pub(crate) fn get(&self, prefix: Prefix) -> Option<T> {
        match prefix.addr() {
            IpAddr::V4(v4) => self.v4.get(prefix.len(), v4.into()),
            IpAddr::V6(v6) => self.v6.get(prefix.len(), v6.into()),
        }
    }

    /// The longest prefix that holds `address`: its length and value.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<(u8, T)> {
        match address {
            IpAddr::V4(v4) => self.v4.lookup(v4.into()),
            IpAddr::V6(v6) => self.v6.lookup(v6.into()),
        }
    }

    /// Removes the prefixes whose value `keep` does not want.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(T) -> bool) {
        self.v4.retain(&mut keep);
        self.v6.retain(&mut keep);
    }

    /// Number of prefixes.
    pub(crate) fn size(&self) -> usize {
        self.v4.size() + self.v6.size()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Addresses from few bits, so that prefixes often hold each other.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (any::<u8>(), any::<u8>()).prop_map(|(a, b)| IpAddr::from([a & 3, 0, b & 0x81, b])),
            (any::<u8>(), any::<u8>()).prop_map(|(a, b)| {
                let mut octets = [0; 16];
                (octets[0], octets[7], octets[15]) = (0xfc | (a & 1), b & 3, a);
                IpAddr::from(octets)
            }),
        ]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Prefix, u32),
        Remove(Prefix),
        Retain(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let prefix = || {
            (address(), 0..=128u8).prop_map(|(address, len)| {
                Prefix::new_truncating(address, if address.is_ipv4() { len % 33 } else { len })
            })
        };
        prop_oneof![
            8 => (prefix(), 0..10u32).prop_map(|(prefix, value)| Step::Insert(prefix, value)),
            3 => prefix().prop_map(Step::Remove),
            1 => (0..10u32).prop_map(Step::Retain),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search(
            steps in prop::collection::vec(step(), 0..60),
            addresses in prop::collection::vec(address(), 20),
        ) {
            let mut fib = Fib::default();
            let mut reference = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(prefix, value) => {
                        prop_assert_eq!(fib.insert(prefix, value), reference.insert(prefix, value));
                    }
                    Step::Remove(prefix) => prop_assert_eq!(fib.remove(prefix), reference.remove(&prefix)),
                    Step::Retain(without) => {
                        fib.retain(|value| value != without);
                        reference.retain(|_, value| *value != without);
                    }
                }
                prop_assert_eq!(fib.size(), reference.len());
            }
            for address in addresses {
                let want = reference
                    .iter()
                    .filter(|(prefix, _)| prefix.contains(address))
                    .max_by_key(|(prefix, _)| prefix.len())
                    .map(|(prefix, value)| (prefix.len(), *value));
                prop_assert_eq!(fib.lookup(address), want);
            }
            for (prefix, value) in &reference {
                prop_assert_eq!(fib.get(*prefix), Some(*value));
            }
        }
    }
}
