//! How a partition's log behaves; the names are those of Kafka's topic settings.

use kafka::record::TimestampType;

/// Settings of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// `segment.bytes`: a segment that would grow beyond is closed and a new one begun.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment that covers more time is closed with the next append.
    pub segment_ms: i64,
    /// `index.interval.bytes`: how much log lies between two index entries.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: the largest batch that is taken.
    pub message_bytes_max: u32,
    /// `message.timestamp.type`: whose clock the records carry.
    pub timestamps: TimestampType,
    /// `producer.id.expiration.ms`: how long an idle producer is remembered.
    pub producer_idle_ms: i64,
}

impl Default for Config {
    /// Returns Kafka's defaults.
    fn default() -> Config {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Config {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            index_interval_bytes: 4096,
            message_bytes_max: 1024 * 1024 + 12,
            timestamps: TimestampType::CreateTime,
            producer_idle_ms: DAY_MS,
        }
    }
}

/// What may be deleted because it is old or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// `retention.ms`: segments whose latest record is older go; `None` keeps them for ever.
    pub age_ms: Option<i64>,
    /// `retention.bytes`: the oldest segments go while more than this would be left; `None` is no limit.
    pub bytes: Option<u64>,
}
