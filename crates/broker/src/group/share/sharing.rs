//! A share group as the coordinator holds it: the machine, what of it is on its way to the disk, and the requests in
//! between.
//!
//! As with groups whose partitions the broker assigns, the machine is ahead of the disk, and an answer that shows a
//! change waits for all that is queued.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::{error, warn};
use uuid::Uuid;

use super::machine::{Beat, Beaten, Group, Known, View as Described};
use super::records::{self, Item};
use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::records::Stored;
use crate::group::consumer::terms::Refused;
use crate::group::coordinator::{Coordinator, Groups, Kind, MemberView, Room, View};
use crate::group::member::Millis;
use crate::group::settings::Share as Settings;
use crate::group::store::{Entry, Form, Records, Then};
use crate::group::terms::Refusal;
use crate::share::records::Key;
use crate::topic::registry::Topics;

/// A share group.
#[derive(Debug)]
pub(crate) struct Sharing {
    pub group: Group,
    /// The keys of the group's records on disk.
    keys: BTreeSet<Bytes>,
    /// Changes that are on their way there.
    queued: usize,
}

impl Sharing {
    fn new() -> Self {
        Self {
            group: Group::new(),
            keys: BTreeSet::new(),
            queued: 0,
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

    /// Adds what deletes all of an empty group.
    pub(crate) fn bury(&self, group_id: &str, lines: &mut Records) -> Result<(), Refusal> {
        let mut keys = self.keys.clone();
        // Members that are gone were deleted as they went, but that may not be written yet.
        let touched = self.group.touched().iter();
        for item in touched.chain(&[Item::Group, Item::TargetEpoch, Item::Known]) {
            let line = records::record(group_id, item, &self.group);
            keys.insert(line.map_err(|_| Refusal::NotStored)?.0);
        }
        for key in keys {
            lines.line((key, None));
        }
        Ok(())
    }

    /// The group as lists show it.
    pub(crate) fn listed(&self, id: &str) -> View {
        let member = |(id, member): (&String, &super::machine::Member)| MemberView {
            id: id.clone(),
            instance_id: None,
            client_id: member.profile.client_id.clone(),
            client_host: member.profile.client_host.clone(),
            metadata: Bytes::new(),
            assignment: Bytes::new(),
        };
        View {
            id: id.to_owned(),
            kind: Kind::Share,
            state: self.group.state(),
            protocol_type: "share".to_owned(),
            protocol: super::assign::SIMPLE.to_owned(),
            members: self.group.members().map(member).collect(),
            offsets: BTreeMap::new(),
        }
    }
}

/// Brings a group back from what was read; none when nothing was.
pub(crate) fn restore(
    group_id: &str,
    stored: Stored,
    now: Millis,
    settings: &Settings,
) -> Option<Sharing> {
    if stored.is_empty() {
        return None;
    }
    let session_timeout_ms = settings.timing.session_timeout_ms;
    let group = records::restore(&stored, now, session_timeout_ms).unwrap_or_else(|cause| {
        error!(group = group_id, error = %cause, "a group's state cannot be read, its members join anew");
        Group::new()
    });
    Some(Sharing {
        group,
        keys: stored.into_keys().collect(),
        queued: 0,
    })
}

impl Groups {
    /// Hears from the store that parts of a share group are durable, or are not.
    pub(in crate::group) fn shared(
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
        let Some(share) = &mut held.share else {
            return;
        };
        share.queued = share.queued.saturating_sub(1);
        if !durable {
            share.group.touch(items);
            return;
        }
        for (key, value) in lines.into_lines() {
            match value {
                Some(_) => share.keys.insert(key),
                None => share.keys.remove(&key),
            };
        }
    }
}

/// A share group's partitions that have no state yet, with the group's epoch.
pub(crate) type Unknown = (i32, Vec<(Uuid, Known)>);

impl Coordinator {
    /// Hears from a member of a share group, and says how it goes on; what is said is durable. Tells too which
    /// partitions have to get a state before they can be assigned.
    pub(crate) async fn share_beat(
        &self,
        topics: &Topics,
        group_id: &str,
        beat: &Beat,
    ) -> Result<(Beaten, Unknown), Refused> {
        let room = self.room().await?;
        let catalog = self.look(topics);
        let timing = self.settings.of(group_id).share.timing;
        let (beaten, unknown, durable) = {
            let mut groups = self.groups.lock();
            let fresh = self.make_share(&mut groups, group_id, beat.epoch == 0)?;
            let now = self.now();
            let Some(share) = share_of(&mut groups, group_id) else {
                return Err(Refusal::NotFound.into());
            };
            let beaten = share.group.heartbeat(now, beat, &catalog, timing);
            let beaten = match beaten {
                Ok(beaten) => beaten,
                Err(refused) => {
                    if fresh {
                        unmake(&mut groups, group_id);
                    }
                    return Err(refused);
                }
            };
            let unknown = (share.group.epoch(), share.group.unknown(&catalog));
            (
                beaten,
                unknown,
                self.put_share(&mut groups, group_id, room)?,
            )
        };
        if let Some(durable) = durable {
            durable.await.unwrap_or(Err(Refusal::NotStored))?;
        }
        Ok((beaten, unknown))
    }

    /// Hears that partitions have a state; durable when this returns.
    pub(crate) async fn share_learn(
        &self,
        group_id: &str,
        topics: Vec<(Uuid, Known)>,
    ) -> Result<(), Refused> {
        self.change_share(group_id, |group| {
            group.learn(topics);
            Ok(())
        })
        .await
    }

    /// Takes a member out of a share group; durable when this returns.
    pub(crate) async fn share_leave(
        &self,
        topics: &Topics,
        group_id: &str,
        member_id: &str,
    ) -> Result<(), Refused> {
        let catalog = self.look(topics);
        self.change_share(group_id, |group| group.leave(member_id, &catalog))
            .await
    }

    /// Makes a share group if there is none, and returns its epoch; refused while it has members. Durable when this
    /// returns.
    pub(crate) async fn share_prepare(
        &self,
        group_id: &str,
        topics: Vec<(Uuid, Known)>,
    ) -> Result<i32, Refused> {
        {
            let mut groups = self.groups.lock();
            self.make_share(&mut groups, group_id, true)?;
        }
        self.change_share(group_id, |group| {
            if group.members().len() > 0 {
                return Err(Refusal::NonEmpty.into());
            }
            group.touch([Item::Group]);
            group.learn(topics);
            Ok(group.epoch())
        })
        .await
    }

    /// Has a share group without members forget topics; tells what it knew of each. Durable when this returns.
    pub(crate) async fn share_forget(
        &self,
        group_id: &str,
        topics: &[Uuid],
    ) -> Result<Vec<Option<Known>>, Refused> {
        self.change_share(group_id, |group| {
            if group.members().len() > 0 {
                return Err(Refusal::NonEmpty.into());
            }
            Ok(topics.iter().map(|topic| group.unlearn(*topic)).collect())
        })
        .await
    }

    /// Returns the topics of which a share group keeps a state; none for any other group.
    pub(crate) fn share_known(&self, group_id: &str) -> BTreeMap<Uuid, Known> {
        let groups = self.groups.lock();
        let share = groups
            .held
            .get(group_id)
            .and_then(|held| held.share.as_ref());
        share
            .map(|share| share.group.known().clone())
            .unwrap_or_default()
    }

    /// Returns the partitions of which share groups keep a state.
    pub(crate) fn share_keys(&self) -> HashSet<Key> {
        let groups = self.groups.lock();
        let mut keys = HashSet::new();
        for (id, held) in &groups.held {
            let group: Arc<str> = Arc::from(id.as_str());
            let known = held.share.iter().flat_map(|share| share.group.known());
            for (topic, known) in known {
                keys.extend(known.partitions.iter().map(|partition| Key {
                    group: group.clone(),
                    topic: *topic,
                    partition: *partition,
                }));
            }
        }
        keys
    }

    async fn change_share<T>(
        &self,
        group_id: &str,
        change: impl FnOnce(&mut Group) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let room = self.room().await?;
        let (changed, durable) = {
            let mut groups = self.groups.lock();
            let is_held = groups.held.contains_key(group_id);
            let Some(share) = share_of(&mut groups, group_id) else {
                return Err(Refused {
                    refusal: Refusal::NotFound,
                    why: match is_held {
                        true => format!("Group {group_id} is not a share group."),
                        false => format!("Group {group_id} not found."),
                    },
                });
            };
            let changed = change(&mut share.group)?;
            (changed, self.put_share(&mut groups, group_id, room)?)
        };
        if let Some(durable) = durable {
            durable.await.unwrap_or(Err(Refusal::NotStored))?;
        }
        Ok(changed)
    }

    /// Lets time pass for a share group.
    pub(in crate::group) fn tick_share(&self, groups: &mut Groups, id: &str, now: Millis) {
        let catalog = self.catalog.lock().clone();
        let Some(share) = share_of(groups, id) else {
            return;
        };
        share.group.tick(now, &catalog);
        if share.group.touched().is_empty() {
            return;
        }
        // What finds no room stays touched, and goes out with the next change.
        let put = match self.changes.try_reserve() {
            Ok(room) => self.put_share(groups, id, Room(room)).map(|_| ()),
            Err(_) => Err(Refusal::NotStored),
        };
        if put.is_err() {
            warn!(
                group = id,
                "the group's state could not be queued for writing"
            );
        }
    }

    /// Queues what was touched; returns what tells when all that is queued is durable, if it is not yet.
    fn put_share(
        &self,
        groups: &mut Groups,
        group_id: &str,
        room: Room<'_>,
    ) -> Result<Option<oneshot::Receiver<Result<(), Refusal>>>, Refusal> {
        let Some(held) = groups.held.get_mut(group_id) else {
            return Ok(None);
        };
        let incarnation = held.incarnation;
        let Some(share) = &mut held.share else {
            return Ok(None);
        };
        let wakes_at = share.group.wakes_at();
        let mut durable = None;
        if !share.group.touched().is_empty() || share.queued > 0 {
            let (items, lines) = share.take(group_id)?;
            share.queued += 1;
            let (done, outcome) = oneshot::channel();
            durable = Some(outcome);
            room.0.send(Entry {
                form: Form::Plain,
                records: lines,
                then: Then::Shared {
                    group: group_id.to_owned(),
                    incarnation,
                    items,
                    done,
                },
            });
        }
        self.wake(groups, wakes_at);
        Ok(durable)
    }

    /// Makes sure that a group is a share group, and says whether that is new.
    fn make_share(
        &self,
        groups: &mut Groups,
        group_id: &str,
        joins: bool,
    ) -> Result<bool, Refused> {
        let not_found = |why| {
            let refusal = Refusal::NotFound;
            Err(Refused { refusal, why })
        };
        match groups.held.get(group_id) {
            Some(held) if held.share.is_some() => Ok(false),
            Some(_) => not_found(format!("Group {group_id} is not a share group.")),
            None if !joins => not_found(format!("Share group {group_id} not found.")),
            None => {
                self.create(groups, group_id)?;
                if let Some(held) = groups.held.get_mut(group_id) {
                    held.share = Some(Sharing::new());
                }
                Ok(true)
            }
        }
    }

    /// Tells a share group, with the topics as they are.
    pub(crate) fn describe_share(
        &self,
        topics: &Topics,
        group_id: &str,
    ) -> Result<(Described, Arc<Catalog>), String> {
        let catalog = self.look(topics);
        let groups = self.groups.lock();
        let held = groups.held.get(group_id);
        let held = held.ok_or_else(|| format!("Group {group_id} not found."))?;
        let share = held.share.as_ref();
        let share = share.ok_or_else(|| format!("Group {group_id} is not a share group."))?;
        Ok((share.group.view(), catalog))
    }
}

fn share_of<'a>(groups: &'a mut Groups, group_id: &str) -> Option<&'a mut Sharing> {
    groups.held.get_mut(group_id)?.share.as_mut()
}

/// Takes back a share group whose first member was refused.
fn unmake(groups: &mut Groups, group_id: &str) {
    if let Some(held) = groups.held.get_mut(group_id) {
        held.share = None;
        if held.is_empty() {
            groups.held.remove(group_id);
        }
    }
}
