//! The policies of a Mapping that are set and differ from what is usual.

use std::time::Duration;

use http::{HeaderMap, Method, header};
use kit::human::{duration_text, size_text};
use model::mapping::{CircuitBreaker, HealthCheck, Priority};
use model::retry::{Hedge, RetryPolicy};
use model::{Config, Mapping, Module, Object};

use super::{Policy, Said};
use crate::policy::cors::Cors;
use crate::upstream::breaker::Limits;

/// Milliseconds of Ambassador's defaults.
const TIMEOUT_MS: u64 = 3000;

/// Returns what the Module does to every request.
pub(super) fn of_all(config: &Config) -> Vec<Policy> {
    let module = &config.module;
    let mut all = Vec::new();
    let mut tell = |policy, told: String| all.push(Policy::new(policy, told, Said::Module));
    if module.ip_allow.is_some() || module.ip_deny.is_some() {
        tell(
            "address",
            "`ip_allow` and `ip_deny` decide first".to_owned(),
        );
    }
    if let Some(buffer) = &module.buffer {
        let most = size_text(buffer.max_request_bytes);
        tell(
            "buffer",
            format!("bodies are read whole, longer ones than {most} get 413"),
        );
    }
    if module.decompress_requests.is_some() {
        tell(
            "packing",
            "packed bodies of requests are unpacked".to_owned(),
        );
    }
    if module.compression.is_some() || module.gzip.is_some() {
        tell(
            "packing",
            "answers are packed as the client accepts it".to_owned(),
        );
    }
    all
}

/// Returns what a Mapping does, and the Module for it.
pub(super) fn of(
    config: &Config,
    mapping: &Object<Mapping>,
    headers: &HeaderMap,
    method: &Method,
) -> Vec<Policy> {
    let (said, module) = (&mapping.spec, &config.module);
    let mut told = Told::default();
    told.cors(said, module, headers);
    told.times(said, module);
    told.retries(said, module, method);
    told.limits(said, module);
    told.health(said, module);
    told.connections(said, module);
    told.errors(said, module);
    told.0
}

#[derive(Default)]
struct Told(Vec<Policy>);

/// Returns what counts, and who said it.
fn either<T>(own: Option<T>, module: Option<T>) -> Option<(T, Said)> {
    own.map(|own| (own, Said::Mapping))
        .or(module.map(|module| (module, Said::Module)))
}

impl Told {
    fn tell(&mut self, policy: &str, told: impl Into<String>, said_by: Said) {
        self.0.push(Policy::new(policy, told, said_by));
    }

    fn cors(&mut self, said: &Mapping, module: &Module, headers: &HeaderMap) {
        let Some((cors, by)) = either(said.cors.as_ref(), module.cors.as_ref()) else {
            return;
        };
        let origin = headers.get(header::ORIGIN);
        let told = match (origin, Cors::new(cors).allowed(headers)) {
            (None, _) => {
                "the request has no `origin`, so browsers' rules are not asked for".to_owned()
            }
            (Some(_), Some(origin)) => format!(
                "a page of `{}` may read the answer",
                String::from_utf8_lossy(origin.as_bytes())
            ),
            (Some(origin), None) => format!(
                "a page of `{}` may not read the answer, only {} may",
                String::from_utf8_lossy(origin.as_bytes()),
                cors.origins.join(", ")
            ),
        };
        self.tell("cors", told, by);
    }

    fn times(&mut self, said: &Mapping, module: &Module) {
        let timeout = either(said.timeout_ms, module.cluster_request_timeout_ms);
        match timeout {
            None | Some((TIMEOUT_MS, _)) => (),
            Some((0, by)) => self.tell("timeout", "none", by),
            Some((ms, by)) => self.tell(
                "timeout",
                format!("{} for the whole request", millis(ms)),
                by,
            ),
        }
        match said.idle_timeout_ms {
            None => (),
            Some(0) => self.tell(
                "idle",
                "bodies and tunnels may pause for ever",
                Said::Mapping,
            ),
            Some(ms) => {
                let told = format!("bodies and tunnels may pause for {}", millis(ms));
                self.tell("idle", told, Said::Mapping);
            }
        }
        if let Some(ms) = said.connect_timeout_ms.filter(|ms| *ms != TIMEOUT_MS) {
            self.tell("connect", format!("within {}", millis(ms)), Said::Mapping);
        }
    }

    fn retries(&mut self, said: &Mapping, module: &Module, method: &Method) {
        let retry = either(said.retry_policy.as_ref(), module.retry_policy.as_ref());
        if let Some((retry, by)) = retry {
            self.tell("retry", retries(retry, method), by);
        }
        if let Some(Hedge {
            initial_requests,
            hedge_on_per_try_timeout,
        }) = said.hedge
        {
            let mut told = format!("{initial_requests} tries at once");
            if hedge_on_per_try_timeout {
                told.push_str(", a slow one goes on beside the next");
            }
            self.tell("hedge", told, Said::Mapping);
        }
    }

    fn limits(&mut self, said: &Mapping, module: &Module) {
        if said.priority == Priority::High {
            self.tell(
                "limits",
                "those of the priority `high` count",
                Said::Mapping,
            );
        }
        let breakers = either(
            said.circuit_breakers.as_ref(),
            module.circuit_breakers.as_ref(),
        );
        let Some((breakers, by)) = breakers else {
            return;
        };
        for breaker in breakers.iter().filter(|it| it.priority == said.priority) {
            let told = limits(breaker);
            if !told.is_empty() {
                self.tell("limits", told.join(", "), by);
            }
        }
    }

