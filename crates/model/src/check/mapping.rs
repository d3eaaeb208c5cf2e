//! Checks of one Mapping.

use std::collections::BTreeMap;

use super::{balance, glob, header_name, header_value, policies, regex};
use crate::mapping::{AddedHeader, CircuitBreaker, DnsType, Mapping, RegexRewrite};
use crate::read::{Finding, Written};
use crate::retry::{RetryOn, RetryPolicy};
use crate::target::Target;

pub(super) fn check(mapping: &Mapping, written: &Written, findings: &mut Vec<Finding>) {
    path(mapping, findings);
    host(mapping, findings);
    matches(mapping, written, findings);
    service(mapping, findings);
    rewrites(mapping, findings);
    redirects(mapping, findings);
    headers(mapping, findings);
    if let Some(weight) = mapping.weight.filter(|weight| *weight > 100) {
        findings.push(Finding::error(
            "weight",
            format!("a weight of {weight} is more than 100 percent"),
        ));
    }
    if let Some(policy) = &mapping.load_balancer {
        balance::load_balancer(policy, "load_balancer", findings);
    }
    balance::health_checks(&mapping.health_checks, findings);
    if let Some(outlier) = &mapping.outlier_detection {
        balance::outlier_detection(outlier, findings);
    }
    if let Some(policy) = &mapping.retry_policy {
        retry_policy(policy, "retry_policy", findings);
    }
    hedge(mapping, findings);
    circuit_breakers(&mapping.circuit_breakers, "circuit_breakers", findings);
    policies::cors(&mapping.cors, findings);
    policies::errors(&mapping.error_response_overrides, findings);
    // Long-lived streams are meant to last.
    let streams = mapping.grpc || mapping.use_websocket || !mapping.allow_upgrade.is_empty();
    if mapping.timeout_ms == Some(0) && !streams {
        let what = "0 means that a request may take forever";
        findings.push(Finding::warning("timeout_ms", what));
    }
}

fn path(mapping: &Mapping, findings: &mut Vec<Finding>) {
    if mapping.prefix_regex {
        regex(&mapping.prefix, "prefix", findings);
    } else if mapping.prefix.is_empty() {
        findings
            .push(Finding::error("prefix", "the prefix is empty").hint("write `/` for every path"));
    } else if !mapping.prefix.starts_with('/') {
        let what = format!(
            "no path starts with `{}`, so it never matches",
            mapping.prefix
        );
        findings.push(
            Finding::warning("prefix", what).hint(format!("did you mean `/{}`?", mapping.prefix)),
        );
    } else if mapping.prefix.contains(['?', '#']) {
        let what = "the path is compared without query, so it never matches";
        findings.push(Finding::warning("prefix", what).hint("use `query_parameters`"));
    }
    if mapping.prefix_exact && mapping.prefix_regex {
        let what = "`prefix_exact` and `prefix_regex` exclude each other";
        findings.push(Finding::error("prefix_exact", what));
    }
}

fn host(mapping: &Mapping, findings: &mut Vec<Finding>) {
    if let Some(hostname) = &mapping.hostname {
        glob(hostname, "hostname", findings);
        if mapping.host.is_some() {
            findings.push(Finding::warning(
                "host",
                "`hostname` wins, `host` has no effect",
            ));
            return;
        }
    }
    match &mapping.host {
        Some(host) if mapping.host_regex => regex(host, "host", findings),
        Some(host) if host.contains('*') => {
            let what = format!("`host: {host}` would have to be an exact name");
            findings
                .push(Finding::error("host", what).hint(format!("write `hostname: \"{host}\"`")));
        }
        Some(host) => glob(host, "host", findings),
        None if mapping.host_regex => {
            findings.push(Finding::error("host_regex", "`host_regex` needs `host`"));
        }
        None => (),
    }
}

fn matches(mapping: &Mapping, written: &Written, findings: &mut Vec<Finding>) {
    match &mapping.method {
        Some(method) if mapping.method_regex => regex(method, "method", findings),
        Some(method)
            if method.is_empty()
                || !method
                    .bytes()
                    .all(|byte| byte.is_ascii_alphabetic() || byte == b'-') =>
        {
            findings.push(Finding::error("method", format!("`{method}` is no method")));
        }
        Some(_) => (),
        None if mapping.method_regex => {
            findings.push(Finding::error(
                "method_regex",
                "`method_regex` needs `method`",
            ));
        }
        None => (),
    }
    for (name, value) in &mapping.headers {
        let path = format!("headers.{name}");
        header_name(name, &path, findings);
        header_value(value, &path, findings);
    }
    for (name, value) in &mapping.regex_headers {
        let path = format!("regex_headers.{name}");
        header_name(name, &path, findings);
        regex(value, &path, findings);
    }
    for (name, value) in &mapping.regex_query_parameters {
        regex(value, &format!("regex_query_parameters.{name}"), findings);
    }
    for field in ["headers", "query_parameters"] {
        for (key, value) in written
            .node
            .get(field)
            .map_or(&[][..], |node| node.entries())
        {
            if value.bool().is_some() {
                let path = format!("{field}.{}", key.text);
                let hint = format!(
                    "write `regex_{field}: {{ {}: \".*\" }}` to ask for presence, or quotes for the word",
                    key.text
                );
                findings.push(Finding::error(&path, "expected text, found a boolean").hint(hint));
            }
        }
    }
}

