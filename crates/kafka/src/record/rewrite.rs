//! Makes a batch from another: with fewer records, or compressed in another way.
//!
//! What identifies the batch stays: its offsets, leader epoch, producer and sequence numbers. So a log whose
//! batches were rewritten tells the same about its producers, and every offset stays where it was.

use super::batch::{ATTRIBUTES, COMPRESSION_MASK, CRC, DELETE_HORIZON};
use super::{Batch, Error, HEADER_LEN, Header, LENGTH_END, Records, TimestampType, varint};
use crate::compress::{self, Codec, Compression};

const LENGTH: usize = 8;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const COUNT: usize = 57;

/// Returns the batch with those of its records for which `keep` says so, in their order.
///
/// With a `horizon` (ms since 1970) the batch says that its tombstones may go from then on; without one it
/// keeps what it says. `records` are those of the batch.
pub fn some(
    batch: &Batch<'_>,
    records: &Records<'_>,
    keep: &[bool],
    horizon: Option<i64>,
    codec: Codec,
) -> Result<Vec<u8>, Error> {
    let base = horizon.unwrap_or(batch.base_timestamp());
    let mut body = Vec::with_capacity(records.body().len());
    let (mut count, mut latest) = (0, super::NO_TIMESTAMP);
    for (record, _) in records.iter().zip(keep).filter(|(_, keep)| **keep) {
        let record = record?;
        let timestamp_delta = record.timestamp.wrapping_sub(base);
        let offset_delta = i64::from(record.offset_delta);
        let length =
            1 + varint::len(timestamp_delta) + varint::len(offset_delta) + record.tail.len();
        varint::put(&mut body, length as i64);
        body.push(0); // attributes: none are assigned
        varint::put(&mut body, timestamp_delta);
        varint::put(&mut body, offset_delta);
        body.extend_from_slice(record.tail);
        count += 1;
        latest = latest.max(record.timestamp);
    }
    if batch.timestamp_type() == TimestampType::LogAppendTime {
        latest = batch.max_timestamp();
    }
    let mut header = *batch.header_bytes();
    put(&mut header, BASE_TIMESTAMP, base.to_be_bytes());
    put(&mut header, MAX_TIMESTAMP, latest.to_be_bytes());
    put(&mut header, COUNT, i32::to_be_bytes(count));
    let mut attributes = batch.attributes();
    if horizon.is_some() {
        attributes |= DELETE_HORIZON;
    }
    Ok(close(header, attributes, codec, &body))
}

/// Returns the batch without any of its records: its place, its producer and its sequence numbers are left.
pub fn none(batch: &Header<'_>) -> Vec<u8> {
    let mut header = *batch.header_bytes();
    put(&mut header, COUNT, 0i32.to_be_bytes());
    let attributes = batch.attributes() & !DELETE_HORIZON;
    close(header, attributes, Compression::None.into(), &[])
}

/// Returns the batch with the same records, compressed with `codec`.
pub fn repacked(batch: &Batch<'_>, records: &Records<'_>, codec: Codec) -> Vec<u8> {
    close(
        *batch.header_bytes(),
        batch.attributes(),
        codec,
        records.body(),
    )
}

/// Compresses the body and writes what depends on it into the header.
fn close(mut header: [u8; HEADER_LEN], attributes: i16, codec: Codec, body: &[u8]) -> Vec<u8> {
    let packed;
    let body = match codec.compression {
        Compression::None => body,
        _ => {
            packed = compress::compress(codec, body);
            &packed
        }
    };
    let attributes = attributes & !COMPRESSION_MASK | i16::from(codec.compression.id());
    put(&mut header, ATTRIBUTES, attributes.to_be_bytes());
    let length = (HEADER_LEN - LENGTH_END + body.len()) as i32;
    put(&mut header, LENGTH, length.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[ATTRIBUTES..]), body);
    put(&mut header, CRC, crc.to_be_bytes());
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(body);
    bytes
}

