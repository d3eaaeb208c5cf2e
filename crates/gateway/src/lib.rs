//! The HTTP data plane: listeners, routes, policies, upstreams.
//!
//! One current-thread runtime for each core; every core accepts from its own socket on the shared port and has its own
//! connections to the upstreams, so that a request never leaves the core it came in on.

pub mod backend;
pub mod body;
pub mod connect;
pub mod discovery;
pub mod explain;
pub mod listener;
pub mod refusal;
pub mod route;
pub mod view;

mod access;
mod core;
mod counted;
mod exchange;
mod format;
mod meter;
mod policy;
mod proxy_protocol;
mod snapshot;
mod upstream;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::{Config, Object, Origin, Problem, Severity};
use observe::access::AccessLog;
use observe::metrics::{Metrics, Source};
use tls::accept::Turns;
use tls::keep::Terminators;
use tls::ordered::Ordered;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backend::Handler;
use crate::core::Core;
use crate::discovery::{Directory, Teller};
use crate::listener::{Limits, Listener, tcp};
use crate::meter::Meters;
use crate::snapshot::{Chain, Clusters, Front, Kept, Parts, unbuilt};
use crate::upstream::cluster::Cluster;
use crate::upstream::discover::Discovery;

/// What a gateway starts with.
pub struct Options {
    /// Where to listen when the configuration has no Listener; Listeners take the IP address of the first.
    pub addresses: Vec<SocketAddr>,
    /// Cores to use.
    pub threads: usize,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where access lines go.
    pub access: AccessLog,
    /// What clients may do.
    pub limits: Limits,
    /// Where certificates are that are ordered while it runs, if any are.
    pub ordered: Option<Arc<Ordered>>,
}

/// A running gateway. Dropping it ends all connections at once; [`Gateway::shutdown`] is the polite way.
///
/// Tunnels end with the last request of a stop: nobody knows when they would end by themselves.
pub struct Gateway {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    cores: Vec<Core>,
    directory: Directory,
    running: Mutex<Running>,
}

/// What all cores share.
pub(crate) struct Shared {
    /// How many they are.
    pub(crate) cores: usize,
    pub(crate) limits: Limits,
    pub(crate) meters: Meters,
    pub(crate) access: AccessLog,
    /// What the cores keep in order.
    pub(crate) clusters: ArcSwap<Vec<Arc<Cluster>>>,
    /// The certificates that clients are shown.
    pub(crate) chains: ArcSwap<Vec<Arc<Chain>>>,
    /// On each core one handshake after the other.
    pub(crate) turns: Vec<Turns>,
    /// Certificates that are ordered, and the challenges of their authorities.
    pub(crate) ordered: Option<Arc<Ordered>>,
}

/// What changes with each configuration.
struct Running {
    clusters: Clusters,
    terminators: Terminators,
    kept: Kept,
    /// By what was asked for, whose port may be 0.
    listeners: BTreeMap<SocketAddr, Arc<Listener>>,
    stop: CancellationToken,
}

/// What came of a configuration.
#[derive(Debug, Default)]
pub struct Applied {
    /// What is wrong with single objects, which were left out, or worth knowing.
    pub problems: Vec<Problem>,
    /// Addresses that could not be listened on.
    pub deaf: Vec<(SocketAddr, io::Error)>,
}

