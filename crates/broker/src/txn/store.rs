//! `__transaction_state`: each id's latest record is all that holds, and compaction keeps the topic small.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use journal::ReadError;
use journal::producer::Origin;
use tracing::warn;

use super::schema;
use super::terms::Metadata;
use crate::ledger;
use crate::partition::{Partition, Rejected};
use crate::writer::Writer;

/// Reads the last state of each transactional id. Waits for the disk.
pub(crate) fn load(partition: &Partition) -> Result<HashMap<String, Metadata>, ReadError> {
    let mut loaded = HashMap::new();
    ledger::read(partition, |_, record| {
        let key = record.key.map(Bytes::copy_from_slice).unwrap_or_default();
        let value = record.value.map(Bytes::copy_from_slice);
        let read = schema::read_key(&key)
            .and_then(|id| Ok((id, value.as_ref().map(schema::read).transpose()?)));
        match read {
            Ok((None, _)) => (),
            Ok((Some(id), None)) => _ = loaded.remove(&id),
            Ok((Some(id), Some(Some(metadata)))) => _ = loaded.insert(id, metadata),
            Ok((Some(id), Some(None))) => {
                warn!(%id, offset = record.offset, "a transaction is in an unknown state");
            }
            Err(cause) => {
                warn!(offset = record.offset, error = %cause, "a transaction's state cannot be read");
            }
        }
    })?;
    Ok(loaded)
}

/// The topic's only partition, and the way into it.
#[derive(Debug)]
pub(crate) struct Store {
    partition: Arc<Partition>,
    writer: Arc<Writer>,
}

impl Store {
    pub(crate) fn new(partition: Arc<Partition>, writer: Arc<Writer>) -> Self {
        Self { partition, writer }
    }

    /// Stores a state: on disk when this returns if it is to be `durable`, else before all that is stored
    /// later.
    pub(crate) async fn store(
        &self,
        id: &str,
        metadata: &Metadata,
        durable: bool,
    ) -> Result<(), Rejected> {
        let line =
            schema::write(id, metadata).map_err(|cause| Rejected::Invalid(cause.to_string()))?;
        for batch in ledger::write([&[line][..]].into_iter(), None) {
            let partition = self.partition.clone();
            let append = self
                .writer
                .append(partition, batch, Origin::Coordinator, durable);
            append.await?;
        }
        Ok(())
    }
}
