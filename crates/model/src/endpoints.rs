//! The addresses behind service names, as told by Kubernetes objects and by `up`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The addresses behind service names.
///
/// Kubernetes Services, Endpoints and EndpointSlices tell them, and `up` does for the services that it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// By namespace and name of the service.
    pub services: BTreeMap<(String, String), Vec<ServicePort>>,
}

/// One port of a service and the endpoints behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name in the Service.
    pub name: Option<String>,

    /// The port that callers name; `None` answers for every port, as with a service that `up` runs.
    pub port: Option<u16>,

    /// The endpoints, each address once, in order.
    pub endpoints: Vec<Endpoint>,
}

/// One address behind a service's port, with what its source says about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,

    /// Its share of the requests against that of the others, 1 where nothing is said.
    pub weight: u32,

    /// The zone that it stands in, as `topology.kubernetes.io/zone` names it.
    pub zone: Option<Arc<str>>,

    /// Whether it should get requests.
    pub state: State,

    /// The zones whose requests it should get (EndpointSlice `hints.forZones`); none means any.
    pub for_zones: Vec<Arc<str>>,
}

/// Whether an endpoint should get requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It takes requests.
    #[default]
    Ready,

    /// It is about to end and still answers: it is asked when nobody else is there (`serving` and `terminating`).
    Leaving,

    /// It takes none.
    Unready,
}

impl Endpoint {
    /// Returns an endpoint of which only the address is known.
    pub fn at(address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            weight: 1,
            zone: None,
            state: State::Ready,
            for_zones: Vec::new(),
        }
    }
}

impl ServicePort {
    /// Returns who gets requests: the ready ones, and when there are none those that leave and still answer, as in
    /// Kubernetes itself.
    pub fn usable(&self) -> impl Iterator<Item = &Endpoint> {
        let of = |state: State| move |endpoint: &&Endpoint| endpoint.state == state;
        let wanted = match self.endpoints.iter().any(|one| one.state == State::Ready) {
            true => State::Ready,
            false => State::Leaving,
        };
        self.endpoints.iter().filter(of(wanted))
    }
}

/// Returns those of the endpoints whose hints (EndpointSlice `hints.forZones`) name a zone. Like `kube-proxy` it returns
/// all of them where one has no hint, or none is for this zone.
pub fn hinted<'e>(endpoints: Vec<&'e Endpoint>, zone: &str) -> Vec<&'e Endpoint> {
    let is_for = |one: &&Endpoint| one.for_zones.iter().any(|known| **known == *zone);
    let all_say = endpoints.iter().all(|one| !one.for_zones.is_empty());
    if all_say && endpoints.iter().any(is_for) {
        endpoints.into_iter().filter(is_for).collect()
    } else {
        endpoints
    }
}

impl Endpoints {
    /// Returns the addresses behind `host`, which is `name`, `name.namespace` or `name.namespace.svc[.…]`.
    ///
    /// `None` means that nobody told of this service, so that DNS should be asked. `Some` and empty means that the service is
    /// known and has no endpoint that takes requests. Without `port` a service with a single port answers with that one.
    pub fn find(&self, host: &str, namespace: &str, port: Option<u16>) -> Option<Vec<SocketAddr>> {
        let key = key(host, namespace)?;
        let found = find(self.services.get(&key)?, port);
        let addresses = found.map(|port| port.usable().map(|one| one.address).collect());
        Some(addresses.unwrap_or_default())
    }

    /// Returns whether anybody told of this service.
    pub fn knows(&self, host: &str, namespace: &str) -> bool {
        key(host, namespace).is_some_and(|key| self.services.contains_key(&key))
    }

    /// Tells the addresses of a service that answers on every port, in place of what was told before.
    pub fn tell(&mut self, namespace: &str, name: &str, addresses: Vec<SocketAddr>) {
        let port = ServicePort {
            endpoints: addresses.into_iter().map(Endpoint::at).collect(),
            ..ServicePort::default()
        };
        self.services
            .insert((namespace.to_owned(), name.to_owned()), vec![port]);
    }
}

