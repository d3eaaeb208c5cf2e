//! Lookups against a name server of our own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use model::Endpoints;
use std::time::Duration;

use super::*;
use crate::discovery::Teller;
use crate::meter::UpstreamMeters;
use crate::upstream::cluster::Spec;

/// Longest wait for an answer to have its effect.
const WAIT_MAX: Duration = Duration::from_secs(20);

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

const STRICT: Lookup = Lookup {
    ipv4: true,
    ipv6: false,
    records: Records::Strict,
    ttl_respected: true,
};

/// The data of the records of a name and type.
type Data = HashMap<(String, u16), Vec<Vec<u8>>>;

/// What a name server says about everything that it is not told of.
#[derive(Clone, Copy, PartialEq)]
enum Else {
    /// The name does not exist.
    Unknown,
    /// It fails.
    Fails,
    /// It says nothing at all.
    Silent,
}

/// A name server whose answers live for a second. Names are told without the dot at their end.
#[derive(Clone)]
struct Server(Arc<Shared>);

struct Shared {
    port: u16,
    records: Mutex<Data>,
    otherwise: Mutex<Else>,
    asked: AtomicUsize,
}

impl Server {
    fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let shared = Arc::new(Shared {
            port: socket.local_addr().expect("its address").port(),
            records: Mutex::default(),
            otherwise: Mutex::new(Else::Unknown),
            asked: AtomicUsize::new(0),
        });
        let server = Server(shared.clone());
        let told = server.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((count, peer)) = socket.recv_from(&mut bytes) {
                // The process ends with its tests; a lost answer is asked for again.
                if let Some(answer) = told.answer(&bytes[..count]) {
                    _ = socket.send_to(&answer, peer);
                }
                shared.asked.fetch_add(1, Relaxed);
            }
        });
        server
    }

    fn tell(&self, name: &str, kind: u16, records: Vec<Vec<u8>>) {
        let mut all = self.0.records.lock().expect("no thread panics with it");
        match records.is_empty() {
            true => _ = all.remove(&(name.to_owned(), kind)),
            false => _ = all.insert((name.to_owned(), kind), records),
        }
    }

    fn tell_addresses(&self, name: &str, lasts: &[u8]) {
        let octets = |last: &u8| Ipv4Addr::new(10, 0, 0, *last).octets().to_vec();
        self.tell(name, A, lasts.iter().map(octets).collect());
    }

    fn otherwise(&self, what: Else) {
        *self.0.otherwise.lock().expect("no thread panics with it") = what;
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let mut labels = Vec::new();
        let mut at = 12;
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
            at = end;
        }
        let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
        let all = self.0.records.lock().expect("no thread panics with it");
        let records = all.get(&(labels.join("."), kind)).cloned();
        let code = match (
            &records,
            *self.0.otherwise.lock().expect("no thread panics"),
        ) {
            (Some(_), _) => 0,
            (None, Else::Unknown) => 3,
            (None, Else::Fails) => 2,
            (None, Else::Silent) => return None,
        };
        let records = records.unwrap_or_default();
        // The question ends behind its name, type and class; what follows (EDNS) is left out.
        let mut answer = question[..at + 5].to_vec();
        answer[2] = 0x81;
        answer[3] = 0x80 | code;
        answer[6..12].copy_from_slice(&[0, records.len() as u8, 0, 0, 0, 0]);
        for data in records {
            answer.extend_from_slice(&[0xc0, 12]);
            answer.extend_from_slice(&kind.to_be_bytes());
            answer.extend_from_slice(&[0, 1, 0, 0, 0, 1]);
            answer.extend_from_slice(&(data.len() as u16).to_be_bytes());
            answer.extend_from_slice(&data);
        }
        Some(answer)
    }

    async fn asked_again(&self, times: usize) {
        let before = self.0.asked.load(Relaxed);
        let more = || self.0.asked.load(Relaxed) >= before + times;
        wait(more, || "the name server is not asked".to_owned()).await;
    }

    fn names(&self, search: &[&str]) -> Arc<Names> {
        let (port, search) = (self.0.port, search.iter());
        let search: Vec<Name> = search.map(|name| name.parse().expect("a name")).collect();
        Names::with(Handle::current(), move |question| {
            let mut connection = ConnectionConfig::udp();
            connection.port = port;
            let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
            server.connections = vec![connection];
            let config = ResolverConfig::from_parts(None, search.clone(), vec![server]);
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(config, provider);
            lookup::set(builder.options_mut(), question);
            builder.options_mut().timeout = Duration::from_millis(300);
            builder.build()
        })
    }

    fn discovery(&self) -> Discovery {
        Discovery {
            directory: Directory::default(),
            names: self.names(&[]),
            agents: Agents::new(Handle::current(), None),
            runtime: Handle::current(),
        }
    }
}

