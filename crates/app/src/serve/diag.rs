//! What a running Nuncio says about its configuration, in the shape that Emissary's diagnostics have. What Emissary takes
//! from Envoy or from its own inner tables is there and empty; `problems`, `upstreams`, `hosts` and `configuration` are
//! ours.

use std::time::{Duration, SystemTime};

use control::Published;
use gateway::view::Upstream;
use model::{Config, Mapping, Object, Problem, Severity};
use serde_json::{Map, Value, json};

use crate::check;

/// What is looked at.
pub(super) struct Look<'a> {
    pub(super) published: &'a Published,
    /// What the gateway found when it took the configuration.
    pub(super) found: &'a [Problem],
    pub(super) upstreams: &'a [Upstream],
    pub(super) uptime: Duration,
    pub(super) ready: bool,
}

impl Look<'_> {
    /// Returns everything.
    pub(super) fn told(&self) -> Value {
        let config = &*self.published.config;
        let problems = self.problems();
        let errors: Vec<Value> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| {
                json!([
                    problem.object.as_deref().unwrap_or_default(),
                    problem.to_string()
                ])
            })
            .collect();
        let notices: Vec<Value> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Warning)
            .map(|problem| json!({ "level": "WARNING", "message": problem.to_string() }))
            .collect();
        let mut elements = Map::new();
        let mut sources: Map<String, Value> = Map::new();
        for (kind, name, location, file) in objects(config) {
            let within = sources
                .entry(file)
                .or_insert_with(|| Value::Object(Map::new()));
            within[&name] = true.into();
            elements.insert(
                name.clone(),
                json!({ "kind": kind, "name": name, "location": location }),
            );
        }
        json!({
            "system": self.system(errors.is_empty()),
            "envoy_status": {
                "alive": true,
                "ready": self.ready,
                "uptime": human(self.uptime),
                "since_update": "within the last second",
            },
            "configuration": {
                "version": self.published.version,
                "at": unix(self.published.at),
                "stale_since": self.published.stale_since.and_then(unix),
            },
            "loginfo": {},
            "errors": errors,
            "notices": notices,
            "problems": problems.iter().map(|problem| check::json(problem)).collect::<Vec<_>>(),
            "route_info": config.mappings.iter().map(|mapping| self.route(mapping)).collect::<Vec<_>>(),
            "cluster_info": self.clusters(),
            "cluster_stats": self.stats(),
            "upstreams": self.upstreams,
            "hosts": hosts(config),
            "active_elements": elements.keys().cloned().collect::<Vec<_>>(),
            "ambassador_elements": elements,
            "source_map": sources,
            "ambassador_services": [],
            "ambassador_resolvers": [],
            "ambassador_resources": {},
            "envoy_elements": {},
            "envoy_resources": {},
            "groups": {},
            "tlscontexts": [],
            "banner_content": null,
        })
    }

    /// Returns how many errors and warnings there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        let problems = self.problems();
        let errors = problems.iter().filter(|p| p.severity == Severity::Error);
        let errors = errors.count();
        (errors, problems.len() - errors)
    }

    fn problems(&self) -> Vec<&Problem> {
        let known = &self.published.problems;
        let new = self.found.iter().filter(|found| !known.contains(found));
        known.iter().chain(new).collect()
    }

    fn system(&self, good: bool) -> Value {
        let variable = |name| {
            std::env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let failures: Vec<String> = self
            .problems()
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| problem.to_string())
            .collect();
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": hostname.map(|name| name.trim().to_owned()).or_else(|| variable("HOSTNAME")),
            "ambassador_id": variable("AMBASSADOR_ID").unwrap_or_else(|| "default".to_owned()),
            "ambassador_namespace": variable("AMBASSADOR_NAMESPACE").unwrap_or_else(|| "default".to_owned()),
            "single_namespace": variable("AMBASSADOR_SINGLE_NAMESPACE").is_some(),
            "knative_enabled": false,
            "statsd_enabled": false,
            "endpoints_enabled": true,
            "boot_time": SystemTime::now().checked_sub(self.uptime).and_then(unix),
            "hr_uptime": human(self.uptime),
            "latest_snapshot": self.published.version.to_string(),
            "env_good": good,
            "env_failures": failures,
            "env_status": { "configuration": [good, if good { "taken" } else { "partly refused" }] },
            "debug_mode": self.published.config.module.debug_mode,
        })
    }

    fn route(&self, mapping: &Object<Mapping>) -> Value {
        let said = &mapping.spec;
        let name = mapping.full_name();
        let upstream = self
            .upstreams
            .iter()
            .find(|upstream| upstream.routes.iter().any(|route| **route == name));
        let host = said
            .hostname
            .as_deref()
            .or(said.host.as_deref())
            .unwrap_or("*");
        let headers = said
            .headers
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value, "regex": false }));
        let regexes = said
            .regex_headers
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value, "regex": true }));
        let health =
            upstream.map(
                |upstream| match (upstream.healthy(), upstream.endpoints.len()) {
                    (_, 0) => "unknown",
                    (0, _) => "unhealthy",
                    _ => "healthy",
                },
            );
        json!({
            "key": format!("http://{host}{}", said.prefix),
            "name": name,
            "prefix": said.prefix,
            "rewrite": said.rewrite.as_deref().unwrap_or("/"),
            "method": said.method.as_deref().unwrap_or("*"),
            "headers": headers.chain(regexes).collect::<Vec<_>>(),
            "host": host,
            "precedence": said.precedence,
            "clusters": [{
                "name": upstream.map(|upstream| &upstream.name),
                "service": said.service,
                "weight": said.weight.unwrap_or(100),
                "type_label": if said.shadow { "shadow" } else if said.host_redirect { "redirect" } else { "" },
                "_health": health,
            }],
            "to": said.service,
            "_source": mapping.origin.to_string(),
            "_group_id": name,
        })
    }

    fn clusters(&self) -> Value {
        let one = |upstream: &Upstream| {
            let told = json!({
                "name": upstream.name,
                "service": format!("{}:{}", upstream.host, upstream.port),
                "_referenced_by": upstream.routes,
            });
            (upstream.name.clone(), told)
        };
        Value::Object(self.upstreams.iter().map(one).collect())
    }

    fn stats(&self) -> Value {
        let one = |upstream: &Upstream| {
            let (healthy, all) = (upstream.healthy(), upstream.endpoints.len());
            let answered: u64 = upstream.answers.iter().sum::<u64>() + upstream.failed;
            let bad = upstream.answers[4] + upstream.failed;
            let percent = |part: u64, whole: u64| (whole > 0).then(|| part * 100 / whole);
            let told = json!({
                "valid": true,
                "reason": null,
                "health": if all == 0 { "unknown" } else if healthy == 0 { "unhealthy" } else { "healthy" },
                "hmetric": format!("{healthy}/{all}"),
                "healthy_members": healthy,
                "total_members": all,
                "healthy_percent": percent(healthy as u64, all as u64),
                "upstream_ok": answered - bad,
                "upstream_bad": bad,
                "upstream_total": answered,
            });
            (upstream.name.clone(), told)
        };
        Value::Object(self.upstreams.iter().map(one).collect())
    }
}

