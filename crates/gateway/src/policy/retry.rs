//! When a request is tried again, how long after, and how many may be at once. Decisions only; `exchange` acts on them.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use model::retry::{BackOff, Budget, Hedge, RetryOn, RetryPolicy};

use crate::upstream::send::Failure;

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Without a budget, retries may always be one in so many of the requests under way.
const RETRY_SHARE: u64 = 5;

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Retry {
    pub(crate) on: Conditions,
    /// Tries after the first one.
    pub(crate) retries_max: u32,
    pub(crate) per_try: Option<Duration>,
    pub(crate) statuses: Vec<u16>,
    pub(crate) headers: Vec<HeaderName>,
    /// Also requests whose method is not idempotent.
    pub(crate) any_method: bool,
    pub(crate) back_off: BackOff,
    pub(crate) budget: Option<Budget>,
    pub(crate) hedge: Option<Hedge>,
}

/// A set of conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Conditions(u32);

impl Conditions {
    pub(crate) fn of(all: impl IntoIterator<Item = RetryOn>) -> Self {
        Conditions(all.into_iter().fold(0, |set, one| set | 1 << one as u32))
    }

    pub(crate) fn has(self, one: RetryOn) -> bool {
        self.0 & 1 << one as u32 != 0
    }

    pub(crate) fn or(self, other: Conditions) -> Conditions {
        Conditions(self.0 | other.0)
    }
}

impl Retry {
    pub(crate) fn new(policy: Option<&RetryPolicy>, hedge: Option<Hedge>) -> Option<Self> {
        let policy = match policy {
            None => return hedge.map(Retry::hedging),
            Some(policy) => policy,
        };
        let headers = policy.retriable_headers.iter();
        Some(Retry {
            on: Conditions::of(policy.retry_on.0.iter().copied()),
            retries_max: policy.num_retries.unwrap_or(1),
            per_try: policy.per_try_timeout.filter(|limit| !limit.is_zero()),
            statuses: policy.retriable_status_codes.clone(),
            headers: headers.filter_map(|name| name.parse().ok()).collect(),
            any_method: policy.retry_non_idempotent,
            back_off: policy.back_off.unwrap_or_default(),
            budget: policy.budget,
            hedge,
        })
    }

    /// Tries nothing again by itself.
    pub(crate) fn none() -> Self {
        Retry {
            on: Conditions::default(),
            retries_max: 1,
            per_try: None,
            statuses: Vec::new(),
            headers: Vec::new(),
            any_method: false,
            back_off: BackOff::default(),
            budget: None,
            hedge: None,
        }
    }

    fn hedging(hedge: Hedge) -> Self {
        Retry {
            retries_max: hedge.initial_requests.saturating_sub(1),
            hedge: Some(hedge),
            ..Retry::none()
        }
    }

