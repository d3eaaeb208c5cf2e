//! The clusters that run. One whose spec did not change keeps its connections and counters from one configuration to
//! the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::endpoints;
use model::mapping::DnsType;
use model::resolver::Resolver;
use model::target::Target;
use model::{Config, Mapping, Object};
use rustls::pki_types::ServerName;
use tls::keep::Originators;
use tokio::runtime::Handle;

use super::care;
use crate::meter::Upstreams;
use crate::upstream::breaker::{Limits, PRIORITIES};
use crate::upstream::cluster::{Cluster, Keepalive, Lookup, Protocol, Records, Source, Spec};
use crate::upstream::discover::{Discovery, consul};
use crate::upstream::tls::Tls;
use crate::upstream::{health, outlier};

const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Envoy's default.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// The clusters of one configuration.
pub(crate) struct Clusters {
    by_spec: HashMap<Spec, Arc<Cluster>>,
    old: HashMap<Spec, Arc<Cluster>>,
    cores: usize,
    meters: Upstreams,
    discovery: Discovery,
    originators: Originators,
}

impl Clusters {
    pub(crate) fn new(cores: usize, discovery: Discovery, runtime: Handle) -> Self {
        Clusters {
            by_spec: HashMap::new(),
            old: HashMap::new(),
            cores,
            meters: Upstreams::default(),
            discovery,
            originators: Originators::new(runtime),
        }
    }

    /// Begins another configuration.
    pub(crate) fn begin(&mut self) {
        self.old = std::mem::take(&mut self.by_spec);
        self.originators.begin();
    }

    /// Ends it: what it does not use any more is forgotten.
    pub(crate) fn finish(&mut self) {
        self.old.clear();
        self.meters
            .keep(self.by_spec.keys().map(|spec| spec.name.as_str()));
        self.discovery.tidy();
        self.originators.finish();
    }

    /// Goes on with a cluster of the configuration before.
    pub(crate) fn keep(&mut self, cluster: &Arc<Cluster>) {
        if !self.by_spec.contains_key(&cluster.spec) {
            self.by_spec.insert(cluster.spec.clone(), cluster.clone());
        }
    }

    /// Returns the namespace and name of the service that only the directory can tell of and nobody has.
    pub(crate) fn untold<'s>(&self, spec: &'s Spec) -> Option<&'s (String, String)> {
        match &spec.source {
            Source::Service {
                service,
                otherwise: None,
                ..
            } if !self.discovery.directory().knows(&service.0, &service.1) => Some(service),
            _ => None,
        }
    }

    /// Returns all clusters that run.
    pub(crate) fn all(&self) -> Vec<Arc<Cluster>> {
        self.by_spec.values().cloned().collect()
    }

    /// Returns the cluster of a Mapping.
    ///
    /// # Errors
    /// Why there is no TLS towards the service, where there must be.
    pub(crate) fn of(
        &mut self,
        config: &Config,
        mapping: &Object<Mapping>,
        target: &Target,
    ) -> Result<Arc<Cluster>, String> {
        let mut target = target.clone();
        let tls = self.tls(config, mapping, &mut target)?;
        let spec = Spec {
            tls,
            ..spec(config, mapping, &target)
        };
        let cluster = match self.by_spec.get(&spec).or_else(|| self.old.get(&spec)) {
            Some(cluster) => cluster.clone(),
            None => {
                let meters = self.meters.of(&spec.name);
                let cluster = Arc::new(Cluster::new(spec.clone(), self.cores, meters));
                self.discovery.follow(&cluster);
                let _runtime = self.discovery.runtime.enter();
                health::keep(&cluster);
                outlier::watch::keep(&cluster);
                cluster
            }
        };
        self.by_spec.insert(spec, cluster.clone());
        Ok(cluster)
    }

    /// Returns how TLS is spoken: with `https://`, or with a TLSContext and no other scheme.
    fn tls(
        &mut self,
        config: &Config,
        mapping: &Object<Mapping>,
        target: &mut Target,
    ) -> Result<Option<Tls>, String> {
        let said = &mapping.spec;
        let cleartext = !target.tls && said.service.contains("://");
        let named = said.tls.as_deref().filter(|_| !cleartext);
        target.tls |= named.is_some();
        if !target.tls {
            return Ok(None);
        }
        let context = match named {
            None => None,
            Some(name) => match config.tls_context(name, &mapping.namespace) {
                None => return Err(format!("there is no TLSContext `{name}`")),
                context => context,
            },
        };
        let originator = self.originators.of(config, context);
        let sni = context.and_then(|context| context.spec.sni.clone());
        let asked = sni.unwrap_or_else(|| asked(config, &target.host, namespace(config, mapping)));
        // An address is asked for by itself; what can be no name is not asked for.
        let name = ServerName::try_from(asked).ok();
        Ok(Some(Tls { originator, name }))
    }
}

