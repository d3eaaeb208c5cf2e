//! One look at the partitions: what may go out is read, and given to the member.

use journal::ReadError;
use kafka::record::batches;
use kit::memory::Need;

use super::{
    Acquired, AcquiredRecords, Arc, Asked, ErrorCode, Fetched, Fetching, Millis, PartitionData,
    Place, Refusal, Reset, Told, Wish, error, refused, spawn_blocking,
};
use crate::partition::{Isolation, Partition};
use crate::share::partitions::Shared;

/// What is read of a partition at first; more only when it holds fewer records than are wanted.
const BYTES_AT_FIRST: usize = 128 << 10;
/// How much more is read each time.
const BYTES_GROWTH: usize = 4;
/// Reads that may take more than this go to a thread that may wait for the disk.
const BYTES_READ_AT_ONCE: usize = 256 << 10;

/// A partition that may be read now.
struct Begun {
    place: Place,
    fetching: Fetching,
    /// Up to where.
    readable: i64,
}

impl Asked {
    /// Reads once. Without `late`, less than the member wants at least is as good as nothing.
    pub(super) async fn try_read(
        &self,
        found: &[(Place, Arc<Shared>, Arc<Partition>)],
        late: bool,
    ) -> Told {
        let core = self.call.core();
        let mut told = Vec::new();
        let mut begun = Vec::new();
        let isolation = match self.settings.read_committed {
            true => Isolation::ReadCommitted,
            false => Isolation::ReadUncommitted,
        };
        for (place, shared, partition) in found {
            match self.begin(shared, partition).await {
                Ok(None) => (),
                Ok(Some(fetching)) => begun.push(Begun {
                    place: *place,
                    readable: partition.readable(isolation),
                    fetching,
                }),
                Err(refusal) => told.push((*place, refused(place.1, code_of(refusal)))),
            }
        }
        if begun.is_empty() {
            return (told, None);
        }
        let share = self.bytes_max / begun.len();
        let expected: usize = begun
            .iter()
            .filter(|one| one.readable > one.fetching.from)
            .map(|one| {
                share.min(usize::try_from(one.fetching.partition.size()).unwrap_or(usize::MAX))
            })
            .fold(0, usize::saturating_add)
            .min(self.bytes_max);
        let mut memory = core.memory.share();
        // More only if nobody has to wait for it.
        let least = expected.min(BYTES_AT_FIRST).min(core.memory.due_max());
        if !memory.try_grow(least, expected) {
            memory.grow(least, Need::Ordinary).await;
        }
        let bytes_max = memory.bytes();
        let work = Work {
            asked: self.copy(),
            begun,
            share: share.max(1),
            bytes_max,
            least: if late { 0 } else { self.bytes_min },
        };
        let read = match expected <= BYTES_READ_AT_ONCE {
            true => work.run(),
            false => {
                let reading = spawn_blocking(move || work.run());
                reading.await.unwrap_or_else(|cause| {
                    error!(error = %cause, "could not read");
                    Vec::new()
                })
            }
        };
        told.extend(read);
        let used: usize = told.iter().map(|(_, data)| data.records.len()).sum();
        memory.insist(used);
        memory.shrink(used);
        (told, Some(memory))
    }

    async fn begin(
        &self,
        shared: &Arc<Shared>,
        partition: &Arc<Partition>,
    ) -> Result<Option<Fetching>, Refusal> {
        let shares = &self.call.core().shares;
        let by_time = matches!(self.settings.reset, Reset::ByDuration(_));
        if !by_time || shared.is_resolved() {
            return shares.begin_fetch(shared, partition, &self.settings);
        }
        let (shares, shared, partition) = (shares.clone(), shared.clone(), partition.clone());
        let settings = self.settings.clone();
        let looking = spawn_blocking(move || shares.begin_fetch(&shared, &partition, &settings));
        looking.await.unwrap_or(Err(Refusal::NotStored))
    }