    /// Returns whether an answer is worth another try. `harmless` says that working on the request twice is as good as
    /// once; an answer that asks for another try itself, by a header or a gRPC status, needs no such thing.
    pub(crate) fn wants_after_answer(
        &self,
        harmless: bool,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> bool {
        let on = self.on;
        if headers.contains_key(&RATE_LIMITED) {
            return on.has(RetryOn::EnvoyRatelimited);
        }
        let code = status.as_u16();
        let by_status = on.has(RetryOn::ServerError) && status.is_server_error()
            || on.has(RetryOn::GatewayError) && matches!(code, 502..=504)
            || on.has(RetryOn::Retriable4xx) && status == StatusCode::CONFLICT
            || on.has(RetryOn::RetriableStatusCodes) && self.statuses.contains(&code);
        if by_status && (harmless || self.any_method) {
            return true;
        }
        let by_header = on.has(RetryOn::RetriableHeaders)
            && self.headers.iter().any(|name| headers.contains_key(name));
        by_header
            || headers
                .get(&GRPC_STATUS)
                .and_then(condition)
                .is_some_and(|one| on.has(one))
    }

    /// Returns whether a failure is worth another try.
    pub(crate) fn wants_after_failure(&self, harmless: bool, failure: &Failure) -> bool {
        use Failure::*;
        let on = self.on;
        let unsent = failure.unsent();
        if !unsent && !harmless && !self.any_method {
            return false;
        }
        match failure {
            // Neither the upstream's fault, nor better a moment later.
            NoEndpoint | Overloaded | ClientBody | ClientIdle => false,
            failure => {
                on.has(RetryOn::ServerError)
                    || on.has(RetryOn::GatewayError)
                    || on.has(RetryOn::Reset)
                    || on.has(RetryOn::ResetBeforeRequest) && unsent
                    || on.has(RetryOn::ConnectFailure) && failure.unconnected()
                    || on.has(RetryOn::RefusedStream) && matches!(failure, RefusedStream)
            }
        }
    }

    /// Returns the wait before a retry, counted from 1; `random` is between 0 and 1.
    pub(crate) fn wait(&self, retry: u32, random: f64) -> Duration {
        let doubled = 2u32.saturating_pow(retry.saturating_sub(1).min(16));
        let most = self.back_off.base_interval.saturating_mul(doubled);
        most.min(self.back_off.longest()).mul_f64(random)
    }

    /// Returns how many retries may be under way, with so many requests under way.
    pub(crate) fn places(&self, retries_max: u64, active: u64) -> u64 {
        match self.budget {
            None => retries_max.max(active / RETRY_SHARE),
            Some(budget) => {
                let share = active as f64 * budget.budget_percent / 100.0;
                u64::from(budget.min_retry_concurrency).max(share as u64)
            }
        }
    }
}

fn condition(grpc_status: &http::HeaderValue) -> Option<RetryOn> {
    Some(match grpc_status.as_bytes() {
        b"1" => RetryOn::Cancelled,
        b"4" => RetryOn::DeadlineExceeded,
        b"8" => RetryOn::ResourceExhausted,
        b"13" => RetryOn::Internal,
        b"14" => RetryOn::Unavailable,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(policy: &str) -> Retry {
        let policy = serde_saphyr::from_str(policy).expect("the test's policy");
        Retry::new(Some(&policy), None).expect("a policy")
    }

    #[track_caller]
    fn check(on: &str, status: u16, header: &str, harmless: bool, expected: bool) {
        let retry = retry(&format!(
            "{{ retry_on: [{on}], retriable_status_codes: [418], retriable_headers: [x-again] }}"
        ));
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header.split_once(": ") {
            let name: HeaderName = name.parse().expect("a name");
            headers.insert(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let wants = retry.wants_after_answer(harmless, status, &headers);
        assert_eq!(wants, expected, "{on} {status} {header} {harmless}");
    }

    #[test]
    fn each_condition_has_its_answers() {
        for status in [500, 501, 502, 503, 504, 599] {
            check("5xx", status, "", true, true);
            check(
                "gateway-error",
                status,
                "",
                true,
                (502..=504).contains(&status),
            );
        }
        check("5xx", 418, "", true, false);
        check("retriable-4xx", 409, "", true, true);
        check("retriable-4xx", 404, "", true, false);
        check("retriable-status-codes", 418, "", true, true);
        check("retriable-status-codes", 503, "", true, false);
        check("5xx, retriable-4xx", 409, "", true, true);
        check(
            "reset, connect-failure, refused-stream",
            503,
            "",
            true,
            false,
        );
    }

    #[test]
    fn a_post_is_tried_again_only_where_the_service_asks_for_it() {
        check("5xx", 503, "", false, false);
        check("retriable-status-codes", 418, "", false, false);
        check("retriable-headers", 200, "x-again: 1", false, true);
        check("retriable-headers", 200, "x-other: 1", false, false);
        for (condition, status) in [
            ("cancelled", 1),
            ("deadline-exceeded", 4),
            ("resource-exhausted", 8),
            ("internal", 13),
            ("unavailable", 14),
        ] {
            check(
                condition,
                200,
                &format!("grpc-status: {status}"),
                false,
                true,
            );
            check(condition, 200, "grpc-status: 0", false, false);
            check(condition, 200, "", false, false);
        }
        let retry = retry("{ retry_on: 5xx, retry_non_idempotent: true }");
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert!(retry.wants_after_answer(false, unavailable, &HeaderMap::new()));
        assert!(retry.wants_after_failure(false, &Failure::TryTimeout));
    }

    #[test]
    fn who_is_limited_waits() {
        check("5xx", 503, "x-envoy-ratelimited: true", true, false);
        check(
            "envoy-ratelimited",
            429,
            "x-envoy-ratelimited: true",
            false,
            true,
        );
    }

    #[test]
    fn each_condition_has_its_failures() {
        use Failure::*;
        let refused = || Connect(std::io::ErrorKind::ConnectionRefused.into());
        let check = |on: &str, failure: &Failure, harmless: bool, expected: bool| {
            let retry = retry(&format!("{{ retry_on: {on} }}"));
            let wants = retry.wants_after_failure(harmless, failure);
            assert_eq!(wants, expected, "{on} {failure} {harmless}");
        };
        for on in ["5xx", "gateway-error", "reset"] {
            for failure in [refused(), ConnectTimeout, TryTimeout, RefusedStream] {
                check(on, &failure, true, true);
                check(on, &failure, false, failure.unsent());
            }
            for failure in [NoEndpoint, Overloaded, ClientBody, ClientIdle] {
                check(on, &failure, true, false);
            }
        }
        for on in ["connect-failure", "reset-before-request"] {
            check(on, &refused(), false, true);
            check(on, &ConnectTimeout, false, true);
            check(on, &TryTimeout, true, false);
        }
        check("connect-failure", &RefusedStream, true, false);
        check("reset-before-request", &RefusedStream, false, true);
        check("refused-stream", &RefusedStream, false, true);
        check("refused-stream", &refused(), true, false);
        check("retriable-4xx", &refused(), true, false);
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let longest = |policy: &str| -> Vec<u128> {
            let retry = retry(policy);
            (1..=6)
                .map(|number| retry.wait(number, 1.0).as_millis())
                .collect()
        };
        assert_eq!(longest("{ retry_on: 5xx }"), [25, 50, 100, 200, 250, 250]);
        assert_eq!(
            longest("{ retry_on: 5xx, back_off: { base_interval: 10ms, max_interval: 30ms } }"),
            [10, 20, 30, 30, 30, 30]
        );
        let retry = retry("{ retry_on: 5xx }");
        assert_eq!(retry.wait(3, 0.5), Duration::from_millis(50));
        assert!(retry.wait(u32::MAX, 1.0) <= Duration::from_millis(250));
    }

    #[test]
    fn a_budget_is_a_share_of_what_is_under_way() {
        let plain = retry("{ retry_on: 5xx }");
        assert_eq!(
            [0, 15, 16, 100].map(|active| plain.places(3, active)),
            [3, 3, 3, 20]
        );
        let budget = retry("{ retry_on: 5xx, budget: { budget_percent: 50 } }");
        assert_eq!(
            [0, 6, 8, 100].map(|active| budget.places(1000, active)),
            [3, 3, 4, 50]
        );
        let none = "{ retry_on: 5xx, budget: { budget_percent: 0, min_retry_concurrency: 0 } }";
        assert_eq!(retry(none).places(3, 100), 0);
    }
}
