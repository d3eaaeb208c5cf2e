//! From text to objects: which documents and objects there are, each read alone.

mod ambassador;
mod annotation;
mod kubernetes;
mod short;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::check;
use crate::config::Secret;
use crate::resolver::{ConsulResolver, KubernetesEndpointResolver, KubernetesServiceResolver};
use crate::selector::Selector;
use crate::shape::{Misshape, shape};
use crate::support;
use crate::tree::{self, Node, Place};
use crate::{
    Broker, Host, Listener, Mapping, Module, Object, Origin, Problem, Publish, Service, Severity,
    Subscribe, TlsContext, Topic,
};

/// A text of the configuration, such as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file's path as the user named it, or another name.
    pub name: Arc<str>,

    /// What stands in it.
    pub text: Arc<str>,
}

/// What decides which objects count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// This instance's id: objects for others are passed over.
    pub ambassador_id: String,

    /// Whether a Host takes Mappings that have one of the labels it asks for, instead of all of them.
    pub loose_selectors: bool,
    /// The namespace that this instance stands in (`AMBASSADOR_NAMESPACE`).
    pub namespace: String,

    /// Whether objects of other namespaces are passed over (`AMBASSADOR_SINGLE_NAMESPACE`).
    pub single_namespace: bool,

    /// What the labels of Kubernetes-style objects must be like; others are passed over (`AMBASSADOR_LABEL_SELECTOR`).
    pub labels: Selector,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ambassador_id: "default".to_owned(),
            loose_selectors: false,
            namespace: "default".to_owned(),
            single_namespace: false,
            labels: Selector::default(),
        }
    }
}

/// What one source holds.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Objects that are good by themselves.
    pub objects: Vec<Arc<Written>>,

    /// Objects that are there but refused.
    pub refused: Vec<Id>,

    /// Whether there are documents or objects of which not even the name could be told.
    pub unreadable: bool,

    /// Everything that was found.
    pub problems: Vec<Problem>,
}

/// What an object is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Its kind.
    pub kind: Kind,

    /// Its namespace.
    pub namespace: String,

    /// Its name.
    pub name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}.{}", self.kind, self.name, self.namespace)
    }
}

/// The kinds that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is documented where its struct is")]
pub enum Kind {
    Mapping,
    Host,
    Listener,
    Module,
    TLSContext,
    Service,
    Topic,
    Publish,
    Subscribe,
    Broker,
    KubernetesServiceResolver,
    KubernetesEndpointResolver,
    ConsulResolver,
    Secret,
    KubernetesService,
    Endpoints,
    EndpointSlice,
    AuthService,
    FilterPolicy,
    WebApplicationFirewallPolicy,
}

impl Kind {
    /// Returns whether Mappings name it in `resolver`.
    pub(crate) fn is_resolver(self) -> bool {
        matches!(
            self,
            Kind::KubernetesServiceResolver
                | Kind::KubernetesEndpointResolver
                | Kind::ConsulResolver
        )
    }
}

/// An object that is good by itself.
#[derive(Debug, PartialEq)]
pub struct Written {
    /// What it is known by.
    pub id: Id,

    /// Where it was written.
    pub origin: Origin,

    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) spec: Spec,

    /// The spec's tree and its path in the document, for the places of problems that are found later.
    pub(crate) node: Node,
    pub(crate) path: String,

    /// Whether it was written in the short spelling of `nuncio.yaml`.
    pub(crate) short: bool,
}

/// What was written, by kind.
#[derive(Debug, PartialEq)]
pub(crate) enum Spec {
    /// Shared with every Config that has it.
    Mapping(Arc<Object<Mapping>>),
    Host(Box<Host>),
    Listener(Listener),
    Module(Box<Module>),
    TLSContext(Box<TlsContext>),
    Service(Service),
    Topic(Topic),
    Publish(Publish),
    Subscribe(Subscribe),
    Broker(Broker),
    KubernetesServiceResolver(KubernetesServiceResolver),
    KubernetesEndpointResolver(KubernetesEndpointResolver),
    ConsulResolver(ConsulResolver),
    Secret(Secret),
    KubernetesService(kubernetes::Service),
    Endpoints(kubernetes::Endpoints),
    EndpointSlice(kubernetes::Endpoints),
    /// Decides who may ask, and cannot be asked. The rules are those of a [`crate::guard::Guard`].
    Guard(Option<Vec<crate::guard::Rule>>),
}

pub(crate) use ambassador::OWN_VERSION;
pub(crate) use kubernetes::assemble;

