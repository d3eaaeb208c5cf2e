//! The core objects of Kubernetes that count as if a cluster had said them: Secrets and where Services are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;

use super::{Draft, Finding, Kind, Reader, Spec, Written};
use crate::config::Secret;
use crate::endpoints::{Endpoint, ServicePort, State};
use crate::tree::Node;

/// What counts of a Service.
#[derive(Debug, PartialEq)]
pub(crate) struct Service {
    ports: Vec<Port>,
    /// The name that it stands for (`type: ExternalName`).
    pub(crate) external_name: Option<String>,
}

#[derive(Debug, PartialEq)]
struct Port {
    name: Option<String>,
    port: u16,
}

/// What Endpoints or an EndpointSlice tell about one Service.
#[derive(Debug, PartialEq)]
pub(crate) struct Endpoints {
    service: String,
    groups: Vec<Group>,
}

/// Addresses that all have the same ports.
#[derive(Debug, PartialEq)]
struct Group {
    ports: Vec<Port>,
    members: Vec<Member>,
}

/// One address, on whichever port.
#[derive(Debug, PartialEq)]
struct Member {
    ip: IpAddr,
    state: State,
    zone: Option<Arc<str>>,
    for_zones: Vec<Arc<str>>,
}

impl Member {
    fn on(&self, port: u16) -> Endpoint {
        Endpoint {
            zone: self.zone.clone(),
            state: self.state,
            for_zones: self.for_zones.clone(),
            ..Endpoint::at(SocketAddr::new(self.ip, port))
        }
    }
}

impl Reader<'_> {
    /// Reads what counts of a core object; all else in it is the cluster's business.
    pub(super) fn kubernetes_object(&mut self, draft: Draft) {
        let mut findings = Vec::new();
        let node = &draft.node;
        let spec = match draft.id.kind {
            Kind::Secret => Spec::Secret(secret(node, &mut findings)),
            Kind::KubernetesService => {
                let ports = node.deepest("spec.ports");
                Spec::KubernetesService(Service {
                    ports: read_ports(ports, "spec.ports", &mut findings),
                    external_name: external_name(node, &mut findings),
                })
            }
            Kind::Endpoints => Spec::Endpoints(endpoints(&draft.id.name, node, &mut findings)),
            _ => {
                let Some(service) = draft.labels.get("kubernetes.io/service-name") else {
                    let what = "the label `kubernetes.io/service-name` is missing".to_owned();
                    let path = super::join(&draft.path, "metadata.labels");
                    return self.warn(&draft.place, &path, what, Some(&draft.id));
                };
                Spec::EndpointSlice(slice(service, node, &mut findings))
            }
        };
        self.finish(draft, spec, findings);
    }
}

fn secret(node: &Node, findings: &mut Vec<Finding>) -> Secret {
    let mut data = BTreeMap::new();
    for (key, value) in node.get("data").map_or(&[][..], Node::entries) {
        let text: String = value
            .text()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => _ = data.insert(key.text.clone(), bytes),
            Err(_) => {
                let path = format!("data.{}", key.text);
                let finding = Finding::error(&path, "this is no base64");
                findings.push(finding.hint("plain text belongs under `stringData:`"));
            }
        }
    }
    for (key, value) in node.get("stringData").map_or(&[][..], Node::entries) {
        let text = value.text().unwrap_or_default();
        data.insert(key.text.clone(), text.as_bytes().to_vec());
    }
    let kind = node
        .get("type")
        .and_then(Node::text)
        .unwrap_or("Opaque")
        .to_owned();
    Secret { kind, data }
}

/// Reads the name that a Service of the type `ExternalName` stands for.
fn external_name(node: &Node, findings: &mut Vec<Finding>) -> Option<String> {
    if node.deepest("spec.type").text() != Some("ExternalName") {
        return None;
    }
    let path = "spec.externalName";
    let name = node.deepest(path).text().unwrap_or_default();
    let name = name.trim_end_matches('.');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        findings.push(Finding::error(path, format!("`{name}` is no DNS name")));
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn read_ports(node: &Node, path: &str, findings: &mut Vec<Finding>) -> Vec<Port> {
    let mut ports = Vec::new();
    for (index, item) in node.items().iter().enumerate() {
        if matches!(item.get("protocol").and_then(Node::text), Some(other) if other != "TCP") {
            continue;
        }
        let name = item.get("name").and_then(Node::text).map(str::to_owned);
        match item
            .get("port")
            .and_then(Node::text)
            .and_then(|port| port.parse().ok())
        {
            Some(port) => ports.push(Port { name, port }),
            None => {
                let what = "a port must be a number from 1 to 65535";
                findings.push(Finding::error(&format!("{path}[{index}].port"), what));
            }
        }
    }
    ports
}

fn read_address(node: Option<&Node>, path: &str, findings: &mut Vec<Finding>) -> Option<IpAddr> {
    let text = node.and_then(Node::text).unwrap_or_default();
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            findings.push(Finding::error(path, format!("`{text}` is no IP address")));
            None
        }
    }
}

