//! Places in a log as people name them: `beginning`, `end`, an offset, so many before the end, a time.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use anyhow::Context;
use jiff::Timestamp;
use krafka::KrafkaError;
use krafka::admin::{AdminClient, ListOffsetsOptions, OffsetSpec};
use krafka::error::ErrorCode;

use crate::client::{Partition, Told, now_ms};

/// A place in each of some partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The oldest record that is kept.
    Beginning,
    /// Behind the newest record.
    End,
    /// An offset.
    Offset(i64),
    /// So many offsets before the end.
    BeforeEnd(i64),
    /// The first record that is not older than this, in milliseconds since 1970.
    Time(i64),
}

/// How a place may be written, for error messages.
pub(crate) const FORMS: &str = "`beginning`, `end`, an offset (`42`), so many before the end (`-10`), a time \
     (`2026-11-23T10:00:00Z`, `@` and milliseconds since 1970) or how long ago (`15m`)";

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("`{text}` is none of: {FORMS}");
        match text {
            "beginning" | "earliest" | "start" => return Ok(Place::Beginning),
            "end" | "latest" => return Ok(Place::End),
            _ => (),
        }
        if let Some(ms) = text.strip_prefix('@') {
            let ms: u64 = ms.parse().map_err(|_| wrong())?;
            return i64::try_from(ms).map(Place::Time).map_err(|_| wrong());
        }
        if let Ok(number) = text.parse::<i64>() {
            return Ok(match number {
                0.. => Place::Offset(number),
                _ => Place::BeforeEnd(number.saturating_neg()),
            });
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Place::Time(time.as_millisecond().max(0)));
        }
        let ago = kit::human::duration(text).map_err(|_| wrong())?;
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        Ok(Place::Time(now_ms().saturating_sub(ago).max(0)))
    }
}

/// The first and the next offset of a partition: `start ≤ end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// Returns the first and the next offset of each partition.
pub(crate) async fn spans(
    admin: &AdminClient,
    partitions: &[Partition],
    committed_only: bool,
) -> anyhow::Result<BTreeMap<Partition, Span>> {
    let starts = look(admin, partitions, OffsetSpec::Earliest, committed_only).await?;
    let ends = look(admin, partitions, OffsetSpec::Latest, committed_only).await?;
    let mut spans = BTreeMap::new();
    for partition in partitions {
        let both = starts.get(partition).zip(ends.get(partition));
        let (start, end) = both.context("the broker told no offsets of a partition")?;
        let span = Span {
            start: *start,
            end: *end,
        };
        spans.insert(partition.clone(), span);
    }
    Ok(spans)
}

/// Returns the offset of a place in each partition, within what the partition holds.
pub(crate) async fn resolve(
    admin: &AdminClient,
    partitions: &[Partition],
    place: Place,
) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let spans = spans(admin, partitions, false).await?;
    let found = match place {
        Place::Time(ms) => look(admin, partitions, OffsetSpec::Timestamp(ms), false).await?,
        _ => HashMap::new(),
    };
    let at = |(partition, span): (Partition, Span)| {
        let offset = within(span, place, found.get(&partition).copied());
        (partition, offset)
    };
    Ok(spans.into_iter().map(at).collect())
}

/// Returns the offset of a place. `found` is what the broker answered for a time, negative when no record is that new.
fn within(span: Span, place: Place, found: Option<i64>) -> i64 {
    let offset = match place {
        Place::Beginning => span.start,
        Place::End => span.end,
        Place::Offset(offset) => offset,
        Place::BeforeEnd(count) => span.end.saturating_sub(count),
        Place::Time(_) => found.filter(|offset| *offset >= 0).unwrap_or(span.end),
    };
    offset.max(span.start).min(span.end)
}

/// Returned for a time after the newest record.
const NO_OFFSET: i64 = -1;

/// Returns whether there is no such record. The client library makes an error of that answer, with the code of another one.
fn is_none(error: &KrafkaError) -> bool {
    matches!(error, KrafkaError::Broker { code, message }
        if *code == ErrorCode::OffsetNotAvailable && message.contains("no offset for this spec"))
}

async fn look(
    admin: &AdminClient,
    partitions: &[Partition],
    spec: OffsetSpec,
    committed_only: bool,
) -> anyhow::Result<HashMap<Partition, i64>> {
    let asked: Vec<_> = partitions.iter().map(|p| (p.wire(), spec)).collect();
    let options = ListOffsetsOptions::default().read_committed(committed_only);
    let mut offsets = HashMap::new();
    for (partition, found) in admin.list_offsets(asked, options).await.told()? {
        let partition = Partition::from(partition);
        let offset = match found {
            Ok(found) => found.offset,
            Err(error) if is_none(&error) => NO_OFFSET,
            Err(error) => {
                return Err(error)
                    .told()
                    .with_context(|| format!("partition {partition}"));
            }
        };
        offsets.insert(partition, offset);
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Place>();
        assert_eq!(read("beginning"), Ok(Place::Beginning));
        assert_eq!(read("latest"), Ok(Place::End));
        assert_eq!(read("42"), Ok(Place::Offset(42)));
        assert_eq!(read("-10"), Ok(Place::BeforeEnd(10)));
        assert_eq!(read("@1732355000123"), Ok(Place::Time(1_732_355_000_123)));
        assert_eq!(
            read("2024-11-23T09:43:20.123Z"),
            Ok(Place::Time(1_732_355_000_123))
        );
        let Ok(Place::Time(ms)) = read("15m") else {
            panic!("a duration is a time")
        };
        assert!((now_ms() - 15 * 60_000 - ms).abs() < 60_000);
        for wrong in ["", "soon", "@x", "@-1", "1.5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_is_always_within_the_partition() {
        let span = Span { start: 10, end: 20 };
        assert_eq!(within(span, Place::Offset(3), None), 10);
        assert_eq!(within(span, Place::Offset(15), None), 15);
        assert_eq!(within(span, Place::Offset(99), None), 20);
        assert_eq!(within(span, Place::BeforeEnd(4), None), 16);
        assert_eq!(within(span, Place::BeforeEnd(400), None), 10);
        assert_eq!(within(span, Place::Time(5), Some(-1)), 20);
        assert_eq!(within(span, Place::Time(5), Some(12)), 12);
    }
}
