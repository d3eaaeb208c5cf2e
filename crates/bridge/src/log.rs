//! Where records go: the embedded broker in this process, or a Kafka cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::Broker;
use broker::produce::{self, ProduceError};
use bytes::Bytes;
use krafka::admin::NewTopic;
use krafka::auth::AuthConfig;
use krafka::error::ErrorCode;
use krafka::producer::{Acks, Producer, RecordMetadata};
use krafka::{Kafka, KrafkaError};
use model::{Object, Origin, Topic};
use tokio::sync::OnceCell;
use tokio::time;

/// One record on its way into a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The key, which decides the partition; without one the broker chooses.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers, in order, a name may stand several times.
    pub headers: Vec<(String, Bytes)>,
}

/// Where a record has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The record's offset in it.
    pub offset: i64,
    /// The record's time, in milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// Why a record has not been stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No such topic.
    #[error("topic `{0}` does not exist")]
    UnknownTopic(String),
    /// The principal may not write to it.
    #[error("writing to topic `{0}` is not allowed")]
    Denied(String),
    /// Larger than the topic takes.
    #[error("the record is larger than topic `{0}` takes")]
    TooLarge(String),
    /// The topic's rules refuse it.
    #[error("topic `{topic}` refuses the record: {why}")]
    Invalid {
        /// The topic's name.
        topic: String,
        /// The rule, in the broker's words.
        why: String,
    },
    /// Not stored for now; nothing was written.
    #[error("topic `{topic}` takes no records at the moment: {why}")]
    Unavailable {
        /// The topic's name.
        topic: String,
        /// What is in the way.
        why: String,
    },
    /// Nobody knows whether it has been stored.
    #[error("topic `{0}` did not answer in time; the record may have been stored")]
    Unknown(String),
}

/// The log behind all topics. Clones share it.
#[derive(Clone)]
pub enum Log {
    /// The embedded broker: an append is a call.
    Embedded {
        /// The broker.
        broker: Broker,
        /// Where this process reaches its Kafka listener, for what works as a Kafka client.
        bootstrap: String,
        /// What it proves itself with there, where everybody is asked.
        password: Option<broker::Secret>,
    },
    /// A Kafka cluster, reached as a client.
    Cluster(std::sync::Arc<Cluster>),
}

/// A Kafka cluster and the producer to it, which connects at its first use.
pub struct Cluster {
    bootstrap: String,
    security: AuthConfig,
    producer: OnceCell<Producer>,
}

impl Log {
    /// Returns the log of a Kafka cluster; it connects when it is first used, and proves itself as `security` says.
    pub fn cluster(bootstrap: &str, security: AuthConfig) -> Self {
        let cluster = Cluster {
            bootstrap: bootstrap.to_owned(),
            security,
            producer: OnceCell::new(),
        };
        Log::Cluster(std::sync::Arc::new(cluster))
    }

    /// Returns the addresses by which a Kafka client reaches the topics.
    pub fn bootstrap(&self) -> &str {
        match self {
            Log::Embedded { bootstrap, .. } => bootstrap,
            Log::Cluster(cluster) => &cluster.bootstrap,
        }
    }

    /// Connects to it as a Kafka client.
    pub(crate) async fn connect(&self) -> Result<Kafka, KrafkaError> {
        match self {
            Log::Embedded {
                bootstrap,
                password: Some(password),
                ..
            } => {
                connect(
                    bootstrap,
                    AuthConfig::sasl_plain("nuncio", password.reveal()),
                )
                .await
            }
            Log::Embedded { bootstrap, .. } => connect(bootstrap, AuthConfig::plaintext()).await,
            Log::Cluster(cluster) => cluster.kafka().await,
        }
    }

    /// Stores a record and returns its place once it is durable.
    ///
    /// # Errors
    /// See [`AppendError`]; only [`AppendError::Unknown`] leaves open whether the record is there. The caller bounds the
    /// time: dropping the future leaves the outcome unknown.
    pub async fn append(&self, topic: &str, entry: Entry) -> Result<Placed, AppendError> {
        match self {
            Log::Embedded { broker, .. } => embedded(broker, topic, entry).await,
            Log::Cluster(cluster) => cluster.append(topic, entry).await,
        }
    }
}

async fn embedded(broker: &Broker, topic: &str, entry: Entry) -> Result<Placed, AppendError> {
    let record = produce::Record {
        key: entry.key.map(Vec::from),
        value: entry.value.map(Vec::from),
        headers: entry
            .headers
            .into_iter()
            .map(|(name, value)| (name, Some(Vec::from(value))))
            .collect(),
        timestamp: None,
    };
    match broker.produce(topic, None, record).await {
        Ok(placed) => Ok(Placed {
            topic: topic.to_owned(),
            partition: placed.partition,
            offset: placed.offset,
            timestamp_ms: placed.timestamp,
        }),
        Err(error) => Err(match error {
            ProduceError::UnknownTopic { topic } => AppendError::UnknownTopic(topic),
            ProduceError::TooLarge { topic, .. } => AppendError::TooLarge(topic),
            ProduceError::Internal { topic } => AppendError::Denied(topic),
            ProduceError::Invalid { topic, why } => AppendError::Invalid { topic, why },
            other => AppendError::Unavailable {
                topic: topic.to_owned(),
                why: other.to_string(),
            },
        }),
    }
}

