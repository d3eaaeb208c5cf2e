//! The rules of a classic consumer group as a pure state machine: `state + input + now → effects`.
//!
//! ```text
//! Empty ──join──▶ PreparingRebalance ──all joined or time is up──▶ CompletingRebalance
//!   ▲                 ▲        ▲                                        │ leader's sync is stored
//!   └──last one left──┘        └──── join, leave, expiry ──── Stable ◀──┘
//! ```
//! The order of checks and the error in each state are Apache Kafka's.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::consumer::classic::CONSUMERS;
use super::member::{Member, Millis, Protocol, Ticket};
use super::terms::{
    After, Effect, Join, Joined, MemberSnapshot, Refusal, Rules, Snapshot, State, Sync, Synced,
};

mod round;

/// How long a member may wait for its very first generation; it may have died in the meantime.
const FIRST_JOIN_MAX_MS: Millis = 5 * 60 * 1000;

/// One classic consumer group.
///
/// Every ticket is answered exactly once: at once, or by the effect that ends the wait.
#[derive(Debug)]
pub(crate) struct Group {
    state: State,
    since_ms: Millis,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Static members: instance id → member id.
    instances: BTreeMap<String, String>,
    /// Ids that were handed out with `MEMBER_ID_REQUIRED`, and when each is forgotten.
    pending: BTreeMap<String, Millis>,
    /// When the present round of joins ends, come who may.
    join_until: Option<Millis>,
    /// While an empty group gathers its first members: how much longer than `join_until` it may wait.
    gathering: Option<Gathering>,
    /// When members that did not ask for their assignment are given up.
    sync_until: Option<Millis>,
    /// The leader's assignment while it is being stored.
    proposed: Option<BTreeMap<String, Bytes>>,
}

#[derive(Debug)]
struct Gathering {
    joined_lately: bool,
    remaining_ms: Millis,
}

