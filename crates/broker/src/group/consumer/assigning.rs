//! A group as the coordinator holds it: the machine, what of it is on its way to the disk, and the requests in between.
//!
//! The machine is ahead of the disk. Whatever it touches is queued at once, in the order of the changes, and nobody is
//! told of a change before it is durable: an answer that shows a change waits for all that is queued. What could not be
//! written stays touched, and goes out with the next change as it is then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::catalog::Catalog;
use super::handover::Round;
use super::machine::Group;
use super::records::{self, Item, Stored};
use super::terms::{Beat, Beaten, Refused, View as Described};
use crate::group::coordinator::{Coordinator, Groups, Kind, MemberView, Place, Room, View};
use crate::group::member::Millis;
use crate::group::schema::{Committed, Key};
use crate::group::settings::Timing;
use crate::group::store::{Entry, Form, Records, Then};
use crate::group::terms::Refusal;
use crate::topic::registry::Topics;

/// A group whose partitions the broker assigns.
#[derive(Debug)]
pub(crate) struct Assigning {
    pub group: Group,
    /// The keys of the group's records on disk.
    keys: BTreeSet<Bytes>,
    /// Changes that are on their way there.
    pub(super) queued: usize,
    /// Whether the classic group that it was may still be on disk.
    replaces: bool,
}

impl Assigning {
    fn new() -> Self {
        Self {
            group: Group::new(),
            keys: BTreeSet::new(),
            queued: 0,
            replaces: false,
        }
    }

