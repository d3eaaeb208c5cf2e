//! Small words for building batches and logs.

use std::path::{Path, PathBuf};

use journal::producer::Origin;
use journal::{Appended, Config, Log, Reader, Report};
use kafka::compress::Compression;
use kafka::record::{self, BatchBuilder, Marker, NewRecord, Producer, Records};
use tempfile::TempDir;

pub(crate) const NOW: i64 = 1_700_000_000_000;

/// Small segments and dense indexes, so that little data shows a lot.
pub(crate) fn small() -> Config {
    Config {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        ..Config::default()
    }
}

/// A folder for one partition, removed with this value.
pub(crate) struct Home {
    _root: TempDir,
    pub(crate) dir: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Home {
        let root = tempfile::tempdir().expect("a temp dir");
        let dir = root.path().join("orders-0");
        Home { _root: root, dir }
    }

    #[track_caller]
    pub(crate) fn open(&self, config: Config) -> (Log, Report) {
        Log::open(&self.dir, None, config, NOW).expect("opens")
    }

    /// Opens what may come from elsewhere.
    #[track_caller]
    pub(crate) fn adopt(&self, config: Config) -> (Log, Report) {
        Log::adopt(&self.dir, config, NOW).expect("opens")
    }

    /// Names in the folder with this extension, sorted.
    pub(crate) fn names(&self, extension: &str) -> Vec<String> {
        names(&self.dir, extension)
    }
}

pub(crate) fn names(dir: &Path, extension: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("readable")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name.ends_with(extension))
        .collect();
    names.sort();
    names
}

/// A batch with these values, its records one ms apart from `timestamp` on.
pub(crate) fn batch_at(timestamp: i64, values: &[&str]) -> Vec<u8> {
    fill(BatchBuilder::default(), timestamp, values)
}

pub(crate) fn batch(values: &[&str]) -> Vec<u8> {
    batch_at(NOW, values)
}

pub(crate) fn packed(codec: Compression, timestamp: i64, values: &[&str]) -> Vec<u8> {
    fill(BatchBuilder::new(codec), timestamp, values)
}

pub(crate) fn of_producer(id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Vec<u8> {
    let producer = Producer {
        id,
        epoch,
        base_sequence,
    };
    fill(BatchBuilder::default().producer(producer), NOW, values)
}

pub(crate) fn of_transaction(id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Vec<u8> {
    let producer = Producer {
        id,
        epoch,
        base_sequence,
    };
    let builder = BatchBuilder::default().producer(producer).transactional();
    fill(builder, NOW, values)
}

/// Ends a transaction, without a flush.
#[track_caller]
pub(crate) fn end(log: &mut Log, marker: Marker, id: i64, epoch: i16) -> Appended {
    log.append(&marker.batch(id, epoch, 0, NOW), NOW, Origin::Coordinator)
        .expect("appended")
}

fn fill(mut builder: BatchBuilder, timestamp: i64, values: &[&str]) -> Vec<u8> {
    for (delta, value) in (0..).zip(values) {
        builder.push(NewRecord {
            timestamp: timestamp + delta,
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        });
    }
    builder.build().to_vec()
}

#[track_caller]
pub(crate) fn append(log: &mut Log, bytes: &[u8]) -> Appended {
    log.append(bytes, NOW, Origin::Client).expect("appended")
}

/// Appends and flushes `count` one-record batches with the values `from`, `from + 1`, ...
#[track_caller]
pub(crate) fn append_numbers(log: &mut Log, from: i64, count: i64) {
    for number in from..from + count {
        append(log, &batch(&[&number.to_string()]));
    }
    log.flush().expect("flushed");
}

/// Reads all records from `offset` on, in small steps, as `offset=value`.
#[track_caller]
pub(crate) fn dump(reader: &Reader, offset: i64) -> String {
    let mut told = Vec::new();
    let mut next = offset;
    while next < reader.end_offset() {
        let slice = reader.read(next, 300, true, i64::MAX).expect("readable");
        assert!(slice.next_offset > next, "reading makes progress at {next}");
        for batch in record::batches(&slice.bytes) {
            let batch = batch.expect("whole batches");
            batch.verify().expect("good batches");
            for record in &Records::read(&batch, 1 << 20).expect("inflates") {
                let record = record.expect("readable");
                if record.offset >= next {
                    let value = String::from_utf8_lossy(record.value.expect("a value"));
                    told.push(format!("{}={value}", record.offset));
                }
            }
        }
        next = slice.next_offset;
    }
    told.join(" ")
}

/// The numbers from `from` to `to`, as [`dump`] shows them.
pub(crate) fn numbers(from: i64, to: i64) -> String {
    (from..to)
        .map(|number| format!("{number}={number}"))
        .collect::<Vec<_>>()
        .join(" ")
}