fn put<const N: usize>(header: &mut [u8; HEADER_LEN], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, NewRecord, Producer, place};

    fn batch(codec: Compression) -> Vec<u8> {
        let producer = Producer {
            id: 7,
            epoch: 2,
            base_sequence: 40,
        };
        let mut builder = BatchBuilder::new(codec).producer(producer);
        for number in 0..5u8 {
            builder.push(NewRecord {
                timestamp: 1000 + i64::from(number),
                key: Some(&[number]),
                value: (number != 2).then_some(b"value".as_slice()),
                headers: &[("name", Some(b"x"))],
            });
        }
        let mut bytes = builder.build().to_vec();
        place(&mut bytes, 100, 3).expect("a batch");
        bytes
    }

    /// Tells what is in a batch: `offset@timestamp=value`.
    fn told(bytes: &[u8]) -> String {
        let (batch, rest) = Batch::split_first(bytes).expect("whole");
        assert!(rest.is_empty());
        batch.verify().expect("a good checksum");
        let kept = (
            batch.base_offset(),
            batch.last_offset(),
            batch.leader_epoch(),
        );
        assert_eq!(kept, (100, 104, 3));
        let kept = (
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence(),
        );
        assert_eq!(kept, (7, 2, 40));
        let records = Records::read(&batch, 10_000).expect("inflates");
        let mut told = Vec::new();
        for record in &records {
            let record = record.expect("readable");
            assert_eq!(record.header("name"), Some(b"x".as_slice()));
            let value = record
                .value
                .map_or("-".into(), |value| String::from_utf8_lossy(value));
            told.push(format!("{}@{}={value}", record.offset, record.timestamp));
        }
        told.join(" ")
    }

    #[test]
    fn some_records_are_left_where_they_were() {
        for codec in Compression::ALL {
            let bytes = batch(codec);
            let (whole, _) = Batch::split_first(&bytes).expect("whole");
            let records = Records::read(&whole, 10_000).expect("inflates");
            let keep = [false, true, true, false, false];
            let fewer = some(&whole, &records, &keep, None, codec.into()).expect("rewritten");
            assert_eq!(told(&fewer), "101@1001=value 102@1002=-");
            let (header, _) = Batch::split_first(&fewer).expect("whole");
            assert_eq!(
                (header.max_timestamp(), header.delete_horizon()),
                (1002, None)
            );
            assert_eq!(header.compression().expect("known"), codec);
        }
    }

    #[test]
    fn the_horizon_takes_the_place_of_the_base_timestamp() {
        let bytes = batch(Compression::Lz4);
        let (whole, _) = Batch::split_first(&bytes).expect("whole");
        let records = Records::read(&whole, 10_000).expect("inflates");
        let keep = [true; 5];
        let marked = some(
            &whole,
            &records,
            &keep,
            Some(5_000_000),
            Compression::Lz4.into(),
        )
        .expect("rewritten");
        assert_eq!(told(&marked), told(&bytes));
        let (header, _) = Batch::split_first(&marked).expect("whole");
        assert_eq!(header.delete_horizon(), Some(5_000_000));
        let records = Records::read(&header, 10_000).expect("inflates");
        let keep = [false, false, true, false, false];
        let again = some(&header, &records, &keep, None, Codec::default()).expect("rewritten");
        assert_eq!(told(&again), "102@1002=-");
        let (header, _) = Batch::split_first(&again).expect("whole");
        assert_eq!(header.delete_horizon(), Some(5_000_000));
    }

    #[test]
    fn an_empty_batch_keeps_its_place_and_its_producer() {
        let bytes = batch(Compression::Zstd);
        let (whole, _) = Batch::split_first(&bytes).expect("whole");
        let empty = none(&whole);
        assert_eq!((empty.len(), told(&empty).as_str()), (HEADER_LEN, ""));
        let (header, _) = Batch::split_first(&empty).expect("whole");
        assert_eq!((header.record_count(), header.last_sequence()), (0, 44));
    }

    #[test]
    fn any_codec_becomes_any_other() {
        for from in Compression::ALL {
            let bytes = batch(from);
            let (whole, _) = Batch::split_first(&bytes).expect("whole");
            let records = Records::read(&whole, 10_000).expect("inflates");
            for to in Compression::ALL {
                let repacked = repacked(&whole, &records, to.into());
                assert_eq!(told(&repacked), told(&bytes), "{from:?} {to:?}");
                let (header, _) = Batch::split_first(&repacked).expect("whole");
                assert_eq!(header.compression().expect("known"), to);
            }
        }
    }
}
