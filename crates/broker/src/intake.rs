//! What a topic asks of a batch before it is stored.
//!
//! Most topics ask for nothing that the header does not tell, and store the bytes as they come. Only a topic that
//! is compacted, compresses by itself or bounds how old records may be has its batches looked into.

use std::cell::Cell;

use bytes::Bytes;
use kafka::error::ErrorCode;
use kafka::record::check::{self, Rules};
use kafka::record::{Batch, Error, NO_TIMESTAMP, Records, TimestampType, rewrite};

use crate::topic::config::Settings;

/// Most bytes that a batch may inflate to when it must be looked into.
pub(crate) const INFLATED_MAX: usize = 128 << 20;
/// Most bytes that all batches of a request may inflate to that must be looked into.
pub(crate) const INFLATED_REQUEST_MAX: usize = 1 << 30;

/// Why a batch is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub code: ErrorCode,
    pub why: String,
    /// Places of the records that are to blame, with what is wrong with each.
    pub records: Vec<(i32, String)>,
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Unfit {
            code: code_of(&error),
            why: error.to_string(),
            records: Vec::new(),
        }
    }
}

/// The whole mapping from what is wrong with a batch to Kafka's errors.
pub(crate) fn code_of(error: &Error) -> ErrorCode {
    match error {
        Error::Length { .. } | Error::Checksum { .. } | Error::UnknownMagic { .. } => {
            ErrorCode::CorruptMessage
        }
        Error::UnknownCompression { .. } | Error::CompressionTooNew { .. } => {
            ErrorCode::UnsupportedCompressionType
        }
        Error::Timestamp { .. } => ErrorCode::InvalidTimestamp,
        _ => ErrorCode::InvalidRecord,
    }
}

/// Holds a batch, whose header and checksum are fine, against a topic's settings at `now` (ms since 1970).
/// Returns it in another form if the topic wants one; `None` stores the bytes as they are.
///
/// What it inflates to is taken off `inflated_left`, what all batches of the request may yet.
pub(crate) fn examine(
    settings: &Settings,
    batch: &Batch<'_>,
    now: i64,
    inflated_left: &Cell<usize>,
) -> Result<Option<Bytes>, Unfit> {
    let timed = !settings.append_time && batch.timestamp_type() == TimestampType::CreateTime;
    let before = settings.timestamp_before_max_ms;
    let earliest = match timed && before < i64::MAX {
        true => now.saturating_sub(before),
        false => i64::MIN,
    };
    let latest = match timed {
        true => now.saturating_add(settings.timestamp_after_max_ms),
        false => i64::MAX,
    };
    let stored = batch.compression()?;
    let target = settings.compression.filter(|target| *target != stored);
    let late = batch.max_timestamp() != NO_TIMESTAMP && batch.max_timestamp() > latest;
    if !settings.compact && target.is_none() && earliest == i64::MIN && !late {
        return Ok(None);
    }
    let max = INFLATED_MAX.min(inflated_left.get());
    let records = Records::read(batch, max);
    // What cannot be inflated may have cost as much as what can.
    let cost = records.as_ref().map_or(max, Records::size);
    inflated_left.set(inflated_left.get() - cost);
    let records = records?;
    let rules = Rules {
        keyed: settings.compact,
        timestamps: earliest..=latest,
    };
    let mut refused = check::records(batch, &records, &rules)?;
    if refused.is_empty() && late {
        // The header says what none of the records does; retention and time indexes would believe it.
        refused.push(Error::Timestamp {
            index: 0,
            timestamp: batch.max_timestamp(),
        });
    }
    if !refused.is_empty() {
        return Err(unfit(&refused));
    }
    Ok(target.map(|target| {
        Bytes::from(rewrite::repacked(
            batch,
            &records,
            settings.levels.of(target),
        ))
    }))
}

