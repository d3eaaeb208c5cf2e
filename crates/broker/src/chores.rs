//! What happens by itself: old records, segments and offsets go.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock;
use crate::core::Core;

/// How often it is looked whether something must be flushed because of its age, or can be written again.
const FLUSHES: Duration = Duration::from_secs(1);

/// Does the chores until told to stop.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut retention =
        time::interval_at(Instant::now() + core.retention_check, core.retention_check);
    retention.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flushes = time::interval(FLUSHES);
    flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = retention.tick() => {
                let all = core.clone();
                if let Err(error) = spawn_blocking(move || retain(&all)).await {
                    error!(%error, "could not look for old records");
                }
                if let Err(refusal) = core.groups.expire().await {
                    warn!(%refusal, "could not remove old offsets");
                }
            }
            _ = flushes.tick() => {
                let all = core.clone();
                if let Err(error) = spawn_blocking(move || flush(&all)).await {
                    error!(%error, "could not look what is to be flushed");
                }
            }
        }
    }
}

/// Flushes what has waited for as long as its topic allows, and takes logs into use again whose disk refused.
fn flush(core: &Core) {
    for topic in core.topics.all() {
        let after = topic.settings().flush_ms.map(Duration::from_millis);
        for partition in topic.partitions().iter() {
            partition.heal();
            if let Some(after) = after
                && let Err(rejected) = partition.flush_after(after)
                && !partition.is_gone()
            {
                error!(topic = %topic.name, partition = partition.index, %rejected, "could not flush");
            }
        }
    }
}

/// Deletes what is older or larger than topics say.
fn retain(core: &Core) {
    let now = clock::now_ms();
    for topic in core.topics.all() {
        let settings = topic.settings();
        for partition in topic.partitions().iter() {
            match partition.retain(&settings, now) {
                Ok(0) => (),
                Ok(segments) => {
                    info!(topic = %topic.name, partition = partition.index, segments, "old segments deleted");
                }
                Err(_) if partition.is_gone() => (),
                Err(rejected) => {
                    error!(topic = %topic.name, partition = partition.index, %rejected, "could not delete old segments");
                }
            }
        }
    }
}
