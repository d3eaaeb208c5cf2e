//! What a configuration takes over from the one before: a route about which nothing has changed is not built again, so
//! that a change costs what has changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use model::config::Secret;
use model::guard::Guard;
use model::resolver::Resolver;
use model::{Config, Mapping, Module, Object, Problem, TlsContext};

use super::{Added, Route};
use crate::route::Patterns;

/// The routes of the present configuration, and of the one before while the present one is built.
#[derive(Default)]
pub(crate) struct Kept {
    pub(super) patterns: Patterns,
    around: Option<Around>,
    before: HashMap<String, Built>,
    now: HashMap<String, Built>,
}

/// A route with what it was built from.
pub(super) struct Built {
    mapping: Arc<Object<Mapping>>,
    /// With the headers of its group, where it has one.
    added: Option<Added>,
    pub(super) route: Arc<Route>,
    /// What was found when it was built.
    pub(super) problems: Vec<Problem>,
}

/// What routes are built from besides their own Mapping.
#[derive(PartialEq)]
struct Around {
    module: Module,
    secrets: BTreeMap<(String, String), Secret>,
    guards: Vec<Guard>,
    external_names: BTreeMap<(String, String), String>,
    resolvers: BTreeMap<String, Resolver>,
    namespace: String,
    tls_contexts: Vec<Object<TlsContext>>,
}

impl Around {
    /// Every part of the configuration is named here, so that nobody adds one without saying whether routes depend on it.
    fn of(config: &Config) -> Self {
        let Config {
            module,
            secrets,
            guards,
            external_names,
            resolvers,
            namespace,
            tls_contexts,
            endpoints: _, // clusters follow them by themselves
            mappings: _,  // each compared alone
            hosts: _,     // these make the table
            listeners: _,
            publish: _, // built anew each time
            services: _,
            topics: _,
            subscribe: _,
            broker: _,
        } = config;
        Around {
            module: module.clone(),
            secrets: of_services(config, secrets),
            guards: guards.clone(),
            external_names: external_names.clone(),
            resolvers: resolvers.clone(),
            namespace: namespace.clone(),
            tls_contexts: tls_contexts.clone(),
        }
    }
}

/// Returns the Secrets that routes depend on: those of TLSContexts that Mappings name. Certificates for clients come and go
/// without another route.
fn of_services(
    config: &Config,
    secrets: &BTreeMap<(String, String), Secret>,
) -> BTreeMap<(String, String), Secret> {
    let named: HashSet<&str> = config
        .mappings
        .iter()
        .filter_map(|mapping| mapping.spec.tls.as_deref())
        .collect();
    let contexts = config
        .tls_contexts
        .iter()
        .filter(|context| named.contains(&*context.name));
    let keys = contexts.flat_map(|context| {
        let said = &context.spec;
        let all = [&said.secret, &said.ca_secret, &said.crl_secret];
        all.into_iter()
            .flatten()
            .map(|name| said.secret_key(name, &context.namespace))
    });
    keys.filter_map(|(namespace, name)| {
        let key = (namespace.to_owned(), name.to_owned());
        let secret = secrets.get(&key)?.clone();
        Some((key, secret))
    })
    .collect()
}

impl Kept {
    /// Begins another configuration.
    pub(crate) fn begin(&mut self, config: &Config) {
        let around = Around::of(config);
        self.before = std::mem::take(&mut self.now);
        if self.around.as_ref() != Some(&around) {
            self.before.clear();
        }
        self.around = Some(around);
        self.patterns.begin();
    }

    /// Ends it: what it does not use any more is forgotten.
    pub(crate) fn finish(&mut self) {
        self.before = HashMap::new();
        self.patterns.finish();
    }

    /// Returns the route of a Mapping if it is there already, with what was told about it.
    pub(super) fn find(
        &mut self,
        mapping: &Arc<Object<Mapping>>,
        added: Option<&Added>,
    ) -> Option<&Built> {
        let name = mapping.full_name();
        let same = |built: &Built| {
            (Arc::ptr_eq(&built.mapping, mapping) || *built.mapping == **mapping)
                && built.added.as_ref() == added
        };
        if let Some(built) = self.before.remove(&name).filter(same) {
            self.now.insert(name.clone(), built);
        }
        self.now.get(&name).filter(|built| same(built))
    }

    /// Keeps a route that was built.
    pub(super) fn put(
        &mut self,
        mapping: &Arc<Object<Mapping>>,
        added: Option<Added>,
        route: Arc<Route>,
        problems: Vec<Problem>,
    ) {
        let built = Built {
            mapping: mapping.clone(),
            added,
            route,
            problems,
        };
        self.now.insert(mapping.full_name(), built);
    }
}