    fn copy(&self) -> Asked {
        Asked {
            call: self.call.clone(),
            member: self.member.clone(),
            settings: self.settings.clone(),
            ..*self
        }
    }
}

/// Everything that one look needs, so that it can go to another thread.
struct Work {
    asked: Asked,
    begun: Vec<Begun>,
    /// Bytes for each partition, and for all together.
    share: usize,
    bytes_max: usize,
    /// Bytes below which nothing is given out.
    least: usize,
}

type Found = Result<(bytes::Bytes, Fetched), ErrorCode>;

impl Work {
    fn run(self) -> Vec<(Place, PartitionData)> {
        let asked = &self.asked;
        let mut left = self.bytes_max;
        let mut look = |begun: &Begun, records: i64| {
            if records <= 0 || begun.fetching.from >= begun.readable {
                return Ok((bytes::Bytes::new(), Fetched::default()));
            }
            let found = read(
                begun,
                self.share.min(left),
                records,
                asked.settings.read_committed,
            );
            if let Ok((bytes, _)) = &found {
                left = left.saturating_sub(bytes.len());
            }
            found
        };
        let mut known: Vec<Option<Found>> = self.begun.iter().map(|_| None).collect();
        if self.least > 1 {
            let mut total = 0;
            for (begun, known) in self.begun.iter().zip(&mut known) {
                let found = look(begun, asked.records_max);
                total += found.as_ref().map_or(self.least, |(bytes, _)| bytes.len());
                *known = Some(found);
            }
            if total < self.least {
                return Vec::new();
            }
        }
        let mut records_left = asked.records_max;
        let mut told = Vec::with_capacity(self.begun.len());
        for (begun, known) in self.begun.iter().zip(known) {
            let found = known.unwrap_or_else(|| look(begun, records_left));
            let data = match found.and_then(|found| asked.give(begun, found, records_left)) {
                Err(code) => refused(begun.place.1, code),
                Ok(data) => data,
            };
            let given = data.acquired_records.iter();
            let given = given.map(|range| range.last_offset - range.first_offset + 1);
            records_left -= given.sum::<i64>();
            told.push((begun.place, data));
        }
        told
    }
}

impl Asked {
    /// Gives the member what it may have of what was read.
    fn give(
        &self,
        begun: &Begun,
        (bytes, fetched): (bytes::Bytes, Fetched),
        records_max: i64,
    ) -> Result<PartitionData, ErrorCode> {
        let shares = &self.call.core().shares;
        let wish = self.wish(records_max);
        let acquired = shares.acquire(&begun.fetching, &wish, &fetched);
        let acquired = acquired.map_err(code_of)?;
        let records = slice(&bytes, &fetched, &acquired);
        count(self, begun.place, &records, &acquired);
        Ok(PartitionData {
            partition_index: begun.place.1,
            records,
            acquired_records: acquired.iter().map(range).collect(),
            ..PartitionData::default()
        })
    }

    fn wish(&self, records_max: i64) -> Wish {
        let now = self.call.core().shares.now();
        Wish {
            member: self.member.clone(),
            mode: self.mode,
            batch_size: self.batch_size,
            records_max,
            until: now + Millis::from(self.settings.lock_ms),
            limits: (&self.settings).into(),
        }
    }
}

fn count(asked: &Asked, (topic, _): Place, bytes: &bytes::Bytes, acquired: &[Acquired]) {
    if acquired.is_empty() {
        return;
    }
    if let Some(topic) = asked.call.core().topics.by_id(topic) {
        let records: i64 = acquired
            .iter()
            .map(|range| range.last - range.first + 1)
            .sum();
        let records = i32::try_from(records).unwrap_or(i32::MAX);
        topic.counters.fetched(bytes.len(), records);
    }
}

