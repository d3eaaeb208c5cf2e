//! Subscribe: each record of a topic becomes a request to a service, through a consumer group.

mod connect;
mod delivery;
mod lanes;
mod outcome;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::connect::{Contexts, Secure};
use gateway::discovery::Directory;
use model::target::Target;
use model::{Config, Object, Subscribe};
use observe::metrics::Metrics;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::log::Log;

/// Runs the subscriptions that the configuration names.
pub struct Subscriptions {
    metrics: Metrics,
    stop: CancellationToken,
    state: Mutex<State>,
    /// Who tells where services are.
    directory: Directory,
}

struct State {
    running: BTreeMap<String, Running>,
    contexts: Contexts,
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
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(metrics: Metrics, directory: Directory, stop: CancellationToken) -> Self {
        Subscriptions {
            metrics,
            stop,
            state: Mutex::new(State {
                running: BTreeMap::new(),
                contexts: Contexts::new(Handle::current()),
            }),
            directory,
        }
    }

    /// Makes the running subscriptions those of `config`: unchanged ones go on undisturbed, removed and changed ones
    /// finish what is under way, new ones start.
    pub async fn apply(&self, config: Arc<Config>, log: &Log) {
        let mut state = self.state.lock().await;
        let State { running, contexts } = &mut *state;
        contexts.begin();
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
            // Those that run have theirs, and take what has changed in it.
            let secure = secure(contexts, &config, object);
            if running.contains_key(&name) || self.stop.is_cancelled() {
                continue;
            }
            let stop = self.stop.child_token();
            let subscription =
                run::Subscription::new(object, log, secure, self.directory.clone(), &self.metrics);
            info!(subscription = %object.name, topic = %object.spec.topic, service = %object.spec.service, "subscription started");
            let started = Running {
                object: object.clone(),
                bootstrap: log.bootstrap().to_owned(),
                stop: stop.clone(),
                task: tokio::spawn(subscription.run(stop)),
            };
            running.insert(name, started);
        }
        contexts.finish();
    }

    /// Ends all subscriptions and returns when their progress has been committed.
    pub async fn end(&self) {
        self.stop.cancel();
        let running = std::mem::take(&mut self.state.lock().await.running);
        futures_util::future::join_all(running.into_values().map(Running::end)).await;
    }
}

/// Returns how a subscription's connections speak TLS: with `https://`, or with a TLSContext and no other scheme.
fn secure(contexts: &mut Contexts, config: &Config, object: &Object<Subscribe>) -> Option<Secure> {
    let spec = &object.spec;
    let target = Target::parse(&spec.service).ok()?;
    let cleartext = !target.tls && spec.service.contains("://");
    let named = spec.tls.as_deref().filter(|_| !cleartext);
    if !target.tls && named.is_none() {
        return None;
    }
    // A name that is not known is refused when the whole is checked.
    let context = named.and_then(|name| config.tls_context(name, &object.namespace));
    let secure = contexts.of(config, context, &target.host);
    if let Some(problem) = secure.problem() {
        warn!(%problem, subscription = %object.name, "certificates for a subscription cannot be used");
    }
    Some(secure)
}
