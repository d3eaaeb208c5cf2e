//! Asks DNS for a cluster's addresses as long as the cluster lives. The last good answer stays while DNS fails.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tracing::{debug, warn};

use super::cluster::{Cluster, Lookup, Source};

/// Between two questions where the time to live is not asked for (Envoy's default).
const EVERY: Duration = Duration::from_secs(5);
/// Bounds of what a time to live may ask for.
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(300);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Starts to keep the cluster's addresses fresh, on the current runtime.
pub(crate) fn keep_fresh(cluster: &Arc<Cluster>) {
    let Source::Dns(lookup) = cluster.spec.source else {
        return;
    };
    let (host, port) = (cluster.spec.host.clone(), cluster.spec.port);
    let resolver = match resolver(lookup) {
        Ok(resolver) => resolver,
        Err(error) => {
            warn!(%error, %host, "the resolver cannot be set up, the service has no address");
            cluster.set_addresses([]);
            return;
        }
    };
    tokio::spawn(run(Arc::downgrade(cluster), resolver, host, port, lookup));
}

fn resolver(lookup: Lookup) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.timeout = ANSWER_MAX / 2;
    options.ip_strategy = match (lookup.ipv4, lookup.ipv6) {
        (true, true) => LookupIpStrategy::Ipv6thenIpv4,
        (false, true) => LookupIpStrategy::Ipv6Only,
        _ => LookupIpStrategy::Ipv4Only,
    };
    builder.build()
}

async fn run(
    cluster: Weak<Cluster>,
    resolver: TokioResolver,
    host: String,
    port: u16,
    lookup: Lookup,
) {
    let mut failing = false;
    loop {
        let answer = tokio::time::timeout(ANSWER_MAX, resolver.lookup_ip(host.as_str())).await;
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        let mut wait = EVERY;
        match answer {
            Ok(Ok(answer)) => {
                if failing {
                    debug!(%host, "the name is found again");
                }
                failing = false;
                let mut addresses: Vec<IpAddr> = answer.iter().collect();
                // DNS servers shuffle; a steady order keeps the rotation even.
                if lookup.first_only {
                    addresses.truncate(1);
                } else {
                    addresses.sort_unstable();
                }
                cluster.set_addresses(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)));
                if lookup.ttl_respected {
                    let left = answer
                        .valid_until()
                        .saturating_duration_since(std::time::Instant::now());
                    wait = left.clamp(EVERY_MIN, EVERY_MAX);
                }
            }
            failed => {
                let error = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {ANSWER_MAX:?}"),
                };
                if !failing {
                    warn!(%error, %host, "the name of a service is not found, its last addresses stay");
                }
                failing = true;
                cluster.keep_addresses();
            }
        }
        drop(cluster);
        tokio::time::sleep(wait).await;
    }
}
