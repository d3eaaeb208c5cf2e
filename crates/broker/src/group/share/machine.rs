//! The rules of a share group as a pure state machine: `state + heartbeat + topics + now → answer + what to store`.
//!
//! The order of checks and the error in each state are Apache Kafka's.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::assign::{Taker, assign};
use super::records::Item;
use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::member::Partitions;
use crate::group::consumer::terms::Refused;
use crate::group::member::Millis;
use crate::group::settings::Timing;
use crate::group::terms::Refusal;

/// Most members of a group (`group.share.max.size`).
const MEMBERS_MAX: usize = 200;

/// What a member says of itself, and that it is alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub member_id: String,
    /// 0 to come in, else the epoch that it was told last.
    pub epoch: i32,
    pub client_id: String,
    pub client_host: String,
    /// `None` says that nothing has changed.
    pub rack_id: Option<String>,
    pub topics: Option<Vec<String>>,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beaten {
    pub epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// What it shall read; `None` when that has not changed.
    pub assignment: Option<Partitions>,
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Profile {
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub topics: BTreeSet<String>,
}

/// One member, from its first heartbeat to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    pub profile: Profile,
    pub epoch: i32,
    /// The epoch before: an answer with a new one may have been lost.
    pub previous_epoch: i32,
    pub assigned: Partitions,
    /// When the member is given up unless it is heard from before.
    pub expires_at: Millis,
}

/// A topic whose records the group keeps the state of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub name: String,
    pub partitions: BTreeSet<i32>,
}

/// A group as it is told to whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub state: &'static str,
    pub epoch: i32,
    pub target_epoch: i32,
    pub members: Vec<(String, Member)>,
}

/// One group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(super) epoch: i32,
    /// Tells whether the topics that the group reads are still those of its epoch.
    pub(super) fingerprint: i64,
    pub(super) target_epoch: i32,
    pub(super) target_at_ms: Millis,
    pub(super) target: BTreeMap<String, Partitions>,
    pub(super) members: BTreeMap<String, Member>,
    /// What can be assigned.
    pub(super) known: BTreeMap<Uuid, Known>,
    /// The version of the catalog that was looked at last.
    seen: Option<u64>,
    /// What differs from what was handed out to be stored.
    touched: BTreeSet<Item>,
}

