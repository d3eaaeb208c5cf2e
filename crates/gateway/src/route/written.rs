//! From what the user wrote to rules.

use std::fmt::Display;

use http::{HeaderName, StatusCode};
use kit::aside::let_others;
use model::{
    Config, Host, Listener, Mapping, Module, Object, Problem, Publish, Severity,
    host::{InsecureAction, Selector},
    publish::Segment,
};
use serde::Serialize;

use super::{
    Table,
    group::Finding,
    host::Glob,
    path,
    patterns::Patterns,
    rewrite::{BadReplace, Redirect, RedirectPath, Replace, Rewrite},
    rule::{Field, HeaderRule, HostRule, PathKind, PathRule, QueryRule, Rule, Target, Test},
    table::VirtualHost,
};

impl Table {
    /// Compiles all routes for all Hosts. What is wrong leaves its object out and is told; the rest works.
    pub fn build(config: &Config) -> (Table, Vec<Problem>) {
        Self::build_with(config, &mut Patterns::default())
    }

    /// Like [`Table::build`], with patterns that other tables have compiled.
    pub fn build_with(config: &Config, patterns: &mut Patterns) -> (Table, Vec<Problem>) {
        Self::with_hosts(config, patterns, None, config.hosts.iter())
    }

    /// Compiles all routes for the Hosts that a Listener binds.
    pub fn for_listener(
        config: &Config,
        listener: &Object<Listener>,
        patterns: &mut Patterns,
    ) -> (Table, Vec<Problem>) {
        let hosts = config.hosts.iter().filter(|host| binds(listener, host));
        Self::with_hosts(config, patterns, Some(listener.spec.port), hosts)
    }

    fn with_hosts<'c>(
        config: &'c Config,
        patterns: &mut Patterns,
        port: Option<u16>,
        hosts: impl Iterator<Item = &'c Object<Host>>,
    ) -> (Table, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut rules = Vec::with_capacity(config.mappings.len() + config.publish.len());
        for (index, mapping) in config.mappings.iter().enumerate() {
            let_others();
            match from_mapping(mapping, Target::Mapping(index), patterns) {
                Ok(rule) => rules.push(rule),
                Err(wrong) => problems.push(wrong.of("Mapping", mapping)),
            }
        }
        for (index, publish) in config.publish.iter().enumerate() {
            match from_publish(publish, Target::Publish(index)) {
                Ok(rule) => rules.push(rule),
                Err(wrong) => problems.push(wrong.of("Publish", publish)),
            }
        }
        let hosts = match config.hosts.is_empty() {
            true => vec![VirtualHost::built_in()],
            false => virtual_hosts(config, port, hosts),
        };
        let few = hosts.len() < config.hosts.len();
        let (table, mut findings) = Table::compile(rules, hosts);
        if few && findings.iter().any(|finding| finding.unreached) {
            // What the Hosts of another Listener take is not lost.
            let all = virtual_hosts(config, port, config.hosts.iter());
            findings
                .retain(|finding| !finding.unreached || !table.is_taken_by(finding.rules[0], &all));
        }
        problems.extend(
            findings
                .iter()
                .flat_map(|finding| told(config, &table, finding)),
        );
        (table, problems)
    }
}

impl path::Rules {
    /// Returns what the Module says about paths.
    pub fn of(module: &Module) -> Self {
        Self {
            merge_slashes: module.merge_slashes,
            escaped_slashes_refused: module.reject_requests_with_escaped_slashes,
        }
    }
}

fn told<'a>(
    config: &'a Config,
    table: &'a Table,
    finding: &'a Finding,
) -> impl Iterator<Item = Problem> + 'a {
    finding.rules.iter().map(|&id| {
        let wrong = Wrong {
            field: "",
            what: finding.what.clone(),
        };
        let problem = match table.route(id as usize).target() {
            Target::Mapping(index) => wrong.of("Mapping", &config.mappings[index]),
            Target::Publish(index) => wrong.of("Publish", &config.publish[index]),
        };
        // A Mapping that nobody takes is good by itself: its Host may be written tomorrow.
        let severity = if finding.refused && !finding.unreached {
            Severity::Error
        } else {
            Severity::Warning
        };
        Problem {
            severity,
            ..problem
        }
    })
}

/// A field that cannot work.
struct Wrong {
    field: &'static str,
    what: String,
}

impl Wrong {
    fn new(field: &'static str, what: impl Display) -> Self {
        Self {
            field,
            what: what.to_string(),
        }
    }

    fn of<T>(self, kind: &str, object: &Object<T>) -> Problem {
        Problem {
            severity: Severity::Error,
            origin: object.origin.clone(),
            span: 0..0,
            object: Some(format!("{kind} {}", object.full_name())),
            path: if self.field.is_empty() {
                String::new()
            } else {
                format!("spec.{}", self.field)
            },
            what: self.what,
            hint: None,
        }
    }
}

