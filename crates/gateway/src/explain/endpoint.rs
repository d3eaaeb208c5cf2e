//! How an endpoint is picked for a request, and which one where that is known beforehand.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use kit::human::duration_text;
use model::mapping::{LoadBalancer, LoadBalancerPolicy};
use model::target::Target;
use model::{Config, Mapping, Object};

use super::{Policy, Said};
use crate::discovery::{Directory, Teller, members};
use crate::meter::UpstreamMeters;
use crate::snapshot::spec;
use crate::upstream::balance::key::Key;
use crate::upstream::cluster::{Care, Cluster, Member, Source, Spec};

/// Returns how the load balancer picks for this request, where it is not the usual one.
pub(super) fn of(
    config: &Config,
    mapping: &Object<Mapping>,
    running: Option<&Cluster>,
    headers: &HeaderMap,
    client: Option<IpAddr>,
) -> Vec<Policy> {
    let own = mapping.spec.load_balancer.as_ref();
    let Some(said) = own.or(config.module.load_balancer.as_ref()) else {
        return Vec::new();
    };
    let by = match own {
        Some(_) => Said::Mapping,
        None => Said::Module,
    };
    let mut policies = Vec::new();
    let mut tell = |told: String| policies.push(Policy::new("balance", told, by));
    if let Some(told) = rule(said) {
        tell(told);
    }
    if let Some(slow) = &said.slow_start {
        tell(format!(
            "new endpoints get less for {}",
            duration_text(slow.window)
        ));
    }
    if said.zone_preference.is_some() {
        tell("the gateway's own zone comes first".to_owned());
    }
    if let Some(key) = Key::of(said) {
        let known;
        let cluster = match running {
            Some(cluster) => Some(cluster),
            None => {
                known = written(config, mapping);
                known.as_ref()
            }
        };
        policies.push(Policy::new(
            "picks",
            picked(&key, cluster, headers, client),
            by,
        ));
    }
    policies
}

fn rule(said: &LoadBalancer) -> Option<String> {
    let key = match (&said.header, &said.cookie, said.source_ip) {
        (Some(header), _, _) => format!(" by the header `{header}`"),
        (_, Some(cookie), _) => format!(" by the cookie `{}`", cookie.name),
        (_, _, Some(true)) => " by the client's address".to_owned(),
        _ => String::new(),
    };
    let rule = match said.policy {
        LoadBalancerPolicy::RoundRobin => return None,
        LoadBalancerPolicy::LeastRequest => "the less busy of two",
        LoadBalancerPolicy::Random => "any, at random",
        LoadBalancerPolicy::RingHash => "ring hash",
        LoadBalancerPolicy::Maglev => "Maglev",
    };
    Some(format!("{rule}{key}"))
}

/// Says which endpoint a hash leads to.
fn picked(
    key: &Key,
    cluster: Option<&Cluster>,
    headers: &HeaderMap,
    client: Option<IpAddr>,
) -> String {
    let client = match (key, client) {
        (Key::Address, None) => {
            return "depends on the client's address; `--client` tells one".to_owned();
        }
        (_, client) => client.unwrap_or(IpAddr::from([0, 0, 0, 0])),
    };
    let sticky = key.hash(headers, client);
    if sticky.set_cookie.is_some() {
        return "any: the request has no such cookie, the answer brings one".to_owned();
    }
    let Some(hash) = sticky.hash else {
        return "any: the request has nothing to hash".to_owned();
    };
    match cluster.map(|cluster| cluster.picked_for(hash)) {
        None => "is not known here; `--admin` asks a running process".to_owned(),
        Some(None) => "none is there".to_owned(),
        Some(Some(address)) => address.to_string(),
    }
}

/// Returns a cluster of the endpoints that the configuration tells, where it does.
fn written(config: &Config, mapping: &Object<Mapping>) -> Option<Cluster> {
    let target = Target::parse(&mapping.spec.service).ok()?;
    let spec = spec(config, mapping, &target);
    let members: Vec<Member> = match &spec.source {
        Source::Told => {
            let ip = spec.host.parse::<IpAddr>().ok()?;
            vec![Member::new(SocketAddr::new(ip, spec.port))]
        }
        Source::Service {
            service,
            port,
            zone,
            ..
        } => {
            let directory = Directory::default();
            directory.add(Teller::Configuration, &config.endpoints);
            members(
                directory.told(&service.0, &service.1, *port),
                zone.as_deref(),
            )?
        }
        Source::Dns(_) | Source::Consul(_) => return None,
    };
    // Nobody has looked after them.
    let care = Care {
        checks: Vec::new(),
        ..Care::clone(&spec.care)
    };
    let spec = Spec {
        care: Arc::new(care),
        ..spec
    };
    let cluster = Cluster::new(spec, 1, UpstreamMeters::default());
    cluster.set_members(members);
    Some(cluster)
}
