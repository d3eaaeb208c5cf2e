//! The event broker: Kafka's protocol in front, a log on disk behind.
//!
//! ```text
//! listener → connection → dispatch → api/* ┬ partition → writer → journal
//!                             Broker::produce ┘     group/* ┘
//! ```
//! [`Broker`] is the handle that the rest of the house holds; clones are cheap.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kit::memory::Memory;
use parking_lot::Mutex;
use tls::accept::Turns;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

mod access;
mod api;
mod auth;
mod chores;
mod cleaner;
mod clock;
pub mod compatibility;
mod connection;
mod core;
mod dispatch;
mod ensure;
mod export;
mod files;
mod group;
#[cfg(any(test, feature = "fuzzing"))]
pub mod hostile;
mod intake;
mod ledger;
mod listener;
mod metrics;
mod node;
mod partition;
mod partitioner;
pub mod produce;
mod quota;
mod said;
mod share;
mod straight;
mod tally;
mod topic;
mod txn;
pub mod view;
mod writer;

pub use crate::access::Authorization;
pub use crate::auth::{Mechanism, NotAMechanism, Secret, User};
pub use crate::cleaner::Compacting;
pub use crate::core::Limits;
pub use crate::ensure::{Drift, EnsureError};
pub use crate::listener::{Listener, NotAProtocol, Protocol};

use crate::access::Access;
use crate::auth::users::Users;
use crate::core::Core;
use crate::group::coordinator::Coordinator;
use crate::group::settings::GroupSettings;
use crate::group::store;
use crate::group::terms::Rules;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::partition::Partition;
use crate::quota::Quotas;
use crate::share::partitions::Shares;
use crate::topic::config::{Base, Overrides};
use crate::topic::registry::{self, NewTopic, Topics};
use crate::topic::{OFFSETS_TOPIC, SHARES_TOPIC, TRANSACTIONS_TOPIC, Topic, adopt};
use crate::txn::coordinator::Transactions;
use crate::txn::store as transaction_store;
use crate::txn::terms as transaction_terms;
use crate::writer::Writer;

/// Partitions of a topic that holds groups or transactions: one node has one coordinator, and one
/// partition gives all its changes one order and one flush.
const STATE_PARTITIONS: usize = 1;
/// State is compacted in files of this size: what is in the newest of them is read at each start.
const STATE_SEGMENT_BYTES: &str = "8388608";

/// A host and a port that are told to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

/// A text that is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address, write `HOST:PORT`")]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let split = text.rsplit_once(':');
        let (host, port) = split.ok_or_else(|| NotAnAddress(text.to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match port.parse() {
            Ok(port) if !host.is_empty() => Ok(Address {
                host: host.to_owned(),
                port,
            }),
            _ => Err(NotAnAddress(text.to_owned())),
        }
    }
}

/// How a broker is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept; made when it is not there.
    pub data_dir: PathBuf,
    /// The address told to clients; `None` tells each client the address that it has used.
    pub advertised: Option<Address>,
    /// Where the broker counts.
    pub metrics: observe::metrics::Metrics,
    /// Whether asking for the metadata of a topic creates it (`auto.create.topics.enable`).
    pub auto_create: bool,
    /// Partitions of topics that do not say (`num.partitions`).
    pub partitions_default: usize,
    /// Settings of topics that do not say, under the names of topic settings (`retention.ms`, ...).
    pub topic_defaults: BTreeMap<String, String>,
    /// How long an empty group that is joined waits for more members. Kafka's default is 3 s; ours
    /// is 0, because a first assignment without delay is worth more on one machine than a rebalance.
    pub group_initial_rebalance_delay: Duration,
    /// The shortest and the longest session of a member of a classic group (`group.min.session.timeout.ms`,
    /// `group.max.session.timeout.ms`).
    pub group_session_timeout_ms: RangeInclusive<i32>,
    /// Most members of a classic group (`group.max.size`).
    pub group_members_max: usize,
    /// How long offsets are kept that nobody uses (`offsets.retention.minutes`).
    pub offsets_retention: Duration,
    /// The longest that a transaction may be open (`transaction.max.timeout.ms`).
    pub transaction_timeout_max: Duration,
    /// How long a transactional id is kept that nobody uses (`transactional.id.expiration.ms`).
    pub transactional_id_expiration: Duration,
    /// How often old records are looked for (`log.retention.check.interval.ms`).
    pub retention_check: Duration,
    /// How compacted topics are compacted.
    pub compacting: Compacting,
    /// Users of whom the configuration tells; others are made over the protocol.
    pub users: Vec<User>,
    /// How it is decided what clients may do; they may do everything where nothing is said.
    pub authorization: Option<Authorization>,
    /// What the broker takes on at most.
    pub limits: Limits,
}

