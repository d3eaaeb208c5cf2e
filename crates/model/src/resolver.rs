//! Resolvers: how the name in a Mapping's `service` becomes endpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Config;

/// Finds a service by its name in DNS, as Kubernetes answers for its Services. It has no settings; the name
/// `kubernetes-service` is built in.
///
/// ```yaml
/// {}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesServiceResolver {
    /// Instances that take this object; `default` when nothing is said.
    #[serde(
        default,
        alias = "ambassadorId",
        skip_serializing_if = "Option::is_none"
    )]
    pub ambassador_id: Option<Vec<String>>,
}

/// Finds a service's endpoints in the Endpoints and EndpointSlices that are told of it, its ports by the `v1` Service. It
/// has no settings; the names `endpoint` and `kubernetes-endpoint` are built in.
///
/// ```yaml
/// {}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesEndpointResolver {
    /// Instances that take this object; `default` when nothing is said.
    #[serde(
        default,
        alias = "ambassadorId",
        skip_serializing_if = "Option::is_none"
    )]
    pub ambassador_id: Option<Vec<String>>,
}

/// Finds a service's healthy instances in Consul and follows them. The names `consul` and `consul-endpoint` are built in,
/// with the defaults of all fields.
///
/// The ports are Consul's; one that is written in `service` has no effect. The environment's `CONSUL_HTTP_TOKEN` is the
/// token that is shown to Consul.
///
/// ```yaml
/// address: ${HOST_IP}:8500
/// datacenter: dc1
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsulResolver {
    /// Instances that take this object; `default` when nothing is said.
    #[serde(
        default,
        alias = "ambassadorId",
        skip_serializing_if = "Option::is_none"
    )]
    pub ambassador_id: Option<Vec<String>>,

    /// Consul's HTTP API, as `host:port`, `http://host:port` or `https://host:port`; `${NAME}` is a variable of the
    /// environment. The environment's `CONSUL_HTTP_ADDR`, or `127.0.0.1:8500`, when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,

    /// The datacenter that is asked for; the agent's own when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
}

/// A resolver, of whichever kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolver {
    /// DNS.
    KubernetesService,
    /// What is told about Endpoints.
    KubernetesEndpoint,
    /// Consul.
    Consul(ConsulResolver),
}

/// The names that need no object.
pub const BUILT_IN: [&str; 5] = [
    "kubernetes-service",
    "kubernetes-endpoint",
    "endpoint",
    "consul",
    "consul-endpoint",
];

impl Config {
    /// Returns the resolver that a Mapping asks for by name, or the Module for all of them.
    ///
    /// `None` when nobody names one: then Endpoints count where they are told, and DNS is asked where they are not.
    pub fn resolver(&self, said: Option<&str>) -> Option<Resolver> {
        let name = said.or(self.module.resolver.as_deref())?;
        match (self.resolvers.get(name), name) {
            (Some(resolver), _) => Some(resolver.clone()),
            (None, "kubernetes-service") => Some(Resolver::KubernetesService),
            (None, "kubernetes-endpoint" | "endpoint") => Some(Resolver::KubernetesEndpoint),
            (None, "consul" | "consul-endpoint") => {
                Some(Resolver::Consul(ConsulResolver::default()))
            }
            (None, _) => None,
        }
    }
}
