//! Runs the groups: feeds requests and time into the machines and carries out their effects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::consumer::{self, Assigning, catalog::Catalog};
use super::machine::Group;
use super::member::{Millis, Ticket};
use super::schema::{Committed, Key};
use super::settings::GroupSettings;
use super::share::{self, Sharing};
use super::store::{self, Entry, Form, Records, Then};
use super::streams::{self, Streaming};
use super::terms::{After, Effect, Join, Joined, Refusal, Rules, Snapshot, State, Sync, Synced};
use crate::clock;
use crate::topic::registry::Topics;
use crate::txn::coordinator::{Markers, Outcome};

/// Most groups that are held.
const GROUPS_MAX: usize = 100_000;
/// Changes that wait to be written.
const CHANGES_QUEUED_MAX: usize = 4096;
/// The timer's longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(60);

pub(super) type JoinAnswer = Result<Joined, (Refusal, String)>;
pub(super) type SyncAnswer = Result<Synced, Refusal>;
/// A topic and the index of a partition.
pub(crate) type Place = (Arc<str>, i32);

/// A group with what belongs to it.
#[derive(Debug)]
pub(super) struct Held {
    pub group: Group,
    /// Tells a group from one of the same name that was deleted before.
    pub incarnation: u64,
    /// The group as it is on disk.
    pub stored: Option<Snapshot>,
    pub offsets: BTreeMap<Place, Committed>,
    /// What was committed in transactions that have not ended.
    pub open: Open,
    /// Commits that are on their way to the disk.
    pub committing: usize,
    /// Set while the broker assigns the partitions; then nobody is in `group`.
    pub consumer: Option<Assigning>,
    /// Set for a share group; then nobody is in `group`, and nothing is committed.
    pub share: Option<Sharing>,
    /// Set for a streams group; then nobody is in `group`.
    pub streams: Option<Streaming>,
}

impl Held {
    /// True when nothing would be lost without it.
    pub(super) fn is_empty(&self) -> bool {
        self.group.is_idle()
            && self.stored.is_none()
            && self.offsets.is_empty()
            && self.open.is_empty()
            && self.committing == 0
            && self.consumer.is_none()
            && self.share.is_none()
            && self.streams.is_none()
    }

    /// True when nobody is in the group or on the way into it.
    pub(super) fn is_idle(&self) -> bool {
        let consumer = self.consumer.as_ref();
        self.group.is_idle()
            && consumer.is_none_or(Assigning::is_empty)
            && self.share.as_ref().is_none_or(Sharing::is_empty)
            && self.streams.as_ref().is_none_or(Streaming::is_empty)
    }

    /// The next moment at which time has to pass for the group.
    pub(super) fn wakes_at(&self) -> Option<Millis> {
        let consumer = self.consumer.as_ref();
        let consumer = consumer.and_then(|consumer| consumer.group.wakes_at());
        let share = self.share.as_ref();
        let share = share.and_then(|share| share.group.wakes_at());
        let streams = self.streams.as_ref();
        let streams = streams.and_then(|streams| streams.group.next_at());
        let group = self.group.wakes_at();
        let all = group.into_iter().chain(consumer).chain(share);
        all.chain(streams).min()
    }
}

/// What a group has committed in transactions that have not ended, by producer and epoch.
#[derive(Debug, Default)]
pub(super) struct Open(BTreeMap<(i64, i16), BTreeMap<Place, Committed>>);

impl Open {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, place: &Place) -> bool {
        self.0.values().any(|offsets| offsets.contains_key(place))
    }

    pub(super) fn add(
        &mut self,
        producer: (i64, i16),
        offsets: impl IntoIterator<Item = (Place, Committed)>,
    ) {
        self.0.entry(producer).or_default().extend(offsets);
    }

    pub(super) fn forget(&mut self, place: &Place) {
        for offsets in self.0.values_mut() {
            offsets.remove(place);
        }
        self.0.retain(|_, offsets| !offsets.is_empty());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ((i64, i16), &Place, &Committed)> {
        let all = self.0.iter();
        all.flat_map(|(producer, offsets)| {
            offsets
                .iter()
                .map(|(place, committed)| (*producer, place, committed))
        })
    }

    /// Ends a producer's transaction: what it has committed counts from now on, or never did.
    pub(super) fn end(
        &mut self,
        producer_id: i64,
        commit: bool,
        into: &mut BTreeMap<Place, Committed>,
    ) {
        let ended: Vec<(i64, i16)> = self
            .0
            .range((producer_id, i16::MIN)..=(producer_id, i16::MAX))
            .map(|(producer, _)| *producer)
            .collect();
        for producer in ended {
            let offsets = self.0.remove(&producer).unwrap_or_default();
            for (place, committed) in offsets.into_iter().filter(|_| commit) {
                let later = into.get(&place);
                if later.is_none_or(|later| later.order < committed.order) {
                    into.insert(place, committed);
                }
            }
        }
    }
}

