//! The configuration of a topic: every setting that Kafka lists, its default, and what may be set.

use std::collections::BTreeMap;

use journal::Levels;
use kafka::compress::Compression;

use crate::group::reset::Reset;

/// What kind of value a setting has; the numbers are those of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
        }
    }
}

/// The values that Kafka takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    Any,
    AtLeast(i64),
    Between(f64, f64),
    /// One of these, or for a list any of them.
    OneOf(&'static [&'static str]),
    /// `*`, or partitions with brokers.
    Replicas,
    GzipLevel,
    /// Where a reader without an offset begins.
    Reset,
}

/// What a setting does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acts {
    /// What Kafka's does.
    Yes,
    /// It is kept and told; the text says why there is nothing to act on.
    Not(&'static str),
}

/// One setting of a topic.
#[derive(Debug)]
pub(crate) struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// The broker's setting that gives the default.
    pub synonym: Option<&'static str>,
    pub about: &'static str,
    takes: Takes,
    pub acts: Acts,
}

pub(crate) const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonym: Option<&'static str>,
    takes: Takes,
    about: &'static str,
) -> Setting {
    Setting {
        name,
        kind,
        default,
        synonym,
        about,
        takes,
        acts: Acts::Yes,
    }
}

impl Setting {
    pub(crate) const fn idle(mut self, why: &'static str) -> Setting {
        self.acts = Acts::Not(why);
        self
    }
}

const LONG_MAX: &str = "9223372036854775807";
const FROM_ZERO: Takes = Takes::AtLeast(0);
const ONE_NODE: &str = "there is one node";
const NO_REMOTE: &str = "there is no remote storage";

/// Every setting, by name: names, kinds, defaults and bounds are those of Apache Kafka 4.3.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    setting("cleanup.policy", Kind::List, "delete", Some("log.cleanup.policy"), Takes::OneOf(&["compact", "delete"]),
        "what happens to old records: `delete` by age and size, `compact` to the latest of each key, or both"),
    setting("compression.gzip.level", Kind::Int, "-1", Some("compression.gzip.level"), Takes::GzipLevel, "level of gzip when the broker compresses"),
    setting("compression.lz4.level", Kind::Int, "9", Some("compression.lz4.level"), Takes::Between(1.0, 17.0), "level of lz4 when the broker compresses")
        .idle("lz4 has one level here"),
    setting("compression.type", Kind::String, "producer", Some("compression.type"), Takes::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "how batches are compressed on disk; `producer` stores them as they come"),
    setting("compression.zstd.level", Kind::Int, "3", Some("compression.zstd.level"), Takes::Between(-131_072.0, 22.0), "level of zstd when the broker compresses"),
    setting("delete.retention.ms", Kind::Long, "86400000", Some("log.cleaner.delete.retention.ms"), FROM_ZERO, "how long tombstones of compacted topics stay"),
    setting("file.delete.delay.ms", Kind::Long, "60000", Some("log.segment.delete.delay.ms"), FROM_ZERO, "wait before a file is removed")
        .idle("files are removed at once; who reads them goes on"),
    setting("flush.messages", Kind::Long, LONG_MAX, Some("log.flush.interval.messages"), Takes::AtLeast(1), "records between forced flushes; acks=all is always flushed"),
    setting("flush.ms", Kind::Long, LONG_MAX, Some("log.flush.interval.ms"), FROM_ZERO, "time between forced flushes; acks=all is always flushed"),
    setting("follower.replication.throttled.replicas", Kind::List, "", None, Takes::Replicas, "replicas whose replication is throttled").idle(ONE_NODE),
    setting("index.interval.bytes", Kind::Int, "4096", Some("log.index.interval.bytes"), FROM_ZERO, "bytes between entries of the offset index"),
    setting("leader.replication.throttled.replicas", Kind::List, "", None, Takes::Replicas, "replicas whose replication is throttled").idle(ONE_NODE),
    setting("local.retention.bytes", Kind::Long, "-2", Some("log.local.retention.bytes"), Takes::AtLeast(-2), "what stays on the local disk").idle(NO_REMOTE),
    setting("local.retention.ms", Kind::Long, "-2", Some("log.local.retention.ms"), Takes::AtLeast(-2), "what stays on the local disk").idle(NO_REMOTE),
    setting("max.compaction.lag.ms", Kind::Long, LONG_MAX, Some("log.cleaner.max.compaction.lag.ms"), Takes::AtLeast(1), "age at which records are compacted however few they are"),
    setting("max.message.bytes", Kind::Int, "1048588", Some("message.max.bytes"), FROM_ZERO, "largest record batch that is taken"),
    setting("message.timestamp.after.max.ms", Kind::Long, "3600000", Some("log.message.timestamp.after.max.ms"), FROM_ZERO, "how far in the future a record's timestamp may be"),
    setting("message.timestamp.before.max.ms", Kind::Long, LONG_MAX, Some("log.message.timestamp.before.max.ms"), FROM_ZERO, "how far in the past a record's timestamp may be"),
    setting("message.timestamp.type", Kind::String, "CreateTime", Some("log.message.timestamp.type"), Takes::OneOf(&["CreateTime", "LogAppendTime"]), "whose clock stamps records"),
    setting("min.cleanable.dirty.ratio", Kind::Double, "0.5", Some("log.cleaner.min.cleanable.ratio"), Takes::Between(0.0, 1.0), "share of a log that is new when it is compacted again"),
    setting("min.compaction.lag.ms", Kind::Long, "0", Some("log.cleaner.min.compaction.lag.ms"), FROM_ZERO, "age before which records are not compacted"),
    setting("min.insync.replicas", Kind::Int, "1", Some("min.insync.replicas"), Takes::AtLeast(1), "replicas that must be there for acks=all; here is one"),
    setting("preallocate", Kind::Boolean, "false", Some("log.preallocate"), Takes::Any, "whether new segments get their space at once"),
    setting("remote.log.copy.disable", Kind::Boolean, "false", None, Takes::Any, "whether tiering stops").idle(NO_REMOTE),
    setting("remote.log.delete.on.disable", Kind::Boolean, "false", None, Takes::Any, "whether tiered segments go with tiering").idle(NO_REMOTE),
    setting("remote.storage.enable", Kind::Boolean, "false", None, Takes::Any, "whether segments are tiered; they are not here"),
    setting("retention.bytes", Kind::Long, "-1", Some("log.retention.bytes"), Takes::Any, "largest size of a partition; -1 is without limit"),
    setting("retention.ms", Kind::Long, "604800000", Some("log.retention.ms"), Takes::AtLeast(-1), "how long records stay; -1 is without limit"),
    setting("segment.bytes", Kind::Int, "1073741824", Some("log.segment.bytes"), Takes::AtLeast(1 << 20), "size at which a segment is closed"),
    setting("segment.index.bytes", Kind::Int, "10485760", Some("log.index.size.max.bytes"), Takes::AtLeast(4), "size of an index at which a segment is closed"),
    setting("segment.jitter.ms", Kind::Long, "0", Some("log.roll.jitter.ms"), FROM_ZERO, "spreads the closing of segments over this time"),
    setting("segment.ms", Kind::Long, "604800000", Some("log.roll.ms"), Takes::AtLeast(1), "age at which a segment is closed"),
    setting("unclean.leader.election.enable", Kind::Boolean, "false", Some("unclean.leader.election.enable"), Takes::Any, "whether data may be given up for availability").idle(ONE_NODE),
];

