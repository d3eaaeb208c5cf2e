//! The rules of a streams group as a pure state machine: `state + heartbeat + topics + now → answer + what to store`.
//!
//! The order of checks and the error in each state are Apache Kafka's.

use std::collections::{BTreeMap, BTreeSet};

use kafka::messages::streams_group_state::StreamsGroupTopologyValue as Topology;

use super::assign::{Runner, assign};
use super::member::{Member, Profile, Roles, Tasks};
use super::reconcile::{Holders, Towards};
use super::records::Item;
use super::topology::{self, Configured, Internal, Status};
use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::terms::Refused;
use crate::group::member::Millis;
use crate::group::settings::Streams as Settings;
use crate::group::terms::Refusal;

/// What a member says of itself, and that it is alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub member_id: String,
    /// 0 to come in, else the epoch that it was told last.
    pub epoch: i32,
    /// Of what it knows about where others run their tasks.
    pub endpoint_epoch: i32,
    pub client_id: String,
    pub client_host: String,
    /// The application asks all its members to end.
    pub shuts_down: bool,
    /// From here on, `None` says that nothing has changed.
    pub rack_id: Option<String>,
    pub rebalance_timeout_ms: Option<i32>,
    pub topology: Option<Topology>,
    pub process_id: Option<String>,
    pub endpoint: Option<(String, u16)>,
    pub tags: Option<BTreeMap<String, String>>,
    pub owned: Option<Roles>,
}

impl Beat {
    /// True when the member tells all that may change.
    fn is_full(&self) -> bool {
        self.rebalance_timeout_ms.is_some() && self.owned.is_some()
    }
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beaten {
    pub member_id: String,
    pub epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// What it shall run; `None` when that has not changed.
    pub assignment: Option<Roles>,
    pub status: Vec<(Status, String)>,
    pub endpoint_epoch: i32,
    /// Where others run their tasks; `None` when that has not changed.
    pub endpoints: Option<Vec<Place>>,
    /// Topics that have to be made before tasks can run.
    pub missing: Vec<Internal>,
}

/// Where an application answers, and what partitions it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub endpoint: (String, u16),
    pub active: Vec<(String, Vec<i32>)>,
    pub standby: Vec<(String, Vec<i32>)>,
}

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    /// Topics are missing or wrong.
    NotReady,
    Assigning,
    Reconciling,
    Stable,
}

impl State {
    /// The name that Kafka's tools show.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::NotReady => "NotReady",
            State::Assigning => "Assigning",
            State::Reconciling => "Reconciling",
            State::Stable => "Stable",
        }
    }
}

/// A group as it is told to whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub state: State,
    pub epoch: i32,
    pub target_epoch: i32,
    pub topology: Option<Topology>,
    /// How many partitions the topics of the application itself have, when that is decided.
    pub counts: BTreeMap<String, i32>,
    /// Each with its id and what the target gives it.
    pub members: Vec<(String, Member, Roles)>,
}

/// One group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(super) epoch: i32,
    /// Tells whether the topics of the application are still those of its epoch.
    pub(super) fingerprint: i64,
    /// The epoch of the topology that can run; -1 when topics are missing or wrong.
    pub(super) validated: i32,
    /// The copies that stand by, as of the group's epoch.
    pub(super) standbys: Option<i32>,
    pub(super) topology: Option<Topology>,
    pub(super) target_epoch: i32,
    pub(super) target_at_ms: Millis,
    pub(super) target: BTreeMap<String, Roles>,
    pub(super) members: BTreeMap<String, Member>,
    /// The topology as of the catalog that was looked at last.
    configured: Option<Configured>,
    seen: Option<u64>,
    /// When the first assignment of a group that was empty comes.
    waits_until: Option<Millis>,
    /// The member that has asked all to end.
    shut_down_by: Option<String>,
    endpoint_epoch: i32,
    /// What differs from what was handed out to be stored.
    pub(super) touched: BTreeSet<Item>,
}