    fn health(&mut self, said: &Mapping, module: &Module) {
        for check in &said.health_checks {
            self.tell("health", check_told(check), Said::Mapping);
        }
        let outlier = either(
            said.outlier_detection.as_ref(),
            module.outlier_detection.as_ref(),
        );
        if let Some((outlier, by)) = outlier {
            let after = outlier.consecutive_5xx.unwrap_or(5);
            let away = outlier
                .base_ejection_time
                .unwrap_or(Duration::from_secs(30));
            let told = match after {
                0 => "endpoints that fail are put aside".to_owned(),
                1 => format!(
                    "a failure puts an endpoint aside for {}",
                    duration_text(away)
                ),
                _ => format!(
                    "{after} failures in a row put an endpoint aside for {}",
                    duration_text(away)
                ),
            };
            self.tell("outlier", told, by);
        }
    }

    fn connections(&mut self, said: &Mapping, module: &Module) {
        if said.grpc {
            self.tell("http", "the service is spoken to in HTTP/2", Said::Mapping);
        }
        if let Some(context) = &said.tls {
            self.tell(
                "tls",
                format!("with the TLSContext `{context}`"),
                Said::Mapping,
            );
        }
        if !said.allow_upgrade.is_empty() {
            self.tell(
                "upgrade",
                format!("to {}", said.allow_upgrade.join(", ")),
                Said::Mapping,
            );
        }
        if let Some(version) = said.proxy_protocol {
            let told = format!("begins with the PROXY protocol {version:?}").to_lowercase();
            self.tell("link", told.replace("proxy", "PROXY"), Said::Mapping);
        }
        let idle = either(said.cluster_idle_timeout_ms, module.cluster_idle_timeout_ms);
        match idle {
            None => (),
            Some((0, by)) => self.tell("link", "stays open unused for ever", by),
            Some((ms, by)) => {
                self.tell("link", format!("closes when unused for {}", millis(ms)), by)
            }
        }
        let age = either(
            said.cluster_max_connection_lifetime_ms,
            module.cluster_max_connection_lifetime_ms,
        );
        if let Some((ms, by)) = age.filter(|(ms, _)| *ms > 0) {
            self.tell(
                "link",
                format!("takes no requests after {}", millis(ms)),
                by,
            );
        }
    }

    fn errors(&mut self, said: &Mapping, module: &Module) {
        let overrides = either(
            said.error_response_overrides.as_ref(),
            module.error_response_overrides.as_ref(),
        );
        let Some((overrides, by)) = overrides.filter(|_| !said.bypass_error_response_overrides)
        else {
            return;
        };
        let statuses: Vec<String> = overrides
            .iter()
            .map(|one| one.on_status_code.to_string())
            .collect();
        if !statuses.is_empty() {
            self.tell(
                "errors",
                format!("{} get a body of their own", statuses.join(", ")),
                by,
            );
        }
    }
}

fn millis(ms: u64) -> String {
    duration_text(Duration::from_millis(ms))
}

fn retries(retry: &RetryPolicy, method: &Method) -> String {
    let on: Vec<String> = retry
        .retry_on
        .0
        .iter()
        .filter_map(|one| serde_json::to_value(one).ok()?.as_str().map(str::to_owned))
        .collect();
    let more = retry.num_retries.unwrap_or(1);
    let tries = if more == 1 { "try" } else { "tries" };
    let mut told = format!("{more} more {tries} on {}", on.join(", "));
    if let Some(limit) = retry.per_try_timeout.filter(|limit| !limit.is_zero()) {
        told.push_str(&format!(", each within {}", duration_text(limit)));
    }
    if let Some(back_off) = &retry.back_off {
        let base = duration_text(back_off.base_interval);
        let most = duration_text(back_off.longest());
        told.push_str(&format!(
            ", after waits of up to {base}, doubled up to {most}"
        ));
    }
    if let Some(budget) = &retry.budget {
        let (share, least) = (budget.budget_percent, budget.min_retry_concurrency);
        told.push_str(&format!(
            ", {share} % of the requests under way or {least} at once"
        ));
    }
    if !retry.retry_non_idempotent && !crate::upstream::send::is_idempotent(method) {
        told.push_str(&format!(
            "; {method} only where the service cannot have seen it"
        ));
    }
    told
}

fn limits(breaker: &CircuitBreaker) -> Vec<String> {
    let usual = Limits::default();
    [
        (
            "max_connections",
            breaker.max_connections,
            usual.connections_max,
        ),
        (
            "max_pending_requests",
            breaker.max_pending_requests,
            usual.pending_max,
        ),
        ("max_requests", breaker.max_requests, usual.requests_max),
        ("max_retries", breaker.max_retries, usual.retries_max),
    ]
    .into_iter()
    .filter_map(|(name, said, usual)| {
        let said = said.filter(|said| u64::from(*said) != usual)?;
        Some(format!("{name} {said}"))
    })
    .collect()
}

fn check_told(check: &HealthCheck) -> String {
    let kind = &check.health_check;
    let what = match (&kind.http, &kind.grpc) {
        (Some(http), _) => format!("GET {}", http.path),
        (_, Some(grpc)) => format!("gRPC `{}`", grpc.upstream_name),
        _ => "a connection".to_owned(),
    };
    let every = check.interval.unwrap_or(Duration::from_secs(5));
    format!("{what} every {}", duration_text(every))
}
