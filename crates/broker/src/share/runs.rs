//! Neighbouring records in the same state, kept as one.

use super::terms::{State, Ticket};

/// Neighbouring records in the same state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub first: i64,
    pub last: i64,
    pub state: State,
    pub deliveries: i32,
    /// What they become once that is durable.
    pub pending: Option<(Ticket, State)>,
}

impl Run {
    pub(super) fn count(&self) -> i64 {
        self.last - self.first + 1
    }

    /// True when the records may be delivered now.
    pub(super) fn is_available(&self) -> bool {
        self.state == State::Available && self.pending.is_none()
    }

    /// True when the records are done and nothing is decided about them any more.
    pub(super) fn is_done(&self) -> bool {
        self.state.is_final() && self.pending.is_none()
    }

    /// Gives up a delivery: the records are delivered again, unless they were too often.
    pub(super) fn give_up(&mut self, deliveries_max: i32) {
        self.state = given_up(self.deliveries, deliveries_max);
        self.pending = None;
    }

    fn is_like(&self, other: &Run) -> bool {
        self.state == other.state
            && self.deliveries == other.deliveries
            && self.pending == other.pending
    }
}

/// What becomes of records that come back from a member.
pub(super) fn given_up(deliveries: i32, deliveries_max: i32) -> State {
    match deliveries >= deliveries_max {
        true => State::Archived,
        false => State::Available,
    }
}

/// Records that were delivered together the first time; their runs follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub last: i64,
    pub runs: Vec<Run>,
}

impl Batch {
    pub(super) fn new(first: i64, last: i64, state: State, deliveries: i32) -> Self {
        let run = Run {
            first,
            last,
            state,
            deliveries,
            pending: None,
        };
        Self {
            last,
            runs: vec![run],
        }
    }

    pub(super) fn count(&self) -> i64 {
        self.runs.iter().map(Run::count).sum()
    }

    /// Makes a run begin at `offset`, if one holds it.
    fn cut(&mut self, offset: i64) {
        let at = self
            .runs
            .iter()
            .position(|run| run.first < offset && offset <= run.last);
        if let Some(at) = at {
            let mut later = self.runs[at].clone();
            later.first = offset;
            self.runs[at].last = offset - 1;
            self.runs.insert(at + 1, later);
        }
    }

    /// Returns the runs of `first..=last`, cut so that they hold no other records.
    pub(super) fn within(&mut self, first: i64, last: i64) -> impl Iterator<Item = &mut Run> {
        self.cut(first);
        if let Some(next) = last.checked_add(1) {
            self.cut(next);
        }
        self.runs
            .iter_mut()
            .filter(move |run| run.first >= first && run.last <= last)
    }

    /// Joins neighbours that are alike.
    pub(super) fn join(&mut self) {
        self.runs.dedup_by(|later, earlier| {
            let alike = earlier.is_like(later);
            if alike {
                earlier.last = later.last;
            }
            alike
        });
    }

    /// Forgets everything before `offset`.
    pub(super) fn trim(&mut self, offset: i64) {
        self.cut(offset);
        self.runs.retain(|run| run.first >= offset);
    }
}
