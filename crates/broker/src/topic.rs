//! A topic: its name, its id, its settings and its partitions.

use std::sync::Arc;

use parking_lot::RwLock;
use uuid::Uuid;

use crate::metrics::Counters;
use crate::partition::Partition;

pub(crate) mod adopt;
pub(crate) mod config;
pub(crate) mod registry;

use config::{Base, Overrides, Settings};

/// The topic that holds transactions.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The topic that holds what share groups know of records.
pub(crate) const SHARES_TOPIC: &str = "__share_group_state";

/// Whether a topic of this name is the broker's own.
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, OFFSETS_TOPIC | TRANSACTIONS_TOPIC | SHARES_TOPIC)
}

/// The topic that holds groups and their offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// One topic; its partitions may grow and its settings may change while it is in use.
#[derive(Debug)]
pub(crate) struct Topic {
    pub name: Arc<str>,
    pub id: Uuid,
    pub counters: Counters,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    partitions: Arc<[Arc<Partition>]>,
    overrides: Overrides,
    settings: Arc<Settings>,
}

impl Topic {
    fn new(
        name: Arc<str>,
        id: Uuid,
        counters: Counters,
        partitions: Vec<Arc<Partition>>,
        overrides: Overrides,
        settings: Arc<Settings>,
    ) -> Self {
        let inner = Inner {
            partitions: partitions.into(),
            overrides,
            settings,
        };
        Self {
            name,
            id,
            counters,
            inner: RwLock::new(inner),
        }
    }

    /// Whether the topic is the broker's own; clients may read it, not write it.
    pub(crate) fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    pub(crate) fn partitions(&self) -> Arc<[Arc<Partition>]> {
        self.inner.read().partitions.clone()
    }

    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(index).ok()?;
        self.inner.read().partitions.get(index).cloned()
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.inner.read().settings.clone()
    }

    /// What was set for this topic itself.
    pub(crate) fn overrides(&self) -> Overrides {
        self.inner.read().overrides.clone()
    }

    fn grow(&self, more: Vec<Arc<Partition>>) {
        let mut inner = self.inner.write();
        inner.partitions = inner.partitions.iter().cloned().chain(more).collect();
    }

    fn configure(&self, overrides: Overrides, base: &Base) {
        let settings = Arc::new(base.settings(&overrides));
        let mut inner = self.inner.write();
        inner.overrides = overrides;
        inner.settings = settings.clone();
        for partition in inner.partitions.iter() {
            partition.configure(&settings);
        }
    }
}
