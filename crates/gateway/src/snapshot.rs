//! A configuration, compiled: what one listener serves, ready to be asked by its requests. It never changes; the next
//! configuration makes another one.

mod added;
mod care;
pub(crate) mod chains;
mod clusters;
mod kept;
mod routes;
pub(crate) mod unbuilt;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use kit::aside::let_others;
use model::listener::SecurityModel;
use model::mapping::Priority;
use model::module::UnderscoresAction;
use model::{Config, Listener, Mapping, Module, Object, Origin, Problem, Severity};
use tls::keep::Terminators;
use tls::ordered::Ordered;

use crate::backend::{Backend, Handler};
use crate::format::Needs;
use crate::listener::head::HeadLimits;
use crate::meter::{FrontMeters, Meters, RouteMeters};
use crate::policy::HostChange;
use crate::policy::address::AddressRules;
use crate::policy::client_cert::ClientCert;
use crate::policy::compress::{self, Compression};
use crate::policy::cors::Cors;
use crate::policy::errors::Overrides;
use crate::policy::grpc::Translated;
use crate::policy::guards::Guards;
use crate::policy::headers::HeaderChanges;
use crate::policy::lines::Lines;
use crate::policy::probes::Probes;
use crate::policy::retry::Retry;
use crate::route::path::Rules as PathRules;
use crate::route::{Table, Target};
use crate::upstream::balance::key::Key;

pub(crate) use added::Added;
pub(crate) use chains::{Chain, Chains};
pub(crate) use clusters::{Clusters, spec};
pub(crate) use kept::Kept;

/// Largest request head where the Module does not say it.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// No limit, in numbers that a clock can still add.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Header lines of one request, every cookie of HTTP/2 counted alone.
const FIELDS_MAX: usize = 100;

/// What one listener serves.
pub(crate) struct Front {
    pub(crate) table: Table,
    /// By the route's id in the table.
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) settings: Settings,
    pub(crate) security: SecurityModel,
    /// What clients who speak TLS are answered with; nothing where that is not spoken.
    pub(crate) chains: Option<Chains>,
    /// What authorities are answered with; nothing where no Host orders certificates.
    pub(crate) ordered: Option<Arc<Ordered>>,
    /// Streams that one HTTP/2 connection may have open, where it is said.
    pub(crate) streams_max: Option<u32>,
    /// Connections begin with the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// Who would have to be asked.
    pub(crate) guards: Guards,
    /// Trusted HTTP hops in front.
    pub(crate) trusted_hops: u32,
    pub(crate) port: u16,
    pub(crate) meters: Arc<FrontMeters>,
}

/// What the Module says about every request.
pub(crate) struct Settings {
    pub(crate) server: HeaderValue,
    pub(crate) envoy_headers: bool,
    /// Whether refusals say why in a header.
    pub(crate) reason_told: bool,
    pub(crate) request_id_kept: bool,
    pub(crate) http10: bool,
    pub(crate) underscores: UnderscoresAction,
    pub(crate) path: PathRules,
    pub(crate) head: HeadLimits,
    pub(crate) matching_port_stripped: bool,
    pub(crate) idle_max: Option<Duration>,
    pub(crate) addresses: AddressRules,
    /// What services are told of clients' certificates.
    pub(crate) client_cert: ClientCert,
    pub(crate) errors: Option<Arc<Overrides>>,
    pub(crate) compression: Option<Compression>,
    /// Bodies of requests are unpacked within these limits.
    pub(crate) unpacked: Option<compress::decode::Limits>,
    pub(crate) probes: Probes,
    /// What is done for clients of gRPC that see no trailers.
    pub(crate) grpc: Translated,
    /// Header names go out as `Like-This` over HTTP/1.1.
    pub(crate) proper_case: bool,
    /// Largest request body, where bodies are read whole before they go on.
    pub(crate) buffer: Option<usize>,
    /// What texts of the Module need of requests that no route takes.
    pub(crate) needs: Option<Needs>,
    /// How access lines look, where it is not our own way.
    pub(crate) lines: Option<Arc<Lines>>,
}

/// What happens to the requests of one route.
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) backend: Backend,
    /// For the whole request, retries and the answer's body included.
    pub(crate) timeout: Option<Duration>,
    /// The same as a header for the service.
    pub(crate) timeout_header: Option<HeaderValue>,
    /// Between two bytes of a body.
    pub(crate) idle: Duration,
    /// Between two bytes of a tunnel.
    pub(crate) tunnel_idle: Duration,
    pub(crate) retry: Option<Arc<Retry>>,
    /// Which limits of the circuit breaker count, and which connections are used.
    pub(crate) priority: Priority,
    /// What hash policies go by.
    pub(crate) sticky: Option<Box<Key>>,
    /// Protocols that may be upgraded to, in lower case.
    pub(crate) upgrades: Vec<String>,
    pub(crate) host: HostChange,
    pub(crate) request: HeaderChanges,
    pub(crate) response: HeaderChanges,
    /// Whether somebody may have to be asked first, and cannot be.
    pub(crate) guarded: bool,
    pub(crate) cors: Option<Arc<Cors>>,
    /// Bodies of error answers.
    pub(crate) errors: Option<Arc<Overrides>>,
    /// What texts for the answer need of the request.
    pub(crate) needs: Option<Box<Needs>>,
    pub(crate) meters: RouteMeters,
}