/// All groups, and the requests that wait for them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub held: HashMap<String, Held>,
    /// Groups in which a producer has committed in a transaction that has not ended.
    open: HashMap<i64, BTreeSet<String>>,
    joins: HashMap<Ticket, oneshot::Sender<JoinAnswer>>,
    syncs: HashMap<Ticket, oneshot::Sender<SyncAnswer>>,
    next: u64,
    /// When the timer will look next.
    looks_at: Millis,
}

impl Groups {
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes in what was committed, if it is durable; in a transaction it waits for its end.
    pub(super) fn committed(
        &mut self,
        group_id: &str,
        incarnation: u64,
        offsets: Vec<(Place, Committed)>,
        producer: Option<(i64, i16)>,
        durable: bool,
    ) {
        let held = self.held.get_mut(group_id);
        let Some(held) = held.filter(|held| held.incarnation == incarnation) else {
            return;
        };
        held.committing -= 1;
        match producer {
            _ if !durable || offsets.is_empty() => (),
            None => held.offsets.extend(offsets),
            Some(producer) => {
                held.open.add(producer, offsets);
                let groups = self.open.entry(producer.0).or_default();
                groups.insert(group_id.to_owned());
            }
        }
    }

    /// Ends a producer's transaction in all groups.
    pub(super) fn ended(&mut self, producer_id: i64, commit: bool) {
        for group_id in self.open.remove(&producer_id).unwrap_or_default() {
            if let Some(held) = self.held.get_mut(&group_id) {
                held.open.end(producer_id, commit, &mut held.offsets);
                if held.is_empty() {
                    self.held.remove(&group_id);
                }
            }
        }
    }
}

/// Who assigns a group's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of its members.
    Classic,
    /// The broker.
    Consumer,
    /// The broker, and a partition may be read by several.
    Share,
    /// The broker, tasks of Kafka Streams.
    Streams,
}

impl Kind {
    /// The name that Kafka's tools show.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Classic => "classic",
            Kind::Consumer => "consumer",
            Kind::Share => "share",
            Kind::Streams => "streams",
        }
    }
}

/// What is told about a group.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub id: String,
    pub kind: Kind,
    pub state: &'static str,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<MemberView>,
    pub offsets: BTreeMap<Place, Committed>,
}

/// What is told about a member.
#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// What a classic member told the leader, and what the leader gave it.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// The group coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(super) groups: Mutex<Groups>,
    pub(super) rules: Rules,
    /// What administrators have set for groups.
    pub(super) settings: Arc<GroupSettings>,
    offsets_retention_ms: Millis,
    pub(super) changes: mpsc::Sender<Entry>,
    /// The topics as they were when somebody looked last.
    pub(super) catalog: Mutex<Arc<Catalog>>,
    sooner: Notify,
    started: (Instant, Millis),
}

impl Coordinator {
    /// Takes up the groups that the log holds; the receiver belongs to [`store::run`].
    pub(crate) fn new(
        rules: Rules,
        settings: Arc<GroupSettings>,
        offsets_retention_ms: Millis,
        loaded: store::Loaded,
    ) -> (Self, mpsc::Receiver<Entry>) {
        let (changes, queue) = mpsc::channel(CHANGES_QUEUED_MAX);
        let now = clock::now_ms();
        let mut groups = Groups {
            next: loaded.order,
            open: loaded.open,
            ..Groups::default()
        };
        for (id, found) in loaded.groups {
            let store::Found {
                stored,
                offsets,
                open,
                consumer,
                share,
                streams,
            } = found;
            let group = match &stored {
                Some(snapshot) => Group::restore(snapshot.clone(), now),
                None => Group::new(now),
            };
            let incarnation = groups.number();
            let timing = settings.of(&id).consumer;
            let held = Held {
                group,
                incarnation,
                stored,
                offsets,
                open,
                committing: 0,
                consumer: consumer::restore(&id, consumer, now, timing),
                share: share::restore(&id, share, now, &settings.of(&id).share),
                streams: streams::restore(
                    &id,
                    streams,
                    now,
                    settings.of(&id).streams.timing.session_timeout_ms,
                ),
            };
            groups.held.insert(id, held);
        }
        let coordinator = Self {
            groups: Mutex::new(groups),
            rules,
            settings,
            offsets_retention_ms,
            changes,
            catalog: Mutex::default(),
            sooner: Notify::new(),
            started: (Instant::now(), now),
        };
        (coordinator, queue)
    }

