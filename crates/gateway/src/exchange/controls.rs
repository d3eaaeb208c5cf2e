//! What a trusted proxy in front asks for one request: its time and its retries, by Envoy's request headers.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use model::retry::{Hedge, RetryOn};

use crate::policy::retry::{Conditions, Retry};
use crate::snapshot::Route;

const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const STATUSES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const HEADERS: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");

const ALL: [HeaderName; 8] = [
    TIMEOUT, PER_TRY, RETRY_ON, GRPC_ON, RETRIES, STATUSES, HEADERS, HEDGE,
];
/// Most retries that can be asked for.
const RETRIES_MAX: u32 = 100;

/// What is asked for one request.
#[derive(Debug, PartialEq)]
pub(super) struct Controls {
    /// For the whole request, in milliseconds; 0 for no limit.
    pub(super) timeout_ms: Option<u64>,
    /// In the place of the route's.
    pub(super) retry: Option<Arc<Retry>>,
}

/// Takes the headers off the request; `None` when there are none. What cannot be read counts as not there.
pub(super) fn take(headers: &mut HeaderMap, route: &Route) -> Option<Controls> {
    let mut there = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-envoy-"));
    if !there.any(|name| ALL.contains(name)) {
        return None;
    }
    let mut taken = HeaderMap::new();
    for name in ALL {
        if let Some(value) = headers.remove(&name) {
            taken.insert(name, value);
        }
    }
    Some(read(&taken, route.retry.as_deref()))
}

fn read(headers: &HeaderMap, routes: Option<&Retry>) -> Controls {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &HeaderName| text(name).and_then(|text| text.trim().parse::<u64>().ok());
    let timeout_ms = number(&TIMEOUT);
    let list = |name: &HeaderName| {
        let items = text(name).unwrap_or_default().split(',');
        items.map(str::trim).filter(|item| !item.is_empty())
    };
    let asked = list(&RETRY_ON).chain(list(&GRPC_ON));
    let asked = Conditions::of(asked.filter_map(RetryOn::parse));
    let mut retry = routes.cloned().unwrap_or_else(Retry::none);
    retry.on = retry.on.or(asked);
    if let Some(retries) = number(&RETRIES) {
        retry.retries_max = retries.min(RETRIES_MAX.into()) as u32;
    }
    if let Some(limit) = number(&PER_TRY) {
        let within = timeout_ms.is_none_or(|whole| whole == 0 || limit < whole);
        retry.per_try = (limit > 0 && within).then(|| Duration::from_millis(limit));
    }
    retry
        .statuses
        .extend(list(&STATUSES).filter_map(|code| code.parse::<u16>().ok()));
    retry
        .headers
        .extend(list(&HEADERS).filter_map(|name| name.parse::<HeaderName>().ok()));
    if let Some(value) = headers.get(&HEDGE) {
        let hedge = retry.hedge.get_or_insert_with(Hedge::default);
        hedge.hedge_on_per_try_timeout = value == HeaderValue::from_static("true");
    }
    let needed = routes.is_some() || asked != Conditions::default() || retry.per_try.is_some();
    Controls {
        timeout_ms,
        retry: needed.then(|| Arc::new(retry)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(lines: &str, routes: Option<&Retry>) -> Controls {
        let pairs = lines.lines().filter_map(|line| line.split_once(": "));
        let headers = pairs.map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, value.parse().expect("a value"))
        });
        read(&headers.collect(), routes)
    }

    #[test]
    fn headers_say_when_and_how_often() {
        let controls = asked(
            "x-envoy-retry-on: 5xx, retriable-status-codes, nonsense\nx-envoy-retry-grpc-on: unavailable\n\
             x-envoy-max-retries: 4\nx-envoy-retriable-status-codes: 409, x, 418\n\
             x-envoy-upstream-rq-timeout-ms: 900\nx-envoy-upstream-rq-per-try-timeout-ms: 100",
            None,
        );
        assert_eq!(controls.timeout_ms, Some(900));
        let retry = controls.retry.expect("retries");
        let on = [
            RetryOn::ServerError,
            RetryOn::RetriableStatusCodes,
            RetryOn::Unavailable,
        ];
        assert_eq!(retry.on, Conditions::of(on));
        assert_eq!(retry.retries_max, 4);
        assert_eq!(retry.statuses, [409, 418]);
        assert_eq!(retry.per_try, Some(Duration::from_millis(100)));
    }

    #[test]
    fn the_routes_own_conditions_stay() {
        let routes = Retry {
            on: Conditions::of([RetryOn::Reset]),
            retries_max: 2,
            ..Retry::none()
        };
        let retry = asked("x-envoy-retry-on: 5xx", Some(&routes))
            .retry
            .expect("retries");
        assert!(retry.on.has(RetryOn::Reset) && retry.on.has(RetryOn::ServerError));
        assert_eq!(retry.retries_max, 2);
        let retry = asked("x-envoy-max-retries: 0", Some(&routes))
            .retry
            .expect("retries");
        assert_eq!(retry.retries_max, 0);
    }

    #[test]
    fn a_time_alone_asks_for_no_retries_and_nonsense_for_nothing() {
        let controls = asked("x-envoy-upstream-rq-timeout-ms: 50", None);
        assert_eq!(controls.timeout_ms, Some(50));
        assert_eq!(controls.retry, None);
        let controls = asked(
            "x-envoy-upstream-rq-timeout-ms: -1\nx-envoy-max-retries: many",
            None,
        );
        assert_eq!((controls.timeout_ms, controls.retry), (None, None));
        // A limit of each try that is no shorter than that of all is none.
        let both = "x-envoy-upstream-rq-timeout-ms: 50\nx-envoy-upstream-rq-per-try-timeout-ms: 50";
        assert_eq!(asked(both, None).retry, None);
    }
}
