//! The running whole: what `serve` and `up` start, keep in step with the configuration, and end.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use acme::Acme;
use admin::{Ask, Subject};
use anyhow::Context;
use bridge::log::Log;
use bridge::publish::{NoBroker, Publisher};
use bridge::subscribe::Subscriptions;
use broker::Broker;
use control::{Control, Published};
use gateway::Gateway;
use gateway::backend::Handler;
use gateway::discovery::{Directory, Teller};
use gateway::explain::explain;
use gateway::listener::Limits;
use gateway::route::Table;
use gateway::route::explain::{Outcome, Question};
use gateway::view::Upstream;
use model::{Config, Problem};
use observe::access::AccessLog;
use observe::log::Filter;
use observe::metrics::{Histogram, Kind, Metrics, Page, SECONDS, Source, labels};
use rustix::process::{Resource, Rlimit};
use serde_json::{Value, json};
use tls::keep::Terminators;
use tls::ordered::Ordered;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::cluster;
use super::diag::Look;
use super::entry::Entry;
use super::kafka::{self, Listening};
use super::{GATEWAY, Options, Role};
use crate::check;

/// Gateway, broker, bridge and admin API, running.
pub(crate) struct Running {
    house: Arc<House>,
    control: Control,
    /// The admin API, the broker's listeners and the task that applies configurations.
    tasks: JoinSet<()>,
    /// Ends the control plane and the tasks; cancelled by [`Running::end`].
    stop: CancellationToken,
}

/// What the running tasks share.
struct House {
    metrics: Metrics,
    published: watch::Receiver<Arc<Published>>,
    gateway: Option<Arc<Gateway>>,
    /// Orders the gateway's certificates.
    acme: Option<Arc<Acme>>,
    broker: Option<Broker>,
    log: Option<Log>,
    subscriptions: Subscriptions,
    /// Who tells where services are.
    directory: Directory,
    /// Keeps the broker's settings in step, as far as they can change while it runs.
    entry: Entry,
    addresses: Mutex<Addresses>,
    /// What the gateway found when it took the configuration that runs.
    found: Mutex<Vec<Problem>>,
    /// How long it took to bring the configurations into effect.
    reloads: Histogram,
    /// The last of them.
    reloaded_in: Mutex<Duration>,
    log_filter: Option<Filter>,
    /// Those of the broker's listeners, whose files are looked at.
    _certificates: Option<Terminators>,
    started: Instant,
    stop: CancellationToken,
}

/// Where a running Nuncio is reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    /// The gateway's listeners.
    pub(crate) gateway: Vec<SocketAddr>,
    /// The embedded broker, or the Kafka cluster in its place.
    pub(crate) kafka: Option<String>,
    /// The embedded broker's listeners, of which `kafka` is the first.
    pub(crate) listeners: Vec<Listening>,
    /// The admin API.
    pub(crate) admin: Option<SocketAddr>,
}

impl Addresses {
    /// Returns a line for each address, as `gateway http://127.0.0.1:8080`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let gateway = self
            .gateway
            .iter()
            .map(|address| format!("gateway http://{address}"));
        let kafka = self.kafka.iter().map(|address| format!("kafka {address}"));
        // The only one that the short form has goes without saying.
        let told = if self.listeners.len() == 1 && self.listeners[0].name == "PLAINTEXT" {
            &[][..]
        } else {
            &self.listeners
        };
        let listeners = told.iter().map(|listener| {
            let Listening {
                name,
                protocol,
                address,
            } = listener;
            format!("kafka listener {name} {protocol} {address}")
        });
        let admin = self
            .admin
            .iter()
            .map(|address| format!("admin http://{address}"));
        gateway.chain(kafka).chain(listeners).chain(admin).collect()
    }
}

