//! Module `ambassador`: the global settings.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mapping::balance::OutlierDetection;
use crate::mapping::{
    AddedHeader, CircuitBreaker, Cors, ErrorResponseOverride, Label, LoadBalancer,
};
use crate::retry::RetryPolicy;

/// The global settings of the gateway: the `config` of Ambassador's Module named `ambassador`.
///
/// ```yaml
/// cluster_request_timeout_ms: 5000
/// strip_matching_host_port: true
/// defaults:
///   httpmapping:
///     add_response_headers: { x-served-by: { value: nuncio } }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Module {
    /// Whether connections begin with the PROXY protocol, where there is no Listener; Listeners say it themselves.
    pub use_proxy_proto: bool,

    /// Whether the connection's peer counts as the client; true when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_remote_address: Option<bool>,

    /// Trusted proxies in front; superseded by `l7Depth` of Listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xff_num_trusted_hops: Option<u32>,

    /// Whether requests that `X-Forwarded-Proto` calls cleartext are redirected; superseded by Host and Listener.
    pub x_forwarded_proto_redirect: bool,

    /// Whether a port in the request's host that equals the listener's is ignored.
    pub strip_matching_host_port: bool,

    /// Whether HTTP/1.0 is answered.
    pub enable_http10: bool,

    /// Whether services' IPv4 addresses are used; true when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,

    /// Whether services' IPv6 addresses are used; false when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,

    /// Milliseconds after which a connection without a request is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_idle_timeout_ms: Option<u64>,

    /// Largest request head in KiB, else 431; 32 when nothing is said (60 in Ambassador).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_headers_kb: Option<u32>,

    /// Bytes kept for one connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_limit_bytes: Option<u64>,

    /// TCP keep-alive towards services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<ModuleKeepalive>,

    /// Whether a request may have both a length and chunks. Nuncio always refuses it.
    pub allow_chunked_length: bool,

    /// What happens to headers with an underscore in their name; they pass when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_with_underscores_action: Option<UnderscoresAction>,

    /// Whether several slashes in a path count as one.
    pub merge_slashes: bool,

    /// Whether `%2F` and `%5C` in a path are refused with 400.
    pub reject_requests_with_escaped_slashes: bool,

    /// The `server` header of answers; `envoy` when nothing is said, as in Ambassador.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,

    /// Whether an answer that the gateway made because it could not pass the request on says why, in the header
    /// `x-nuncio-reason`; true when nothing is said, unless `suppress_envoy_headers` is. Not in Ambassador.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal_reason_header: Option<bool>,

    /// Whether `x-envoy-*` headers are left out.
    pub suppress_envoy_headers: bool,

    /// Whether a client's `x-request-id` is kept.
    pub preserve_external_request_id: bool,

    /// Whether header names go out as `Like-This` over HTTP/1.1, to clients and to services.
    pub proper_case: bool,

    /// Header names that go out in exactly these letters over HTTP/1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_case_overrides: Option<Vec<String>>,

    /// Milliseconds for a whole request where the Mapping does not say it; 3000 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_request_timeout_ms: Option<u64>,

    /// Milliseconds after which an unused connection to a service is closed, where the Mapping does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_idle_timeout_ms: Option<u64>,

    /// Milliseconds after which a connection to a service takes no more requests, where the Mapping does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_max_connection_lifetime_ms: Option<u64>,

    /// Limits of what is open at once, where the Mapping does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breakers: Option<Vec<CircuitBreaker>>,

    /// When and how often to try again, where the Mapping does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,

    /// How one endpoint is picked, where the Mapping does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,

    /// Puts endpoints that fail aside for a while, where the Mapping does not say it. Not in Ambassador.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "crate::mapping::balance::outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,

    /// The zone the gateway is in, for `zone_preference`; the variable `NUNCIO_ZONE` when nothing is said. Not in
    /// Ambassador.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,

    /// How endpoints are found, where the Mapping does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,

    /// Cross-origin rules, where the Mapping does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,

    /// Whether `l5d-dst-override` is sent, where the Mapping does not say it.
    pub add_linkerd_headers: bool,

    /// Whether bare service names mean the gateway's namespace instead of the Mapping's.
    pub use_ambassador_namespace_for_service_resolution: bool,

    /// Defaults of Mappings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,

    /// Whether request bodies are read whole before they go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Buffer>,

    /// Compression of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gzip: Option<Gzip>,

    /// Compression of answers with several algorithms; in place of `gzip`, and not in Ambassador.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,

    /// Bodies of requests are unpacked for the services; not in Ambassador.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decompress_requests: Option<Decompression>,

    /// A Lua script that every request passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lua_scripts: Option<String>,

    /// Whether gRPC-Web, binary and base64, is translated to gRPC for services. The Mapping says `grpc: true`.
    pub enable_grpc_web: bool,

    /// Whether clients who speak gRPC over HTTP/1.1 get `grpc-status` and `grpc-message` as headers, and 503 for a call that failed. Their answers
    /// are read whole, up to 1 MiB.
    pub enable_grpc_http11_bridge: bool,

    /// Counts of gRPC calls by service and method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_stats: Option<GrpcStats>,

    /// Addresses that may ask; all others get 403. Not together with `ip_deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_allow: Option<Vec<AddressRange>>,

    /// Addresses that may not ask: they get 403. Not together with `ip_allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_deny: Option<Vec<AddressRange>>,

    /// How the client certificate is told to services, in `x-forwarded-client-cert`; SANITIZE when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_client_cert_details: Option<ForwardClientCert>,

    /// Parts of the client certificate that are told to services, besides its hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_current_client_cert_details: Option<ClientCertDetails>,

    /// Bodies for error answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_response_overrides: Option<Vec<ErrorResponseOverride>>,

    /// Domain of rate limit labels that name none; `ambassador` when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_label_domain: Option<String>,

    /// Labels put before every group, by domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_labels: Option<BTreeMap<String, DefaultLabels>>,

    /// The diagnostics page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Diagnostics>,

    /// Form of the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_log_type: Option<LogType>,

    /// Content of the access log: text, or a map for JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_log_format: Option<serde_json::Value>,

    /// File of the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_log_path: Option<String>,

    /// The liveness probe on the public listener; on when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,

    /// The readiness probe on the public listener; on when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,

    /// Largest program that a regular expression may compile to; 200 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex_max_size: Option<u32>,

    /// Envoy's runtime flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_flags: Option<BTreeMap<String, serde_json::Value>>,

    /// Whether the gateway logs more.
    pub debug_mode: bool,

    /// Envoy's own admin port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_port: Option<u16>,

    /// Port of the admin API; 8877 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diag_port: Option<u16>,

    /// Seconds for Envoy's validation of a configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_validation_timeout: Option<u32>,
}

