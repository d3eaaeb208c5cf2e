//! The checked whole that the rest of the house runs.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::guard::Guard;
use crate::resolver::Resolver;
use crate::{
    Broker, Endpoints, Host, Listener, Mapping, Module, Object, Publish, Service, Subscribe,
    TlsContext, Topic,
};

/// The checked whole: immutable, shared behind an `Arc`, swapped at once.
///
/// Every object in it has passed the checks, alone and together with the others. Lists are in the order of the sources and
/// of the text, so that equal sources give an equal Config; the order means nothing for routing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Requests that look like this go to that service.
    pub mappings: Vec<Arc<Object<Mapping>>>,

    /// Virtual hosts; none means a built-in one for `*` that routes cleartext.
    pub hosts: Vec<Object<Host>>,

    /// Ports of the gateway; none means the address of the command line.
    pub listeners: Vec<Object<Listener>>,

    /// Global settings, the defaults where the user wrote none.
    pub module: Module,

    /// Certificates and rules for TLS.
    pub tls_contexts: Vec<Object<TlsContext>>,

    /// Programs that `up` runs, by `name`.
    pub services: Vec<Object<Service>>,

    /// Topics, by `name`.
    pub topics: Vec<Object<Topic>>,

    /// HTTP routes whose requests become records.
    pub publish: Vec<Object<Publish>>,

    /// Topics whose records become HTTP requests.
    pub subscribe: Vec<Object<Subscribe>>,

    /// Settings of the broker, the defaults where the user wrote none.
    pub broker: Broker,

    /// Objects that decide who may ask and that cannot be asked yet: of what they guard, only Mappings with `bypass_auth`
    /// are served.
    pub guards: Vec<Guard>,

    /// Addresses behind service names.
    pub endpoints: Endpoints,

    /// The DNS names that Services of the type `ExternalName` stand for, by namespace and name of the Service.
    pub external_names: BTreeMap<(String, String), String>,

    /// Resolvers by their names; those that are built in need not be here.
    pub resolvers: BTreeMap<String, Resolver>,

    /// The namespace that this instance stands in; empty means `default`.
    pub namespace: String,

    /// Kubernetes Secrets, by namespace and name.
    pub secrets: BTreeMap<(String, String), Secret>,
}

impl Config {
    /// Returns the TLSContext that an object of this namespace means: one of its own namespace, or of another.
    pub fn tls_context(&self, name: &str, namespace: &str) -> Option<&Object<TlsContext>> {
        let named = |context: &&Object<TlsContext>| context.name == name;
        let own = |context: &&Object<TlsContext>| context.namespace == namespace;
        let mut all = self.tls_contexts.iter().filter(named);
        all.clone().find(own).or_else(|| all.next())
    }

    /// Returns the port whose cleartext requests to a Host are redirected: `redirect_cleartext_from`.
    pub fn redirected_from(&self, host: &Object<Host>) -> Option<u16> {
        match (&host.spec.tls_context, &host.spec.tls) {
            (Some(named), _) => {
                let context = self.tls_context(&named.name, &host.namespace)?;
                context.spec.redirect_cleartext_from
            }
            (None, Some(tls)) => tls.redirect_cleartext_from,
            (None, None) => None,
        }
    }

    /// Returns the Listeners that nobody has written and Hosts ask for: cleartext on `additionalPort` and on
    /// `redirect_cleartext_from`, for the Hosts of one namespace.
    pub fn additional_listeners(&self) -> Vec<Object<Listener>> {
        let mut added: BTreeMap<u16, Object<Listener>> = BTreeMap::new();
        for host in &self.hosts {
            let ports = [host.spec.additional_port(), self.redirected_from(host)];
            for port in ports.into_iter().flatten() {
                if self
                    .listeners
                    .iter()
                    .any(|listener| listener.spec.port == port)
                {
                    continue;
                }
                let listener = added.entry(port).or_insert_with(|| Object {
                    name: format!("insecure-for-{port}"),
                    namespace: host.namespace.clone(),
                    labels: BTreeMap::new(),
                    origin: host.origin.clone(),
                    spec: Listener::insecure(port, self.module.use_proxy_proto),
                });
                // Hosts of two namespaces ask for one port.
                if listener.namespace != host.namespace {
                    listener.spec.host_binding.everywhere();
                }
            }
        }
        added.into_values().collect()
    }

    /// Returns whether two configurations do the same, wherever their objects are written and whichever endpoints their
    /// services have at present.
    pub fn does_the_same(&self, other: &Config) -> bool {
        // Taken apart, so that a new field cannot be forgotten.
        let Config {
            mappings,
            hosts,
            listeners,
            module,
            tls_contexts,
            services,
            topics,
            publish,
            subscribe,
            broker,
            guards,
            endpoints: _,
            external_names,
            resolvers,
            namespace,
            secrets,
        } = self;
        same(mappings, &other.mappings)
            && same(tls_contexts, &other.tls_contexts)
            && same(hosts, &other.hosts)
            && same(listeners, &other.listeners)
            && *module == other.module
            && same(services, &other.services)
            && same(topics, &other.topics)
            && same(publish, &other.publish)
            && same(subscribe, &other.subscribe)
            && *broker == other.broker
            && *guards == other.guards
            && *external_names == other.external_names
            && *resolvers == other.resolvers
            && *namespace == other.namespace
            && *secrets == other.secrets
    }
}

fn same<T: PartialEq, O: Borrow<Object<T>>>(one: &[O], other: &[O]) -> bool {
    let says_the_same = |(a, b): (&O, &O)| {
        kit::aside::let_others();
        let (a, b) = (a.borrow(), b.borrow());
        std::ptr::eq(a, b)
            || (a.name == b.name
                && a.namespace == b.namespace
                && a.labels == b.labels
                && a.spec == b.spec)
    };
    one.len() == other.len() && one.iter().zip(other).all(says_the_same)
}

/// The decoded data of a Kubernetes Secret. Its `Debug` shows no values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// The Secret's type, such as `kubernetes.io/tls`.
    pub kind: String,

    /// The values by their keys.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<&String> = self.data.keys().collect();
        f.debug_struct("Secret")
            .field("kind", &self.kind)
            .field("keys", &keys)
            .finish()
    }
}
