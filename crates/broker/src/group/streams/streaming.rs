//! A streams group as the coordinator holds it, and the requests of its members.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka::wire::EncodeError;
use tracing::{error, warn};

use super::machine::{Beat, Beaten, Group, View as Described};
use super::member::Member;
use super::records::{self, Item};
use crate::group::consumer::records::Stored;
use crate::group::consumer::terms::Refused;
use crate::group::coordinator::{Coordinator, Groups, Held, Kind, MemberView, Place, Room, View};
use crate::group::kept::{Kept, Machine, Touched, settled};
use crate::group::member::Millis;
use crate::group::schema::Committed;
use crate::group::terms::Refusal;
use crate::ledger::Line;
use crate::topic::registry::Topics;

/// A streams group.
pub(in crate::group) type Streaming = Kept<Group>;

impl Machine for Group {
    type Item = Item;

    fn of(held: &mut Held) -> Option<&mut Kept<Self>> {
        held.streams.as_mut()
    }

    fn named(items: BTreeSet<Item>) -> Touched {
        Touched::Streams(items)
    }

    fn take_touched(&mut self) -> BTreeSet<Item> {
        std::mem::take(&mut self.touched)
    }

    fn touch(&mut self, items: BTreeSet<Item>) {
        self.touched.extend(items);
    }

    fn touched(&self) -> &BTreeSet<Item> {
        &self.touched
    }

    fn everything(&self) -> BTreeSet<Item> {
        let members = self.members().flat_map(|(id, _)| {
            let id = id.clone();
            [
                Item::Member(id.clone()),
                Item::Target(id.clone()),
                Item::Current(id),
            ]
        });
        let group = [Item::Group, Item::Topology, Item::TargetEpoch];
        members.chain(group).collect()
    }

    fn record(&self, group_id: &str, item: &Item) -> Result<Line, EncodeError> {
        records::record(group_id, item, self)
    }

    fn wakes_at(&self) -> Option<Millis> {
        self.next_at()
    }
}

impl Streaming {
    pub(crate) fn is_empty(&self) -> bool {
        self.group.members().len() == 0
    }

    /// The group as lists show it.
    pub(crate) fn listed(&self, id: &str, offsets: BTreeMap<Place, Committed>) -> View {
        let member = |(id, member): (&String, &Member)| MemberView {
            id: id.clone(),
            instance_id: None,
            client_id: member.profile.client_id.clone(),
            client_host: member.profile.client_host.clone(),
            metadata: Bytes::new(),
            assignment: Bytes::new(),
        };
        View {
            id: id.to_owned(),
            kind: Kind::Streams,
            state: self.group.state().name(),
            protocol_type: "streams".to_owned(),
            protocol: "sticky".to_owned(),
            members: self.group.members().map(member).collect(),
            offsets,
        }
    }
}

/// Brings a group back from what was read; none when nothing was.
pub(in crate::group) fn restore(
    group_id: &str,
    stored: Stored,
    now: Millis,
    session_timeout_ms: i32,
) -> Option<Streaming> {
    if stored.is_empty() {
        return None;
    }
    let group = records::restore(&stored, now, session_timeout_ms).unwrap_or_else(|cause| {
        error!(group = group_id, error = %cause, "a group's state cannot be read, its members join anew");
        Group::new()
    });
    Some(Kept::restored(group, stored.into_keys()))
}

