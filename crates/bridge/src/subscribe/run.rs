//! The life of one subscription: fetch, deliver in lanes, commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gateway::connect::Secure;
use gateway::discovery::Directory;
use krafka::KrafkaError;
use krafka::consumer::{
    AutoOffsetReset, Consumer, ConsumerRebalanceListener, ConsumerRecord, OffsetAndMetadata,
    TopicPartition,
};
use model::subscribe::From;
use model::{Object, Subscribe};
use observe::metrics::{Counter, Gauge, Metrics};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::delivery::Delivery;
use super::lanes::{Lanes, Record};
use super::outcome::{Outcome, backoff};
use crate::log::{Entry, Log};

/// Records between the last commit and the last fetch; above it fetching pauses until deliveries catch up.
const WINDOW_RECORDS_MAX: usize = 2_000;

/// Bytes that wait for their turn; above it fetching pauses.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// How often progress is committed while it moves.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// How long one poll waits for records.
const POLL_MAX: Duration = Duration::from_millis(500);

/// How long deliveries that are under way may take at the end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The wait before the consumer is opened again after it failed: doubled with each failure in a row, up to the longest.
const REOPEN_AFTER_MIN: Duration = Duration::from_secs(1);
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(30);

/// A consumer that lived this long has not failed in a row.
const LIVED: Duration = Duration::from_secs(60);

/// One subscription, ready to run.
pub(super) struct Subscription {
    name: String,
    spec: Subscribe,
    group: String,
    log: Log,
    courier: Arc<Courier>,
    open: Gauge,
    disabled: Gauge,
}

/// Takes one record to its end, however many tries that needs.
struct Courier {
    delivery: Delivery,
    spec: Subscribe,
    log: Log,
    /// Until when the service asked the whole subscription to wait.
    hold: watch::Sender<Instant>,
    delivered: Counter,
    retried: Counter,
    dead: Counter,
}

/// How a record ended.
enum Ended {
    /// It needs no more: delivered, dropped or among the dead letters.
    Done,
    /// The service wants no more records.
    Disabled,
}

impl Subscription {
    pub(super) fn new(
        object: &Object<Subscribe>,
        log: &Log,
        secure: Option<Secure>,
        directory: Directory,
        metrics: &Metrics,
    ) -> Self {
        let labels = [
            ("subscription", object.name.as_str()),
            ("topic", object.spec.topic.as_str()),
        ];
        let counter = |name, help| metrics.counter(name, help, &labels);
        let courier = Courier {
            delivery: Delivery::new(object, secure, directory),
            spec: object.spec.clone(),
            log: log.clone(),
            hold: watch::Sender::new(Instant::now()),
            delivered: counter(
                "nuncio_subscribe_delivered",
                "Records that a service acknowledged.",
            ),
            retried: counter(
                "nuncio_subscribe_retries",
                "Deliveries that will be tried again.",
            ),
            dead: counter(
                "nuncio_subscribe_dead",
                "Records given up: dead letters, or passed over without a topic for them.",
            ),
        };
        Subscription {
            name: object.name.clone(),
            spec: object.spec.clone(),
            group: object
                .spec
                .group
                .clone()
                .unwrap_or_else(|| format!("nuncio.{}", object.name)),
            log: log.clone(),
            courier: Arc::new(courier),
            open: metrics.gauge(
                "nuncio_subscribe_open",
                "Records fetched and not yet done.",
                &labels,
            ),
            disabled: metrics.gauge(
                "nuncio_subscribe_disabled",
                "1 when the service has answered 410 Gone and gets no more records.",
                &labels,
            ),
        }
    }

    /// Runs until stopped or disabled; a consumer that fails is opened again.
    pub(super) async fn run(self, stop: CancellationToken) {
        self.disabled.set(0);
        let mut wait = REOPEN_AFTER_MIN;
        while !stop.is_cancelled() {
            let opened = Instant::now();
            match self.consume(&stop).await {
                Ok(Next::Stopped) => return,
                Ok(Next::Reopen) => (),
                Ok(Next::Disabled) => {
                    self.disabled.set(1);
                    error!(subscription = %self.name, service = %self.spec.service, "the service answered 410 Gone: no more records for it until the subscription is changed or the process starts again");
                    return;
                }
                Err(error) => {
                    warn!(subscription = %self.name, %error, ?wait, "subscription interrupted, going on after a wait");
                }
            }
            if opened.elapsed() > LIVED {
                wait = REOPEN_AFTER_MIN;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(wait) => (),
            }
            wait = (wait * 2).min(REOPEN_AFTER_MAX);
        }
    }