    /// A group that takes the place of a classic one.
    pub(super) fn replacing(group: Group) -> Self {
        Self {
            group,
            replaces: true,
            ..Self::new()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.group.members().len() == 0
    }

    /// Returns what has to be written for what was touched since the last time.
    fn take(&mut self, group_id: &str) -> Result<(BTreeSet<Item>, Records), Refusal> {
        let items = self.group.take_touched();
        let mut lines = Records::new();
        for item in &items {
            match records::record(group_id, item, &self.group) {
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
        let touched = self.group.touched().iter();
        for item in touched.chain(&self.group.everything()) {
            let line = records::record(group_id, item, &self.group);
            keys.insert(line.map_err(|_| Refusal::NotStored)?.0);
        }
        for key in keys {
            lines.line((key, None));
        }
        Ok(())
    }

    /// The group as lists show it.
    pub(crate) fn listed(&self, id: &str, offsets: BTreeMap<Place, Committed>) -> View {
        let member = |(id, member): (&String, &super::member::Member)| MemberView {
            id: id.clone(),
            instance_id: member.profile.instance_id.clone(),
            client_id: member.profile.client_id.clone(),
            client_host: member.profile.client_host.clone(),
            metadata: Bytes::new(),
            assignment: Bytes::new(),
        };
        View {
            id: id.to_owned(),
            kind: Kind::Consumer,
            state: self.group.state().name(),
            protocol_type: "consumer".to_owned(),
            protocol: self.group.assignor().to_owned(),
            members: self.group.members().map(member).collect(),
            offsets,
        }
    }
}

/// Brings a group back from what was read; none when nothing was.
pub(crate) fn restore(
    group_id: &str,
    stored: Stored,
    now: Millis,
    timing: Timing,
) -> Option<Assigning> {
    if stored.is_empty() {
        return None;
    }
    let group = records::restore(&stored, now, timing).unwrap_or_else(|cause| {
        error!(group = group_id, error = %cause, "a group's state cannot be read, its members join anew");
        Group::new()
    });
    Some(Assigning {
        group,
        keys: stored.into_keys().collect(),
        queued: 0,
        replaces: false,
    })
}

impl Groups {
    /// Hears from the store that parts of a group are durable, or are not.
    pub(in crate::group) fn assigned(
        &mut self,
        group_id: &str,
        incarnation: u64,
        items: BTreeSet<Item>,
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
        let Some(consumer) = &mut held.consumer else {
            return;
        };
        consumer.queued = consumer.queued.saturating_sub(1);
        if !durable {
            consumer.group.touch(items);
            return;
        }
        consumer.replaces = false;
        for (key, value) in lines.into_lines() {
            match value {
                Some(_) => consumer.keys.insert(key),
                None => consumer.keys.remove(&key),
            };
        }
    }
}

impl Coordinator {
    /// Hears from a member, and says how it goes on; what is said is durable.
    pub(crate) async fn beat(
        &self,
        topics: &Topics,
        group_id: &str,
        beat: Beat,
    ) -> Result<Beaten, Refused> {
        let room = self.room().await?;
        let catalog = self.look(topics);
        let timing = self.settings.of(group_id).consumer;
        let (beaten, durable) = {
            let mut groups = self.groups.lock();
            let now = self.now();
            let made = self.make_consumer(&mut groups, group_id, &beat, &catalog)?;
            let Some(consumer) = consumer_of(&mut groups, group_id) else {
                return Err(Refusal::NotFound.into());
            };
            let members_max = self.rules.members_max;
            let beaten = consumer
                .group
                .heartbeat(now, &beat, &catalog, members_max, timing);
            let beaten = match beaten {
                Ok(beaten) => beaten,
                Err(refused) => {
                    if made != Made::Before {
                        unmake(&mut groups, group_id);
                    }
                    return Err(refused);
                }
            };
            if made == Made::OfClassic {
                self.dissolve(&mut groups, group_id);
            }
            (beaten, self.put(&mut groups, group_id, room)?)
        };
        if let Some(durable) = durable {
            durable.await.unwrap_or(Err(Refusal::NotStored))?;
        }
        Ok(beaten)
    }

    /// Takes a member out, or notes that a static one is away for a while; durable when this returns.
    pub(crate) async fn depart(
        &self,
        topics: &Topics,
        group_id: &str,
        beat: &Beat,
    ) -> Result<(), Refused> {
        let room = self.room().await?;
        let catalog = self.look(topics);
        let durable = {
            let mut groups = self.groups.lock();
            let Some(consumer) = consumer_of(&mut groups, group_id) else {
                return Err(Refusal::NotFound.into());
            };
            let instance_id = beat.instance_id.as_deref();
            consumer
                .group
                .leave(&beat.member_id, instance_id, beat.epoch, &catalog)?;
            self.put_or_hand_back(&mut groups, group_id, &catalog, room, Round::Begins)?
        };
        if let Some(durable) = durable {
            durable.await.unwrap_or(Err(Refusal::NotStored))?;
        }
        Ok(())
    }

    /// Lets time pass for a group.
    pub(in crate::group) fn tick_assigning(&self, groups: &mut Groups, id: &str, now: Millis) {
        let catalog = self.catalog.lock().clone();
        let Some(consumer) = consumer_of(groups, id) else {
            return;
        };
        consumer.group.tick(now, &catalog);
        if !consumer.group.is_touched() {
            return;
        }
        // What finds no room stays touched, and goes out with the next change.
        match self.changes.try_reserve() {
            Ok(room) => {
                let put = self.put_or_hand_back(groups, id, &catalog, Room(room), Round::Begins);
                if put.is_err() {
                    warn!(
                        group = id,
                        "the group's state could not be queued for writing"
                    );
                }
            }
            Err(_) => warn!(
                group = id,
                "the group's state could not be queued for writing"
            ),
        }
    }

    /// Queues what was touched; returns what tells when all that is queued is durable, if it is not yet.
    pub(super) fn put(
        &self,
        groups: &mut Groups,
        group_id: &str,
        room: Room<'_>,
    ) -> Result<Option<oneshot::Receiver<Result<(), Refusal>>>, Refusal> {
        let Some(held) = groups.held.get_mut(group_id) else {
            return Ok(None);
        };
        let incarnation = held.incarnation;
        let was_stored = held.stored.is_some();
        let Some(consumer) = &mut held.consumer else {
            return Ok(None);
        };
        let was_classic = was_stored || consumer.replaces;
        let wakes_at = consumer.group.wakes_at();
        let mut durable = None;
        if consumer.group.is_touched() || consumer.queued > 0 {
            let (items, mut lines) = consumer.take(group_id)?;
            if was_classic {
                let group = group_id.to_owned();
                let buried = lines.tombstone(&Key::Group { group });
                buried.map_err(|_| Refusal::NotStored)?;
            }
            consumer.queued += 1;
            let (done, outcome) = oneshot::channel();
            durable = Some(outcome);
            room.0.send(Entry {
                form: Form::Plain,
                records: lines,
                then: Then::Assigned {
                    group: group_id.to_owned(),
                    incarnation,
                    items,
                    done: Some(done),
                },
            });
        }
        self.wake(groups, wakes_at);
        Ok(durable)
    }

    /// Makes sure that the broker assigns a group's partitions, and says since when. A group changes over when it is
    /// empty, or when all of its members are consumers.
    fn make_consumer(
        &self,
        groups: &mut Groups,
        group_id: &str,
        beat: &Beat,
        catalog: &Catalog,
    ) -> Result<Made, Refused> {
        let joins = beat.epoch == 0;
        match groups.held.get_mut(group_id) {
            Some(held) if held.consumer.is_some() => Ok(Made::Before),
            Some(held) if held.share.is_some() || held.streams.is_some() => Err(Refused {
                refusal: Refusal::NotFound,
                why: format!("Group {group_id} is not a consumer group."),
            }),
            None if !joins => Err(Refused {
                refusal: Refusal::NotFound,
                why: format!("Consumer group {group_id} not found."),
            }),
            Some(held) if joins && held.group.members().len() == 0 => {
                held.consumer = Some(Assigning::replacing(Group::new()));
                Ok(Made::OfClassic)
            }
            Some(held) if joins && held.group.consumers().is_some() => {
                let group = Group::from_classic(self.now(), &held.group, catalog);
                let group = group.map_err(|error| Refused {
                    refusal: Refusal::NotFound,
                    why: format!(
                        "Cannot upgrade the classic group {group_id} to consumer group because the embedded consumer protocol is malformed: {error}"
                    ),
                })?;
                held.consumer = Some(Assigning::replacing(group));
                Ok(Made::OfClassic)
            }
            Some(_) => Err(Refused {
                refusal: Refusal::NotFound,
                why: format!("Group {group_id} is not a consumer group."),
            }),
            None => {
                self.create(groups, group_id)?;
                if let Some(held) = groups.held.get_mut(group_id) {
                    held.consumer = Some(Assigning::new());
                }
                Ok(Made::Anew)
            }
        }
    }

    /// Makes sure that one of the members assigns a group's partitions: an empty group changes over, one whose
    /// partitions the broker assigns does not.
    pub(in crate::group) fn make_classic(
        &self,
        groups: &mut Groups,
        group_id: &str,
    ) -> Result<(), Refusal> {
        let Some(held) = groups.held.get_mut(group_id) else {
            return Ok(());
        };
        if held.share.is_some() {
            return Err(Refusal::InconsistentProtocol);
        }
        if held.consumer.is_none() && held.streams.is_none() {
            return Ok(());
        }
        if !held.is_idle() {
            return Err(Refusal::InconsistentProtocol);
        }
        let mut lines = Records::new();
        if let Some(consumer) = &held.consumer {
            consumer.bury(group_id, &mut lines)?;
        }
        if let Some(streams) = &held.streams {
            streams.bury(group_id, &mut lines)?;
        }
        let room = self.changes.try_reserve();
        let room = room.map_err(|_| Refusal::NotStored)?;
        room.send(Entry {
            form: Form::Plain,
            records: lines,
            then: Then::Done {
                done: oneshot::channel().0,
            },
        });
        (held.consumer, held.streams) = (None, None);
        Ok(())
    }

    /// Returns the places that a member may not commit for any more.
    pub(in crate::group) fn stale(
        &self,
        consumer: &Assigning,
        member_id: &str,
        epoch: i32,
        offsets: &[(Place, Committed)],
    ) -> Result<BTreeSet<Place>, Refusal> {
        let catalog = self.catalog.lock().clone();
        let places = offsets
            .iter()
            .map(|((topic, partition), _)| (&**topic, *partition));
        let results = consumer
            .group
            .may_commit(member_id, epoch, &catalog, places)?;
        let stale = offsets
            .iter()
            .zip(results)
            .filter(|(_, result)| result.is_err());
        Ok(stale.map(|((place, _), _)| place.clone()).collect())
    }

    /// Checks that whoever asks for offsets on behalf of a member is still that member.
    pub(crate) fn may_fetch(
        &self,
        group_id: &str,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), Refusal> {
        let groups = self.groups.lock();
        let held = groups.held.get(group_id);
        if let Some(streams) = held.and_then(|held| held.streams.as_ref()) {
            return streams.group.may_fetch(member_id, epoch);
        }
        match held.and_then(|held| held.consumer.as_ref()) {
            Some(consumer) => consumer.group.may_fetch(member_id, epoch),
            None => Ok(()),
        }
    }

    /// Tells a group whose partitions the broker assigns, with the topics as they are.
    pub(crate) fn describe_consumer(
        &self,
        topics: &Topics,
        group_id: &str,
    ) -> Option<(Described, Arc<Catalog>)> {
        let catalog = self.look(topics);
        let groups = self.groups.lock();
        let consumer = groups.held.get(group_id)?.consumer.as_ref()?;
        Some((consumer.group.view(), catalog))
    }

    /// Returns the topics as they are.
    pub(in crate::group) fn look(&self, topics: &Topics) -> Arc<Catalog> {
        let version = topics.version();
        let mut catalog = self.catalog.lock();
        if catalog.version != version {
            let all = topics.all();
            let each = all.iter().map(|topic| {
                let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
                (topic.name.clone(), topic.id, partitions)
            });
            *catalog = Arc::new(Catalog::new(version, each));
        }
        catalog.clone()
    }
}

/// Since when the broker assigns a group's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Before,
    Anew,
    OfClassic,
}

pub(super) fn consumer_of<'a>(groups: &'a mut Groups, group_id: &str) -> Option<&'a mut Assigning> {
    groups.held.get_mut(group_id)?.consumer.as_mut()
}

/// Takes back that the broker assigns a group's partitions, when its first member was refused.
fn unmake(groups: &mut Groups, group_id: &str) {
    if let Some(held) = groups.held.get_mut(group_id) {
        held.consumer = None;
        if held.is_empty() {
            groups.held.remove(group_id);
        }
    }
}