impl Group {
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            state: State::Empty,
            since_ms: now,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            join_until: None,
            gathering: None,
            sync_until: None,
            proposed: None,
        }
    }

    /// Brings a group back after a restart; its members have a whole session to be heard from.
    pub(crate) fn restore(snapshot: Snapshot, now: Millis) -> Self {
        let mut group = Self::new(snapshot.since_ms);
        group.generation = snapshot.generation;
        group.protocol_type = snapshot.protocol_type;
        group.protocol = snapshot.protocol;
        group.leader = snapshot.leader;
        let protocol = group.protocol.clone().unwrap_or_default();
        for member in snapshot.members {
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), member.id.clone());
            }
            let mut member = Member {
                protocols: vec![Protocol {
                    name: protocol.clone(),
                    metadata: member.subscription,
                }],
                id: member.id,
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                session_timeout_ms: member.session_timeout_ms,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                assignment: member.assignment,
                expires_at: now,
                joining: None,
                syncing: None,
                is_new: false,
                sync_due: false,
                carried: None,
            };
            member.heard(now);
            group.members.insert(member.id.clone(), member);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group
    }

    /// Makes a group of the members of one whose partitions the broker has assigned until now.
    pub(crate) fn of_consumers(now: Millis, generation: i32, members: Vec<Member>) -> Self {
        let mut group = Self::new(now);
        group.generation = generation;
        group.protocol_type = Some(CONSUMERS.to_owned());
        for member in members {
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), member.id.clone());
            }
            group.members.insert(member.id.clone(), member);
        }
        group.protocol = group.select_protocol();
        group.leader = group.members.keys().next().cloned();
        group.state = State::Stable;
        group
    }

    /// Returns the generation and the protocol of a group of consumers that have agreed on one.
    pub(crate) fn consumers(&self) -> Option<(i32, &str)> {
        let consumers = self.protocol_type.as_deref() == Some(CONSUMERS);
        let protocol = self.protocol.as_deref()?;
        (consumers && !self.members.is_empty()).then_some((self.generation, protocol))
    }

    /// Tells everybody who waits to join again, because the broker assigns from now on.
    pub(crate) fn dissolve(mut self, out: &mut Vec<Effect>) {
        self.refuse_syncs(Refusal::RebalanceInProgress, out);
        for (id, member) in self.members {
            if let Some(ticket) = member.joining {
                let refusal = (Refusal::RebalanceInProgress, id);
                out.push(Effect::Joined(ticket, Err(refusal)));
            }
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When the group came to its present state.
    pub(crate) fn since_ms(&self) -> Millis {
        self.since_ms
    }

    #[cfg(test)]
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub(crate) fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// True when nobody is in the group or on the way into it.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// The next moment at which [`Group::tick`] has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Millis> {
        self.members
            .values()
            .map(|member| member.expires_at)
            .chain(self.pending.values().copied())
            .chain(self.join_until)
            .chain(self.sync_until)
            .min()
    }

    /// Takes part in the next generation.
    pub(crate) fn join(&mut self, now: Millis, join: Join, rules: &Rules, out: &mut Vec<Effect>) {
        let ticket = join.ticket;
        let member_id = join.member_id.clone();
        if let Err(refusal) = self.try_join(now, join, rules, out) {
            out.push(Effect::Joined(ticket, Err((refusal, member_id))));
        }
    }

    fn try_join(
        &mut self,
        now: Millis,
        join: Join,
        rules: &Rules,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if join.session_timeout_ms < rules.session_timeout_min_ms
            || join.session_timeout_ms > rules.session_timeout_max_ms
        {
            return Err(Refusal::InvalidSessionTimeout);
        }
        if !self.members.contains_key(&join.member_id)
            && self.members.len() + self.pending.len() >= rules.members_max
            && !self.pending.contains_key(&join.member_id)
        {
            return Err(Refusal::GroupFull);
        }
        if !self.can_agree(&join) {
            return Err(Refusal::InconsistentProtocol);
        }
        if join.member_id.is_empty() {
            return self.join_unknown(now, join, rules, out);
        }
        if self.pending.contains_key(&join.member_id) {
            if join.instance_id.is_some() {
                return Err(Refusal::UnknownMember);
            }
            let id = join.member_id.clone();
            self.add(now, id, join, rules, out);
            return Ok(());
        }
        self.validate(&join.member_id, join.instance_id.as_deref())?;
        self.join_again(now, join, rules, out)
    }

    /// A member without an id.
    fn join_unknown(
        &mut self,
        now: Millis,
        join: Join,
        rules: &Rules,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let id = join.fresh_id.clone();
        if let Some(instance) = &join.instance_id {
            match self.instances.get(instance).cloned() {
                Some(old_id) => self.replace(now, &old_id, join, rules, out),
                None => self.add(now, id, join, rules, out),
            }
        } else if join.id_required {
            let forgotten_at = now + Millis::from(join.session_timeout_ms);
            self.pending.insert(id.clone(), forgotten_at);
            out.push(Effect::Joined(
                join.ticket,
                Err((Refusal::MemberIdRequired, id)),
            ));
        } else {
            self.add(now, id, join, rules, out);
        }
        Ok(())
    }

    /// A member that the group knows.
    fn join_again(
        &mut self,
        now: Millis,
        join: Join,
        rules: &Rules,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let member = &self.members[&join.member_id];
        let unchanged = member.protocols == join.protocols;
        let leads = self.leader.as_deref() == Some(&join.member_id);
        match self.state {
            State::Empty => return Err(Refusal::UnknownMember),
            // The answer to the first join may have been lost: tell the same generation again.
            State::CompletingRebalance if unchanged => {
                let joined = self.joined(&join.member_id, leads);
                out.push(Effect::Joined(join.ticket, Ok(joined)));
                self.heard(now, &join.member_id);
            }
            // A follower that changed nothing stays; a leader that joins asks for a rebalance.
            State::Stable if unchanged && !leads => {
                let joined = self.joined(&join.member_id, false);
                out.push(Effect::Joined(join.ticket, Ok(joined)));
                self.heard(now, &join.member_id);
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.update(now, join, rules, out);
            }
        }
        Ok(())
    }

    fn add(&mut self, now: Millis, id: String, join: Join, rules: &Rules, out: &mut Vec<Effect>) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        if let Some(gathering) = &mut self.gathering {
            gathering.joined_lately = true;
        }
        let member = Member {
            id: id.clone(),
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            expires_at: now + FIRST_JOIN_MAX_MS,
            joining: Some(join.ticket),
            syncing: None,
            is_new: true,
            sync_due: false,
            carried: None,
        };
        self.members.insert(id, member);
        self.rebalance(now, rules, out);
    }

    fn update(&mut self, now: Millis, join: Join, rules: &Rules, out: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(&join.member_id) else {
            return;
        };
        member.protocols = join.protocols;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        let id = member.id.clone();
        if let Some(earlier) = member.joining.replace(join.ticket) {
            let refusal = (Refusal::RebalanceInProgress, id);
            out.push(Effect::Joined(earlier, Err(refusal)));
        }
        self.rebalance(now, rules, out);
    }

    /// A static member came back without its member id: the new process takes the old one's place.
    fn replace(
        &mut self,
        now: Millis,
        old_id: &str,
        join: Join,
        rules: &Rules,
        out: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(old_id) else {
            return;
        };
        let new_id = join.fresh_id;
        if let Some(ticket) = member.joining.take() {
            let refusal = (Refusal::FencedInstance, old_id.to_owned());
            out.push(Effect::Joined(ticket, Err(refusal)));
        }
        if let Some(ticket) = member.syncing.take() {
            out.push(Effect::Synced(ticket, Err(Refusal::FencedInstance)));
        }
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), new_id.clone());
        }
        let old_leader = self.leader.clone().unwrap_or_default();
        if old_leader == old_id {
            self.leader = Some(new_id.clone());
        }
        member.id = new_id.clone();
        member.protocols = join.protocols;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.sync_due = false;
        member.heard(now);
        if self.state != State::Stable {
            member.joining = Some(join.ticket);
        }
        self.members.insert(new_id.clone(), member);
        if self.state != State::Stable {
            self.rebalance(now, rules, out);
            return;
        }
        // Nothing changes for the others when the group would choose the same protocol again.
        if self.select_protocol() == self.protocol {
            let leads = self.leader.as_deref() == Some(&new_id);
            let mut joined = self.joined(&new_id, leads && join.may_skip_assignment);
            joined.skip_assignment = leads && join.may_skip_assignment;
            if !join.may_skip_assignment {
                // An old client would assign anew when told that it leads: name the id that is gone.
                joined.leader = old_leader;
            }
            let ticket = join.ticket;
            let after = After::Replace { ticket, joined };
            out.push(Effect::Store(self.snapshot(), after));
            return;
        }
        if let Some(member) = self.members.get_mut(&new_id) {
            member.joining = Some(join.ticket);
        }
        self.rebalance(now, rules, out);
    }

    /// Asks for the assignment of the generation that has begun.
    pub(crate) fn sync(&mut self, now: Millis, sync: Sync, out: &mut Vec<Effect>) {
        let ticket = sync.ticket;
        if let Err(refusal) = self.try_sync(now, sync, out) {
            out.push(Effect::Synced(ticket, Err(refusal)));
        }
    }

    fn try_sync(&mut self, now: Millis, sync: Sync, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.validate(&sync.member_id, sync.instance_id.as_deref())?;
        if sync.generation != self.generation_of(&sync.member_id) {
            return Err(Refusal::IllegalGeneration);
        }
        let differs = |asked: &Option<String>, ours: &Option<String>| {
            asked.is_some() && ours.is_some() && asked != ours
        };
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(Refusal::InconsistentProtocol);
        }
        match self.state {
            State::Empty => Err(Refusal::UnknownMember),
            State::PreparingRebalance => Err(Refusal::RebalanceInProgress),
            State::Stable => {
                self.heard(now, &sync.member_id);
                let synced = self.synced(&sync.member_id);
                out.push(Effect::Synced(sync.ticket, Ok(synced)));
                Ok(())
            }
            State::CompletingRebalance => {
                self.await_assignment(now, sync, out);
                Ok(())
            }
        }
    }

    fn await_assignment(&mut self, now: Millis, sync: Sync, out: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(&sync.member_id) else {
            return;
        };
        member.sync_due = false;
        member.heard(now);
        if let Some(earlier) = member.syncing.replace(sync.ticket) {
            let refusal = Err(Refusal::RebalanceInProgress);
            out.push(Effect::Synced(earlier, refusal));
        }
        if self.leader.as_deref() != Some(&sync.member_id) || self.proposed.is_some() {
            return;
        }
        let mut proposed: BTreeMap<String, Bytes> = sync.assignments.into_iter().collect();
        proposed.retain(|id, _| self.members.contains_key(id));
        let mut snapshot = self.snapshot();
        for member in &mut snapshot.members {
            member.assignment = proposed.get(&member.id).cloned().unwrap_or_default();
        }
        self.proposed = Some(proposed);
        let generation = self.generation;
        out.push(Effect::Store(snapshot, After::Assign { generation }));
    }

    /// Hears that a snapshot is durable, or that it could not be written.
    pub(crate) fn stored(
        &mut self,
        now: Millis,
        after: After,
        durable: bool,
        rules: &Rules,
        out: &mut Vec<Effect>,
    ) {
        match after {
            After::Nothing => (),
            After::Replace { ticket, joined } => {
                let id = joined.member_id.clone();
                let answer = match (durable, self.members.contains_key(&id)) {
                    (true, true) => Ok(joined),
                    (true, false) => Err((Refusal::UnknownMember, id)),
                    (false, _) => Err((Refusal::NotStored, id)),
                };
                out.push(Effect::Joined(ticket, answer));
            }
            After::Assign { generation } => {
                if self.state != State::CompletingRebalance || self.generation != generation {
                    return; // a newer round has begun, and has answered everybody
                }
                let proposed = self.proposed.take().unwrap_or_default();
                if !durable {
                    self.refuse_syncs(Refusal::NotStored, out);
                    self.rebalance(now, rules, out);
                    return;
                }
                for member in self.members.values_mut() {
                    member.assignment = proposed.get(&member.id).cloned().unwrap_or_default();
                }
                self.enter(now, State::Stable);
                let waiting: Vec<(String, Ticket)> = self
                    .members
                    .values_mut()
                    .filter_map(|member| {
                        member.syncing.take().map(|ticket| {
                            member.heard(now);
                            (member.id.clone(), ticket)
                        })
                    })
                    .collect();
                for (id, ticket) in waiting {
                    out.push(Effect::Synced(ticket, Ok(self.synced(&id))));
                }
            }
        }
    }

    /// Says that a member is alive; a rebalance is told as a refusal.
    pub(crate) fn heartbeat(
        &mut self,
        now: Millis,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        self.validate(member_id, instance_id)?;
        if generation != self.generation_of(member_id) {
            return Err(Refusal::IllegalGeneration);
        }
        if self.state == State::Empty {
            return Err(Refusal::UnknownMember);
        }
        self.heard(now, member_id);
        match self.state {
            State::PreparingRebalance => Err(Refusal::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Takes members out; the answer has one result for each, as `(member id, instance id)` named it.
    pub(crate) fn leave(
        &mut self,
        now: Millis,
        leavers: &[(String, Option<String>)],
        rules: &Rules,
        out: &mut Vec<Effect>,
    ) -> Vec<Result<(), Refusal>> {
        let mut left = false;
        let mut results = Vec::with_capacity(leavers.len());
        for (member_id, instance_id) in leavers {
            let id = match instance_id {
                Some(instance) if member_id.is_empty() => self.instances.get(instance).cloned(),
                _ => Some(member_id.clone()),
            };
            let result = match id {
                None => Err(Refusal::UnknownMember),
                Some(id) if self.pending.remove(&id).is_some() => {
                    left = true;
                    Ok(())
                }
                Some(id) => self.validate(&id, instance_id.as_deref()).map(|()| {
                    self.remove(&id, out);
                    left = true;
                }),
            };
            results.push(result);
        }
        if left {
            self.after_removal(now, rules, out);
        }
        results
    }

    /// Lets time pass: gives up members that were not heard from, and ends rounds that are over.
    pub(crate) fn tick(&mut self, now: Millis, rules: &Rules, out: &mut Vec<Effect>) {
        let before = self.members.len() + self.pending.len();
        self.pending.retain(|_, forgotten_at| *forgotten_at > now);
        let expired: Vec<String> = self
            .members
            .values()
            .filter(|member| member.expires_at <= now)
            .map(|member| member.id.clone())
            .collect();
        for id in expired {
            match self.members.get_mut(&id) {
                // We keep it waiting, so its silence is our doing.
                Some(member)
                    if !member.is_new && (member.joining.is_some() || member.syncing.is_some()) =>
                {
                    member.heard(now);
                }
                _ => self.remove(&id, out),
            }
        }
        if self.sync_until.is_some_and(|until| until <= now) {
            self.sync_until = None;
            let silent: Vec<String> = self
                .members
                .values()
                .filter(|member| member.sync_due)
                .map(|member| member.id.clone())
                .collect();
            for id in silent {
                self.remove(&id, out);
            }
        }
        if self.members.len() + self.pending.len() < before {
            self.after_removal(now, rules, out);
        }
        if self.join_until.is_some_and(|until| until <= now) {
            self.join_until = None;
            match &mut self.gathering {
                Some(gathering) if gathering.joined_lately && gathering.remaining_ms > 0 => {
                    let wait = rules.initial_delay_ms.min(gathering.remaining_ms);
                    gathering.joined_lately = false;
                    gathering.remaining_ms -= wait;
                    self.join_until = Some(now + wait);
                }
                _ => self.begin_generation(now, out),
            }
        }
    }

    /// Checks that an offset commit may be accepted; one that may counts as a sign of life.
    pub(crate) fn may_commit(
        &mut self,
        now: Millis,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        if generation < 0 && self.state == State::Empty {
            return Ok(()); // an administrator, or a consumer that does without the group
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(Refusal::UnknownMember);
        }
        self.validate(member_id, instance_id)?;
        if generation != self.generation_of(member_id) {
            return Err(Refusal::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(Refusal::RebalanceInProgress);
        }
        self.heard(now, member_id);
        Ok(())
    }

    /// Checks that an offset commit of a transaction may be accepted: before Kafka 2.5 producers did not tell
    /// on whose behalf they commit, and a rebalance does not keep them from it.
    pub(crate) fn may_commit_in_transaction(
        &mut self,
        now: Millis,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        let named = generation >= 0 || !member_id.is_empty() || instance_id.is_some();
        if !named || (generation < 0 && self.state == State::Empty) {
            return Ok(());
        }
        self.validate(member_id, instance_id)?;
        if generation != self.generation_of(member_id) {
            return Err(Refusal::IllegalGeneration);
        }
        self.heard(now, member_id);
        Ok(())
    }

    /// The generation that a member must know.
    fn generation_of(&self, member_id: &str) -> i32 {
        let carried = self.members.get(member_id);
        let carried = carried.and_then(|member| member.carried);
        carried.unwrap_or(self.generation)
    }

    /// Checks that whoever asks for offsets on behalf of a member is still that member.
    pub(crate) fn validate(&self, member_id: &str, instance: Option<&str>) -> Result<(), Refusal> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(Refusal::UnknownMember),
                Some(known) if known != member_id => return Err(Refusal::FencedInstance),
                Some(_) => (),
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(Refusal::UnknownMember)
        }
    }

    /// Forgets a group that is being deleted; refused while it has members.
    pub(crate) fn may_delete(&self) -> Result<(), Refusal> {
        match self.state {
            State::Empty => Ok(()),
            _ => Err(Refusal::NonEmpty),
        }
    }

    fn heard(&mut self, now: Millis, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id)
            && !member.is_new
        {
            member.heard(now);
        }
    }

    fn enter(&mut self, now: Millis, state: State) {
        self.state = state;
        self.since_ms = now;
    }

    fn can_agree(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|offered| {
                self.members
                    .values()
                    .all(|member| member.id == join.member_id || member.knows(&offered.name))
            })
    }

    fn joined(&self, id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let tell = |member: &Member| {
            let metadata = member.metadata(protocol);
            (member.id.clone(), member.instance_id.clone(), metadata)
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members: if with_members {
                self.members.values().map(tell).collect()
            } else {
                Vec::new()
            },
        }
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .members
                .get(id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        Snapshot {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: self
                .members
                .values()
                .map(|member| MemberSnapshot {
                    id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    session_timeout_ms: member.session_timeout_ms,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    subscription: member.metadata(protocol),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        }
    }
}