fn endpoints(service: &str, node: &Node, findings: &mut Vec<Finding>) -> Endpoints {
    let mut groups = Vec::new();
    for (index, subset) in node
        .get("subsets")
        .map_or(&[][..], Node::items)
        .iter()
        .enumerate()
    {
        let path = format!("subsets[{index}]");
        let ports = subset.get("ports").map_or(Vec::new(), |ports| {
            read_ports(ports, &format!("{path}.ports"), findings)
        });
        let mut members = Vec::new();
        for (field, state) in [
            ("addresses", State::Ready),
            ("notReadyAddresses", State::Unready),
        ] {
            let listed = subset.get(field).map_or(&[][..], Node::items);
            for (at, item) in listed.iter().enumerate() {
                let path = format!("{path}.{field}[{at}].ip");
                members.extend(
                    read_address(item.get("ip"), &path, findings).map(|ip| Member {
                        ip,
                        state,
                        zone: None,
                        for_zones: Vec::new(),
                    }),
                );
            }
        }
        groups.push(Group { ports, members });
    }
    Endpoints {
        service: service.to_owned(),
        groups,
    }
}

fn slice(service: &str, node: &Node, findings: &mut Vec<Finding>) -> Endpoints {
    let ports = node
        .get("ports")
        .map_or(Vec::new(), |ports| read_ports(ports, "ports", findings));
    let mut members = Vec::new();
    for (index, endpoint) in node
        .get("endpoints")
        .map_or(&[][..], Node::items)
        .iter()
        .enumerate()
    {
        let condition = |name: &str| endpoint.deepest(&format!("conditions.{name}")).bool();
        // Nothing said about readiness means ready, and a server is what is ready.
        let ready = condition("ready") != Some(false);
        let state = match (
            ready,
            condition("serving").unwrap_or(ready),
            condition("terminating"),
        ) {
            (_, true, Some(true)) => State::Leaving,
            (true, _, Some(false) | None) => State::Ready,
            _ => State::Unready,
        };
        let zone = endpoint.get("zone").and_then(Node::text).map(Arc::from);
        let hinted = endpoint
            .get("hints")
            .and_then(|hints| hints.get("forZones"));
        let for_zones: Vec<Arc<str>> = hinted
            .map_or(&[][..], Node::items)
            .iter()
            .filter_map(|item| item.get("name").and_then(Node::text).map(Arc::from))
            .collect();
        for (at, item) in endpoint
            .get("addresses")
            .map_or(&[][..], Node::items)
            .iter()
            .enumerate()
        {
            let path = format!("endpoints[{index}].addresses[{at}]");
            members.extend(read_address(Some(item), &path, findings).map(|ip| Member {
                ip,
                state,
                zone: zone.clone(),
                for_zones: for_zones.clone(),
            }));
        }
    }
    Endpoints {
        service: service.to_owned(),
        groups: vec![Group { ports, members }],
    }
}

/// Joins Services with their Endpoints or EndpointSlices; slices win, since a cluster keeps both.
pub(crate) fn assemble<'a>(objects: impl Iterator<Item = &'a Written> + Clone) -> crate::Endpoints {
    let mut told: BTreeMap<(String, String), Vec<&Group>> = BTreeMap::new();
    let mut by_slices: BTreeMap<(String, String), Vec<&Group>> = BTreeMap::new();
    let mut services: BTreeMap<(String, String), &Service> = BTreeMap::new();
    for object in objects {
        let namespace = object.id.namespace.clone();
        match &object.spec {
            Spec::KubernetesService(service) => {
                services.insert((namespace, object.id.name.clone()), service);
            }
            Spec::Endpoints(endpoints) => {
                told.entry((namespace, endpoints.service.clone()))
                    .or_default()
                    .extend(&endpoints.groups);
            }
            Spec::EndpointSlice(slice) => {
                by_slices
                    .entry((namespace, slice.service.clone()))
                    .or_default()
                    .extend(&slice.groups);
            }
            _ => (),
        }
    }
    told.extend(by_slices);
    let mut endpoints = crate::Endpoints::default();
    for (key, groups) in told {
        let ports = match services.get(&key) {
            Some(service) => service
                .ports
                .iter()
                .map(|port| behind(port, &groups))
                .collect(),
            None => alone(&groups),
        };
        endpoints.services.insert(key, ports);
    }
    endpoints
}

/// Returns the addresses behind a Service's port: those of the endpoint port with the same name.
fn behind(port: &Port, groups: &[&Group]) -> ServicePort {
    let matches = |group: &Group| {
        let named = group.ports.iter().find(|known| known.name == port.name);
        named
            .or(match group.ports.as_slice() {
                [only] if only.name.is_none() || port.name.is_none() => Some(only),
                _ => None,
            })
            .map(|port| port.port)
    };
    let mut endpoints = Vec::new();
    for group in groups {
        if let Some(number) = matches(group) {
            endpoints.extend(group.members.iter().map(|member| member.on(number)));
        }
    }
    ServicePort {
        name: port.name.clone(),
        port: Some(port.port),
        endpoints: once_each(endpoints),
    }
}

/// Returns the ports of Endpoints without a Service: their own, and for a single one any.
fn alone(groups: &[&Group]) -> Vec<ServicePort> {
    let mut ports: BTreeMap<(u16, Option<String>), Vec<Endpoint>> = BTreeMap::new();
    for group in groups {
        for port in &group.ports {
            let known = ports.entry((port.port, port.name.clone())).or_default();
            known.extend(group.members.iter().map(|member| member.on(port.port)));
        }
    }
    let single = ports.len() == 1;
    let port = |((number, name), endpoints)| ServicePort {
        name,
        port: (!single).then_some(number),
        endpoints: once_each(endpoints),
    };
    ports.into_iter().map(port).collect()
}

/// Sorts endpoints and keeps each address once: while one moves between slices both tell of it, and ready wins.
fn once_each(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.sort_by_key(|one| (one.address, one.state));
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    endpoints
}
