//! Mapping: requests that look like this go to that service.

pub mod balance;

use std::collections::BTreeMap;
use std::time::Duration;

use balance::{OutlierDetection, SlowStart, TcpHealthCheck, ZonePreference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::retry::{Hedge, RetryPolicy};

/// Sends the requests that match to a service, changed on the way as told.
///
/// This is Ambassador's Mapping (`getambassador.io/v3alpha1`), field by field. In `nuncio.yaml` each item of `routes:`
/// is such a spec.
///
/// ```yaml
/// prefix: /orders/
/// service: orders
/// timeout_ms: 5000
/// retry_policy: { retry_on: 5xx, num_retries: 2 }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Instances that take this object; `default` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambassador_id: Option<Vec<String>>,

    /// Path prefix, compared as plain text: `/man` also matches `/mankind`.
    pub prefix: String,

    /// Whether the whole path must equal `prefix`.
    #[serde(default)]
    pub prefix_exact: bool,

    /// Whether `prefix` is a regular expression over the entire path, without the query.
    #[serde(default)]
    pub prefix_regex: bool,

    /// Whether upper and lower case differ in the path; ignored for regular expressions.
    #[serde(default = "yes")]
    pub case_sensitive: bool,

    /// Glob over the authority, port included: `*`, `*.example.com` or `example.*`. Also decides which Hosts serve it.
    /// In `nuncio.yaml` a route without it is for every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,

    /// Exact authority, or a regular expression with `host_regex`. Deprecated: write `hostname`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,

    /// Whether `host` is a regular expression over the entire authority.
    #[serde(default)]
    pub host_regex: bool,

    /// Method that the request must have, in upper case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,

    /// Whether `method` is a regular expression over the entire method.
    #[serde(default)]
    pub method_regex: bool,

    /// Headers that must be there with exactly this value.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,

    /// Headers whose entire value must match a regular expression; `.*` asks for presence.
    #[serde(default)]
    pub regex_headers: BTreeMap<String, String>,

    /// Query parameters that must be there with exactly this value.
    #[serde(default)]
    pub query_parameters: BTreeMap<String, String>,

    /// Query parameters whose entire value must match a regular expression; `.*` asks for presence.
    #[serde(default)]
    pub regex_query_parameters: BTreeMap<String, String>,

    /// Routes of higher precedence are tried first, before anything else counts.
    #[serde(default)]
    pub precedence: i32,

    /// Which bucket of the circuit breakers the requests count in.
    #[serde(default)]
    pub priority: Priority,

    /// Where the requests go: `[scheme://]host[.namespace][:port]`. `https://` originates TLS.
    pub service: String,

    /// How the service's endpoints are found: `kubernetes-service` (DNS), `endpoint` or `kubernetes-endpoint` (Endpoints and
    /// EndpointSlices), `consul`, or the name of a resolver object. The Module's `resolver` when nothing is said; where that
    /// says nothing either, Endpoints count where the service has some, and else DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,

    /// What replaces the matched prefix; `/` when nothing is said, and `""` leaves the path alone. With `prefix_regex` the
    /// path stays as it is when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,

    /// Replaces every match of a pattern in the path; stronger than `rewrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex_rewrite: Option<RegexRewrite>,

    /// Host that the service sees instead of the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_rewrite: Option<String>,

    /// Whether the service sees its own DNS name as host.
    #[serde(default)]
    pub auto_host_rewrite: bool,

    /// Whether to answer with a redirect to `service` as the host instead of proxying.
    #[serde(default)]
    pub host_redirect: bool,

    /// Path of the redirect; needs `host_redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_redirect: Option<String>,

    /// What replaces the matched prefix in the redirect; needs `host_redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_redirect: Option<String>,

    /// Replaces every match of a pattern in the redirect's path; needs `host_redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex_redirect: Option<RegexRewrite>,

    /// Status of the redirect: 301, 302, 303, 307 or 308; 301 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_response_code: Option<u16>,

    /// Share of the requests in percent among the Mappings that match the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,

    /// Whether this service gets a copy of the requests, its answers thrown away.
    #[serde(default)]
    pub shadow: bool,

    /// Milliseconds for the whole request, retries included; the Module's `cluster_request_timeout_ms` or 3000 when
    /// nothing is said, 0 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,

    /// Milliseconds without a byte after which the stream ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,

    /// Milliseconds for connecting to the service; 3000 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u64>,

    /// Milliseconds after which an unused connection to the service is closed; 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_idle_timeout_ms: Option<u64>,

    /// Milliseconds after which a connection to the service takes no more requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_max_connection_lifetime_ms: Option<u64>,

    /// When and how often to try again; the Module's when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,

    /// Second tries beside the first one. Envoy's; Ambassador has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,

    /// Limits of what is open at once towards the service; the Module's when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breakers: Option<Vec<CircuitBreaker>>,

    /// How one endpoint is picked; the Module's when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,

    /// Active health checks of the endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_checks: Vec<HealthCheck>,

    /// Puts endpoints that fail aside for a while; the Module's when nothing is said. In Ambassador's schema but never
    /// supported there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "balance::outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,

    /// How the service's name is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_type: Option<DnsType>,

    /// Whether the time to live of the DNS answer decides when to look up again.
    #[serde(default)]
    pub respect_dns_ttl: bool,

    /// Whether IPv4 addresses are used; the Module's, or true, when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,

    /// Whether IPv6 addresses are used; the Module's, or false, when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,

    /// TCP keep-alive towards the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Keepalive>,

    /// TLSContext for TLS towards the service, which is spoken then even without `https://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,

    /// Whether each connection to the service begins with the client's address, and in which version of the PROXY
    /// protocol; such a connection carries one request. Envoy's; Ambassador has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyVersion>,

    /// Whether the service speaks HTTP/2, as gRPC needs.
    #[serde(default)]
    pub grpc: bool,

    /// Protocols that a client may upgrade to, such as `websocket`; upper and lower case do not differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_upgrade: Vec<String>,

    /// Old spelling of `allow_upgrade: [websocket]`.
    #[serde(default)]
    pub use_websocket: bool,

    /// Cross-origin rules; the Module's when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,

    /// Headers added to the request; even `{}` replaces the Module's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_request_headers: Option<BTreeMap<String, AddedHeader>>,

    /// Headers added to the answer; even `{}` replaces the Module's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_response_headers: Option<BTreeMap<String, AddedHeader>>,

    /// Headers taken off the request; even `[]` replaces the Module's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_request_headers: Option<Vec<String>>,

    /// Headers taken off the answer; even `[]` replaces the Module's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_response_headers: Option<Vec<String>>,

    /// Whether `l5d-dst-override` is sent; the Module's when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_linkerd_headers: Option<bool>,

    /// Whether the AuthService is passed over.
    #[serde(default)]
    pub bypass_auth: bool,

    /// Told to a gRPC AuthService as `context_extensions`.
    #[serde(default)]
    pub auth_context_extensions: BTreeMap<String, String>,

    /// Descriptors for rate limits, by domain.
    #[serde(default)]
    pub labels: BTreeMap<String, Vec<BTreeMap<String, Vec<Label>>>>,

    /// Where the service's own documentation is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<Docs>,

    /// Name of the upstream in metrics; the service with `_` for everything but letters and digits when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_name: Option<String>,

    /// Gives the Mapping an upstream of its own instead of one shared by equal services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_tag: Option<String>,

    /// Bodies for error answers; replaces the Module's list entirely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_response_overrides: Option<Vec<ErrorResponseOverride>>,

    /// Whether this route keeps its error answers as they are.
    #[serde(default)]
    pub bypass_error_response_overrides: bool,

    /// Unused leftover of Ambassador.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<serde_json::Value>,

    /// Unused leftover of Ambassador.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_override: Option<serde_json::Value>,
}

