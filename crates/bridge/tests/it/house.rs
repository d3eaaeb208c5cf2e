//! A gateway, a broker and the bridge between them, in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bridge::log::Log;
use bridge::publish::Publisher;
use bridge::subscribe::Subscriptions;
use broker::Broker;
use bytes::Bytes;
use gateway::Gateway;
use gateway::backend::Handler;
use gateway::listener::Limits;
use krafka::consumer::{AutoOffsetReset, ConsumerRecord};
use model::{Config, Severity};
use observe::access::AccessLog;
use observe::metrics::Metrics;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longest wait for something that should happen at once.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct House {
    pub(crate) broker: Broker,
    pub(crate) gateway: SocketAddr,
    pub(crate) metrics: Metrics,
    log: Log,
    config: Arc<Config>,
    running: Gateway,
    _data: TempDir,
    stop: CancellationToken,
}

/// A record as it lies in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Stored {
    fn of(record: &ConsumerRecord) -> Self {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = record.headers.iter();
        Stored {
            key: record.key.as_ref().map(text),
            value: record.value.as_ref().map(text),
            headers: headers
                .map(|(name, value)| (name.clone(), value.as_ref().map(text).unwrap_or_default()))
                .collect(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Reads a configuration that must have no errors.
pub(crate) fn config(yaml: &str) -> Arc<Config> {
    let source = model::Source {
        name: "nuncio.yaml".into(),
        text: yaml.into(),
    };
    let loaded = model::load::load(&[source], &model::read::Options::default());
    let errors: Vec<_> = loaded
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    Arc::new(loaded.config)
}

impl House {
    pub(crate) async fn start(yaml: &str) -> House {
        let config = config(yaml);
        let data = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let broker = Broker::open(broker::Options::new(PathBuf::from(data.path())))
            .await
            .unwrap();
        let topics = config
            .topics
            .iter()
            .map(|topic| (topic.name.clone(), topic.spec.clone()))
            .collect();
        broker.ensure_topics(&topics).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bootstrap = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let (serving, ending) = (broker.clone(), stop.clone());
        tokio::spawn(async move { serving.serve(listener, ending).await });
        let log = Log::Embedded {
            broker: broker.clone(),
            bootstrap,
            password: None,
        };
        let gateway = Gateway::start(gateway::Options {
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            threads: 1,
            metrics: metrics.clone(),
            access: AccessLog::off(&metrics),
            limits: Limits::default(),
            ordered: None,
        })
        .unwrap();
        let handlers: Vec<Arc<dyn Handler>> = config
            .publish
            .iter()
            .map(|publish| -> Arc<dyn Handler> {
                Arc::new(Publisher::new(&publish.spec, log.clone(), &metrics).unwrap())
            })
            .collect();
        let applied = gateway.apply(&config, &handlers);
        assert!(applied.deaf.is_empty(), "{applied:?}");
        let address = gateway.addresses()[0];
        House {
            broker,
            gateway: address,
            metrics,
            log,
            config,
            running: gateway,
            _data: data,
            stop,
        }
    }

    /// Starts the subscriptions of the configuration.
    pub(crate) async fn subscribe(&self) -> Subscriptions {
        let subscriptions = Subscriptions::new(
            self.metrics.clone(),
            self.running.directory(),
            self.stop.child_token(),
        );
        subscriptions.apply(self.config.clone(), &self.log).await;
        subscriptions
    }

    pub(crate) async fn produce(&self, topic: &str, key: &str, value: &str) -> i64 {
        let record = broker::produce::Record {
            key: (!key.is_empty()).then(|| key.into()),
            value: Some(value.into()),
            ..Default::default()
        };
        self.broker
            .produce(topic, None, record)
            .await
            .unwrap()
            .offset
    }

    /// Waits until partition 0 of the topic has this many records and returns them.
    pub(crate) async fn records(&self, topic: &str, count: usize) -> Vec<Stored> {
        let kafka = krafka::Kafka::builder(self.log.bootstrap())
            .connect()
            .await
            .unwrap();
        let consumer = kafka
            .consumer_without_group()
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .build()
            .await
            .unwrap();
        consumer.assign(topic, vec![0]).await.unwrap();
        let mut stored = Vec::new();
        while stored.len() < count {
            let records = consumer.poll(LIMIT).await.unwrap();
            assert!(!records.is_empty(), "only {stored:?} of {count} came");
            stored.extend(records.iter().map(Stored::of));
        }
        consumer.close().await.unwrap();
        stored
    }

    /// Waits until the metric whose line begins so has this value.
    pub(crate) async fn metric(&self, begins: &str, value: &str) {
        let there = || {
            let text = self.metrics.encode();
            text.lines()
                .any(|line| line.starts_with(begins) && line.ends_with(&format!(" {value}")))
        };
        tokio::time::timeout(LIMIT, async {
            while !there() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{begins} is not {value}:\n{}", self.metrics.encode()));
    }

    /// Waits until the group has committed this offset in partition 0 of the topic.
    pub(crate) async fn committed(&self, group: &str, topic: &str, offset: i64) {
        let there = || {
            let groups = self.broker.groups();
            let group = groups.iter().find(|found| found.id == group)?;
            let progress = group
                .offsets
                .iter()
                .find(|found| found.topic == topic && found.partition == 0)?;
            (progress.committed == offset).then_some(())
        };
        tokio::time::timeout(LIMIT, async {
            while there().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_| {
            panic!(
                "offset {offset} is not committed: {:?}",
                self.broker.groups()
            )
        });
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends one request to the gateway and returns status, headers and body.
pub(crate) async fn post(
    gateway: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, http::HeaderMap, Bytes) {
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let body = body.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut raw = testkit::raw::Raw::connect(gateway);
        raw.send(text + &body);
        let response = raw.take_response();
        let headers = response
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect();
        (response.status, headers, Bytes::from(response.body))
    })
    .await
    .unwrap()
}