impl Options {
    /// Returns Kafka's defaults, but for the rebalance delay.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            advertised: None,
            metrics: observe::metrics::Metrics::default(),
            auto_create: true,
            partitions_default: 1,
            topic_defaults: BTreeMap::new(),
            group_initial_rebalance_delay: Duration::ZERO,
            group_session_timeout_ms: 6_000..=1_800_000,
            group_members_max: 10_000,
            offsets_retention: Duration::from_hours(7 * 24),
            transaction_timeout_max: Duration::from_mins(15),
            transactional_id_expiration: Duration::from_hours(7 * 24),
            retention_check: Duration::from_mins(5),
            compacting: Compacting::default(),
            users: Vec::new(),
            authorization: None,
            limits: Limits::default(),
        }
    }
}

/// Why a broker could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("`{}` is in use by another broker", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// A default for topics is not a setting that exists, or not a value it can have.
    #[error("topic default is not valid: {why}")]
    Defaults {
        /// What is wrong.
        why: String,
    },
    /// The disk did not answer, or what it said makes no sense.
    #[error("could not open the broker in `{}`", dir.display())]
    Disk {
        /// The data directory.
        dir: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// An open broker.
#[derive(Debug, Clone)]
pub struct Broker {
    core: Arc<Core>,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Rotates records without a key over the partitions.
    turn: AtomicUsize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Broker {
    /// Opens the broker in its data directory, recovers what an unclean stop left behind, and starts
    /// its chores on the current runtime.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let dir = options.data_dir.clone();
        let opening = spawn_blocking(move || open(options));
        let opened = match opening.await {
            Ok(opened) => opened?,
            Err(error) => {
                let source = io::Error::other(error);
                return Err(OpenError::Disk { dir, source });
            }
        };
        let Opened { core, queue } = opened;
        let core = Arc::new(core);
        core.metrics.ask(&core);
        let stop = CancellationToken::new();
        let offsets = core
            .topics
            .get(OFFSETS_TOPIC)
            .and_then(|topic| topic.partition(0));
        let mut tasks = Vec::new();
        if let Some(offsets) = offsets {
            let (groups, writer) = (core.groups.clone(), core.writer.clone());
            tasks.push(tokio::spawn(store::run(
                groups,
                writer,
                offsets,
                queue,
                stop.clone(),
            )));
        }
        let (groups, ending) = (core.groups.clone(), stop.clone());
        tasks.push(tokio::spawn(async move { groups.run_timer(ending).await }));
        tasks.push(tokio::spawn(txn::coordinator::run(
            core.clone(),
            stop.clone(),
        )));
        let (shares, ending) = (core.shares.clone(), stop.clone());
        tasks.push(tokio::spawn(shares.run_timer(ending)));
        tasks.push(tokio::spawn(chores::run(core.clone(), stop.clone())));
        tasks.push(tokio::spawn(cleaner::run(core.clone(), stop.clone())));
        info!(dir = %dir.display(), topics = core.topics.all().len(), "broker open");
        let running = Running {
            stop,
            tasks: Mutex::new(tasks),
            turn: AtomicUsize::new(0),
        };
        Ok(Self {
            core,
            running: Arc::new(running),
        })
    }

    /// Serves Kafka clients without TLS and SASL until told to stop, then lets open requests finish.
    pub async fn serve(&self, socket: TcpListener, stop: CancellationToken) {
        let listener = Listener {
            advertised: self.core.advertised.clone(),
            ..Listener::new("PLAINTEXT", Protocol::Plaintext, &self.core.limits)
        };
        self.serve_as(socket, listener, stop).await;
    }

    /// Serves Kafka clients as a listener says. Several may be served at a time.
    pub async fn serve_as(&self, socket: TcpListener, listener: Listener, stop: CancellationToken) {
        listener::serve(self.core.clone(), socket, listener, stop).await;
    }

    /// Flushes everything and closes the logs, so that the next start need not read them. Call it when
    /// no listener is served any more; what is asked of the broker afterwards fails.
    pub async fn close(&self) {
        self.running.stop.cancel();
        self.core.transactions.stop();
        let tasks = std::mem::take(&mut *self.running.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                error!(%error, "a chore of the broker failed");
            }
        }
        let core = self.core.clone();
        let closed = spawn_blocking(move || {
            core.writer.stop();
            for topic in core.topics.all() {
                for partition in topic.partitions().iter() {
                    if let Err(rejected) = partition.close() {
                        error!(topic = %topic.name, partition = partition.index, %rejected, "could not close");
                    }
                }
            }
        });
        match closed.await {
            Ok(()) => info!("broker closed"),
            Err(error) => error!(%error, "could not close the broker"),
        }
    }

    fn turn(&self) -> usize {
        self.running.turn.fetch_add(1, Ordering::Relaxed)
    }
}

struct Opened {
    core: Core,
    queue: tokio::sync::mpsc::Receiver<store::Entry>,
}

/// Lets the process open as many files as the system allows: each partition holds a few.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, "could not raise the limit of open files");
        }
    }
}

