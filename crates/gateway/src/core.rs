//! A core: a thread with a runtime of its own.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Shared, TIDY_EVERY};

/// A running core; its tasks end when it is dropped.
pub(crate) struct Core {
    pub(crate) runtime: Handle,
    /// The connections from clients that it serves.
    pub(crate) connections: TaskTracker,
    stop: CancellationToken,
}

impl Core {
    /// Starts the thread of the core with this number.
    pub(crate) fn start(number: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::Builder::new()
            .name(format!("gateway-{number}"))
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stopped.cancelled() => (),
                        () = tidy(number, &shared) => (),
                    }
                });
                for cluster in shared.clusters.load().iter() {
                    for endpoint in cluster.endpoints().iter() {
                        endpoint.clear(number);
                    }
                }
                runtime.shutdown_background();
            })?;
        Ok(Core {
            runtime: handle,
            connections: TaskTracker::new(),
            stop,
        })
    }
}

impl Core {
    /// Ends all its tasks.
    pub(crate) fn end(&self) {
        self.stop.cancel();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.end();
    }
}

/// Closes connections to upstreams that have been unused or open for too long.
async fn tidy(core: usize, shared: &Shared) {
    let mut every = interval(TIDY_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let now = Instant::now();
        for cluster in shared.clusters.load_full().iter() {
            for endpoint in cluster.endpoints().iter() {
                endpoint.reap(core, &cluster.spec, now);
            }
        }
    }
}