/// Defaults by kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Defaults of every Mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub httpmapping: Option<MappingDefaults>,
}

/// Defaults of every Mapping that does not say the same field itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MappingDefaults {
    /// Headers added to requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_request_headers: Option<BTreeMap<String, AddedHeader>>,

    /// Headers added to answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_response_headers: Option<BTreeMap<String, AddedHeader>>,

    /// Headers taken off requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_request_headers: Option<Vec<String>>,

    /// Headers taken off answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_response_headers: Option<Vec<String>>,
}

/// What happens to headers with an underscore in their name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnderscoresAction {
    /// They pass.
    #[default]
    Allow,
    /// The request is refused with 400.
    RejectRequest,
    /// The header is dropped.
    DropHeader,
}

/// TCP keep-alive towards services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModuleKeepalive {
    /// Seconds of quiet before the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u32>,

    /// Seconds between probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,

    /// Probes without an answer that end the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,
}

/// Request bodies are read whole before they go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// Largest body, else 413.
    pub max_request_bytes: u64,
}

/// Answers are compressed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gzip {
    /// Memory of the compressor, 1 to 9; 5 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_level: Option<u32>,

    /// Shortest body that is compressed; 30 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_content_length: Option<u64>,

    /// Window of the compressor, 9 to 15; 12 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_bits: Option<u32>,

    /// BEST, SPEED or DEFAULT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<String>,

    /// FILTERED, HUFFMAN, RLE or DEFAULT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_strategy: Option<String>,

    /// Content types that are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Vec<String>>,

    /// Whether answers with an ETag stay as they are.
    pub disable_on_etag_header: bool,

    /// Whether services do not see `accept-encoding`.
    pub remove_accept_encoding_header: bool,
}