impl Group {
    /// Returns a group without members.
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            ..Self::default()
        }
    }

    /// Takes in what was stored; its members have a whole session to be heard from.
    pub(super) fn wake(&mut self, now: Millis, session_timeout_ms: i32) {
        for member in self.members.values_mut() {
            member.expires_at = now + Millis::from(session_timeout_ms);
        }
    }

    /// The name that Kafka's tools show.
    pub(crate) fn state(&self) -> &'static str {
        match self.members.is_empty() {
            true => "Empty",
            false => "Stable",
        }
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = (&String, &Member)> {
        self.members.iter()
    }

    pub(crate) fn view(&self) -> View {
        let member = |(id, member): (&String, &Member)| (id.clone(), member.clone());
        View {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// The next moment at which [`Group::tick`] has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Millis> {
        self.members.values().map(|member| member.expires_at).min()
    }

    /// Returns what has to be stored since the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<Item> {
        std::mem::take(&mut self.touched)
    }

    /// Notes what has to be stored, or could not be.
    pub(crate) fn touch(&mut self, items: impl IntoIterator<Item = Item>) {
        self.touched.extend(items);
    }

    pub(crate) fn touched(&self) -> &BTreeSet<Item> {
        &self.touched
    }

    /// Hears from a member, lets it in if it is new, and says how it goes on. A refusal changes nothing.
    pub(crate) fn heartbeat(
        &mut self,
        now: Millis,
        beat: &Beat,
        catalog: &Catalog,
        timing: Timing,
    ) -> Result<Beaten, Refused> {
        let id = &beat.member_id;
        let known = self.members.get(id);
        if self.members.len() >= MEMBERS_MAX && known.is_none() {
            return Err(Refusal::GroupFull.into());
        }
        let before = match known {
            Some(member) => member.clone(),
            None if beat.epoch == 0 => Member::default(),
            None => return Err(Refusal::UnknownMember.into()),
        };
        check_epoch(&before, beat.epoch)?;

        // Nothing is refused from here on.
        let profile = updated(&before.profile, beat);
        if known.is_none() || profile != before.profile {
            self.touched.insert(Item::Member(id.clone()));
        }
        let subscription_changed = profile.topics != before.profile.topics;
        let member = Member {
            profile,
            expires_at: now + Millis::from(timing.session_timeout_ms),
            ..before.clone()
        };
        self.members.insert(id.clone(), member);
        let due = subscription_changed || self.is_pending();
        let renewed = self.renew(catalog, due);
        self.retarget(now, catalog, timing);
        self.reconcile(id, catalog, renewed);
        let member = self.members.get(id).ok_or(Refusal::UnknownMember)?;
        let told = beat.epoch == 0 || beat.topics.is_some() || member.assigned != before.assigned;
        Ok(Beaten {
            epoch: member.epoch,
            heartbeat_interval_ms: timing.heartbeat_interval_ms,
            assignment: told.then(|| member.assigned.clone()),
        })
    }

    /// Returns the topics that members read.
    fn subscribed(&self) -> BTreeSet<&str> {
        let members = self.members.values();
        members
            .flat_map(|member| member.profile.topics.iter().map(String::as_str))
            .collect()
    }

    /// Says whether partitions can be assigned that the target does not know of.
    fn is_pending(&self) -> bool {
        if self.target_epoch < self.epoch {
            return false;
        }
        let subscribed = self.subscribed();
        let mut assigned = Partitions::new();
        for (topic, partitions) in self.target.values().flatten() {
            assigned.entry(*topic).or_default().extend(partitions);
        }
        let mut known = self.known.iter();
        known.any(|(topic, known)| {
            subscribed.contains(known.name.as_str())
                && assigned.get(topic) != Some(&known.partitions)
        })
    }

    /// Begins a new epoch when it is `due` or when topics have changed under the group; says whether it has.
    fn renew(&mut self, catalog: &Catalog, due: bool) -> bool {
        if !due && self.seen == Some(catalog.version) {
            return false;
        }
        let before = self.known.len();
        self.known.retain(|topic, _| catalog.name(*topic).is_some());
        if self.known.len() != before {
            self.touched.insert(Item::Known);
        }
        let fingerprint = catalog.fingerprint(self.subscribed().into_iter());
        self.seen = Some(catalog.version);
        let renewed = due || fingerprint != self.fingerprint;
        if renewed {
            self.epoch += 1;
            self.fingerprint = fingerprint;
            self.touched.insert(Item::Group);
        }
        renewed
    }

    /// Brings the target up to the group's epoch, unless the one before is too young.
    fn retarget(&mut self, now: Millis, catalog: &Catalog, timing: Timing) {
        let next_at = self.target_at_ms + Millis::from(timing.assignment_interval_ms);
        if self.target_epoch >= self.epoch || now < next_at {
            return;
        }
        let takers: Vec<Taker<'_>> = self
            .members
            .iter()
            .map(|(id, member)| Taker {
                topics: reads(&member.profile, catalog),
                before: self.target.get(id),
            })
            .collect();
        let known = self.known.iter();
        let readable: Partitions = known
            .map(|(topic, known)| (*topic, known.partitions.clone()))
            .collect();
        let shares = assign(&takers, &readable);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for (id, share) in ids.into_iter().zip(shares) {
            if self.target.get(&id) != Some(&share) {
                self.touched.insert(Item::Target(id.clone()));
                self.target.insert(id, share);
            }
        }
        self.target_epoch = self.epoch;
        self.target_at_ms = now;
        self.touched.insert(Item::TargetEpoch);
    }

    /// Takes a member to the target.
    fn reconcile(&mut self, id: &str, catalog: &Catalog, renewed: bool) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if !renewed && member.epoch == self.target_epoch {
            return;
        }
        let subscribed = reads(&member.profile, catalog);
        let target = self.target.get(id).into_iter().flatten();
        let assigned: Partitions = target
            .filter(|(topic, _)| subscribed.contains(topic))
            .map(|(topic, partitions)| (*topic, partitions.clone()))
            .collect();
        if member.epoch != self.target_epoch {
            member.previous_epoch = member.epoch;
            member.epoch = self.target_epoch;
        } else if member.assigned == assigned {
            return;
        }
        member.assigned = assigned;
        self.touched.insert(Item::Current(id.to_owned()));
    }

    /// Returns the partitions that members read and whose records have no state yet.
    pub(crate) fn unknown(&self, catalog: &Catalog) -> Vec<(Uuid, Known)> {
        let topics = self.subscribed().into_iter();
        let missing = |name: &str| {
            let topic = catalog.id(name)?;
            let known = self.known.get(&topic);
            let partitions: BTreeSet<i32> = (0..catalog.partitions(topic))
                .filter(|one| !known.is_some_and(|known| known.partitions.contains(one)))
                .collect();
            let name = name.to_owned();
            (!partitions.is_empty()).then_some((topic, Known { name, partitions }))
        };
        topics.filter_map(missing).collect()
    }

    /// Hears that the records of partitions have a state.
    pub(crate) fn learn(&mut self, topics: impl IntoIterator<Item = (Uuid, Known)>) {
        for (topic, more) in topics {
            let known = self.known.entry(topic).or_insert_with(|| Known {
                name: more.name.clone(),
                partitions: BTreeSet::new(),
            });
            known.partitions.extend(more.partitions);
        }
        self.touched.insert(Item::Known);
    }

    /// Hears that the records of a topic have no state any more; says whether they had.
    pub(crate) fn unlearn(&mut self, topic: Uuid) -> Option<Known> {
        let known = self.known.remove(&topic);
        if known.is_some() {
            self.touched.insert(Item::Known);
        }
        known
    }

    /// Returns the topics whose records have a state.
    pub(crate) fn known(&self) -> &BTreeMap<Uuid, Known> {
        &self.known
    }

    /// Takes a member out.
    pub(crate) fn leave(&mut self, member_id: &str, catalog: &Catalog) -> Result<(), Refused> {
        if !self.members.contains_key(member_id) {
            return Err(Refusal::UnknownMember.into());
        }
        self.fence(&[member_id.to_owned()], catalog);
        Ok(())
    }

    /// Lets time pass: gives up members that were not heard from.
    pub(crate) fn tick(&mut self, now: Millis, catalog: &Catalog) {
        let members = self.members.iter();
        let late = members.filter(|(_, member)| member.expires_at <= now);
        let expired: Vec<String> = late.map(|(id, _)| id.clone()).collect();
        if !expired.is_empty() {
            self.fence(&expired, catalog);
        }
    }

    fn fence(&mut self, ids: &[String], catalog: &Catalog) {
        for id in ids {
            self.members.remove(id);
            self.target.remove(id);
            self.touched.extend([
                Item::Member(id.clone()),
                Item::Target(id.clone()),
                Item::Current(id.clone()),
            ]);
        }
        self.epoch += 1;
        self.fingerprint = catalog.fingerprint(self.subscribed().into_iter());
        self.touched.insert(Item::Group);
    }
}

/// The topics that a member reads and that are there.
fn reads(profile: &Profile, catalog: &Catalog) -> BTreeSet<Uuid> {
    let topics = profile.topics.iter();
    topics.filter_map(|name| catalog.id(name)).collect()
}

/// The profile with what a heartbeat says anew.
fn updated(before: &Profile, beat: &Beat) -> Profile {
    Profile {
        rack_id: beat.rack_id.clone().or_else(|| before.rack_id.clone()),
        client_id: beat.client_id.clone(),
        client_host: beat.client_host.clone(),
        topics: match &beat.topics {
            Some(topics) => topics.iter().cloned().collect(),
            None => before.topics.clone(),
        },
    }
}

/// A member may be one epoch behind: the answer may have been lost.
fn check_epoch(member: &Member, epoch: i32) -> Result<(), Refused> {
    let behind = epoch < member.epoch && epoch == member.previous_epoch;
    if epoch == 0 || epoch == member.epoch || behind {
        return Ok(());
    }
    Err(Refused {
        refusal: Refusal::FencedEpoch,
        why: format!(
            "the member's epoch is {}, not {epoch}: it must give up its partitions and join again",
            member.epoch
        ),
    })
}
