//! What all connections share.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use kit::memory::Memory;
use tls::accept::Turns;
use tokio::sync::Semaphore;

use crate::Address;
use crate::access::Access;
use crate::api::fetch::session::Sessions;
use crate::auth::users::Users;
use crate::cleaner::Compacting;
use crate::dispatch::{Answers, Client};
use crate::group::coordinator::Coordinator;
use crate::group::settings::GroupSettings;
use crate::metrics::Metrics;
use crate::node::{NODE_ID, Node};
use crate::quota::Quotas;
use crate::share::partitions::Shares;
use crate::tally::Clients;
use crate::topic::config::Kind;
use crate::topic::registry::Topics;
use crate::txn::coordinator::Transactions;
use crate::writer::Writer;

/// What the broker takes on at most.
///
/// Every limit is a promise about memory: together they bound what clients can make us hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time (`max.connections`).
    pub connections_max: usize,
    /// Requests of one connection that are not answered yet.
    pub requests_in_flight_max: usize,
    /// Size of one request (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// Size of all requests that are not answered yet, and of their answers (`queued.max.request.bytes`). What is not
    /// taken for lack of it stays in the clients' sockets.
    pub requests_bytes_max: usize,
    /// Size of one connection's requests that are not answered yet, beyond which no other is begun to be read.
    pub connection_bytes_max: usize,
    /// Size of the records in one answer to a fetch (`fetch.max.bytes`).
    pub fetch_bytes_max: usize,
    /// Partitions of all topics: each holds files open.
    pub partitions_max: usize,
    /// How long a connection may be silent (`connections.max.idle.ms`).
    pub idle_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            requests_in_flight_max: 64,
            request_bytes_max: 100 << 20,
            requests_bytes_max: 512 << 20,
            connection_bytes_max: 32 << 20,
            fetch_bytes_max: 55 << 20,
            partitions_max: 10_000,
            idle_max: Duration::from_secs(600),
        }
    }
}

/// The broker, as its connections see it.
#[derive(Debug)]
pub(crate) struct Core {
    pub limits: Limits,
    /// What the only listener tells when [`crate::Options::advertised`] says it.
    pub advertised: Option<Address>,
    /// Room for connections of all listeners.
    pub connections: Arc<Semaphore>,
    pub users: Arc<Users>,
    /// What clients may do; everything, where there is none.
    pub access: Option<Arc<Access>>,
    /// Whose turn it is to shake hands.
    pub turns: Turns,
    pub auto_create: bool,
    pub partitions_default: usize,
    pub rules: crate::group::terms::Rules,
    pub offsets_retention: Duration,
    pub retention_check: Duration,
    pub compacting: Compacting,
    pub node: Node,
    pub topics: Topics,
    pub writer: Arc<Writer>,
    pub groups: Arc<Coordinator>,
    pub group_settings: Arc<GroupSettings>,
    pub quotas: Quotas,
    pub clients: Clients,
    pub transactions: Arc<Transactions>,
    pub shares: Arc<Shares>,
    pub metrics: Metrics,
    /// What requests and answers take while they are there.
    pub memory: Memory,
    pub answers: Answers,
    /// The folder's: whoever still works in it keeps it closed to another broker.
    pub _lock: Arc<File>,
    pub sessions: Sessions,
}

/// A setting of the broker itself, as DescribeConfigs tells it.
pub(crate) struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    pub value: String,
    pub default: &'static str,
}

