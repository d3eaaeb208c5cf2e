//! The configuration of a topic: every setting that Kafka lists, its default, and what may be set.

use std::collections::BTreeMap;

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

/// What we do with a setting that a user gives.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// It works, for values from `min` to `max`.
    Number { min: i64, max: i64 },
    /// It works, with one of these values.
    OneOf(&'static [&'static str]),
    /// It has nothing to act on here (one node, no compaction), so any well-formed value is kept.
    Kept,
    /// Only these values are true here; for others, the text says why not.
    Only(&'static [&'static str], &'static str),
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
    used: Use,
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonym: Option<&'static str>,
    used: Use,
    about: &'static str,
) -> Setting {
    Setting {
        name,
        kind,
        default,
        synonym,
        about,
        used,
    }
}

const TRUTH: Use = Use::OneOf(&["true", "false"]);
const LONG_MAX: &str = "9223372036854775807";
const ANY: Use = Use::Number {
    min: i64::MIN,
    max: i64::MAX,
};
const FROM_ZERO: Use = Use::Number {
    min: 0,
    max: i64::MAX,
};

/// Every setting, by name.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    setting("cleanup.policy", Kind::List, "delete", Some("log.cleanup.policy"),
        Use::Only(&["delete"], "compaction is not available yet, use `delete`"),
        "what happens to old segments"),
    setting("compression.gzip.level", Kind::Int, "-1", Some("compression.gzip.level"), Use::Kept, "level of gzip when the broker compresses"),
    setting("compression.lz4.level", Kind::Int, "9", Some("compression.lz4.level"), Use::Kept, "level of lz4 when the broker compresses"),
    setting("compression.type", Kind::String, "producer", Some("compression.type"),
        Use::Only(&["producer"], "batches are stored as they come, use `producer`"),
        "how batches are compressed on disk"),
    setting("compression.zstd.level", Kind::Int, "3", Some("compression.zstd.level"), Use::Kept, "level of zstd when the broker compresses"),
    setting("delete.retention.ms", Kind::Long, "86400000", Some("log.cleaner.delete.retention.ms"), FROM_ZERO, "how long tombstones of compacted topics stay"),
    setting("file.delete.delay.ms", Kind::Long, "60000", Some("log.segment.delete.delay.ms"), FROM_ZERO, "wait before a file is removed"),
    setting("flush.messages", Kind::Long, LONG_MAX, Some("log.flush.interval.messages"), Use::Number { min: 1, max: i64::MAX }, "records between forced flushes; acks=all is always flushed"),
    setting("flush.ms", Kind::Long, LONG_MAX, Some("log.flush.interval.ms"), FROM_ZERO, "time between forced flushes; acks=all is always flushed"),
    setting("follower.replication.throttled.replicas", Kind::List, "", None, Use::Kept, "has no effect on a single node"),
    setting("index.interval.bytes", Kind::Int, "4096", Some("log.index.interval.bytes"), FROM_ZERO, "bytes between entries of the offset index"),
    setting("leader.replication.throttled.replicas", Kind::List, "", None, Use::Kept, "has no effect on a single node"),
    setting("local.retention.bytes", Kind::Long, "-2", Some("log.local.retention.bytes"), ANY, "has no effect without remote storage"),
    setting("local.retention.ms", Kind::Long, "-2", Some("log.local.retention.ms"), ANY, "has no effect without remote storage"),
    setting("max.compaction.lag.ms", Kind::Long, LONG_MAX, Some("log.cleaner.max.compaction.lag.ms"), Use::Number { min: 1, max: i64::MAX }, "has no effect without compaction"),
    setting("max.message.bytes", Kind::Int, "1048588", Some("message.max.bytes"), Use::Number { min: 0, max: i32::MAX as i64 }, "largest record batch that is taken"),
    setting("message.timestamp.after.max.ms", Kind::Long, "3600000", Some("log.message.timestamp.after.max.ms"), FROM_ZERO, "how far in the future a batch's timestamp may be"),
    setting("message.timestamp.before.max.ms", Kind::Long, LONG_MAX, Some("log.message.timestamp.before.max.ms"), FROM_ZERO, "how far in the past a batch's timestamp may be"),
    setting("message.timestamp.type", Kind::String, "CreateTime", Some("log.message.timestamp.type"), Use::OneOf(&["CreateTime", "LogAppendTime"]), "whose clock stamps records"),
    setting("min.cleanable.dirty.ratio", Kind::Double, "0.5", Some("log.cleaner.min.cleanable.ratio"), Use::Kept, "has no effect without compaction"),
    setting("min.compaction.lag.ms", Kind::Long, "0", Some("log.cleaner.min.compaction.lag.ms"), FROM_ZERO, "has no effect without compaction"),
    setting("min.insync.replicas", Kind::Int, "1", Some("min.insync.replicas"),
        Use::Only(&["1"], "a single node has one replica, use `1`"),
        "replicas that must have a record before it is acknowledged"),
    setting("preallocate", Kind::Boolean, "false", Some("log.preallocate"), TRUTH, "whether new segments are preallocated"),
    setting("remote.copy.disable", Kind::Boolean, "false", None, TRUTH, "has no effect without remote storage"),
    setting("remote.log.delete.on.disable", Kind::Boolean, "false", None, TRUTH, "has no effect without remote storage"),
    setting("remote.storage.enable", Kind::Boolean, "false", None,
        Use::Only(&["false"], "there is no remote storage, use `false`"),
        "whether segments are tiered"),
    setting("retention.bytes", Kind::Long, "-1", Some("log.retention.bytes"), Use::Number { min: -1, max: i64::MAX }, "largest size of a partition; -1 is without limit"),
    setting("retention.ms", Kind::Long, "604800000", Some("log.retention.ms"), Use::Number { min: -1, max: i64::MAX }, "how long records stay; -1 is without limit"),
    setting("segment.bytes", Kind::Int, "1073741824", Some("log.segment.bytes"), Use::Number { min: 1024, max: i32::MAX as i64 }, "size at which a segment is closed"),
    setting("segment.index.bytes", Kind::Int, "10485760", Some("log.index.size.max.bytes"), Use::Number { min: 4, max: i32::MAX as i64 }, "largest size of an index"),
    setting("segment.jitter.ms", Kind::Long, "0", Some("log.roll.jitter.ms"), FROM_ZERO, "spreads the closing of segments"),
    setting("segment.ms", Kind::Long, "604800000", Some("log.roll.ms"), Use::Number { min: 1, max: i64::MAX }, "age at which a segment is closed"),
    setting("unclean.leader.election.enable", Kind::Boolean, "false", Some("unclean.leader.election.enable"), TRUTH, "has no effect on a single node"),
];