fn unfit(refused: &[Error]) -> Unfit {
    let records = refused.iter().filter_map(|error| match error {
        Error::NoKey { index } | Error::Timestamp { index, .. } => {
            Some((*index, error.to_string()))
        }
        _ => None,
    });
    let timestamps = refused
        .iter()
        .all(|error| matches!(error, Error::Timestamp { .. }));
    let (code, why) = match timestamps {
        true => (
            ErrorCode::InvalidTimestamp,
            "One or more records have been rejected due to invalid timestamp",
        ),
        false => (
            ErrorCode::InvalidRecord,
            "One or more records have been rejected",
        ),
    };
    Unfit {
        code,
        why: why.to_owned(),
        records: records.collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka::compress::Compression;
    use kafka::record::{BatchBuilder, NewRecord};

    use super::*;
    use crate::topic::config::{Base, Overrides};

    const NOW: i64 = 1_700_000_000_000;

    fn settings(own: &[(&str, &str)]) -> Settings {
        let own = own.iter().map(|(name, value)| {
            let name: String = (*name).into();
            (name, (*value).into())
        });
        Base::default().settings(&own.collect::<Overrides>())
    }

    fn batch(codec: Compression, records: &[(Option<&str>, i64)]) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        for (key, timestamp) in records {
            builder.push(NewRecord {
                timestamp: *timestamp,
                key: key.map(str::as_bytes),
                value: Some(b"value"),
                headers: &[],
            });
        }
        builder.build()
    }

    #[track_caller]
    fn check(own: &[(&str, &str)], bytes: &Bytes) -> Result<Option<Bytes>, Unfit> {
        let (batch, _) = Batch::split_first(bytes).expect("whole");
        let left = Cell::new(INFLATED_REQUEST_MAX);
        examine(&settings(own), &batch, NOW, &left)
    }

    #[test]
    fn a_plain_topic_stores_what_comes() {
        for codec in Compression::ALL {
            let bytes = batch(codec, &[(None, NOW), (None, NO_TIMESTAMP)]);
            assert_eq!(check(&[], &bytes), Ok(None));
            let same = if codec == Compression::None {
                "uncompressed"
            } else {
                codec.name()
            };
            assert_eq!(check(&[("compression.type", same)], &bytes), Ok(None));
        }
    }

    #[test]
    fn a_topic_compresses_as_it_says() {
        for codec in Compression::ALL {
            let bytes = batch(codec, &[(Some("k"), NOW)]);
            for (name, target) in [
                ("uncompressed", Compression::None),
                ("gzip", Compression::Gzip),
                ("snappy", Compression::Snappy),
                ("lz4", Compression::Lz4),
                ("zstd", Compression::Zstd),
            ] {
                let stored = check(&[("compression.type", name)], &bytes).expect("fine");
                let stored = stored.unwrap_or(bytes.clone());
                let (batch, _) = Batch::split_first(&stored).expect("whole");
                batch.verify().expect("a good checksum");
                assert_eq!(batch.compression().expect("known"), target);
                let records = Records::read(&batch, 1000).expect("inflates");
                let record = records.iter().next().expect("one").expect("readable");
                assert_eq!((record.key, record.timestamp), (Some(&b"k"[..]), NOW));
            }
        }
    }

    #[test]
    fn compacted_topics_name_each_record_without_a_key() {
        let own = [("cleanup.policy", "compact")];
        let bytes = batch(
            Compression::Zstd,
            &[(Some("a"), NOW), (None, NOW), (Some("b"), NOW), (None, NOW)],
        );
        let unfit = check(&own, &bytes).expect_err("no keys");
        assert_eq!(unfit.code, ErrorCode::InvalidRecord);
        let blamed: Vec<i32> = unfit.records.iter().map(|(index, _)| *index).collect();
        assert_eq!(blamed, [1, 3]);
        let bytes = batch(Compression::Zstd, &[(Some("a"), NOW)]);
        assert_eq!(check(&own, &bytes), Ok(None));
    }

    #[test]
    fn timestamps_are_bounded_for_each_record() {
        let hour = 3_600_000;
        let late = batch(Compression::None, &[(None, NOW), (None, NOW + hour + 1)]);
        let unfit = check(&[], &late).expect_err("in the future");
        assert_eq!(unfit.code, ErrorCode::InvalidTimestamp);
        assert_eq!(unfit.records[0].0, 1);
        let own = [("message.timestamp.type", "LogAppendTime")];
        assert_eq!(check(&own, &late), Ok(None));
        let own = [("message.timestamp.before.max.ms", "1000")];
        let early = batch(Compression::Lz4, &[(None, NOW - 1001), (None, NOW)]);
        let unfit = check(&own, &early).expect_err("in the past");
        assert_eq!(
            (unfit.code, unfit.records[0].0),
            (ErrorCode::InvalidTimestamp, 0)
        );
        let fine = batch(
            Compression::Lz4,
            &[(None, NOW - 1000), (None, NO_TIMESTAMP)],
        );
        assert_eq!(check(&own, &fine), Ok(None));
    }

    #[test]
    fn all_bombs_of_a_request_share_one_bound() {
        let zeros = "0".repeat(1 << 20);
        let bytes = batch(Compression::Zstd, &[(Some(&zeros), NOW)]);
        let (bomb, _) = Batch::split_first(&bytes).expect("whole");
        let own = settings(&[("cleanup.policy", "compact")]);
        let left = Cell::new(3 << 20);
        let taken = |left| examine(&own, &bomb, NOW, left).map_err(|unfit| unfit.code);
        assert_eq!(taken(&left), Ok(None));
        assert_eq!(taken(&left), Ok(None));
        assert_eq!(taken(&left), Err(ErrorCode::InvalidRecord));
        assert_eq!(left.get(), 0);
        assert_eq!(taken(&left), Err(ErrorCode::InvalidRecord));
        // One that need not be looked into is no matter.
        assert_eq!(examine(&settings(&[]), &bomb, NOW, &left), Ok(None));
    }

    #[test]
    fn what_does_not_inflate_is_refused_where_it_is_looked_into() {
        let mut bytes = batch(Compression::Gzip, &[(Some("k"), NOW)]).to_vec();
        bytes[61] ^= 0xff;
        let bytes = Bytes::from(bytes);
        assert_eq!(check(&[], &bytes), Ok(None));
        let unfit = check(&[("compression.type", "zstd")], &bytes).expect_err("damaged");
        assert_eq!(unfit.code, ErrorCode::InvalidRecord);
    }
}
