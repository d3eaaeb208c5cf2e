//! Producer snapshots in Kafka's format, version 1, so that its tools read them.
//!
//! Kafka keeps only the last batch of each producer here, and so forgets that a client may repeat
//! the four before it. We add all that we keep after Kafka's part, under the same checksum, where
//! Kafka does not look.
//!
//! ```text
//! version i16 = 1 · crc32c u32 of all that follows
//! count i32 · each: id i64, epoch i16, last sequence i32, last offset i64, offset delta i32,
//!   timestamp i64, coordinator epoch i32, first offset of the open transaction i64
//! kept batches, oldest first, count i32 · each: id i64, last sequence i32, last offset i64, offset delta i32,
//!   timestamp i64
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::{BATCHES_KEPT, Kept, PRODUCERS_MAX, Producer, Producers};
use crate::disk;

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = 6;

/// Returns the path of the snapshot that describes all records before `offset`.
pub(crate) fn path(dir: &Path, offset: i64) -> PathBuf {
    dir.join(format!("{offset:020}.snapshot"))
}

/// Writes a snapshot, durably but for its name.
pub(crate) fn write(dir: &Path, offset: i64, producers: &Producers) -> io::Result<()> {
    disk::replace(&path(dir, offset), &encode(producers))
}

/// Reads a snapshot; `None` when it is damaged.
pub(crate) fn read(path: &Path) -> io::Result<Option<Producers>> {
    Ok(decode(&std::fs::read(path)?))
}

/// Returns the bytes of a snapshot's file.
pub(crate) fn encode(producers: &Producers) -> Vec<u8> {
    let mut sorted: Vec<(i64, &Producer)> = producers.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);

    let mut bytes = Vec::with_capacity(64 * sorted.len() + 16);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(sorted.len() as i32).to_be_bytes());
    let nothing = Kept {
        last_sequence: -1,
        last_offset: -1,
        offset_delta: 0,
        timestamp: -1,
    };
    for (id, producer) in &sorted {
        let last = producer.batches.back().unwrap_or(&nothing);
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&producer.epoch.to_be_bytes());
        bytes.extend_from_slice(&last.last_sequence.to_be_bytes());
        bytes.extend_from_slice(&last.last_offset.to_be_bytes());
        bytes.extend_from_slice(&last.offset_delta.to_be_bytes());
        bytes.extend_from_slice(&producer.last_timestamp.to_be_bytes());
        bytes.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
        bytes.extend_from_slice(&producer.transaction_start.unwrap_or(-1).to_be_bytes());
    }
    let batches = sorted
        .iter()
        .flat_map(|(id, producer)| producer.batches.iter().map(move |kept| (*id, kept)));
    bytes.extend_from_slice(&(batches.clone().count() as i32).to_be_bytes());
    for (id, kept) in batches {
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&kept.last_sequence.to_be_bytes());
        bytes.extend_from_slice(&kept.last_offset.to_be_bytes());
        bytes.extend_from_slice(&kept.offset_delta.to_be_bytes());
        bytes.extend_from_slice(&kept.timestamp.to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[ENTRIES_AT..]);
    bytes[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Producers> {
    let mut reader = Reader { rest: bytes };
    let version = i16::from_be_bytes(reader.take()?);
    let crc = u32::from_be_bytes(reader.take()?);
    if version != VERSION || crc != crc32c::crc32c(reader.rest) {
        return None;
    }
    let mut producers = Producers::default();
    for _ in 0..reader.count(PRODUCERS_MAX)? {
        let id = reader.i64()?;
        let mut producer = Producer::new(i16::from_be_bytes(reader.take()?));
        let last_sequence = reader.i32()?;
        let last_offset = reader.i64()?;
        let offset_delta = reader.i32()?;
        producer.last_timestamp = reader.i64()?;
        producer.coordinator_epoch = reader.i32()?;
        producer.transaction_start = Some(reader.i64()?).filter(|start| *start >= 0);
        if last_sequence >= 0 {
            let timestamp = producer.last_timestamp;
            producer.keep(kept(last_sequence, last_offset, offset_delta, timestamp)?);
        }
        producers.insert(id, producer);
    }
    if reader.rest.is_empty() {
        return Some(producers); // written by Kafka
    }
    for producer in producers.producers.values_mut() {
        producer.batches.clear();
    }
    for _ in 0..reader.count(PRODUCERS_MAX * BATCHES_KEPT)? {
        let producer = producers.producers.get_mut(&reader.i64()?)?;
        producer.keep(kept(
            reader.i32()?,
            reader.i64()?,
            reader.i32()?,
            reader.i64()?,
        )?);
    }
    Some(producers)
}

fn kept(last_sequence: i32, last_offset: i64, offset_delta: i32, timestamp: i64) -> Option<Kept> {
    let sane = last_sequence >= 0 && offset_delta >= 0 && last_offset >= i64::from(offset_delta);
    sane.then_some(Kept {
        last_sequence,
        last_offset,
        offset_delta,
        timestamp,
    })
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn count(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.i32()?)
            .ok()
            .filter(|count| *count <= max)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn some() -> Producers {
        let mut producers = Producers::default();
        for id in 0..7i64 {
            let batches = (0..id.min(5) as i32).map(|number| Kept {
                last_sequence: number * 10 + 9,
                last_offset: 1000 * id + i64::from(number) * 10 + 9,
                offset_delta: 9,
                timestamp: 5000,
            });
            producers.insert(
                id,
                Producer {
                    epoch: id as i16,
                    batches: batches.collect::<VecDeque<_>>(),
                    last_timestamp: 5000,
                    coordinator_epoch: -1,
                    transaction_start: (id == 6).then_some(6000),
                },
            );
        }
        producers
    }

    #[test]
    fn all_kept_batches_come_back() {
        for producers in [Producers::default(), some()] {
            assert_eq!(decode(&encode(&producers)).as_ref(), Some(&producers));
        }
        assert_eq!(some().first_unstable_offset(), Some(6000));
    }

    #[test]
    fn kafkas_part_stands_alone() {
        let bytes = encode(&some());
        let kafkas = ENTRIES_AT + 4 + 7 * 46;
        let mut bytes = bytes[..kafkas].to_vec();
        let crc = crc32c::crc32c(&bytes[ENTRIES_AT..]);
        bytes[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
        let producers = decode(&bytes).expect("readable");
        assert_eq!(producers.len(), 7);
        let last = producers.get(5).expect("known").batches.clone();
        assert_eq!(
            last,
            some()
                .get(5)
                .expect("known")
                .batches
                .range(4..)
                .copied()
                .collect::<VecDeque<_>>()
        );
    }

    #[test]
    fn damage_is_noticed() {
        let bytes = encode(&some());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged), None, "{at}");
            assert_eq!(decode(&bytes[..at]), None, "{at}");
        }
    }
}