/// A setting of Kafka's that is taken and not told: the size of segments without its lower bound, for tests.
const INTERNAL_SEGMENT_BYTES: Setting = setting(
    "internal.segment.bytes",
    Kind::Int,
    "",
    None,
    Takes::Any,
    "size at which a segment is closed",
);

/// Returns the setting of this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .chain([&INTERNAL_SEGMENT_BYTES])
        .find(|setting| setting.name == name)
}

/// What was set for one topic; everything else has its default.
pub(crate) type Overrides = BTreeMap<String, String>;

/// Why a setting is refused, in Kafka's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("Unknown topic config name: {name}")]
    Unknown { name: String },
    #[error("Invalid value {value} for configuration {name}: {why}")]
    Value {
        name: String,
        value: String,
        why: String,
    },
    #[error(
        "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
    )]
    Lags { min: i64, max: i64 },
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
    )]
    Remote,
}

/// Checks one setting; whitespace around a value does not matter.
pub(crate) fn check(name: &str, value: &str) -> Result<(), Invalid> {
    let setting = find(name).ok_or_else(|| Invalid::Unknown { name: name.into() })?;
    let value = value.trim();
    if name == "remote.storage.enable" && value == "true" {
        return Err(Invalid::Remote);
    }
    setting.check(value).map_err(|why| Invalid::Value {
        name: name.to_owned(),
        value: value.to_owned(),
        why,
    })
}

