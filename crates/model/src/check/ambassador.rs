//! Checks of one Host, Listener or Module.

use serde_json::Value;

use super::{acme, balance, format, glob, header_name, mapping, policies, tls};
use crate::host::Host;
use crate::listener::{Layer, Listener, Protocol};
use crate::module::{ForwardClientCert, LogType, Module};
use crate::read::Finding;
use crate::resolver::ConsulResolver;

pub(super) fn host(host: &Host, findings: &mut Vec<Finding>) {
    glob(&host.hostname, "hostname", findings);
    if host.mapping_selector.is_some() && host.selector.is_some() {
        findings.push(Finding::warning(
            "selector",
            "`mappingSelector` wins, `selector` has no effect",
        ));
    }
    if host.tls.is_some() && host.tls_context.is_some() {
        findings.push(Finding::error(
            "tls",
            "`tls` and `tlsContext` exclude each other",
        ));
    }
    if let Some(said) = &host.tls {
        let mut found = Vec::new();
        tls::tls_context(&said.context(), &mut found);
        // The Secret with the certificate is the Host's.
        let staple =
            |finding: &Finding| finding.path == "ocsp_staple_file" && host.tls_secret.is_some();
        found.retain(|finding| !staple(finding));
        for finding in found {
            let path = format!("tls.{}", finding.path);
            findings.push(Finding { path, ..finding });
        }
        if host.tls_secret.is_some() && said.cert_chain_file.is_some() {
            let what = "the Secret wins, `cert_chain_file` has no effect";
            findings.push(Finding::warning("tls.cert_chain_file", what));
        }
        if said.sni.is_some() {
            let what = "`sni` is for TLS towards services, it has no effect in a Host";
            findings.push(Finding::warning("tls.sni", what));
        }
    }
    acme::provider(host, findings);
    let policy = host.request_policy.as_ref();
    let insecure = policy.and_then(|policy| policy.insecure.as_ref());
    if let Some(port) = insecure.and_then(|insecure| insecure.additional_port)
        && port != -1
        && !(1..=65535).contains(&port)
    {
        let path = "requestPolicy.insecure.additionalPort";
        let finding = Finding::error(path, "a port is a number from 1 to 65535");
        findings.push(finding.hint("-1 stands for none"));
    }
}

pub(super) fn listener(listener: &Listener, findings: &mut Vec<Finding>) {
    if listener.port == 0 {
        findings.push(Finding::error(
            "port",
            "a Listener needs a port from 1 to 65535",
        ));
    }
    match (&listener.protocol, &listener.protocol_stack) {
        (None, None) => {
            let finding = Finding::error("", "neither `protocol` nor `protocolStack` is written");
            findings.push(finding.hint("write `protocol: HTTP`"));
        }
        (_, Some(stack)) if stack.is_empty() => {
            findings.push(Finding::error("protocolStack", "the stack is empty"));
        }
        (Some(_), Some(_)) => {
            findings.push(Finding::warning(
                "protocol",
                "`protocolStack` wins, `protocol` has no effect",
            ));
        }
        _ => (),
    }
    let path = if listener.protocol_stack.is_some() {
        "protocolStack"
    } else {
        "protocol"
    };
    match &listener.protocol_stack {
        Some(stack) if stack.is_empty() => (),
        Some(stack) if stack.contains(&Layer::Udp) => {
            let what = format!(
                "HTTP/3 is not spoken yet, nothing listens on UDP port {}",
                listener.port
            );
            findings.push(Finding::warning(path, what));
        }
        Some(stack) if !stack.contains(&Layer::Http) => unheard(listener.port, path, findings),
        Some(stack) => order(stack, findings),
        None if matches!(listener.protocol, Some(Protocol::Tcp | Protocol::Tls)) => {
            unheard(listener.port, path, findings);
        }
        None => (),
    }
    if listener.http2_max_concurrent_streams == Some(0) {
        let what = "without a stream nothing can be asked for";
        findings.push(Finding::error("http2MaxConcurrentStreams", what));
    }
}

/// The layers that come before HTTP must be written before it; TLS and the PROXY protocol among themselves stand as one likes,
/// since Ambassador writes `TLS` first though the PROXY header is.
fn order(stack: &[Layer], findings: &mut Vec<Finding>) {
    let place = |layer| stack.iter().position(|one| *one == layer);
    for (layer, name) in [(Layer::Proxy, "PROXY"), (Layer::Tls, "TLS")] {
        if place(layer) > place(Layer::Http) {
            let what = format!("`{name}` comes before HTTP");
            let finding = Finding::error("protocolStack", what);
            findings.push(finding.hint(format!("write `{name}` before `HTTP`")));
        }
    }
    if place(Layer::Tcp).is_some_and(|tcp| tcp + 1 < stack.len()) {
        let what = "TCP carries everything else";
        findings.push(Finding::error("protocolStack", what).hint("write `TCP` last"));
    }
}

