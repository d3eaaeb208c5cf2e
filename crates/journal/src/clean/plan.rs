//! Which part of a log is dirty, and which segments become one.

use super::Dirt;
use crate::config::Compaction;

/// Kafka keeps offsets relative to a segment's base in signed 32-bit numbers.
const RELATIVE_MAX: i64 = i32::MAX as i64;

/// A segment, as far as the plan needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) base: i64,
    /// Base offset of the next one.
    pub(super) end: i64,
    pub(super) size: u64,
    /// Bytes of its largest index.
    pub(super) index_bytes: u64,
    /// Timestamp of its first batch, or -1.
    pub(super) first: i64,
    /// Its latest timestamp.
    pub(super) latest: i64,
    /// It is to be left as it is.
    pub(super) excluded: bool,
}

/// Tells what is dirty between `from` and `limit`, in all segments but the newest.
pub(super) fn dirt(spans: &[Span], from: i64, limit: i64, settings: &Compaction, now: i64) -> Dirt {
    let from = spans.first().map_or(from, |first| from.max(first.base));
    let young = |span: &Span| {
        settings.lag_min_ms > 0 && span.latest > now.saturating_sub(settings.lag_min_ms)
    };
    let dirty = || spans.iter().filter(|span| span.end > from);
    // Whole segments only: one that holds the limit stays as it is.
    let blocked = dirty().find(|span| span.end > limit || young(span));
    let last = spans.last().map_or(from, |last| last.end);
    let to = blocked.map_or(last, |span| span.base).max(from);
    let clean = spans.iter().filter(|span| span.end <= from);
    let oldest = dirty().map(|span| span.first).filter(|first| *first > 0);
    let until = now.saturating_sub(settings.lag_max_ms.max(0));
    Dirt {
        from,
        to,
        clean_bytes: clean.map(|span| span.size).sum(),
        dirty_bytes: dirty()
            .filter(|span| span.end <= to)
            .map(|span| span.size)
            .sum(),
        overdue: oldest.min().is_some_and(|oldest| oldest < until),
    }
}

/// Divides the segments before `end` into groups, each of which becomes one segment within the limits.
/// Returns the numbers of their segments.
pub(super) fn groups(
    spans: &[Span],
    end: i64,
    segment_bytes: u64,
    index_bytes: u64,
) -> Vec<std::ops::Range<usize>> {
    let mut groups = Vec::new();
    let mut open: Option<(usize, u64, u64)> = None;
    for (number, span) in spans.iter().enumerate() {
        if span.base >= end {
            break;
        }
        if span.excluded {
            groups.extend(open.take().map(|(first, ..)| first..number));
            continue;
        }
        let joined = open.filter(|(first, size, index)| {
            size + span.size <= segment_bytes
                && index + span.index_bytes <= index_bytes
                && span.end - spans[*first].base <= RELATIVE_MAX
        });
        open = Some(match joined {
            Some((first, size, index)) => (first, size + span.size, index + span.index_bytes),
            None => {
                groups.extend(open.map(|(first, ..)| first..number));
                (number, span.size, span.index_bytes)
            }
        });
    }
    let last = spans.iter().take_while(|span| span.base < end).count();
    groups.extend(open.map(|(first, ..)| first..last));
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Segments of ten offsets and so many bytes, each a second younger than the one before.
    fn spans(sizes: &[u64]) -> Vec<Span> {
        (0..)
            .zip(sizes)
            .map(|(number, size)| Span {
                base: number * 10,
                end: number * 10 + 10,
                size: *size,
                index_bytes: 8,
                first: 1000 * number + 1,
                latest: 1000 * number + 900,
                excluded: false,
            })
            .collect()
    }

    #[track_caller]
    fn check(from: i64, limit: i64, settings: Compaction, expected: (i64, i64, u64, u64, bool)) {
        let dirt = dirt(&spans(&[1, 2, 4, 8]), from, limit, &settings, 10_000);
        let told = (
            dirt.from,
            dirt.to,
            dirt.clean_bytes,
            dirt.dirty_bytes,
            dirt.overdue,
        );
        assert_eq!(told, expected);
    }

    #[test]
    fn all_but_the_newest_segment_is_dirty_at_first() {
        let kafka = Compaction::default();
        check(0, 40, kafka, (0, 40, 0, 15, false));
        check(20, 40, kafka, (20, 40, 3, 12, false));
        check(40, 40, kafka, (40, 40, 15, 0, false));
        // From the middle of a segment: it is dirty as a whole.
        check(25, 40, kafka, (25, 40, 3, 12, false));
    }

    #[test]
    fn what_is_undecided_or_young_stays_with_its_segment() {
        let kafka = Compaction::default();
        check(0, 35, kafka, (0, 30, 0, 7, false));
        check(0, 30, kafka, (0, 30, 0, 7, false));
        check(0, 5, kafka, (0, 0, 0, 0, false));
        let lag = |lag_min_ms| Compaction {
            lag_min_ms,
            ..kafka
        };
        check(0, 40, lag(7_100), (0, 30, 0, 7, false));
        check(0, 40, lag(8_100), (0, 20, 0, 3, false));
        check(0, 40, lag(1), (0, 40, 0, 15, false));
    }

    #[test]
    fn old_records_do_not_wait() {
        let lag = |lag_max_ms| Compaction {
            lag_max_ms,
            ..Compaction::default()
        };
        check(0, 40, lag(9_000), (0, 40, 0, 15, true));
        check(0, 40, lag(10_000), (0, 40, 0, 15, false));
        check(20, 40, lag(9_000), (20, 40, 3, 12, false));
        let dirt = dirt(&spans(&[1, 1]), 10, 20, &lag(1), 10_000);
        assert!(dirt.due(&lag(1)) && dirt.ratio() == 0.5);
        assert!(
            !Dirt {
                overdue: false,
                ..dirt
            }
            .due(&lag(1))
        );
    }

    #[test]
    fn small_segments_become_one() {
        let all = spans(&[5, 5, 5, 100, 1, 1]);
        assert_eq!(groups(&all, 60, 10, 1000), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(groups(&all, 41, 10, 1000), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(groups(&all, 60, 1000, 16), [0..2, 2..4, 4..6]);
        assert_eq!(groups(&all, 0, 10, 1000), []);
        let mut damaged = all;
        damaged[1].excluded = true;
        assert_eq!(groups(&damaged, 60, 1000, 1000), [0..1, 2..6]);
    }

    proptest! {
        #[test]
        fn groups_keep_the_order_and_the_limits(
            sizes in proptest::collection::vec((0..50u64, prop::bool::weighted(0.1)), 0..40),
            end in 0..500i64,
            limit in 1..100u64,
        ) {
            let mut all = spans(&sizes.iter().map(|(size, _)| *size).collect::<Vec<_>>());
            for (span, (_, excluded)) in all.iter_mut().zip(&sizes) {
                span.excluded = *excluded;
            }
            let groups = groups(&all, end, limit, u64::MAX);
            let taken: Vec<usize> = groups.iter().cloned().flatten().collect();
            let wanted: Vec<usize> = (0..all.len())
                .filter(|number| all[*number].base < end && !all[*number].excluded)
                .collect();
            prop_assert_eq!(taken, wanted);
            for group in groups {
                let size: u64 = all[group.clone()].iter().map(|span| span.size).sum();
                prop_assert!(size <= limit || group.len() == 1);
            }
        }
    }
}