/// Returns the only partition of a topic that holds state, which is made when it is not there.
pub(crate) fn state_topic(topics: &Topics, name: &str) -> io::Result<Arc<Partition>> {
    let topic: Arc<Topic> = match topics.get(name) {
        Some(topic) => topic,
        None => topics
            .create(NewTopic {
                name: name.to_owned(),
                partitions: STATE_PARTITIONS,
                overrides: Overrides::from([
                    ("cleanup.policy".into(), "compact".into()),
                    ("segment.bytes".into(), STATE_SEGMENT_BYTES.into()),
                ]),
            })
            .map_err(io::Error::other)?,
    };
    topic
        .partition(0)
        .ok_or_else(|| io::Error::other(format!("`{name}` has no partition")))
}

fn open(options: Options) -> Result<Opened, OpenError> {
    raise_open_files();
    let dir = options.data_dir.clone();
    let failed = |source| OpenError::Disk {
        dir: dir.clone(),
        source,
    };
    fs::create_dir_all(&dir).map_err(failed)?;
    let lock = Arc::new(File::create(dir.join(".lock")).map_err(failed)?);
    match lock.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { dir }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let base = Base::new(options.topic_defaults).map_err(|invalid| OpenError::Defaults {
        why: invalid.to_string(),
    })?;
    let adoptable = adopt::survey(&dir).map_err(failed)?;
    let mut node = Node::open(&dir).map_err(failed)?;
    node.raise(adoptable.epoch, adoptable.producer_id)
        .map_err(failed)?;
    let topics = Topics::open(registry::Options {
        data_dir: dir.clone(),
        base,
        epoch: node.epoch(),
        partitions_max: options.limits.partitions_max,
        metrics: options.metrics.clone(),
        adoptable,
    })
    .map_err(failed)?;
    let other = |error: Box<dyn std::error::Error + Send + Sync>| failed(io::Error::other(error));
    let offsets = state_topic(&topics, OFFSETS_TOPIC).map_err(failed)?;
    let loaded = store::load(&offsets).map_err(|error| other(error.into()))?;
    let states = state_topic(&topics, TRANSACTIONS_TOPIC).map_err(failed)?;
    let transactions = transaction_store::load(&states).map_err(|error| other(error.into()))?;
    let metrics = Metrics::new(options.metrics);
    let writer = Writer::start(metrics.flush_seconds.clone(), &lock).map_err(failed)?;
    let rules = Rules {
        initial_delay_ms: i64::try_from(options.group_initial_rebalance_delay.as_millis())
            .unwrap_or(i64::MAX),
        session_timeout_min_ms: *options.group_session_timeout_ms.start(),
        session_timeout_max_ms: *options.group_session_timeout_ms.end(),
        members_max: options.group_members_max,
    };
    let retention_ms = i64::try_from(options.offsets_retention.as_millis()).unwrap_or(i64::MAX);
    let writer = Arc::new(writer);
    let transactions = {
        let (timeout, expiration) = (
            options.transaction_timeout_max.as_millis(),
            options.transactional_id_expiration.as_millis(),
        );
        let rules = transaction_terms::Rules {
            timeout_max_ms: i32::try_from(timeout).unwrap_or(i32::MAX),
            expiration_ms: i64::try_from(expiration).unwrap_or(i64::MAX),
        };
        let store = transaction_store::Store::new(states, writer.clone());
        Transactions::new(rules, store, transactions)
    };
    let quotas = Quotas::open(&dir).map_err(failed)?;
    // The topic comes with the first share group.
    let share_states = topics
        .get(SHARES_TOPIC)
        .and_then(|topic| topic.partition(0));
    let group_settings = Arc::new(GroupSettings::open(&dir).map_err(failed)?);
    let shares = Shares::new(
        writer.clone(),
        share_states,
        group_settings.clone(),
        node.epoch(),
    )
    .map_err(|error| other(error.into()))?;
    let (groups, queue) =
        Coordinator::new(rules.clone(), group_settings.clone(), retention_ms, loaded);
    shares.adopt(&groups.share_keys());
    let permits = |bytes: usize| Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
    let users = Users::open(&dir, &options.users).map_err(failed)?;
    let asked = options.authorization.as_ref();
    let access = asked.map(|asked| Access::open(&dir, asked));
    let access = access.transpose().map_err(failed)?;
    let core = Core {
        connections: permits(options.limits.connections_max),
        users: Arc::new(users),
        access: access.map(Arc::new),
        turns: Turns::new(std::thread::available_parallelism().map_or(1, usize::from)),
        memory: Memory::new(
            options.limits.requests_bytes_max,
            options.limits.request_bytes_max,
        ),
        answers: Default::default(),
        sessions: Default::default(),
        limits: options.limits,
        advertised: options.advertised,
        auto_create: options.auto_create,
        partitions_default: options.partitions_default.max(1),
        rules,
        offsets_retention: options.offsets_retention,
        retention_check: options.retention_check,
        compacting: options.compacting,
        node,
        topics,
        writer,
        groups: Arc::new(groups),
        group_settings,
        quotas,
        clients: Default::default(),
        transactions: Arc::new(transactions),
        shares: Arc::new(shares),
        metrics,
        _lock: lock,
    };
    Ok(Opened { core, queue })
}