fn service(mapping: &Mapping, findings: &mut Vec<Finding>) {
    match Target::parse(&mapping.service) {
        Err(what) => {
            let hint = "write `service`, `service.namespace:port` or `https://service`";
            findings.push(Finding::error("service", what).hint(hint));
        }
        Ok(target) if mapping.tls.is_some() && !target.tls && mapping.service.contains("://") => {
            let what = "`http://` means no TLS, `tls` has no effect";
            findings.push(Finding::warning("tls", what).hint("take `http://` off"));
        }
        Ok(_) => (),
    }
    if mapping.dns_type == Some(DnsType::Srv)
        && let Ok(target) = Target::parse(&mapping.service)
    {
        if let Some(port) = target.port {
            let what = format!("SRV records tell the ports, `:{port}` has no effect");
            findings.push(Finding::error("service", what).hint(format!("write `{}`", target.host)));
        }
        if target.ip().is_some() {
            findings.push(Finding::error("dns_type", "an address is not looked up"));
        }
    }
}

fn rewrites(mapping: &Mapping, findings: &mut Vec<Finding>) {
    if let Some(rewrite) = &mapping.regex_rewrite {
        substitution(rewrite, "regex_rewrite", findings);
        if mapping.rewrite.is_some() {
            findings.push(Finding::warning(
                "rewrite",
                "`regex_rewrite` wins, `rewrite` has no effect",
            ));
        }
    }
    if let Some(rewrite) = &mapping.rewrite
        && rewrite.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        findings.push(Finding::error(
            "rewrite",
            "a path has no spaces or control characters",
        ));
    }
    if mapping.host_rewrite.is_some() && mapping.auto_host_rewrite {
        let what = "`host_rewrite` and `auto_host_rewrite` exclude each other";
        findings.push(Finding::error("auto_host_rewrite", what));
    }
}

/// Checks pattern and substitution; `\1` must have its group.
fn substitution(rewrite: &RegexRewrite, path: &str, findings: &mut Vec<Finding>) {
    let before = findings.len();
    regex(&rewrite.pattern, &format!("{path}.pattern"), findings);
    if findings.len() > before {
        return;
    }
    let groups = regex::Regex::new(&rewrite.pattern).map_or(0, |regex| regex.captures_len() - 1);
    let mut rest = rewrite.substitution.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            continue;
        }
        let path = format!("{path}.substitution");
        match rest.next() {
            Some('\\') => (),
            Some(digit) if digit.is_ascii_digit() => {
                let number = digit as usize - '0' as usize;
                if number > groups {
                    let what = format!("`\\{number}` has no group, the pattern has {groups}");
                    findings.push(Finding::error(&path, what));
                }
            }
            _ => {
                let what = "a `\\` is followed by the number of a group or by another `\\`";
                findings.push(Finding::error(&path, what));
            }
        }
    }
}

fn redirects(mapping: &Mapping, findings: &mut Vec<Finding>) {
    let written = [
        ("path_redirect", mapping.path_redirect.is_some()),
        ("prefix_redirect", mapping.prefix_redirect.is_some()),
        ("regex_redirect", mapping.regex_redirect.is_some()),
    ];
    let written: Vec<&str> = written
        .iter()
        .filter(|(_, there)| *there)
        .map(|(field, _)| *field)
        .collect();
    if let [first, .., last] = written.as_slice() {
        let what = format!("`{first}` and `{last}` exclude each other");
        findings.push(Finding::error(last, what));
    }
    if let Some(rewrite) = &mapping.regex_redirect {
        substitution(rewrite, "regex_redirect", findings);
    }
    if let Some(code) = mapping.redirect_response_code {
        if ![301, 302, 303, 307, 308].contains(&code) {
            let what = format!("{code} is no redirect");
            let finding = Finding::error("redirect_response_code", what);
            findings.push(finding.hint("use 301, 302, 303, 307 or 308"));
        } else if !mapping.host_redirect {
            let what = "`redirect_response_code` has no effect without `host_redirect`";
            findings.push(Finding::warning("redirect_response_code", what));
        }
    }
    for field in written {
        if !mapping.host_redirect {
            let what = format!("`{field}` has no effect without `host_redirect`");
            findings.push(Finding::warning(field, what).hint("write `host_redirect: true`"));
        }
    }
}