impl Log {
    /// Makes the named topics that are missing, and tells what could not be done. The embedded broker also grows topics
    /// and changes their settings; a cluster's topics belong to its operators once they are there.
    pub async fn ensure_topics(&self, topics: &[Object<Topic>]) -> Vec<(Origin, String)> {
        let mut troubles = Vec::new();
        match self {
            Log::Embedded { broker, .. } => {
                for topic in topics {
                    // One by one, so that a topic that cannot be made keeps no other from being made.
                    let one = BTreeMap::from([(topic.name.clone(), topic.spec.clone())]);
                    if let Err(error) = broker.ensure_topics(&one).await {
                        troubles.push((topic.origin.clone(), error.to_string()));
                    }
                }
            }
            Log::Cluster(_) if topics.is_empty() => (),
            // Routes must not wait for a cluster that is away.
            Log::Cluster(cluster) => {
                match time::timeout(TOPICS_MAX, cluster.create(topics)).await {
                    Ok(Ok(())) => (),
                    Ok(Err(why)) => troubles.push((topics[0].origin.clone(), why)),
                    Err(_) => {
                        let why = format!(
                            "no answer from `{}` within {TOPICS_MAX:?}, topics not made",
                            cluster.bootstrap
                        );
                        troubles.push((topics[0].origin.clone(), why));
                    }
                }
            }
        }
        troubles
    }
}

/// How long the cluster's producer tries before it gives a record up. A publish route's own limit is usually shorter.
const DELIVERY_MAX: Duration = Duration::from_secs(30);

impl Cluster {
    async fn append(&self, topic: &str, entry: Entry) -> Result<Placed, AppendError> {
        let producer = self.producer.get_or_try_init(|| self.connect()).await;
        let producer = producer.map_err(|error| refused(topic, &error))?;
        let mut record = krafka::Record::new(topic, entry.value.clone().unwrap_or_default());
        record.key = entry.key;
        record.value = entry.value;
        for (name, value) in entry.headers {
            record = record.header(name, value);
        }
        let sent = producer.send(record).await;
        let RecordMetadata {
            partition,
            offset,
            timestamp,
            ..
        } = sent.map_err(|error| refused(topic, &error))?;
        Ok(Placed {
            topic: topic.to_owned(),
            partition,
            offset,
            timestamp_ms: timestamp,
        })
    }

    /// Makes the topics that are missing.
    async fn create(&self, topics: &[Object<Topic>]) -> Result<(), String> {
        let mut wanted = Vec::new();
        for topic in topics {
            let partitions = i32::try_from(topic.spec.partitions).unwrap_or(i32::MAX);
            let new = NewTopic::new(&topic.name, partitions, REPLICATION_DEFAULT)
                .map_err(|error| error.to_string())?;
            let config = topic.spec.kafka_config().into_iter();
            wanted.push(config.fold(new, |new, (name, value)| new.with_config(name, value)));
        }
        let kafka = self
            .kafka()
            .await
            .map_err(|error| format!("topics not made: {error}"))?;
        let created = kafka
            .admin()
            .create_topics(wanted, Default::default())
            .await;
        let troubles: Vec<String> = created
            .map_err(|error| format!("topics not made: {error}"))?
            .into_iter()
            .filter_map(|(name, result)| match result {
                Ok(())
                | Err(KrafkaError::Broker {
                    code: ErrorCode::TopicAlreadyExists,
                    ..
                }) => None,
                Err(error) => Some(format!("topic `{name}`: {error}")),
            })
            .collect();
        if troubles.is_empty() {
            Ok(())
        } else {
            Err(troubles.join("; "))
        }
    }

    async fn kafka(&self) -> Result<Kafka, KrafkaError> {
        connect(&self.bootstrap, self.security.clone()).await
    }

    async fn connect(&self) -> Result<Producer, KrafkaError> {
        let kafka = self.kafka().await?;
        kafka
            .producer()
            .acks(Acks::All)
            .linger(Duration::ZERO)
            .delivery_timeout(DELIVERY_MAX)
            .build()
            .await
    }
}

/// How long a cluster may take to make topics before routes are served without them.
const TOPICS_MAX: Duration = Duration::from_secs(5);

/// In a CreateTopics request: as many copies as the cluster makes when nobody says.
const REPLICATION_DEFAULT: i16 = -1;

/// Connects to a Kafka cluster as a client.
async fn connect(bootstrap: &str, security: AuthConfig) -> Result<Kafka, KrafkaError> {
    Kafka::builder(bootstrap)
        .client_id("nuncio")
        .security(security)
        .connect()
        .await
}

fn refused(topic: &str, error: &KrafkaError) -> AppendError {
    let topic = topic.to_owned();
    match error {
        KrafkaError::Broker { code, message } => match code {
            ErrorCode::UnknownTopicOrPartition => AppendError::UnknownTopic(topic),
            ErrorCode::TopicAuthorizationFailed | ErrorCode::ClusterAuthorizationFailed => {
                AppendError::Denied(topic)
            }
            ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
                AppendError::TooLarge(topic)
            }
            ErrorCode::InvalidRecord => AppendError::Invalid {
                topic,
                why: message.clone(),
            },
            _ => AppendError::Unavailable {
                topic,
                why: error.to_string(),
            },
        },
        KrafkaError::DeliveryTimeout {
            possibly_written: true,
            ..
        } => AppendError::Unknown(topic),
        _ => AppendError::Unavailable {
            topic,
            why: error.to_string(),
        },
    }
}
