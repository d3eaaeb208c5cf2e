//! The sides of TLS that run, and the files that they are made from: what changes in those is taken into use without
//! another configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use model::tls_context::TlsContext;
use model::{Config, Object};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::client::Originator;
use crate::material::{Context, Material, Said};
use crate::server::Terminator;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What speaks TLS, and whose certificates may change meanwhile.
pub(crate) trait Side: Default + Send + Sync + 'static {
    /// Whom it speaks with.
    const WHOSE: &str;

    /// Uses this from now on.
    ///
    /// # Errors
    /// What cannot be used; what was there before stays in use.
    fn change(&self, material: &Material) -> Result<(), String>;

    /// Says what is wrong with what is written now.
    fn lack(&self, problem: Option<String>);

    /// Returns what was said last.
    fn lacks(&self) -> Option<Arc<String>>;
}

/// Those who ask that run, by the namespace and name of their TLSContext; the empty name stands for none.
pub struct Originators(Keeper<Originator>);

/// Those who answer that run, by whatever they are called.
pub struct Terminators(Keeper<Terminator>);

impl Originators {
    /// Returns none yet; files are looked at on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Originators(Keeper::new(runtime))
    }

    /// Begins another configuration.
    pub fn begin(&mut self) {
        self.0.begin();
    }

    /// Ends it: what nobody uses any more is forgotten.
    pub fn finish(&mut self) {
        self.0.finish();
    }

    /// Returns the originator for a TLSContext, or for none. What it lacks it says itself; what is in files may come
    /// later.
    pub fn of(&mut self, config: &Config, context: Option<&Object<TlsContext>>) -> Arc<Originator> {
        let (key, said) = match context {
            Some(context) => (context.full_name(), Context::of(context)),
            None => (
                String::new(),
                Context {
                    spec: TlsContext::default(),
                    namespace: String::new(),
                    secret: None,
                },
            ),
        };
        let contexts = vec![said];
        self.0.of(config, &key, Said { contexts })
    }
}

impl Terminators {
    /// Returns none yet; files are looked at on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Terminators(Keeper::new(runtime))
    }

    /// Begins another configuration.
    pub fn begin(&mut self) {
        self.0.begin();
    }

    /// Ends it: what nobody uses any more is forgotten.
    pub fn finish(&mut self) {
        self.0.finish();
    }

    /// Returns the terminator of this name, which stays the same for as long as it is asked for. The first context has
    /// the rules, all of them have certificates. What it lacks it says itself; what is in files may come later.
    ///
    /// # Panics
    /// When there is no context: that is a bug of the caller's.
    pub fn of(&mut self, config: &Config, name: &str, contexts: Vec<Context>) -> Arc<Terminator> {
        assert!(!contexts.is_empty(), "somebody has to say the rules");
        self.0.of(config, name, Said { contexts })
    }
}

struct Keeper<S> {
    /// Where files are looked at.
    runtime: Handle,
    running: HashMap<String, Running<S>>,
    /// Those whose certificates are in files.
    watched: Arc<Mutex<Vec<Arc<Kept<S>>>>>,
    watching: bool,
}

struct Running<S> {
    kept: Arc<Kept<S>>,
    /// Belongs to the configuration that is being built.
    fresh: bool,
}

/// A side, and what the running configuration makes it from; nothing while that lacks a Secret.
struct Kept<S> {
    side: Weak<S>,
    written: Mutex<Option<Written>>,
}

struct Written {
    said: Said,
    /// All but the files.
    material: Material,
    /// All of it as it was tried last, and what was wrong with that.
    tried: Option<(Material, Option<String>)>,
}

impl<S: Side> Keeper<S> {
    fn new(runtime: Handle) -> Self {
        Keeper {
            runtime,
            running: HashMap::new(),
            watched: Arc::default(),
            watching: false,
        }
    }

    fn begin(&mut self) {
        for running in self.running.values_mut() {
            running.fresh = false;
        }
    }

    fn finish(&mut self) {
        // What was not asked for again may be in use all the same.
        self.running.retain(|_, running| running.kept.lives());
        lock(&self.watched).retain(|kept| kept.lives());
    }

    fn of(&mut self, config: &Config, key: &str, said: Said) -> Arc<S> {
        let before = self.running.get(key);
        let before = before.and_then(|running| Some((running, running.kept.side.upgrade()?)));
        if let Some((running, side)) = &before
            && running.fresh
        {
            return side.clone();
        }
        let (kept, side) = match before {
            Some((running, side)) => (running.kept.clone(), side),
            None => Kept::new(),
        };
        let has_files = said.has_files();
        match Material::gather(&said, config) {
            Ok(material) => kept.take(&*side, said, material),
            Err(problem) => kept.miss(&*side, problem),
        }
        if has_files {
            self.watch(kept.clone());
        }
        let running = Running { kept, fresh: true };
        self.running.insert(key.to_owned(), running);
        side
    }

    /// Looks at the files of a side from time to time.
    fn watch(&mut self, kept: Arc<Kept<S>>) {
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

/// Takes changed files into use for as long as somebody keeps them.
async fn look<S: Side>(all: Weak<Mutex<Vec<Arc<Kept<S>>>>>) {
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

impl<S: Side> Kept<S> {
    fn new() -> (Arc<Kept<S>>, Arc<S>) {
        let side = Arc::new(S::default());
        let kept = Kept {
            side: Arc::downgrade(&side),
            written: Mutex::default(),
        };
        (Arc::new(kept), side)
    }

    fn lives(&self) -> bool {
        self.side.strong_count() > 0
    }

    /// Takes what a configuration says.
    fn take(&self, side: &S, said: Said, material: Material) {
        let mut written = lock(&self.written);
        let tried = written.take().and_then(|before| before.tried);
        let now = written.insert(Written {
            said,
            material,
            tried,
        });
        let (problem, _) = now.bring(side);
        side.lack(problem);
    }

    /// Takes note of a configuration that lacks something.
    fn miss(&self, side: &S, problem: String) {
        *lock(&self.written) = None;
        side.lack(Some(problem));
    }

    /// Looks at the files.
    fn look(&self) {
        let mut written = lock(&self.written);
        let (Some(written), Some(side)) = (written.as_mut(), self.side.upgrade()) else {
            return;
        };
        if !written.said.has_files() {
            return;
        }
        let before = side.lacks();
        let (problem, changed) = written.bring(&*side);
        match &problem {
            Some(problem) if before.as_deref() != Some(problem) => {
                warn!(%problem, with = S::WHOSE, "certificates cannot be used");
            }
            None if changed => info!(with = S::WHOSE, "certificates have changed"),
            _ => (),
        }
        side.lack(problem);
    }
}

impl Written {
    /// Brings a side in line with what is written and in files now. Returns what is wrong with that, so that the last
    /// good stays, and whether something else is in use now.
    fn bring<S: Side>(&mut self, side: &S) -> (Option<String>, bool) {
        let material = match self.material.clone().with_files(&self.said) {
            Ok(material) => material,
            // A file that is gone or half written may come back.
            Err(problem) => return (Some(problem), false),
        };
        if let Some((tried, problem)) = &self.tried
            && *tried == material
        {
            return (problem.clone(), false);
        }
        let problem = side.change(&material).err();
        let changed = problem.is_none();
        self.tried = Some((material, problem.clone()));
        (problem, changed)
    }
}
