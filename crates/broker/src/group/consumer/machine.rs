//! The rules of a group as a pure state machine: `state + heartbeat + topics + now → answer + what to store`.
//!
//! The order of checks and the error in each state are Apache Kafka's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::assign::{ASSIGNORS, Taker, assign};
use super::catalog::{Catalog, compile};
use super::member::{AWAY, Member, Partitions, Profile, partitions};
use super::reconcile::Towards;
use super::records::Item;
use super::terms::{Beat, Beaten, Refused, State, View};
use crate::group::member::Millis;
use crate::group::settings::Timing;
use crate::group::terms::Refusal;

/// Names that a pattern matched, as of some version of the catalog.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolved {
    pub topics: BTreeSet<Arc<str>>,
    pub version: u64,
    pub at_ms: Millis,
}

/// One group.
///
/// `target_epoch ≤ epoch`; a member's epoch is at most `target_epoch`.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(super) epoch: i32,
    /// Tells whether the topics that the group reads are still those of its epoch.
    pub(super) fingerprint: i64,
    pub(super) target_epoch: i32,
    pub(super) target_at_ms: Millis,
    pub(super) target: BTreeMap<String, Partitions>,
    pub(super) members: BTreeMap<String, Member>,
    pub(super) resolved: BTreeMap<String, Resolved>,
    /// Static members: instance id → member id.
    pub(super) instances: BTreeMap<String, String>,
    /// Who has each partition, those that are being given up included.
    pub(super) owners: HashMap<(Uuid, i32), String>,
    /// The version of the catalog that was looked at last.
    seen: Option<u64>,
    /// What differs from what was handed out to be stored.
    pub(super) touched: BTreeSet<Item>,
}

