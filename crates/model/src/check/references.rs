//! Names that objects use must be known: topics, services, and the services that one waits for.

use std::collections::{BTreeMap, BTreeSet};

use crate::endpoints;
use crate::host::Host;
use crate::mapping::{LoadBalancerPolicy, Mapping};
use crate::read::{self, Finding, Id, Kind, Spec, Written};
use crate::resolver::{BUILT_IN, Resolver};
use crate::shape::{alternatives, nearest};
use crate::target::Target;
use crate::tls_context::{TlsContext, Verify};
use crate::{Config, Endpoints, Subscribe};

/// The names that may be used.
pub(super) struct Names<'a> {
    topics: BTreeSet<&'a str>,
    services: BTreeMap<&'a str, &'a [String]>,
    /// TLSContexts, each with its namespace.
    contexts: Vec<(&'a Id, &'a TlsContext)>,
    /// Topics, services and TLSContexts that are written but refused.
    refused: BTreeSet<(Kind, &'a str)>,
    endpoints: Endpoints,
    /// The `v1` Services, by namespace and name.
    cluster: BTreeSet<(&'a str, &'a str)>,
    resolvers: BTreeMap<&'a str, Resolver>,
    /// The Module's.
    resolver: Option<&'a str>,
    /// Whether topics that nobody told us of cannot exist.
    closed: bool,
}

impl<'a> Names<'a> {
    pub(super) fn of(objects: &[&'a Written], refused: impl Iterator<Item = &'a Id>) -> Names<'a> {
        let mut names = Names {
            topics: BTreeSet::new(),
            services: BTreeMap::new(),
            contexts: Vec::new(),
            refused: refused.map(|id| (id.kind, id.name.as_str())).collect(),
            endpoints: read::assemble(objects.iter().copied()),
            cluster: BTreeSet::new(),
            resolvers: built_in(),
            resolver: None,
            closed: true,
        };
        for object in objects {
            let name = object.id.name.as_str();
            match &object.spec {
                Spec::TLSContext(context) => names.contexts.push((&object.id, context)),
                Spec::Module(module) => names.resolver = module.resolver.as_deref(),
                Spec::KubernetesService(_) => {
                    names.cluster.insert((&object.id.namespace, name));
                }
                Spec::KubernetesServiceResolver(_) => {
                    names.resolvers.insert(name, Resolver::KubernetesService);
                }
                Spec::KubernetesEndpointResolver(_) => {
                    names.resolvers.insert(name, Resolver::KubernetesEndpoint);
                }
                Spec::ConsulResolver(consul) => {
                    names
                        .resolvers
                        .insert(name, Resolver::Consul(consul.clone()));
                }
                Spec::Topic(_) => _ = names.topics.insert(name),
                Spec::Service(service) => _ = names.services.insert(name, &service.needs),
                // A foreign cluster may have topics of which nobody told us.
                Spec::Broker(broker) if broker.bootstrap.is_some() => names.closed = false,
                _ => (),
            }
        }
        names
    }

    /// Returns what is wrong with the names that an object uses.
    pub(super) fn check(&self, object: &Written) -> Vec<Finding> {
        match &object.spec {
            Spec::Mapping(mapping) if !mapping.spec.host_redirect => {
                let mapping = &mapping.spec;
                let mut findings: Vec<Finding> = self.resolves(object, mapping);
                findings.extend(self.tls(object, mapping));
                let said = mapping.resolver.as_deref().or(self.resolver);
                let resolver = said.and_then(|name| self.resolvers.get(name));
                if !matches!(resolver, Some(Resolver::Consul(_))) {
                    findings.extend(self.target(object, &mapping.service));
                }
                findings
            }
            Spec::Host(host) => {
                let named = host.tls_context.as_ref();
                named
                    .and_then(|named| self.host_context(object, host, &named.name))
                    .into_iter()
                    .collect()
            }
            Spec::Module(module) => {
                let name = module.resolver.as_deref();
                name.and_then(|name| self.unknown_resolver(name))
                    .into_iter()
                    .collect()
            }
            Spec::Publish(publish) => self.topic("topic", &publish.topic).into_iter().collect(),
            Spec::Subscribe(Subscribe {
                topic,
                service,
                tls,
                dead_letter,
                ..
            }) => {
                let dead_letter = dead_letter.as_ref();
                let found = [
                    self.topic("topic", topic),
                    dead_letter.and_then(|name| self.topic("dead_letter", name)),
                    self.target(object, service),
                    tls.as_ref()
                        .and_then(|name| self.context(object, name).err()),
                ];
                found.into_iter().flatten().collect()
            }
            Spec::Service(service) => self.needs(&object.id.name, &service.needs),
            _ => Vec::new(),
        }
    }

