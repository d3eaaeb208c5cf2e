//! Kubernetes-style objects: Ambassador's kinds, ours, and the core kinds that a cluster would tell.

use std::collections::BTreeMap;

use super::{Draft, Id, Kind, Reader};
use crate::guard::Rule;
use crate::shape::{alternatives, shape};
use crate::tree::{Key, Node, Place, Value};

/// Ambassador's kinds that are not supported yet.
pub(crate) const WAITING_KINDS: [&str; 13] = [
    "DevPortal",
    "EnvoyPatch",
    "Filter",
    "FastPathListener",
    "KnativeIngress",
    "LogService",
    "ProjectController",
    "RateLimit",
    "RateLimitService",
    "TCPMapping",
    "TracingService",
    "WebApplicationFirewall",
    "Features",
];

/// Kinds that decide who may ask. They are not supported yet, and passing them over would open what they close.
const GUARDS: [(&str, Kind); 3] = [
    ("AuthService", Kind::AuthService),
    ("FilterPolicy", Kind::FilterPolicy),
    (
        "WebApplicationFirewallPolicy",
        Kind::WebApplicationFirewallPolicy,
    ),
];

const AMBASSADOR_KINDS: [(&str, Kind); 8] = [
    ("Mapping", Kind::Mapping),
    ("Host", Kind::Host),
    ("Listener", Kind::Listener),
    ("Module", Kind::Module),
    ("TLSContext", Kind::TLSContext),
    ("KubernetesServiceResolver", Kind::KubernetesServiceResolver),
    (
        "KubernetesEndpointResolver",
        Kind::KubernetesEndpointResolver,
    ),
    ("ConsulResolver", Kind::ConsulResolver),
];

const OWN_KINDS: [(&str, Kind); 5] = [
    ("Service", Kind::Service),
    ("Topic", Kind::Topic),
    ("Publish", Kind::Publish),
    ("Subscribe", Kind::Subscribe),
    ("Broker", Kind::Broker),
];

/// The API group and version of our own kinds.
pub(crate) const OWN_VERSION: &str = "nuncio.dev/v1alpha1";

const V3: [&str; 2] = ["getambassador.io/v3alpha1", "x.getambassador.io/v3alpha1"];
const V2: &str = "getambassador.io/v2";