/// Something that a check found, by the path inside the object's spec.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) path: String,
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl Finding {
    pub(crate) fn error(path: &str, what: impl Into<String>) -> Finding {
        let (path, what) = (path.to_owned(), what.into());
        Finding {
            severity: Severity::Error,
            path,
            what,
            hint: None,
        }
    }

    pub(crate) fn warning(path: &str, what: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Warning,
            ..Finding::error(path, what)
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

impl Written {
    /// Returns whether two objects say the same, wherever they stand.
    pub fn says_the_same(&self, other: &Written) -> bool {
        let same = match (&self.spec, &other.spec) {
            (Spec::Mapping(this), Spec::Mapping(that)) => this.spec == that.spec,
            (this, that) => this == that,
        };
        same && self.id == other.id && self.labels == other.labels
    }

    /// Gives a finding its place in the text.
    pub(crate) fn problem(&self, finding: Finding) -> Problem {
        let place = self.node.deepest(&finding.path).place.clone();
        Problem {
            severity: finding.severity,
            origin: Origin {
                file: self.origin.file.clone(),
                line: place.line,
                column: place.column,
            },
            span: place.span,
            object: Some(self.id.to_string()),
            path: join(&self.path, &finding.path),
            what: finding.what,
            hint: finding.hint,
        }
    }
}

pub(crate) fn join(base: &str, path: &str) -> String {
    match (base, path) {
        ("", path) => path.to_owned(),
        (base, "") => base.to_owned(),
        (base, path) if path.starts_with('[') => format!("{base}{path}"),
        (base, path) => format!("{base}.{path}"),
    }
}

/// Reads one source: every object alone, every problem at once.
pub fn read(source: &Source, options: &Options) -> Reading {
    let reading = Reading::default();
    let mut reader = Reader {
        file: source.name.clone(),
        text: &source.text,
        options,
        reading,
        names: BTreeMap::new(),
        foreign: BTreeSet::new(),
    };
    for document in tree::documents(&source.text) {
        kit::aside::let_others();
        match document {
            Ok(node) => reader.document(node),
            Err(unreadable) => {
                reader.reading.unreadable = true;
                let tree::Unreadable { place, what, hint } = unreadable;
                reader.problem(Severity::Error, &place, "", what, hint, None);
            }
        }
    }
    reader.reading
}

/// Collects what one source holds.
struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
    options: &'a Options,
    reading: Reading,
    /// How often each derived name was given, so that they stay apart.
    names: BTreeMap<(Kind, String), u32>,
    /// Kinds of others that were passed over, each told of once.
    foreign: BTreeSet<(String, String)>,
}

/// An object whose kind and name are known, with its spec still a tree.
struct Draft {
    id: Id,
    labels: BTreeMap<String, String>,
    place: Place,
    node: Node,
    path: String,
    short: bool,
}

impl Reader<'_> {
    fn document(&mut self, node: Node) {
        if !node.is_map() {
            self.reading.unreadable = true;
            let hint = "write `routes:`, `services:` and so on, or Kubernetes objects".to_owned();
            let what = "a document must be a map".to_owned();
            self.problem(Severity::Error, &node.place, "", what, Some(hint), None);
        } else if node.get("kind").is_some() || node.get("apiVersion").is_some() {
            self.object(node, "");
        } else {
            self.short_spelling(&node);
        }
    }

    /// Makes an object of a draft, if it is good by itself.
    fn take<T: DeserializeOwned>(&mut self, draft: Draft, wrap: impl FnOnce(T) -> Spec) {
        let support = support::findings(draft.id.kind, &draft.node);
        match shape::<T>(&draft.node, &draft.path) {
            Ok(spec) => self.finish(draft, wrap(spec), support),
            Err(misshapes) => self.refuse(draft.id, misshapes),
        }
    }

    fn finish(&mut self, draft: Draft, spec: Spec, mut findings: Vec<Finding>) {
        let Draft {
            id,
            labels,
            place,
            node,
            path,
            short,
        } = draft;
        let origin = self.origin(&place);
        let mut written = Written {
            id,
            origin,
            labels,
            spec,
            node,
            path,
            short,
        };
        findings.extend(check::alone(&written));
        if let Spec::Mapping(mapping) = &mut written.spec {
            Arc::make_mut(mapping).spec.normalise();
        }
        let refused = findings
            .iter()
            .any(|finding| finding.severity == Severity::Error);
        let problems = findings.into_iter().map(|finding| written.problem(finding));
        self.reading.problems.extend(problems);
        match refused {
            true => self.reading.refused.push(written.id),
            false => self.reading.objects.push(Arc::new(written)),
        }
    }

    fn refuse(&mut self, id: Id, misshapes: Vec<Misshape>) {
        for Misshape {
            place,
            path,
            what,
            hint,
        } in misshapes
        {
            self.problem(Severity::Error, &place, &path, what, hint, Some(&id));
        }
        self.reading.refused.push(id);
    }

    /// Returns whether an object is for this instance.
    fn ours(&self, spec: &Node) -> bool {
        let Some(said) = spec
            .get("ambassador_id")
            .or_else(|| spec.get("ambassadorId"))
        else {
            return self.options.ambassador_id == "default";
        };
        let ours = |id: &str| {
            // Ambassador's conversion from v2 to v3alpha1 puts this in front.
            let id = id
                .strip_prefix("--apiVersion-v3alpha1-only--")
                .unwrap_or(id);
            id == self.options.ambassador_id || id == "_automatic_"
        };
        match said.text() {
            Some(id) => ours(id),
            None => said.items().is_empty() || said.items().iter().filter_map(Node::text).any(ours),
        }
    }

    fn origin(&self, place: &Place) -> Origin {
        Origin {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
        }
    }

    fn problem(
        &mut self,
        severity: Severity,
        place: &Place,
        path: &str,
        what: String,
        hint: Option<String>,
        id: Option<&Id>,
    ) {
        self.reading.problems.push(Problem {
            severity,
            origin: self.origin(place),
            span: place.span.clone(),
            object: id.map(Id::to_string),
            path: path.to_owned(),
            what,
            hint,
        });
    }

    /// Notes a problem that costs an object of which not even the name is known.
    fn nameless(&mut self, place: &Place, path: &str, what: &str, hint: Option<String>) {
        self.reading.unreadable = true;
        self.problem(Severity::Error, place, path, what.to_owned(), hint, None);
    }

    fn warn(&mut self, place: &Place, path: &str, what: String, id: Option<&Id>) {
        self.problem(Severity::Warning, place, path, what, None, id);
    }
}