impl Core {
    /// Tells the broker's own settings under Kafka's names, with Kafka's defaults beside them.
    pub(crate) fn settings(&self, client: &Client) -> Vec<Setting> {
        let setting = |name, kind, value: String, default| Setting {
            name,
            kind,
            value,
            default,
        };
        let (reached, own) = (&client.reached, &client.serving.listener);
        let listener = format!("{}://{}:{}", own.name, reached.host, reached.port);
        let mechanisms: Vec<&str> = own.mechanisms.iter().map(|one| one.name()).collect();
        let session = own.session_max.map_or(0, |session| session.as_millis());
        let (limits, rules) = (&self.limits, &self.rules);
        let minutes = self.offsets_retention.as_secs() / 60;
        vec![
            setting("advertised.listeners", Kind::List, listener.clone(), ""),
            setting(
                "auto.create.topics.enable",
                Kind::Boolean,
                self.auto_create.to_string(),
                "true",
            ),
            setting("broker.id", Kind::Int, NODE_ID.to_string(), "-1"),
            setting("broker.rack", Kind::String, String::new(), ""),
            setting(
                "connections.max.idle.ms",
                Kind::Long,
                own.idle_max.as_millis().to_string(),
                "600000",
            ),
            setting(
                "connections.max.reauth.ms",
                Kind::Long,
                session.to_string(),
                "0",
            ),
            setting("default.replication.factor", Kind::Int, "1".into(), "1"),
            setting("delete.topic.enable", Kind::Boolean, "true".into(), "true"),
            setting(
                "fetch.max.bytes",
                Kind::Int,
                limits.fetch_bytes_max.to_string(),
                "57671680",
            ),
            setting(
                "group.initial.rebalance.delay.ms",
                Kind::Int,
                rules.initial_delay_ms.to_string(),
                "3000",
            ),
            setting(
                "group.max.session.timeout.ms",
                Kind::Int,
                rules.session_timeout_max_ms.to_string(),
                "1800000",
            ),
            setting(
                "group.max.size",
                Kind::Int,
                rules.members_max.to_string(),
                "2147483647",
            ),
            setting(
                "group.min.session.timeout.ms",
                Kind::Int,
                rules.session_timeout_min_ms.to_string(),
                "6000",
            ),
            setting(
                "listener.security.protocol.map",
                Kind::String,
                format!("{}:{}", own.name, own.protocol),
                "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
            ),
            setting("listeners", Kind::List, listener, "PLAINTEXT://:9092"),
            setting(
                "log.cleaner.backoff.ms",
                Kind::Long,
                self.compacting.backoff.as_millis().to_string(),
                "15000",
            ),
            setting(
                "log.cleaner.dedupe.buffer.size",
                Kind::Long,
                self.compacting.keys_bytes_max.to_string(),
                "134217728",
            ),
            setting(
                "log.cleaner.enable",
                Kind::Boolean,
                self.compacting.enabled.to_string(),
                "true",
            ),
            setting(
                "log.cleaner.io.max.bytes.per.second",
                Kind::Double,
                self.compacting
                    .bytes_per_second_max
                    .map_or("1.7976931348623157E308".into(), |most| most.to_string()),
                "1.7976931348623157E308",
            ),
            setting("log.cleaner.threads", Kind::Int, "1".into(), "1"),
            setting(
                "log.dir",
                Kind::String,
                self.topics.data_dir().display().to_string(),
                "/tmp/kafka-logs",
            ),
            setting(
                "log.dirs",
                Kind::List,
                self.topics.data_dir().display().to_string(),
                "",
            ),
            setting(
                "log.retention.check.interval.ms",
                Kind::Long,
                self.retention_check.as_millis().to_string(),
                "300000",
            ),
            setting(
                "max.connections",
                Kind::Int,
                limits.connections_max.to_string(),
                "2147483647",
            ),
            setting("node.id", Kind::Int, NODE_ID.to_string(), "-1"),
            setting(
                "num.partitions",
                Kind::Int,
                self.partitions_default.to_string(),
                "1",
            ),
            setting(
                "offset.metadata.max.bytes",
                Kind::Int,
                "4096".into(),
                "4096",
            ),
            setting(
                "offsets.retention.minutes",
                Kind::Int,
                minutes.to_string(),
                "10080",
            ),
            setting("offsets.topic.num.partitions", Kind::Int, "1".into(), "50"),
            setting(
                "offsets.topic.replication.factor",
                Kind::Short,
                "1".into(),
                "3",
            ),
            setting("process.roles", Kind::List, "broker,controller".into(), ""),
            setting(
                "queued.max.request.bytes",
                Kind::Long,
                limits.requests_bytes_max.to_string(),
                "-1",
            ),
            setting(
                "sasl.enabled.mechanisms",
                Kind::List,
                mechanisms.join(","),
                "GSSAPI",
            ),
            setting(
                "socket.request.max.bytes",
                Kind::Int,
                own.request_bytes_max.to_string(),
                "104857600",
            ),
            setting(
                "transaction.max.timeout.ms",
                Kind::Int,
                self.transactions.rules().timeout_max_ms.to_string(),
                "900000",
            ),
            setting(
                "transaction.state.log.num.partitions",
                Kind::Int,
                "1".into(),
                "50",
            ),
            setting(
                "transaction.state.log.replication.factor",
                Kind::Short,
                "1".into(),
                "3",
            ),
            setting(
                "transaction.two.phase.commit.enable",
                Kind::Boolean,
                "false".into(),
                "false",
            ),
            setting(
                "transactional.id.expiration.ms",
                Kind::Int,
                self.transactions.rules().expiration_ms.to_string(),
                "604800000",
            ),
        ]
    }
}