impl Group {
    /// Returns a group without members. Its first epoch is 1, so that nobody is told to be at epoch 0, which stands
    /// for joining.
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            ..Self::default()
        }
    }

    /// Takes in what was stored; its members have a whole session to be heard from.
    pub(super) fn wake(&mut self, now: Millis, timing: Timing) {
        for (id, member) in &mut self.members {
            if let Some(instance) = &member.profile.instance_id {
                self.instances.insert(instance.clone(), id.clone());
            }
            for place in member.progress.held() {
                self.owners.insert(place, id.clone());
            }
            member.expires_at = now + Millis::from(member.session_timeout_ms(timing));
            if !member.progress.revoking.is_empty() {
                member.revoke_until = Some(now + Millis::from(member.profile.rebalance_timeout_ms));
            }
        }
    }

    pub(crate) fn state(&self) -> State {
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > self.target_epoch {
            State::Assigning
        } else if self
            .members
            .values()
            .all(|member| member.progress.has_arrived(self.target_epoch))
        {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = (&String, &Member)> {
        self.members.iter()
    }

    pub(crate) fn view(&self) -> View {
        let member = |(id, member): (&String, &Member)| {
            let target = self.target.get(id).cloned().unwrap_or_default();
            (id.clone(), member.clone(), target)
        };
        View {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            assignor: self.assignor().to_owned(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// The next moment at which [`Group::tick`] has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Millis> {
        self.members.values().map(Member::due_at).min()
    }

    /// Returns what has to be stored since the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<Item> {
        std::mem::take(&mut self.touched)
    }

    /// Hears that something could not be stored: it is handed out again.
    pub(crate) fn touch(&mut self, items: BTreeSet<Item>) {
        self.touched.extend(items);
    }

    pub(super) fn touched(&self) -> &BTreeSet<Item> {
        &self.touched
    }

    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Hears from a member, lets it in if it is new, and says how it goes on. A refusal changes nothing.
    pub(crate) fn heartbeat(
        &mut self,
        now: Millis,
        beat: &Beat,
        catalog: &Catalog,
        members_max: usize,
        timing: Timing,
    ) -> Result<Beaten, Refused> {
        let id = &beat.member_id;
        if self.members.len() >= members_max && !self.members.contains_key(id) {
            return Err(Refusal::GroupFull.into());
        }
        let (before, replaced) = self.find(beat)?;
        let profile = updated(&before.profile, beat);
        let pattern_changed = before.profile.pattern != profile.pattern;
        if let Some(pattern) = profile.pattern()
            && pattern_changed
            && !self.resolved.contains_key(pattern)
        {
            compile(pattern).map_err(|why| Refused {
                refusal: Refusal::InvalidPattern,
                why: format!("`{pattern}` is not a valid regular expression: {why}"),
            })?;
        }

        // Nothing is refused from here on.
        if let Some(old_id) = replaced {
            self.replace(&old_id, id, &before);
        }
        let topics_changed = before.profile.topics != profile.topics;
        let had_pattern = before.profile.pattern().is_some() || profile.pattern().is_some();
        self.enroll(id, &before, profile);
        self.renew(
            now,
            catalog,
            topics_changed || (pattern_changed && had_pattern),
        );
        self.retarget(now, catalog, timing);
        let changed = topics_changed || pattern_changed;
        self.reconcile(now, id, beat.owned.as_ref(), catalog, changed);

        let Some(member) = self.members.get_mut(id) else {
            return Err(Refusal::UnknownMember.into());
        };
        member.expires_at = now + Millis::from(timing.session_timeout_ms);
        (member.join_until, member.sync_until) = (None, None);
        let changed = member.progress.assigned != before.progress.assigned;
        let told = beat.epoch == 0 || beat.is_full() || changed;
        Ok(Beaten {
            member_id: id.clone(),
            epoch: member.progress.epoch,
            heartbeat_interval_ms: timing.heartbeat_interval_ms,
            assignment: told.then(|| partitions(&member.progress.assigned)),
        })
    }

    /// Returns the member that a heartbeat is of, as it was before; and the id of the one whose place it takes.
    fn find(&self, beat: &Beat) -> Result<(Member, Option<String>), Refused> {
        let joins = beat.epoch == 0;
        let known = self.members.get(&beat.member_id);
        let Some(instance) = &beat.instance_id else {
            return match known {
                Some(member) => check_epoch(member, beat).map(|()| (member.clone(), None)),
                None if joins => Ok((Member::default(), None)),
                None => Err(Refusal::UnknownMember.into()),
            };
        };
        let holder = self.instances.get(instance);
        let holder = holder.and_then(|id| self.members.get_key_value(id));
        match holder {
            None if joins => Ok((known.cloned().unwrap_or_default(), None)),
            None => Err(Refusal::UnknownMember.into()),
            Some((holder_id, member)) if joins => {
                if member.progress.epoch != AWAY && member.profile.classic.is_none() {
                    return Err(Refused {
                        refusal: Refusal::UnreleasedInstance,
                        why: format!("the instance id `{instance}` is owned by `{holder_id}`"),
                    });
                }
                let mut member = member.clone();
                member.progress.epoch = 0;
                member.progress.previous_epoch = 0;
                Ok((member, Some(holder_id.clone())))
            }
            Some((holder_id, member)) => {
                if *holder_id != beat.member_id {
                    return Err(Refusal::FencedInstance.into());
                }
                check_epoch(member, beat).map(|()| (member.clone(), None))
            }
        }
    }

    /// Gives a static member's place to the process that has come back under another id.
    pub(super) fn replace(&mut self, old_id: &str, new_id: &str, member: &Member) {
        let target = self.target.get(old_id).cloned();
        self.remove(old_id);
        if let Some(target) = target {
            self.target.insert(new_id.to_owned(), target);
        }
        for place in member.progress.held() {
            self.owners.insert(place, new_id.to_owned());
        }
        self.touched.extend([
            Item::Target(new_id.to_owned()),
            Item::Member(new_id.to_owned()),
            Item::Current(new_id.to_owned()),
        ]);
    }

    pub(super) fn enroll(&mut self, id: &str, before: &Member, profile: Profile) {
        if before.profile != profile || !self.members.contains_key(id) {
            self.touched.insert(Item::Member(id.to_owned()));
        }
        if let Some(instance) = &profile.instance_id {
            if let Some(old) = before
                .profile
                .instance_id
                .as_ref()
                .filter(|old| *old != instance)
            {
                self.instances.remove(old);
            }
            self.instances.insert(instance.clone(), id.to_owned());
        }
        let member = Member {
            profile,
            ..before.clone()
        };
        self.members.insert(id.to_owned(), member);
    }

    /// Begins a new epoch when it is `due` or when topics have changed under the group.
    pub(super) fn renew(&mut self, now: Millis, catalog: &Catalog, due: bool) {
        let stale = self.seen != Some(catalog.version);
        if !due && !stale {
            return;
        }
        let matched = self.resolve(now, catalog, stale);
        let fingerprint = self.fingerprint_of(catalog);
        self.seen = Some(catalog.version);
        if due || matched || fingerprint != self.fingerprint {
            self.epoch += 1;
            self.fingerprint = fingerprint;
            self.touched.insert(Item::Group);
        }
    }

    /// Brings the patterns' matches up to date, and says whether some have changed.
    fn resolve(&mut self, now: Millis, catalog: &Catalog, stale: bool) -> bool {
        self.forget_patterns();
        let used: BTreeSet<String> = self
            .members
            .values()
            .filter_map(|member| member.profile.pattern().map(str::to_owned))
            .collect();
        let mut changed = false;
        for pattern in used {
            let known = self.resolved.get(&pattern);
            if known.is_some() && !stale {
                continue;
            }
            let topics = match compile(&pattern) {
                Ok(compiled) => catalog.matching(&compiled),
                Err(_) => BTreeSet::new(), // an older version took it; it matches nothing now
            };
            if known.is_some_and(|known| known.topics == topics) {
                continue;
            }
            changed = true;
            self.touched.insert(Item::Pattern(pattern.clone()));
            let resolved = Resolved {
                topics,
                version: catalog.version,
                at_ms: now,
            };
            self.resolved.insert(pattern, resolved);
        }
        changed
    }

    fn forget_patterns(&mut self) {
        let (members, touched) = (&self.members, &mut self.touched);
        self.resolved.retain(|pattern, _| {
            let used = members
                .values()
                .any(|member| member.profile.pattern() == Some(pattern));
            if !used {
                touched.insert(Item::Pattern(pattern.clone()));
            }
            used
        });
    }

    fn fingerprint_of(&self, catalog: &Catalog) -> i64 {
        let named = self
            .members
            .values()
            .flat_map(|member| member.profile.topics.iter().map(String::as_str));
        let matched = self
            .resolved
            .values()
            .flat_map(|resolved| resolved.topics.iter().map(|name| &**name));
        let names: BTreeSet<&str> = named.chain(matched).collect();
        catalog.fingerprint(names.into_iter())
    }

    /// Brings the target up to the group's epoch, unless the one before is too young.
    pub(super) fn retarget(&mut self, now: Millis, catalog: &Catalog, timing: Timing) {
        let next_at = self.target_at_ms + Millis::from(timing.assignment_interval_ms);
        if self.target_epoch >= self.epoch || now < next_at {
            return;
        }
        let takers: Vec<Taker<'_>> = self
            .members
            .iter()
            .map(|(id, member)| Taker {
                id,
                instance_id: member.profile.instance_id.as_deref(),
                topics: self.reads(&member.profile, catalog),
                before: self.target.get(id),
            })
            .collect();
        let shares = assign(self.assignor(), &takers, catalog);
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

    /// The assignor that most members wish for.
    pub(super) fn assignor(&self) -> &'static str {
        let votes = |name: &str| {
            let wish = |member: &&Member| member.profile.assignor.as_deref() == Some(name);
            self.members.values().filter(wish).count()
        };
        let [first, rest @ ..] = ASSIGNORS;
        rest.into_iter()
            .filter(|name| votes(name) > votes(first))
            .max_by_key(|name| votes(name))
            .unwrap_or(first)
    }

    /// The topics that a member reads and that are there.
    fn reads(&self, profile: &Profile, catalog: &Catalog) -> BTreeSet<Uuid> {
        let resolved = profile.pattern().and_then(|name| self.resolved.get(name));
        let matched = resolved.into_iter().flat_map(|resolved| &resolved.topics);
        profile
            .topics
            .iter()
            .map(String::as_str)
            .chain(matched.map(|name| &**name))
            .filter_map(|name| catalog.id(name))
            .collect()
    }

    /// Takes a member's next step towards the target.
    pub(super) fn reconcile(
        &mut self,
        now: Millis,
        id: &str,
        reported: Option<&Partitions>,
        catalog: &Catalog,
        changed: bool,
    ) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        if !changed && member.progress.has_arrived(self.target_epoch) {
            return;
        }
        let nothing = Partitions::new();
        let mut progress = member.progress.clone();
        let subscribed = self.reads(&member.profile, catalog);
        Towards {
            target_epoch: self.target_epoch,
            target: self.target.get(id).unwrap_or(&nothing),
            subscribed: &subscribed,
            subscription_changed: changed,
            reported,
            is_free: &|topic, partition| !self.owners.contains_key(&(topic, partition)),
        }
        .step(&mut progress);
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if progress == member.progress {
            return;
        }
        for place in member.progress.held() {
            self.owners.remove(&place);
        }
        for place in progress.held() {
            self.owners.insert(place, id.to_owned());
        }
        // Members of the classic protocol are told to join again, and have until then.
        let hurries = !progress.revoking.is_empty() && member.profile.classic.is_none();
        member.revoke_until =
            hurries.then(|| now + Millis::from(member.profile.rebalance_timeout_ms));
        member.progress = progress;
        self.touched.insert(Item::Current(id.to_owned()));
    }

    /// Takes a member out, or notes that a static one is away for a while.
    pub(crate) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        epoch: i32,
        catalog: &Catalog,
    ) -> Result<(), Refused> {
        let id = match instance_id {
            None => member_id,
            Some(instance) => match self.instances.get(instance) {
                None => return Err(Refusal::UnknownMember.into()),
                Some(holder) if holder != member_id => {
                    return Err(Refusal::FencedInstance.into());
                }
                Some(_) => member_id,
            },
        };
        let Some(member) = self.members.get_mut(id) else {
            return Err(Refusal::UnknownMember.into());
        };
        if instance_id.is_none() || epoch != AWAY {
            self.fence(&[id.to_owned()], catalog);
            return Ok(());
        }
        let progress = &mut member.progress;
        for (topic, partitions) in std::mem::take(&mut progress.revoking) {
            for partition in partitions.into_keys() {
                self.owners.remove(&(topic, partition));
            }
        }
        progress.epoch = AWAY;
        let epochs = progress
            .assigned
            .values_mut()
            .flat_map(BTreeMap::values_mut);
        epochs.for_each(|epoch| *epoch = 0);
        member.revoke_until = None;
        self.touched.insert(Item::Current(id.to_owned()));
        Ok(())
    }

    /// Lets time pass: gives up members that were not heard from, or that do not give up their partitions.
    pub(crate) fn tick(&mut self, now: Millis, catalog: &Catalog) {
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.due_at() <= now)
            .map(|(id, _)| id.clone())
            .collect();
        if !expired.is_empty() {
            self.fence(&expired, catalog);
        }
    }

    pub(super) fn fence(&mut self, ids: &[String], catalog: &Catalog) {
        for id in ids {
            self.remove(id);
        }
        self.forget_patterns();
        self.epoch += 1;
        self.fingerprint = self.fingerprint_of(catalog);
        self.touched.insert(Item::Group);
    }

    fn remove(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        for place in member.progress.held() {
            self.owners.remove(&place);
        }
        if let Some(instance) = &member.profile.instance_id
            && self
                .instances
                .get(instance)
                .is_some_and(|holder| holder == id)
        {
            self.instances.remove(instance);
        }
        self.target.remove(id);
        self.touched.extend([
            Item::Member(id.to_owned()),
            Item::Target(id.to_owned()),
            Item::Current(id.to_owned()),
        ]);
    }

    /// Says which of some partitions a member may commit offsets for: those that it has since before `epoch`.
    pub(crate) fn may_commit<'a>(
        &self,
        member_id: &str,
        epoch: i32,
        catalog: &Catalog,
        places: impl Iterator<Item = (&'a str, i32)>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(places.map(|_| Ok(())).collect()); // an administrator
        }
        let member = self.members.get(member_id).ok_or(Refusal::UnknownMember)?;
        let progress = &member.progress;
        if member.profile.classic.is_some() {
            return match epoch == progress.epoch {
                true => Ok(places.map(|_| Ok(())).collect()),
                false => Err(Refusal::IllegalGeneration),
            };
        }
        if epoch > progress.epoch {
            return Err(Refusal::StaleEpoch);
        }
        let check = |(topic, partition): (&str, i32)| {
            let given = || progress.epoch_of(catalog.id(topic)?, partition);
            match epoch == progress.epoch || given().is_some_and(|given| epoch >= given) {
                true => Ok(()),
                false => Err(Refusal::StaleEpoch),
            }
        };
        Ok(places.map(check).collect())
    }

    /// Checks that whoever asks for offsets on behalf of a member is still that member.
    pub(crate) fn may_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), Refusal> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.members.get(id));
        let member = member.ok_or(Refusal::UnknownMember)?;
        match epoch == member.progress.epoch {
            true => Ok(()),
            false if member.profile.classic.is_some() => Err(Refusal::IllegalGeneration),
            false => Err(Refusal::StaleEpoch),
        }
    }

    /// Returns whether some member reads a topic.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        let named = |member: &Member| member.profile.topics.contains(topic);
        self.members.values().any(named)
            || self
                .resolved
                .values()
                .any(|resolved| resolved.topics.contains(topic))
    }

    #[cfg(test)]
    pub(super) fn owners(&self) -> &HashMap<(Uuid, i32), String> {
        &self.owners
    }
}

