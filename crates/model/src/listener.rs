//! Listener: a port, what is spoken there, and which Hosts it serves.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::Selector;

/// A port of the gateway, what is spoken there, and which Hosts it serves.
///
/// This is Ambassador's Listener. Without any Listener the gateway listens where `--gateway` says.
///
/// ```yaml
/// port: 8080
/// protocol: HTTP
/// securityModel: INSECURE
/// hostBinding: { namespace: { from: ALL } }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Instances that take this object; `default` when nothing is said.
    #[serde(
        default,
        rename = "ambassador_id",
        alias = "ambassadorId",
        skip_serializing_if = "Option::is_none"
    )]
    pub ambassador_id: Option<Vec<String>>,

    /// The port.
    pub port: u16,

    /// What is spoken; either this or `protocolStack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,

    /// What is spoken, layer by layer; stronger than `protocol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_stack: Option<Vec<Layer>>,

    /// What counts as secure, which decides the Host's action.
    pub security_model: SecurityModel,

    /// Trusted HTTP hops in front; 0 means that `X-Forwarded-Proto` is set by the gateway itself.
    #[serde(default)]
    pub l7_depth: u32,

    /// Which Hosts are served here.
    pub host_binding: HostBinding,

    /// Name of this listener in metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_prefix: Option<String>,

    /// Streams that one HTTP/2 connection may have open.
    #[serde(
        default,
        rename = "http2MaxConcurrentStreams",
        skip_serializing_if = "Option::is_none"
    )]
    pub http2_max_concurrent_streams: Option<u32>,
}

impl Listener {
    /// Returns whether TLS is spoken, be it besides cleartext.
    pub fn speaks_tls(&self) -> bool {
        match (&self.protocol_stack, self.protocol) {
            (Some(stack), _) => stack.contains(&Layer::Tls),
            (None, protocol) => matches!(protocol, Some(Protocol::Https | Protocol::HttpsProxy)),
        }
    }

    /// Returns one for requests without TLS to the Hosts of its own namespace.
    pub(crate) fn insecure(port: u16, proxied: bool) -> Self {
        Listener {
            ambassador_id: None,
            port,
            protocol: Some(match proxied {
                true => Protocol::HttpProxy,
                false => Protocol::Http,
            }),
            protocol_stack: None,
            security_model: SecurityModel::Insecure,
            l7_depth: 0,
            host_binding: HostBinding {
                namespace: Some(NamespaceBinding::default()),
                selector: None,
            },
            stats_prefix: None,
            http2_max_concurrent_streams: None,
        }
    }
}

/// What a Listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Cleartext HTTP/1.1 and HTTP/2.
    Http,
    /// HTTP behind TLS where a Host has a certificate, cleartext otherwise.
    Https,
    /// The PROXY protocol first, then HTTP.
    HttpProxy,
    /// The PROXY protocol first, then HTTPS.
    HttpsProxy,
    /// Bytes.
    Tcp,
    /// Bytes behind TLS.
    Tls,
}

/// One layer of what a Listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layer {
    /// HTTP.
    Http,
    /// The PROXY protocol.
    Proxy,
    /// TLS.
    Tls,
    /// TCP.
    Tcp,
    /// UDP, for HTTP/3.
    Udp,
}

/// What counts as a secure request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SecurityModel {
    /// What `X-Forwarded-Proto` says, trusted with an `l7Depth` of at least 1, else whether the connection has TLS.
    Xfp,
    /// Every request.
    Secure,
    /// No request.
    Insecure,
}

/// Which Hosts a Listener serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostBinding {
    /// By namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceBinding>,

    /// By the Hosts' labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

impl HostBinding {
    /// Takes the Hosts of every namespace from now on.
    pub(crate) fn everywhere(&mut self) {
        self.namespace = Some(NamespaceBinding {
            from: NamespaceFrom::All,
        });
    }

    /// Returns whether a Listener of the namespace `own` serves the Host with this namespace and these labels.
    pub fn takes(&self, own: &str, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let namespace = match (&self.namespace, &self.selector) {
            (Some(binding), _) => match binding.from {
                NamespaceFrom::All => true,
                NamespaceFrom::Own => namespace == own,
            },
            (None, selector) => selector.is_some(),
        };
        let selected = self.selector.as_ref();
        namespace && selected.is_none_or(|selector| selector.matches(labels))
    }
}

/// From which namespaces a Listener takes Hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceBinding {
    /// The Listener's own namespace, or all; SELF when nothing is said.
    #[serde(default)]
    pub from: NamespaceFrom,
}

/// From which namespaces a Listener takes Hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum NamespaceFrom {
    /// The Listener's own.
    #[default]
    #[serde(rename = "SELF")]
    Own,
    /// Every namespace.
    All,
}