impl Gateway {
    /// Starts the cores. Nothing is listened on before the first configuration is applied.
    ///
    /// # Errors
    /// When the operating system gives no thread or no event queue.
    pub fn start(options: Options) -> io::Result<Self> {
        let threads = options.threads.max(1);
        let shared = Arc::new(Shared {
            cores: threads,
            limits: options.limits,
            meters: Meters::new(&options.metrics),
            access: options.access,
            clusters: ArcSwap::default(),
            chains: ArcSwap::default(),
            turns: (0..threads).map(|_| Turns::new(1)).collect(),
            ordered: options.ordered,
        });
        let source: Arc<dyn Source> = shared.clone();
        options.metrics.ask(Arc::downgrade(&source));
        let cores = (0..threads)
            .map(|number| Core::start(number, shared.clone()))
            .collect::<io::Result<Vec<Core>>>()?;
        let directory = Directory::default();
        let discovery = Discovery::new(directory.clone(), cores[0].runtime.clone());
        let runtime = cores[0].runtime.clone();
        let clusters = Clusters::new(threads, discovery, runtime.clone());
        let running = Running {
            clusters,
            terminators: Terminators::new(runtime),
            kept: Kept::default(),
            listeners: BTreeMap::new(),
            stop: CancellationToken::new(),
        };
        Ok(Gateway {
            shared,
            addresses: options.addresses,
            cores,
            directory,
            running: Mutex::new(running),
        })
    }

    /// Runs another configuration from now on: it is compiled beside the present one, then each listener swaps to it at
    /// once. Connections stay. `handlers` answer for `config.publish`, in its order.
    ///
    /// # Panics
    /// When there are fewer handlers than publish routes: that is a bug of ours.
    pub fn apply(&self, config: &Config, handlers: &[Arc<dyn Handler>]) -> Applied {
        assert!(
            handlers.len() >= config.publish.len(),
            "a handler for each publish route"
        );
        let mut running = self.running();
        let running = &mut *running;
        let mut applied = Applied::default();
        // New endpoints are known before routes lead to them, and old ones for as long as routes do.
        self.directory.add(Teller::Configuration, &config.endpoints);
        running.clusters.begin();
        running.terminators.begin();
        running.kept.begin(config);
        let mut parts = Parts {
            config,
            handlers,
            clusters: &mut running.clusters,
            terminators: &mut running.terminators,
            meters: &self.shared.meters,
            ordered: self.shared.ordered.as_ref(),
        };
        let mut routes = HashSet::new();
        let mut shown = Vec::new();
        let mut wanted = BTreeMap::new();
        let added = config.additional_listeners();
        let listeners = wanted_listeners(config, &added, &self.addresses);
        let several = listeners.len() > 1;
        let mut told = HashSet::new();
        for listener in config
            .listeners
            .iter()
            .filter(|listener| !unbuilt::is_served(&listener.spec))
        {
            applied.problems.push(Problem {
                severity: Severity::Warning,
                origin: listener.origin.clone(),
                span: 0..0,
                object: Some(format!("Listener {}", listener.full_name())),
                path: String::new(),
                what: "TCP, TLS without HTTP and HTTP/3 are not served yet".to_owned(),
                hint: None,
            });
        }
        for (address, listener) in listeners {
            let port = running
                .listeners
                .get(&address)
                .map_or(address.port(), |l| l.address.port());
            let (front, problems) = Front::build(&mut parts, &mut running.kept, listener, port);
            // Each listener finds the same problems again.
            for problem in problems {
                if !several || told.insert(problem.clone()) {
                    applied.problems.push(problem);
                }
            }
            routes.extend(front.routes.iter().map(|route| route.name.clone()));
            let chains = front.chains.iter().flat_map(|chains| &chains.all);
            shown.extend(chains.cloned());
            wanted.insert(address, front);
        }
        // What is compiled is swapped in; what is gone ends with its current requests. By the end of this most of them are
        // over, so that the old routes are taken down here and not between requests.
        let mut retired = Vec::new();
        for (address, listener) in std::mem::take(&mut running.listeners) {
            match wanted.remove(&address) {
                Some(front) => {
                    retired.push(listener.front.swap(Arc::new(front)));
                    running.listeners.insert(address, listener);
                }
                None => {
                    info!(address = %listener.address, "stopped listening");
                    listener.stop.cancel();
                }
            }
        }
        for (address, front) in wanted {
            match self.open(address, front, &running.stop) {
                Ok(listener) => {
                    info!(address = %listener.address, "listening");
                    running.listeners.insert(address, listener);
                }
                Err(error) => {
                    warn!(%error, %address, "cannot listen");
                    applied.deaf.push((address, error));
                }
            }
        }
        let path = config.module.envoy_log_path.as_deref().map(Path::new);
        if let Err(error) = self.shared.access.set_path(path) {
            applied.problems.push(Problem {
                severity: Severity::Warning,
                origin: Origin::source("Module"),
                span: 0..0,
                object: Some("Module ambassador".to_owned()),
                path: "envoy_log_path".to_owned(),
                what: format!("access lines stay where they were: {error}"),
                hint: None,
            });
        }
        running.clusters.finish();
        running.terminators.finish();
        self.shared.chains.store(Arc::new(shown));
        running.kept.finish();
        self.directory
            .tell(Teller::Configuration, config.endpoints.clone());
        self.shared.clusters.store(Arc::new(running.clusters.all()));
        self.shared.meters.keep_routes(|name| routes.contains(name));
        applied
    }

