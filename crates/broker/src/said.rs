//! Settings under Kafka's own names, as they stand in a `server.properties`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Options;
use crate::topic::config;

/// A setting that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be `{value}`: {why}")]
pub struct Unfit {
    name: String,
    value: String,
    why: String,
}

impl Options {
    /// Takes settings under Kafka's names: those of the broker that can be set, and the defaults of topics.
    ///
    /// # Errors
    /// When one is not known, or not a value that it may have.
    pub fn take(&mut self, said: &BTreeMap<String, String>) -> Result<(), Unfit> {
        for (name, value) in said {
            self.take_one(name, value).map_err(|why| Unfit {
                name: name.clone(),
                value: value.clone(),
                why,
            })?;
        }
        Ok(())
    }

    fn take_one(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "fetch.max.bytes" => self.limits.fetch_bytes_max = number(value)?,
            "group.initial.rebalance.delay.ms" => {
                self.group_initial_rebalance_delay = millis(value)?;
            }
            "group.max.session.timeout.ms" => {
                let shortest = *self.group_session_timeout_ms.start();
                self.group_session_timeout_ms = shortest..=number(value)?;
            }
            "group.max.size" => self.group_members_max = number(value)?,
            "group.min.session.timeout.ms" => {
                let longest = *self.group_session_timeout_ms.end();
                self.group_session_timeout_ms = number(value)?..=longest;
            }
            "log.cleaner.backoff.ms" => self.compacting.backoff = millis(value)?,
            "log.cleaner.dedupe.buffer.size" => self.compacting.keys_bytes_max = number(value)?,
            "log.cleaner.enable" => {
                self.compacting.enabled = value.parse().map_err(|_| "it is true or false")?;
            }
            "log.cleaner.io.max.bytes.per.second" => {
                let most: f64 = number(value)?;
                self.compacting.bytes_per_second_max = Some(most as u64);
            }
            "log.retention.check.interval.ms" => self.retention_check = millis(value)?,
            "offsets.retention.minutes" => {
                self.offsets_retention = Duration::from_secs(number::<u64>(value)? * 60);
            }
            "transaction.max.timeout.ms" => self.transaction_timeout_max = millis(value)?,
            "transactional.id.expiration.ms" => self.transactional_id_expiration = millis(value)?,
            name => {
                let mut settings = config::SETTINGS.iter();
                let of_topics = settings.find(|setting| setting.synonym == Some(name));
                let setting = of_topics.ok_or("there is no such setting")?;
                setting.check(value)?;
                let (name, value) = (setting.name.to_owned(), value.to_owned());
                self.topic_defaults.insert(name, value);
            }
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "it is no number".to_owned())
}

fn millis(value: &str) -> Result<Duration, String> {
    number(value).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use model::broker::{BOUNDS, Bound, BrokerSettings};

    use super::*;
    use crate::compatibility;
    use crate::topic::config::Base;

    fn everything() -> BrokerSettings {
        serde_json::from_value(serde_json::json!({
            "compression.gzip.level": 9, "compression.type": "zstd", "compression.zstd.level": 1,
            "fetch.max.bytes": 1024, "group.initial.rebalance.delay.ms": 3000,
            "group.max.session.timeout.ms": 90000, "group.max.size": 3,
            "group.min.session.timeout.ms": 10, "log.cleaner.backoff.ms": 5,
            "log.cleaner.dedupe.buffer.size": 1_048_576, "log.cleaner.delete.retention.ms": 7,
            "log.cleaner.enable": false, "log.cleaner.io.max.bytes.per.second": 1000.5,
            "log.cleaner.max.compaction.lag.ms": 9, "log.cleaner.min.cleanable.ratio": 0.25,
            "log.cleaner.min.compaction.lag.ms": 8, "log.cleanup.policy": "compact,delete",
            "log.flush.interval.messages": 5, "log.flush.interval.ms": 6,
            "log.index.interval.bytes": 100, "log.index.size.max.bytes": 4096,
            "log.message.timestamp.after.max.ms": 1, "log.message.timestamp.before.max.ms": 2,
            "log.message.timestamp.type": "LogAppendTime", "log.preallocate": true,
            "log.retention.bytes": -1, "log.retention.check.interval.ms": 50,
            "log.roll.jitter.ms": 4, "log.roll.ms": 1000, "log.segment.bytes": 2_097_152,
            "message.max.bytes": 2000, "min.insync.replicas": 1, "offsets.retention.minutes": 3,
            "transaction.max.timeout.ms": 1234, "transactional.id.expiration.ms": 4321,
        }))
        .expect("all of them")
    }

    #[test]
    fn what_the_configuration_may_say_is_taken_and_told() {
        let all = everything().said();
        let mut options = Options::new("unused");
        options.take(&all).expect("takes everything");
        let base = Base::new(options.topic_defaults.clone()).expect("fits together");
        for setting in config::SETTINGS {
            if let Some(value) = setting.synonym.and_then(|name| all.get(name)) {
                assert_eq!(base.default_of(setting), (value.as_str(), true));
            }
        }
        for name in all.keys() {
            assert!(compatibility::told().any(|told| told == name), "{name}");
        }
        assert!(!options.compacting.enabled);
        assert_eq!(options.compacting.bytes_per_second_max, Some(1000));
        assert_eq!(options.group_session_timeout_ms, 10..=90_000);
        assert_eq!(options.offsets_retention, Duration::from_mins(3));
        assert_eq!(options.transaction_timeout_max, Duration::from_millis(1234));
    }

    #[test]
    fn the_configuration_may_say_all_that_can_be_taken() {
        let fields = everything().said();
        assert_eq!(fields.keys().cloned().collect::<Vec<_>>(), names());
    }

    /// The names that the struct has, from what it says of one that it does not have.
    fn names() -> Vec<String> {
        let refused = serde_json::from_str::<BrokerSettings>(r#"{"no.such": 1}"#);
        let told = refused.expect_err("unknown").to_string();
        let mut names: Vec<String> = told.split('`').skip(3).step_by(2).map(Into::into).collect();
        names.sort();
        names
    }

    /// A configuration that is good must not keep the broker from its start, nor must one be refused that the broker would take.
    #[test]
    fn the_configuration_has_the_bounds_that_topics_have() {
        let mut held = 0;
        for (name, bound) in BOUNDS {
            let mut settings = config::SETTINGS.iter();
            let Some(setting) = settings.find(|setting| setting.synonym == Some(name)) else {
                continue;
            };
            held += 1;
            let takes = |value: String| setting.check(&value).is_ok();
            match bound {
                Bound::OneOf(choices) => {
                    for choice in *choices {
                        assert!(takes((*choice).to_owned()), "{name} {choice}");
                    }
                    assert!(!takes("none of them".to_owned()), "{name}");
                }
                Bound::Number(from, to) => {
                    assert!(takes(from.to_string()), "{name} {from}");
                    assert!(!takes((from - 1.0).to_string()), "{name} below {from}");
                    if to.is_finite() {
                        assert!(takes(to.to_string()), "{name} {to}");
                        assert!(!takes((to + 1.0).to_string()), "{name} above {to}");
                    }
                }
            }
        }
        assert!(held > 15, "{held}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut options = Options::new("unused");
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let unfit = options
            .take(&one("log.segment.bytes", "5"))
            .expect_err("too small");
        assert_eq!(
            unfit.to_string(),
            "`log.segment.bytes` cannot be `5`: Value must be at least 1048576"
        );
        assert!(options.take(&one("no.such", "5")).is_err());
        assert!(options.take(&one("fetch.max.bytes", "x")).is_err());
    }
}