    /// The TLSContext of a Mapping must be known; a service whose certificate nobody verifies is told.
    fn tls(&self, object: &Written, mapping: &Mapping) -> Vec<Finding> {
        let Some(name) = &mapping.tls else {
            return match Target::parse(&mapping.service) {
                Ok(target) if target.tls => {
                    let what = "the certificate of the service is not verified";
                    let hint =
                        "name a TLSContext in `tls` that has `ca_secret` or `verify: system`";
                    vec![Finding::warning("service", what).hint(hint)]
                }
                _ => Vec::new(),
            };
        };
        match self.context(object, name) {
            Ok(context) if context.verifies() || context.verify == Some(Verify::None) => Vec::new(),
            Ok(_) => {
                let what = format!("the certificate of the service is not verified by `{name}`");
                let hint = "give the TLSContext `ca_secret`, `cacert_chain_file` or `verify: system`, \
                            or say `verify: none`";
                vec![Finding::warning("tls", what).hint(hint)]
            }
            Err(unknown) => vec![unknown],
        }
    }

    /// The TLSContext of a Host must be known, and only one of the two may have the certificate.
    fn host_context(&self, object: &Written, host: &Host, name: &str) -> Option<Finding> {
        let context = match self.context(object, name) {
            Ok(context) => context,
            Err(unknown) => {
                let path = "tlsContext.name".to_owned();
                return Some(Finding { path, ..unknown });
            }
        };
        let (ours, theirs) = (host.tls_secret.as_ref()?, context.secret.as_ref()?);
        let (_, theirs) = context.secret_key(theirs, &object.id.namespace);
        (ours.name != *theirs).then(|| {
            let what = format!("the TLSContext `{name}` has another Secret, `{theirs}`");
            Finding::error("tlsSecret", what).hint("leave one of them away")
        })
    }

    /// Returns the TLSContext that an object names in `tls`: one of its own namespace, or of another.
    fn context(&self, object: &Written, name: &str) -> Result<&TlsContext, Finding> {
        let mut named = self.contexts.iter().filter(|(id, _)| id.name == *name);
        let own = named
            .clone()
            .find(|(id, _)| id.namespace == object.id.namespace);
        if let Some((_, context)) = own.or_else(|| named.next()) {
            return Ok(context);
        }
        if self.refused.contains(&(Kind::TLSContext, name)) {
            let what = format!("the TLSContext `{name}` is refused itself");
            return Err(Finding::error("tls", what));
        }
        let names: Vec<&str> = self.contexts.iter().map(|(id, _)| &*id.name).collect();
        let finding = Finding::error("tls", format!("unknown TLSContext `{name}`"));
        Err(match nearest(name, &names) {
            Some(name) => finding.hint(format!("did you mean `{name}`?")),
            None => finding,
        })
    }

    fn topic(&self, path: &str, name: &str) -> Option<Finding> {
        if !self.closed || self.topics.contains(name) {
            return None;
        }
        if self.refused.contains(&(Kind::Topic, name)) {
            return Some(Finding::error(
                path,
                format!("the topic `{name}` is refused itself"),
            ));
        }
        let topics: Vec<&str> = self.topics.iter().copied().collect();
        let hint = match nearest(name, &topics) {
            Some(topic) => format!("did you mean `{topic}`?"),
            None => format!("write it under `topics:`, as in `{name}: {{ partitions: 3 }}`"),
        };
        Some(Finding::error(path, format!("unknown topic `{name}`")).hint(hint))
    }

    /// Where services are declared in place, a bare name must be one of them; a name with dots is asked of DNS.
    fn target(&self, object: &Written, text: &str) -> Option<Finding> {
        let host = Target::parse(text).ok()?.host;
        let bare = !host.contains(['.', ':']) && host != "localhost";
        let known = self.services.contains_key(host.as_str())
            || self.refused.contains(&(Kind::Service, host.as_str()))
            || self.endpoints.knows(&host, &object.id.namespace);
        if !object.short || self.services.is_empty() || !bare || known {
            return None;
        }
        Some(self.unknown_service("service", &host))
    }

    /// Returns what is wrong with how a Mapping's service is found.
    fn resolves(&self, object: &Written, mapping: &Mapping) -> Vec<Finding> {
        if let Some(unknown) = mapping
            .resolver
            .as_deref()
            .and_then(|name| self.unknown_resolver(name))
        {
            return vec![unknown];
        }
        let said = mapping.resolver.as_deref().or(self.resolver);
        let resolver = said.and_then(|name| self.resolvers.get(name));
        let mut findings = Vec::new();
        let Ok(target) = Target::parse(&mapping.service) else {
            return findings;
        };
        let key = endpoints::key(&target.host, &object.id.namespace);
        match resolver {
            Some(Resolver::Consul(_)) if target.port.is_some() => {
                let what = "Consul tells the ports, the one that is written has no effect";
                findings.push(Finding::warning("service", what));
            }
            Some(Resolver::KubernetesService) => {
                let balances = mapping
                    .load_balancer
                    .as_ref()
                    .is_some_and(|balancer| balancer.policy != LoadBalancerPolicy::RoundRobin);
                if mapping.resolver.is_some() && balances {
                    let what = "a Service that DNS finds has one address, so that there is nothing to balance";
                    let finding = Finding::warning("load_balancer", what);
                    findings.push(finding.hint("`resolver: endpoint` finds its endpoints"));
                }
            }
            Some(Resolver::KubernetesEndpoint) if target.ip().is_none() && key.is_none() => {
                let what = format!("`{}` is no Service's name", target.host);
                findings.push(Finding::error("service", what).hint("write `name.namespace`"));
            }
            Some(Resolver::KubernetesEndpoint) | None => {
                if let Some(key) = key {
                    let explicit = resolver.is_some() && mapping.resolver.is_some();
                    findings.extend(self.port(&key, target.port, explicit));
                }
            }
            Some(Resolver::Consul(_)) => (),
        }
        findings
    }