/// Returns the namespace and name of the Service that a host stands for: `name`, `name.namespace` or
/// `name.namespace.svc[.…]`. Other names are no Service's.
pub fn key(host: &str, namespace: &str) -> Option<(String, String)> {
    let mut parts = host.splitn(3, '.');
    let name = parts.next().unwrap_or_default();
    let said = parts.next();
    match parts.next() {
        Some(rest) if rest != "svc" && !rest.starts_with("svc.") => return None,
        _ => (),
    }
    Some((said.unwrap_or(namespace).to_owned(), name.to_owned()))
}

/// Returns the port that callers mean: the one with that number, and without one the only one, else port 80.
pub fn find(ports: &[ServicePort], port: Option<u16>) -> Option<&ServicePort> {
    let is = |wanted: u16| {
        ports
            .iter()
            .find(move |known| known.port.is_none_or(|known| known == wanted))
    };
    match (port, ports) {
        (Some(port), _) => is(port),
        (None, [only]) => Some(only),
        (None, _) => is(80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_every_spelling_of_their_name() {
        let address: SocketAddr = "127.0.0.1:4000".parse().expect("a literal address");
        let mut endpoints = Endpoints::default();
        endpoints.tell("shop", "orders", vec![address]);
        let found = Some(vec![address]);
        assert_eq!(endpoints.find("orders", "shop", None), found);
        assert_eq!(endpoints.find("orders", "shop", Some(80)), found);
        assert_eq!(endpoints.find("orders.shop", "default", None), found);
        assert_eq!(endpoints.find("orders.shop.svc", "default", None), found);
        assert_eq!(
            endpoints.find("orders.shop.svc.cluster.local", "default", None),
            found
        );
        assert_eq!(endpoints.find("orders", "default", None), None);
        assert_eq!(
            endpoints.find("orders.shop.example.com", "default", None),
            None
        );
    }

    #[test]
    fn who_leaves_is_asked_only_when_nobody_else_is_there() {
        let at = |last: u8, state| Endpoint {
            state,
            ..Endpoint::at(([10, 0, 0, last], 80).into())
        };
        let lasts = |states: &[State]| -> Vec<u8> {
            let endpoints = (1..).zip(states).map(|(last, state)| at(last, *state));
            let port = ServicePort {
                endpoints: endpoints.collect(),
                ..ServicePort::default()
            };
            let last = |one: &Endpoint| match one.address.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            };
            port.usable().map(last).collect()
        };
        use State::{Leaving, Ready, Unready};
        assert_eq!(lasts(&[Ready, Leaving, Unready, Ready]), [1, 4]);
        assert_eq!(lasts(&[Unready, Leaving]), [2]);
        assert_eq!(lasts(&[Unready]), [0; 0]);
    }

    #[test]
    fn hints_count_where_all_endpoints_have_some_and_one_is_for_the_zone() {
        let lasts = |hints: &[&[&str]], zone: &str| -> Vec<u16> {
            let at = |(port, zones): (u16, &&[&str])| Endpoint {
                for_zones: zones.iter().map(|zone| Arc::from(*zone)).collect(),
                ..Endpoint::at(([10, 0, 0, 1], port).into())
            };
            let endpoints: Vec<Endpoint> = (1..).zip(hints).map(at).collect();
            let left = hinted(endpoints.iter().collect(), zone);
            left.iter().map(|one| one.address.port()).collect()
        };
        assert_eq!(lasts(&[&["a"], &["b"], &["a", "b"]], "a"), [1, 3]);
        assert_eq!(lasts(&[&["a"], &["b"], &["a", "b"]], "c"), [1, 2, 3]);
        assert_eq!(lasts(&[&["a"], &[], &["b"]], "a"), [1, 2, 3]);
        assert_eq!(lasts(&[&[], &[]], "a"), [1, 2]);
        assert_eq!(lasts(&[], "a"), [0; 0]);
    }
}