/// Returns the setting of this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// What was set for one topic; everything else has its default.
pub(crate) type Overrides = BTreeMap<String, String>;

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("unknown topic config name: {name}")]
    Unknown { name: String },
    #[error("invalid value {value} for configuration {name}: {why}")]
    Value {
        name: String,
        value: String,
        why: String,
    },
}

/// Checks one setting; whitespace around a value does not matter.
pub(crate) fn check(name: &str, value: &str) -> Result<(), Invalid> {
    let setting = find(name).ok_or_else(|| Invalid::Unknown { name: name.into() })?;
    let value = value.trim();
    setting.check(value).map_err(|why| Invalid::Value {
        name: name.to_owned(),
        value: value.to_owned(),
        why,
    })
}

impl Setting {
    fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Boolean if value != "true" && value != "false" => {
                return Err("expected `true` or `false`".into());
            }
            Kind::Int if value.parse::<i32>().is_err() => {
                return Err("not a number of 32 bits".into());
            }
            Kind::Long if value.parse::<i64>().is_err() => {
                return Err("not a number of 64 bits".into());
            }
            Kind::Double if value.parse::<f64>().is_err() => return Err("not a number".into()),
            _ => (),
        }
        match self.used {
            Use::Kept => Ok(()),
            Use::Number { min, max } => match value.parse::<i64>() {
                Ok(number) if number < min => Err(format!("value must be at least {min}")),
                Ok(number) if number > max => Err(format!("value must be at most {max}")),
                Ok(_) => Ok(()),
                Err(_) => Err("not a number".into()),
            },
            Use::OneOf(choices) if choices.contains(&value) => Ok(()),
            Use::OneOf(choices) => Err(format!("expected one of {}", choices.join(", "))),
            Use::Only(choices, _) if choices.contains(&value) => Ok(()),
            Use::Only(_, why) => Err(why.to_owned()),
        }
    }
}

/// The settings that the broker acts on, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub max_message_bytes: usize,
    pub retention_ms: Option<u64>,
    pub retention_bytes: Option<u64>,
    pub segment_bytes: u32,
    pub segment_ms: u64,
    pub index_interval_bytes: u32,
    pub append_time: bool,
    /// Each append is flushed, whatever the producer asked for (`flush.messages=1`).
    pub flush_each: bool,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
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
        for (name, value) in &values {
            check(name, value)?;
        }
        Ok(Self { values })
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
        Settings {
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or_default(),
            retention_ms: u64::try_from(number("retention.ms")).ok(),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            segment_bytes: u32::try_from(number("segment.bytes")).unwrap_or(u32::MAX),
            segment_ms: u64::try_from(number("segment.ms")).unwrap_or(u64::MAX),
            index_interval_bytes: u32::try_from(number("index.interval.bytes")).unwrap_or(u32::MAX),
            append_time: text("message.timestamp.type") == "LogAppendTime",
            flush_each: number("flush.messages") == 1,
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
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
    fn refusals_say_what_would_do() {
        refused("nope", "1", "unknown topic config name: nope");
        refused(
            "cleanup.policy",
            "compact",
            "invalid value compact for configuration cleanup.policy: \
             compaction is not available yet, use `delete`",
        );
        refused(
            "retention.ms",
            "-2",
            "invalid value -2 for configuration retention.ms: value must be at least -1",
        );
        refused(
            "segment.bytes",
            "many",
            "invalid value many for configuration segment.bytes: not a number of 32 bits",
        );
    }

    #[test]
    fn a_topic_stands_over_the_broker_and_the_broker_over_kafka() {
        let base = Base::new(Overrides::from([("retention.ms".into(), "5".into())]))
            .expect("a good default");
        let settings = base.settings(&Overrides::new());
        assert_eq!(settings.retention_ms, Some(5));
        assert_eq!(settings.retention_bytes, None);
        assert_eq!(settings.segment_bytes, 1 << 30);
        let own = Overrides::from([("retention.ms".into(), "-1".into())]);
        assert_eq!(base.settings(&own).retention_ms, None);
    }
}
