//! Checks of one Host, Listener or Module.

use super::{glob, header_name, mapping};
use crate::host::Host;
use crate::listener::{Layer, Listener, Protocol};
use crate::module::Module;
use crate::read::Finding;

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
    if !listener.is_plain_http()
        && (listener.protocol.is_some() || listener.protocol_stack.is_some())
    {
        let path = if listener.protocol_stack.is_some() {
            "protocolStack"
        } else {
            "protocol"
        };
        let what = format!(
            "only HTTP is spoken yet, nothing listens on port {}",
            listener.port
        );
        findings.push(Finding::warning(path, what));
    }
}

impl Listener {
    /// Returns whether cleartext HTTP is spoken directly over TCP.
    pub fn is_plain_http(&self) -> bool {
        match &self.protocol_stack {
            Some(stack) => matches!(stack.as_slice(), [Layer::Http] | [Layer::Http, Layer::Tcp]),
            None => self.protocol == Some(Protocol::Http),
        }
    }
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
        mapping::load_balancer(balancer, "load_balancer", findings);
    }
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