impl Mapping {
    /// Puts old spellings into the current ones, so that one reader of each field is enough.
    pub(crate) fn normalise(&mut self) {
        let websocket = |name: &String| name.eq_ignore_ascii_case("websocket");
        if self.use_websocket && !self.allow_upgrade.iter().any(websocket) {
            self.allow_upgrade.push("websocket".to_owned());
        }
        if !self.method_regex
            && let Some(method) = &mut self.method
        {
            method.make_ascii_uppercase();
        }
        if self.hostname.is_some() {
            self.host = None;
            self.host_regex = false;
        }
    }
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

fn yes() -> bool {
    true
}

/// Which bucket of the circuit breakers requests count in.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// The common bucket.
    #[default]
    Default,
    /// A bucket of its own.
    High,
}

/// A regular expression and what replaces its matches; `\1` is the first group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexRewrite {
    /// What is looked for.
    pub pattern: String,

    /// What stands in its place.
    pub substitution: String,
}

/// Limits of what is open at once towards a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Requests of which priority it limits.
    #[serde(default)]
    pub priority: Priority,

    /// Open connections; 1024 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,

    /// Requests that wait for a connection; 1024 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,

    /// Requests under way; 1024 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,

    /// Retries under way; 3 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// How one endpoint is picked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancer {
    /// The rule.
    pub policy: LoadBalancerPolicy,

    /// Hash by a cookie, which is made when the client has none and its `ttl` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<HashCookie>,

    /// Hash by a header; a request without it goes to an endpoint picked at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,

    /// Hash by the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<bool>,

    /// Gives new endpoints less at first; for `round_robin` and `least_request`. Not in Ambassador.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,

    /// Prefers the gateway's own zone, which the Module's `zone` or the variable `NUNCIO_ZONE` tells. Not in
    /// Ambassador.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_preference: Option<ZonePreference>,

    /// When less than this percentage of the endpoints is healthy, health is ignored, 0 (never) to 100; 50 when nothing
    /// is said. Not in Ambassador, which has Envoy's 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_panic_threshold: Option<u32>,
}