    /// Milliseconds since 1970 as of the start, from a clock that never jumps.
    pub(super) fn now(&self) -> Millis {
        let (started, at) = self.started;
        at + Millis::try_from(started.elapsed().as_millis()).unwrap_or(Millis::MAX / 2)
    }

    /// Takes part in the next generation; waits until it begins.
    pub(crate) async fn join(&self, topics: &Topics, group_id: &str, mut join: Join) -> JoinAnswer {
        let refuse = |refusal, id: &str| Err((refusal, id.to_owned()));
        if group_id.is_empty() {
            return refuse(Refusal::InvalidGroupId, &join.member_id);
        }
        if self.is_assigned(group_id)
            && let Some(answer) = self.join_assigned(topics, group_id, &join).await
        {
            return answer;
        }
        let (answer, waiting) = oneshot::channel();
        let member_id = join.member_id.clone();
        {
            let mut groups = self.groups.lock();
            if !groups.held.contains_key(group_id) {
                if !member_id.is_empty() {
                    return refuse(Refusal::UnknownMember, &member_id);
                }
                if let Err(refusal) = self.create(&mut groups, group_id) {
                    return refuse(refusal, &member_id);
                }
            }
            if let Err(refusal) = self.make_classic(&mut groups, group_id) {
                return refuse(refusal, &member_id);
            }
            join.ticket = groups.number();
            groups.joins.insert(join.ticket, answer);
            self.step(&mut groups, group_id, |group, now, out| {
                group.join(now, join, &self.rules, out);
            });
        }
        waiting
            .await
            .unwrap_or((refuse)(Refusal::UnknownMember, &member_id))
    }

    /// Asks for the assignment; waits until the leader has brought it and it is durable.
    pub(crate) async fn sync(&self, group_id: &str, mut sync: Sync) -> SyncAnswer {
        let (answer, waiting) = oneshot::channel();
        {
            let mut groups = self.groups.lock();
            if !groups.held.contains_key(group_id) {
                return Err(Refusal::UnknownMember);
            }
            if let Some(synced) = self.sync_assigned(&mut groups, group_id, &sync) {
                return synced;
            }
            sync.ticket = groups.number();
            groups.syncs.insert(sync.ticket, answer);
            self.step(&mut groups, group_id, |group, now, out| {
                group.sync(now, sync, out)
            });
        }
        waiting.await.unwrap_or(Err(Refusal::UnknownMember))
    }

    pub(crate) fn heartbeat(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        let mut groups = self.groups.lock();
        let named = (member_id, instance_id);
        if let Some(beaten) = self.beat_assigned(&mut groups, group_id, named, generation) {
            return beaten;
        }
        self.step(&mut groups, group_id, |group, now, _| {
            group.heartbeat(now, member_id, instance_id, generation)
        })
        .unwrap_or(Err(Refusal::UnknownMember))
    }

    pub(crate) async fn leave(
        &self,
        topics: &Topics,
        group_id: &str,
        leavers: &[(String, Option<String>)],
    ) -> Vec<Result<(), Refusal>> {
        if self.is_assigned(group_id)
            && let Some(results) = self.leave_assigned(topics, group_id, leavers).await
        {
            return results;
        }
        let mut groups = self.groups.lock();
        self.step(&mut groups, group_id, |group, now, out| {
            group.leave(now, leavers, &self.rules, out)
        })
        .unwrap_or_else(|| vec![Err(Refusal::UnknownMember); leavers.len()])
    }