    async fn consume(&self, stop: &CancellationToken) -> Result<Next, KrafkaError> {
        let revoked = Revoked::default();
        let opened = async {
            let kafka = self.log.connect().await?;
            let consumer = kafka
                .consumer(&self.group)
                .enable_auto_commit(false)
                .auto_offset_reset(match self.spec.from {
                    From::Earliest => AutoOffsetReset::Earliest,
                    From::Latest => AutoOffsetReset::Latest,
                })
                .fetch_max_wait(POLL_MAX)
                .rebalance_listener(Arc::new(revoked.clone()))
                .build()
                .await?;
            consumer.subscribe([self.spec.topic.as_str()]).await?;
            Ok::<_, KrafkaError>(consumer)
        };
        let consumer = tokio::select! {
            () = stop.cancelled() => return Ok(Next::Stopped),
            opened = opened => opened?,
        };
        let mut round = Round {
            subscription: self,
            consumer: &consumer,
            revoked,
            lanes: Lanes::new(self.spec.order_by, self.spec.in_flight_max as usize),
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            paused: false,
        };
        let ended = round.go(stop).await;
        round.finish().await;
        self.open.set(0);
        if let Err(error) = consumer.close().await {
            warn!(subscription = %self.name, %error, "consumer did not leave its group cleanly");
        }
        ended
    }
}

/// Why a consumer's loop ended well.
enum Next {
    Stopped,
    Disabled,
    /// A delivery failed by a bug of ours: its record stays open, so everything starts from the last commit.
    Reopen,
}

/// Everything that lives as long as one consumer.
struct Round<'a> {
    subscription: &'a Subscription,
    consumer: &'a Consumer,
    revoked: Revoked,
    lanes: Lanes,
    tasks: JoinSet<Ended>,
    under_way: HashMap<Id, (Record, AbortHandle)>,
    paused: bool,
}

impl Round<'_> {
    async fn go(&mut self, stop: &CancellationToken) -> Result<Next, KrafkaError> {
        let mut commit = time::interval(COMMIT_EVERY);
        commit.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            self.start_deliveries();
            self.pace().await;
            let consumer = self.consumer;
            tokio::select! {
                () = stop.cancelled() => return Ok(Next::Stopped),
                polled = consumer.poll(POLL_MAX) => {
                    // A rebalance happens inside a poll, so what was taken away goes before what has come.
                    self.drop_revoked();
                    for record in polled? {
                        self.lanes.offer(record_of(record));
                    }
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some(next) = self.ended(ended) {
                        return Ok(next);
                    }
                }
                _ = commit.tick() => self.commit().await,
            }
        }
    }

    fn start_deliveries(&mut self) {
        while let Some(record) = self.lanes.next() {
            let courier = self.subscription.courier.clone();
            let sent = record.clone();
            let handle = self
                .tasks
                .spawn(async move { courier.deliver(&sent).await });
            self.under_way.insert(handle.id(), (record, handle));
        }
        self.subscription.open.set(self.lanes.load().0 as i64);
    }

    /// Stops fetching while too much is open. Polling goes on, because it keeps the membership alive.
    async fn pace(&mut self) {
        let (records, bytes) = self.lanes.load();
        let full = records >= WINDOW_RECORDS_MAX || bytes >= WAITING_BYTES_MAX;
        if full == self.paused {
            return;
        }
        for (topic, partitions) in self.consumer.assignment().await {
            match full {
                true => self.consumer.pause(&topic, &partitions).await,
                false => self.consumer.resume(&topic, &partitions).await,
            }
        }
        self.paused = full;
    }

    fn ended(&mut self, ended: Result<(Id, Ended), tokio::task::JoinError>) -> Option<Next> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        let (record, _) = self.under_way.remove(&id)?;
        match result {
            Ok(Ended::Done) => self.lanes.done(&record),
            Ok(Ended::Disabled) => return Some(Next::Disabled),
            // Cut off because its partition was taken away: it counts no more.
            Err(error) if error.is_cancelled() => self.lanes.done(&record),
            Err(error) => {
                error!(subscription = %self.subscription.name, %error, "delivery failed");
                return Some(Next::Reopen);
            }
        }
        None
    }

    fn drop_revoked(&mut self) {
        for partition in self.revoked.take() {
            self.lanes.revoke(partition);
            let of_it = self
                .under_way
                .values()
                .filter(|(record, _)| record.partition == partition);
            of_it.for_each(|(_, handle)| handle.abort());
            // What replaces the partition is not paused.
            self.paused = false;
        }
    }

    async fn commit(&mut self) {
        let moved = self.lanes.committable();
        if moved.is_empty() {
            return;
        }
        let topic = &self.subscription.spec.topic;
        let offsets = moved.iter().map(|(partition, offset)| {
            (
                TopicPartition::new(topic.as_str(), *partition),
                OffsetAndMetadata::new(*offset),
            )
        });
        match self.consumer.commit_offsets(offsets).await {
            Ok(()) => self.lanes.committed(&moved),
            // The next tick tries again; until then a restart would deliver again, never lose.
            Err(error) => {
                warn!(subscription = %self.subscription.name, %error, "progress not committed yet")
            }
        }
    }

    /// Lets deliveries that are under way end, within a limit, and commits.
    async fn finish(&mut self) {
        let drained = time::timeout(DRAIN_MAX, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                _ = self.ended(ended);
            }
        });
        if drained.await.is_err() {
            info!(subscription = %self.subscription.name, open = self.lanes.in_flight(), "deliveries cut off, they start over later");
        }
        self.commit().await;
    }
}

