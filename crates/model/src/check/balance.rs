//! Checks of how endpoints are picked, looked after and put aside.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{header_name, header_value};
use crate::mapping::balance::OutlierDetection;
use crate::mapping::{HealthCheck, HttpHealthCheck, LoadBalancer, LoadBalancerPolicy};
use crate::read::Finding;

const PERCENT: RangeInclusive<u32> = 0..=100;
/// Checks more often than this would be an attack.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Checks that a policy has the key it needs, and no other.
pub(super) fn load_balancer(balancer: &LoadBalancer, path: &str, findings: &mut Vec<Finding>) {
    use LoadBalancerPolicy::*;
    let keys = [
        balancer.cookie.is_some(),
        balancer.header.is_some(),
        balancer.source_ip == Some(true),
    ];
    let keys = keys.iter().filter(|there| **there).count();
    let what = match balancer.policy {
        RoundRobin | LeastRequest | Random if keys > 0 => {
            Some("this policy takes none of `cookie`, `header` and `source_ip`")
        }
        RingHash | Maglev if keys != 1 => {
            Some("this policy needs exactly one of `cookie`, `header` and `source_ip`")
        }
        _ => None,
    };
    if let Some(what) = what {
        findings.push(Finding::error(&format!("{path}.policy"), what));
    }
    if let Some(header) = &balancer.header {
        header_name(header, &format!("{path}.header"), findings);
    }
    if let Some(cookie) = &balancer.cookie {
        let path = format!("{path}.cookie");
        let separator = |c: char| !c.is_ascii_graphic() || "()<>@,;:\\\"/[]?={}".contains(c);
        if cookie.name.is_empty() || cookie.name.contains(separator) {
            let what = format!("`{}` cannot be the name of a cookie", cookie.name);
            findings.push(Finding::error(&format!("{path}.name"), what));
        }
        let bad = |text: &&String| text.contains(|c: char| c == ';' || c.is_control());
        if let Some(told) = cookie.path.as_ref().filter(bad) {
            let what = format!("`{told}` cannot be the path of a cookie");
            findings.push(Finding::error(&format!("{path}.path"), what));
        }
    }
    if let Some(slow) = &balancer.slow_start {
        let path = format!("{path}.slow_start");
        if !matches!(balancer.policy, RoundRobin | LeastRequest) {
            let what = "only `round_robin` and `least_request` can start slowly";
            findings.push(Finding::error(&path, what));
        }
        if slow.window.is_zero() {
            let what = "a window of zero starts at once";
            findings.push(Finding::error(&format!("{path}.window"), what).hint("write `30s`"));
        }
        if slow
            .aggression
            .is_some_and(|aggression| !(0.1..=10.0).contains(&aggression))
        {
            let what = "the aggression is out of range";
            findings
                .push(Finding::error(&format!("{path}.aggression"), what).hint("use 0.1 to 10"));
        }
        let percent = slow.min_weight_percent;
        within(percent, 1..=100, &path, "min_weight_percent", findings);
    }
    if let Some(zone) = &balancer.zone_preference {
        let path = format!("{path}.zone_preference");
        let percent = zone.min_healthy_percent;
        within(percent, 1..=100, &path, "min_healthy_percent", findings);
        within(
            zone.min_endpoints,
            1..=u32::MAX,
            &path,
            "min_endpoints",
            findings,
        );
    }
    let panic = balancer.healthy_panic_threshold;
    within(panic, PERCENT, path, "healthy_panic_threshold", findings);
}

