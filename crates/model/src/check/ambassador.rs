//! Checks of one Host, Listener or Module.

use serde_json::Value;

use super::{balance, format, glob, header_name, mapping, policies};
use crate::host::Host;
use crate::listener::{Layer, Listener, Protocol};
use crate::module::{LogType, Module};
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
        Some(stack) if stack[1..].contains(&Layer::Proxy) => {
            let what = "the PROXY header comes before everything else";
            findings.push(Finding::error(path, what).hint("write `PROXY` first"));
        }
        Some(stack) if !stack.contains(&Layer::Http) => unheard(listener.port, path, findings),
        Some(stack) if stack.contains(&Layer::Tls) => cleartext(listener.port, path, findings),
        Some(_) => (),
        None => match listener.protocol {
            Some(Protocol::Http | Protocol::HttpProxy) | None => (),
            Some(Protocol::Https | Protocol::HttpsProxy) => {
                cleartext(listener.port, path, findings)
            }
            Some(_) => unheard(listener.port, path, findings),
        },
    }
}

fn unheard(port: u16, path: &str, findings: &mut Vec<Finding>) {
    let what = format!("this is not spoken yet, nothing listens on port {port}");
    findings.push(Finding::warning(path, what).hint("`HTTP` is spoken"));
}

fn cleartext(port: u16, path: &str, findings: &mut Vec<Finding>) {
    let what = format!("TLS has no effect yet, port {port} takes cleartext only");
    findings.push(Finding::warning(path, what));
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