fn unheard(port: u16, path: &str, findings: &mut Vec<Finding>) {
    let what = format!("this is not spoken yet, nothing listens on port {port}");
    findings.push(Finding::warning(path, what).hint("`HTTP` and `HTTPS` are spoken"));
}

pub(super) fn module(module: &Module, findings: &mut Vec<Finding>) {
    if module.ip_allow.is_some() && module.ip_deny.is_some() {
        findings.push(Finding::error(
            "ip_deny",
            "`ip_allow` and `ip_deny` exclude each other",
        ));
    }
    if let Some(kb) = module
        .max_request_headers_kb
        .filter(|kb| !(1..=8192).contains(kb))
    {
        let what = format!("{kb} KiB is out of range");
        findings.push(Finding::error("max_request_headers_kb", what).hint("use 1 to 8192"));
    }
    if module.diag_port == Some(0) {
        findings.push(Finding::error(
            "diag_port",
            "a port is a number from 1 to 65535",
        ));
    }
    if module.set_current_client_cert_details.is_some()
        && !matches!(
            module.forward_client_cert_details,
            Some(ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet)
        )
    {
        let path = "set_current_client_cert_details";
        let what = "these parts are told nowhere";
        let finding = Finding::warning(path, what);
        findings.push(finding.hint("write `forward_client_cert_details: SANITIZE_SET`"));
    }
    if let Some(name) = &module.server_name {
        super::header_value(name, "server_name", findings);
    }
    if let Some(balancer) = &module.load_balancer {
        balance::load_balancer(balancer, "load_balancer", findings);
    }
    if let Some(outlier) = &module.outlier_detection {
        balance::outlier_detection(outlier, findings);
    }
    if let Some(policy) = &module.retry_policy {
        mapping::retry_policy(policy, "retry_policy", findings);
    }
    mapping::circuit_breakers(&module.circuit_breakers, "circuit_breakers", findings);
    policies::cors(&module.cors, findings);
    policies::errors(&module.error_response_overrides, findings);
    log_format(module, findings);
    policies::compression(module, findings);
    policies::probes(module, findings);
    let Some(defaults) = module
        .defaults
        .as_ref()
        .and_then(|all| all.httpmapping.as_ref())
    else {
        return;
    };
    let base = "defaults.httpmapping";
    mapping::added(
        &defaults.add_request_headers,
        &format!("{base}.add_request_headers"),
        findings,
    );
    mapping::added(
        &defaults.add_response_headers,
        &format!("{base}.add_response_headers"),
        findings,
    );
    for (list, field) in [
        (&defaults.remove_request_headers, "remove_request_headers"),
        (&defaults.remove_response_headers, "remove_response_headers"),
    ] {
        for (index, name) in list.iter().flatten().enumerate() {
            header_name(name, &format!("{base}.{field}[{index}]"), findings);
        }
    }
}

pub(super) fn consul(resolver: &ConsulResolver, findings: &mut Vec<Finding>) {
    if let Some(address) = &resolver.address {
        let scheme = address.split_once("://").map(|(scheme, _)| scheme);
        if address.trim().is_empty() {
            let finding = Finding::error("address", "the address is empty");
            findings.push(finding.hint("write `host:8500`"));
        } else if let Some(scheme) = scheme.filter(|scheme| !["http", "https"].contains(scheme)) {
            let what = format!("the scheme `{scheme}` is neither `http` nor `https`");
            findings.push(Finding::error("address", what));
        }
    }
    if resolver.datacenter.as_deref() == Some("") {
        findings.push(Finding::error("datacenter", "the name is empty"));
    }
}

/// Checks the form of access lines.
fn log_format(module: &Module, findings: &mut Vec<Finding>) {
    let json = matches!(
        module.envoy_log_type,
        Some(LogType::Json | LogType::TypedJson)
    );
    match (&module.envoy_log_format, json) {
        (None, _) => (),
        (Some(Value::String(text)), false) => format(text, "envoy_log_format", findings),
        (Some(Value::String(_)), true) => {
            let what = "JSON lines need a map of fields";
            let hint = "for example `{ code: '%RESPONSE_CODE%' }`";
            findings.push(Finding::error("envoy_log_format", what).hint(hint));
        }
        (Some(Value::Object(fields)), _) if module.envoy_log_type != Some(LogType::Text) => {
            for (name, text) in fields {
                let path = format!("envoy_log_format.{name}");
                match text.as_str() {
                    Some(text) => format(text, &path, findings),
                    None => findings.push(Finding::error(&path, "this must be text")),
                }
            }
        }
        (Some(_), _) => {
            let what = "lines of text need one text";
            findings.push(Finding::error("envoy_log_format", what));
        }
    }
}