impl Setting {
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        let number = match self.kind {
            Kind::Boolean if value != "true" && value != "false" => {
                return Err("Expected value to be either true or false".into());
            }
            Kind::Boolean | Kind::String | Kind::List => None,
            Kind::Short => value.parse::<i16>().ok().map(f64::from),
            Kind::Int => value.parse::<i32>().ok().map(f64::from),
            Kind::Long => value.parse::<i64>().ok().map(|number| number as f64),
            Kind::Double => value.parse::<f64>().ok(),
        };
        let numeric = !matches!(self.kind, Kind::Boolean | Kind::String | Kind::List);
        if numeric && number.is_none() {
            return Err(format!("Not a number of type {}", self.kind.name()));
        }
        let number = number.unwrap_or_default();
        match self.takes {
            Takes::Any => Ok(()),
            Takes::AtLeast(min) if number < min as f64 => {
                Err(format!("Value must be at least {min}"))
            }
            Takes::Between(min, _) if number < min => Err(format!("Value must be at least {min}")),
            Takes::Between(_, max) if number > max || number.is_nan() => {
                Err(format!("Value must be no more than {max}"))
            }
            Takes::AtLeast(_) | Takes::Between(..) => Ok(()),
            Takes::GzipLevel if number == -1.0 || (1.0..=9.0).contains(&number) => Ok(()),
            Takes::GzipLevel => Err("Value must be between 1 and 9 or equal to -1".into()),
            Takes::OneOf(choices) => {
                let listed = self.kind == Kind::List;
                let fits = |item: &str| choices.contains(&item);
                let fine = match listed {
                    true => items(value).all(fits),
                    false => fits(value),
                };
                let told = || format!("String must be one of: {}", choices.join(", "));
                fine.then_some(()).ok_or_else(told)
            }
            Takes::Reset => value.parse::<Reset>().map(|_| ()),
            Takes::Replicas if value == "*" || items(value).all(is_replica) => Ok(()),
            Takes::Replicas => Err(format!(
                "{} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                self.name
            )),
        }
    }
}

/// Returns the items of a list.
pub(crate) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn is_replica(item: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    item.split_once(':')
        .is_some_and(|(partition, broker)| number(partition) && number(broker))
}

/// The settings that the broker acts on, ready for use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub max_message_bytes: usize,
    /// Old records go by age and size.
    pub delete: bool,
    /// Of each key only the latest record stays.
    pub compact: bool,
    pub retention_ms: Option<u64>,
    pub retention_bytes: Option<u64>,
    pub segment_bytes: u32,
    pub segment_ms: u64,
    pub segment_jitter_ms: u64,
    pub index_bytes_max: u32,
    pub index_interval_bytes: u32,
    pub preallocate: bool,
    pub append_time: bool,
    /// What all batches are compressed with; `None` leaves them as they come.
    pub compression: Option<Compression>,
    pub levels: Levels,
    /// Each so many records are flushed, whatever the producer asked for.
    pub flush_messages: u64,
    /// So long after they came they are flushed at the latest.
    pub flush_ms: Option<u64>,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub dirty_ratio_min: f64,
    pub compaction_lag_min_ms: i64,
    pub compaction_lag_max_ms: i64,
    pub tombstone_ms: i64,
    pub replicas_min: i64,
}

/// The broker's defaults where they differ from Kafka's, under the names of the topic settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    values: Overrides,
}

impl Base {
    /// # Errors
    /// When a value would be refused for a topic.
    pub(crate) fn new(values: Overrides) -> Result<Self, Invalid> {
        let base = Self { values };
        base.check(&Overrides::new())?;
        for (name, value) in &base.values {
            check(name, value)?;
        }
        Ok(base)
    }

    /// Checks a topic's own settings, each alone and all together.
    pub(crate) fn check(&self, own: &Overrides) -> Result<(), Invalid> {
        for (name, value) in own {
            check(name, value)?;
        }
        let settings = self.settings(own);
        let (min, max) = (
            settings.compaction_lag_min_ms,
            settings.compaction_lag_max_ms,
        );
        match min > max {
            true => Err(Invalid::Lags { min, max }),
            false => Ok(()),
        }
    }

    /// Returns the default of a setting on this broker, and whether it is the broker's own.
    pub(crate) fn default_of(&self, setting: &'static Setting) -> (&str, bool) {
        match self.values.get(setting.name) {
            Some(value) => (value, true),
            None => (setting.default, false),
        }
    }