    /// Returns the directory of endpoints, which other sources feed too.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    fn open(
        &self,
        address: SocketAddr,
        mut front: Front,
        stop: &CancellationToken,
    ) -> io::Result<Arc<Listener>> {
        let (bound, sockets) = tcp::bind(address, self.cores.len())?;
        front.port = bound.port();
        let meters = self.shared.meters.listener(bound);
        let listener = Arc::new(Listener::new(front, bound, stop.child_token(), meters));
        for (number, (core, socket)) in self.cores.iter().zip(sockets).enumerate() {
            let (listener, shared) = (listener.clone(), self.shared.clone());
            let tracker = core.connections.clone();
            core.runtime
                .spawn(tcp::accept(socket, listener, shared, number, tracker));
        }
        Ok(listener)
    }

    /// Returns the addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.running()
            .listeners
            .values()
            .map(|listener| listener.address)
            .collect()
    }

    /// Stops to accept, lets requests finish for as long as the limit says, then ends. Returns whether all finished.
    pub async fn shutdown(&self) -> bool {
        let drain = self.shared.limits.timeouts.drain;
        self.running().stop.cancel();
        let deadline = tokio::time::Instant::now() + drain;
        let mut all = true;
        for core in &self.cores {
            core.connections.close();
            all &= tokio::time::timeout_at(deadline, core.connections.wait())
                .await
                .is_ok();
        }
        if all {
            info!("drained");
        } else {
            warn!(after = ?drain, "connections still open, closing them");
        }
        for core in &self.cores {
            core.end();
        }
        all
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running().stop.cancel();
    }
}

/// Returns what is wrong with the certificates of a configuration, for somebody who does not run it.
pub fn check_certificates(config: &Config) -> Vec<Problem> {
    snapshot::chains::check(config)
}

/// Returns where to listen, and what for.
fn wanted_listeners<'c>(
    config: &'c Config,
    added: &'c [Object<model::Listener>],
    addresses: &[SocketAddr],
) -> Vec<(SocketAddr, Option<&'c Object<model::Listener>>)> {
    let ip = addresses
        .first()
        .map_or(std::net::Ipv4Addr::LOCALHOST.into(), SocketAddr::ip);
    let listeners: Vec<_> = config
        .listeners
        .iter()
        .filter(|listener| unbuilt::is_served(&listener.spec))
        .map(|listener| (SocketAddr::new(ip, listener.spec.port), Some(listener)))
        .collect();
    let mut all = match config.listeners.is_empty() {
        true => addresses.iter().map(|address| (*address, None)).collect(),
        false => listeners,
    };
    for added in added {
        let address = SocketAddr::new(ip, added.spec.port);
        if !all.iter().any(|(taken, _)| *taken == address) {
            all.push((address, Some(added)));
        }
    }
    all
}

/// How often cores look for connections that have been unused for too long.
const TIDY_EVERY: Duration = Duration::from_secs(5);