/// Hosts with the same name are one virtual host; the first by name and namespace decides what happens without TLS.
fn virtual_hosts<'c>(
    config: &Config,
    port: Option<u16>,
    hosts: impl Iterator<Item = &'c Object<Host>>,
) -> Vec<VirtualHost> {
    let mut hosts: Vec<_> = hosts.collect();
    hosts.sort_by_key(|host| host.full_name());
    let mut found: Vec<VirtualHost> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for host in hosts {
        let name = Glob::new(&host.spec.hostname);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            let redirected = port.is_some() && config.redirected_from(host) == port;
            let insecure = match redirected {
                true => InsecureAction::Redirect,
                false => host.spec.insecure_action(),
            };
            found.push(VirtualHost {
                name,
                insecure,
                selectors: Vec::new(),
            });
            found.len() - 1
        });
        let asks = |selector: &&Selector| !selector.match_labels.is_empty();
        found[place]
            .selectors
            .push(host.spec.selector().filter(asks).cloned());
    }
    found
}

/// Whether the Listener serves the Host.
pub(crate) fn binds(listener: &Object<Listener>, host: &Object<Host>) -> bool {
    let binding = &listener.spec.host_binding;
    binding.takes(&listener.namespace, &host.namespace, &host.labels)
}

fn from_mapping(
    object: &Object<Mapping>,
    target: Target,
    patterns: &mut Patterns,
) -> Result<Rule, Wrong> {
    let spec = &object.spec;
    let kind = if spec.prefix_regex {
        PathKind::Regex(
            patterns
                .whole(&spec.prefix)
                .map_err(|error| Wrong::new("prefix", error))?,
        )
    } else if spec.prefix_exact {
        PathKind::Exact
    } else {
        PathKind::Prefix
    };
    let case_sensitive = spec.case_sensitive || spec.prefix_regex;
    let method = match &spec.method {
        None => None,
        Some(method) if spec.method_regex => Some(
            patterns
                .test(method)
                .map_err(|error| Wrong::new("method", error))?,
        ),
        Some(method) => Some(Test::Exact(method.clone())),
    };
    Ok(Rule {
        name: object.full_name(),
        labels: object.labels.clone(),
        host: host(spec, patterns)?,
        path: PathRule {
            text: spec.prefix.clone(),
            kind,
            case_sensitive,
        },
        method,
        headers: headers(spec, patterns)?,
        query: query(spec, patterns)?,
        precedence: spec.precedence,
        weight: spec.weight,
        shadow: spec.shadow,
        agreed: agreed(spec),
        rewrite: rewrite(spec)?,
        redirect: redirect(spec)?,
        target,
    })
}

/// `hostname` wins over `host`.
fn host(spec: &Mapping, patterns: &mut Patterns) -> Result<HostRule, Wrong> {
    match (&spec.hostname, &spec.host) {
        (Some(hostname), _) => Ok(HostRule::Glob(Glob::new(hostname))),
        (None, None) => Ok(HostRule::Unsaid),
        (None, Some(host)) if spec.host_regex => patterns
            .whole(host)
            .map(HostRule::Regex)
            .map_err(|error| Wrong::new("host", error)),
        (None, Some(host)) if host.contains('*') => {
            let what = format!("`{host}` is compared as it stands, and no host has a `*` in it");
            Err(Wrong::new("host", what))
        }
        (None, Some(host)) => Ok(HostRule::Glob(Glob::new(host))),
    }
}

fn headers(spec: &Mapping, patterns: &mut Patterns) -> Result<Vec<HeaderRule>, Wrong> {
    let mut rules = Vec::with_capacity(spec.headers.len() + spec.regex_headers.len());
    for (name, value) in &spec.headers {
        let name = field(name).map_err(|what| Wrong::new("headers", what))?;
        rules.push(HeaderRule {
            name,
            test: Test::Exact(value.clone()),
        });
    }
    for (name, pattern) in &spec.regex_headers {
        let name = field(name).map_err(|what| Wrong::new("regex_headers", what))?;
        let test = patterns
            .test(pattern)
            .map_err(|error| Wrong::new("regex_headers", error))?;
        rules.push(HeaderRule { name, test });
    }
    Ok(rules)
}

fn field(name: &str) -> Result<Field, String> {
    match name {
        ":authority" => Ok(Field::Authority),
        ":method" => Ok(Field::Method),
        ":path" => Ok(Field::Path),
        _ => match HeaderName::try_from(name) {
            Ok(header) if header == http::header::HOST => Ok(Field::Authority),
            Ok(header) => Ok(Field::Header(header)),
            Err(_) => Err(format!("`{name}` is no name for a header")),
        },
    }
}

fn query(spec: &Mapping, patterns: &mut Patterns) -> Result<Vec<QueryRule>, Wrong> {
    let exact = spec.query_parameters.iter().map(|(name, value)| {
        Ok(QueryRule {
            name: name.clone(),
            test: Test::Exact(value.clone()),
        })
    });
    let regex = spec.regex_query_parameters.iter().map(|(name, pattern)| {
        let test = patterns
            .test(pattern)
            .map_err(|error| Wrong::new("regex_query_parameters", error))?;
        Ok(QueryRule {
            name: name.clone(),
            test,
        })
    });
    exact.chain(regex).collect()
}

