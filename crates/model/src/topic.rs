//! Topic: a log of records, split into partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A log of records that the broker keeps, split into partitions.
///
/// In `nuncio.yaml` the name is the key under `topics:`; as an object it is `metadata.name`.
///
/// ```yaml
/// partitions: 3
/// retention: 7d
/// retention_bytes: 1GiB
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// How many partitions the topic has; records of one key stay in one of them, in order.
    #[serde(default = "one")]
    pub partitions: u32,

    /// How long records are kept; the broker's default, `7d`, when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub retention: Option<Duration>,

    /// How much each partition may hold before its oldest records go; no limit when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "crate::units::maybe_size")]
    #[schemars(with = "Option<String>")]
    pub retention_bytes: Option<u64>,

    /// What happens to old records.
    #[serde(default)]
    pub cleanup: Cleanup,

    /// Size at which a segment file is closed and the next one begun; `1GiB` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "crate::units::maybe_size")]
    #[schemars(with = "Option<String>")]
    pub segment_bytes: Option<u64>,

    /// Largest record batch that is taken; `1MiB` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "crate::units::maybe_size")]
    #[schemars(with = "Option<String>")]
    pub message_bytes_max: Option<u64>,

    /// Further settings by Kafka's own names, such as `min.insync.replicas`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl Default for Topic {
    fn default() -> Topic {
        Topic {
            partitions: one(),
            retention: None,
            retention_bytes: None,
            cleanup: Cleanup::Delete,
            segment_bytes: None,
            message_bytes_max: None,
            config: BTreeMap::new(),
        }
    }
}

impl Topic {
    /// Returns the settings by Kafka's names, as a CreateTopics request carries them.
    pub fn kafka_config(&self) -> BTreeMap<String, String> {
        let mut config = self.config.clone();
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                config.insert(name.to_owned(), value);
            }
        };
        set(
            "retention.ms",
            self.retention
                .map(|retention| retention.as_millis().to_string()),
        );
        set(
            "retention.bytes",
            self.retention_bytes.map(|bytes| bytes.to_string()),
        );
        set(
            "segment.bytes",
            self.segment_bytes.map(|bytes| bytes.to_string()),
        );
        set(
            "max.message.bytes",
            self.message_bytes_max.map(|bytes| bytes.to_string()),
        );
        match self.cleanup {
            Cleanup::Delete => (),
            Cleanup::Compact => set("cleanup.policy", Some("compact".to_owned())),
            Cleanup::CompactDelete => set("cleanup.policy", Some("compact,delete".to_owned())),
        }
        config
    }
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    /// They go when they are too old or too many.
    #[default]
    Delete,
    /// The latest record of each key stays.
    Compact,
    /// Both.
    CompactDelete,
}