    /// Notes how far a group has come; durable when this returns. Returns the places that were refused
    /// because the member has them by a later assignment, or not at all.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<BTreeSet<Place>, Refusal> {
        let Commit {
            group_id,
            member_id,
            instance_id,
            generation,
            version,
            mut offsets,
        } = commit;
        let group_id = group_id.as_str();
        let room = self
            .changes
            .reserve()
            .await
            .map_err(|_| Refusal::NotStored)?;
        let (done, durable) = oneshot::channel();
        let mut stale = BTreeSet::new();
        {
            let mut groups = self.groups.lock();
            if !groups.held.contains_key(group_id) {
                if generation >= 0 {
                    return Err(match version {
                        MEMBER_EPOCHS_FROM.. => Refusal::NotFound,
                        _ => Refusal::IllegalGeneration,
                    });
                }
                if !member_id.is_empty() {
                    return Err(Refusal::UnknownMember);
                }
                if offsets.is_empty() {
                    return Ok(stale);
                }
                self.create(&mut groups, group_id)?;
            }
            let Some(held) = groups.held.get_mut(group_id) else {
                return Err(Refusal::UnknownMember);
            };
            if held.share.is_some() {
                return Err(Refusal::NotFound);
            }
            if let Some(consumer) = &held.consumer {
                stale = self.stale(consumer, &member_id, generation, &offsets)?;
                let modern = !consumer.is_empty() && !consumer.group.speaks_classic(&member_id);
                if version < MEMBER_EPOCHS_FROM && modern {
                    return Err(Refusal::OldCommit);
                }
                offsets.retain(|(place, _)| !stale.contains(place));
            } else if let Some(streams) = &held.streams {
                stale = stale_tasks(streams, &member_id, generation, &offsets)?;
                if version < MEMBER_EPOCHS_FROM && !streams.is_empty() {
                    return Err(Refusal::OldCommit);
                }
                offsets.retain(|(place, _)| !stale.contains(place));
            } else {
                let instance_id = instance_id.as_deref();
                held.group
                    .may_commit(self.now(), &member_id, instance_id, generation)?;
            }
            if offsets.is_empty() {
                return Ok(stale);
            }
            let mut records = Records::new();
            for ((topic, partition), committed) in &offsets {
                let key = offset_key(group_id, topic, *partition);
                records
                    .offset(&key, committed)
                    .map_err(|_| Refusal::NotStored)?;
            }
            held.committing += 1;
            let then = Then::Commit {
                group: group_id.to_owned(),
                incarnation: held.incarnation,
                offsets,
                producer: None,
                done,
            };
            room.send(Entry {
                form: Form::Plain,
                records,
                then,
            });
        }
        durable.await.unwrap_or(Err(Refusal::NotStored))?;
        Ok(stale)
    }

    /// Waits for room for one change.
    pub(crate) async fn room(&self) -> Result<Room<'_>, Refusal> {
        let room = self.changes.reserve().await;
        room.map(Room).map_err(|_| Refusal::NotStored)
    }

    /// Notes how far a group has come as part of a producer's transaction; durable once the answer is there.
    /// The change is queued when this returns.
    pub(crate) fn commit_in_transaction(
        &self,
        room: Room<'_>,
        commit: TransactionalCommit,
    ) -> Result<oneshot::Receiver<Result<(), Refusal>>, Refusal> {
        let TransactionalCommit {
            group_id,
            member_id,
            instance_id,
            generation,
            producer,
            offsets,
        } = commit;
        let mut records = Records::new();
        for ((topic, partition), committed) in &offsets {
            let key = offset_key(&group_id, topic, *partition);
            records
                .offset(&key, committed)
                .map_err(|_| Refusal::NotStored)?;
        }
        let (done, durable) = oneshot::channel();
        let mut groups = self.groups.lock();
        if !groups.held.contains_key(&group_id) {
            if generation >= 0 {
                return Err(Refusal::IllegalGeneration);
            }
            self.create(&mut groups, &group_id)?;
        }
        let Some(held) = groups.held.get_mut(&group_id) else {
            return Err(Refusal::NotStored);
        };
        if held.share.is_some() {
            return Err(Refusal::NotFound);
        }
        if let Some(consumer) = &held.consumer {
            let named = generation >= 0 || !member_id.is_empty() || instance_id.is_some();
            if named
                && !self
                    .stale(consumer, &member_id, generation, &offsets)?
                    .is_empty()
            {
                return Err(Refusal::StaleEpoch);
            }
        } else if let Some(streams) = &held.streams {
            let named = generation >= 0 || !member_id.is_empty() || instance_id.is_some();
            if named && !stale_tasks(streams, &member_id, generation, &offsets)?.is_empty() {
                return Err(Refusal::StaleEpoch);
            }
        } else {
            held.group.may_commit_in_transaction(
                self.now(),
                &member_id,
                instance_id.as_deref(),
                generation,
            )?;
        }
        held.committing += 1;
        let (producer_id, epoch) = producer;
        let then = Then::Commit {
            group: group_id,
            incarnation: held.incarnation,
            offsets,
            producer: Some(producer),
            done,
        };
        room.0.send(Entry {
            form: Form::Transaction { producer_id, epoch },
            records,
            then,
        });
        Ok(durable)
    }

    /// Ends a producer's transaction in all groups; the change is queued when this returns.
    pub(crate) async fn end_transaction(&self, end: Markers) -> Outcome {
        let (done, outcome) = oneshot::channel();
        let then = Then::End {
            producer_id: end.producer_id,
            commit: end.commit,
            done,
        };
        let entry = Entry {
            form: Form::Marker(end.batch()),
            records: Records::new(),
            then,
        };
        // When nobody listens any more, the one who waits finds the channel closed.
        _ = self.changes.send(entry).await;
        outcome
    }

    /// Says whether offsets of a producer wait for the end of its transaction.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        self.groups.lock().open.contains_key(&producer_id)
    }

    /// Says whether a group's offset may still change by the end of a transaction.
    pub(crate) fn is_unstable(&self, group_id: &str, place: &Place) -> bool {
        let groups = self.groups.lock();
        let held = groups.held.get(group_id);
        held.is_some_and(|held| held.open.contains(place))
    }

    /// Returns what a group has committed; nothing for a group that does not exist.
    pub(crate) fn offsets(&self, group_id: &str) -> BTreeMap<Place, Committed> {
        let groups = self.groups.lock();
        groups
            .held
            .get(group_id)
            .map(|held| held.offsets.clone())
            .unwrap_or_default()
    }

    /// Returns what a group has committed for one partition.
    pub(crate) fn offset(&self, group_id: &str, topic: &str, partition: i32) -> Option<Committed> {
        let groups = self.groups.lock();
        let place = (Arc::from(topic), partition);
        groups.held.get(group_id)?.offsets.get(&place).cloned()
    }

    /// Deletes a group without members, with all that it has committed.
    pub(crate) async fn delete(&self, group_id: &str) -> Result<(), Refusal> {
        let room = self
            .changes
            .reserve()
            .await
            .map_err(|_| Refusal::NotStored)?;
        let (done, durable) = oneshot::channel();
        {
            let mut groups = self.groups.lock();
            let held = groups.held.get(group_id).ok_or(Refusal::NotFound)?;
            held.group.may_delete()?;
            if !held.is_idle() {
                return Err(Refusal::NonEmpty);
            }
            let open = held.open.iter().map(|(_, place, _)| place);
            let places: Vec<Place> = held.offsets.keys().chain(open).cloned().collect();
            let mut records = tombstones(group_id, &places, true)?;
            if let Some(consumer) = &held.consumer {
                consumer.bury(group_id, &mut records)?;
            }
            if let Some(share) = &held.share {
                share.bury(group_id, &mut records)?;
            }
            if let Some(streams) = &held.streams {
                streams.bury(group_id, &mut records)?;
            }
            groups.held.remove(group_id);
            room.send(Entry {
                form: Form::Plain,
                records,
                then: Then::Done { done },
            });
        }
        durable.await.unwrap_or(Err(Refusal::NotStored))
    }

    /// Forgets some of what a group has committed; refused for topics that its members read.
    pub(crate) async fn delete_offsets(
        &self,
        group_id: &str,
        places: Vec<Place>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let room = self
            .changes
            .reserve()
            .await
            .map_err(|_| Refusal::NotStored)?;
        let (done, durable) = oneshot::channel();
        let results = {
            let groups = self.groups.lock();
            let held = groups.held.get(group_id).ok_or(Refusal::NotFound)?;
            if held.share.is_some() {
                return Err(Refusal::NotFound);
            }
            let subscribed = match held.group.state() {
                State::Empty => Some(Vec::new()),
                _ => subscribed(&held.group),
            };
            let subscribed = subscribed.ok_or(Refusal::NonEmpty)?;
            let consumer = held.consumer.as_ref();
            let streams = held.streams.as_ref();
            let free = |place: &Place| {
                !subscribed.iter().any(|topic| **topic == *place.0)
                    && !consumer.is_some_and(|consumer| consumer.group.is_subscribed(&place.0))
                    && !streams.is_some_and(|streams| streams.group.is_subscribed(&place.0))
            };
            let results = places
                .iter()
                .map(|place| {
                    if free(place) {
                        Ok(())
                    } else {
                        Err(Refusal::Subscribed)
                    }
                })
                .collect();
            let places: Vec<Place> = places.iter().filter(|place| free(place)).cloned().collect();
            let records = tombstones(group_id, &places, false)?;
            if places.is_empty() {
                return Ok(results);
            }
            let then = Then::Forget {
                group: group_id.to_owned(),
                incarnation: held.incarnation,
                places,
                done: Some(done),
            };
            room.send(Entry {
                form: Form::Plain,
                records,
                then,
            });
            results
        };
        durable.await.unwrap_or(Err(Refusal::NotStored))?;
        Ok(results)
    }

    /// Forgets what all groups have committed for a topic that is gone.
    pub(crate) async fn forget_topic(&self, topic: &str) -> Result<(), Refusal> {
        self.settled().await?;
        let ids: Vec<String> = {
            let groups = self.groups.lock();
            let reads = |held: &Held| {
                let mut places = held.offsets.keys().chain(held.open.iter().map(|one| one.1));
                places.any(|place| &*place.0 == topic)
            };
            groups
                .held
                .iter()
                .filter(|(_, held)| reads(held))
                .map(|(id, _)| id.clone())
                .collect()
        };
        for group_id in ids {
            self.forget(&group_id, |place, _| &*place.0 == topic, Why::TopicGone)
                .await?;
        }
        Ok(())
    }

    /// Forgets offsets and groups that nobody has used for the retention time.
    pub(crate) async fn expire(&self) -> Result<(), Refusal> {
        let ids: Vec<String> = self.groups.lock().held.keys().cloned().collect();
        let before = self.now() - self.offsets_retention_ms;
        for group_id in ids {
            let rule = {
                let groups = self.groups.lock();
                let Some(held) = groups.held.get(&group_id) else {
                    continue;
                };
                expiry(held, before)
            };
            let old = |place: &Place, committed: &Committed| match &rule {
                Expiry::Never => false,
                Expiry::All => true,
                Expiry::Unused(kept) => {
                    committed.at_ms <= before && !kept.iter().any(|topic| **topic == *place.0)
                }
            };
            self.forget(&group_id, old, Why::Expired).await?;
        }
        Ok(())
    }

    /// Waits until every change that is queued now has taken effect.
    async fn settled(&self) -> Result<(), Refusal> {
        let (done, settled) = oneshot::channel();
        let entry = Entry {
            form: Form::Plain,
            records: Records::new(),
            then: Then::Done { done },
        };
        self.changes
            .send(entry)
            .await
            .map_err(|_| Refusal::NotStored)?;
        settled.await.unwrap_or(Err(Refusal::NotStored))
    }

    /// Forgets the offsets that `old` chooses, and a group that has expired as a whole.
    async fn forget(
        &self,
        group_id: &str,
        old: impl Fn(&Place, &Committed) -> bool,
        why: Why,
    ) -> Result<(), Refusal> {
        let room = self
            .changes
            .reserve()
            .await
            .map_err(|_| Refusal::NotStored)?;
        let mut groups = self.groups.lock();
        let Some(held) = groups.held.get(group_id) else {
            return Ok(());
        };
        if why == Why::Expired && (held.committing > 0 || !held.open.is_empty()) {
            return Ok(()); // what is being written would be hit by an older decision
        }
        let chosen = held
            .offsets
            .iter()
            .filter(|(place, committed)| old(place, committed));
        let mut places: Vec<Place> = chosen.map(|(place, _)| place.clone()).collect();
        let left = held.offsets.len() - places.len();
        let open = held.open.iter();
        let open = open.filter(|(_, place, committed)| old(place, committed));
        places.extend(open.map(|(_, place, _)| place.clone()));
        let whole = why == Why::Expired && left == 0 && held.is_idle();
        let is_stored = held.stored.is_some() || held.consumer.is_some() || held.streams.is_some();
        if places.is_empty() && !(whole && is_stored) {
            return Ok(());
        }
        let mut records = tombstones(group_id, &places, whole)?;
        if let Some(consumer) = held.consumer.as_ref().filter(|_| whole) {
            consumer.bury(group_id, &mut records)?;
        }
        if let Some(streams) = held.streams.as_ref().filter(|_| whole) {
            streams.bury(group_id, &mut records)?;
        }
        let incarnation = held.incarnation;
        if whole {
            groups.held.remove(group_id);
        }
        let then = Then::Forget {
            group: group_id.to_owned(),
            incarnation,
            places,
            done: None,
        };
        room.send(Entry {
            form: Form::Plain,
            records,
            then,
        });
        Ok(())
    }

    pub(crate) fn view(&self, group_id: &str) -> Option<View> {
        let groups = self.groups.lock();
        groups.held.get(group_id).map(|held| view(group_id, held))
    }

    pub(crate) fn views(&self) -> Vec<View> {
        let groups = self.groups.lock();
        let mut views: Vec<View> = groups
            .held
            .iter()
            .map(|(id, held)| view(id, held))
            .collect();
        views.sort_by(|left, right| left.id.cmp(&right.id));
        views
    }

    /// Hears from the store that a snapshot is durable, or is not.
    pub(super) fn stored(
        &self,
        groups: &mut Groups,
        group_id: &str,
        incarnation: u64,
        (snapshot, after): (Snapshot, After),
        durable: bool,
    ) {
        match groups.held.get_mut(group_id) {
            Some(held) if held.incarnation == incarnation => {
                if durable {
                    held.stored = Some(snapshot);
                }
            }
            _ => return, // deleted meanwhile; whoever waits finds its channel closed
        }
        self.step(groups, group_id, |group, now, out| {
            group.stored(now, after, durable, &self.rules, out);
        });
    }

    pub(super) fn create(&self, groups: &mut Groups, group_id: &str) -> Result<(), Refusal> {
        if groups.held.len() >= GROUPS_MAX {
            warn!(limit = GROUPS_MAX, "too many groups, a new one is refused");
            return Err(Refusal::NotStored);
        }
        let held = Held {
            group: Group::new(self.now()),
            incarnation: groups.number(),
            stored: None,
            offsets: BTreeMap::new(),
            open: Open::default(),
            committing: 0,
            consumer: None,
            share: None,
            streams: None,
        };
        groups.held.insert(group_id.to_owned(), held);
        Ok(())
    }

    /// Takes one step of a group's machine and carries out what it wants; `None` without the group.
    pub(super) fn step<T>(
        &self,
        groups: &mut Groups,
        group_id: &str,
        step: impl FnOnce(&mut Group, Millis, &mut Vec<Effect>) -> T,
    ) -> Option<T> {
        let mut effects = Vec::new();
        let held = groups.held.get_mut(group_id)?;
        let result = step(&mut held.group, self.now(), &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                self.carry_out(groups, group_id, effect, &mut effects);
            }
        }
        let held = groups.held.get(group_id)?;
        let wakes_at = held.wakes_at();
        if held.is_empty() {
            groups.held.remove(group_id);
        }
        self.wake(groups, wakes_at);
        Some(result)
    }

    /// Makes the timer look sooner than it meant to.
    pub(super) fn wake(&self, groups: &Groups, at: Option<Millis>) {
        if at.is_some_and(|at| at < groups.looks_at) {
            self.sooner.notify_one();
        }
    }

    pub(super) fn carry_out(
        &self,
        groups: &mut Groups,
        group_id: &str,
        effect: Effect,
        more: &mut Vec<Effect>,
    ) {
        match effect {
            Effect::Joined(ticket, answer) => {
                if let Some(waiting) = groups.joins.remove(&ticket) {
                    _ = waiting.send(answer); // the client may have left
                }
            }
            Effect::Synced(ticket, answer) => {
                if let Some(waiting) = groups.syncs.remove(&ticket) {
                    _ = waiting.send(answer); // the client may have left
                }
            }
            Effect::Store(snapshot, after) => {
                let Some(held) = groups.held.get_mut(group_id) else {
                    return;
                };
                let key = Key::Group {
                    group: group_id.to_owned(),
                };
                let mut records = Records::new();
                let written = records.group(&key, &snapshot);
                let then = Then::Store {
                    group: group_id.to_owned(),
                    incarnation: held.incarnation,
                    stored: Box::new((snapshot, after.clone())),
                    done: None,
                };
                let entry = Entry {
                    form: Form::Plain,
                    records,
                    then,
                };
                let queued = written.is_ok() && self.changes.try_send(entry).is_ok();
                if !queued {
                    warn!(
                        group = group_id,
                        "the group's state could not be queued for writing"
                    );
                    held.group
                        .stored(self.now(), after, false, &self.rules, more);
                }
            }
        }
    }

    /// Lets time pass for all groups until told to stop.
    pub(crate) async fn run_timer(&self, stop: CancellationToken) {
        loop {
            let wait = {
                let mut groups = self.groups.lock();
                let now = self.now();
                let due: Vec<String> = groups
                    .held
                    .iter()
                    .filter(|(_, held)| held.wakes_at().is_some_and(|at| at <= now))
                    .map(|(id, _)| id.clone())
                    .collect();
                for id in due {
                    self.tick_assigning(&mut groups, &id, now);
                    self.tick_share(&mut groups, &id, now);
                    self.tick_streams(&mut groups, &id, now);
                    self.step(&mut groups, &id, |group, now, out| {
                        group.tick(now, &self.rules, out);
                    });
                }
                let limit = now + Millis::try_from(SLEEP_MAX.as_millis()).unwrap_or(Millis::MAX);
                let next = groups.held.values().filter_map(Held::wakes_at).min();
                groups.looks_at = next.unwrap_or(limit).clamp(now + 1, limit);
                Duration::from_millis((groups.looks_at - now).unsigned_abs())
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.sooner.notified() => (),
                () = time::sleep(wait) => (),
            }
        }
    }
}