impl Running {
    /// Starts everything that the role asks for and returns once it serves the first configuration.
    pub(crate) async fn start(options: Options) -> anyhow::Result<Self> {
        let started = Instant::now();
        raise_open_files();
        let stop = CancellationToken::new();
        let metrics = Metrics::default();
        let from = control::Options {
            told: options.told.clone(),
            model: check::model_options()?,
            ..control::Options::new(options.config.clone())
        };
        let control = Control::start(from, &metrics, stop.clone()).await;
        let config = control.current().config.clone();
        if options.role != Some(Role::Gateway) {
            kafka::refuse_in_doubt(&control.current())?;
        }
        let mut tasks = JoinSet::new();

        let mut listeners = Vec::new();
        let mut certificates = None;
        let log;
        let (broker, kafka) = match runs_broker(&options, &config) {
            true => {
                let started = kafka::start(&options, &config, &metrics, &stop, &mut tasks).await?;
                listeners = started.listeners;
                certificates = Some(started.certificates);
                log = Some(Log::Embedded {
                    broker: started.broker.clone(),
                    bootstrap: started.bootstrap,
                    password: started.password,
                });
                let first = listeners.first().map(|first| first.address.to_string());
                (Some(started.broker), first)
            }
            false => {
                let bootstrap = config.broker.bootstrap.clone();
                let security = cluster::security(&config.broker)?;
                log = bootstrap
                    .as_deref()
                    .map(|bootstrap| Log::cluster(bootstrap, security));
                (None, bootstrap)
            }
        };
        let ordered = Arc::new(Ordered::new(options.place.data.join("acme")));
        let gateway = match options.role {
            Some(Role::Broker) => None,
            _ => Some(Arc::new(start_gateway(&options, &metrics, &ordered)?)),
        };
        let acme = gateway.as_ref().map(|_| {
            let stop = stop.child_token();
            Arc::new(Acme::new(ordered, &metrics, Handle::current(), stop))
        });
        let directory = match &gateway {
            Some(gateway) => gateway.directory(),
            None => Directory::default(),
        };
        let admin = bind_admin(&options, &config).await?;
        let addresses = Addresses {
            gateway: Vec::new(),
            kafka,
            listeners,
            admin: Some(admin.local_addr()?),
        };
        let house = Arc::new(House {
            metrics: metrics.clone(),
            published: control.published(),
            gateway,
            acme,
            broker,
            log,
            subscriptions: Subscriptions::new(
                metrics.clone(),
                directory.clone(),
                stop.child_token(),
            ),
            directory,
            entry: Entry::new(&config.broker),
            addresses: Mutex::new(addresses),
            found: Mutex::default(),
            reloads: metrics.histogram(
                "nuncio_reload_seconds",
                "From a checked configuration to the one that all requests see.",
                &[],
                SECONDS,
            ),
            reloaded_in: Mutex::default(),
            log_filter: options.log.clone(),
            _certificates: certificates,
            started,
            stop: stop.clone(),
        });
        let source: Arc<dyn Source> = house.clone();
        metrics.ask(Arc::downgrade(&source));
        let mut published = control.published();
        let first = published.borrow_and_update().clone();
        if let Some((address, cause)) = house.apply(&first).await.into_iter().next() {
            return Err(cause).with_context(|| taken("gateway", address, "--gateway"));
        }
        tasks.spawn(follow(house.clone(), published, first.version));
        let (subject, stopping) = (house.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = admin::serve(admin, subject, metrics, stopping).await {
                error!(%error, "admin API failed");
            }
        });
        info!(
            ready_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
        Ok(Running {
            house,
            control,
            tasks,
            stop,
        })
    }

    /// Returns where everything is reached.
    pub(crate) fn addresses(&self) -> Addresses {
        self.house.addresses()
    }

    /// Returns the control plane, with the configuration that runs; `up` tells it its services' addresses.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Ends everything in order: no new requests, deliveries finished and committed, the log flushed.
    pub(crate) async fn end(self) {
        let Running {
            house,
            control,
            mut tasks,
            stop,
        } = self;
        info!("stopping");
        if let Some(acme) = &house.acme {
            acme.end();
        }
        house.subscriptions.end().await;
        if let Some(gateway) = &house.gateway {
            gateway.shutdown().await;
        }
        stop.cancel();
        drop(control);
        while tasks.join_next().await.is_some() {}
        if let Some(broker) = &house.broker {
            broker.close().await;
        }
        info!("ended");
    }
}

/// Raises the soft limit of open files to the hard one: each connection and each partition's files count.
fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        warn!(%error, open_files_max = limit.current, "the limit of open files stays low");
    }
}

fn runs_broker(options: &Options, config: &Config) -> bool {
    options.role != Some(Role::Gateway) && config.broker.bootstrap.is_none()
}

fn start_gateway(
    options: &Options,
    metrics: &Metrics,
    ordered: &Arc<Ordered>,
) -> anyhow::Result<Gateway> {
    let access = match options.access_log {
        true => AccessLog::start(std::io::stdout(), metrics)
            .context("could not start the access log")?,
        false => AccessLog::off(metrics),
    };
    let address = options
        .place
        .gateway
        .unwrap_or_else(|| GATEWAY.parse().expect("the default is an address"));
    let options = gateway::Options {
        addresses: vec![address],
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        metrics: metrics.clone(),
        access,
        limits: Limits::default(),
        ordered: Some(ordered.clone()),
    };
    Gateway::start(options).context("could not start the gateway's threads")
}

async fn bind_admin(options: &Options, config: &Config) -> anyhow::Result<TcpListener> {
    let address = options
        .place
        .admin
        .unwrap_or_else(|| ([127, 0, 0, 1], config.module.diag_port.unwrap_or(8877)).into());
    TcpListener::bind(address)
        .await
        .with_context(|| taken("admin API", address, "--admin"))
}

