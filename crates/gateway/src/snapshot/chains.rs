//! Which certificates answer for which names: from Hosts and TLSContexts to what a listener shakes hands with.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::tls_context::TlsContext;
use model::{Config, Host, Listener, Object, Origin, Problem, Severity};
use tls::keep::Terminators;
use tls::material::Context;
use tls::ordered::Ordered;
use tls::server::Terminator;

use crate::route::{Authority, Glob, Names, binds, split_port};

/// The Secret that answers where nobody has written a Host, as in Ambassador.
const FALLBACK: &str = "fallback-self-signed-cert";

/// What one name is answered with.
pub(crate) struct Chain {
    /// The glob over names that clients ask for.
    pub(crate) name: String,
    pub(crate) terminator: Arc<Terminator>,
}

/// What a listener answers clients with, by the name that they ask for.
pub(crate) struct Chains {
    names: Names<Arc<Chain>>,
    pub(crate) all: Vec<Arc<Chain>>,
}

impl Chains {
    /// Returns what answers for a name; a client that asks for none gets what stands for all names.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<&Arc<Chain>> {
        self.names.best(&Authority::new(name.unwrap_or_default()))
    }

    /// Gathers what a listener answers with; `None` where it speaks no TLS, or has nothing to speak it with.
    pub(crate) fn build(
        config: &Config,
        listener: Option<&Object<Listener>>,
        terminators: &mut Terminators,
        ordered: Option<&Arc<Ordered>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        if !listener.is_none_or(|listener| listener.spec.speaks_tls()) {
            return None;
        }
        let mut all = Vec::new();
        for (name, wanted) in wanted(config, listener, ordered) {
            // Two listeners may take different Hosts of one name.
            let key = format!("{name} {}", wanted.objects.join(" "));
            let place = wanted.place;
            let terminator = terminators.of(config, &key, wanted.contexts);
            if let Some(why) = terminator.problem() {
                let then = match terminator.config() {
                    Some(_) => "what was there before stays in use",
                    None => "clients who ask for it are refused until that is mended",
                };
                problems.push(place.problem(format!("TLS for `{name}`: {why}; {then}")));
            }
            all.push(Arc::new(Chain { name, terminator }));
        }
        if all.is_empty() {
            return None;
        }
        let named = all
            .iter()
            .map(|chain| (Glob::new(&chain.name), chain.clone()));
        Some(Chains {
            names: Names::collect(named),
            all,
        })
    }
}

/// Returns what is wrong with the certificates of a configuration, for somebody who does not run it.
pub(crate) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, wanted) in wanted(config, None, None) {
        if let Err(why) = Terminator::try_out(config, &wanted.contexts) {
            problems.push(wanted.place.problem(format!("TLS for `{name}`: {why}")));
        }
    }
    problems
}

/// What is written about one name.
struct Wanted {
    contexts: Vec<Context>,
    /// The objects that say it.
    objects: Vec<String>,
    /// The first of them.
    place: Place,
}

/// Where something is written.
struct Place {
    origin: Origin,
    object: String,
    path: &'static str,
}

impl Place {
    fn of<T>(kind: &str, object: &Object<T>, path: &'static str) -> Self {
        Place {
            origin: object.origin.clone(),
            object: format!("{kind} {}", object.full_name()),
            path,
        }
    }

    fn problem(&self, what: String) -> Problem {
        Problem {
            severity: Severity::Error,
            origin: self.origin.clone(),
            span: 0..0,
            object: Some(self.object.clone()),
            path: self.path.to_owned(),
            what,
            hint: None,
        }
    }
}

/// Returns what is written about each name that a listener answers for; without a listener about every name.
fn wanted(
    config: &Config,
    listener: Option<&Object<Listener>>,
    ordered: Option<&Arc<Ordered>>,
) -> BTreeMap<String, Wanted> {
    let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
    let mut add = |name: &str, context: Context, place: Place| {
        let name = bare(name);
        let object = place.object.clone();
        let wanted = all.entry(name).or_insert_with(|| Wanted {
            contexts: Vec::new(),
            objects: Vec::new(),
            place,
        });
        if !wanted.objects.contains(&object) {
            wanted.objects.push(object);
            wanted.contexts.push(context);
        }
    };
    let mut hosts: Vec<&Object<Host>> = config
        .hosts
        .iter()
        .filter(|host| listener.is_none_or(|listener| binds(listener, host)))
        .collect();
    hosts.sort_by_key(|host| host.full_name());
    for host in &hosts {
        if let Some((context, place)) = of_host(config, host, ordered) {
            add(&host.spec.hostname, context, place);
        }
    }
    let mut contexts: Vec<&Object<TlsContext>> = config.tls_contexts.iter().collect();
    contexts.sort_by_key(|context| context.full_name());
    for context in contexts {
        let said = Context::of(context);
        if !said.names_certificate() {
            continue;
        }
        for name in &context.spec.hosts {
            let glob = Glob::new(&bare(name));
            let meant =
                |host: &&Object<Host>| Glob::new(&host.spec.hostname).overlaps_but_for_port(&glob);
            if config.hosts.is_empty() || hosts.iter().any(meant) {
                add(
                    name,
                    said.clone(),
                    Place::of("TLSContext", context, "spec.hosts"),
                );
            }
        }
    }
    let namespace = match config.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    let fallback = (namespace.to_owned(), FALLBACK.to_owned());
    if config.hosts.is_empty() && all.is_empty() && config.secrets.contains_key(&fallback) {
        let place = Place {
            origin: Origin::source("Secret"),
            object: format!("Secret {FALLBACK}.{namespace}"),
            path: "",
        };
        let wanted = Wanted {
            objects: vec![place.object.clone()],
            contexts: vec![Context {
                spec: TlsContext::default(),
                namespace: namespace.to_owned(),
                secret: Some(fallback),
            }],
            place,
        };
        all.insert("*".to_owned(), wanted);
    }
    all
}

/// Returns what a Host itself says about TLS.
fn of_host(
    config: &Config,
    host: &Object<Host>,
    ordered: Option<&Arc<Ordered>>,
) -> Option<(Context, Place)> {
    let said = &host.spec;
    let written = |spec: TlsContext| Context {
        spec,
        namespace: host.namespace.clone(),
        secret: None,
    };
    let (mut context, path) = match (&said.tls_context, &said.tls) {
        (Some(named), _) => {
            // Of one that is unknown, `model` has told already.
            let found = config.tls_context(&named.name, &host.namespace);
            let context = found.map_or_else(|| written(TlsContext::default()), Context::of);
            (context, "spec.tlsContext")
        }
        (None, None) if said.tls_secret.is_none() && said.acme().is_none() => return None,
        (None, tls) => {
            let spec = tls.as_ref().map(|tls| tls.context());
            (written(spec.unwrap_or_default()), "spec.tls")
        }
    };
    let path = match &said.tls_secret {
        None => path,
        Some(secret) => {
            let namespace = secret.namespace.as_ref().unwrap_or(&host.namespace);
            context.secret = Some((namespace.clone(), secret.name.clone()));
            "spec.tlsSecret"
        }
    };
    let path = match said.acme() {
        Some((_, authority)) if !context.has_certificate(config) => {
            let file = ordered?.file(authority, &said.bare_name());
            context.take_file(&file.to_string_lossy());
            "spec.acmeProvider"
        }
        _ => path,
    };
    Some((context, Place::of("Host", host, path)))
}

/// Returns a name as clients ask for it: in lower case, without a port.
fn bare(name: &str) -> String {
    split_port(name).to_ascii_lowercase()
}