/// Answers are compressed for clients that want it, with what they like best.
///
/// ```yaml
/// algorithms: [zstd, br, gzip]
/// content_type: [application/json, text/event-stream]
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// What is offered, the first one where a client likes several equally; zstd, br and gzip when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<Algorithm>>,

    /// Shortest body that is compressed; 30 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_content_length: Option<u64>,

    /// Content types that are compressed; Envoy's list when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Vec<String>>,

    /// BEST, SPEED or DEFAULT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<String>,

    /// Whether answers with an ETag stay as they are.
    pub disable_on_etag_header: bool,

    /// Whether services do not see `accept-encoding`.
    pub remove_accept_encoding_header: bool,
}

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Br,
    /// gzip.
    Gzip,
}

impl Algorithm {
    /// All of them, the best first.
    pub const ALL: [Algorithm; 3] = [Algorithm::Zstd, Algorithm::Br, Algorithm::Gzip];

    /// Returns its name in `content-encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Zstd => "zstd",
            Algorithm::Br => "br",
            Algorithm::Gzip => "gzip",
        }
    }
}

/// Bodies of requests are unpacked (`gzip`, `br`, `zstd`) for the services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Decompression {
    /// Largest unpacked body in bytes, else 413; 16 MiB when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,

    /// How many times more bytes may come out than went in, else 413; 100 when nothing is said. The first 64 KiB are free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ratio: Option<u32>,
}

/// gRPC calls are counted by service and method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcStats {
    /// Whether all methods are counted.
    pub all_methods: bool,

    /// Services whose methods are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<GrpcService>>,

    /// Whether the service's own time is measured too.
    pub upstream_stats: bool,
}

/// A gRPC service whose methods are counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcService {
    /// Its full name.
    pub name: String,

    /// Its methods.
    #[serde(default)]
    pub method_names: Vec<String>,
}

/// An address range; exactly one of both fields is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AddressRange {
    /// Range of the connection's peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,

    /// Range of the client's address, as trusted headers tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

/// The diagnostics page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Diagnostics {
    /// Whether it is served; true when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// Whether it answers to other machines.
    pub allow_non_local: bool,
}

/// A probe on the public listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Whether it is served; true when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// Its path; `/ambassador/v0/check_alive` or `/ambassador/v0/check_ready` when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,

    /// What replaces the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,

    /// Service that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Parts of the client certificate that are told to services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientCertDetails {
    /// The subject.
    pub subject: bool,

    /// The certificate.
    pub cert: bool,

    /// The chain.
    pub chain: bool,

    /// The DNS names.
    pub dns: bool,

    /// The URIs.
    pub uri: bool,
}

/// How the client certificate is told to services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForwardClientCert {
    /// Not at all.
    Sanitize,
    /// As it came, over mTLS only.
    ForwardOnly,
    /// As it came, with our client's added, over mTLS only.
    AppendForward,
    /// Our client's alone, over mTLS only.
    SanitizeSet,
    /// As it came.
    AlwaysForwardOnly,
}

/// The form of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogType {
    /// Lines of text.
    Text,
    /// JSON with text values.
    Json,
    /// JSON with typed values.
    TypedJson,
}

/// Labels put before every group of one domain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultLabels {
    /// The labels, in order.
    pub defaults: Vec<Label>,
}