fn headers(mapping: &Mapping, findings: &mut Vec<Finding>) {
    added(
        &mapping.add_request_headers,
        "add_request_headers",
        findings,
    );
    added(
        &mapping.add_response_headers,
        "add_response_headers",
        findings,
    );
    for (list, path) in [
        (&mapping.remove_request_headers, "remove_request_headers"),
        (&mapping.remove_response_headers, "remove_response_headers"),
    ] {
        for (index, name) in list.iter().flatten().enumerate() {
            header_name(name, &format!("{path}[{index}]"), findings);
        }
    }
}

/// Checks headers to be added.
pub(super) fn added(
    headers: &Option<BTreeMap<String, AddedHeader>>,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    for (name, header) in headers.iter().flatten() {
        let path = format!("{path}.{name}");
        header_name(name, &path, findings);
        header_value(&header.value, &path, findings);
        super::format(&header.value, &path, findings);
    }
}

/// Most tries that may be sent at once.
const INITIAL_REQUESTS_MAX: u32 = 5;

/// Checks that conditions have what they need, and that numbers make sense.
pub(super) fn retry_policy(policy: &RetryPolicy, path: &str, findings: &mut Vec<Finding>) {
    let on = &policy.retry_on.0;
    let at = |field: &str| format!("{path}.{field}");
    if on.is_empty() {
        findings.push(Finding::error(&at("retry_on"), "the list is empty").hint("write `5xx`"));
    }
    let mut needed =
        |condition, field: &str, empty: bool, why: &str| match (on.contains(&condition), empty) {
            (true, true) => {
                let what = format!("nothing is tried again{why}");
                let finding = Finding::warning(&at("retry_on"), what);
                findings.push(finding.hint(format!("write `{field}: [..]`")));
            }
            (false, false) => {
                let what = format!("`{field}` has no effect without its condition in `retry_on`");
                findings.push(Finding::warning(&at(field), what));
            }
            _ => (),
        };
    needed(
        RetryOn::RetriableStatusCodes,
        "retriable_status_codes",
        policy.retriable_status_codes.is_empty(),
        " for its status, unless a trusted proxy tells which",
    );
    needed(
        RetryOn::RetriableHeaders,
        "retriable_headers",
        policy.retriable_headers.is_empty(),
        " for its headers, unless a trusted proxy tells which",
    );
    for (index, status) in policy.retriable_status_codes.iter().enumerate() {
        if !(100..=599).contains(status) {
            let what = format!("{status} is no status of an answer");
            let path = at(&format!("retriable_status_codes[{index}]"));
            findings.push(Finding::error(&path, what));
        }
    }
    for (index, name) in policy.retriable_headers.iter().enumerate() {
        header_name(name, &at(&format!("retriable_headers[{index}]")), findings);
    }
    if let Some(back_off) = policy.back_off {
        if back_off.base_interval.is_zero() {
            let what = "a wait of nothing does not spread the retries";
            let finding = Finding::error(&at("back_off.base_interval"), what);
            findings.push(finding.hint("write `25ms`"));
        } else if back_off.longest() < back_off.base_interval {
            let what = "the longest wait is shorter than the first one";
            findings.push(Finding::error(&at("back_off.max_interval"), what));
        }
    }
    if let Some(budget) = policy.budget
        && !(0.0..=100.0).contains(&budget.budget_percent)
    {
        let what = format!("{} is no percentage", budget.budget_percent);
        findings.push(Finding::error(&at("budget.budget_percent"), what));
    }
}

fn hedge(mapping: &Mapping, findings: &mut Vec<Finding>) {
    let Some(hedge) = &mapping.hedge else { return };
    if !(1..=INITIAL_REQUESTS_MAX).contains(&hedge.initial_requests) {
        let what = format!("{} tries at once are out of range", hedge.initial_requests);
        let finding = Finding::error("hedge.initial_requests", what);
        findings.push(finding.hint(format!("use 1 to {INITIAL_REQUESTS_MAX}")));
    }
    let limited = mapping.retry_policy.as_ref();
    if hedge.hedge_on_per_try_timeout
        && limited.is_some_and(|retry| retry.per_try_timeout.is_none())
    {
        let what = "no try is ever too long without `per_try_timeout`";
        let finding = Finding::warning("hedge.hedge_on_per_try_timeout", what);
        findings.push(finding.hint("write `retry_policy: { per_try_timeout: 250ms, .. }`"));
    }
}

/// Checks that each priority has its limits once.
pub(super) fn circuit_breakers(
    breakers: &Option<Vec<CircuitBreaker>>,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    let breakers = breakers.as_deref().unwrap_or_default();
    for (index, breaker) in breakers.iter().enumerate() {
        let before = &breakers[..index];
        if before
            .iter()
            .any(|other| other.priority == breaker.priority)
        {
            let what = "the limits of this priority are written above too, the last ones count";
            findings.push(Finding::warning(&format!("{path}[{index}]"), what));
        }
        if breaker.max_connections == Some(0) {
            let what = "without a connection no request is ever sent";
            let path = format!("{path}[{index}].max_connections");
            findings.push(Finding::warning(&path, what));
        }
    }
}
