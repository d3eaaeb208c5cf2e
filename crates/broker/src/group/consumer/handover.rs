//! A group on its way between the two protocols: what its classic members ask, and the change from one to the other.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use super::assigning::{Assigning, consumer_of};
use super::catalog::Catalog;
use crate::group::coordinator::{Coordinator, Groups, Held, JoinAnswer, Room, SyncAnswer};
use crate::group::machine::Group as Classic;
use crate::group::member::Member;
use crate::group::schema::Key;
use crate::group::store::{Entry, Form, Records, Then};
use crate::group::terms::{After, Join, Refusal, Sync};
use crate::topic::registry::Topics;

/// What follows for the members of a group that goes back to the classic protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// They have to join again.
    Begins,
    /// They have what they shall have: the last one has just taken over what was another's.
    Goes,
}

type Durable = Option<oneshot::Receiver<Result<(), Refusal>>>;

impl Coordinator {
    /// Whether the broker assigns the partitions of a group that somebody is in.
    pub(in crate::group) fn is_assigned(&self, group_id: &str) -> bool {
        let groups = self.groups.lock();
        let held = groups.held.get(group_id);
        let consumer = held.and_then(|held| held.consumer.as_ref());
        consumer.is_some_and(|consumer| !consumer.is_empty())
    }

    /// Lets a classic member join; nothing when the broker does not assign the group's partitions any more.
    pub(in crate::group) async fn join_assigned(
        &self,
        topics: &Topics,
        group_id: &str,
        join: &Join,
    ) -> Option<JoinAnswer> {
        let refuse = |refusal| Some(Err((refusal, join.member_id.clone())));
        let room = match self.room().await {
            Ok(room) => room,
            Err(refusal) => return refuse(refusal),
        };
        let catalog = self.look(topics);
        let timing = self.settings.of(group_id).consumer;
        let (joined, durable) = {
            let mut groups = self.groups.lock();
            let consumer = live(&mut groups, group_id)?;
            let joined = consumer
                .group
                .join(self.now(), join, &catalog, &self.rules, timing);
            let joined = match joined {
                Ok(joined) => joined,
                Err(refused) => return Some(Err(refused)),
            };
            match self.put_or_hand_back(&mut groups, group_id, &catalog, room, Round::Goes) {
                Ok(durable) => (joined, durable),
                Err(refusal) => return refuse(refusal),
            }
        };
        match settled(durable).await {
            Ok(()) => Some(Ok(joined)),
            Err(refusal) => refuse(refusal),
        }
    }

    /// Tells a classic member what it has; nothing when the broker does not assign the group's partitions.
    pub(in crate::group) fn sync_assigned(
        &self,
        groups: &mut Groups,
        group_id: &str,
        sync: &Sync,
    ) -> Option<SyncAnswer> {
        let catalog = self.catalog.lock().clone();
        let now = self.now();
        let synced = live(groups, group_id)?.group.sync(now, sync, &catalog);
        self.wake_for(groups, group_id);
        Some(synced)
    }

    /// Hears that a classic member is alive; nothing when the broker does not assign the group's partitions.
    pub(in crate::group) fn beat_assigned(
        &self,
        groups: &mut Groups,
        group_id: &str,
        (member_id, instance_id): (&str, Option<&str>),
        generation: i32,
    ) -> Option<Result<(), Refusal>> {
        let now = self.now();
        let group = &mut live(groups, group_id)?.group;
        let beaten = group.beat_classic(now, member_id, instance_id, generation);
        self.wake_for(groups, group_id);
        Some(beaten)
    }

    /// Takes classic members out; nothing when the broker does not assign the group's partitions any more.
    pub(in crate::group) async fn leave_assigned(
        &self,
        topics: &Topics,
        group_id: &str,
        leavers: &[(String, Option<String>)],
    ) -> Option<Vec<Result<(), Refusal>>> {
        let all = |refusal| Some(vec![Err(refusal); leavers.len()]);
        let room = match self.room().await {
            Ok(room) => room,
            Err(refusal) => return all(refusal),
        };
        let catalog = self.look(topics);
        let (results, durable) = {
            let mut groups = self.groups.lock();
            let consumer = live(&mut groups, group_id)?;
            let results = consumer.group.leave_classic(leavers, &catalog);
            match self.put_or_hand_back(&mut groups, group_id, &catalog, room, Round::Begins) {
                Ok(durable) => (results, durable),
                Err(refusal) => return all(refusal),
            }
        };
        match settled(durable).await {
            Ok(()) => Some(results),
            Err(refusal) => all(refusal),
        }
    }