pub(super) fn taken(who: &str, address: SocketAddr, flag: &str) -> String {
    format!(
        "the {who} cannot listen on {address}; is another Nuncio running? ({flag} names another address)"
    )
}

/// Most problems that one configuration writes to the log; all of them are told by the admin API.
const PROBLEMS_TOLD_MAX: usize = 100;

/// Applies each configuration as it is published. Where nothing but endpoints has changed, nothing is built anew.
async fn follow(
    house: Arc<House>,
    mut published: watch::Receiver<Arc<Published>>,
    mut applied: u64,
) {
    loop {
        tokio::select! {
            () = house.stop.cancelled() => return,
            changed = published.changed() => if changed.is_err() { return },
        }
        let latest = published.borrow_and_update().clone();
        if latest.version == applied {
            house.tell_endpoints(&latest.config);
            continue;
        }
        applied = latest.version;
        for (address, error) in house.apply(&latest).await {
            error!(%address, %error, "cannot listen");
        }
    }
}

impl House {
    /// Takes the endpoints of a configuration that differs from the running one in nothing else.
    fn tell_endpoints(&self, config: &Config) {
        let endpoints = config.endpoints.clone();
        self.directory.tell(Teller::Configuration, endpoints);
    }

    /// Brings topics, routes and subscriptions in line with a configuration. Returns what could not be listened on.
    async fn apply(&self, published: &Published) -> Vec<(SocketAddr, std::io::Error)> {
        let began = Instant::now();
        let config = &published.config;
        self.entry.apply(self.broker.as_ref(), &config.broker).await;
        if let Some(log) = &self.log {
            for (origin, trouble) in log.ensure_topics(&config.topics).await {
                error!(%origin, "{trouble}");
            }
        }
        let mut deaf = Vec::new();
        if let Some(gateway) = &self.gateway {
            let handlers: Vec<_> = config
                .publish
                .iter()
                .map(|publish| self.handler(&publish.spec))
                .collect();
            let (taking, wanted) = (gateway.clone(), config.clone());
            let acme = self.acme.clone();
            let work = move || {
                let found = acme.map(|acme| acme.prepare(&wanted));
                let mut applied = taking.apply(&wanted, &handlers);
                applied.problems.extend(found.into_iter().flatten());
                applied
            };
            let applied = match kit::aside::aside("configuration", work).await {
                Ok(applied) => applied,
                Err(lost) => {
                    error!(error = %lost, "the gateway could not take the configuration, the one before goes on");
                    return Vec::new();
                }
            };
            let told: HashSet<&Problem> = published.problems.iter().collect();
            for problem in applied
                .problems
                .iter()
                .filter(|problem| !told.contains(problem))
                .take(PROBLEMS_TOLD_MAX)
            {
                warn!("{problem}");
            }
            if let Some(acme) = &self.acme {
                acme.run(config);
            }
            deaf = applied.deaf;
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = applied.problems;
            self.addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .gateway = gateway.addresses();
        }
        // A gateway has told them with its routes.
        if self.gateway.is_none() {
            self.tell_endpoints(config);
        }
        if let Some(log) = &self.log {
            self.subscriptions.apply(config.clone(), log).await;
        } else if !config.subscribe.is_empty() {
            warn!(
                "subscriptions do not run: this process has no broker; `broker.bootstrap` names one"
            );
        }
        let took = began.elapsed();
        self.reloads.record(took);
        *self
            .reloaded_in
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = took;
        info!(version = published.version, "configuration applied");
        deaf
    }

    fn handler(&self, spec: &model::Publish) -> Arc<dyn Handler> {
        let Some(log) = &self.log else {
            return Arc::new(NoBroker);
        };
        let publisher = Publisher::new(spec, log.clone(), &self.metrics);
        Arc::new(
            publisher.expect(
                "a checked configuration has only templates and header names that can be read",
            ),
        )
    }

