//! How a partition's log behaves; the names are those of Kafka's topic settings.

use kafka::compress::{Codec, Compression};
use kafka::record::TimestampType;

/// Settings of one log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// `segment.bytes`: a segment that would grow beyond is closed and a new one begun.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment that covers more time is closed with the next append.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: by how much sooner than after `segment_ms` a segment may be closed.
    pub segment_jitter_ms: i64,
    /// `preallocate`: new segments get their space on disk at once.
    pub preallocate: bool,
    /// `segment.index.bytes`: a segment whose index would grow beyond is closed.
    pub index_bytes_max: u32,
    /// `index.interval.bytes`: how much log lies between two index entries.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: the largest batch that is taken.
    pub message_bytes_max: u32,
    /// `message.timestamp.type`: whose clock the records carry.
    pub timestamps: TimestampType,
    /// `producer.id.expiration.ms`: how long an idle producer is remembered.
    pub producer_idle_ms: i64,
    /// `cleanup.policy` with `compact`: of each key only the latest record stays.
    pub compaction: Option<Compaction>,
}

/// How a log is compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compaction {
    /// `min.cleanable.dirty.ratio`: compaction begins when more than this share of the log is new since the
    /// last time, from 0 to 1.
    pub dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`: records that are younger stay as they are.
    pub lag_min_ms: i64,
    /// `max.compaction.lag.ms`: records that are older are compacted however few they are.
    pub lag_max_ms: i64,
    /// `delete.retention.ms`: how long tombstones stay after they have done their work, for readers that are
    /// on their way through the log.
    pub tombstone_ms: i64,
    /// What compresses batches that lose some of their records, where they were compressed with it.
    pub levels: Levels,
}

/// How hard the codecs try (`compression.*.level`); `None` is Kafka's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// From 1 to 9.
    pub gzip: Option<i32>,
    /// From -131072 to 22.
    pub zstd: Option<i32>,
}

impl Levels {
    /// Returns the codec at its level.
    pub fn of(self, compression: Compression) -> Codec {
        let level = match compression {
            Compression::Gzip => self.gzip,
            Compression::Zstd => self.zstd,
            _ => None,
        };
        Codec { compression, level }
    }
}

impl Default for Compaction {
    /// Returns Kafka's defaults.
    fn default() -> Compaction {
        Compaction {
            dirty_ratio_min: 0.5,
            lag_min_ms: 0,
            lag_max_ms: i64::MAX,
            tombstone_ms: 24 * 60 * 60 * 1000,
            levels: Levels::default(),
        }
    }
}

impl Default for Config {
    /// Returns Kafka's defaults.
    fn default() -> Config {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Config {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            preallocate: false,
            index_bytes_max: 10 << 20,
            index_interval_bytes: 4096,
            message_bytes_max: 1024 * 1024 + 12,
            timestamps: TimestampType::CreateTime,
            producer_idle_ms: DAY_MS,
            compaction: None,
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
