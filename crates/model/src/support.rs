//! What is accepted and has no effect yet, in one place, so that the list can only shrink.

use crate::read::{Finding, Kind};
use crate::tree::{Key, Node, Value};

/// Fields, by kind, that are read and checked but do nothing yet. A dot goes one level down.
pub fn waiting(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Mapping => &[
            "auth_context_extensions",
            "docs",
            "envoy_override",
            "keepalive",
            "labels",
            "modules",
            "tls",
        ],
        Kind::Host => &[
            "acmeProvider",
            "previewUrl",
            "requestPolicy.insecure.additionalPort",
            "tls",
            "tlsContext",
            "tlsSecret",
        ],
        Kind::Listener => &["http2MaxConcurrentStreams"],
        Kind::Module => &[
            "admin_port",
            "allow_chunked_length",
            "buffer_limit_bytes",
            "debug_mode",
            "default_label_domain",
            "default_labels",
            "diagnostics.allow_non_local",
            "enable_grpc_http11_bridge",
            "enable_grpc_web",
            "envoy_validation_timeout",
            "forward_client_cert_details",
            "grpc_stats",
            "gzip",
            "header_case_overrides",
            "keepalive",
            "liveness_probe",
            "lua_scripts",
            "proper_case",
            "readiness_probe",
            "regex_max_size",
            "runtime_flags",
            "set_current_client_cert_details",
            "use_proxy_proto",
            "use_remote_address",
            "x_forwarded_proto_redirect",
            "xff_num_trusted_hops",
        ],
        _ => &[],
    }
}

/// Returns a warning for each field that is written and does nothing yet.
pub(crate) fn findings(kind: Kind, spec: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in waiting(kind) {
        let mut steps = path.split('.');
        let mut found: Option<&(Key, Node)> = None;
        let mut node = spec;
        let whole = steps.by_ref().all(|step| {
            found = node.entries().iter().find(|(key, _)| key.text == step);
            if let Some((_, next)) = found {
                node = next;
            }
            found.is_some()
        });
        // `acmeProvider: { authority: none }` asks for nothing.
        let none = node.get("authority").and_then(Node::text) == Some("none");
        let says_nothing = node.is_null() || node.bool() == Some(false) || none;
        let empty = matches!(&node.value, Value::List(items) if items.is_empty());
        if whole && !says_nothing && !empty {
            findings.push(Finding::warning(
                path,
                format!("`{path}` is accepted, it has no effect yet"),
            ));
        }
    }
    findings
}
