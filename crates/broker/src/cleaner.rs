//! The thread that compacts logs: always the dirtiest of them, one at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use journal::clean::{CleanError, Cleaning, Dirt, Limits};
use tokio::task::spawn_blocking;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::clock;
use crate::core::Core;
use crate::partition::Partition;

/// Longest sleep to keep within the speed: the end of the broker does not wait longer.
const NAP: Duration = Duration::from_millis(200);

/// How logs are compacted, all topics alike.
#[derive(Debug, Clone)]
pub struct Compacting {
    /// Whether logs are compacted at all (`log.cleaner.enable`).
    pub enabled: bool,
    /// How long to wait when there is nothing to compact (`log.cleaner.backoff.ms`).
    pub backoff: Duration,
    /// Bytes for the map of keys (`log.cleaner.dedupe.buffer.size`); it grows only as far as it is needed.
    pub keys_bytes_max: usize,
    /// Bytes that are read and written in a second at most (`log.cleaner.io.max.bytes.per.second`).
    pub bytes_per_second_max: Option<u64>,
}

impl Default for Compacting {
    fn default() -> Self {
        Self {
            enabled: true,
            backoff: Duration::from_secs(15),
            keys_bytes_max: Limits::default().keys_bytes_max,
            bytes_per_second_max: None,
        }
    }
}

/// Compacts what is dirty until told to stop.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) {
    if !core.compacting.enabled {
        warn!("no log is compacted, because `log.cleaner.enable` is false");
        return;
    }
    loop {
        let (all, ending) = (core.clone(), stop.clone());
        if let Err(error) = spawn_blocking(move || round(&all, &ending)).await {
            error!(%error, "compaction failed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(core.compacting.backoff) => (),
        }
    }
}

/// Compacts one log after another until none is dirty enough.
fn round(core: &Core, stop: &CancellationToken) {
    let limits = Limits {
        keys_bytes_max: core.compacting.keys_bytes_max,
        inflated_max: crate::intake::INFLATED_MAX,
        ..Limits::default()
    };
    // One that failed waits for the next round.
    let mut failed = HashSet::new();
    while !stop.is_cancelled()
        && let Some((partition, cleaning, dirt)) = dirtiest(core, &failed)
    {
        let (topic, index) = (&partition.topic, partition.index);
        let started = Instant::now();
        let mut moved = 0;
        let mut pace = |bytes: u64| {
            moved += bytes;
            keep_pace(core.compacting.bytes_per_second_max, started, moved, stop)
        };
        match cleaning.run(&dirt, clock::now_ms(), &limits, &mut pace) {
            Ok(done) => {
                core.metrics.compactions.inc();
                core.metrics.compacted_records.inc_by(done.removed);
                info!(%topic, index, from = done.from, to = done.to, keys = done.keys,
                    removed = done.removed, before = done.bytes_before, after = done.bytes_after,
                    "log compacted");
                if done.to <= done.from {
                    failed.insert(Arc::as_ptr(&partition)); // nothing came of it
                }
            }
            Err(CleanError::Stopped) => return,
            Err(error) => {
                match error {
                    CleanError::Changed => debug!(%topic, index, "the log changed meanwhile"),
                    _ if partition.is_gone() => (),
                    error => {
                        core.metrics.compaction_failures.inc();
                        error!(%topic, index, %error, "could not compact");
                    }
                }
                failed.insert(Arc::as_ptr(&partition));
            }
        }
    }
}

/// Returns the log with the largest dirty share of those whose time has come.
fn dirtiest(
    core: &Core,
    failed: &HashSet<*const Partition>,
) -> Option<(Arc<Partition>, Cleaning, Dirt)> {
    let now = clock::now_ms();
    let mut found: Option<(Arc<Partition>, Cleaning, Dirt)> = None;
    for topic in core.topics.all() {
        if !topic.settings().compact {
            continue;
        }
        for partition in topic.partitions().iter() {
            if failed.contains(&Arc::as_ptr(partition)) {
                continue;
            }
            let Some(cleaning) = partition.cleaning() else {
                continue;
            };
            let dirt = match cleaning.dirt(now) {
                Ok(dirt) => dirt,
                Err(error) => {
                    error!(topic = %topic.name, index = partition.index, %error, "could not look at the log");
                    continue;
                }
            };
            let dirtier = found
                .as_ref()
                .is_none_or(|(_, _, other)| dirt.ratio() > other.ratio());
            if dirtier && dirt.due(cleaning.settings()) {
                found = Some((partition.clone(), cleaning, dirt));
            }
        }
    }
    found
}

/// Sleeps as long as what was moved is more than the time allows; false when it is time to stop.
fn keep_pace(
    bytes_per_second_max: Option<u64>,
    started: Instant,
    moved: u64,
    stop: &CancellationToken,
) -> bool {
    if let Some(most) = bytes_per_second_max.filter(|most| *most > 0) {
        let due = Duration::from_secs_f64(moved as f64 / most as f64);
        while let Some(early) = due.checked_sub(started.elapsed()) {
            if early.is_zero() || stop.is_cancelled() {
                break;
            }
            thread::sleep(early.min(NAP));
        }
    }
    !stop.is_cancelled()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_bounded_and_the_end_does_not_wait() {
        let stop = CancellationToken::new();
        let started = Instant::now();
        assert!(keep_pace(Some(1000), started, 50, &stop));
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(keep_pace(None, started, u64::MAX, &stop));
        stop.cancel();
        assert!(!keep_pace(Some(1), started, 1 << 40, &stop));
    }
}
