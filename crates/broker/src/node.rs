//! What the node remembers about itself: the cluster's id, its starts, and the producer ids it gave out.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::files;

/// The id of the only node.
pub(crate) const NODE_ID: i32 = 1;
/// Producer ids that are reserved on disk at once; what is left of a block at a stop is never used.
const PRODUCER_IDS_RESERVED: i64 = 1000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Memory {
    cluster_id: String,
    /// Grows with each start, so that it can serve as the leader epoch of what is written then.
    epoch: i32,
    /// The first producer id that was never reserved.
    next_producer_id: i64,
}

/// The node; `given ≤ reserved` holds for producer ids.
#[derive(Debug)]
pub(crate) struct Node {
    path: PathBuf,
    cluster_id: String,
    epoch: i32,
    producer_ids: Mutex<ProducerIds>,
}

#[derive(Debug)]
struct ProducerIds {
    next: i64,
    reserved: i64,
}

impl Node {
    /// Reads `node.json` in `data_dir`, or makes it; the new epoch is durable when this returns.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("node.json");
        let memory = match files::read(&path)? {
            Some(content) => {
                let mut memory: Memory = serde_json::from_slice(&content)?;
                memory.epoch = memory.epoch.saturating_add(1);
                memory
            }
            None => Memory {
                cluster_id: base64_id(uuid::Uuid::new_v4()),
                epoch: 0,
                next_producer_id: 0,
            },
        };
        let node = Self {
            path,
            cluster_id: memory.cluster_id,
            epoch: memory.epoch,
            producer_ids: Mutex::new(ProducerIds {
                next: memory.next_producer_id,
                reserved: memory.next_producer_id,
            }),
        };
        node.write(memory.next_producer_id)?;
        Ok(node)
    }

    /// Makes the epoch, and the producer ids that are given out from now on, higher than these; durable when this
    /// returns.
    pub(crate) fn raise(&mut self, epoch: i32, producer_id: i64) -> io::Result<()> {
        let ids = self.producer_ids.get_mut();
        if self.epoch > epoch && ids.next > producer_id {
            return Ok(());
        }
        self.epoch = self.epoch.max(epoch.saturating_add(1));
        ids.next = ids.next.max(producer_id.saturating_add(1));
        ids.reserved = ids.reserved.max(ids.next);
        let reserved = ids.reserved;
        self.write(reserved)
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The leader epoch of this run.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Returns a producer id that was never given out before, on this run or an earlier one.
    pub(crate) fn producer_id(&self) -> io::Result<i64> {
        let mut ids = self.producer_ids.lock();
        if ids.next == ids.reserved {
            let reserved = ids.reserved + PRODUCER_IDS_RESERVED;
            self.write(reserved)?;
            ids.reserved = reserved;
        }
        ids.next += 1;
        Ok(ids.next - 1)
    }

    fn write(&self, next_producer_id: i64) -> io::Result<()> {
        let memory = Memory {
            cluster_id: self.cluster_id.clone(),
            epoch: self.epoch,
            next_producer_id,
        };
        files::replace(&self.path, &serde_json::to_vec_pretty(&memory)?)
    }
}

/// Writes an id as Kafka does: 16 bytes in URL-safe base64 without padding.
pub(crate) fn base64_id(id: uuid::Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bytes = u128::from_be_bytes(*id.as_bytes());
    // 22 digits of 6 bits hold 132 bits: the last digit is filled up with four zero bits.
    let digit = |index: u32| match index {
        21 => (bytes << 4) & 0x3f,
        index => (bytes >> (122 - 6 * index)) & 0x3f,
    };
    (0..22)
        .map(|index| char::from(DIGITS[digit(index) as usize]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_grow_and_producer_ids_never_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Node::open(folder.path()).expect("opens");
        assert_eq!(first.epoch(), 0);
        assert_eq!(first.producer_id().expect("an id"), 0);
        assert_eq!(first.producer_id().expect("an id"), 1);
        let second = Node::open(folder.path()).expect("opens");
        assert_eq!(second.epoch(), 1);
        assert_eq!(second.cluster_id(), first.cluster_id());
        assert!(second.producer_id().expect("an id") > 1);
        let mut third = Node::open(folder.path()).expect("opens");
        third.raise(-1, -1).expect("nothing to do");
        assert_eq!(third.epoch(), 2);
        third.raise(7, 5000).expect("written");
        assert_eq!(third.epoch(), 8);
        assert_eq!(third.producer_id().expect("an id"), 5001);
        let fourth = Node::open(folder.path()).expect("opens");
        assert_eq!(fourth.epoch(), 9);
        assert!(fourth.producer_id().expect("an id") > 5001);
    }

    #[test]
    fn ids_look_like_kafkas() {
        let id = uuid::Uuid::from_bytes([0xff; 16]);
        assert_eq!(base64_id(id), "_____________________w");
        let id = uuid::Uuid::from_bytes(*b"0123456789abcdef");
        assert_eq!(base64_id(id), "MDEyMzQ1Njc4OWFiY2RlZg");
    }
}