impl Reader<'_> {
    /// Reads a Kubernetes-style object. `path` is its place in the document: empty, or an item of a List.
    pub(super) fn object(&mut self, node: Node, path: &str) {
        let field = |name: &str| node.get(name).and_then(Node::text);
        let at = |name: &str| super::join(path, name);
        let Some(kind) = field("kind") else {
            return self.nameless(&node.place, path, "the field `kind` is missing", None);
        };
        let Some(version) = field("apiVersion") else {
            let hint = Some(format!("for example `apiVersion: {}`", V3[0]));
            return self.nameless(&node.place, path, "the field `apiVersion` is missing", hint);
        };
        let (kind_node, version_node) = (
            node.get("kind").unwrap_or(&node),
            node.get("apiVersion").unwrap_or(&node),
        );
        let known = |kinds: &[(&str, Kind)]| {
            kinds
                .iter()
                .find(|(name, _)| *name == kind)
                .map(|(_, kind)| *kind)
        };
        let unknown = |reader: &mut Self, kinds: &[(&str, Kind)]| {
            let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
            let what = format!("unknown kind `{kind}` in `{version}`");
            let hint = Some(alternatives(kind, &names));
            reader.nameless(&kind_node.place, &at("kind"), &what, hint);
        };
        let kind = match version {
            _ if kind.ends_with("List") && (version == "v1" || node.entry("items").is_some()) => {
                for (index, item) in node
                    .get("items")
                    .map_or(&[][..], Node::items)
                    .iter()
                    .enumerate()
                {
                    self.object_in_list(item.clone(), &format!("{}[{index}]", at("items")));
                }
                return;
            }
            "v1" => match kind {
                "Secret" => Kind::Secret,
                "Service" => Kind::KubernetesService,
                "Endpoints" => Kind::Endpoints,
                // Namespaces come along in exports; they decide nothing.
                "Namespace" => return,
                _ => return self.foreign(&kind_node.place, &at("kind"), version, kind),
            },
            "discovery.k8s.io/v1" => match kind {
                "EndpointSlice" => Kind::EndpointSlice,
                _ => return self.foreign(&kind_node.place, &at("kind"), version, kind),
            },
            OWN_VERSION => match known(&OWN_KINDS) {
                Some(kind) => kind,
                None => return unknown(self, &OWN_KINDS),
            },
            V2 | "getambassador.io/v3alpha1" | "x.getambassador.io/v3alpha1" => {
                match known(&AMBASSADOR_KINDS).or_else(|| known(&GUARDS)) {
                    Some(kind) => kind,
                    None if WAITING_KINDS.contains(&kind) => {
                        let meanwhile = match kind {
                            "RateLimitService" | "RateLimit" => {
                                "requests are served without a limit"
                            }
                            _ => "the object has no effect",
                        };
                        let what = format!("the kind `{kind}` is not supported yet, {meanwhile}");
                        return self.warn(&kind_node.place, &at("kind"), what, None);
                    }
                    None => return unknown(self, &AMBASSADOR_KINDS),
                }
            }
            _ if version.contains("getambassador.io/") || version.starts_with("nuncio.dev/") => {
                let what = format!("unknown version `{version}`");
                let own = if version.starts_with("nuncio") {
                    &[OWN_VERSION][..]
                } else {
                    &V3[..1]
                };
                let hint = Some(format!("write `{}`", own[0]));
                return self.nameless(&version_node.place, &at("apiVersion"), &what, hint);
            }
            _ => return self.foreign(&kind_node.place, &at("kind"), version, kind),
        };
        let v2 = version == V2;
        self.known_object(kind, v2, node, path);
    }

    fn object_in_list(&mut self, item: Node, path: &str) {
        match item.is_map() {
            true => self.object(item, path),
            false => self.nameless(&item.place, path, "expected an object", None),
        }
    }

    fn foreign(&mut self, place: &Place, path: &str, version: &str, kind: &str) {
        if !self.foreign.insert((version.to_owned(), kind.to_owned())) {
            return;
        }
        let what = format!("`{kind}` of `{version}` means nothing to Nuncio, it is passed over");
        self.warn(place, path, what, None);
    }

    fn known_object(&mut self, kind: Kind, v2: bool, node: Node, path: &str) {
        let at = |name: &str| super::join(path, name);
        let empty = Node::map(Vec::new(), node.place.clone());
        let metadata = node.get("metadata").unwrap_or(&empty);
        let Some(name) = metadata.get("name").and_then(Node::text) else {
            let what = "the field `metadata.name` is missing";
            return self.nameless(&metadata.place, &at("metadata"), what, None);
        };
        let said = metadata.get("namespace").and_then(Node::text);
        if self.options.single_namespace && said.is_some_and(|said| said != self.options.namespace)
        {
            return; // another namespace's
        }
        let namespace = said.unwrap_or("default");
        let id = Id {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let labels = match metadata.get("labels") {
            None => BTreeMap::new(),
            Some(labels) => match shape(labels, &at("metadata.labels")) {
                Ok(labels) => labels,
                Err(misshapes) => return self.refuse(id, misshapes),
            },
        };
        if !self.options.labels.selects(&labels) {
            return;
        }
        let place = node.place.clone();
        if GUARDS.iter().any(|(_, guard)| *guard == kind) {
            return self.guard(id, labels, node, path);
        }
        if matches!(
            kind,
            Kind::Secret | Kind::KubernetesService | Kind::Endpoints | Kind::EndpointSlice
        ) {
            let path = path.to_owned();
            let draft = Draft {
                id,
                labels,
                place,
                node,
                path,
                short: false,
            };
            if kind == Kind::KubernetesService {
                self.annotation(&draft);
            }
            return self.take_kind(draft);
        }
        let misplaced: Vec<&Key> = node
            .entries()
            .iter()
            .map(|(key, _)| key)
            .filter(|key| {
                !["apiVersion", "kind", "metadata", "spec", "status"].contains(&key.text.as_str())
            })
            .collect();
        if let Some(key) = misplaced.first() {
            let what = format!("unknown field `{}`", key.text);
            let hint = Some(format!("the fields of a {kind:?} stand under `spec:`"));
            let key_place = key.place.clone();
            let path = at(&key.text);
            self.problem(
                crate::Severity::Error,
                &key_place,
                &path,
                what,
                hint,
                Some(&id),
            );
            return self.reading.refused.push(id);
        }
        let mut spec = node.get("spec").unwrap_or(&empty).clone();
        let mut spec_path = at("spec");
        if !self.ours(&spec)
            && matches!(
                kind,
                Kind::Mapping
                    | Kind::Host
                    | Kind::Listener
                    | Kind::Module
                    | Kind::TLSContext
                    | Kind::KubernetesServiceResolver
                    | Kind::KubernetesEndpointResolver
                    | Kind::ConsulResolver
            )
        {
            return; // for another instance
        }
        if kind == Kind::Module {
            if name != "ambassador" {
                let what = format!("the Module `{name}` has no effect, only `ambassador` has");
                return self.warn(&metadata.place, &at("metadata.name"), what, Some(&id));
            }
            spec_path = at("spec.config");
            spec = spec.get("config").cloned().unwrap_or(empty);
        }
        if v2 {
            spec = from_v2(kind, spec);
        }
        self.take_kind(Draft {
            id,
            labels,
            place,
            node: spec,
            path: spec_path,
            short: false,
        });
    }
}

