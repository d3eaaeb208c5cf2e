//! A group that the broker assigns, as the coordinator holds it: the machine, what of it is on its way to the disk, and
//! the keys of its records there.
//!
//! The machine is ahead of the disk. Whatever it touches is queued at once, in the order of the changes, and nobody is
//! told of a change before it is durable: an answer that shows a change waits for all that is queued. What could not be
//! written stays touched, and goes out with the next change as it is then.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use kafka::wire::EncodeError;
use tokio::sync::oneshot;
use tracing::error;

use super::coordinator::{Coordinator, Groups, Held, Room};
use super::member::Millis;
use super::schema::Key;
use super::store::{Entry, Form, Records, Then};
use super::terms::Refusal;
use crate::ledger::Line;

/// A machine whose state is kept in records.
pub(super) trait Machine: Sized {
    /// One thing that is stored by itself.
    type Item: Ord + Debug;

    /// Returns the group of this kind, if it is one.
    fn of(held: &mut Held) -> Option<&mut Kept<Self>>;
    /// Names what was touched as what it is.
    fn named(items: BTreeSet<Self::Item>) -> Touched;
    /// Returns what has to be stored since the last call.
    fn take_touched(&mut self) -> BTreeSet<Self::Item>;
    /// Notes what has to be stored, or could not be.
    fn touch(&mut self, items: BTreeSet<Self::Item>);
    fn touched(&self) -> &BTreeSet<Self::Item>;
    /// Returns everything of which there may be a record.
    fn everything(&self) -> BTreeSet<Self::Item>;
    /// Returns the key and the value of a thing as it is now; no value when it is gone.
    fn record(&self, group_id: &str, item: &Self::Item) -> Result<Line, EncodeError>;
    /// The next moment at which time has to pass for the group.
    fn wakes_at(&self) -> Option<Millis>;
}

/// What of a group is on its way to the disk.
#[derive(Debug)]
pub(super) enum Touched {
    Streams(BTreeSet<super::streams::records::Item>),
}

/// A group with what is on disk of it.
#[derive(Debug)]
pub(super) struct Kept<G> {
    pub group: G,
    /// The keys of the group's records on disk.
    keys: BTreeSet<Bytes>,
    /// Changes that are on their way there.
    queued: usize,
    /// Whether the classic group that it was may still be on disk.
    replaces: bool,
}

/// Tells when a change is durable; nothing when there was none.
pub(crate) type Durable = Option<oneshot::Receiver<Result<(), Refusal>>>;

/// Waits until a change is durable.
pub(crate) async fn settled(durable: Durable) -> Result<(), Refusal> {
    match durable {
        Some(durable) => durable.await.unwrap_or(Err(Refusal::NotStored)),
        None => Ok(()),
    }
}

impl<G: Machine> Kept<G> {
    /// A new group, in the place of a classic one if there was one.
    pub(crate) fn new(group: G, replaces: bool) -> Self {
        Self {
            group,
            keys: BTreeSet::new(),
            queued: 0,
            replaces,
        }
    }

    /// A group as it was read.
    pub(crate) fn restored(group: G, keys: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            ..Self::new(group, false)
        }
    }

    /// Returns what has to be written for what was touched since the last time.
    fn take(&mut self, group_id: &str) -> Result<(BTreeSet<G::Item>, Records), Refusal> {
        let items = self.group.take_touched();
        let mut lines = Records::new();
        for item in &items {
            match self.group.record(group_id, item) {
                Ok(line) => lines.line(line),
                Err(cause) => {
                    error!(group = group_id, error = %cause, "a group's state cannot be written");
                    self.group.touch(items);
                    return Err(Refusal::NotStored);
                }
            }
        }
        Ok((items, lines))
    }

    /// Adds what deletes all of a group.
    pub(crate) fn bury(&self, group_id: &str, lines: &mut Records) -> Result<(), Refusal> {
        let mut keys = self.keys.clone();
        // Members that are gone were deleted as they went, but that may not be written yet.
        for item in self.group.touched().iter().chain(&self.group.everything()) {
            let line = self.group.record(group_id, item);
            keys.insert(line.map_err(|_| Refusal::NotStored)?.0);
        }
        for key in keys {
            lines.line((key, None));
        }
        Ok(())
    }
}

impl Groups {
    /// Returns a group of a kind, if it is one.
    pub(super) fn kept<G: Machine>(&mut self, group_id: &str) -> Option<&mut Kept<G>> {
        G::of(self.held.get_mut(group_id)?)
    }

    /// Hears from the store that parts of a group are durable, or are not.
    pub(super) fn touched(
        &mut self,
        group_id: &str,
        incarnation: u64,
        touched: Touched,
        lines: Records,
        durable: bool,
    ) {
        match touched {
            Touched::Streams(items) => {
                self.heard::<super::streams::machine::Group>(
                    group_id,
                    incarnation,
                    items,
                    lines,
                    durable,
                );
            }
        }
    }

    fn heard<G: Machine>(
        &mut self,
        group_id: &str,
        incarnation: u64,
        items: BTreeSet<G::Item>,
        lines: Records,
        durable: bool,
    ) {
        let held = self.held.get_mut(group_id);
        let Some(held) = held.filter(|held| held.incarnation == incarnation) else {
            return;
        };
        // The first change of a group that was a classic one has deleted what it was.
        if durable {
            held.stored = None;
        }
        let Some(kept) = G::of(held) else {
            return;
        };
        kept.queued = kept.queued.saturating_sub(1);
        if !durable {
            kept.group.touch(items);
            return;
        }
        kept.replaces = false;
        for (key, value) in lines.into_lines() {
            match value {
                Some(_) => kept.keys.insert(key),
                None => kept.keys.remove(&key),
            };
        }
    }
}

impl Coordinator {
    /// Queues what was touched; returns what tells when all that is queued is durable, if it is not yet.
    pub(super) fn put_kept<G: Machine>(
        &self,
        groups: &mut Groups,
        group_id: &str,
        room: Room<'_>,
    ) -> Result<Durable, Refusal> {
        let Some(held) = groups.held.get_mut(group_id) else {
            return Ok(None);
        };
        let incarnation = held.incarnation;
        let was_stored = held.stored.is_some();
        let Some(kept) = G::of(held) else {
            return Ok(None);
        };
        let was_classic = was_stored || kept.replaces;
        let wakes_at = kept.group.wakes_at();
        let mut durable = None;
        if !kept.group.touched().is_empty() || kept.queued > 0 {
            let (items, mut lines) = kept.take(group_id)?;
            if was_classic {
                let group = group_id.to_owned();
                let buried = lines.tombstone(&Key::Group { group });
                buried.map_err(|_| Refusal::NotStored)?;
            }
            kept.queued += 1;
            let (done, outcome) = oneshot::channel();
            durable = Some(outcome);
            room.0.send(Entry {
                form: Form::Plain,
                records: lines,
                then: Then::Kept {
                    group: group_id.to_owned(),
                    incarnation,
                    touched: G::named(items),
                    done,
                },
            });
        }
        self.wake(groups, wakes_at);
        Ok(durable)
    }
}
