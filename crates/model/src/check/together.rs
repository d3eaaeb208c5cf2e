//! Checks of all objects together, and the Config that comes out of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kit::aside::let_others;

use super::references::Names;
use crate::guard::Guard;
use crate::listener::HostBinding;
use crate::mapping::Mapping;
use crate::publish::Segment;
use crate::read::{self, Finding, Id, Kind, Spec, Written};
use crate::resolver::Resolver;
use crate::{Config, Object, Problem, Severity};

/// What came out of checking all objects together.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The whole, without the refused objects.
    pub config: Config,

    /// What was found between objects.
    pub problems: Vec<Problem>,

    /// Objects that do not fit to the others.
    pub refused: BTreeSet<Id>,
}

/// Checks objects together. What is refused takes those with it that need it, so we go on until nothing changes.
/// `before` are objects that are refused already, so that we do not call them unknown.
pub fn check(objects: &[Arc<Written>], before: &BTreeSet<Id>) -> Checked {
    let mut round = Round {
        before: before.clone(),
        ..Round::default()
    };
    round.unique(objects);
    loop {
        let known = round.refused.len();
        let kept: Vec<&Written> = round.kept(objects);
        round.resolvers(&kept);
        round.references(&kept);
        round.groups(&kept);
        round.routes(&kept);
        round.bindings(&kept);
        if round.refused.len() == known {
            break;
        }
    }
    let kept = round.kept(objects);
    let config = assemble(&kept);
    Checked {
        config,
        problems: round.problems,
        refused: round.refused,
    }
}

#[derive(Default)]
struct Round {
    problems: Vec<Problem>,
    seen: HashSet<Problem>,
    refused: BTreeSet<Id>,
    /// Objects that were refused before.
    before: BTreeSet<Id>,
    /// Second and later objects of one name, by their place in the list.
    repeated: BTreeSet<usize>,
}

