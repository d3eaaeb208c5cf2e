//! From a Mapping or a Publish to what happens to its requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use model::mapping::Priority;
use model::target::Target;
use model::{Mapping, Object, Problem, Publish};

use super::{Added, NEVER, Parts, Route, Shared, warning};
use crate::backend::{Backend, Fixed, Handler};
use crate::format::Needs;
use crate::policy::HostChange;
use crate::policy::cors::Cors;
use crate::policy::errors::Overrides;
use crate::policy::headers::HeaderChanges;
use crate::policy::retry::Retry;
use crate::refusal::Refusal;
use crate::upstream::balance::key::Key;

const TIMEOUT_MS: u64 = 3000;
/// Between two bytes of a body.
const IDLE: Duration = Duration::from_secs(60);
/// Between two bytes of a tunnel (Envoy's default for streams).
const TUNNEL_IDLE: Duration = Duration::from_secs(300);
/// A handler's own limit comes first.
const HANDLER_EXTRA: Duration = Duration::from_secs(5);

pub(super) fn from_mapping(
    parts: &mut Parts<'_>,
    shared: &Shared,
    mapping: &Object<Mapping>,
    grouped: Option<&Added>,
    problems: &mut Vec<Problem>,
) -> Route {
    let said = &mapping.spec;
    let module = &parts.config.module;
    let defaults = module
        .defaults
        .as_ref()
        .and_then(|defaults| defaults.httpmapping.as_ref());
    let mut problem = |what: String| {
        problems.push(warning(Some(mapping), what));
    };
    let timeout_ms = said
        .timeout_ms
        .or(module.cluster_request_timeout_ms)
        .unwrap_or(TIMEOUT_MS);
    let timeout = Some(Duration::from_millis(timeout_ms)).filter(|timeout| !timeout.is_zero());
    let mut upgrades: Vec<String> = said
        .allow_upgrade
        .iter()
        .map(|protocol| protocol.to_ascii_lowercase())
        .collect();
    if said.use_websocket {
        upgrades.push("websocket".to_owned());
    }
    let backend = match Target::parse(&said.service) {
        Err(what) => {
            problem(format!("`service`: {what}"));
            unavailable("the service's address is malformed")
        }
        // The location is made by the route table.
        Ok(_) if said.host_redirect => Backend::Redirect,
        Ok(target) => match parts.clusters.of(parts.config, mapping, &target) {
            Ok(cluster) => Backend::Service(cluster),
            Err(what) => {
                problem(format!("`tls`: {what}; this route answers 503"));
                unavailable("TLS towards the service is not set up")
            }
        },
    };
    let host = match (&said.host_rewrite, said.auto_host_rewrite, &backend) {
        (Some(host), _, _) => match HeaderValue::from_str(host) {
            Ok(host) => HostChange::To(host),
            Err(_) => HostChange::Keep,
        },
        (None, true, Backend::Service(cluster)) => {
            match HeaderValue::from_str(&cluster.spec.host) {
                Ok(host) => HostChange::To(host),
                Err(_) => HostChange::Keep,
            }
        }
        _ => HostChange::Keep,
    };
    let alone;
    let added = match grouped {
        Some(added) => added,
        None => {
            alone = Added::of(parts.config, said, [].into_iter());
            &alone
        }
    };
    let mut request = HeaderChanges::new(
        added.request.as_ref(),
        said.remove_request_headers
            .as_ref()
            .or(defaults.and_then(|d| d.remove_request_headers.as_ref())),
        &mut problem,
    );
    let response = HeaderChanges::new(
        added.response.as_ref(),
        said.remove_response_headers
            .as_ref()
            .or(defaults.and_then(|d| d.remove_response_headers.as_ref())),
        &mut problem,
    );
    if said
        .add_linkerd_headers
        .unwrap_or(module.add_linkerd_headers)
        && let Backend::Service(cluster) = &backend
    {
        let spec = &cluster.spec;
        request.set("l5d-dst-override", &format!("{}:{}", spec.host, spec.port));
    }
    let cors = match &said.cors {
        Some(cors) => Some(Arc::new(Cors::new(cors))),
        None => shared.cors.clone(),
    };
    let errors = match &said.error_response_overrides {
        _ if said.bypass_error_response_overrides => None,
        Some(errors) => Some(Arc::new(Overrides::new(errors, &mut problem))),
        None => shared.errors.clone(),
    };
    let name: Arc<str> = mapping.full_name().into();
    Route {
        meters: shared.meters.route(&name),
        name,
        timeout,
        timeout_header: timeout.map(|_| HeaderValue::from(timeout_ms)),
        idle: idle(said.idle_timeout_ms, IDLE),
        tunnel_idle: idle(said.idle_timeout_ms, TUNNEL_IDLE),
        retry: Retry::new(
            said.retry_policy.as_ref().or(module.retry_policy.as_ref()),
            said.hedge,
        )
        .map(Arc::new),
        priority: said.priority,
        sticky: said
            .load_balancer
            .as_ref()
            .or(module.load_balancer.as_ref())
            .and_then(Key::of),
        upgrades,
        host,
        request,
        needs: needs(&response, errors.as_deref()),
        response,
        guarded: shared.guarded && !said.bypass_auth,
        cors,
        errors,
        backend,
    }
}

/// What texts for the answer need of the request.
fn needs(response: &HeaderChanges, errors: Option<&Overrides>) -> Option<Box<Needs>> {
    let errors = errors.into_iter().flat_map(Overrides::formats);
    Needs::of(response.formats().chain(errors)).map(Box::new)
}

fn idle(said_ms: Option<u64>, default: Duration) -> Duration {
    match said_ms {
        None => default,
        Some(0) => NEVER,
        Some(idle) => Duration::from_millis(idle),
    }
}

fn unavailable(why: &'static str) -> Backend {
    Backend::Fixed(Fixed {
        status: Refusal::Unserved.status(),
        content_type: Some(HeaderValue::from_static("text/plain")),
        body: Bytes::from_static(why.as_bytes()),
        refusal: Some(Refusal::Unserved),
    })
}

pub(super) fn from_publish(
    shared: &Shared,
    publish: &Object<Publish>,
    handler: &Arc<dyn Handler>,
) -> Route {
    let timeout = publish.spec.timeout + HANDLER_EXTRA;
    let name: Arc<str> = publish.full_name().into();
    Route {
        meters: shared.meters.route(&name),
        name,
        backend: Backend::Handler(handler.clone()),
        timeout: Some(timeout),
        timeout_header: None,
        idle: IDLE,
        tunnel_idle: TUNNEL_IDLE,
        retry: None,
        priority: Priority::Default,
        sticky: None,
        upgrades: Vec::new(),
        host: HostChange::Keep,
        request: HeaderChanges::default(),
        response: HeaderChanges::default(),
        guarded: shared.guarded,
        cors: shared.cors.clone(),
        needs: needs(&HeaderChanges::default(), shared.errors.as_deref()),
        errors: shared.errors.clone(),
    }
}
