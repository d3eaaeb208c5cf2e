//! Extensions of how endpoints are picked and put aside; the names are Envoy's.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

/// Gives an endpoint that has just joined or recovered less at first.
///
/// After the time `t` in the window it weighs its own weight times `(t / window) ^ (1 / aggression)`, and at least
/// `min_weight_percent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStart {
    /// How long it takes until an endpoint has its whole share, such as `30s`.
    #[serde(with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub window: Duration,

    /// Above 1 the share grows fast at first, below 1 slowly; from 0.1 to 10, 1 (a straight line) when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggression: Option<f64>,

    /// Percent of its weight that an endpoint has at least, 1 to 100; 10 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_weight_percent: Option<u32>,
}

/// Keeps requests in the gateway's own zone while that has enough healthy endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZonePreference {
    /// Percent of the zone's endpoints that must be healthy, 1 to 100; 70 when nothing is said. With fewer, requests
    /// go to all zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_percent: Option<u32>,

    /// Healthy endpoints that the zone must have, at least 1; 1 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_endpoints: Option<u32>,
}

/// A health check that is content when a connection opens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpHealthCheck {}

/// Puts endpoints that fail aside for a while, going by the answers to real requests.
///
/// ```yaml
/// outlier_detection: { consecutive_5xx: 3, base_ejection_time: 10s, max_ejection_percent: 50 }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Answers with 5xx, or none at all, in a row that put an endpoint aside; 5 when nothing is said, 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_5xx: Option<u32>,

    /// The same for 502, 503, 504 and no answer; never when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_failure: Option<u32>,

    /// The same for failures without an answer, such as refused connections; never when nothing is said, and 5 with
    /// `split_external_local_origin_errors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failure: Option<u32>,

    /// Whether a failure without an answer counts for `consecutive_local_origin_failure` alone.
    pub split_external_local_origin_errors: bool,

    /// How often rates are looked at and endpoints come back; `10s` when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub interval: Option<Duration>,

    /// How long an endpoint stays aside, times how often it was; `30s` when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub base_ejection_time: Option<Duration>,

    /// Longest time aside; `300s`, or `base_ejection_time` if that is longer, when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub max_ejection_time: Option<Duration>,

    /// Percent of the endpoints that may be aside at once, 0 to 100; 10 when nothing is said. One always may where
    /// there are two or more, the last never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejection_percent: Option<u32>,

    /// Percent of the chances to put an endpoint aside for `consecutive_5xx` that are taken; 100 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcing_consecutive_5xx: Option<u32>,

    /// The same for `consecutive_gateway_failure`; 100 where that is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcing_consecutive_gateway_failure: Option<u32>,

    /// The same for `consecutive_local_origin_failure`; 100 where that is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcing_consecutive_local_origin_failure: Option<u32>,

    /// The same for success rates; 100 when nothing is said, 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcing_success_rate: Option<u32>,

    /// The same for failure percentages; 0 (never) when nothing is said, 100 where `failure_percentage_threshold` is
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcing_failure_percentage: Option<u32>,

    /// Endpoints that must have had enough requests in an interval before success rates are compared; 5 when nothing
    /// is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate_minimum_hosts: Option<u32>,

    /// How many requests in an interval are enough; 100 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate_request_volume: Option<u32>,

    /// Thousandths of the standard deviation that a success rate may lie below the mean; 1900 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate_stdev_factor: Option<u32>,

    /// Percent of failures in an interval that put an endpoint aside, 1 to 100; 85 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percentage_threshold: Option<u32>,

    /// Endpoints that must have had enough requests for that; 5 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percentage_minimum_hosts: Option<u32>,

    /// How many requests in an interval are enough for that; 50 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percentage_request_volume: Option<u32>,
}

/// Reads the object, or a text that holds it as YAML or JSON: in Ambassador's schema the field is a text.
pub(crate) fn outlier_detection<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<OutlierDetection>, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Option<OutlierDetection>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of fields")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            OutlierDetection::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            serde_saphyr::from_str(text).map(Some).map_err(|_| {
                E::custom(
                    "this text is no outlier detection; write a map such as \
                     `{ consecutive_5xx: 5, base_ejection_time: 30s }`",
                )
            })
        }
    }

    from.deserialize_any(Either)
}