    fn addresses(&self) -> Addresses {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl House {
    fn upstreams(&self) -> Vec<Upstream> {
        let gateway = self.gateway.as_ref();
        gateway
            .map(|gateway| gateway.upstreams())
            .unwrap_or_default()
    }

    fn look<T>(&self, upstreams: &[Upstream], see: impl FnOnce(Look<'_>) -> T) -> T {
        let published = self.published.borrow().clone();
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        see(Look {
            published: &published,
            found: &found,
            upstreams,
            uptime: self.started.elapsed(),
            ready: self.ready().is_ok(),
        })
    }
}

impl Source for House {
    /// What Ambassador tells about its diagnostics.
    fn tell(&self, page: &mut Page) {
        let (errors, notices) = self.look(&[], |look| look.counts());
        let mut gauge = |name: &str, help, value: f64| {
            page.foreign(&format!("ambassador_{name}"), Kind::Gauge, help)
                .value("", value);
        };
        let help = "Objects' errors at present.";
        gauge("diagnostics_errors", help, errors as f64);
        let help = "Objects' warnings at present.";
        gauge("diagnostics_notices", help, notices as f64);
        let took = *self
            .reloaded_in
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let help = "Seconds that the last configuration took to run.";
        gauge("reconfiguration_time_seconds", help, took.as_secs_f64());
        let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
        page.foreign("ambassador_diagnostics_info", Kind::Gauge, "Always 1.")
            .value(&version, 1);
    }
}

impl Subject for House {
    fn ready(&self) -> Result<(), String> {
        if self.stop.is_cancelled() {
            Err("stopping".into())
        } else {
            Ok(())
        }
    }

    fn status(&self) -> Value {
        let published = self.published.borrow().clone();
        let addresses = self.addresses();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "addresses": {
                "gateway": addresses.gateway,
                "kafka": addresses.kafka,
                "kafka_listeners": addresses.listeners.iter().map(|listener| json!({
                    "name": listener.name,
                    "protocol": listener.protocol,
                    "address": listener.address,
                })).collect::<Vec<_>>(),
                "admin": addresses.admin,
            },
            "configuration": {
                "version": published.version,
                "at": seconds(published.at),
                "good_at": published.good_at.and_then(seconds),
                "problems": published.problems.iter().map(check::json).collect::<Vec<_>>(),
            },
            "upstreams": self.upstreams(),
            "topics": self.broker.as_ref().map(|broker| topics(&broker.topics())),
            "groups": self.broker.as_ref().map(|broker| groups(&broker.groups())),
        })
    }

    fn diagnose(&self) -> Option<Value> {
        let enabled = {
            let published = self.published.borrow();
            let diagnostics = published.config.module.diagnostics.as_ref();
            diagnostics.and_then(|diagnostics| diagnostics.enabled)
        };
        if enabled == Some(false) {
            return None;
        }
        Some(self.look(&self.upstreams(), |look| look.told()))
    }

    fn log_at(&self, filter: &str) -> Result<(), String> {
        match &self.log_filter {
            Some(log) => log.set(filter),
            None => Err("the log cannot be changed here".to_owned()),
        }
    }

    fn explain(&self, ask: &Ask) -> Result<Value, String> {
        let headers: Vec<String> = ask
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let mut question =
            Question::read(&ask.method, &ask.url, &headers).map_err(|error| error.to_string())?;
        if let Some(client) = &ask.client {
            let address = client.parse();
            question.client = Some(address.map_err(|_| format!("`{client}` is no IP address"))?);
        }
        let config = self.published.borrow().config.clone();
        let explained = match &self.gateway {
            Some(gateway) => gateway.explain(&config, &question),
            None => explain(&config, &Table::build(&config).0, &question),
        };
        let routes: Vec<&str> = match &explained.outcome {
            Outcome::Routed(takers) => takers.iter().map(|taker| &*taker.route).collect(),
            _ => Vec::new(),
        };
        let mut upstreams = self.upstreams();
        upstreams.retain(|upstream| {
            let mut theirs = upstream.routes.iter();
            theirs.any(|route| routes.contains(&&**route))
        });
        let mut told = serde_json::to_value(&explained).map_err(|error| error.to_string())?;
        told["upstreams"] = json!(upstreams);
        told["version"] = json!(env!("CARGO_PKG_VERSION"));
        Ok(told)
    }
}

fn seconds(at: SystemTime) -> Option<u64> {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

fn topics(topics: &[broker::view::Topic]) -> Value {
    let one = |topic: &broker::view::Topic| {
        let partitions: Vec<Value> = topic
            .partitions
            .iter()
            .map(|p| json!({ "partition": p.index, "start": p.start, "end": p.high_water, "bytes": p.bytes }))
            .collect();
        json!({
            "name": topic.name,
            "id": topic.id,
            "internal": topic.internal,
            "settings": topic.settings,
            "partitions": partitions,
        })
    };
    topics.iter().map(one).collect()
}

fn groups(groups: &[broker::view::Group]) -> Value {
    let one = |group: &broker::view::Group| {
        let members: Vec<Value> = group
            .members
            .iter()
            .map(|m| json!({ "id": m.id, "client": m.client_id, "host": m.client_host, "instance": m.instance_id }))
            .collect();
        let offsets: Vec<Value> = group
            .offsets
            .iter()
            .map(|o| json!({ "topic": o.topic, "partition": o.partition, "committed": o.committed, "lag": o.lag }))
            .collect();
        json!({ "id": group.id, "state": group.state, "members": members, "offsets": offsets })
    };
    groups.iter().map(one).collect()
}
