//! What is accepted and has no effect yet, in one place, so that the list can only shrink.

use crate::read::{Finding, Kind};
use crate::tree::{Key, Node, Value};

/// Fields, by kind, that are read and checked but do nothing yet. A dot goes one level down.
pub fn waiting(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Mapping => &[],
        Kind::Host => &["previewUrl"],
        Kind::Module => &["diagnostics.allow_non_local", "grpc_stats", "lua_scripts"],
        _ => &[],
    }
}

/// Fields, by kind, that are read and checked and mean nothing to Nuncio, with the reason.
pub fn meaningless(kind: Kind) -> &'static [(&'static str, &'static str)] {
    const LABELS: &str = "labels are for a RateLimitService, which is not supported yet";
    const ENVOY: &str = "there is no Envoy behind Nuncio";
    match kind {
        Kind::Mapping => &[
            (
                "auth_context_extensions",
                "it is for an AuthService, which is not supported yet",
            ),
            ("docs", "there is no DevPortal that would show it"),
            ("envoy_override", ENVOY),
            ("labels", LABELS),
            ("modules", "Ambassador does not use it either"),
        ],
        Kind::Module => &[
            ("admin_port", ENVOY),
            (
                "allow_chunked_length",
                "a request with both a length and chunks is always refused, since two servers could read it differently",
            ),
            (
                "buffer_limit_bytes",
                "bodies are streamed, and what is kept of a connection has its own limits",
            ),
            (
                "debug_mode",
                "start Nuncio with `--log debug` to have it log more",
            ),
            ("default_label_domain", LABELS),
            ("default_labels", LABELS),
            ("envoy_validation_timeout", ENVOY),
            (
                "header_case_overrides",
                "names of headers go out in lower case, or with `proper_case` each word capitalised",
            ),
            (
                "regex_max_size",
                "regular expressions take linear time, and 1 MiB compiled is the limit of each",
            ),
            ("runtime_flags", ENVOY),
            (
                "use_remote_address",
                "`l7Depth` of the Listener says how far X-Forwarded-For is believed",
            ),
            (
                "x_forwarded_proto_redirect",
                "`requestPolicy` of the Host and `securityModel` of the Listener decide about redirects",
            ),
        ],
        _ => &[],
    }
}

/// Returns a warning for each field that is written and does nothing.
pub(crate) fn findings(kind: Kind, spec: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (field, why) in meaningless(kind) {
        let said = spec.get(field).filter(|node| !node.is_null());
        // Turned off, or the default, it means nothing anywhere.
        let default = if *field == "use_remote_address" {
            Some(true)
        } else {
            Some(false)
        };
        if said.is_some_and(|node| node.bool().is_none() || node.bool() != default) {
            findings.push(Finding::warning(
                field,
                format!("`{field}` has no effect: {why}"),
            ));
        }
    }
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
        let says_nothing = node.is_null() || node.bool() == Some(false);
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