impl Route {
    /// Returns the name of the upstream; empty where there is none.
    pub(crate) fn cluster_name(&self) -> &str {
        match &self.backend {
            Backend::Service(cluster) => &cluster.spec.name,
            _ => "",
        }
    }
}

/// What the routes of a listener share.
pub(crate) struct Shared {
    /// Whether somebody may have to be asked first, and cannot be.
    pub(crate) guarded: bool,
    pub(crate) meters: Arc<FrontMeters>,
    pub(crate) cors: Option<Arc<Cors>>,
    pub(crate) errors: Option<Arc<Overrides>>,
}

/// What a snapshot is built from.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    /// In the order of `config.publish`.
    pub(crate) handlers: &'a [Arc<dyn Handler>],
    pub(crate) clusters: &'a mut Clusters,
    pub(crate) terminators: &'a mut Terminators,
    pub(crate) meters: &'a Meters,
    /// Certificates that are ordered while the gateway runs.
    pub(crate) ordered: Option<&'a Arc<Ordered>>,
}

impl Front {
    /// Compiles what a listener serves; `None` stands for the default address.
    pub(crate) fn build(
        parts: &mut Parts<'_>,
        kept: &mut Kept,
        listener: Option<&Object<Listener>>,
        port: u16,
    ) -> (Front, Vec<Problem>) {
        let config = parts.config;
        let meters = parts.meters.front(stats_prefix(listener));
        let (table, mut problems) = match listener {
            Some(listener) => Table::for_listener(config, listener, &mut kept.patterns),
            None => Table::build_with(config, &mut kept.patterns),
        };
        let settings = Settings::new(&config.module, &mut problems);
        let shared = Shared {
            guarded: !config.guards.is_empty(),
            meters: meters.clone(),
            cors: config
                .module
                .cors
                .as_ref()
                .map(|cors| Arc::new(Cors::new(cors))),
            errors: settings.errors.clone(),
        };
        let companions = table.companions();
        let grouped = |id: usize, mapping: &Mapping| {
            let peers = companions.get(&id)?;
            let peers = peers
                .iter()
                .filter_map(|id| match table.route(*id).target() {
                    Target::Mapping(index) => Some(&config.mappings[index].spec),
                    Target::Publish(_) => None,
                });
            Some(Added::of(config, mapping, peers))
        };
        let routes = table
            .routes()
            .map(|route| match route.target() {
                Target::Mapping(index) => {
                    let mapping = &config.mappings[index];
                    let added = grouped(route.id, &mapping.spec);
                    of_mapping(parts, kept, &shared, mapping, added, &mut problems)
                }
                Target::Publish(index) => {
                    let (publish, handler) = (&config.publish[index], &parts.handlers[index]);
                    Arc::new(routes::from_publish(&shared, publish, handler))
                }
            })
            .collect();
        for field in unbuilt::module(&config.module) {
            problems.push(warning(None, format!("`{field}` does nothing yet")));
        }
        let ordered = parts.ordered.filter(|_| orders(config));
        let chains = Chains::build(config, listener, parts.terminators, ordered, &mut problems);
        let front = Front {
            table,
            routes,
            settings,
            chains,
            ordered: ordered.cloned(),
            streams_max: listener.and_then(|listener| listener.spec.http2_max_concurrent_streams),
            security: listener.map_or(SecurityModel::Xfp, |listener| listener.spec.security_model),
            proxy_protocol: match listener {
                Some(listener) => unbuilt::is_proxied(&listener.spec),
                None => config.module.use_proxy_proto,
            },
            trusted_hops: listener.map_or(
                config.module.xff_num_trusted_hops.unwrap_or(0),
                |listener| listener.spec.l7_depth,
            ),
            guards: Guards::new(&config.guards),
            port,
            meters,
        };
        (front, problems)
    }
}

/// Returns whether certificates are ordered for some Host.
fn orders(config: &Config) -> bool {
    config.hosts.iter().any(|host| host.spec.acme().is_some())
}

/// Returns the name of a listener in metrics (Ambassador's defaults).
fn stats_prefix(listener: Option<&Object<Listener>>) -> &str {
    let Some(listener) = listener.map(|listener| &listener.spec) else {
        return "ingress_http";
    };
    let default = match listener.speaks_tls() {
        true => "ingress_https",
        false => "ingress_http",
    };
    listener.stats_prefix.as_deref().unwrap_or(default)
}