    fn wake_for(&self, groups: &Groups, group_id: &str) {
        let held = groups.held.get(group_id);
        self.wake(groups, held.and_then(Held::wakes_at));
    }

    /// Lets go of what a group was before the broker assigned its partitions.
    pub(in crate::group) fn dissolve(&self, groups: &mut Groups, group_id: &str) {
        let Some(held) = groups.held.get_mut(group_id) else {
            return;
        };
        let classic = std::mem::replace(&mut held.group, Classic::new(self.now()));
        if classic.members().len() > 0 {
            info!(group = group_id, "group goes over to the consumer protocol");
        }
        let (mut effects, mut more) = (Vec::new(), Vec::new());
        classic.dissolve(&mut effects);
        for effect in effects {
            self.carry_out(groups, group_id, effect, &mut more);
        }
    }

    /// Queues what was touched, or the change back to the classic protocol once nobody speaks the newer one.
    pub(super) fn put_or_hand_back(
        &self,
        groups: &mut Groups,
        group_id: &str,
        catalog: &Arc<Catalog>,
        room: Room<'_>,
        round: Round,
    ) -> Result<Durable, Refusal> {
        let consumer = consumer_of(groups, group_id);
        match consumer.is_some_and(|consumer| consumer.group.is_classic()) {
            true => {
                let durable = self.hand_back(groups, group_id, catalog, room, round)?;
                Ok(Some(durable))
            }
            false => self.put(groups, group_id, room),
        }
    }

    fn hand_back(
        &self,
        groups: &mut Groups,
        group_id: &str,
        catalog: &Catalog,
        room: Room<'_>,
        round: Round,
    ) -> Result<oneshot::Receiver<Result<(), Refusal>>, Refusal> {
        let held = groups.held.get_mut(group_id).ok_or(Refusal::NotFound)?;
        let consumer = held.consumer.as_ref().ok_or(Refusal::NotFound)?;
        let now = self.now();
        let mut records = Records::new();
        consumer.bury(group_id, &mut records)?;
        let members = consumer.group.to_classic(now, catalog);
        let (epoch, members) = members.map_err(|_| Refusal::NotStored)?;
        let generation = match round {
            Round::Begins => epoch - 1, // the epoch that the last leave began is the round that follows
            Round::Goes => epoch,
        };
        let behind = |member: &Member| member.carried.is_some_and(|known| known != generation);
        let begins = round == Round::Begins || members.iter().any(behind);
        let group = Classic::of_consumers(now, generation, members);
        let snapshot = group.snapshot();
        let key = Key::Group {
            group: group_id.to_owned(),
        };
        let written = records.group(&key, &snapshot);
        written.map_err(|_| Refusal::NotStored)?;
        info!(group = group_id, "group goes back to the classic protocol");
        held.group = group;
        held.consumer = None;
        let (done, durable) = oneshot::channel();
        let then = Then::Store {
            group: group_id.to_owned(),
            incarnation: held.incarnation,
            stored: Box::new((snapshot, After::Nothing)),
            done: Some(done),
        };
        room.0.send(Entry {
            form: Form::Plain,
            records,
            then,
        });
        self.step(groups, group_id, |group, now, out| {
            if begins {
                group.rebalance(now, &self.rules, out);
            }
        });
        Ok(durable)
    }
}

/// Returns a group whose partitions the broker assigns and that somebody is in.
fn live<'a>(groups: &'a mut Groups, group_id: &str) -> Option<&'a mut Assigning> {
    consumer_of(groups, group_id).filter(|consumer| !consumer.is_empty())
}

async fn settled(durable: Durable) -> Result<(), Refusal> {
    match durable {
        Some(durable) => durable.await.unwrap_or(Err(Refusal::NotStored)),
        None => Ok(()),
    }
}
