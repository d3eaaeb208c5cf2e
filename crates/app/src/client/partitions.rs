//! `TOPIC` or `TOPIC:0,1`: all partitions of a topic, or some.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use krafka::admin::{AdminClient, TopicPartition};

/// One partition, in an order that people expect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) index: i32,
}

impl Partition {
    pub(crate) fn new(topic: impl Into<String>, index: i32) -> Self {
        Self {
            topic: topic.into(),
            index,
        }
    }

    /// Returns it as the client library has it.
    pub(crate) fn wire(&self) -> TopicPartition {
        TopicPartition::new(&self.topic, self.index)
    }
}

impl From<TopicPartition> for Partition {
    fn from(wire: TopicPartition) -> Self {
        Self::new(wire.topic, wire.partition)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.index)
    }
}

/// Some partitions of a topic as the user names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partitions {
    pub(crate) topic: String,
    /// All of them when empty.
    pub(crate) indexes: Vec<i32>,
}

impl FromStr for Partitions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // No topic's name contains a colon.
        let Some((topic, indexes)) = text.split_once(':') else {
            let topic = text.to_owned();
            return Ok(Self {
                topic,
                indexes: Vec::new(),
            });
        };
        let indexes: Result<Vec<i32>, _> = indexes
            .split(',')
            .map(|index| index.trim().parse())
            .collect();
        Ok(Self {
            topic: topic.to_owned(),
            indexes: indexes
                .map_err(|_| format!("`{text}` is not TOPIC or TOPIC:PARTITION,PARTITION"))?,
        })
    }
}

impl Partitions {
    /// Returns the partitions by name, or says which of them do not exist.
    pub(crate) async fn find(&self, admin: &AdminClient) -> anyhow::Result<Vec<Partition>> {
        let described = super::topic(admin, &self.topic).await?;
        let there: Vec<i32> = described.partitions.iter().map(|p| p.partition).collect();
        if let Some(missing) = self.indexes.iter().find(|index| !there.contains(index)) {
            bail!(
                "topic `{}` has no partition {missing}, it has {}",
                self.topic,
                there.len()
            );
        }
        let mut chosen = if self.indexes.is_empty() {
            there
        } else {
            self.indexes.clone()
        };
        chosen.sort_unstable();
        chosen.dedup();
        let named = chosen.into_iter();
        Ok(named
            .map(|index| Partition::new(&self.topic, index))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_behind_a_colon() {
        let read = |text: &str| text.parse::<Partitions>().map(|p| (p.topic, p.indexes));
        assert_eq!(read("a.b"), Ok(("a.b".to_owned(), vec![])));
        assert_eq!(read("a:0,2"), Ok(("a".to_owned(), vec![0, 2])));
        assert!(read("a:x").is_err() && read("a:").is_err());
    }
}
