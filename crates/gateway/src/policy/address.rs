//! Which addresses may ask (`ip_allow`, `ip_deny`).

use std::net::IpAddr;

use http::HeaderMap;
use model::Module;
use model::module::AddressRange;

use super::forward::X_FORWARDED_FOR;

/// The Module's lists; both must let a request pass.
#[derive(Debug, Default)]
pub(crate) struct AddressRules {
    allow: Option<Vec<Range>>,
    deny: Vec<Range>,
}

#[derive(Debug)]
struct Range {
    /// Looks at the address that trusted proxies tell, not at the connection's peer.
    remote: bool,
    network: IpAddr,
    bits: u32,
}

impl AddressRules {
    /// Compiles the lists. What cannot be read is told; in `ip_allow` it lets nobody pass.
    pub(crate) fn new(module: &Module, problem: &mut impl FnMut(String)) -> Self {
        let mut list = |field: &str, ranges: &[AddressRange]| -> Vec<Range> {
            let read = |range: &AddressRange| {
                let found = Range::read(range);
                if found.is_none() {
                    let said = range.peer.as_ref().or(range.remote.as_ref());
                    let said = said.map_or("", String::as_str);
                    problem(format!(
                        "`{field}`: `{said}` is no range of addresses such as `10.0.0.0/8`"
                    ));
                }
                found
            };
            ranges.iter().filter_map(read).collect()
        };
        AddressRules {
            allow: module
                .ip_allow
                .as_ref()
                .map(|ranges| list("ip_allow", ranges)),
            deny: list("ip_deny", module.ip_deny.as_deref().unwrap_or_default()),
        }
    }

    /// Returns whether a request may pass.
    ///
    /// `client` is the connection's peer, or whom that `passed_on_by` names in its PROXY header.
    pub(crate) fn pass(
        &self,
        client: IpAddr,
        passed_on_by: Option<IpAddr>,
        trusted_hops: u32,
        headers: &HeaderMap,
    ) -> bool {
        if self.allow.is_none() && self.deny.is_empty() {
            return true;
        }
        let peer = passed_on_by.unwrap_or(client).to_canonical();
        let remote = remote(client.to_canonical(), trusted_hops, headers);
        let within = |range: &Range| range.holds(if range.remote { remote } else { peer });
        self.allow
            .as_ref()
            .is_none_or(|allow| allow.iter().any(within))
            && !self.deny.iter().any(within)
    }
}

/// The client as the trusted proxies in front tell it: with one of them the last address, with two the one before.
pub(crate) fn remote(peer: IpAddr, trusted_hops: u32, headers: &HeaderMap) -> IpAddr {
    if trusted_hops == 0 {
        return peer;
    }
    let told: Vec<&str> = headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let place = told.len().checked_sub(trusted_hops as usize);
    let told = place.and_then(|place| told[place].trim().parse().ok());
    told.map_or(peer, |told: IpAddr| told.to_canonical())
}

impl Range {
    fn read(range: &AddressRange) -> Option<Self> {
        let (remote, text) = match (&range.peer, &range.remote) {
            (Some(peer), None) => (false, peer),
            (None, Some(remote)) => (true, remote),
            _ => return None,
        };
        let (network, bits) = match text.split_once('/') {
            Some((network, bits)) => (network, Some(bits)),
            None => (&**text, None),
        };
        let network: IpAddr = network.trim().parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.trim().parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Range {
            remote,
            network,
            bits,
        })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let differ = match (self.network, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
            _ => return false,
        };
        differ >= self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(module: &str, hops: u32, peer: &str, forwarded: &str, expected: bool) {
        let module: Module = serde_saphyr::from_str(module).expect("the test's module");
        let rules = AddressRules::new(&module, &mut |problem| panic!("{problem}"));
        let mut headers = HeaderMap::new();
        if !forwarded.is_empty() {
            headers.insert(X_FORWARDED_FOR, forwarded.parse().expect("a value"));
        }
        let peer = peer.parse().expect("an address");
        assert_eq!(
            rules.pass(peer, None, hops, &headers),
            expected,
            "{peer} {forwarded}"
        );
    }

    #[test]
    fn one_range_of_ip_allow_is_enough() {
        let module = "ip_allow: [{ peer: 127.0.0.1 }, { remote: 99.99.0.0/16 }]";
        check(module, 1, "10.0.0.1", "", false);
        check(module, 1, "10.0.0.1", "99.99.0.1", true);
        check(module, 1, "10.0.0.1", "99.98.0.1", false);
        check(module, 1, "127.0.0.1", "", true);
        check(module, 1, "::ffff:127.0.0.1", "", true);
        check(module, 0, "10.0.0.1", "99.99.0.1", false);
        check(module, 1, "10.0.0.1", "99.99.0.1, 5.5.5.5", false);
        check(module, 2, "10.0.0.1", "99.99.0.1, 5.5.5.5", true);
        check("ip_allow: []", 0, "127.0.0.1", "", false);
    }

    #[test]
    fn one_range_of_ip_deny_is_enough() {
        let module = "ip_deny: [{ remote: 99.98.0.0/16 }, { peer: 'fd00::/8' }]";
        check(module, 1, "10.0.0.1", "99.98.0.1", false);
        check(module, 1, "10.0.0.1", "99.99.0.1", true);
        check(module, 1, "fd00::1", "99.99.0.1", false);
        check(module, 0, "10.0.0.1", "99.98.0.1", true);
    }

    #[test]
    fn what_is_no_range_is_told() {
        for range in ["a", "1.2.3.4/33", "1.2.3.4/", "::/129", "1.2.3"] {
            let module: Module =
                serde_saphyr::from_str(&format!("ip_allow: [{{ peer: '{range}' }}]"))
                    .expect("the test's module");
            let mut problems = Vec::new();
            let rules = AddressRules::new(&module, &mut |problem| problems.push(problem));
            assert_eq!(problems.len(), 1, "{range}");
            assert!(!rules.pass([1, 2, 3, 4].into(), None, 0, &HeaderMap::new()));
        }
    }
}