/// The profile with what a heartbeat says anew.
fn updated(before: &Profile, beat: &Beat) -> Profile {
    let newer = |new: &Option<String>, old: &Option<String>| new.clone().or_else(|| old.clone());
    Profile {
        instance_id: newer(&beat.instance_id, &before.instance_id),
        rack_id: newer(&beat.rack_id, &before.rack_id),
        client_id: beat.client_id.clone(),
        client_host: beat.client_host.clone(),
        rebalance_timeout_ms: beat
            .rebalance_timeout_ms
            .unwrap_or(before.rebalance_timeout_ms),
        topics: match &beat.topics {
            Some(topics) => topics.iter().cloned().collect(),
            None => before.topics.clone(),
        },
        pattern: newer(&beat.pattern, &before.pattern),
        assignor: newer(&beat.assignor, &before.assignor),
        classic: None,
    }
}

/// A member may be one epoch behind if it owns nothing that it was not given: the answer may have been lost.
fn check_epoch(member: &Member, beat: &Beat) -> Result<(), Refused> {
    let progress = &member.progress;
    let behind = || {
        beat.epoch == progress.previous_epoch
            && beat.owned.as_ref().is_some_and(|owned| {
                owned.iter().all(|(topic, some)| {
                    let given = progress.assigned.get(topic);
                    given.is_some_and(|given| some.iter().all(|one| given.contains_key(one)))
                })
            })
    };
    if beat.epoch == 0 || beat.epoch == progress.epoch || (beat.epoch < progress.epoch && behind())
    {
        return Ok(());
    }
    Err(Refused {
        refusal: Refusal::FencedEpoch,
        why: format!(
            "the member's epoch is {}, not {}: it must give up its partitions and join again",
            progress.epoch, beat.epoch
        ),
    })
}
