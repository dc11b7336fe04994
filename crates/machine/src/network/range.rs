//! A range of IPv4 addresses, and what stands where in it.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// `10.83.0.0/24`: the first address after the network's own is the bridge's, the others are for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    base: u32,
    /// Length of the network part, in bits: 8 to 29.
    pub prefix: u8,
}

impl Range {
    /// Takes `ADDRESS/PREFIX`; bits of the address below the prefix must be 0.
    ///
    /// # Errors
    /// It is none, or not one that machines can use.
    pub fn parse(text: &str) -> Result<Range> {
        let bad = |why: &str| Error::request(format!("address range {text:?}: {why}"));
        let (address, prefix) = text.split_once('/').ok_or_else(|| bad("it must be written as 10.83.0.0/24"))?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad("it must begin with an IPv4 address"))?;
        let prefix: u8 = prefix.parse().map_err(|_| bad("it must end with the length of its prefix"))?;
        if !(8..=29).contains(&prefix) {
            return Err(bad("its prefix must be 8 to 29 bits long"));
        }
        let base = address.to_bits();
        if base & !mask(prefix) != 0 {
            let whole = Range { base: base & mask(prefix), prefix };
            return Err(bad(&format!("the address has bits below the prefix; {whole} has not")));
        }
        let unusable =
            address.is_loopback() || address.is_multicast() || address.is_unspecified() || base >= 0xf000_0000;
        match unusable {
            true => Err(bad("hosts cannot have such addresses")),
            false => Ok(Range { base, prefix }),
        }
    }

    /// The bridge's own address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    /// The address that reaches all.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base | !mask(self.prefix))
    }

    /// `255.255.255.0`.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    /// The addresses that machines can have, in order.
    pub fn machines(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.base + 2..self.broadcast().to_bits()).map(Ipv4Addr::from_bits)
    }

    /// How many machines there can be.
    pub fn capacity(self) -> u32 {
        self.broadcast().to_bits() - self.base - 2
    }

    /// Which of the addresses for machines this is, from 0.
    pub fn position(self, address: Ipv4Addr) -> u32 {
        address.to_bits().wrapping_sub(self.base + 2)
    }

    /// Whether `address` is one that a machine can have.
    pub fn has_machine(self, address: Ipv4Addr) -> bool {
        (self.base + 2..self.broadcast().to_bits()).contains(&address.to_bits())
    }

    /// Whether the two share addresses.
    pub fn overlaps(self, other: Range) -> bool {
        let common = mask(self.prefix.min(other.prefix));
        self.base & common == other.base & common
    }

    /// The first /24 of `10.83.0.0/16` and following that overlaps none of `taken`.
    pub fn free(taken: &[Range]) -> Option<Range> {
        let candidates = (0..=255u32).map(|third| Range { base: (10 << 24) | (83 << 16) | (third << 8), prefix: 24 });
        candidates.into_iter().find(|range| !taken.iter().any(|other| other.overlaps(*range)))
    }
}

const fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - prefix as u32)
}

/// The hardware address of whoever has `address`: locally administered, and as unique as the address is.
pub fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x0f, a, b, c, d]
}

/// A hardware address as people write it.
pub fn written(hardware: [u8; 6]) -> String {
    hardware.map(|byte| format!("{byte:02x}")).join(":")
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.prefix)
    }
}

impl TryFrom<String> for Range {
    type Error = Error;
    fn try_from(text: String) -> Result<Range> {
        Range::parse(&text)
    }
}

impl From<Range> for String {
    fn from(range: Range) -> String {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range::parse(text).unwrap()
    }

    #[test]
    fn a_range_has_a_gateway_machines_and_an_end() {
        let small = range("10.0.0.0/29");
        assert_eq!((small.gateway(), small.broadcast()), ([10, 0, 0, 1].into(), [10, 0, 0, 7].into()));
        let machines: Vec<_> = small.machines().collect();
        assert_eq!((machines.len(), machines[0], machines[4]), (5, [10, 0, 0, 2].into(), [10, 0, 0, 6].into()));
        assert_eq!((small.capacity(), range("10.83.0.0/16").capacity()), (5, 65533));
        assert!(small.has_machine([10, 0, 0, 6].into()));
        for address in [[10, 0, 0, 0], [10, 0, 0, 1], [10, 0, 0, 7], [10, 0, 1, 2]] {
            assert!(!small.has_machine(address.into()), "{address:?}");
        }
        assert_eq!(small.mask().to_string(), "255.255.255.248");
        assert_eq!(small.to_string(), "10.0.0.0/29");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/x",
            "10.0.0.1/24",
            "10.0.0.0/30",
            "10.0.0.0/7",
            "a/24",
            "127.0.0.0/24",
            "224.0.0.0/24",
            "0.0.0.0/8",
            "240.0.0.0/8",
        ] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
        assert!(Range::parse("10.0.3.7/22").unwrap_err().to_string().contains("10.0.0.0/22"));
    }

    #[test]
    fn overlaps_are_seen_both_ways() {
        for (a, b, shared) in [
            ("10.0.0.0/24", "10.0.0.0/16", true),
            ("10.0.0.0/24", "10.0.1.0/24", false),
            ("10.0.0.0/23", "10.0.1.0/24", true),
            ("10.0.0.0/8", "11.0.0.0/8", false),
        ] {
            assert_eq!((range(a).overlaps(range(b)), range(b).overlaps(range(a))), (shared, shared), "{a} {b}");
        }
        assert_eq!(Range::free(&[range("10.83.0.0/24"), range("10.83.1.0/25")]), Some(range("10.83.2.0/24")));
        assert_eq!(Range::free(&[range("10.0.0.0/8")]), None);
    }

    #[test]
    fn hardware_addresses_follow_the_address() {
        assert_eq!(written(hardware([10, 83, 0, 255].into())), "02:0f:0a:53:00:ff");
    }
}