    /// Returns what is wrong with a port of a service whose endpoints are told.
    fn port(&self, key: &(String, String), port: Option<u16>, explicit: bool) -> Option<Finding> {
        let ports = self.endpoints.services.get(key)?;
        let (namespace, name) = key;
        if !self.cluster.contains(&(namespace, name)) {
            let what = format!(
                "there is no `v1` Service `{name}` in `{namespace}`, so its ports are those of its endpoints"
            );
            return explicit.then(|| Finding::warning("service", what));
        }
        if endpoints::find(ports, port).is_some() {
            return None;
        }
        let numbers: Vec<String> = ports
            .iter()
            .filter_map(|port| Some(port.port?.to_string()))
            .collect();
        let what = match port {
            Some(port) => format!("the Service `{name}` has no port {port}"),
            None => format!("the Service `{name}` has several ports, and none is 80"),
        };
        let finding = Finding::warning("service", format!("{what}, so nobody answers"));
        Some(match numbers.is_empty() {
            true => finding,
            false => finding.hint(format!("it has {}", numbers.join(", "))),
        })
    }

    fn unknown_resolver(&self, name: &str) -> Option<Finding> {
        if self.resolvers.contains_key(name) {
            return None;
        }
        let refused = |(kind, refused): &(Kind, &str)| kind.is_resolver() && *refused == name;
        if self.refused.iter().any(refused) {
            let what = format!("the resolver `{name}` is refused itself");
            return Some(Finding::error("resolver", what));
        }
        let names: Vec<&str> = BUILT_IN
            .into_iter()
            .chain(
                self.resolvers
                    .keys()
                    .copied()
                    .filter(|name| !BUILT_IN.contains(name)),
            )
            .collect();
        let finding = Finding::error("resolver", format!("unknown resolver `{name}`"));
        Some(finding.hint(alternatives(name, &names)))
    }

    fn unknown_service(&self, path: &str, name: &str) -> Finding {
        let services: Vec<&str> = self.services.keys().copied().collect();
        let finding = Finding::error(path, format!("unknown service `{name}`"));
        match nearest(name, &services) {
            Some(service) => finding.hint(format!("did you mean `{service}`?")),
            None if services.is_empty() => finding,
            None => finding.hint(format!("known are `{}`", services.join("`, `"))),
        }
    }

    fn needs(&self, name: &str, needs: &[String]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, need) in needs.iter().enumerate() {
            let path = format!("needs[{index}]");
            if self.services.contains_key(need.as_str()) {
                continue;
            }
            findings.push(match self.refused.contains(&(Kind::Service, need)) {
                true => Finding::error(&path, format!("the service `{need}` is refused itself")),
                false => self.unknown_service(&path, need),
            });
        }
        if let Some(circle) = self.circle(name) {
            let what = format!("these services wait for each other: {}", circle.join(" → "));
            findings.push(Finding::error("needs", what));
        }
        findings
    }

    /// Returns the services that wait for each other, beginning with `name`, if it is one of them.
    fn circle(&self, name: &str) -> Option<Vec<String>> {
        // Who was first seen in whose list.
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open: Vec<&str> = vec![name];
        while let Some(at) = open.pop() {
            for need in self.services.get(at).copied().unwrap_or_default() {
                if need == name && at != name {
                    let mut way = vec![name.to_owned()];
                    let mut step = at;
                    while step != name {
                        way.push(step.to_owned());
                        step = before.get(step).copied().unwrap_or(name);
                    }
                    way.push(name.to_owned());
                    way.reverse();
                    return Some(way);
                }
                if need != name && !before.contains_key(need.as_str()) {
                    before.insert(need, at);
                    open.push(need);
                }
            }
        }
        None
    }
}

fn built_in() -> BTreeMap<&'static str, Resolver> {
    let config = Config::default();
    let resolver = |name: &'static str| Some((name, config.resolver(Some(name))?));
    BUILT_IN.into_iter().filter_map(resolver).collect()
}
