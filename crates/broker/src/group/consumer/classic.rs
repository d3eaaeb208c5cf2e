//! Members that speak the classic protocol in a group whose partitions the broker assigns.
//!
//! Such a group is on its way from the classic protocol to the newer one, or back, member by member (KIP-848). A
//! classic member joins, syncs and beats as ever; that it has to give up partitions, or may take some, it is told as a
//! rebalance, so that it joins again. The order of checks and the error in each state are Apache Kafka's.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka::messages::Message;
use kafka::messages::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition,
};
use kafka::wire::{DecodeError, EncodeError, Reader, Wire};

use super::catalog::Catalog;
use super::machine::Group;
use super::member::{Classic, Epochs, Member, Partitions, Profile, Progress, Standing, partitions};
use super::records::Item;
use crate::group::machine::Group as ClassicGroup;
use crate::group::member::{Member as ClassicMember, Millis, Protocol};
use crate::group::settings::Timing;
use crate::group::terms::{Join, Joined, Refusal, Rules, Sync, Synced};

/// The protocol type of consumers.
pub(crate) const CONSUMERS: &str = "consumer";

impl Group {
    /// Takes over a classic group: its members have what their leader gave them.
    ///
    /// # Errors
    /// When what the members or the leader have said is not in the consumers' format.
    pub(crate) fn from_classic(
        now: Millis,
        classic: &ClassicGroup,
        catalog: &Catalog,
    ) -> Result<Self, DecodeError> {
        let mut group = Self::new();
        let (generation, protocol) = classic.consumers().unwrap_or_default();
        (group.epoch, group.target_epoch) = (generation, generation);
        for member in classic.members() {
            let said = ConsumerProtocolSubscription::from_versioned(&member.metadata(protocol))?;
            let mut assigned = Epochs::new();
            for (topic, some) in given(&member.assignment, catalog)? {
                let epochs = some.into_iter().map(|partition| (partition, generation));
                assigned.insert(topic, epochs.collect());
            }
            let id = &member.id;
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), id.clone());
            }
            group.target.insert(id.clone(), partitions(&assigned));
            let progress = Progress {
                epoch: generation,
                previous_epoch: generation,
                standing: Standing::Stable,
                assigned,
                revoking: Epochs::new(),
            };
            for place in progress.held() {
                group.owners.insert(place, id.clone());
            }
            let profile = Profile {
                instance_id: member.instance_id.clone(),
                rack_id: said.rack_id,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                topics: said.topics.into_iter().collect(),
                pattern: None,
                assignor: None,
                classic: Some(Classic {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member.protocols.clone(),
                }),
            };
            let member = Member {
                profile,
                progress,
                expires_at: now + Millis::from(member.session_timeout_ms),
                ..Member::default()
            };
            group.members.insert(id.clone(), member);
        }
        group.touched = group.everything();
        Ok(group)
    }

    /// Everything of the group that is stored.
    pub(super) fn everything(&self) -> BTreeSet<Item> {
        let members = self.members.keys().flat_map(|id| {
            [
                Item::Member(id.clone()),
                Item::Target(id.clone()),
                Item::Current(id.clone()),
            ]
        });
        let patterns = self.resolved.keys().cloned().map(Item::Pattern);
        let whole = [Item::Group, Item::TargetEpoch];
        members.chain(patterns).chain(whole).collect()
    }

    /// Whether somebody is in the group, and everybody speaks the classic protocol.
    pub(crate) fn is_classic(&self) -> bool {
        let mut members = self.members.values();
        !self.members.is_empty() && members.all(|member| member.profile.classic.is_some())
    }

    pub(crate) fn speaks_classic(&self, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        member.is_some_and(|member| member.profile.classic.is_some())
    }

    /// Returns the epoch, and the members of the classic group that this one becomes.
    pub(crate) fn to_classic(
        &self,
        now: Millis,
        catalog: &Catalog,
    ) -> Result<(i32, Vec<ClassicMember>), EncodeError> {
        let nothing = Partitions::new();
        let mut members = Vec::with_capacity(self.members.len());
        for (id, member) in &self.members {
            let Some(classic) = &member.profile.classic else {
                continue;
            };
            let target = self.target.get(id).unwrap_or(&nothing);
            let profile = &member.profile;
            members.push(ClassicMember {
                id: id.clone(),
                instance_id: profile.instance_id.clone(),
                client_id: profile.client_id.clone(),
                client_host: profile.client_host.clone(),
                session_timeout_ms: classic.session_timeout_ms,
                rebalance_timeout_ms: profile.rebalance_timeout_ms,
                assignment: written(classic, target, catalog)?,
                protocols: classic.protocols.clone(),
                expires_at: now + Millis::from(classic.session_timeout_ms),
                joining: None,
                syncing: None,
                is_new: false,
                sync_due: false,
                carried: Some(member.progress.epoch),
            });
        }
        Ok((self.epoch, members))
    }

    /// Lets a member of the classic protocol in, or takes it to the next generation; a refusal changes nothing.
    pub(crate) fn join(
        &mut self,
        now: Millis,
        join: &Join,
        catalog: &Catalog,
        rules: &Rules,
        timing: Timing,
    ) -> Result<Joined, (Refusal, String)> {
        let fresh = join.member_id.is_empty();
        let id = match fresh {
            true => &join.fresh_id,
            false => &join.member_id,
        };
        let refuse = |refusal| (refusal, String::new());
        let allowed = rules.session_timeout_min_ms..=rules.session_timeout_max_ms;
        if !allowed.contains(&join.session_timeout_ms) {
            return Err((Refusal::InvalidSessionTimeout, join.member_id.clone()));
        }
        if self.members.len() >= rules.members_max && !self.members.contains_key(id) {
            return Err(refuse(Refusal::GroupFull));
        }
        let said = match self.supports(join) {
            Some(protocol) => ConsumerProtocolSubscription::from_versioned(&protocol.metadata),
            None => return Err(refuse(Refusal::InconsistentProtocol)),
        };
        let said = said.map_err(|_| refuse(Refusal::InconsistentProtocol))?;
        if join.id_required && fresh {
            return Err((Refusal::MemberIdRequired, id.clone()));
        }
        let (before, replaced) = self.find_classic(join, id, fresh).map_err(refuse)?;

        // Nothing is refused from here on.
        if let Some(old_id) = replaced {
            self.replace(&old_id, id, &before);
        }
        let owned = named(&said.owned_partitions, catalog);
        let profile = Profile {
            instance_id: join.instance_id.clone(),
            rack_id: said.rack_id.or_else(|| before.profile.rack_id.clone()),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            topics: said.topics.into_iter().collect(),
            pattern: None,
            assignor: before.profile.assignor.clone(),
            classic: Some(Classic {
                session_timeout_ms: join.session_timeout_ms,
                protocols: join.protocols.clone(),
            }),
        };
        let changed = before.profile.topics != profile.topics || before.profile.pattern().is_some();
        self.enroll(id, &before, profile);
        self.renew(now, catalog, changed);
        self.retarget(now, catalog, timing);
        self.reconcile(now, id, Some(&owned), catalog, changed);

        let Some(member) = self.members.get_mut(id) else {
            return Err(refuse(Refusal::UnknownMember));
        };
        member.expires_at = now + Millis::from(join.session_timeout_ms);
        member.revoke_until = None;
        member.join_until = None;
        member.sync_until = Some(now + Millis::from(join.rebalance_timeout_ms));
        Ok(Joined {
            generation: member.progress.epoch,
            protocol_type: Some(CONSUMERS.to_owned()),
            protocol: join.protocols.first().map(|one| one.name.clone()),
            leader: String::new(), // the broker assigns
            skip_assignment: false,
            member_id: id.clone(),
            members: Vec::new(),
        })
    }

    /// Returns what a member offers first, if the classic members have some of what it offers in common.
    fn supports<'a>(&self, join: &'a Join) -> Option<&'a Protocol> {
        let classic = || {
            let members = self.members.values();
            members.filter_map(|member| member.profile.classic.as_ref())
        };
        let all_know = |offered: &Protocol| {
            classic().all(|one| one.protocols.iter().any(|known| known.name == offered.name))
        };
        let fits = join.protocol_type == CONSUMERS && join.protocols.iter().any(all_know);
        join.protocols.first().filter(|_| fits)
    }

    /// Returns the member that joins, as it was before; and the id of the one whose place it takes.
    fn find_classic(
        &self,
        join: &Join,
        id: &str,
        fresh: bool,
    ) -> Result<(Member, Option<String>), Refusal> {
        let Some(instance) = &join.instance_id else {
            return Ok((self.members.get(id).cloned().unwrap_or_default(), None));
        };
        let holder = self.instances.get(instance);
        let holder = holder.and_then(|id| self.members.get_key_value(id));
        match holder {
            None if fresh => Ok((Member::default(), None)),
            None => Err(Refusal::UnknownMember),
            Some((holder_id, member)) if fresh => {
                let mut member = member.clone();
                member.progress.epoch = 0;
                member.progress.previous_epoch = 0;
                Ok((member, Some(holder_id.clone())))
            }
            Some((holder_id, _)) if holder_id != id => Err(Refusal::FencedInstance),
            Some((_, member)) => Ok((member.clone(), None)),
        }
    }

    /// Returns a member that speaks the classic protocol.
    fn classic_member(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<&mut Member, Refusal> {
        let member = self.member(member_id, instance_id)?;
        match member.profile.classic {
            Some(_) => Ok(member),
            None => Err(Refusal::UnknownMember),
        }
    }

    fn member(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<&mut Member, Refusal> {
        if let Some(instance) = instance_id {
            match self.instances.get(instance) {
                None => return Err(Refusal::UnknownMember),
                Some(holder) if holder != member_id => return Err(Refusal::FencedInstance),
                Some(_) => (),
            }
        }
        self.members
            .get_mut(member_id)
            .ok_or(Refusal::UnknownMember)
    }

    /// Tells a member of the classic protocol what it has.
    pub(crate) fn sync(
        &mut self,
        now: Millis,
        sync: &Sync,
        catalog: &Catalog,
    ) -> Result<Synced, Refusal> {
        let epoch = self.epoch;
        let member = self.classic_member(&sync.member_id, sync.instance_id.as_deref())?;
        let progress = &member.progress;
        if progress.epoch != sync.generation {
            return Err(Refusal::IllegalGeneration);
        }
        let Some(classic) = &member.profile.classic else {
            return Err(Refusal::UnknownMember);
        };
        let name = classic.protocols.first().map(|one| &one.name);
        let other_type = |kind: &String| kind != CONSUMERS;
        let other_name = |asked: &String| Some(asked) != name;
        if sync.protocol_type.as_ref().is_some_and(other_type)
            || sync.protocol.as_ref().is_some_and(other_name)
        {
            return Err(Refusal::InconsistentProtocol);
        }
        if epoch > progress.epoch && progress.standing != Standing::Unrevoked {
            member.hurry(now);
            return Err(Refusal::RebalanceInProgress);
        }
        let owned = partitions(&progress.assigned);
        let assignment = written(classic, &owned, catalog).map_err(|_| Refusal::NotStored)?;
        member.sync_until = None;
        let timeout = classic.session_timeout_ms;
        member.expires_at = now + Millis::from(timeout);
        Ok(Synced {
            protocol_type: sync.protocol_type.clone(),
            protocol: sync.protocol.clone(),
            assignment,
        })
    }

    /// Hears that a member of the classic protocol is alive; that it has to join again is told as a refusal.
    pub(crate) fn beat_classic(
        &mut self,
        now: Millis,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        let epoch = self.epoch;
        let waits = self.waits(member_id);
        let member = self.classic_member(member_id, instance_id)?;
        if member.progress.epoch != generation {
            return Err(Refusal::IllegalGeneration);
        }
        let timeout = member.profile.classic.as_ref();
        let timeout = timeout.map_or(0, |classic| classic.session_timeout_ms);
        member.expires_at = now + Millis::from(timeout);
        let must_join = member.progress.epoch < epoch
            || match member.progress.standing {
                Standing::Stable => false,
                Standing::Unrevoked => true,
                Standing::Unreleased => !waits,
            };
        if must_join {
            member.hurry(now);
            return Err(Refusal::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether others still have some of what a member shall have.
    fn waits(&self, member_id: &str) -> bool {
        let Some(member) = self.members.get(member_id) else {
            return false;
        };
        let target = self.target.get(member_id).into_iter().flatten();
        let mut places = target.flat_map(|(topic, some)| some.iter().map(|one| (*topic, *one)));
        places.any(|(topic, one)| {
            member.progress.epoch_of(topic, one).is_none()
                && self.owners.contains_key(&(topic, one))
        })
    }

    /// Takes members out that leave as the classic protocol has it, or that an administrator removes; the answer has
    /// one result for each, as `(member id, instance id)` named it.
    pub(crate) fn leave_classic(
        &mut self,
        leavers: &[(String, Option<String>)],
        catalog: &Catalog,
    ) -> Vec<Result<(), Refusal>> {
        let mut gone = Vec::new();
        let mut results = Vec::with_capacity(leavers.len());
        for (member_id, instance_id) in leavers {
            let held = instance_id.as_ref().and_then(|id| self.instances.get(id));
            let id = match held {
                Some(holder) if member_id.is_empty() => holder.clone(),
                _ => member_id.clone(),
            };
            let found = self.member(&id, instance_id.as_deref());
            let result = match found.map(|_| ()) {
                Ok(()) if gone.contains(&id) => Err(Refusal::UnknownMember),
                Ok(()) => {
                    gone.push(id);
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            };
            results.push(result);
        }
        if !gone.is_empty() {
            self.fence(&gone, catalog);
        }
        results
    }
}

impl Member {
    /// Gives the member until its rebalance time-out to join again, unless that runs already.
    fn hurry(&mut self, now: Millis) {
        let until = now + Millis::from(self.profile.rebalance_timeout_ms);
        self.join_until.get_or_insert(until);
    }
}

/// Reads what a leader gave a member; nothing when it has not assigned yet.
fn given(assignment: &Bytes, catalog: &Catalog) -> Result<Partitions, DecodeError> {
    if assignment.is_empty() {
        return Ok(Partitions::new());
    }
    let assignment = ConsumerProtocolAssignment::from_versioned(assignment)?;
    Ok(named(&assignment.assigned_partitions, catalog))
}

/// Topics that are gone are left out.
fn named(list: &[TopicPartition], catalog: &Catalog) -> Partitions {
    let mut all = Partitions::new();
    for one in list {
        if let Some(topic) = catalog.id(&one.topic)
            && !one.partitions.is_empty()
        {
            all.entry(topic).or_default().extend(&one.partitions);
        }
    }
    all
}

/// Writes an assignment in the version that the member speaks.
fn written(classic: &Classic, owned: &Partitions, catalog: &Catalog) -> Result<Bytes, EncodeError> {
    let first = classic.protocols.first();
    let version = first.and_then(|one| i16::read(&mut Reader::new(&one.metadata)).ok());
    let last = *ConsumerProtocolAssignment::VERSIONS.end();
    let version = version.map_or(0, |version| version.clamp(0, last));
    let topics = owned.iter().filter_map(|(topic, partitions)| {
        Some(TopicPartition {
            topic: catalog.name(*topic)?.to_string(),
            partitions: partitions.iter().copied().collect(),
        })
    });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: topics.collect(),
        user_data: None,
    };
    assignment.to_versioned(version)
}
