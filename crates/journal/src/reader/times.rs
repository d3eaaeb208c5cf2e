//! Finding records by their time.

use kafka::record::{self, Batch, NO_TIMESTAMP, Record, Records};

use super::{Failure, ReadError, Reader, Segments, skip};
use crate::index;
use crate::segment::{Place, Segment};

/// Most bytes that a batch may inflate to when a record in it is looked for by its timestamp.
const INFLATED_MAX: usize = 128 << 20;

/// A record found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Offset of the record.
    pub offset: i64,
    /// Its timestamp, in ms since 1970.
    pub timestamp: i64,
    /// Epoch of the leader that stored it.
    pub leader_epoch: i32,
}

impl Reader {
    /// Returns the first record before `up_to` whose timestamp is at or after `timestamp`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        up_to: i64,
    ) -> Result<Option<Found>, ReadError> {
        let start = self.shared.start();
        let mut walk = Segments::from(start);
        while let Some((segment, fences)) = walk.next(&self.shared) {
            if segment.max_timestamp().0 < timestamp {
                continue;
            }
            let entry = segment
                .times
                .last_before(|entry| index::read_time_entry(entry).0 < timestamp)?
                .map_or(0, |entry| index::read_time_entry(&entry).1);
            let mut from = start.max(segment.base() + i64::from(entry));
            loop {
                let place = segment.find(from, segment.size(), skip(&fences), |header| {
                    header.last_offset() >= from && header.max_timestamp() >= timestamp
                });
                let place = place.map_err(Failure::from);
                let Some(place) = self.placed(from, &segment, &fences, place)? else {
                    break;
                };
                if place.base_offset >= up_to {
                    return Ok(None);
                }
                let wanted =
                    |record: &Record<'_>| record.offset >= start && record.timestamp >= timestamp;
                match self.record(&segment, &place, wanted)? {
                    Some(found) => return Ok(Some(found).filter(|found| found.offset < up_to)),
                    None => from = place.last_offset + 1,
                }
            }
        }
        Ok(None)
    }

    /// Returns the record with the latest timestamp, the first of them if there are several.
    pub fn latest_by_timestamp(&self) -> Result<Option<Found>, ReadError> {
        let latest = {
            let state = self.shared.state();
            // `max_by_key` would take the last of equals.
            state
                .segments
                .iter()
                .rev()
                .max_by_key(|segment| segment.max_timestamp().0)
                .cloned()
        };
        let Some(segment) = latest else {
            return Ok(None);
        };
        let (timestamp, last_offset) = segment.max_timestamp();
        if timestamp == NO_TIMESTAMP {
            return Ok(None);
        }
        let fences = self.fences(segment.base());
        let place = segment.find(last_offset, segment.size(), skip(&fences), |header| {
            header.last_offset() >= last_offset
        });
        let place = place.map_err(Failure::from);
        let Some(place) = self.placed(last_offset, &segment, &fences, place)? else {
            return Ok(None);
        };
        self.record(&segment, &place, |record| record.timestamp >= timestamp)
    }

    /// Finds a record within one batch; a batch that does not inflate is answered for as a whole.
    fn record(
        &self,
        segment: &Segment,
        place: &Place,
        wanted: impl Fn(&Record<'_>) -> bool,
    ) -> Result<Option<Found>, ReadError> {
        let bytes = self.checked(
            place.base_offset,
            segment.read(place).map_err(Failure::Disk),
        )?;
        let read = || -> Result<Option<Found>, record::Error> {
            let (batch, _) = Batch::split_first(&bytes)?;
            let leader_epoch = batch.leader_epoch();
            for record in &Records::read(&batch, INFLATED_MAX)? {
                let record = record?;
                if wanted(&record) {
                    let Record {
                        offset, timestamp, ..
                    } = record;
                    return Ok(Some(Found {
                        offset,
                        timestamp,
                        leader_epoch,
                    }));
                }
            }
            Ok(None)
        };
        Ok(read().unwrap_or(Some(Found {
            offset: place.base_offset,
            timestamp: place.max_timestamp,
            leader_epoch: self.epoch_at(place.base_offset).unwrap_or(-1),
        })))
    }
}