/// Returns the route of a Mapping: that of the configuration before, or of another listener, where it is the same.
fn of_mapping(
    parts: &mut Parts<'_>,
    kept: &mut Kept,
    shared: &Shared,
    mapping: &Arc<Object<Mapping>>,
    added: Option<Added>,
    problems: &mut Vec<Problem>,
) -> Arc<Route> {
    let_others();
    let route = match kept.find(mapping, added.as_ref()) {
        Some(built) => {
            if let Backend::Service(cluster) = &built.route.backend {
                parts.clusters.keep(cluster);
            }
            problems.extend(built.problems.iter().cloned());
            built.route.clone()
        }
        None => {
            let mut found = Vec::new();
            let route = routes::from_mapping(parts, shared, mapping, added.as_ref(), &mut found);
            let route = Arc::new(route);
            problems.extend(found.iter().cloned());
            // What a route lacks, such as a file, may be there the next time.
            if !matches!(route.backend, Backend::Fixed(_)) {
                kept.put(mapping, added, route.clone(), found);
            }
            route
        }
    };
    // Endpoints and certificates come and go while the route stays.
    if let Backend::Service(cluster) = &route.backend {
        if let Some((namespace, name)) = parts.clusters.untold(&cluster.spec) {
            let what = format!(
                "there are no Endpoints or EndpointSlices of the Service `{name}` in `{namespace}`, this route answers 503 until there are"
            );
            problems.push(warning(Some(mapping), what));
        }
        if let Some(originator) = cluster.spec.tls.as_ref().map(|tls| &tls.originator)
            && let Some(why) = originator.problem()
        {
            let then = match originator.is_ready() {
                true => "the certificates before stay in use",
                false => "this route answers 503 until that is mended",
            };
            problems.push(warning(Some(mapping), format!("`tls`: {why}; {then}")));
        }
    }
    route
}

impl Settings {
    fn new(module: &Module, problems: &mut Vec<Problem>) -> Self {
        let mut problem = |what: String| problems.push(warning(None, what));
        let errors = module.error_response_overrides.as_ref();
        let errors = errors.map(|said| Arc::new(Overrides::new(said, &mut problem)));
        let server = module.server_name.as_deref().unwrap_or("envoy");
        Settings {
            server: HeaderValue::from_str(server).unwrap_or(HeaderValue::from_static("envoy")),
            envoy_headers: !module.suppress_envoy_headers,
            reason_told: module
                .refusal_reason_header
                .unwrap_or(!module.suppress_envoy_headers),
            request_id_kept: module.preserve_external_request_id,
            http10: module.enable_http10,
            underscores: module.headers_with_underscores_action.unwrap_or_default(),
            path: PathRules {
                merge_slashes: module.merge_slashes,
                escaped_slashes_refused: module.reject_requests_with_escaped_slashes,
            },
            head: HeadLimits {
                bytes_max: module
                    .max_request_headers_kb
                    .map_or(HEAD_BYTES_MAX, |kilobytes| kilobytes as usize * 1024),
                fields_max: FIELDS_MAX,
            },
            addresses: AddressRules::new(module, &mut problem),
            client_cert: ClientCert::of(module),
            compression: Compression::of(module),
            unpacked: module
                .decompress_requests
                .as_ref()
                .map(compress::decode::Limits::of),
            probes: Probes::of(module),
            grpc: Translated {
                web: module.enable_grpc_web,
                bridge: module.enable_grpc_http11_bridge,
            },
            proper_case: module.proper_case,
            buffer: module
                .buffer
                .as_ref()
                .map(|buffer| usize::try_from(buffer.max_request_bytes).unwrap_or(usize::MAX)),
            lines: Lines::of(module, &mut problem),
            needs: errors
                .as_ref()
                .and_then(|errors| Needs::of(errors.formats())),
            errors,
            matching_port_stripped: module.strip_matching_host_port,
            idle_max: match module.listener_idle_timeout_ms {
                Some(0) => Some(NEVER),
                idle => idle.map(Duration::from_millis),
            },
        }
    }
}

/// Something that the user should know about a Mapping, or about the Module.
fn warning(mapping: Option<&Object<Mapping>>, what: String) -> Problem {
    Problem {
        severity: Severity::Warning,
        origin: mapping.map_or(Origin::source("Module"), |mapping| mapping.origin.clone()),
        span: 0..0,
        object: Some(match mapping {
            Some(mapping) => format!("Mapping {}", mapping.full_name()),
            None => "Module ambassador".to_owned(),
        }),
        path: String::new(),
        what,
        hint: None,
    }
}