/// Without a word about it, the prefix becomes `/`; a path that only a regular expression describes stays, where Ambassador
/// replaces all of it.
fn rewrite(spec: &Mapping) -> Result<Rewrite, Wrong> {
    if let Some(regex) = &spec.regex_rewrite {
        return replace(regex).map_err(|error| Wrong::new("regex_rewrite", error));
    }
    Ok(match spec.rewrite.as_deref() {
        Some("") => Rewrite::Keep,
        Some(rewrite) => Rewrite::Prefix(rewrite.into()),
        None if spec.prefix_regex => Rewrite::Keep,
        None => Rewrite::Prefix("/".into()),
    })
}

fn replace(regex: &model::mapping::RegexRewrite) -> Result<Rewrite, BadReplace> {
    Replace::new(&regex.pattern, &regex.substitution).map(Rewrite::Pattern)
}

fn redirect(spec: &Mapping) -> Result<Option<Redirect>, Wrong> {
    if !spec.host_redirect {
        return Ok(None);
    }
    let (scheme, authority) = match spec.service.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some("https"), rest),
        Some((_, rest)) => (Some("http"), rest),
        None => (None, &*spec.service),
    };
    let path = if let Some(path) = &spec.path_redirect {
        RedirectPath::Whole(path.as_str().into())
    } else if let Some(prefix) = &spec.prefix_redirect {
        RedirectPath::Changed(Rewrite::Prefix(prefix.as_str().into()))
    } else if let Some(regex) = &spec.regex_redirect {
        let replace = replace(regex).map_err(|error| Wrong::new("regex_redirect", error))?;
        RedirectPath::Changed(replace)
    } else {
        RedirectPath::Keep
    };
    let status = match spec.redirect_response_code.unwrap_or(301) {
        code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).ok(),
        _ => None,
    };
    let status = status.ok_or_else(|| {
        Wrong::new(
            "redirect_response_code",
            "only 301, 302, 303, 307 and 308 are redirects",
        )
    })?;
    Ok(Some(Redirect {
        status,
        scheme,
        authority: authority.into(),
        path,
    }))
}

/// What Mappings of one group must agree on, where it is not the default; the match itself is equal anyway.
fn agreed(spec: &Mapping) -> Vec<(&'static str, String)> {
    fn text(value: &impl Serialize) -> Option<String> {
        serde_json::to_string(value).ok()
    }
    let told = [
        ("bypass_auth", spec.bypass_auth.then(|| "true".to_owned())),
        (
            "circuit_breakers",
            spec.circuit_breakers.as_ref().and_then(text),
        ),
        (
            "cluster_idle_timeout_ms",
            spec.cluster_idle_timeout_ms.as_ref().and_then(text),
        ),
        (
            "cluster_max_connection_lifetime_ms",
            spec.cluster_max_connection_lifetime_ms
                .as_ref()
                .and_then(text),
        ),
        (
            "connect_timeout_ms",
            spec.connect_timeout_ms.as_ref().and_then(text),
        ),
        ("keepalive", spec.keepalive.as_ref().and_then(text)),
        (
            "labels",
            (!spec.labels.is_empty())
                .then(|| text(&spec.labels))
                .flatten(),
        ),
        ("load_balancer", spec.load_balancer.as_ref().and_then(text)),
    ];
    told.into_iter()
        .filter_map(|(field, value)| Some((field, value?)))
        .collect()
}

/// A publish route is an exact path with a method, or a pattern where segments have names.
fn from_publish(object: &Object<Publish>, target: Target) -> Result<Rule, Wrong> {
    let spec = &object.spec;
    let route = spec.route().map_err(|what| Wrong::new("route", what))?;
    // What orders the routes: `/a/b` before `/a/{name}` before `/a/{rest...}`.
    let texts: Vec<&str> = route
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Exact(text) => &**text,
            Segment::One(_) => "*",
            Segment::Rest(_) => "",
        })
        .collect();
    let text = format!("/{}", texts.join("/"));
    let exact = route
        .segments
        .iter()
        .all(|segment| matches!(segment, Segment::Exact(_)));
    let kind = match exact {
        true => PathKind::Exact,
        false => PathKind::Segments(route.segments.into()),
    };
    Ok(Rule {
        name: object.full_name(),
        labels: object.labels.clone(),
        host: HostRule::Glob(Glob::new(spec.hostname.as_deref().unwrap_or("*"))),
        path: PathRule {
            text,
            kind,
            case_sensitive: true,
        },
        method: Some(Test::Exact(route.method)),
        headers: Vec::new(),
        query: Vec::new(),
        precedence: 0,
        weight: None,
        shadow: false,
        agreed: Vec::new(),
        rewrite: Rewrite::Keep,
        redirect: None,
        target,
    })
}
