//! What goes into the machine of a share partition and what comes out of it.

use std::sync::Arc;

use crate::group::settings::Share as Settings;

/// Milliseconds since 1970.
pub(crate) type Millis = i64;
/// Names a change that is on its way to the disk.
pub(crate) type Ticket = u64;

/// The start of a share partition that nobody has read from yet.
pub(crate) const UNKNOWN: i64 = -1;

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It may be delivered.
    Available,
    /// It was delivered, and stays with its member for a while.
    Acquired { member: Arc<str>, until: Millis },
    /// It was processed.
    Acknowledged,
    /// It is not delivered any more.
    Archived,
    /// The log holds no record at this offset.
    Missing,
}

impl State {
    /// True when the record is never delivered again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, State::Acknowledged | State::Archived | State::Missing)
    }
}

/// How many records a fetch takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whole batches, even if they hold more records than are wanted.
    Batches,
    /// No record more than is wanted.
    Records,
}

/// Who wants records, and how many.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub member: Arc<str>,
    pub mode: Mode,
    /// Records after which a new range begins in the answer.
    pub batch_size: i64,
    pub records_max: i64,
    /// When the records are given up for lost.
    pub until: Millis,
    pub limits: Limits,
}

/// What holds for all records of a share partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Deliveries of a record before it is given up.
    pub deliveries_max: i32,
    /// Records between the first that is not done and the last that was delivered.
    pub locks_max: i64,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        Self {
            deliveries_max: settings.deliveries_max,
            locks_max: i64::from(settings.locks_max),
        }
    }
}

/// What was read from the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fetched {
    /// The offset that was asked for.
    pub from: i64,
    /// First and last offset of each batch, in their order.
    pub batches: Vec<(i64, i64)>,
    /// Ranges of offsets that belong to aborted transactions and are not to be seen, in their order.
    pub aborted: Vec<(i64, i64)>,
}

/// Neighbouring records that a member has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acquired {
    pub first: i64,
    pub last: i64,
    /// Which delivery of these records it is, from 1 on.
    pub deliveries: i32,
}

/// What a member says of a record, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no record.
    Gap = 0,
    Accept = 1,
    Release = 2,
    Reject = 3,
    /// It needs more time.
    Renew = 4,
}

impl Verdict {
    pub(crate) fn from_number(number: i8) -> Option<Self> {
        Some(match number {
            0 => Verdict::Gap,
            1 => Verdict::Accept,
            2 => Verdict::Release,
            3 => Verdict::Reject,
            4 => Verdict::Renew,
            _ => return None,
        })
    }
}

/// What a member says of neighbouring records: one word for all, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub first: i64,
    pub last: i64,
    pub verdicts: Vec<Verdict>,
}

impl Said {
    /// Returns what is said of one of the offsets.
    pub(crate) fn of(&self, offset: i64) -> Option<Verdict> {
        match self.verdicts.as_slice() {
            [all] => Some(*all),
            each => {
                let index = usize::try_from(offset - self.first).ok()?;
                each.get(index).copied()
            }
        }
    }
}

/// Why what a member says of records is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the record is not with this member, or not any more")]
    RecordState,
    #[error("the offsets are past the records that were delivered")]
    Past,
    #[error("the group does not read this partition")]
    Unknown,
    #[error("the state of the records could not be stored")]
    NotStored,
}

/// A share partition as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The first record that is not done; [`UNKNOWN`] before the first fetch.
    pub start: i64,
    /// Records from the start on that are done; -1 while the start is not known.
    pub done: i32,
    /// Where something is known of records, in their order.
    pub ranges: Vec<Range>,
}

impl Snapshot {
    /// A share partition of which nothing was delivered yet.
    pub(crate) fn new(start: i64) -> Self {
        Self {
            start,
            done: if start == UNKNOWN { -1 } else { 0 },
            ranges: Vec::new(),
        }
    }
}

/// Neighbouring records of which the same is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub first: i64,
    pub last: i64,
    pub state: Kept,
    pub deliveries: i32,
}

/// What is kept of a [`State`], with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Available = 0,
    Acknowledged = 2,
    Archived = 4,
}

impl Kept {
    pub(crate) fn from_number(number: i8) -> Option<Self> {
        Some(match number {
            0 => Kept::Available,
            2 => Kept::Acknowledged,
            4 => Kept::Archived,
            _ => return None,
        })
    }
}
