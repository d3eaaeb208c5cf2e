//! Which record may go next, and how far each partition is done. Plain state: no I/O, no clock.
//!
//! Records that must keep their order share a *lane*; a lane sends one record at a time. A partition's progress is the
//! first offset that is not done: `committable ≤ every record that waits or is under way`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use model::subscribe::OrderBy;

/// One record on its way to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<(String, Option<Bytes>)>,
    /// Which assignment of its partition it was fetched under; [`Lanes::offer`] sets it.
    pub(super) assignment: u64,
}

impl Record {
    fn bytes(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len));
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + headers.sum::<usize>()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Partition(i32),
    Key(i32, Bytes),
}

/// The records of one subscription that have been fetched and are not done.
#[derive(Debug)]
pub(super) struct Lanes {
    order: OrderBy,
    in_flight_max: usize,
    in_flight: usize,
    /// May go at once.
    ready: VecDeque<Record>,
    /// Wait behind the record of their lane that is ready or under way.
    behind: HashMap<Lane, VecDeque<Record>>,
    partitions: BTreeMap<i32, Progress>,
    /// Assignments of partitions so far.
    assignments: u64,
    waiting_bytes: usize,
}

/// `committed ≤ first open offset ≤ next`
#[derive(Debug, Default)]
struct Progress {
    assignment: u64,
    /// Fetched and not done.
    open: BTreeSet<i64>,
    /// One above the last fetched offset.
    next: i64,
    /// What the group was last told.
    committed: Option<i64>,
}

impl Progress {
    fn committable(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

impl Lanes {
    pub(super) fn new(order: OrderBy, in_flight_max: usize) -> Self {
        Lanes {
            order,
            in_flight_max: in_flight_max.max(1),
            in_flight: 0,
            ready: VecDeque::new(),
            behind: HashMap::new(),
            partitions: BTreeMap::new(),
            assignments: 0,
            waiting_bytes: 0,
        }
    }

    /// Takes a fetched record. One that is already open, as after a rebalance that changed nothing, is passed over.
    pub(super) fn offer(&mut self, mut record: Record) {
        let progress = self.partitions.entry(record.partition).or_insert_with(|| {
            self.assignments += 1;
            Progress {
                assignment: self.assignments,
                ..Progress::default()
            }
        });
        record.assignment = progress.assignment;
        if !progress.open.insert(record.offset) {
            return;
        }
        progress.next = progress.next.max(record.offset + 1);
        self.waiting_bytes += record.bytes();
        match self.lane(&record) {
            None => self.ready.push_back(record),
            Some(lane) => match self.behind.get_mut(&lane) {
                Some(queue) => queue.push_back(record),
                None => {
                    self.behind.insert(lane, VecDeque::new());
                    self.ready.push_back(record);
                }
            },
        }
    }

    /// Returns a record to send now. The caller tells of its end by [`Lanes::done`].
    pub(super) fn next(&mut self) -> Option<Record> {
        if self.in_flight == self.in_flight_max {
            return None;
        }
        let record = self.ready.pop_front()?;
        self.in_flight += 1;
        self.waiting_bytes -= record.bytes();
        Some(record)
    }

    /// Marks a record as done, and lets the next of its lane go. Records of partitions that were taken away count only
    /// as no longer under way.
    pub(super) fn done(&mut self, record: &Record) {
        self.in_flight -= 1;
        let Some(progress) = self.partitions.get_mut(&record.partition) else {
            return;
        };
        if progress.assignment != record.assignment || !progress.open.remove(&record.offset) {
            return;
        }
        let Some(lane) = self.lane(record) else {
            return;
        };
        match self.behind.get_mut(&lane).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push_back(next),
            None => _ = self.behind.remove(&lane),
        }
    }

    /// Forgets a partition that was taken away: what waits is dropped, what is under way no longer moves progress.
    pub(super) fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        let of_it = |record: &Record| record.partition == partition;
        let dropped = self
            .ready
            .iter()
            .chain(self.behind.values().flatten())
            .filter(|record| of_it(record));
        self.waiting_bytes -= dropped.map(Record::bytes).sum::<usize>();
        self.ready.retain(|record| !of_it(record));
        self.behind.retain(|lane, _| match lane {
            Lane::Partition(p) | Lane::Key(p, _) => *p != partition,
        });
    }

    /// Returns what the group should be told, partition and next offset, where it changed since [`Lanes::committed`].
    pub(super) fn committable(&self) -> Vec<(i32, i64)> {
        let moved = |(partition, progress): (&i32, &Progress)| {
            let offset = progress.committable();
            (progress.committed != Some(offset)).then_some((*partition, offset))
        };
        self.partitions.iter().filter_map(moved).collect()
    }

