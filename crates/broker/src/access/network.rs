//! Addresses as rules name them: one, a network (KIP-1276), or all.

use std::net::IpAddr;

use super::rules::ANY;

/// Addresses that begin with the same bits: `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads a network; bits behind the ones that count are passed over.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let base: IpAddr = base.parse().ok()?;
        if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let bits = bits.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { base, bits })
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

/// Returns whether a rule for a host is one for an address.
pub(super) fn is_from(host: &str, address: &str) -> bool {
    if host == ANY || host == address {
        return true;
    }
    let network = host.contains('/').then(|| Network::read(host)).flatten();
    network.is_some_and(|network| address.parse().is_ok_and(|address| network.has(address)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_have_the_addresses_that_begin_so() {
        for (host, address, within) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.168.1.77/24", "192.168.1.1", true),
            ("192.168.1.77/24", "192.168.2.1", false),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "::1", true),
            ("::/0", "1.2.3.4", false),
            ("::1/128", "::1", true),
            ("*", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.5", false),
        ] {
            assert_eq!(is_from(host, address), within, "{host} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_none() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "/8",
            "10.0.0.0/8/8",
            "here/8",
            "10.0.0.0/99999999999",
        ] {
            assert_eq!(Network::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_in_its_own_network_and_not_in_its_neighbours(base: u32, bits in 1_u32..=32) {
            let base = std::net::Ipv4Addr::from_bits(base);
            let network = Network::read(&format!("{base}/{bits}")).expect("a network");
            prop_assert!(network.has(base.into()));
            let other = base.to_bits() ^ (1 << (32 - bits));
            prop_assert!(!network.has(std::net::Ipv4Addr::from_bits(other).into()));
        }

        #[test]
        fn no_text_is_too_odd(text: String, address: String) {
            is_from(&text, &address);
        }
    }
}