/// From this version of OffsetCommit on, members say the epoch that the broker gave them.
const MEMBER_EPOCHS_FROM: i16 = 9;

/// Room for one change.
#[derive(Debug)]
pub(crate) struct Room<'a>(pub(super) mpsc::Permit<'a, Entry>);

/// How far a group has come.
#[derive(Debug)]
pub(crate) struct Commit {
    pub group_id: String,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// The generation, or the member's epoch; -1 of those who are not in the group.
    pub generation: i32,
    /// The version of the request.
    pub version: i16,
    pub offsets: Vec<(Place, Committed)>,
}

/// How far a group has come, as part of a producer's transaction.
#[derive(Debug)]
pub(crate) struct TransactionalCommit {
    pub group_id: String,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    pub producer: (i64, i16),
    pub offsets: Vec<(Place, Committed)>,
}

/// Why offsets are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Expired,
    TopicGone,
}

/// What of a group's offsets may expire.
enum Expiry {
    Never,
    All,
    /// Those that are old, except of these topics.
    Unused(Vec<String>),
}

fn expiry(held: &Held, before: Millis) -> Expiry {
    if held.share.is_some() {
        return Expiry::Never;
    }
    if let Some(consumer) = &held.consumer {
        let topics = held.offsets.keys().map(|(topic, _)| topic.to_string());
        let subscribed = topics.filter(|topic| consumer.group.is_subscribed(topic));
        return Expiry::Unused(subscribed.collect());
    }
    if let Some(streams) = &held.streams {
        let topics = held.offsets.keys().map(|(topic, _)| topic.to_string());
        let subscribed = topics.filter(|topic| streams.group.is_subscribed(topic));
        return Expiry::Unused(subscribed.collect());
    }
    let group = &held.group;
    match (group.state(), group.protocol_type()) {
        (State::Empty, Some(_)) if group.since_ms() <= before => Expiry::All,
        (State::Empty, Some(_)) => Expiry::Never,
        (State::Empty, None) => Expiry::Unused(Vec::new()),
        (State::Stable, Some("consumer")) => {
            subscribed(group).map_or(Expiry::Never, Expiry::Unused)
        }
        _ => Expiry::Never,
    }
}

