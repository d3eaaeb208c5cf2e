//! The addresses behind service names, as told by Kubernetes objects and by `up`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The addresses behind service names.
///
/// Kubernetes Services, Endpoints and EndpointSlices tell them, and `up` does for the services that it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// By namespace and name of the service.
    pub services: BTreeMap<(String, String), Vec<ServicePort>>,
}

/// One port of a service and the addresses behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name in the Service.
    pub name: Option<String>,

    /// The port that callers name; `None` answers for every port, as with a service that `up` runs.
    pub port: Option<u16>,

    /// Ready endpoints, each once, in order.
    pub addresses: Vec<SocketAddr>,
}

impl Endpoints {
    /// Returns the addresses behind `host`, which is `name`, `name.namespace` or `name.namespace.svc[.…]`.
    ///
    /// `None` means that nobody told of this service, so that DNS should be asked. `Some` and empty means that the service is
    /// known and has no ready endpoint. Without `port` a service with a single port answers with that one.
    pub fn find(&self, host: &str, namespace: &str, port: Option<u16>) -> Option<&[SocketAddr]> {
        let ports = self.ports(host, namespace)?;
        let found = match port {
            Some(port) => ports
                .iter()
                .find(|known| known.port.is_none_or(|known| known == port)),
            None => match ports {
                [only] => Some(only),
                several => several
                    .iter()
                    .find(|known| known.port.is_none_or(|known| known == 80)),
            },
        };
        Some(found.map_or(&[], |port| port.addresses.as_slice()))
    }

    /// Returns whether anybody told of this service.
    pub fn knows(&self, host: &str, namespace: &str) -> bool {
        self.ports(host, namespace).is_some()
    }

    fn ports(&self, host: &str, namespace: &str) -> Option<&[ServicePort]> {
        let mut parts = host.splitn(3, '.');
        let name = parts.next().unwrap_or_default();
        let said = parts.next();
        match parts.next() {
            Some(rest) if rest != "svc" && !rest.starts_with("svc.") => return None,
            _ => (),
        }
        let key = (said.unwrap_or(namespace).to_owned(), name.to_owned());
        self.services.get(&key).map(Vec::as_slice)
    }

    /// Tells the addresses of a service that answers on every port, in place of what was told before.
    pub fn tell(&mut self, namespace: &str, name: &str, addresses: Vec<SocketAddr>) {
        let port = ServicePort {
            name: None,
            port: None,
            addresses,
        };
        self.services
            .insert((namespace.to_owned(), name.to_owned()), vec![port]);
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
        let addresses = [address];
        let found = Some(addresses.as_slice());
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
}
