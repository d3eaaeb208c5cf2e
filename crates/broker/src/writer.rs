//! The threads that wait for the disk on behalf of everybody: many appends, one flush.
//!
//! One thread appends, in the order of arrival, into the page cache. What must be durable goes on to
//! one of a few flushing threads; each flushes a partition once for all who wait by then. So the
//! slower the disk, the more appends share a flush.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use journal::Appended;
use journal::producer::Origin;
use observe::metrics::Histogram;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::partition::{Partition, Rejected, Taken};

/// Appends that are taken from the queue at once.
const APPENDS_MAX: usize = 1024;
/// Threads that flush. A file system commits what several of them ask for together.
const FLUSHERS: usize = 4;
/// Partitions lie at least this far apart in memory: their addresses differ above these bits.
const LANE_SHIFT: u32 = 7;

/// Records on their way into a partition.
#[derive(Debug)]
pub(crate) struct Append {
    pub partition: Arc<Partition>,
    /// Whole batches with checked checksums.
    pub batches: Bytes,
    pub origin: Origin,
    /// Answered when flushed, rather than when in the page cache.
    pub durable: bool,
    pub done: oneshot::Sender<Result<Appended, Rejected>>,
}

#[derive(Debug)]
struct Waiting {
    partition: Arc<Partition>,
    /// Who is told, if anybody waits.
    asked: Option<(Appended, oneshot::Sender<Result<Appended, Rejected>>)>,
}

/// The way into all partitions.
///
/// The queue has no length of its own: what is in it belongs to requests, whose memory is limited.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Mutex<Option<mpsc::UnboundedSender<Append>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the threads, each of which holds the folder's lock to its end.
    pub(crate) fn start(flush_seconds: Histogram, lock: &Arc<File>) -> io::Result<Self> {
        let (queue, appends) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        let mut lanes = Vec::new();
        for number in 0..FLUSHERS {
            let (lane, waiting) = mpsc::unbounded_channel();
            let (seconds, held) = (flush_seconds.clone(), lock.clone());
            let name = format!("flush-{number}");
            threads.push(thread::Builder::new().name(name).spawn(move || {
                let _held = held;
                flush(waiting, &seconds);
            })?);
            lanes.push(lane);
        }
        let (name, held) = ("append".to_owned(), lock.clone());
        threads.push(thread::Builder::new().name(name).spawn(move || {
            let _held = held;
            append(appends, &lanes);
        })?);
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            threads: Mutex::new(threads),
        })
    }

    /// Queues records; calls from one place are appended in their order.
    pub(crate) fn send(&self, append: Append) {
        let refused = match &*self.queue.lock() {
            Some(queue) => queue.send(append).err().map(|refused| refused.0),
            None => Some(append),
        };
        if let Some(append) = refused {
            _ = append.done.send(Err(Rejected::Gone)); // whoever asked may have left
        }
    }

    /// Queues records and waits for the outcome.
    pub(crate) async fn append(
        &self,
        partition: Arc<Partition>,
        batches: Bytes,
        origin: Origin,
        durable: bool,
    ) -> Result<Appended, Rejected> {
        let (done, outcome) = oneshot::channel();
        self.send(Append {
            partition,
            batches,
            origin,
            durable,
            done,
        });
        outcome.await.unwrap_or(Err(Rejected::Gone))
    }

    /// Finishes what is queued and ends the threads. Waits for the disk.
    pub(crate) fn stop(&self) {
        self.queue.lock().take();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a writer thread panicked");
            }
        }
    }
}

fn append(mut queue: mpsc::UnboundedReceiver<Append>, lanes: &[mpsc::UnboundedSender<Waiting>]) {
    let mut appends = Vec::with_capacity(APPENDS_MAX);
    while queue.blocking_recv_many(&mut appends, APPENDS_MAX) > 0 {
        let now = clock::now_ms();
        for append in appends.drain(..) {
            let Append {
                partition,
                batches,
                origin,
                durable,
                done,
            } = append;
            match partition.append(&batches, now, origin, durable) {
                Ok(Taken {
                    appended,
                    durable: true,
                    ..
                }) => enqueue(lanes, partition, Some((appended, done))),
                Ok(taken) => {
                    _ = done.send(Ok(taken.appended)); // the client may have left
                    if taken.flush {
                        enqueue(lanes, partition, None);
                    }
                }
                Err(rejected) => _ = done.send(Err(rejected)), // the client may have left
            }
        }
    }
}

fn enqueue(
    lanes: &[mpsc::UnboundedSender<Waiting>],
    partition: Arc<Partition>,
    asked: Option<(Appended, oneshot::Sender<Result<Appended, Rejected>>)>,
) {
    // One partition always takes the same lane, so its flushes end in order.
    let lane = (Arc::as_ptr(&partition).addr() >> LANE_SHIFT) % FLUSHERS;
    let refused = lanes[lane].send(Waiting { partition, asked });
    if let Err(refused) = refused
        && let Some((_, done)) = refused.0.asked
    {
        _ = done.send(Err(Rejected::Gone));
    }
}

fn flush(mut queue: mpsc::UnboundedReceiver<Waiting>, seconds: &Histogram) {
    let mut waiting = Vec::with_capacity(APPENDS_MAX);
    let mut outcomes: HashMap<*const Partition, Result<(), Rejected>> = HashMap::new();
    while queue.blocking_recv_many(&mut waiting, APPENDS_MAX) > 0 {
        for Waiting { partition, .. } in &waiting {
            outcomes.entry(Arc::as_ptr(partition)).or_insert_with(|| {
                let started = Instant::now();
                let outcome = partition.flush();
                seconds.record(started.elapsed());
                outcome
            });
        }
        for Waiting { partition, asked } in waiting.drain(..) {
            let Some((appended, done)) = asked else {
                continue;
            };
            let outcome = match outcomes.get(&Arc::as_ptr(&partition)) {
                Some(Ok(())) => Ok(appended),
                Some(Err(rejected)) => Err(rejected.clone()),
                None => Err(Rejected::Gone),
            };
            _ = done.send(outcome); // the client may have left
        }
        outcomes.clear();
    }
}