/// Checks the health checks of a Mapping.
pub(super) fn health_checks(checks: &[HealthCheck], findings: &mut Vec<Finding>) {
    for (index, check) in checks.iter().enumerate() {
        let path = format!("health_checks[{index}]");
        let kind = &check.health_check;
        let kinds = [kind.http.is_some(), kind.grpc.is_some(), kind.tcp.is_some()];
        if kinds.iter().filter(|there| **there).count() != 1 {
            let what = "a health check has exactly one of `http`, `grpc` and `tcp`";
            findings.push(Finding::error(&format!("{path}.health_check"), what));
        }
        if check.timeout.is_some_and(|timeout| timeout.is_zero()) {
            let what = "nobody answers in no time";
            findings.push(Finding::error(&format!("{path}.timeout"), what).hint("write `3s`"));
        }
        if check
            .interval
            .is_some_and(|interval| interval < INTERVAL_MIN)
        {
            let what = "checks more often than every 10ms are refused";
            findings.push(Finding::error(&format!("{path}.interval"), what).hint("write `5s`"));
        }
        let most = 1..=u32::MAX;
        let unhealthy = check.unhealthy_threshold;
        within(
            unhealthy,
            most.clone(),
            &path,
            "unhealthy_threshold",
            findings,
        );
        within(
            check.healthy_threshold,
            most,
            &path,
            "healthy_threshold",
            findings,
        );
        if let Some(http) = &kind.http {
            http_check(http, &format!("{path}.health_check.http"), findings);
        }
        if let Some(grpc) = &kind.grpc
            && let Some(authority) = &grpc.authority
            && (!visible(authority) || authority.contains(['/', '@', '?', '#']))
        {
            let what = format!("`{authority}` is no authority");
            let path = format!("{path}.health_check.grpc.authority");
            findings.push(Finding::error(&path, what));
        }
    }
}

fn visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn http_check(http: &HttpHealthCheck, path: &str, findings: &mut Vec<Finding>) {
    if !http.path.starts_with('/') || !visible(&http.path) {
        let what = format!("`{}` is no path", http.path);
        findings.push(Finding::error(&format!("{path}.path"), what).hint("write `/healthz`"));
    }
    if let Some(host) = http.hostname.as_ref().filter(|host| !visible(host)) {
        let what = format!("`{host}` is no host name");
        findings.push(Finding::error(&format!("{path}.hostname"), what));
    }
    for (name, header) in &http.add_request_headers {
        let path = format!("{path}.add_request_headers.{name}");
        header_name(name, &path, findings);
        header_value(&header.value, &path, findings);
    }
    for (index, name) in http.remove_request_headers.iter().enumerate() {
        header_name(
            name,
            &format!("{path}.remove_request_headers[{index}]"),
            findings,
        );
    }
    for (index, range) in http.expected_statuses.iter().enumerate() {
        if range.min > range.max || range.min < 100 || range.max > 599 {
            let what = "this is no range of statuses";
            let path = format!("{path}.expected_statuses[{index}]");
            findings.push(Finding::error(&path, what).hint("write `{ min: 200, max: 299 }`"));
        }
    }
}

/// Checks the bounds of outlier detection.
pub(super) fn outlier_detection(said: &OutlierDetection, findings: &mut Vec<Finding>) {
    let path = "outlier_detection";
    for (percent, field) in [
        (said.max_ejection_percent, "max_ejection_percent"),
        (said.enforcing_consecutive_5xx, "enforcing_consecutive_5xx"),
        (
            said.enforcing_consecutive_gateway_failure,
            "enforcing_consecutive_gateway_failure",
        ),
        (
            said.enforcing_consecutive_local_origin_failure,
            "enforcing_consecutive_local_origin_failure",
        ),
        (said.enforcing_success_rate, "enforcing_success_rate"),
        (
            said.enforcing_failure_percentage,
            "enforcing_failure_percentage",
        ),
    ] {
        within(percent, PERCENT, path, field, findings);
    }
    let threshold = said.failure_percentage_threshold;
    within(
        threshold,
        1..=100,
        path,
        "failure_percentage_threshold",
        findings,
    );
    if said
        .interval
        .is_some_and(|interval| interval < INTERVAL_MIN)
    {
        let what = "an interval shorter than 10ms is refused";
        findings.push(Finding::error("outlier_detection.interval", what).hint("write `10s`"));
    }
    if let (Some(base), Some(max)) = (said.base_ejection_time, said.max_ejection_time)
        && max < base
    {
        let what = "`max_ejection_time` is shorter than `base_ejection_time`";
        findings.push(Finding::error("outlier_detection.max_ejection_time", what));
    }
}

fn within(
    value: Option<u32>,
    range: RangeInclusive<u32>,
    path: &str,
    field: &str,
    findings: &mut Vec<Finding>,
) {
    let Some(value) = value.filter(|value| !range.contains(value)) else {
        return;
    };
    let what = format!("{value} is out of range");
    let hint = match *range.end() {
        u32::MAX => format!("use {} or more", range.start()),
        end => format!("use {} to {end}", range.start()),
    };
    findings.push(Finding::error(&format!("{path}.{field}"), what).hint(hint));
}
