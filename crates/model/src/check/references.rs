//! Names that objects use must be known: topics, services, and the services that one waits for.

use std::collections::{BTreeMap, BTreeSet};

use crate::read::{self, Finding, Id, Kind, Spec, Written};
use crate::shape::nearest;
use crate::target::Target;
use crate::{Endpoints, Subscribe};

/// The names that may be used.
pub(super) struct Names<'a> {
    topics: BTreeSet<&'a str>,
    services: BTreeMap<&'a str, &'a [String]>,
    /// Topics and services that are written but refused.
    refused: BTreeSet<(Kind, &'a str)>,
    endpoints: Endpoints,
    /// Whether topics that nobody told us of cannot exist.
    closed: bool,
}

impl<'a> Names<'a> {
    pub(super) fn of(objects: &[&'a Written], refused: impl Iterator<Item = &'a Id>) -> Names<'a> {
        let mut names = Names {
            topics: BTreeSet::new(),
            services: BTreeMap::new(),
            refused: refused.map(|id| (id.kind, id.name.as_str())).collect(),
            endpoints: read::assemble(objects.iter().copied()),
            closed: true,
        };
        for object in objects {
            let name = object.id.name.as_str();
            match &object.spec {
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
            Spec::Mapping(mapping) if !mapping.spec.host_redirect => self
                .target(object, &mapping.spec.service)
                .into_iter()
                .collect(),
            Spec::Publish(publish) => self.topic("topic", &publish.topic).into_iter().collect(),
            Spec::Subscribe(Subscribe {
                topic,
                service,
                dead_letter,
                ..
            }) => {
                let dead_letter = dead_letter.as_ref();
                let found = [
                    self.topic("topic", topic),
                    dead_letter.and_then(|name| self.topic("dead_letter", name)),
                    self.target(object, service),
                ];
                found.into_iter().flatten().collect()
            }
            Spec::Service(service) => self.needs(&object.id.name, &service.needs),
            _ => Vec::new(),
        }
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