/// Turns the spellings of `getambassador.io/v2` into those of v3alpha1, places kept.
fn from_v2(kind: Kind, spec: Node) -> Node {
    let Value::Map(entries) = spec.value else {
        return spec;
    };
    let mut entries: Vec<(Key, Node)> = entries;
    for (key, node) in &mut entries {
        let list = |node: &Node| Node::list(vec![node.clone()], node.place.clone());
        match key.text.as_str() {
            "ambassador_id" | "ambassadorId" if node.text().is_some() => *node = list(node),
            "add_request_headers" | "add_response_headers" if kind == Kind::Mapping => {
                *node = each_value(node, |value| match value.text() {
                    Some(_) => with_key("value", value),
                    None => value,
                });
            }
            _ => (),
        }
    }
    if kind == Kind::Mapping {
        for (exact, regex) in [
            ("headers", "regex_headers"),
            ("query_parameters", "regex_query_parameters"),
        ] {
            presence(&mut entries, exact, regex);
        }
        originate_tls(&mut entries);
        for (_, node) in entries.iter_mut().filter(|(key, _)| key.text == "labels") {
            *node = each_value(node, |groups| {
                each_item(&groups, |group| {
                    each_value(&group, |labels| each_item(&labels, label))
                })
            });
        }
    }
    Node::map(entries, spec.place)
}

impl Reader<'_> {
    /// Takes an object that decides who may ask: it counts, and it is an error that it cannot do its work.
    fn guard(&mut self, id: Id, labels: BTreeMap<String, String>, node: Node, path: &str) {
        if node.get("spec").is_some_and(|spec| !self.ours(spec)) {
            return;
        }
        let kind_at = node.get("kind").unwrap_or(&node).place.clone();
        let rules = match id.kind {
            Kind::FilterPolicy => node.get("spec").and_then(filter_rules),
            _ => None,
        };
        let refused = match &rules {
            Some(_) => "requests that its rules send through filters are refused with 500",
            None => "requests are refused with 500",
        };
        let what = format!(
            "the kind `{:?}` is not supported yet: {refused}, unless their Mapping says `bypass_auth`",
            id.kind
        );
        let hint = Some("take the object away to serve requests without asking it".to_owned());
        let path_kind = super::join(path, "kind");
        self.problem(
            crate::Severity::Error,
            &kind_at,
            &path_kind,
            what,
            hint,
            Some(&id),
        );
        let written = super::Written {
            id,
            origin: self.origin(&node.place),
            labels,
            spec: super::Spec::Guard(rules),
            path: path.to_owned(),
            node,
            short: false,
        };
        self.reading.objects.push(std::sync::Arc::new(written));
    }
}

/// Turns spellings that Ambassador takes in every version into ours.
pub(super) fn spellings(kind: Kind, spec: Node) -> Node {
    let has_cors = matches!(kind, Kind::Mapping | Kind::Module) && spec.get("cors").is_some();
    if !has_cors {
        return spec;
    }
    each_entry(&spec, |key, value| match key {
        "cors" => each_entry(&value, cors_list),
        _ => value,
    })
}

/// Turns a list of `cors` that is written as text with commas into a list; Ambassador takes both.
fn cors_list(key: &str, value: Node) -> Node {
    let Some(text) = value.text() else {
        return value;
    };
    match key {
        "origins" | "methods" | "headers" | "exposed_headers" => {
            let item = |part: &str| Node::scalar(part.trim(), false, value.place.clone());
            let parts = text.split(',').filter(|part| !part.trim().is_empty());
            Node::list(parts.map(item).collect(), value.place.clone())
        }
        _ => value,
    }
}

fn with_key(key: &str, value: Node) -> Node {
    let place = value.place.clone();
    let key = Key {
        text: key.to_owned(),
        place: place.clone(),
    };
    Node::map(vec![(key, value)], place)
}

fn each_entry(node: &Node, change: impl Fn(&str, Node) -> Node) -> Node {
    if !node.is_map() {
        return node.clone();
    }
    let change = |(key, value): &(Key, Node)| (key.clone(), change(&key.text, value.clone()));
    Node::map(
        node.entries().iter().map(change).collect(),
        node.place.clone(),
    )
}