/// Returns what a Mapping asks for, apart from TLS.
pub(crate) fn spec(config: &Config, mapping: &Object<Mapping>, target: &Target) -> Spec {
    let (said, module) = (&mapping.spec, &config.module);
    let lookup = Lookup {
        ipv4: said.enable_ipv4.or(module.enable_ipv4).unwrap_or(true),
        ipv6: said.enable_ipv6.or(module.enable_ipv6).unwrap_or(false),
        records: match said.dns_type {
            Some(DnsType::LogicalDns) => Records::Logical,
            Some(DnsType::Srv) => Records::Srv,
            Some(DnsType::StrictDns) | None => Records::Strict,
        },
        ttl_respected: said.respect_dns_ttl,
    };
    let namespace = namespace(config, mapping);
    let service = endpoints::key(&target.host, namespace);
    let zone = care::zone(config).map(Arc::from);
    let source = match (config.resolver(said.resolver.as_deref()), service) {
        (Some(Resolver::Consul(consul)), _) => {
            Source::Consul(consul::question(&consul, &target.host, |name| {
                std::env::var(name).ok()
            }))
        }
        _ if target.ip().is_some() => Source::Told,
        (Some(Resolver::KubernetesService), _) | (_, None) => Source::Dns(lookup),
        (_, Some(service)) if config.external_names.contains_key(&service) => Source::Dns(lookup),
        (Some(Resolver::KubernetesEndpoint), Some(service)) => Source::Service {
            service,
            port: target.port,
            zone,
            otherwise: None,
        },
        (None, Some(_)) if lookup.records == Records::Srv => Source::Dns(lookup),
        (None, Some(service)) => Source::Service {
            service,
            port: target.port,
            zone,
            otherwise: Some(lookup),
        },
    };
    let millis = |said: Option<u64>| said.map(Duration::from_millis);
    let idle = said
        .cluster_idle_timeout_ms
        .or(module.cluster_idle_timeout_ms);
    Spec {
        name: said
            .stats_name
            .clone()
            .unwrap_or_else(|| stats_name(&said.service)),
        host: match &source {
            Source::Consul(question) => question.service.clone(),
            _ => asked(config, &target.host, namespace),
        },
        port: target.port_or_default(),
        protocol: if said.grpc {
            Protocol::Http2
        } else {
            Protocol::Http1
        },
        source,
        connect_timeout: millis(said.connect_timeout_ms).unwrap_or(CONNECT_MAX),
        idle_max: match idle {
            Some(0) => None,
            idle => Some(millis(idle).unwrap_or(IDLE_MAX)),
        },
        age_max: millis(
            said.cluster_max_connection_lifetime_ms
                .or(module.cluster_max_connection_lifetime_ms),
        )
        .filter(|age| !age.is_zero()),
        limits: limits(said, config),
        tls: None,
        keepalive: keepalive(said, config),
        proxy_protocol: said.proxy_protocol,
        proper_case: module.proper_case,
        tag: said.cluster_tag.clone(),
        care: care::of(config, said),
    }
}

fn keepalive(said: &Mapping, config: &Config) -> Option<Keepalive> {
    let module = || {
        let module = config.module.keepalive.as_ref()?;
        Some(Keepalive {
            time: module.time,
            interval: module.interval,
            probes: module.probes,
        })
    };
    let own = said.keepalive.as_ref().map(|own| Keepalive {
        time: own.idle_time,
        interval: own.interval,
        probes: own.probes,
    });
    own.or_else(module)
}

fn limits(said: &Mapping, config: &Config) -> [Limits; PRIORITIES] {
    let module = &config.module.circuit_breakers;
    let all = said.circuit_breakers.as_ref().or(module.as_ref());
    let mut limits = [Limits::default(); PRIORITIES];
    for one in all.into_iter().flatten() {
        let limits = &mut limits[one.priority as usize];
        let set = |place: &mut u64, said: Option<u32>| {
            if let Some(said) = said {
                *place = said.into();
            }
        };
        set(&mut limits.connections_max, one.max_connections);
        set(&mut limits.pending_max, one.max_pending_requests);
        set(&mut limits.requests_max, one.max_requests);
        set(&mut limits.retries_max, one.max_retries);
    }
    limits
}

/// Returns the namespace of the services that a Mapping names without one.
fn namespace<'c>(config: &'c Config, mapping: &'c Object<Mapping>) -> &'c str {
    let own = config
        .module
        .use_ambassador_namespace_for_service_resolution;
    match (own, config.namespace.as_str()) {
        (false, _) => &mapping.namespace,
        (true, "") => "default",
        (true, namespace) => namespace,
    }
}

/// Returns the name that DNS and the service itself are asked for.
fn asked(config: &Config, name: &str, namespace: &str) -> String {
    let service = endpoints::key(name, namespace);
    match service.and_then(|service| config.external_names.get(&service)) {
        Some(external) => external.clone(),
        None => host(name, namespace),
    }
}

/// A bare name means a service of the Mapping's own namespace, which for `default` is also what plain DNS calls so.
fn host(host: &str, namespace: &str) -> String {
    let bare = !host.contains(['.', ':']) && host != "localhost";
    if bare && namespace != "default" {
        format!("{host}.{namespace}")
    } else {
        host.to_owned()
    }
}

fn stats_name(service: &str) -> String {
    service
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}
