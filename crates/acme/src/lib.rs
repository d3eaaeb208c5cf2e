//! Certificates from an authority by ACME (RFC 8555): when to order them, ordering them, keeping them.
//!
//! For each certificate that the configuration asks for there is a task. [`plan`] tells it when to do something, [`order`] talks
//! with the authority, [`kept`] has what lasts: what a restart finds on disk is not ordered again. Who answers clients reads the
//! same files, so that a new certificate needs no word between the two; challenges go through [`Ordered`].

mod client;
mod kept;
mod order;
mod plan;
mod task;
mod tell;
mod trouble;
mod wanted;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Config, Problem};
use observe::metrics::{Metrics, Source};
use tls::ordered::Ordered;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::kept::Kept;
use crate::tell::Told;
use crate::wanted::{Key, Wanted};

pub use crate::wanted::check;

/// Conversations with authorities that are under way at once.
const ORDERS_MAX: usize = 4;

/// Orders the certificates that configurations ask for, for as long as it is kept.
pub struct Acme {
    shared: Arc<Shared>,
    runtime: Handle,
    running: Mutex<BTreeMap<Key, Running>>,
}

/// What the tasks share.
struct Shared {
    ordered: Arc<Ordered>,
    told: Arc<Told>,
    orders: Semaphore,
    /// One account is made once.
    accounts: tokio::sync::Mutex<()>,
    /// Held while this process is the one that orders.
    lock: Mutex<Option<File>>,
    stop: CancellationToken,
}

/// The task of one certificate.
struct Running {
    wanted: watch::Sender<Arc<Wanted>>,
    stop: CancellationToken,
}

impl Acme {
    /// Returns one that orders nothing yet; its tasks run on `runtime` until `stop`.
    pub fn new(
        ordered: Arc<Ordered>,
        metrics: &Metrics,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Self {
        let told = Arc::new(Told::default());
        let source: Arc<dyn Source> = told.clone();
        metrics.ask(Arc::downgrade(&source));
        let shared = Shared {
            ordered,
            told,
            orders: Semaphore::new(ORDERS_MAX),
            accounts: tokio::sync::Mutex::new(()),
            lock: Mutex::default(),
            stop,
        };
        Acme {
            shared: Arc::new(shared),
            runtime,
            running: Mutex::default(),
        }
    }

    /// Sees to it that there is a certificate for every name that one is ordered for, if only a self-signed one: before a
    /// configuration runs. Returns what is worth knowing about it.
    pub fn prepare(&self, config: &Config) -> Vec<Problem> {
        let (wanted, problems) = wanted::all(config);
        for wanted in wanted.values() {
            let kept = Kept::of(&self.shared.ordered, wanted);
            match kept.stand_in() {
                Ok(true) => info!(
                    host = wanted.name,
                    "clients are shown a self-signed certificate until one is issued"
                ),
                Ok(false) => (),
                Err(error) => {
                    error!(%error, host = wanted.name, folder = %self.shared.ordered.folder().display(),
                        "certificates cannot be kept");
                }
            }
        }
        problems
    }

    /// Orders what a configuration asks for that runs now, and nothing else any more.
    pub fn run(&self, config: &Config) {
        let (mut wanted, _) = wanted::all(config);
        let mut running = self.running();
        running.retain(|key, one| match wanted.remove(key) {
            Some(now) => {
                let now = Arc::new(now);
                one.wanted.send_if_modified(|before| {
                    let changed = **before != *now;
                    *before = now;
                    changed
                });
                true
            }
            None => {
                one.stop.cancel();
                self.shared.told.forget(key);
                false
            }
        });
        for (key, wanted) in wanted {
            let (sender, receiver) = watch::channel(Arc::new(wanted));
            let stop = self.shared.stop.child_token();
            let work = task::run(self.shared.clone(), key.clone(), receiver, stop.clone());
            self.runtime.spawn(work);
            let one = Running {
                wanted: sender,
                stop,
            };
            running.insert(key, one);
        }
    }

    /// Orders nothing any more: what is under way now would fail, since nobody answers the authority much longer.
    pub fn end(&self) {
        self.shared.stop.cancel();
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Key, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Acme {
    fn drop(&mut self) {
        for one in self.running().values() {
            one.stop.cancel();
        }
    }
}

impl Shared {
    /// Returns whether this process is the one that orders: of several on one folder the first is.
    fn is_first(&self) -> std::io::Result<bool> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            return Ok(true);
        }
        std::fs::create_dir_all(self.ordered.folder())?;
        let file = File::create(self.ordered.folder().join("lock"))?;
        match file.try_lock() {
            Ok(()) => *lock = Some(file),
            Err(std::fs::TryLockError::WouldBlock) => (),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        Ok(lock.is_some())
    }
}