fn hosts(config: &Config) -> Vec<Value> {
    let one = |host: &Object<model::Host>| {
        let policy = serde_json::to_value(&host.spec).unwrap_or_default();
        json!({
            "name": host.full_name(),
            "hostname": host.spec.hostname,
            "insecure": policy["requestPolicy"]["insecure"]["action"],
            "location": host.origin.to_string(),
        })
    };
    config.hosts.iter().map(one).collect()
}

/// Returns kind, name, place and file of each object.
fn objects(config: &Config) -> Vec<(&'static str, String, String, String)> {
    fn one<T>(kind: &'static str, object: &Object<T>) -> (&'static str, String, String, String) {
        let origin = &object.origin;
        let file = origin.file.to_string();
        (kind, object.full_name(), origin.to_string(), file)
    }
    let mappings = config.mappings.iter().map(|o| one("Mapping", o));
    let hosts = config.hosts.iter().map(|o| one("Host", o));
    let listeners = config.listeners.iter().map(|o| one("Listener", o));
    let publish = config.publish.iter().map(|o| one("Publish", o));
    let subscribe = config.subscribe.iter().map(|o| one("Subscribe", o));
    let all = mappings.chain(hosts).chain(listeners);
    all.chain(publish).chain(subscribe).collect()
}

fn unix(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
