//! The short spelling, `nuncio.yaml`: the same resources with the same field names, their names derived.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Draft, Id, Kind, Reader, Spec};
use crate::publish::Route;
use crate::shape::{alternatives, nearest};
use crate::target::Target;
use crate::tree::{Node, Place};
use crate::{Host, Mapping, Object};

/// The keys of the short spelling.
pub(crate) const SECTIONS: [&str; 11] = [
    "services",
    "routes",
    "topics",
    "publish",
    "subscribe",
    "broker",
    "hosts",
    "listeners",
    "module",
    "resolvers",
    "tls_contexts",
];

impl Reader<'_> {
    pub(super) fn short_spelling(&mut self, document: &Node) {
        let mut seen: Vec<&str> = Vec::new();
        for (key, node) in document.entries() {
            let section = key.text.as_str();
            if seen.contains(&section) {
                let what = format!("the key `{section}` stands here twice");
                self.nameless(&key.place, section, &what, None);
                continue;
            }
            seen.push(section);
            if node.is_null() {
                continue; // nothing said
            }
            match section {
                "services" => self.named(Kind::Service, section, node),
                "topics" => self.named(Kind::Topic, section, node),
                "resolvers" => self.named(Kind::ConsulResolver, section, node),
                "tls_contexts" => self.named(Kind::TLSContext, section, node),
                "routes" => self.listed(Kind::Mapping, section, node),
                "publish" => self.listed(Kind::Publish, section, node),
                "subscribe" => self.listed(Kind::Subscribe, section, node),
                "hosts" => self.listed(Kind::Host, section, node),
                "listeners" => self.listed(Kind::Listener, section, node),
                "broker" => self.single(Kind::Broker, section, node),
                "module" => self.single(Kind::Module, section, node),
                _ => {
                    let what = format!("unknown section `{section}`");
                    let hint = match nearest(section, &["apiVersion", "kind"]) {
                        Some(word) => format!("did you mean `{word}`?"),
                        None => alternatives(section, &SECTIONS),
                    };
                    self.nameless(&key.place, section, &what, Some(hint));
                }
            }
        }
    }

    /// Takes a section whose keys are the objects' names.
    fn named(&mut self, kind: Kind, section: &str, node: &Node) {
        if !node.is_map() {
            let hint = format!("write `{section}: {{ name: {{ … }} }}`");
            return self.nameless(&node.place, section, "expected a map by name", Some(hint));
        }
        for (key, node) in node.entries() {
            let path = format!("{section}.{}", key.text);
            // `orders.placed:` with nothing behind it takes the defaults.
            let node = match node.is_null() {
                true => Node::map(Vec::new(), key.place.clone()),
                false => node.clone(),
            };
            self.short_object(kind, key.text.clone(), &key.place, node, path);
        }
    }

    /// Takes a section that is a list; the names are derived from what the items say.
    fn listed(&mut self, kind: Kind, section: &str, node: &Node) {
        if node.text().is_some() || node.is_map() {
            let hint = "begin each item with `- `".to_owned();
            return self.nameless(&node.place, section, "expected a list", Some(hint));
        }
        for (index, item) in node.items().iter().enumerate() {
            let path = format!("{section}[{index}]");
            if !item.is_map() {
                self.nameless(&item.place, &path, "expected a map of fields", None);
                continue;
            }
            let name = self.derive_name(kind, item);
            let item = without(item, "name");
            self.short_object(kind, name, &item.place.clone(), item, path);
        }
    }

    fn single(&mut self, kind: Kind, section: &str, node: &Node) {
        let name = if kind == Kind::Module {
            "ambassador"
        } else {
            section
        };
        self.short_object(
            kind,
            name.to_owned(),
            &node.place,
            node.clone(),
            section.to_owned(),
        );
    }

    fn short_object(&mut self, kind: Kind, name: String, place: &Place, node: Node, path: String) {
        if !self.ours(&node) && node.get("ambassador_id").is_some() {
            return;
        }
        let id = Id {
            kind,
            namespace: "default".to_owned(),
            name,
        };
        let draft = Draft {
            id,
            labels: BTreeMap::new(),
            place: place.clone(),
            node,
            path,
            short: true,
        };
        self.take_kind(draft);
    }

    /// Reads the spec of a kind of ours or of Ambassador's.
    pub(super) fn take_kind(&mut self, mut draft: Draft) {
        let short = draft.short;
        draft.node = super::ambassador::spellings(draft.id.kind, draft.node);
        match draft.id.kind {
            Kind::Mapping => {
                let (name, namespace) = (draft.id.name.clone(), draft.id.namespace.clone());
                let (labels, origin) = (draft.labels.clone(), self.origin(&draft.place));
                self.take(draft, |mut spec: Mapping| {
                    // In the short spelling a route is for every host unless it says otherwise; no labels could select it.
                    if short && spec.host.is_none() {
                        spec.hostname.get_or_insert_with(|| "*".to_owned());
                    }
                    Spec::Mapping(Arc::new(Object {
                        name,
                        namespace,
                        labels,
                        origin,
                        spec,
                    }))
                });
            }
            Kind::Host => {
                let loose = self.options.loose_selectors;
                self.take(draft, |mut spec: Host| {
                    if loose {
                        spec.loosen();
                    }
                    Spec::Host(Box::new(spec))
                });
            }
            Kind::Listener => self.take(draft, Spec::Listener),
            Kind::Module => self.take(draft, |spec| Spec::Module(Box::new(spec))),
            Kind::TLSContext => self.take(draft, |spec| Spec::TLSContext(Box::new(spec))),
            Kind::Service => self.take(draft, Spec::Service),
            Kind::Topic => self.take(draft, Spec::Topic),
            Kind::Publish => self.take(draft, Spec::Publish),
            Kind::Subscribe => self.take(draft, Spec::Subscribe),
            Kind::Broker => self.take(draft, Spec::Broker),
            // Told and taken where their kind was seen.
            Kind::AuthService | Kind::FilterPolicy | Kind::WebApplicationFirewallPolicy => (),
            Kind::KubernetesServiceResolver => self.take(draft, Spec::KubernetesServiceResolver),
            Kind::KubernetesEndpointResolver => self.take(draft, Spec::KubernetesEndpointResolver),
            Kind::ConsulResolver => self.take(draft, Spec::ConsulResolver),
            Kind::Secret | Kind::KubernetesService | Kind::Endpoints | Kind::EndpointSlice => {
                self.kubernetes_object(draft);
            }
        }
    }

    /// Derives a name that depends on what the item says, not on where it stands, and is unlike the others'.
    fn derive_name(&mut self, kind: Kind, item: &Node) -> String {
        let text = |field: &str| item.get(field).and_then(Node::text).unwrap_or_default();
        let host = |field: &str| match Target::parse(text(field)) {
            Ok(target) => target.host,
            Err(_) => text(field).to_owned(),
        };
        let said = text("name");
        let name = match kind {
            _ if !said.is_empty() => said.to_owned(),
            Kind::Mapping => words(&[text("method"), text("prefix"), text("hostname")]),
            Kind::Publish => match Route::parse(text("route")) {
                Ok(route) => words(&[
                    &route.method,
                    text("route").trim_start_matches(&route.method),
                ]),
                Err(_) => words(&[text("route")]),
            },
            Kind::Subscribe => words(&[text("topic"), &host("service"), text("path")]),
            Kind::Host => words(&[text("hostname")]),
            Kind::Listener => words(&["port", text("port")]),
            _ => words(&[]),
        };
        let given = self.names.entry((kind, name.clone())).or_insert(0);
        *given += 1;
        match *given {
            1 => name,
            _ if !said.is_empty() => name, // the user's own names may not repeat, which is told later
            again => format!("{name}-{again}"),
        }
    }
}

/// Joins the words in texts by `-`, in lower case; dots stay.
fn words(texts: &[&str]) -> String {
    let mut name = String::new();
    for c in texts.iter().flat_map(|text| text.chars().chain([' '])) {
        match c {
            c if c.is_ascii_alphanumeric() || c == '.' => name.push(c.to_ascii_lowercase()),
            _ if name.is_empty() || name.ends_with('-') => (),
            _ => name.push('-'),
        }
    }
    let name = name.trim_matches(['-', '.']);
    match name {
        "" => "root".to_owned(),
        name => name.chars().take(200).collect(),
    }
}

fn without(node: &Node, key: &str) -> Node {
    let entries = node
        .entries()
        .iter()
        .filter(|(known, _)| known.text != key)
        .cloned()
        .collect();
    Node::map(entries, node.place.clone())
}
