//! Asks DNS for a cluster's addresses as long as the cluster lives. The last good answer stays while DNS fails.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverOpts};
use hickory_resolver::net::NetError;
use tracing::{debug, warn};

use super::cluster::{Cluster, Lookup, Source};

/// Between two questions where the time to live is not asked for (Envoy's default).
const EVERY: Duration = Duration::from_secs(5);
/// Bounds of what a time to live may ask for.
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(300);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The resolvers, one for each choice of address families; each has a cache.
#[derive(Default)]
pub(crate) struct Resolvers {
    by_families: HashMap<(bool, bool), TokioResolver>,
}

impl Resolvers {
    /// Starts to keep the cluster's addresses fresh, on the current runtime.
    pub(crate) fn keep_fresh(&mut self, cluster: &Arc<Cluster>) {
        let Source::Dns(lookup) = cluster.spec.source else {
            return;
        };
        let families = (lookup.ipv4, lookup.ipv6);
        let resolver = match self.by_families.get(&families) {
            Some(resolver) => resolver.clone(),
            None => match from_system(lookup) {
                Ok(resolver) => {
                    self.by_families.insert(families, resolver.clone());
                    resolver
                }
                Err(error) => {
                    let host = &cluster.spec.host;
                    warn!(%error, %host, "the resolver cannot be set up, the service has no address");
                    cluster.keep_addresses();
                    return;
                }
            },
        };
        tokio::spawn(run(Arc::downgrade(cluster), resolver, lookup));
    }
}

fn from_system(lookup: Lookup) -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    set(builder.options_mut(), lookup);
    builder.build()
}

fn set(options: &mut ResolverOpts, lookup: Lookup) {
    options.timeout = ANSWER_MAX / 2;
    options.ip_strategy = match (lookup.ipv4, lookup.ipv6) {
        (true, true) => LookupIpStrategy::Ipv6thenIpv4,
        (false, true) => LookupIpStrategy::Ipv6Only,
        _ => LookupIpStrategy::Ipv4Only,
    };
}

async fn run(cluster: Weak<Cluster>, resolver: TokioResolver, lookup: Lookup) {
    let Some((host, port)) = cluster
        .upgrade()
        .map(|c| (c.spec.host.clone(), c.spec.port))
    else {
        return;
    };
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use observe::metrics::Metrics;

    use super::*;
    use crate::meter::UpstreamMeters;
    use crate::upstream::balance::Choice;
    use crate::upstream::cluster::{Breaker, Protocol, Spec};

    const LOOKUP: Lookup = Lookup {
        ipv4: true,
        ipv6: false,
        first_only: false,
        ttl_respected: true,
    };

    /// A name server that tells these addresses for every name, with a second to live; failing when there are none.
    struct Server {
        port: u16,
        addresses: Arc<Mutex<Vec<Ipv4Addr>>>,
        failures: Arc<AtomicUsize>,
    }

    impl Server {
        fn start(addresses: &[Ipv4Addr]) -> Self {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = socket.local_addr().expect("its address").port();
            let addresses = Arc::new(Mutex::new(addresses.to_vec()));
            let (told, failures) = (addresses.clone(), Arc::new(AtomicUsize::new(0)));
            let failed = failures.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 512];
                while let Ok((count, peer)) = socket.recv_from(&mut bytes) {
                    let told = told.lock().expect("no thread panics with it").clone();
                    if told.is_empty() {
                        failed.fetch_add(1, Relaxed);
                    }
                    // The process ends with its tests; a lost answer is asked for again.
                    _ = socket.send_to(&answer(&bytes[..count], &told), peer);
                }
            });
            Server {
                port,
                addresses,
                failures,
            }
        }

        fn tell(&self, addresses: &[Ipv4Addr]) {
            *self.addresses.lock().expect("no thread panics with it") = addresses.to_vec();
        }
    }

    fn answer(question: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
        // The question ends behind its name, type and class; what follows (EDNS) is left out.
        let name_end = 12
            + question[12..]
                .iter()
                .position(|byte| *byte == 0)
                .expect("a name ends");
        let failed = if addresses.is_empty() { 2 } else { 0 };
        let mut answer = question[..name_end + 5].to_vec();
        answer[2] = 0x81;
        answer[3] = 0x80 | failed;
        answer[6..12].copy_from_slice(&[0, addresses.len() as u8, 0, 0, 0, 0]);
        for address in addresses {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        answer
    }

    fn resolver(server: &Server) -> TokioResolver {
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port;
        let mut name_server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
        name_server.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        set(builder.options_mut(), LOOKUP);
        builder.build().expect("a resolver")
    }

    fn cluster() -> Arc<Cluster> {
        let spec = Spec {
            name: "shop".into(),
            host: "shop.example.".into(),
            port: 80,
            protocol: Protocol::Http1,
            source: Source::Dns(LOOKUP),
            connect_timeout: Duration::from_secs(1),
            idle_max: None,
            age_max: None,
            breaker: Breaker::default(),
            tag: None,
        };
        Arc::new(Cluster::new(
            spec,
            1,
            UpstreamMeters::new(&Metrics::default(), "shop"),
        ))
    }

    async fn becomes(cluster: &Cluster, expected: &[&str]) {
        let now = || -> Vec<String> {
            cluster
                .endpoints()
                .iter()
                .map(|endpoint| endpoint.address.to_string())
                .collect()
        };
        let wait = async {
            while now() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "{:?} is not {expected:?}", now());
    }

    #[tokio::test]
    async fn answers_are_followed_and_the_last_good_one_stays() {
        let [one, two, three] = [1, 2, 3].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let server = Server::start(&[two, one]);
        let cluster = cluster();
        tokio::spawn(run(Arc::downgrade(&cluster), resolver(&server), LOOKUP));
        let first = cluster.pick(&Choice::default()).await.expect("an endpoint");
        becomes(&cluster, &["10.0.0.1:80", "10.0.0.2:80"]).await;
        let next = cluster.pick(&Choice::default()).await.expect("an endpoint");
        assert_ne!(first.endpoint.address, next.endpoint.address);

        server.tell(&[three, two]);
        becomes(&cluster, &["10.0.0.2:80", "10.0.0.3:80"]).await;
        server.tell(&[]);
        while server.failures.load(Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        becomes(&cluster, &["10.0.0.2:80", "10.0.0.3:80"]).await;
        server.tell(&[one]);
        becomes(&cluster, &["10.0.0.1:80"]).await;
    }
}