fn range(range: &Acquired) -> AcquiredRecords {
    AcquiredRecords {
        first_offset: range.first,
        last_offset: range.last,
        delivery_count: i16::try_from(range.deliveries).unwrap_or(i16::MAX),
    }
}

/// The whole mapping from the share partitions' refusals to Kafka's errors, but for acknowledgements.
fn code_of(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::Unknown => ErrorCode::UnknownTopicOrPartition,
        Refusal::NotStored => ErrorCode::KafkaStorageError,
        Refusal::RecordState => ErrorCode::InvalidRecordState,
        Refusal::Past => ErrorCode::InvalidRequest,
    }
}

/// Reads on until there are as many records as are wanted, or as many bytes as may be.
fn read(
    begun: &Begun,
    most: usize,
    records: i64,
    committed: bool,
) -> Result<(bytes::Bytes, Fetched), ErrorCode> {
    let partition = &begun.fetching.partition;
    if partition.is_gone() {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let from = begun.fetching.from;
    let mut chunk = most.min(BYTES_AT_FIRST);
    loop {
        let slice = match partition.read_up_to(from, chunk, true, begun.readable) {
            Ok(slice) => slice,
            // The log begins later now, or ends before; the next look knows.
            Err(ReadError::OutOfRange { .. }) => {
                break Ok((bytes::Bytes::new(), Fetched::default()));
            }
            Err(ReadError::Damaged { from, to }) => {
                error!(topic = %partition.topic, partition = partition.index, from, to, "records are damaged on disk");
                break Err(ErrorCode::CorruptMessage);
            }
            Err(ReadError::Disk(cause)) => {
                error!(topic = %partition.topic, partition = partition.index, error = %cause, "could not read");
                break Err(ErrorCode::KafkaStorageError);
            }
        };
        let more = chunk < most && slice.next_offset < begun.readable;
        if more && slice.next_offset - from < records {
            chunk = chunk.saturating_mul(BYTES_GROWTH).min(most);
            continue;
        }
        let fetched = look_into(partition, from, &slice.bytes, slice.next_offset, committed)?;
        break Ok((slice.bytes, fetched));
    }
}

/// Finds the batches, and those that nobody may see.
fn look_into(
    partition: &Partition,
    from: i64,
    bytes: &[u8],
    next_offset: i64,
    committed: bool,
) -> Result<Fetched, ErrorCode> {
    let mut fetched = Fetched {
        from,
        ..Fetched::default()
    };
    let aborted = match committed && !bytes.is_empty() {
        true => partition
            .aborted(from, next_offset)
            .map_err(|_| ErrorCode::KafkaStorageError)?,
        false => Vec::new(),
    };
    for batch in batches(bytes) {
        let batch = batch.map_err(|_| ErrorCode::CorruptMessage)?;
        let range = (batch.base_offset(), batch.last_offset());
        fetched.batches.push(range);
        let is_aborted = batch.transactional()
            && !batch.control()
            && aborted.iter().any(|aborted| {
                aborted.producer_id == batch.producer_id()
                    && (aborted.first_offset..aborted.last_offset).contains(&range.0)
            });
        if is_aborted {
            fetched.aborted.push(range);
        }
    }
    Ok(fetched)
}

/// Returns the batches that hold what the member has got.
fn slice(bytes: &bytes::Bytes, fetched: &Fetched, acquired: &[Acquired]) -> bytes::Bytes {
    let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else {
        return bytes::Bytes::new();
    };
    let wanted = |(base, end): &(i64, i64)| *end >= first.first && *base <= last.last;
    let mut at = 0;
    let mut part = None;
    for (batch, range) in batches(bytes).flatten().zip(&fetched.batches) {
        let upto = at + batch.size();
        if wanted(range) {
            let (begin, _) = part.unwrap_or((at, upto));
            part = Some((begin, upto));
        }
        at = upto;
    }
    part.map_or_else(bytes::Bytes::new, |(begin, upto)| bytes.slice(begin..upto))
}