/// The rule by which an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancerPolicy {
    /// One after the other.
    RoundRobin,
    /// The less busy of two.
    LeastRequest,
    /// Consistent hashing on a ring.
    RingHash,
    /// Consistent hashing by table.
    Maglev,
    /// Any, as often as their weights say. Not in Ambassador.
    Random,
}

/// The cookie that keeps a client on its endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashCookie {
    /// The cookie's name.
    pub name: String,

    /// The path it is set for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,

    /// How long a cookie lives that is made for a client without one, such as `60s`; `0` for as long as the browser
    /// runs. None is made when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub ttl: Option<Duration>,
}

/// An active health check of every endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// How long an endpoint may take to answer; `3s` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Duration>,

    /// Time between two checks; `5s` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub interval: Option<Duration>,

    /// Failures in a row that take an endpoint out; 2 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<u32>,

    /// Successes in a row that take it in again; 1 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<u32>,

    /// What is asked.
    pub health_check: HealthCheckKind,
}

/// What a health check asks; exactly one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheckKind {
    /// An HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHealthCheck>,

    /// The gRPC health service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcHealthCheck>,

    /// Nothing: that a connection opens is enough. Not in Ambassador.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpHealthCheck>,
}

/// A health check by HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpHealthCheck {
    /// Path that is asked for.
    pub path: String,

    /// Host that is asked for; the service when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,

    /// Headers added to the check.
    #[serde(default)]
    pub add_request_headers: BTreeMap<String, AddedHeader>,

    /// Headers taken off the check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_request_headers: Vec<String>,

    /// Statuses that count as healthy; 200 when nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected_statuses: Vec<StatusRange>,
}

/// Statuses from `min` to `max`, both included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusRange {
    /// The first.
    pub min: u16,

    /// The last.
    pub max: u16,
}

/// A health check by the gRPC health service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcHealthCheck {
    /// Service whose health is asked for.
    pub upstream_name: String,

    /// Authority of the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// How a service's name becomes addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DnsType {
    /// All addresses of the answer are endpoints.
    StrictDns,
    /// One address is the endpoint; it stays the same while the answer has it.
    LogicalDns,
    /// SRV records tell targets, ports and weights; `service` is their name, such as `_http._tcp.orders.example.com`.
    /// Targets of the first priority with an address are endpoints. An extension to Ambassador.
    Srv,
}

/// TCP keep-alive towards a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keepalive {
    /// Probes without an answer that end the connection; 9 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,

    /// Seconds of quiet before the first probe; 7200 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_time: Option<u32>,

    /// Seconds between probes; 75 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
}

/// Cross-origin rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins that may ask, exact, or `*`.
    #[serde(default)]
    pub origins: Vec<String>,

    /// Methods they may use.
    #[serde(default)]
    pub methods: Vec<String>,

    /// Headers they may send.
    #[serde(default)]
    pub headers: Vec<String>,

    /// Headers they may read.
    #[serde(default)]
    pub exposed_headers: Vec<String>,

    /// Whether they may send credentials.
    #[serde(default)]
    pub credentials: bool,

    /// Seconds for which a browser may remember the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
}

/// A header to add.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddedHeader {
    /// Its value; `%NAME%` stands for Envoy's variables.
    pub value: String,

    /// Whether it joins values that are there already, instead of replacing them.
    #[serde(default = "yes")]
    pub append: bool,
}

/// One part of a rate limit descriptor; exactly one field is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The gateway's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_cluster: Option<LabelKey>,

    /// The upstream's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_cluster: Option<LabelKey>,

    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_address: Option<LabelKey>,

    /// A fixed value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generic_key: Option<GenericKey>,

    /// A header's value; without that header the whole group is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderLabel>,
}

/// The key of a label whose value is known to the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelKey {
    /// The descriptor's key.
    pub key: String,
}

/// A fixed label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenericKey {
    /// The descriptor's key; `generic_key` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,

    /// The descriptor's value.
    pub value: String,
}

/// A label from a header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderLabel {
    /// The descriptor's key.
    pub key: String,

    /// The header.
    pub header_name: String,

    /// Accepted as Ambassador does, which ignores it.
    #[serde(default)]
    pub omit_if_not_present: bool,
}

/// Where a service's documentation is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Docs {
    /// Path of the OpenAPI document at the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,

    /// Address of the OpenAPI document elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// Whether there is none.
    #[serde(default)]
    pub ignored: bool,

    /// Name shown to readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,

    /// Milliseconds for getting it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The body of error answers of one status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorResponseOverride {
    /// The status, 400 to 599.
    pub on_status_code: u16,

    /// The body.
    pub body: ErrorBody,
}

/// A body for error answers; exactly one of the formats is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    /// Text, with Envoy's variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_format: Option<String>,

    /// A JSON object, with Envoy's variables in its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_format: Option<BTreeMap<String, String>>,

    /// Text from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_format_source: Option<TextSource>,

    /// Content type of the text; `text/plain` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// Text from a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextSource {
    /// The file's path.
    pub filename: String,
}
