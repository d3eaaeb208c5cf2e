//! Settings of the embedded broker under the names that Apache Kafka has for them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Settings of the embedded broker under Kafka's names, as they stand in its `server.properties`. They are read at the start. A topic's own
/// settings go before what is said here of topics.
///
/// ```yaml
/// log.cleaner.backoff.ms: 5000
/// log.segment.bytes: 268435456
/// transaction.max.timeout.ms: 3600000
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerSettings {
    /// Level of gzip when the broker compresses, 1 to 9; -1, its own default, when nothing is said.
    #[serde(
        rename = "compression.gzip.level",
        skip_serializing_if = "Option::is_none"
    )]
    pub compression_gzip_level: Option<i32>,

    /// How batches are compressed on disk: `uncompressed`, `gzip`, `snappy`, `lz4`, `zstd`, or as they come with `producer`,
    /// which is the default.
    #[serde(rename = "compression.type", skip_serializing_if = "Option::is_none")]
    pub compression_type: Option<String>,

    /// Level of zstd when the broker compresses, -131072 to 22; 3 when nothing is said.
    #[serde(
        rename = "compression.zstd.level",
        skip_serializing_if = "Option::is_none"
    )]
    pub compression_zstd_level: Option<i32>,

    /// Most bytes of records in one answer, from 1024; 57671680 when nothing is said.
    #[serde(rename = "fetch.max.bytes", skip_serializing_if = "Option::is_none")]
    pub fetch_max_bytes: Option<i32>,

    /// How long an empty classic group that is joined waits for more members; 0 when nothing is said, which is not Kafka's
    /// 3000.
    #[serde(
        rename = "group.initial.rebalance.delay.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub group_initial_rebalance_delay_ms: Option<i32>,

    /// Longest session of a member of a classic group; 1800000 when nothing is said.
    #[serde(
        rename = "group.max.session.timeout.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub group_max_session_timeout_ms: Option<i32>,

    /// Most members of a classic group, up to 1000000; 10000 when nothing is said.
    #[serde(rename = "group.max.size", skip_serializing_if = "Option::is_none")]
    pub group_max_size: Option<i32>,

    /// Shortest session of a member of a classic group; 6000 when nothing is said.
    #[serde(
        rename = "group.min.session.timeout.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub group_min_session_timeout_ms: Option<i32>,

    /// How long to wait when there is nothing to compact; 15000 when nothing is said.
    #[serde(
        rename = "log.cleaner.backoff.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_cleaner_backoff_ms: Option<i64>,

    /// Bytes for the keys of the log that is compacted, from 1048576; 134217728 when nothing is said. They are taken as far as
    /// they are needed.
    #[serde(
        rename = "log.cleaner.dedupe.buffer.size",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_cleaner_dedupe_buffer_size: Option<i64>,

    /// How long tombstones stay in topics that do not say it; 86400000 when nothing is said.
    #[serde(
        rename = "log.cleaner.delete.retention.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_cleaner_delete_retention_ms: Option<i64>,

    /// Whether logs are compacted at all; the broker's own topics are not either without it.
    #[serde(rename = "log.cleaner.enable", skip_serializing_if = "Option::is_none")]
    pub log_cleaner_enable: Option<bool>,

    /// Bytes that compaction reads and writes in a second at most; without a bound when nothing is said.
    #[serde(
        rename = "log.cleaner.io.max.bytes.per.second",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_cleaner_io_max_bytes_per_second: Option<f64>,

    /// Age at which records are compacted however few they are, in topics that do not say it; never when nothing is said.
    #[serde(
        rename = "log.cleaner.max.compaction.lag.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_cleaner_max_compaction_lag_ms: Option<i64>,

    /// Share of a log that is new when it is compacted again, 0 to 1, in topics that do not say it; 0.5 when nothing is said.
    #[serde(
        rename = "log.cleaner.min.cleanable.ratio",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_cleaner_min_cleanable_ratio: Option<f64>,

    /// Age before which records are not compacted, in topics that do not say it; 0 when nothing is said.
    #[serde(
        rename = "log.cleaner.min.compaction.lag.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_cleaner_min_compaction_lag_ms: Option<i64>,

    /// What happens to old records in topics that do not say it: `delete`, `compact` or `compact,delete`; `delete` when nothing
    /// is said.
    #[serde(rename = "log.cleanup.policy", skip_serializing_if = "Option::is_none")]
    pub log_cleanup_policy: Option<String>,

    /// Records between forced flushes in topics that do not say it; `acks=all` is flushed anyway.
    #[serde(
        rename = "log.flush.interval.messages",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_flush_interval_messages: Option<i64>,

    /// Time between forced flushes in topics that do not say it; `acks=all` is flushed anyway.
    #[serde(
        rename = "log.flush.interval.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_flush_interval_ms: Option<i64>,

    /// Bytes between entries of the offset index; 4096 when nothing is said.
    #[serde(
        rename = "log.index.interval.bytes",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_index_interval_bytes: Option<i32>,

    /// Size of an index at which a segment is closed; 10485760 when nothing is said.
    #[serde(
        rename = "log.index.size.max.bytes",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_index_size_max_bytes: Option<i32>,

    /// How far in the future a record's timestamp may be; 3600000 when nothing is said.
    #[serde(
        rename = "log.message.timestamp.after.max.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_message_timestamp_after_max_ms: Option<i64>,

    /// How far in the past a record's timestamp may be; without a bound when nothing is said.
    #[serde(
        rename = "log.message.timestamp.before.max.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_message_timestamp_before_max_ms: Option<i64>,

    /// Whose clock stamps records: `CreateTime`, the producer's, which is the default, or `LogAppendTime`, the broker's.
    #[serde(
        rename = "log.message.timestamp.type",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_message_timestamp_type: Option<String>,

    /// Whether new segments get their space at once.
    #[serde(rename = "log.preallocate", skip_serializing_if = "Option::is_none")]
    pub log_preallocate: Option<bool>,

    /// Largest size of a partition in topics that do not say it; -1, without limit, when nothing is said.
    #[serde(
        rename = "log.retention.bytes",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_retention_bytes: Option<i64>,

    /// How often old records are looked for; 300000 when nothing is said.
    #[serde(
        rename = "log.retention.check.interval.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_retention_check_interval_ms: Option<i64>,

    /// Spreads the closing of segments over this time; 0 when nothing is said.
    #[serde(rename = "log.roll.jitter.ms", skip_serializing_if = "Option::is_none")]
    pub log_roll_jitter_ms: Option<i64>,

    /// Age at which a segment is closed; 604800000 when nothing is said.
    #[serde(rename = "log.roll.ms", skip_serializing_if = "Option::is_none")]
    pub log_roll_ms: Option<i64>,

    /// Size at which a segment is closed, from 1048576; 1073741824 when nothing is said.
    #[serde(rename = "log.segment.bytes", skip_serializing_if = "Option::is_none")]
    pub log_segment_bytes: Option<i32>,

    /// Largest record batch that is taken in topics that do not say it; 1048588 when nothing is said.
    #[serde(rename = "message.max.bytes", skip_serializing_if = "Option::is_none")]
    pub message_max_bytes: Option<i32>,

    /// Replicas that must be there for `acks=all`; here is one, so that more refuses everything.
    #[serde(
        rename = "min.insync.replicas",
        skip_serializing_if = "Option::is_none"
    )]
    pub min_insync_replicas: Option<i32>,

    /// How long offsets are kept that nobody uses; 10080 when nothing is said.
    #[serde(
        rename = "offsets.retention.minutes",
        skip_serializing_if = "Option::is_none"
    )]
    pub offsets_retention_minutes: Option<i32>,

    /// The longest that a transaction may be open; 900000 when nothing is said.
    #[serde(
        rename = "transaction.max.timeout.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub transaction_max_timeout_ms: Option<i32>,

    /// How long a transactional id is kept that nobody uses; 604800000 when nothing is said.
    #[serde(
        rename = "transactional.id.expiration.ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub transactional_id_expiration_ms: Option<i32>,
}