    /// Puts a topic's own settings over the defaults.
    pub(crate) fn settings(&self, own: &Overrides) -> Settings {
        let text = |name: &str| -> &str {
            let own = own.get(name).or_else(|| self.values.get(name));
            own.map_or_else(
                || find(name).map_or("", |setting| setting.default),
                |value| value.trim(),
            )
        };
        // Every value was checked when it was set.
        let number = |name: &str| text(name).parse::<i64>().unwrap_or_default();
        let small = |name: &str| u32::try_from(number(name)).unwrap_or(u32::MAX);
        let level = |name: &str| text(name).parse::<i32>().ok();
        let policies = text("cleanup.policy");
        let policy = |name: &str| items(policies).any(|policy| policy == name);
        let segment_bytes = match text("internal.segment.bytes") {
            "" => small("segment.bytes"),
            bytes => bytes.parse().unwrap_or(u32::MAX),
        };
        let (compact, lag_max) = (policy("compact"), number("max.compaction.lag.ms"));
        let segment_ms = match compact {
            // What is to be compacted in time must be closed in time.
            true => number("segment.ms").min(lag_max),
            false => number("segment.ms"),
        };
        Settings {
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or_default(),
            delete: policy("delete"),
            compact,
            retention_ms: u64::try_from(number("retention.ms")).ok(),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            segment_bytes,
            segment_ms: u64::try_from(segment_ms).unwrap_or(u64::MAX),
            segment_jitter_ms: u64::try_from(number("segment.jitter.ms")).unwrap_or_default(),
            index_bytes_max: small("segment.index.bytes"),
            index_interval_bytes: small("index.interval.bytes"),
            preallocate: text("preallocate") == "true",
            append_time: text("message.timestamp.type") == "LogAppendTime",
            compression: match text("compression.type") {
                "uncompressed" => Some(Compression::None),
                name => Compression::from_name(name),
            },
            levels: Levels {
                gzip: level("compression.gzip.level").filter(|level| *level > 0),
                zstd: level("compression.zstd.level"),
            },
            flush_messages: u64::try_from(number("flush.messages")).unwrap_or(u64::MAX),
            flush_ms: Some(number("flush.ms"))
                .filter(|after| *after < i64::MAX)
                .and_then(|after| u64::try_from(after).ok()),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            dirty_ratio_min: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            compaction_lag_min_ms: number("min.compaction.lag.ms"),
            compaction_lag_max_ms: lag_max,
            tombstone_ms: number("delete.retention.ms"),
            replicas_min: number("min.insync.replicas"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_may_be_set() {
        for setting in SETTINGS {
            assert_eq!(setting.check(setting.default), Ok(()), "{}", setting.name);
        }
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
    }

    #[track_caller]
    fn refused(name: &str, value: &str, expected: &str) {
        let error = check(name, value).expect_err("refused").to_string();
        assert_eq!(error, expected);
    }

    #[test]
    fn refusals_are_in_kafkas_words() {
        refused("nope", "1", "Unknown topic config name: nope");
        for (name, value, why) in [
            (
                "cleanup.policy",
                "compact,none",
                "String must be one of: compact, delete",
            ),
            ("retention.ms", "-2", "Value must be at least -1"),
            ("segment.bytes", "many", "Not a number of type INT"),
            ("segment.bytes", "1048575", "Value must be at least 1048576"),
            (
                "min.cleanable.dirty.ratio",
                "2",
                "Value must be no more than 1",
            ),
            (
                "compression.gzip.level",
                "0",
                "Value must be between 1 and 9 or equal to -1",
            ),
            (
                "compression.zstd.level",
                "99",
                "Value must be no more than 22",
            ),
            (
                "preallocate",
                "yes",
                "Expected value to be either true or false",
            ),
            (
                "message.timestamp.type",
                "x",
                "String must be one of: CreateTime, LogAppendTime",
            ),
        ] {
            let expected = format!("Invalid value {value} for configuration {name}: {why}");
            refused(name, value, &expected);
        }
        for (name, value) in [
            ("cleanup.policy", " compact , delete"),
            ("cleanup.policy", ""),
            ("compression.gzip.level", "-1"),
            ("follower.replication.throttled.replicas", "*"),
            ("follower.replication.throttled.replicas", "0:1,1:1"),
            ("min.insync.replicas", "3"),
            ("retention.bytes", "-5"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}={value}");
        }
    }

    #[test]
    fn settings_are_checked_together() {
        let own = Overrides::from([
            ("min.compaction.lag.ms".into(), "5".into()),
            ("max.compaction.lag.ms".into(), "3".into()),
        ]);
        let invalid = Base::default().check(&own);
        assert_eq!(invalid, Err(Invalid::Lags { min: 5, max: 3 }));
    }

    #[test]
    fn a_topic_stands_over_the_broker_and_the_broker_over_kafka() {
        let base = Base::new(Overrides::from([("retention.ms".into(), "5".into())]))
            .expect("a good default");
        let settings = base.settings(&Overrides::new());
        assert_eq!(settings.retention_ms, Some(5));
        assert_eq!(settings.retention_bytes, None);
        assert_eq!(settings.segment_bytes, 1 << 30);
        assert!(settings.delete && !settings.compact);
        assert_eq!((settings.compression, settings.flush_ms), (None, None));
        let own = Overrides::from([
            ("retention.ms".into(), "-1".into()),
            ("cleanup.policy".into(), "compact,delete".into()),
            ("compression.type".into(), "uncompressed".into()),
            ("max.compaction.lag.ms".into(), "7".into()),
        ]);
        let settings = base.settings(&own);
        assert_eq!((settings.retention_ms, settings.segment_ms), (None, 7));
        assert!(settings.delete && settings.compact);
        assert_eq!(settings.compression, Some(Compression::None));
    }
}
