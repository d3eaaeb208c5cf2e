//! When a request is tried again, and when a second try runs beside the first.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IntoDeserializer as _, SeqAccess, Visitor, value::StrDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// When and how often a request is tried again.
///
/// Ambassador has `retry_on` with one value, `num_retries` and `per_try_timeout`; the rest are Envoy's fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// What is worth another try: one value, several with commas between them, or a list.
    pub retry_on: RetryConditions,

    /// Tries after the first one; 1 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_retries: Option<u32>,

    /// Limit of each single try, such as `250ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub per_try_timeout: Option<Duration>,

    /// Statuses that `retriable-status-codes` means, beside those of a trusted proxy's
    /// `x-envoy-retriable-status-codes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retriable_status_codes: Vec<u16>,

    /// Names of headers that `retriable-headers` means: an answer with one of them is worth another try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retriable_headers: Vec<String>,

    /// Whether requests are tried again whose method is not idempotent, such as POST, though the service may have worked
    /// on them. Without it they are when the service cannot have seen them.
    #[serde(default)]
    pub retry_non_idempotent: bool,

    /// The waits between tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOff>,

    /// How many retries may be under way at once; without it the circuit breaker's `max_retries`, or one in five of the
    /// requests under way where that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// The waits between tries: a random part of a time that doubles with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackOff {
    /// The wait before the first retry is below it; `25ms` when nothing is said.
    #[serde(default = "base_interval", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub base_interval: Duration,

    /// No wait is longer; ten times `base_interval` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub max_interval: Option<Duration>,
}

fn base_interval() -> Duration {
    Duration::from_millis(25)
}

impl Default for BackOff {
    fn default() -> Self {
        BackOff {
            base_interval: base_interval(),
            max_interval: None,
        }
    }
}

impl BackOff {
    /// Returns the longest wait.
    pub fn longest(&self) -> Duration {
        self.max_interval
            .unwrap_or(self.base_interval.saturating_mul(10))
    }
}

/// How many retries may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Percent of the requests under way; 20 when nothing is said.
    pub budget_percent: f64,

    /// So many are always allowed; 3 when nothing is said.
    pub min_retry_concurrency: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            budget_percent: 20.0,
            min_retry_concurrency: 3,
        }
    }
}

/// A second try beside the first, when that takes too long; the first good answer wins. Only requests that may be tried
/// again are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hedge {
    /// Tries that are sent at once, at most 5; 1 when nothing is said.
    pub initial_requests: u32,

    /// Whether a try whose `per_try_timeout` is over goes on beside the next one.
    pub hedge_on_per_try_timeout: bool,
}

impl Default for Hedge {
    fn default() -> Self {
        Hedge {
            initial_requests: 1,
            hedge_on_per_try_timeout: false,
        }
    }
}

/// What is worth another try; at least one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryConditions(pub Vec<RetryOn>);

/// What is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Any 5xx answer, or none at all.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503, 504 or no answer.
    GatewayError,
    /// No answer: the connection broke, could not be made, or the try took too long.
    Reset,
    /// No answer, and the request was not sent yet.
    ResetBeforeRequest,
    /// The connection could not be made.
    ConnectFailure,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// The service refused the HTTP/2 stream before working on it.
    RefusedStream,
    /// The statuses in `retriable_status_codes`.
    RetriableStatusCodes,
    /// The headers in `retriable_headers`.
    RetriableHeaders,
    /// An answer with `x-envoy-ratelimited`, which is never tried again without this.
    EnvoyRatelimited,
    /// gRPC status 1 in the head of the answer.
    Cancelled,
    /// gRPC status 4 in the head of the answer.
    DeadlineExceeded,
    /// gRPC status 13 in the head of the answer.
    Internal,
    /// gRPC status 8 in the head of the answer.
    ResourceExhausted,
    /// gRPC status 14 in the head of the answer.
    Unavailable,
}

impl RetryOn {
    /// Reads a condition by its name in a configuration or header.
    pub fn parse(text: &str) -> Option<RetryOn> {
        let text: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
        RetryOn::deserialize(text).ok()
    }
}

impl<'de> Deserialize<'de> for RetryConditions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Conditions)
    }
}

struct Conditions;

impl<'de> Visitor<'de> for Conditions {
    type Value = RetryConditions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a condition such as `5xx`, or a list of them")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RetryConditions, E> {
        if text.is_empty() {
            return Ok(RetryConditions(Vec::new())); // the checks refuse it
        }
        let read = |text: &str| {
            let text: StrDeserializer<'_, E> = text.trim().into_deserializer();
            RetryOn::deserialize(text)
        };
        text.split(',')
            .map(read)
            .collect::<Result<_, _>>()
            .map(RetryConditions)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<RetryConditions, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RetryConditions, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(RetryConditions(all))
    }
}

impl Serialize for RetryConditions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(to),
            several => several.serialize(to),
        }
    }
}

impl JsonSchema for RetryConditions {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetryConditions".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<RetryOn>();
        json_schema!({
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }, { "type": "string" }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[RetryOn]) {
        let read: RetryConditions = serde_json::from_str(text).expect("conditions");
        assert_eq!(read.0, expected, "{text}");
        let again = serde_json::to_string(&read).expect("JSON");
        assert_eq!(
            serde_json::from_str::<RetryConditions>(&again).expect("the same"),
            read
        );
    }

    #[test]
    fn conditions_are_one_or_many() {
        use RetryOn::*;
        check("\"5xx\"", &[ServerError]);
        check(
            "\"connect-failure, reset,retriable-4xx\"",
            &[ConnectFailure, Reset, Retriable4xx],
        );
        check(
            "[\"unavailable\", \"retriable-headers\"]",
            &[Unavailable, RetriableHeaders],
        );
        for bad in ["\"5xx,\"", "\"never\"", "500", "true", "{}"] {
            assert!(
                serde_json::from_str::<RetryConditions>(bad).is_err(),
                "{bad}"
            );
        }
        assert_eq!(RetryOn::parse("reset"), Some(Reset));
        assert_eq!(RetryOn::parse("resets"), None);
    }
}
