//! Subscribe: each record of a topic becomes a request to a service, through a consumer group.

mod delivery;
mod lanes;
mod outcome;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::discovery::Directory;
use model::{Config, Object, Subscribe};
use observe::metrics::Metrics;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::log::Log;

/// Runs the subscriptions that the configuration names.
pub struct Subscriptions {
    metrics: Metrics,
    stop: CancellationToken,
    running: Mutex<BTreeMap<String, Running>>,
    /// Who tells where services are.
    directory: Directory,
}

struct Running {
    object: Object<Subscribe>,
    bootstrap: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            tracing::error!(%error, subscription = %self.object.name, "subscription task failed");
        }
    }
}

impl Subscriptions {
    /// Returns a runner without subscriptions, which finds services as the gateway does. All end when `stop` is cancelled.
    pub fn new(metrics: Metrics, directory: Directory, stop: CancellationToken) -> Self {
        Subscriptions {
            metrics,
            stop,
            running: Mutex::default(),
            directory,
        }
    }

    /// Makes the running subscriptions those of `config`: unchanged ones go on undisturbed, removed and changed ones
    /// finish what is under way, new ones start.
    pub async fn apply(&self, config: Arc<Config>, log: &Log) {
        let mut running = self.running.lock().await;
        let wanted: BTreeMap<String, &Object<Subscribe>> = config
            .subscribe
            .iter()
            .map(|object| (object.full_name(), object))
            .collect();
        let stale: Vec<String> = running
            .iter()
            .filter(|(name, now)| {
                let same = |object: &&Object<Subscribe>| object.spec == now.object.spec;
                now.bootstrap != log.bootstrap() || !wanted.get(*name).is_some_and(same)
            })
            .map(|(name, _)| name.clone())
            .collect();
        let ending: Vec<Running> = stale
            .iter()
            .filter_map(|name| running.remove(name))
            .collect();
        futures_util::future::join_all(ending.into_iter().map(Running::end)).await;
        for (name, object) in wanted {
            if running.contains_key(&name) || self.stop.is_cancelled() {
                continue;
            }
            let stop = self.stop.child_token();
            let subscription =
                run::Subscription::new(object, log, self.directory.clone(), &self.metrics);
            info!(subscription = %object.name, topic = %object.spec.topic, service = %object.spec.service, "subscription started");
            let started = Running {
                object: object.clone(),
                bootstrap: log.bootstrap().to_owned(),
                stop: stop.clone(),
                task: tokio::spawn(subscription.run(stop)),
            };
            running.insert(name, started);
        }
    }

    /// Ends all subscriptions and returns when their progress has been committed.
    pub async fn end(&self) {
        self.stop.cancel();
        let running = std::mem::take(&mut *self.running.lock().await);
        futures_util::future::join_all(running.into_values().map(Running::end)).await;
    }
}