impl Courier {
    /// Tries until the record's fate is known. Dropping the future leaves the record to be delivered again.
    async fn deliver(&self, record: &Record) -> Ended {
        let mut attempt = 1;
        loop {
            self.held().await;
            let (after, why) = match self.delivery.send(record, attempt).await {
                Outcome::Acknowledged => {
                    self.delivered.inc();
                    return Ended::Done;
                }
                Outcome::Dropped => return Ended::Done,
                Outcome::Disabled => return Ended::Disabled,
                Outcome::Dead { why } => return self.bury(record, attempt, &why).await,
                Outcome::Retry { after, slow, why } => {
                    if let (Some(after), true) = (after, slow) {
                        self.hold
                            .send_modify(|until| *until = (*until).max(Instant::now() + after));
                    }
                    (after, why)
                }
            };
            let retry = &self.spec.retry;
            if retry.attempts_max != 0 && attempt >= retry.attempts_max {
                return self.bury(record, attempt, &why).await;
            }
            self.retried.inc();
            let wait = after.unwrap_or_else(|| backoff(retry, attempt, rand::random()));
            if attempt.is_power_of_two() {
                warn!(topic = %self.spec.topic, partition = record.partition, offset = record.offset, attempt, ?wait, %why, "record not delivered, trying again");
            }
            time::sleep(wait).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn held(&self) {
        loop {
            let until = *self.hold.borrow();
            if until <= Instant::now() {
                return;
            }
            time::sleep_until(until).await;
        }
    }

    /// Stores the record among the dead letters, for as long as that takes; without a topic for them it is passed over.
    async fn bury(&self, record: &Record, attempts: u32, why: &str) -> Ended {
        self.dead.inc();
        error!(topic = %self.spec.topic, partition = record.partition, offset = record.offset, attempts, %why, dead_letter = self.spec.dead_letter.as_deref(), "record given up");
        let Some(topic) = &self.spec.dead_letter else {
            return Ended::Done;
        };
        let said = [
            ("nuncio-dead-topic", self.spec.topic.clone()),
            ("nuncio-dead-partition", record.partition.to_string()),
            ("nuncio-dead-offset", record.offset.to_string()),
            ("nuncio-dead-attempts", attempts.to_string()),
            ("nuncio-dead-reason", why.to_owned()),
        ];
        let mut headers: Vec<(String, Bytes)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
            .collect();
        headers.extend(said.map(|(name, value)| (name.to_owned(), Bytes::from(value))));
        let entry = Entry {
            key: record.key.clone(),
            value: record.value.clone(),
            headers,
        };
        let mut attempt = 1;
        while let Err(error) = self.log.append(topic, entry.clone()).await {
            warn!(%topic, %error, "dead letter not stored, trying again");
            time::sleep(backoff(&self.spec.retry, attempt, rand::random())).await;
            attempt = attempt.saturating_add(1);
        }
        Ended::Done
    }
}

fn record_of(record: ConsumerRecord) -> Record {
    Record {
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        assignment: 0,
    }
}

/// Partitions that a rebalance took away and that the loop has not dropped yet.
#[derive(Clone, Default)]
struct Revoked(Arc<Mutex<Vec<i32>>>);

impl Revoked {
    fn take(&self) -> Vec<i32> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, partitions: &[TopicPartition]) {
        let mut revoked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(partitions.iter().map(|partition| partition.partition));
    }
}

impl ConsumerRebalanceListener for Revoked {
    async fn on_partitions_assigned<'a>(&'a self, _partitions: &'a [TopicPartition]) {}

    async fn on_partitions_revoked<'a>(&'a self, partitions: &'a [TopicPartition]) {
        self.add(partitions);
    }

    async fn on_partitions_lost<'a>(&'a self, partitions: &'a [TopicPartition]) {
        self.add(partitions);
    }
}