/// What a setting may be.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// A number in this range.
    Number(f64, f64),
    /// One of these texts.
    OneOf(&'static [&'static str]),
}

/// The bounds of settings that have some; they are Kafka's where nothing else is said.
#[rustfmt::skip]
pub const BOUNDS: &[(&str, Bound)] = &[
    ("compression.gzip.level", Bound::Number(-1.0, 9.0)),
    ("compression.type", Bound::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"])),
    ("compression.zstd.level", Bound::Number(-131072.0, 22.0)),
    ("fetch.max.bytes", Bound::Number(1024.0, f64::INFINITY)),
    ("group.initial.rebalance.delay.ms", Bound::Number(0.0, f64::INFINITY)),
    ("group.max.session.timeout.ms", Bound::Number(1.0, f64::INFINITY)),
    ("group.max.size", Bound::Number(1.0, 1000000.0)),
    ("group.min.session.timeout.ms", Bound::Number(1.0, f64::INFINITY)),
    ("log.cleaner.backoff.ms", Bound::Number(1.0, f64::INFINITY)),
    ("log.cleaner.dedupe.buffer.size", Bound::Number(1048576.0, f64::INFINITY)),
    ("log.cleaner.delete.retention.ms", Bound::Number(0.0, f64::INFINITY)),
    ("log.cleaner.io.max.bytes.per.second", Bound::Number(1.0, f64::INFINITY)),
    ("log.cleaner.max.compaction.lag.ms", Bound::Number(1.0, f64::INFINITY)),
    ("log.cleaner.min.cleanable.ratio", Bound::Number(0.0, 1.0)),
    ("log.cleaner.min.compaction.lag.ms", Bound::Number(0.0, f64::INFINITY)),
    ("log.cleanup.policy", Bound::OneOf(&["delete", "compact", "compact,delete", "delete,compact"])),
    ("log.flush.interval.messages", Bound::Number(1.0, f64::INFINITY)),
    ("log.flush.interval.ms", Bound::Number(0.0, f64::INFINITY)),
    ("log.index.interval.bytes", Bound::Number(0.0, f64::INFINITY)),
    ("log.index.size.max.bytes", Bound::Number(4.0, f64::INFINITY)),
    ("log.message.timestamp.after.max.ms", Bound::Number(0.0, f64::INFINITY)),
    ("log.message.timestamp.before.max.ms", Bound::Number(0.0, f64::INFINITY)),
    ("log.message.timestamp.type", Bound::OneOf(&["CreateTime", "LogAppendTime"])),
    ("log.retention.check.interval.ms", Bound::Number(1.0, f64::INFINITY)),
    ("log.roll.jitter.ms", Bound::Number(0.0, f64::INFINITY)),
    ("log.roll.ms", Bound::Number(1.0, f64::INFINITY)),
    ("log.segment.bytes", Bound::Number(1048576.0, f64::INFINITY)),
    ("message.max.bytes", Bound::Number(0.0, f64::INFINITY)),
    ("min.insync.replicas", Bound::Number(1.0, f64::INFINITY)),
    ("offsets.retention.minutes", Bound::Number(1.0, f64::INFINITY)),
    ("transaction.max.timeout.ms", Bound::Number(1.0, f64::INFINITY)),
    ("transactional.id.expiration.ms", Bound::Number(1.0, f64::INFINITY)),
];

impl BrokerSettings {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns what is said, by name, as Kafka writes it.
    pub fn said(&self) -> BTreeMap<String, String> {
        let Ok(Value::Object(fields)) = serde_json::to_value(self) else {
            return BTreeMap::new();
        };
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let each = fields.into_iter();
        each.map(|(name, value)| (name, text(value))).collect()
    }
}
