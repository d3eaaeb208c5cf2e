//! One round of a group: everybody is asked to join, and those who came make up the next generation.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Gathering, Group};
use crate::group::member::{Member, Millis};
use crate::group::terms::{After, Effect, Refusal, Rules, State};

impl Group {
    /// The protocol that most members like best among those that all of them know.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let known_to_all: BTreeSet<&str> = self
            .members
            .values()
            .next()?
            .protocols
            .iter()
            .map(|protocol| protocol.name.as_str())
            .filter(|name| self.members.values().all(|member| member.knows(name)))
            .collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .find(|protocol| known_to_all.contains(protocol.name.as_str()))?;
            *votes.entry(&vote.name).or_default() += 1;
        }
        votes
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(name, _)| name.to_owned())
    }

    /// Asks everybody to join again, unless that is under way already.
    pub(crate) fn rebalance(&mut self, now: Millis, rules: &Rules, out: &mut Vec<Effect>) {
        if self.state != State::PreparingRebalance {
            if self.state == State::CompletingRebalance {
                self.refuse_syncs(Refusal::RebalanceInProgress, out);
            }
            self.proposed = None;
            self.sync_until = None;
            for member in self.members.values_mut() {
                member.sync_due = false;
            }
            let first = self.state == State::Empty && rules.initial_delay_ms > 0;
            let limit = self.rebalance_timeout();
            let wait = if first {
                self.gathering = Some(Gathering {
                    joined_lately: false,
                    remaining_ms: (limit - rules.initial_delay_ms).max(0),
                });
                rules.initial_delay_ms
            } else {
                limit
            };
            self.join_until = Some(now + wait);
            self.enter(now, State::PreparingRebalance);
        }
        self.begin_if_complete(now, out);
    }

    pub(super) fn rebalance_timeout(&self) -> Millis {
        self.members
            .values()
            .map(|member| Millis::from(member.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
    }

    pub(super) fn begin_if_complete(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let all_joined = self.members.values().all(|member| member.joining.is_some());
        let gathered = self.gathering.is_none() || self.members.is_empty();
        if self.state == State::PreparingRebalance
            && all_joined
            && self.pending.is_empty()
            && gathered
        {
            self.begin_generation(now, out);
        }
    }

    pub(super) fn begin_generation(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|member| member.joining.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in gone {
            self.remove(&id, out);
        }
        if !self.elect() && !self.members.is_empty() {
            // Only static members are left, and none is back yet: they have one more round.
            self.join_until = Some(now + self.rebalance_timeout());
            return;
        }
        self.join_until = None;
        self.gathering = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.select_protocol();
        if self.members.is_empty() {
            self.leader = None;
            self.enter(now, State::Empty);
            out.push(Effect::Store(self.snapshot(), After::Nothing));
            return;
        }
        self.enter(now, State::CompletingRebalance);
        self.sync_until = Some(now + self.rebalance_timeout());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let leads = self.leader.as_deref() == Some(&id);
            let joined = self.joined(&id, leads);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.is_new = false;
            member.carried = None;
            member.sync_due = true;
            member.heard(now);
            if let Some(ticket) = member.joining.take() {
                out.push(Effect::Joined(ticket, Ok(joined)));
            }
        }
    }

    /// Makes sure that the leader is among those who joined; false when nobody has.
    pub(super) fn elect(&mut self) -> bool {
        let joined = |member: &Member| member.joining.is_some();
        let stays = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .is_some_and(joined);
        if stays {
            return true;
        }
        match self.members.values().find(|member| joined(member)) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    pub(super) fn remove(&mut self, id: &str, out: &mut Vec<Effect>) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(ticket) = member.joining {
            let refusal = (Refusal::UnknownMember, member.id.clone());
            out.push(Effect::Joined(ticket, Err(refusal)));
        }
        if let Some(ticket) = member.syncing {
            out.push(Effect::Synced(ticket, Err(Refusal::UnknownMember)));
        }
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance) == Some(&member.id)
        {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    pub(super) fn after_removal(&mut self, now: Millis, rules: &Rules, out: &mut Vec<Effect>) {
        match self.state {
            State::Empty => (),
            State::PreparingRebalance => self.begin_if_complete(now, out),
            State::CompletingRebalance | State::Stable => self.rebalance(now, rules, out),
        }
    }

    pub(super) fn refuse_syncs(&mut self, refusal: Refusal, out: &mut Vec<Effect>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(ticket) = member.syncing.take() {
                out.push(Effect::Synced(ticket, Err(refusal)));
            }
        }
    }
}