impl Round {
    fn kept<'a>(&self, objects: &'a [Arc<Written>]) -> Vec<&'a Written> {
        let keeps = |(index, object): &(usize, &Arc<Written>)| {
            !self.repeated.contains(index) && !self.refused.contains(&object.id)
        };
        objects
            .iter()
            .enumerate()
            .filter(keeps)
            .map(|(_, object)| object.as_ref())
            .collect()
    }

    fn find(&mut self, object: &Written, finding: Finding) {
        if finding.severity == Severity::Error {
            self.refused.insert(object.id.clone());
        }
        let problem = object.problem(finding);
        if self.seen.insert(problem.clone()) {
            self.problems.push(problem);
        }
    }

    /// Every name once; the first one stays. One Broker and one Module in all.
    fn unique(&mut self, objects: &[Arc<Written>]) {
        let mut first: HashMap<&Id, &Written> = HashMap::new();
        let mut single: HashMap<Kind, &Written> = HashMap::new();
        for (index, object) in objects.iter().enumerate() {
            let_others();
            let before = first.insert(&object.id, object.as_ref());
            let before = match object.id.kind {
                Kind::Broker | Kind::Module => before.or(single.insert(object.id.kind, object)),
                // A topic has no namespace for the broker.
                _ => before,
            };
            let Some(before) = before else { continue };
            first.insert(&before.id, before);
            single.insert(before.id.kind, before);
            self.repeated.insert(index);
            let what = match object.id == before.id {
                true => format!(
                    "the {:?} `{}` is written twice",
                    object.id.kind, object.id.name
                ),
                false => format!("there can be one {:?} only", object.id.kind),
            };
            let finding = Finding::error("", what);
            let hint = format!("the first one stands in {}", before.origin);
            self.problems.push(object.problem(finding.hint(hint)));
        }
    }

    /// Mappings name resolvers without kind and namespace, so that each name can be there once only.
    fn resolvers(&mut self, objects: &[&Written]) {
        let mut first: BTreeMap<&str, &Written> = BTreeMap::new();
        for object in objects {
            if !object.id.kind.is_resolver() {
                continue;
            }
            match first.get(object.id.name.as_str()) {
                None => _ = first.insert(&object.id.name, object),
                Some(before) => {
                    let what = format!("there is another resolver `{}`", object.id.name);
                    let hint = format!("the first one stands in {}", before.origin);
                    self.find(object, Finding::error("", what).hint(hint));
                }
            }
        }
    }

    /// Names that are used must be known.
    fn references(&mut self, objects: &[&Written]) {
        let refused: Vec<Id> = self.before.union(&self.refused).cloned().collect();
        let names = Names::of(objects, refused.iter());
        for object in objects {
            let_others();
            for finding in names.check(object) {
                self.find(object, finding);
            }
        }
    }

    /// A Host that no Listener serves, and a Listener that serves no Host, answer nothing but 404.
    fn bindings(&mut self, objects: &[&Written]) {
        let mut listeners = Vec::new();
        let mut hosts = Vec::new();
        for object in objects {
            match &object.spec {
                Spec::Listener(listener) => {
                    listeners.push((*object, &listener.host_binding, listener.speaks_tls()));
                }
                Spec::Host(host) => hosts.push((*object, &**host)),
                _ => (),
            }
        }
        if listeners.is_empty() || hosts.is_empty() {
            return;
        }
        type Bound<'a> = (&'a Written, &'a HostBinding, bool);
        let takes = |(listener, binding, _): &Bound<'_>, host: &Written| {
            binding.takes(&listener.id.namespace, &host.id.namespace, &host.labels)
        };
        for (host, said) in &hosts {
            let mut taking = listeners
                .iter()
                .filter(|listener| takes(listener, host))
                .peekable();
            if taking.peek().is_none() {
                let what = "no Listener's `hostBinding` takes this Host: it is served nowhere";
                self.find(host, Finding::warning("", what));
            } else if !taking.any(|(_, _, tls)| *tls)
                && let Some(path) = said.certificate_path()
            {
                let what =
                    "no Listener that takes this Host speaks TLS, its certificate has no effect";
                let hint = "write `protocol: HTTPS` in the Listener";
                self.find(host, Finding::warning(path, what).hint(hint));
            }
        }
        for listener in &listeners {
            if !hosts.iter().any(|(host, _)| takes(listener, host)) {
                let what = "it takes no Host: every request to this port is answered with 404";
                let hint = "`namespace: { from: ALL }` takes all of them";
                self.find(listener.0, Finding::warning("hostBinding", what).hint(hint));
            }
        }
    }

    /// Mappings that match the same share the requests; they have to agree.
    fn groups(&mut self, objects: &[&Written]) {
        let mut groups: BTreeMap<GroupKey<'_>, Vec<(&Written, &Mapping)>> = BTreeMap::new();
        for object in objects {
            let_others();
            if let Spec::Mapping(mapping) = &object.spec
                && !mapping.spec.shadow
            {
                let mapping = &mapping.spec;
                groups
                    .entry(group_key(object, mapping))
                    .or_default()
                    .push((object, mapping));
            }
        }
        for mut members in groups.into_values().filter(|members| members.len() > 1) {
            // The first by name leads, as in the route table: the order of the text means nothing.
            members.sort_by_key(|(object, _)| &object.id);
            self.agreement(&members);
            self.weights(&members);
        }
    }

    fn agreement(&mut self, members: &[(&Written, &Mapping)]) {
        let Some(((_, first), others)) = members.split_first() else {
            return;
        };
        let Some((first_object, _)) = members.first() else {
            return;
        };
        for (object, mapping) in others {
            let hint = format!(
                "its requests are shared with the one in {}",
                first_object.origin
            );
            if mapping.host_redirect && first.host_redirect {
                let what = "a redirect for the same requests exists already";
                self.find(object, Finding::error("host_redirect", what).hint(hint));
                continue;
            }
            if mapping.host_redirect != first.host_redirect {
                let what = "a redirect and a service cannot share requests";
                self.find(object, Finding::error("host_redirect", what).hint(hint));
                continue;
            }
            let differs = [
                ("prefix_exact", mapping.prefix_exact != first.prefix_exact),
                ("prefix_regex", mapping.prefix_regex != first.prefix_regex),
                ("bypass_auth", mapping.bypass_auth != first.bypass_auth),
                (
                    "circuit_breakers",
                    mapping.circuit_breakers != first.circuit_breakers,
                ),
                (
                    "cluster_idle_timeout_ms",
                    mapping.cluster_idle_timeout_ms != first.cluster_idle_timeout_ms,
                ),
                (
                    "cluster_max_connection_lifetime_ms",
                    mapping.cluster_max_connection_lifetime_ms
                        != first.cluster_max_connection_lifetime_ms,
                ),
                (
                    "connect_timeout_ms",
                    mapping.connect_timeout_ms != first.connect_timeout_ms,
                ),
                ("keepalive", mapping.keepalive != first.keepalive),
                ("labels", mapping.labels != first.labels),
                (
                    "load_balancer",
                    mapping.load_balancer != first.load_balancer,
                ),
            ];
            for (field, _) in differs.into_iter().filter(|(_, differs)| *differs) {
                let what =
                    format!("`{field}` differs from the other Mapping for the same requests");
                self.find(object, Finding::error(field, what).hint(hint.clone()));
            }
        }
    }

    fn weights(&mut self, members: &[(&Written, &Mapping)]) {
        let weighted: Vec<(&Written, u32)> = members
            .iter()
            .filter_map(|(object, mapping)| mapping.weight.map(|weight| (*object, weight)))
            .collect();
        let sum: u32 = weighted.iter().map(|(_, weight)| weight).sum();
        let others = |object: &Written| {
            let others = weighted.iter().filter(|(other, _)| other.id != object.id);
            others
                .map(|(other, _)| other.origin.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        if sum > 100 {
            for (object, _) in &weighted {
                let what = format!("the weights for the same requests are {sum} percent in all");
                let hint = format!("the others stand in {}", others(object));
                self.find(object, Finding::error("weight", what).hint(hint));
            }
        }
    }

    /// One method and path can be published to one topic only.
    fn routes(&mut self, objects: &[&Written]) {
        let mut taken: BTreeMap<(Option<&str>, String, String), &Written> = BTreeMap::new();
        for object in objects {
            let Spec::Publish(publish) = &object.spec else {
                continue;
            };
            let Ok(route) = publish.route() else { continue };
            let shape: String = route
                .segments
                .iter()
                .map(|segment| match segment {
                    Segment::Exact(text) => format!("/{text}"),
                    Segment::One(_) => "/{}".to_owned(),
                    Segment::Rest(_) => "/{...}".to_owned(),
                })
                .collect();
            let key = (publish.hostname.as_deref(), route.method, shape);
            if let Some(before) = taken.get(&key) {
                let what = format!("the route `{}` is published already", publish.route);
                let hint = format!("by the one in {}", before.origin);
                self.find(object, Finding::error("route", what).hint(hint));
            } else {
                taken.insert(key, object);
            }
        }
    }
}

/// What Mappings of one group have in common.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey<'a> {
    method: Option<&'a str>,
    prefix: &'a str,
    host: Option<(bool, &'a str)>,
    headers: Vec<(&'a String, &'a String)>,
    regex_headers: Vec<(&'a String, &'a String)>,
    query: Vec<(&'a String, &'a String)>,
    regex_query: Vec<(&'a String, &'a String)>,
    precedence: i32,
    /// Without a host the labels decide which Hosts take the Mapping.
    labels: Vec<(&'a String, &'a String)>,
}

fn group_key<'a>(object: &'a Written, mapping: &'a Mapping) -> GroupKey<'a> {
    let host = match (&mapping.hostname, &mapping.host) {
        (Some(hostname), _) => Some((false, hostname.as_str())),
        (None, Some(host)) => Some((mapping.host_regex, host.as_str())),
        (None, None) => None,
    };
    GroupKey {
        method: mapping.method.as_deref(),
        prefix: &mapping.prefix,
        host,
        headers: mapping.headers.iter().collect(),
        regex_headers: mapping.regex_headers.iter().collect(),
        query: mapping.query_parameters.iter().collect(),
        regex_query: mapping.regex_query_parameters.iter().collect(),
        precedence: mapping.precedence,
        labels: match host {
            Some(_) => Vec::new(),
            None => object.labels.iter().collect(),
        },
    }
}

fn assemble(objects: &[&Written]) -> Config {
    let mut config = Config {
        endpoints: read::assemble(objects.iter().copied()),
        ..Config::default()
    };
    for object in objects {
        let_others();
        match &object.spec {
            Spec::Mapping(mapping) => config.mappings.push(mapping.clone()),
            Spec::Host(host) => config.hosts.push(object.with(host.as_ref().clone())),
            Spec::Listener(listener) => config.listeners.push(object.with(listener.clone())),
            Spec::Module(module) => config.module = module.as_ref().clone(),
            Spec::TLSContext(context) => {
                config
                    .tls_contexts
                    .push(object.with(context.as_ref().clone()));
            }
            Spec::Service(service) => config.services.push(object.with(service.clone())),
            Spec::Topic(topic) => config.topics.push(object.with(topic.clone())),
            Spec::Publish(publish) => config.publish.push(object.with(publish.clone())),
            Spec::Subscribe(subscribe) => config.subscribe.push(object.with(subscribe.clone())),
            Spec::Broker(broker) => config.broker = broker.clone(),
            Spec::KubernetesServiceResolver(_) => {
                let name = object.id.name.clone();
                config.resolvers.insert(name, Resolver::KubernetesService);
            }
            Spec::KubernetesEndpointResolver(_) => {
                let name = object.id.name.clone();
                config.resolvers.insert(name, Resolver::KubernetesEndpoint);
            }
            Spec::ConsulResolver(consul) => {
                let name = object.id.name.clone();
                config
                    .resolvers
                    .insert(name, Resolver::Consul(consul.clone()));
            }
            Spec::Secret(secret) => {
                let key = (object.id.namespace.clone(), object.id.name.clone());
                config.secrets.insert(key, secret.clone());
            }
            Spec::Guard(rules) => config.guards.push(Guard {
                name: object.id.to_string(),
                rules: rules.clone(),
            }),
            Spec::KubernetesService(service) => {
                if let Some(name) = &service.external_name {
                    let key = (object.id.namespace.clone(), object.id.name.clone());
                    config.external_names.insert(key, name.clone());
                }
            }
            Spec::Endpoints(_) | Spec::EndpointSlice(_) => (),
        }
    }
    config
}

impl Written {
    fn with<T>(&self, spec: T) -> Object<T> {
        Object {
            name: self.id.name.clone(),
            namespace: self.id.namespace.clone(),
            labels: self.labels.clone(),
            origin: self.origin.clone(),
            spec,
        }
    }
}