fn each_value(node: &Node, change: impl Fn(Node) -> Node) -> Node {
    each_entry(node, |_, value| change(value))
}

fn each_item(node: &Node, change: impl Fn(Node) -> Node) -> Node {
    match &node.value {
        Value::List(items) => Node::list(
            items.iter().cloned().map(change).collect(),
            node.place.clone(),
        ),
        _ => node.clone(),
    }
}

/// Turns the shorthand of a label: `remote_address`, any other text, or `key: { header: name }`.
fn label(node: Node) -> Node {
    let at = node.place.clone();
    let text = |text: &str| Node::scalar(text, false, at.clone());
    if let Some(word) = node.text() {
        return match word {
            "source_cluster" | "destination_cluster" | "remote_address" => {
                with_key(word, with_key("key", text(word)))
            }
            _ => with_key("generic_key", with_key("value", node.clone())),
        };
    }
    let [(key, value)] = node.entries() else {
        return node;
    };
    let header = value.get("header").or_else(|| value.get("header_name"));
    match (key.text.as_str(), header) {
        ("generic_key", _) if value.text().is_some() => {
            with_key("generic_key", with_key("value", value.clone()))
        }
        ("source_cluster" | "destination_cluster" | "remote_address", _) => match value.text() {
            Some(word) => with_key(&key.text, with_key("key", text(word))),
            None => node,
        },
        ("request_headers", _) | (_, None) => node,
        (name, Some(header)) => {
            let entry = |key: &str, value: Node| {
                let text = key.to_owned();
                (
                    Key {
                        text,
                        place: at.clone(),
                    },
                    value,
                )
            };
            let mut entries = vec![
                entry("key", text(name)),
                entry("header_name", header.clone()),
            ];
            if let Some(omit) = value.get("omit_if_not_present") {
                entries.push(entry("omit_if_not_present", omit.clone()));
            }
            with_key("request_headers", Node::map(entries, at.clone()))
        }
    }
}

/// Moves `name: true` from the exact matches to the regular expressions, where it is `name: .*`.
fn presence(entries: &mut Vec<(Key, Node)>, exact: &str, regex: &str) {
    let Some((_, node)) = entries.iter_mut().find(|(key, _)| key.text == exact) else {
        return;
    };
    let place = node.place.clone();
    let is_true = |(_, value): &(Key, Node)| value.bool() == Some(true);
    let (present, rest): (Vec<_>, Vec<_>) = node.entries().iter().cloned().partition(is_true);
    if present.is_empty() {
        return;
    }
    *node = Node::map(rest, place.clone());
    let any = |(key, value): (Key, Node)| (key, Node::scalar(".*", false, value.place));
    let mut added: Vec<(Key, Node)> = present.into_iter().map(any).collect();
    match entries.iter_mut().find(|(key, _)| key.text == regex) {
        Some((_, node)) => {
            let mut all = node.entries().to_vec();
            all.append(&mut added);
            *node = Node::map(all, node.place.clone());
        }
        None => {
            let key = Key {
                text: regex.to_owned(),
                place: place.clone(),
            };
            entries.push((key, Node::map(added, place)));
        }
    }
}

/// Takes `tls: true` as `https://` before the service; the name of a TLSContext stays.
fn originate_tls(entries: &mut Vec<(Key, Node)>) {
    let tls = entries
        .iter()
        .find(|(key, _)| key.text == "tls")
        .and_then(|(_, node)| node.bool());
    let Some(tls) = tls else { return };
    entries.retain(|(key, _)| key.text != "tls");
    for (key, node) in entries {
        let Some(text) = node.text() else { continue };
        if key.text == "service" && tls && !text.contains("://") {
            *node = Node::scalar(&format!("https://{text}"), false, node.place.clone());
        }
    }
}

/// Returns the rules of a FilterPolicy, or nothing when they cannot be read, so that it guards everything.
fn filter_rules(spec: &Node) -> Option<Vec<Rule>> {
    let Value::List(rules) = &spec.get("rules")?.value else {
        return None;
    };
    let glob = |rule: &Node, key: &str| match rule.get(key) {
        None => Some("*".to_owned()),
        Some(glob) => glob.text().map(str::to_owned),
    };
    let rule = |rule: &Node| {
        let filters = rule.get("filters").map(|filters| &filters.value);
        rule.is_map().then_some(())?;
        Some(Rule {
            host: glob(rule, "host")?,
            path: glob(rule, "path")?,
            asks: !matches!(filters, None | Some(Value::List(_)))
                || !rule.get("filters").map_or(&[][..], Node::items).is_empty(),
        })
    };
    rules.iter().map(rule).collect()
}