    /// Notes what the group was told.
    pub(super) fn committed(&mut self, offsets: &[(i32, i64)]) {
        for (partition, offset) in offsets {
            if let Some(progress) = self.partitions.get_mut(partition) {
                progress.committed = Some(*offset);
            }
        }
    }

    /// Returns how far the window between what is committed and what was fetched is open, in records, and how many bytes wait.
    pub(super) fn load(&self) -> (usize, usize) {
        let window = |progress: &Progress| (progress.next - progress.committable()).max(0) as usize;
        (
            self.partitions.values().map(window).sum(),
            self.waiting_bytes,
        )
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn lane(&self, record: &Record) -> Option<Lane> {
        match self.order {
            OrderBy::None => None,
            OrderBy::Partition => Some(Lane::Partition(record.partition)),
            // A record without a key has no order to keep.
            OrderBy::Key => record
                .key
                .clone()
                .map(|key| Lane::Key(record.partition, key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64, key: &str) -> Record {
        let key = (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes()));
        // The tests' first assignment of a partition is the partition's number plus one.
        let assignment = partition as u64 + 1;
        Record {
            partition,
            offset,
            timestamp_ms: 0,
            key,
            value: None,
            headers: Vec::new(),
            assignment,
        }
    }

    fn offsets(lanes: &mut Lanes) -> Vec<i64> {
        std::iter::from_fn(|| lanes.next())
            .map(|record| record.offset)
            .collect()
    }

    #[test]
    fn records_of_one_key_go_one_after_the_other() {
        let mut lanes = Lanes::new(OrderBy::Key, 10);
        for (offset, key) in [(0, "a"), (1, "a"), (2, "b"), (3, ""), (4, "")] {
            lanes.offer(record(0, offset, key));
        }
        assert_eq!(offsets(&mut lanes), [0, 2, 3, 4]);
        lanes.done(&record(0, 0, "a"));
        assert_eq!(offsets(&mut lanes), [1]);
    }

    #[test]
    fn one_partition_can_be_one_lane() {
        let mut lanes = Lanes::new(OrderBy::Partition, 10);
        for (partition, offset) in [(0, 0), (0, 1), (1, 7)] {
            lanes.offer(record(partition, offset, ""));
        }
        assert_eq!(offsets(&mut lanes), [0, 7]);
    }

    #[test]
    fn no_more_go_at_once_than_allowed() {
        let mut lanes = Lanes::new(OrderBy::None, 2);
        (0..5).for_each(|offset| lanes.offer(record(0, offset, "")));
        assert_eq!(offsets(&mut lanes), [0, 1]);
        lanes.done(&record(0, 1, ""));
        assert_eq!(offsets(&mut lanes), [2]);
    }

    #[test]
    fn progress_stops_before_the_first_open_record() {
        let mut lanes = Lanes::new(OrderBy::None, 10);
        (5..8).for_each(|offset| lanes.offer(record(0, offset, "")));
        assert_eq!(offsets(&mut lanes), [5, 6, 7]);
        lanes.done(&record(0, 6, ""));
        assert_eq!(lanes.committable(), [(0, 5)]);
        lanes.committed(&[(0, 5)]);
        assert_eq!(lanes.committable(), []);
        assert_eq!(lanes.load().0, 3);
        lanes.done(&record(0, 5, ""));
        assert_eq!(lanes.committable(), [(0, 7)]);
        lanes.done(&record(0, 7, ""));
        assert_eq!(lanes.committable(), [(0, 8)]);
    }

    #[test]
    fn a_revoked_partition_is_forgotten() {
        let mut lanes = Lanes::new(OrderBy::Key, 10);
        for (partition, offset) in [(0, 0), (0, 1), (1, 0)] {
            lanes.offer(record(partition, offset, "k"));
        }
        let first = lanes.next().unwrap();
        lanes.revoke(0);
        assert_eq!(offsets(&mut lanes), [0], "partition 1 goes on");
        assert_eq!(lanes.committable(), [(1, 0)]);
        assert_eq!((lanes.load().1, lanes.in_flight()), (0, 2));
        // It comes back with the record that was under way; the end of the first try no longer counts.
        lanes.offer(record(0, 0, "k"));
        assert_eq!(offsets(&mut lanes), [0]);
        lanes.done(&first);
        assert_eq!(lanes.committable(), [(0, 0), (1, 0)]);
    }
}