/// What a heartbeat finds before it changes anything.
struct Found {
    fingerprint: i64,
    configured: Configured,
    is_new_topology: bool,
}

impl Group {
    /// Returns a group without members. Its first epochs are 1, so that nobody is told to be at epoch 0, which stands
    /// for joining.
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            target_epoch: 1,
            ..Self::default()
        }
    }

    /// Takes in what was stored; its members have a whole session to be heard from.
    pub(super) fn wake(&mut self, now: Millis, session_timeout_ms: i32) {
        for member in self.members.values_mut() {
            member.expires_at = now + Millis::from(session_timeout_ms);
            if !member.progress.revoking.is_empty() {
                member.revoke_until = Some(now + Millis::from(member.profile.rebalance_timeout_ms));
            }
        }
    }

    pub(crate) fn state(&self) -> State {
        let topology_epoch = self.topology.as_ref().map(|topology| topology.epoch);
        let mut members = self.members.values();
        if self.members.is_empty() {
            State::Empty
        } else if topology_epoch != Some(self.validated) {
            State::NotReady
        } else if self.epoch > self.target_epoch {
            State::Assigning
        } else if members.all(|member| member.progress.has_arrived(self.target_epoch)) {
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
        let ready = self.configured.as_ref().filter(|now| now.is_ready());
        View {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            topology: self.topology.clone(),
            counts: ready.map(|now| now.counts.clone()).unwrap_or_default(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// The next moment at which [`Group::tick`] has something to do.
    pub(in crate::group) fn next_at(&self) -> Option<Millis> {
        let members = self.members.values();
        let due = members.map(|member| {
            let limit = member.revoke_until.unwrap_or(Millis::MAX);
            member.expires_at.min(limit)
        });
        due.chain(self.waits_until).min()
    }

    /// Hears from a member, lets it in if it is new, and says how it goes on. A refusal changes nothing.
    pub(crate) fn heartbeat(
        &mut self,
        now: Millis,
        beat: &Beat,
        catalog: &Catalog,
        members_max: usize,
        settings: &Settings,
    ) -> Result<Beaten, Refused> {
        let id = &beat.member_id;
        let known = self.members.get(id);
        if beat.epoch == 0 && self.members.len() >= members_max && known.is_none() {
            return Err(Refusal::GroupFull.into());
        }
        let before = match known {
            Some(member) => member.clone(),
            None if beat.epoch == 0 => Member::default(),
            None => return Err(Refusal::UnknownMember.into()),
        };
        check_epoch(&before, beat)?;
        let found = self.find(beat, catalog)?;

        // Nothing is refused from here on.
        let profile = updated(&before.profile, beat);
        let changed = known.is_none() || profile != before.profile;
        let mut status = Vec::new();
        if let Some(topology) = &self.topology
            && profile.topology_epoch < topology.epoch
        {
            let why = format!(
                "The member's topology epoch {} is behind the group's topology epoch {}.",
                profile.topology_epoch, topology.epoch
            );
            status.push((Status::StaleTopology, why));
        }
        let was_empty = self.members.is_empty();
        if changed {
            self.touched.insert(Item::Member(id.clone()));
        }
        let member = Member {
            profile,
            expires_at: now + Millis::from(settings.timing.session_timeout_ms),
            ..before.clone()
        };
        self.members.insert(id.clone(), member);
        self.renew(beat, catalog, found, changed, settings);
        if was_empty && settings.initial_delay_ms > 0 && self.waits_until.is_none() {
            self.waits_until = Some(now + Millis::from(settings.initial_delay_ms));
        }
        let next_at = self.target_at_ms + Millis::from(settings.timing.assignment_interval_ms);
        // Nobody runs anything before the first assignment.
        let waits = self.waits_until.is_some();
        if waits {
            let why = "Assignment delayed due to the configured initial rebalance delay.";
            status.push((Status::AssignmentDelayed, why.to_owned()));
        } else if self.target_epoch < self.epoch {
            match now < next_at {
                true => {
                    let why = "Assignment delayed due to the configured assignment interval.";
                    status.push((Status::AssignmentDelayed, why.to_owned()));
                }
                false => self.retarget(now),
            }
        }
        self.reconcile(now, id, beat.owned.as_ref(), waits);
        if beat.shuts_down && self.shut_down_by.is_none() {
            self.shut_down_by = Some(id.clone());
        }
        let configured = self.configured.clone().unwrap_or_default();
        status.extend(configured.problem.clone());
        if let Some(by) = &self.shut_down_by {
            let why = format!(
                "Streams group member {by} encountered a fatal error and requested a shutdown for the entire application."
            );
            status.push((Status::ShutdownApplication, why));
        }
        let member = self.members.get(id).ok_or(Refusal::UnknownMember)?;
        // Who tells everything anew, or is an epoch behind, has lost an answer.
        let lost = beat.is_full() || beat.epoch < before.progress.epoch;
        let changed = member.progress.assigned != before.progress.assigned;
        let told = beat.epoch == 0 || lost || changed;
        if told && member.profile.endpoint.is_some() {
            self.endpoint_epoch += 1;
        }
        let places = self.endpoint_epoch != beat.endpoint_epoch;
        Ok(Beaten {
            member_id: id.clone(),
            epoch: member.progress.epoch,
            heartbeat_interval_ms: settings.timing.heartbeat_interval_ms,
            assignment: told.then(|| member.progress.assigned.plain()),
            status,
            endpoint_epoch: self.endpoint_epoch,
            endpoints: places.then(|| self.places(id, &configured, catalog)),
            missing: configured.missing,
        })
    }

    /// Looks at the topology that a heartbeat brings or that the group has, and at what the member says that it runs.
    fn find(&self, beat: &Beat, catalog: &Catalog) -> Result<Found, Refused> {
        let mut is_new_topology = false;
        let topology = match (&beat.topology, &self.topology) {
            (Some(new), None) => {
                is_new_topology = true;
                new
            }
            (Some(new), Some(old)) if old.epoch <= new.epoch && !topology::same(old, new) => {
                return Err(Refused {
                    refusal: Refusal::InvalidRequest,
                    why: "Topology updates are not supported yet.".to_owned(),
                });
            }
            (_, Some(old)) => old,
            (None, None) => return Err(Refusal::UnknownMember.into()),
        };
        let names = topology::required(topology);
        let fingerprint = catalog.fingerprint(names.into_iter());
        let current = self.seen == Some(catalog.version) && !is_new_topology;
        let configured = match self.configured.clone().filter(|_| current) {
            Some(configured) => configured,
            None => topology::configure(topology, catalog)?,
        };
        if configured.is_ready()
            && let Some(owned) = &beat.owned
        {
            for tasks in [&owned.active, &owned.standby, &owned.warmup] {
                check_tasks(tasks, &configured)?;
            }
        }
        Ok(Found {
            fingerprint,
            configured,
            is_new_topology,
        })
    }

    /// Begins a new epoch when something has changed that tasks depend on.
    fn renew(
        &mut self,
        beat: &Beat,
        catalog: &Catalog,
        found: Found,
        changed: bool,
        settings: &Settings,
    ) {
        if found.is_new_topology {
            self.topology = beat.topology.clone();
            self.touched.insert(Item::Topology);
        }
        let epoch = self.topology.as_ref().map_or(-1, |topology| topology.epoch);
        let validated = match found.configured.is_ready() {
            true => epoch,
            false => -1,
        };
        let standbys = Some(settings.standbys);
        let due = changed
            || found.is_new_topology
            || found.fingerprint != self.fingerprint
            || validated != self.validated
            || standbys != self.standbys;
        self.configured = Some(found.configured);
        self.seen = Some(catalog.version);
        if due {
            self.epoch += 1;
            self.fingerprint = found.fingerprint;
            self.validated = validated;
            self.standbys = standbys;
            self.touched.insert(Item::Group);
        }
    }

    /// Brings the target up to the group's epoch. Where topics are missing or wrong, nobody runs anything.
    fn retarget(&mut self, now: Millis) {
        let ready = self.configured.as_ref().filter(|now| now.is_ready());
        let runners: Vec<Runner<'_>> = self
            .members
            .iter()
            .map(|(id, member)| Runner {
                process: &member.profile.process_id,
                before: self.target.get(id),
            })
            .collect();
        let standbys = self
            .standbys
            .and_then(|copies| usize::try_from(copies).ok());
        let shares = match ready {
            Some(ready) => assign(&runners, &ready.parts, standbys.unwrap_or(0)),
            None => vec![Roles::default(); runners.len()],
        };
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

    /// Takes a member's next step towards the target.
    fn reconcile(&mut self, now: Millis, id: &str, reported: Option<&Roles>, waits: bool) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        if member.progress.has_arrived(self.target_epoch) {
            return;
        }
        let nothing = Roles::default();
        let target = self.target.get(id).filter(|_| !waits);
        let mut progress = member.progress.clone();
        Towards {
            target_epoch: self.target_epoch,
            target: target.unwrap_or(&nothing),
            process: &member.profile.process_id,
            reported,
            holders: &Holders::of(&self.members),
        }
        .step(&mut progress);
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if progress == member.progress {
            return;
        }
        let limit = now + Millis::from(member.profile.rebalance_timeout_ms);
        member.revoke_until = (!progress.revoking.is_empty()).then_some(limit);
        member.progress = progress;
        self.touched.insert(Item::Current(id.to_owned()));
    }

    /// Where the application answers, the member that asks last.
    fn places(&self, asking: &str, configured: &Configured, catalog: &Catalog) -> Vec<Place> {
        let others = self.members.iter().filter(|(id, _)| *id != asking);
        let own = self.members.get_key_value(asking);
        let place = |(_, member): (&String, &Member)| {
            let owned = member.progress.assigned.plain();
            Some(Place {
                endpoint: member.profile.endpoint.clone()?,
                active: partitions(&owned.active, configured, catalog),
                standby: partitions(&owned.standby, configured, catalog),
            })
        };
        others.chain(own).filter_map(place).collect()
    }

    /// Takes a member out.
    pub(crate) fn leave(&mut self, member_id: &str, shuts_down: bool) -> Result<(), Refused> {
        if shuts_down && self.shut_down_by.is_none() {
            self.shut_down_by = Some(member_id.to_owned());
        }
        if !self.members.contains_key(member_id) {
            return Err(Refusal::UnknownMember.into());
        }
        self.fence(&[member_id.to_owned()]);
        Ok(())
    }

    /// Lets time pass: gives up members that were not heard from or that do not give up their tasks, and makes the
    /// first assignment.
    pub(crate) fn tick(&mut self, now: Millis) {
        let members = self.members.iter();
        let late = members.filter(|(_, member)| {
            member.expires_at <= now || member.revoke_until.is_some_and(|limit| limit <= now)
        });
        let expired: Vec<String> = late.map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.fence(&[id]);
        }
        if self.waits_until.is_some_and(|until| until <= now) {
            self.waits_until = None;
            if !self.members.is_empty()
                && self.configured.is_some()
                && self.target_epoch < self.epoch
            {
                self.retarget(now);
            }
        }
    }

    fn fence(&mut self, ids: &[String]) {
        for id in ids {
            self.members.remove(id);
            self.target.remove(id);
            self.touched.extend([
                Item::Member(id.clone()),
                Item::Target(id.clone()),
                Item::Current(id.clone()),
            ]);
        }
        if self.members.is_empty() {
            self.shut_down_by = None;
        }
        self.epoch += 1;
        self.touched.insert(Item::Group);
    }

    /// Says which of some partitions a member may commit offsets for: those whose tasks it has since before `epoch`.
    pub(crate) fn may_commit<'a>(
        &self,
        member_id: &str,
        epoch: i32,
        places: impl Iterator<Item = (&'a str, i32)>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(places.map(|_| Ok(())).collect()); // an administrator
        }
        let member = self.members.get(member_id).ok_or(Refusal::UnknownMember)?;
        let progress = &member.progress;
        if epoch > progress.epoch {
            return Err(Refusal::StaleEpoch);
        }
        let given = |topic: &str, partition: i32| {
            let part = topology::reader(self.topology.as_ref()?, topic)?;
            progress.epoch_of(part, partition)
        };
        let check = |(topic, partition): (&str, i32)| {
            let may = epoch == progress.epoch
                || given(topic, partition).is_some_and(|given| epoch >= given);
            may.then_some(()).ok_or(Refusal::StaleEpoch)
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
        let same = epoch == member.progress.epoch;
        same.then_some(()).ok_or(Refusal::StaleEpoch)
    }

    /// Returns whether some member reads a topic.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        let topology = self.topology.as_ref().filter(|_| !self.members.is_empty());
        topology.is_some_and(|topology| topology::reader(topology, topic).is_some())
    }
}

/// The partitions that tasks read, topic by topic.
fn partitions(
    tasks: &Tasks,
    configured: &Configured,
    catalog: &Catalog,
) -> Vec<(String, Vec<i32>)> {
    let mut all = Vec::new();
    for (part, tasks) in tasks {
        let topics = configured.parts.get(part).map(|part| &part.reads);
        for topic in topics.into_iter().flatten() {
            let count = catalog.id(topic).map_or(0, |id| catalog.partitions(id));
            let count = usize::try_from(count).unwrap_or(0);
            // A topic with fewer partitions than others is read by the first tasks only.
            all.push((topic.clone(), tasks.iter().copied().take(count).collect()));
        }
    }
    all
}

fn check_tasks(tasks: &Tasks, configured: &Configured) -> Result<(), Refused> {
    let invalid = |why| {
        let refusal = Refusal::InvalidRequest;
        Err(Refused { refusal, why })
    };
    for (id, tasks) in tasks {
        let Some(part) = configured.parts.get(id) else {
            return invalid(format!("Subtopology {id} does not exist in the topology."));
        };
        if let Some(task) = tasks.iter().find(|task| !(0..part.tasks).contains(*task)) {
            return invalid(format!(
                "Task {task} for subtopology {id} is invalid. Number of tasks for this subtopology: {}",
                part.tasks
            ));
        }
    }
    Ok(())
}

/// The profile with what a heartbeat says anew.
fn updated(before: &Profile, beat: &Beat) -> Profile {
    let topology_epoch = beat.topology.as_ref().map(|topology| topology.epoch);
    let process_id = beat.process_id.as_ref();
    Profile {
        rack_id: beat.rack_id.clone().or_else(|| before.rack_id.clone()),
        client_id: beat.client_id.clone(),
        client_host: beat.client_host.clone(),
        rebalance_timeout_ms: beat
            .rebalance_timeout_ms
            .unwrap_or(before.rebalance_timeout_ms),
        topology_epoch: topology_epoch.unwrap_or(before.topology_epoch),
        process_id: process_id.unwrap_or(&before.process_id).clone(),
        endpoint: beat.endpoint.clone().or_else(|| before.endpoint.clone()),
        tags: beat.tags.clone().unwrap_or_else(|| before.tags.clone()),
    }
}

/// A member may be one epoch behind if it runs nothing that it was not given: the answer may have been lost.
fn check_epoch(member: &Member, beat: &Beat) -> Result<(), Refused> {
    let progress = &member.progress;
    let behind = || {
        let assigned = progress.assigned.plain();
        let owned = beat.owned.as_ref();
        beat.epoch == progress.previous_epoch
            && owned.is_some_and(|owned| owned.is_within(&assigned))
    };
    if beat.epoch == 0 || beat.epoch == progress.epoch || (beat.epoch < progress.epoch && behind())
    {
        return Ok(());
    }
    let relation = match beat.epoch > progress.epoch {
        true => "greater",
        false => "smaller",
    };
    Err(Refused {
        refusal: Refusal::FencedEpoch,
        why: format!(
            "The streams group member has a {relation} member epoch ({}) than the one known by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
            beat.epoch, progress.epoch
        ),
    })
}
