//! What is counted, with handles that are resolved once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka::messages::ApiKey;
use observe::metrics::{self, Counter, Gauge, Histogram, SECONDS};

use crate::api::versions;
use crate::auth::Mechanism;
use crate::core::Core;

/// Metrics of the broker as a whole.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: metrics::Metrics,
    pub connections: Gauge,
    pub hoarders: Counter,
    pub flush_seconds: Histogram,
    pub compactions: Counter,
    pub compaction_failures: Counter,
    pub compacted_records: Counter,
    requests: HashMap<i16, Histogram>,
}

impl Metrics {
    pub(crate) fn new(registry: metrics::Metrics) -> Self {
        let request = |api: ApiKey| {
            let histogram = registry.histogram(
                "nuncio_broker_request_seconds",
                "Time from a Kafka request's arrival to its answer",
                &[("api", api.name())],
                SECONDS,
            );
            (api as i16, histogram)
        };
        Self {
            connections: registry.gauge(
                "nuncio_broker_connections",
                "Open connections of Kafka clients",
                &[],
            ),
            hoarders: registry.counter(
                "nuncio_broker_connections_hoarding",
                "Connections that were closed because they let the broker wait with memory in hand for which others waited",
                &[],
            ),
            flush_seconds: registry.histogram(
                "nuncio_broker_flush_seconds",
                "Time that one flush of a partition to disk took",
                &[],
                SECONDS,
            ),
            compactions: registry.counter(
                "nuncio_broker_compactions",
                "Passes of compaction over a partition that came to their end",
                &[],
            ),
            compaction_failures: registry.counter(
                "nuncio_broker_compaction_failures",
                "Passes of compaction that failed, because the disk refused or a segment is damaged",
                &[],
            ),
            compacted_records: registry.counter(
                "nuncio_broker_compacted_records",
                "Records that compaction has removed",
                &[],
            ),
            requests: versions::apis().map(request).collect(),
            registry,
        }
    }

    pub(crate) fn registry(&self) -> &metrics::Metrics {
        &self.registry
    }

    pub(crate) fn request(&self, api: ApiKey, took: Duration) {
        if let Some(histogram) = self.requests.get(&(api as i16)) {
            histogram.record(took);
        }
    }

    /// Has a broker asked at every scrape, for as long as it lives.
    pub(crate) fn ask(&self, core: &Arc<Core>) {
        let source = Arc::downgrade(core);
        self.registry.ask(source);
    }

    pub(crate) fn forget_topic(&self, topic: &str) {
        for name in [
            PRODUCED_BYTES,
            PRODUCED_RECORDS,
            FETCHED_BYTES,
            FETCHED_RECORDS,
        ] {
            self.registry.remove(name, &[("topic", topic)]);
        }
    }
}

const PRODUCED_BYTES: &str = "nuncio_topic_produced_bytes";
const PRODUCED_RECORDS: &str = "nuncio_topic_produced_records";
const FETCHED_BYTES: &str = "nuncio_topic_fetched_bytes";
const FETCHED_RECORDS: &str = "nuncio_topic_fetched_records";

/// What is counted for one topic.
#[derive(Debug)]
pub(crate) struct Counters {
    produced_bytes: Counter,
    produced_records: Counter,
    fetched_bytes: Counter,
    fetched_records: Counter,
}

impl Counters {
    pub(crate) fn new(registry: &metrics::Metrics, topic: &str) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("topic", topic)]);
        Self {
            produced_bytes: counter(PRODUCED_BYTES, "Bytes of batches appended to a topic"),
            produced_records: counter(PRODUCED_RECORDS, "Records appended to a topic"),
            fetched_bytes: counter(FETCHED_BYTES, "Bytes of batches read from a topic"),
            fetched_records: counter(
                FETCHED_RECORDS,
                "Records in the batches that were read from a topic",
            ),
        }
    }

    pub(crate) fn produced(&self, bytes: usize, records: i32) {
        self.produced_bytes.inc_by(bytes as u64);
        self.produced_records.inc_by(records.unsigned_abs().into());
    }

    pub(crate) fn fetched(&self, bytes: usize, records: i32) {
        self.fetched_bytes.inc_by(bytes as u64);
        self.fetched_records.inc_by(records.unsigned_abs().into());
    }
}

/// What is counted at one listener.
#[derive(Debug)]
pub(crate) struct Door {
    registry: metrics::Metrics,
    listener: String,
    pub connections: Gauge,
    pub refused: Counter,
    pub handshakes: Counter,
    pub authentications: Counter,
    pub expired: Counter,
}

impl Door {
    pub(crate) fn new(registry: &metrics::Metrics, listener: &str) -> Self {
        let labels: &[(&str, &str)] = &[("listener", listener)];
        let counter = |name, help| registry.counter(name, help, labels);
        Self {
            registry: registry.clone(),
            listener: listener.to_owned(),
            connections: registry.gauge(
                "nuncio_listener_connections",
                "Open connections of Kafka clients through a listener",
                labels,
            ),
            refused: counter(
                "nuncio_listener_connections_refused",
                "Connections that were closed because there were too many",
            ),
            handshakes: counter(
                "nuncio_listener_handshakes",
                "TLS handshakes that were completed",
            ),
            authentications: counter(
                "nuncio_listener_authentications",
                "Clients that have proven by SASL who they are, or have done so again",
            ),
            expired: counter(
                "nuncio_listener_sessions_expired",
                "Connections that were closed because the client has not proven in time again who it is",
            ),
        }
    }

    /// Counts a handshake of which nothing came.
    pub(crate) fn shaken_in_vain(&self, reason: &'static str) {
        let labels: &[(&str, &str)] = &[("listener", &self.listener), ("reason", reason)];
        let help = "TLS handshakes that were not completed";
        self.registry
            .counter("nuncio_listener_handshake_failures", help, labels)
            .inc();
    }

    /// Counts a client that could not prove who it is.
    pub(crate) fn failed(&self, mechanism: Option<Mechanism>) {
        let mechanism = mechanism.map_or("none", Mechanism::name);
        let labels: &[(&str, &str)] = &[("listener", &self.listener), ("mechanism", mechanism)];
        let help = "Clients that could not prove by SASL who they are";
        self.registry
            .counter("nuncio_listener_authentication_failures", help, labels)
            .inc();
    }
}
