//! The originators that run, and the files that they are made from: what changes in those is taken into use without
//! another configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use model::tls_context::TlsContext;
use model::{Config, Object};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::Originator;
use super::material::{self, Material};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The originators that run, by the namespace and name of their TLSContext; the empty name stands for none.
pub(crate) struct Originators {
    /// Where files are looked at.
    runtime: Handle,
    running: HashMap<(String, String), Running>,
    /// Those whose certificates are in files.
    watched: Arc<Mutex<Vec<Arc<Kept>>>>,
    watching: bool,
}

struct Running {
    kept: Arc<Kept>,
    /// Belongs to the configuration that is being built.
    fresh: bool,
}

/// An originator, and what the running configuration makes it from; nothing while that lacks a Secret.
struct Kept {
    originator: Weak<Originator>,
    written: Mutex<Option<Written>>,
}

struct Written {
    context: TlsContext,
    /// All but the files.
    material: Material,
    /// All of it as it was tried last, and what was wrong with that.
    tried: Option<(Material, Option<String>)>,
}

impl Originators {
    pub(crate) fn new(runtime: Handle) -> Self {
        Originators {
            runtime,
            running: HashMap::new(),
            watched: Arc::default(),
            watching: false,
        }
    }

    /// Begins another configuration.
    pub(crate) fn begin(&mut self) {
        for running in self.running.values_mut() {
            running.fresh = false;
        }
    }

    /// Ends it: what it does not use any more is forgotten.
    pub(crate) fn finish(&mut self) {
        // Routes that were not built again have theirs too.
        self.running.retain(|_, running| running.kept.lives());
        lock(&self.watched).retain(|kept| kept.lives());
    }

    /// Returns the originator for a TLSContext, or for none. What it lacks it says itself; what is in files may come
    /// later.
    pub(crate) fn of(
        &mut self,
        config: &Config,
        context: Option<&Object<TlsContext>>,
    ) -> Arc<Originator> {
        let key = context.map_or_else(Default::default, |context| {
            (context.namespace.clone(), context.name.clone())
        });
        let before = self.running.get(&key);
        let before = before.and_then(|running| Some((running, running.kept.originator.upgrade()?)));
        if let Some((running, originator)) = &before
            && running.fresh
        {
            return originator.clone();
        }
        let default = TlsContext::default();
        let context = context.map_or(&default, |context| &context.spec);
        let (kept, originator) = match before {
            Some((running, originator)) => (running.kept.clone(), originator),
            None => Kept::new(),
        };
        match Material::gather(context, &key.0, config) {
            Ok(material) => kept.take(&originator, context, material),
            Err(problem) => kept.lack(&originator, problem),
        }
        if material::has_files(context) {
            self.watch(kept.clone());
        }
        self.running.insert(key, Running { kept, fresh: true });
        originator
    }

    /// Looks at the files of an originator from time to time.
    fn watch(&mut self, kept: Arc<Kept>) {
        let mut all = lock(&self.watched);
        if !all.iter().any(|watched| Arc::ptr_eq(watched, &kept)) {
            all.push(kept);
        }
        drop(all);
        if !std::mem::replace(&mut self.watching, true) {
            self.runtime.spawn(look(Arc::downgrade(&self.watched)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes changed files into use for as long as the gateway lives.
async fn look(all: Weak<Mutex<Vec<Arc<Kept>>>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(all) = all.upgrade() else { return };
        // A slow disk holds up nobody but us.
        let kept = lock(&all).clone();
        let looking = tokio::task::spawn_blocking(move || kept.iter().for_each(|one| one.look()));
        if let Err(error) = looking.await {
            warn!(%error, "could not look at the files of certificates");
        }
    }
}

impl Kept {
    fn new() -> (Arc<Kept>, Arc<Originator>) {
        let originator = Arc::new(Originator::default());
        let kept = Kept {
            originator: Arc::downgrade(&originator),
            written: Mutex::default(),
        };
        (Arc::new(kept), originator)
    }

    fn lives(&self) -> bool {
        self.originator.strong_count() > 0
    }

    /// Takes what a configuration says.
    fn take(&self, originator: &Originator, context: &TlsContext, material: Material) {
        let mut written = lock(&self.written);
        let tried = written.take().and_then(|before| before.tried);
        let now = written.insert(Written {
            context: context.clone(),
            material,
            tried,
        });
        let (problem, _) = now.bring(originator);
        originator.lack(problem);
    }

    /// Takes note of a configuration that lacks something.
    fn lack(&self, originator: &Originator, problem: String) {
        *lock(&self.written) = None;
        originator.lack(Some(problem));
    }

    /// Looks at the files.
    fn look(&self) {
        let mut written = lock(&self.written);
        let (Some(written), Some(originator)) = (written.as_mut(), self.originator.upgrade())
        else {
            return;
        };
        if !material::has_files(&written.context) {
            return;
        }
        let before = originator.problem();
        let (problem, changed) = written.bring(&originator);
        match &problem {
            Some(problem) if before.as_deref() != Some(problem) => {
                warn!(%problem, "certificates for services cannot be used");
            }
            None if changed => info!("certificates for services have changed"),
            _ => (),
        }
        originator.lack(problem);
    }
}

impl Written {
    /// Brings an originator in line with what is written and in files now. Returns what is wrong with that, so that the
    /// last good stays, and whether something else is in use now.
    fn bring(&mut self, originator: &Originator) -> (Option<String>, bool) {
        let material = match self.material.clone().with_files(&self.context) {
            Ok(material) => material,
            // A file that is gone or half written may come back.
            Err(problem) => return (Some(problem), false),
        };
        if let Some((tried, problem)) = &self.tried
            && *tried == material
        {
            return (problem.clone(), false);
        }
        let made = material.client_config();
        let changed = made.is_ok();
        let problem = match made {
            Ok(config) => {
                originator.change(config);
                None
            }
            Err(problem) => Some(problem),
        };
        self.tried = Some((material, problem.clone()));
        (problem, changed)
    }
}