/// Returns the topics that the members of a group of consumers read; `None` when that cannot be known.
fn subscribed(group: &Group) -> Option<Vec<String>> {
    use kafka::messages::Message;
    use kafka::messages::consumer_protocol::ConsumerProtocolSubscription;
    if group.protocol_type() != Some("consumer") {
        return None;
    }
    let protocol = group.protocol()?;
    let mut topics = Vec::new();
    for member in group.members() {
        let metadata = member.metadata(protocol);
        topics.extend(
            ConsumerProtocolSubscription::from_versioned(&metadata)
                .ok()?
                .topics,
        );
    }
    Some(topics)
}

fn view(id: &str, held: &Held) -> View {
    if let Some(consumer) = &held.consumer {
        return consumer.listed(id, held.offsets.clone());
    }
    if let Some(share) = &held.share {
        return share.listed(id);
    }
    if let Some(streams) = &held.streams {
        return streams.listed(id, held.offsets.clone());
    }
    let protocol = held.group.protocol().unwrap_or_default();
    let member = |member: &super::member::Member| MemberView {
        id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: member.metadata(protocol),
        assignment: member.assignment.clone(),
    };
    View {
        id: id.to_owned(),
        kind: Kind::Classic,
        state: held.group.state().name(),
        protocol_type: held.group.protocol_type().unwrap_or_default().to_owned(),
        protocol: protocol.to_owned(),
        members: held.group.members().map(member).collect(),
        offsets: held.offsets.clone(),
    }
}

/// Returns the places that a member of a streams group may not commit for any more.
fn stale_tasks(
    streams: &Streaming,
    member_id: &str,
    epoch: i32,
    offsets: &[(Place, Committed)],
) -> Result<BTreeSet<Place>, Refusal> {
    let places = offsets
        .iter()
        .map(|((topic, partition), _)| (&**topic, *partition));
    let results = streams.group.may_commit(member_id, epoch, places)?;
    let each = offsets.iter().zip(results);
    let stale = each.filter(|(_, result)| result.is_err());
    Ok(stale.map(|((place, _), _)| place.clone()).collect())
}

pub(super) fn offset_key(group: &str, topic: &str, partition: i32) -> Key {
    Key::Offset {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
    }
}

fn tombstones(group_id: &str, places: &[Place], whole: bool) -> Result<Records, Refusal> {
    let mut records = Records::new();
    for (topic, partition) in places {
        let key = offset_key(group_id, topic, *partition);
        records.tombstone(&key).map_err(|_| Refusal::NotStored)?;
    }
    if whole {
        let group = group_id.to_owned();
        records
            .tombstone(&Key::Group { group })
            .map_err(|_| Refusal::NotStored)?;
    }
    Ok(records)
}