fn target(priority: u16, weight: u16, port: u16, name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for number in [priority, weight, port] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    for label in name.split('.') {
        data.push(label.len() as u8);
        data.extend_from_slice(label.as_bytes());
    }
    data.push(0);
    data
}

async fn wait(done: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let waited = tokio::time::timeout(WAIT_MAX, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{}", otherwise());
}

fn cluster(host: &str, source: Source) -> Arc<Cluster> {
    let spec = Spec {
        host: host.to_owned(),
        port: 80,
        source,
        ..Spec::plain("shop")
    };
    let meters = UpstreamMeters::default();
    Arc::new(Cluster::new(spec, 1, meters))
}

fn now(cluster: &Cluster) -> Vec<String> {
    let endpoints = cluster.endpoints();
    endpoints
        .iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

async fn becomes(cluster: &Cluster, expected: &[&str]) {
    wait(
        || now(cluster) == expected,
        || format!("{:?} is not {expected:?}", now(cluster)),
    )
    .await;
}

#[tokio::test]
async fn answers_are_followed_and_failures_change_nothing() {
    let server = Server::start();
    server.tell_addresses("shop.example", &[2, 1]);
    let cluster = cluster("shop.example.", Source::Dns(STRICT));
    server.discovery().follow(&cluster);
    cluster.wait_known().await;
    assert_eq!(now(&cluster), ["10.0.0.1:80", "10.0.0.2:80"]);
    server.tell_addresses("shop.example", &[3, 2]);
    becomes(&cluster, &["10.0.0.2:80", "10.0.0.3:80"]).await;
    for trouble in [Else::Fails, Else::Silent] {
        server.otherwise(trouble);
        server.tell_addresses("shop.example", &[]);
        server.asked_again(2).await;
        becomes(&cluster, &["10.0.0.2:80", "10.0.0.3:80"]).await;
        server.tell_addresses("shop.example", &[3, 2]);
        server.asked_again(1).await;
    }
    server.tell_addresses("shop.example", &[1]);
    becomes(&cluster, &["10.0.0.1:80"]).await;
    // Once is a slip, three times is the truth.
    server.otherwise(Else::Unknown);
    server.tell_addresses("shop.example", &[]);
    server.asked_again(1).await;
    becomes(&cluster, &["10.0.0.1:80"]).await;
    becomes(&cluster, &[]).await;
}

#[tokio::test]
async fn a_logical_name_stays_with_its_address_while_the_answer_has_it() {
    let server = Server::start();
    server.tell_addresses("shop.example", &[2, 1]);
    let logical = Lookup {
        records: Records::Logical,
        ..STRICT
    };
    let cluster = cluster("shop.example.", Source::Dns(logical));
    server.discovery().follow(&cluster);
    becomes(&cluster, &["10.0.0.2:80"]).await;
    server.tell_addresses("shop.example", &[1, 2, 3]);
    server.asked_again(2).await;
    becomes(&cluster, &["10.0.0.2:80"]).await;
    server.tell_addresses("shop.example", &[3, 1]);
    becomes(&cluster, &["10.0.0.3:80"]).await;
    server.tell_addresses("shop.example", &[]);
    server.asked_again(4).await;
    becomes(&cluster, &["10.0.0.3:80"]).await;
}

#[tokio::test]
async fn services_have_targets_ports_and_weights() {
    let server = Server::start();
    let name = "_http._tcp.shop.example";
    server.tell_addresses("a.example", &[1]);
    server.tell_addresses("b.example", &[2]);
    server.tell_addresses("standby.example", &[3]);
    let records = vec![
        target(2, 1, 9000, "standby.example"),
        target(1, 10, 8001, "a.example"),
        target(1, 30, 8002, "b.example"),
    ];
    server.tell(name, SRV, records);
    let srv = Lookup {
        records: Records::Srv,
        ..STRICT
    };
    let cluster = cluster(&format!("{name}."), Source::Dns(srv));
    server.discovery().follow(&cluster);
    becomes(&cluster, &["10.0.0.1:8001", "10.0.0.2:8002"]).await;
    let seen = cluster.view();
    assert_eq!((seen[0].weight, seen[1].weight), (10, 30));
    assert_eq!(seen[1].hostname.as_deref(), Some("b.example"));
    // The next priority is for when nobody of the first is found.
    server.tell_addresses("a.example", &[]);
    server.tell_addresses("b.example", &[]);
    becomes(&cluster, &["10.0.0.3:9000"]).await;
}

#[tokio::test]
async fn families_are_those_that_are_wanted() {
    let server = Server::start();
    server.tell_addresses("both.example", &[1]);
    let six = Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    server.tell("both.example", AAAA, vec![six.octets().to_vec()]);
    server.tell_addresses("four.example", &[1]);
    let discovery = server.discovery();
    for (host, ipv4, ipv6, expected) in [
        ("both.example.", true, false, "10.0.0.1:80"),
        ("both.example.", false, true, "[fd00::1]:80"),
        ("both.example.", true, true, "[fd00::1]:80"),
        ("four.example.", true, true, "10.0.0.1:80"),
    ] {
        let lookup = Lookup {
            ipv4,
            ipv6,
            ..STRICT
        };
        let cluster = cluster(host, Source::Dns(lookup));
        discovery.follow(&cluster);
        becomes(&cluster, &[expected]).await;
    }
}

#[tokio::test]
async fn short_names_are_searched_for() {
    let server = Server::start();
    server.tell_addresses("orders.shop.svc.cluster.local", &[7]);
    let discovery = Discovery {
        names: server.names(&["none.cluster.local", "shop.svc.cluster.local"]),
        ..server.discovery()
    };
    let cluster = cluster("orders", Source::Dns(STRICT));
    discovery.follow(&cluster);
    becomes(&cluster, &["10.0.0.7:80"]).await;
}

#[tokio::test]
async fn clusters_with_one_name_share_the_lookup() {
    let server = Server::start();
    server.tell_addresses("shop.example", &[1]);
    let discovery = server.discovery();
    let lookup = Lookup {
        ttl_respected: false,
        ..STRICT
    };
    let clusters: Vec<Arc<Cluster>> = (0..50)
        .map(|_| cluster("shop.example.", Source::Dns(lookup)))
        .collect();
    for cluster in &clusters {
        discovery.follow(cluster);
    }
    for cluster in &clusters {
        becomes(cluster, &["10.0.0.1:80"]).await;
    }
    assert_eq!(server.0.asked.load(Relaxed), 1);
    let late = cluster("shop.example.", Source::Dns(lookup));
    discovery.follow(&late);
    assert_eq!(now(&late), ["10.0.0.1:80"], "known at once");
}

#[tokio::test]
async fn nobody_asks_for_clusters_that_are_gone() {
    let server = Server::start();
    server.tell_addresses("shop.example", &[1]);
    let discovery = server.discovery();
    let cluster = cluster("shop.example.", Source::Dns(STRICT));
    discovery.follow(&cluster);
    becomes(&cluster, &["10.0.0.1:80"]).await;
    drop(cluster);
    wait(
        || discovery.names.count() == 0,
        || "the name is still asked for".to_owned(),
    )
    .await;
}

#[tokio::test]
async fn what_is_told_stands_over_dns() {
    let server = Server::start();
    server.tell_addresses("shop", &[1]);
    let discovery = server.discovery();
    let directory = discovery.directory.clone();
    let source = Source::Service {
        service: ("default".to_owned(), "shop".to_owned()),
        port: None,
        zone: None,
        otherwise: Some(STRICT),
    };
    let cluster = cluster("shop.", source);
    discovery.follow(&cluster);
    becomes(&cluster, &["10.0.0.1:80"]).await;
    let address: SocketAddr = ([10, 9, 9, 9], 8080).into();
    let mut told = Endpoints::default();
    told.tell("default", "shop", vec![address]);
    directory.tell(Teller::Configuration, told.clone());
    assert_eq!(now(&cluster), ["10.9.9.9:8080"]);
    server.asked_again(1).await;
    assert_eq!(now(&cluster), ["10.9.9.9:8080"]);
    // The configuration's word counts before a cluster's.
    directory.tell_service(Teller::Cluster, "default", "shop", Some(Vec::new()));
    assert_eq!(now(&cluster), ["10.9.9.9:8080"]);
    directory.tell(Teller::Configuration, Endpoints::default());
    assert_eq!(now(&cluster), [""; 0]);
    directory.tell_service(Teller::Cluster, "default", "shop", None);
    becomes(&cluster, &["10.0.0.1:80"]).await;
    for _ in 0..100 {
        directory.tell(Teller::Configuration, told.clone());
        directory.tell(Teller::Configuration, Endpoints::default());
    }
    becomes(&cluster, &["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn a_service_that_only_the_directory_knows_is_not_looked_up() {
    let server = Server::start();
    server.tell_addresses("shop", &[1]);
    let discovery = server.discovery();
    let source = Source::Service {
        service: ("default".to_owned(), "shop".to_owned()),
        port: Some(80),
        zone: None,
        otherwise: None,
    };
    let cluster = cluster("shop.", source);
    discovery.follow(&cluster);
    cluster.wait_known().await;
    assert_eq!(now(&cluster), [""; 0]);
    assert_eq!(server.0.asked.load(Relaxed), 0);
    let thousands: Vec<SocketAddr> = (0..3000u32)
        .map(|number| (Ipv4Addr::from(0x0a00_0000 + number), 80).into())
        .collect();
    let mut told = Endpoints::default();
    told.tell("default", "shop", thousands);
    discovery.directory.tell(Teller::Configuration, told);
    assert_eq!(now(&cluster).len(), 3000);
}

#[tokio::test]
async fn hints_keep_requests_in_the_zone_of_the_gateway() {
    let directory = Directory::default();
    let discovery = Discovery::new(directory.clone(), Handle::current());
    let at = |last: u8, zones: &[&str]| model::endpoints::Endpoint {
        for_zones: zones.iter().map(|zone| Arc::from(*zone)).collect(),
        ..model::endpoints::Endpoint::at(([10, 0, 0, last], 80).into())
    };
    let tell = |endpoints: Vec<model::endpoints::Endpoint>| {
        let port = model::endpoints::ServicePort {
            endpoints,
            ..Default::default()
        };
        directory.tell_service(Teller::Cluster, "default", "shop", Some(vec![port]));
    };
    tell(vec![at(1, &["a"]), at(2, &["b"])]);
    let in_zone = |zone: Option<&str>| {
        let source = Source::Service {
            service: ("default".to_owned(), "shop".to_owned()),
            port: None,
            zone: zone.map(Arc::from),
            otherwise: None,
        };
        let cluster = cluster("shop", source);
        discovery.follow(&cluster);
        cluster
    };
    let (here, there, nowhere) = (in_zone(Some("a")), in_zone(Some("b")), in_zone(None));
    let all = ["10.0.0.1:80", "10.0.0.2:80"];
    assert_eq!(now(&here), all[..1]);
    assert_eq!(now(&there), all[1..]);
    assert_eq!(now(&nowhere), all);
    assert_eq!(now(&in_zone(Some("c"))), all);
    tell(vec![at(1, &["b"]), at(2, &["a", "b"])]);
    assert_eq!(now(&here), all[1..]);
    assert_eq!(now(&there), all);
    // One without a hint: nothing can be said about the zones.
    tell(vec![at(1, &[]), at(2, &["a"])]);
    assert_eq!(now(&here), all);
}