impl Coordinator {
    /// Hears from a member of a streams group, and says how it goes on; what is said is durable.
    pub(crate) async fn streams_beat(
        &self,
        topics: &Topics,
        group_id: &str,
        beat: &Beat,
    ) -> Result<Beaten, Refused> {
        let room = self.room().await?;
        let catalog = self.look(topics);
        let settings = self.settings.of(group_id);
        let (beaten, durable) = {
            let mut groups = self.groups.lock();
            let made = self.make_streams(&mut groups, group_id, beat.epoch == 0)?;
            let now = self.now();
            let Some(streams) = groups.kept::<Group>(group_id) else {
                return Err(Refusal::NotFound.into());
            };
            let members_max = self.rules.members_max;
            let beaten =
                streams
                    .group
                    .heartbeat(now, beat, &catalog, members_max, &settings.streams);
            let beaten = match beaten {
                Ok(beaten) => beaten,
                Err(refused) => {
                    if made {
                        unmake(&mut groups, group_id);
                    }
                    return Err(refused);
                }
            };
            if made {
                self.dissolve(&mut groups, group_id);
            }
            let durable = self.put_kept::<Group>(&mut groups, group_id, room)?;
            (beaten, durable)
        };
        settled(durable).await?;
        Ok(beaten)
    }

    /// Takes a member out of a streams group; durable when this returns.
    pub(crate) async fn streams_leave(&self, group_id: &str, beat: &Beat) -> Result<(), Refused> {
        let room = self.room().await?;
        let durable = {
            let mut groups = self.groups.lock();
            if !groups.held.contains_key(group_id) {
                return not_found(format!("Group {group_id} not found."));
            }
            let Some(streams) = groups.kept::<Group>(group_id) else {
                return not_found(format!("Group {group_id} is not a streams group."));
            };
            streams.group.leave(&beat.member_id, beat.shuts_down)?;
            self.put_kept::<Group>(&mut groups, group_id, room)?
        };
        Ok(settled(durable).await?)
    }

    /// Lets time pass for a streams group.
    pub(in crate::group) fn tick_streams(&self, groups: &mut Groups, id: &str, now: Millis) {
        let Some(streams) = groups.kept::<Group>(id) else {
            return;
        };
        streams.group.tick(now);
        if streams.group.touched().is_empty() {
            return;
        }
        // What finds no room stays touched, and goes out with the next change.
        let put = match self.changes.try_reserve() {
            Ok(room) => self.put_kept::<Group>(groups, id, Room(room)).map(|_| ()),
            Err(_) => Err(Refusal::NotStored),
        };
        if put.is_err() {
            warn!(
                group = id,
                "the group's state could not be queued for writing"
            );
        }
    }

    /// Makes sure that a group is a streams group, and says whether that is new. An empty classic group changes over.
    fn make_streams(
        &self,
        groups: &mut Groups,
        group_id: &str,
        joins: bool,
    ) -> Result<bool, Refused> {
        match groups.held.get_mut(group_id) {
            Some(held) if held.streams.is_some() => Ok(false),
            Some(held)
                if joins
                    && held.consumer.is_none()
                    && held.share.is_none()
                    && held.group.members().len() == 0 =>
            {
                held.streams = Some(Kept::new(Group::new(), true));
                Ok(true)
            }
            Some(_) => not_found(format!("Group {group_id} is not a streams group.")),
            None if !joins => not_found(format!("Streams group {group_id} not found.")),
            None => {
                self.create(groups, group_id)?;
                if let Some(held) = groups.held.get_mut(group_id) {
                    held.streams = Some(Kept::new(Group::new(), false));
                }
                Ok(true)
            }
        }
    }

    /// Tells a streams group.
    pub(crate) fn describe_streams(&self, group_id: &str) -> Result<Described, String> {
        let groups = self.groups.lock();
        let held = groups.held.get(group_id);
        let held = held.ok_or_else(|| format!("Group {group_id} not found."))?;
        let streams = held.streams.as_ref();
        let streams = streams.ok_or_else(|| format!("Group {group_id} is not a streams group."))?;
        Ok(streams.group.view())
    }
}

fn not_found<T>(why: String) -> Result<T, Refused> {
    let refusal = Refusal::NotFound;
    Err(Refused { refusal, why })
}

/// Takes back a streams group whose first member was refused.
fn unmake(groups: &mut Groups, group_id: &str) {
    if let Some(held) = groups.held.get_mut(group_id) {
        held.streams = None;
        if held.is_empty() {
            groups.held.remove(group_id);
        }
    }
}
