//! The loop that reads, merges, checks and publishes, and the handle on it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kit::aside::aside;
use model::read::{self, Reading};
use model::{Config, Problem, Severity, Source};
use observe::metrics::{Counter, Gauge, Metrics};
use tokio::sync::{Notify, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::files::{self, Files};
use crate::merge::{Merged, Running, merge};
use crate::watch::Watch;

/// Longest time that files may go on changing before they are taken as they are.
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// What is read, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files and folders.
    pub paths: Vec<PathBuf>,

    /// Which objects count.
    pub model: read::Options,

    /// How often the files are looked at when nothing tells of a change.
    pub poll: Duration,

    /// How long files must stay the same before they are taken, so that nobody is caught in the middle of writing.
    pub settle: Duration,

    /// Addresses that are known from the start, as [`Control::tell`] would tell them.
    pub told: Overlay,
}

impl Options {
    /// Returns the usual options for some paths.
    pub fn new(paths: Vec<PathBuf>) -> Options {
        Options {
            paths,
            model: read::Options::default(),
            poll: Duration::from_secs(5),
            settle: Duration::from_millis(20),
            told: Overlay::new(),
        }
    }
}

/// What runs, and what was found on the way.
#[derive(Debug, Clone)]
pub struct Published {
    /// The checked whole.
    pub config: Arc<Config>,

    /// Grows by one with each change of what the config does. Endpoints come and go without one, and so do lines and
    /// comments.
    pub version: u64,

    /// Everything that is wrong or worth knowing at present.
    pub problems: Vec<Problem>,

    /// The texts, for excerpts.
    pub sources: Vec<Source>,

    /// When this was published.
    pub at: SystemTime,

    /// When everything was read last without an error; `None` when that never happened.
    pub good_at: Option<SystemTime>,

    /// Since when something that is written does not run because it is refused; `None` while all of it runs.
    pub stale_since: Option<SystemTime>,
}

/// A handle on the configuration. Clones share it.
#[derive(Debug, Clone)]
pub struct Control {
    published: watch::Receiver<Arc<Published>>,
    overlay: Arc<Mutex<Overlay>>,
    wake: Arc<Notify>,
}

/// Addresses that are told by other means than files, by namespace and service.
pub type Overlay = BTreeMap<(String, String), Vec<SocketAddr>>;

impl Control {
    /// Reads everything once, then goes on watching until told to stop. What could be read runs; all else is in `problems`.
    pub async fn start(options: Options, metrics: &Metrics, stop: CancellationToken) -> Control {
        let wake = Arc::new(Notify::new());
        let overlay = Arc::new(Mutex::new(options.told.clone()));
        let first = Published {
            config: Arc::new(Config::default()),
            version: 0,
            problems: Vec::new(),
            sources: Vec::new(),
            at: SystemTime::now(),
            good_at: None,
            stale_since: None,
        };
        let (publish, published) = watch::channel(Arc::new(first));
        let mut keeper = Keeper {
            state: Arc::new(State::new(options.model.clone())),
            watch: Watch::start(wake.clone()),
            overlay: overlay.clone(),
            gauges: Gauges::new(metrics),
            publish,
            options,
        };
        // Watched before read, so that no change falls between.
        keeper.watch.follow(&keeper.options.paths);
        let files = keeper.read().await;
        keeper.take(files).await;
        tokio::spawn(keeper.run(wake.clone(), stop));
        Control {
            published,
            overlay,
            wake,
        }
    }

    /// Returns what runs, now and from now on.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// Returns what runs now.
    pub fn current(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// Tells where a service is, in place of what the files say: it answers on every port. `None` takes that back.
    pub fn tell(&self, namespace: &str, service: &str, addresses: Option<Vec<SocketAddr>>) {
        let key = (namespace.to_owned(), service.to_owned());
        let mut overlay = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        match addresses {
            Some(addresses) => _ = overlay.insert(key, addresses),
            None => _ = overlay.remove(&key),
        }
        drop(overlay);
        self.wake.notify_one();
    }

    /// Looks at the files soon, as after a SIGHUP.
    pub fn reload(&self) {
        self.wake.notify_one();
    }
}

/// Owns the state and the publishing end.
struct Keeper {
    options: Options,
    state: Arc<State>,
    watch: Watch,
    overlay: Arc<Mutex<Overlay>>,
    gauges: Gauges,
    publish: watch::Sender<Arc<Published>>,
}

impl Keeper {
    async fn run(mut self, wake: Arc<Notify>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.publish.closed() => break, // nobody is left to tell
                () = wake.notified() => (),
                () = time::sleep(self.options.poll) => (),
            }
            let mut files = self.read().await;
            if self.state.files != files {
                files = self.settle(files).await;
            }
            self.take(files).await;
            self.watch.follow(&self.options.paths);
        }
    }

    async fn read(&self) -> Files {
        let paths = self.options.paths.clone();
        match aside("configuration", move || files::read(&paths)).await {
            Ok(files) => files,
            Err(error) => {
                error!(%error, "reading the configuration failed, it stays as it is");
                self.state.files.clone()
            }
        }
    }

    /// Reads until two readings agree, so that a file that is being written is not taken half.
    async fn settle(&self, mut files: Files) -> Files {
        let begun = Instant::now();
        while begun.elapsed() < SETTLE_MAX {
            time::sleep(self.options.settle).await;
            let again = self.read().await;
            if again == files && !self.emptied(&files) {
                break;
            }
            files = again;
        }
        files
    }

    /// Returns whether a file that said something is empty now: whoever writes it has probably just begun.
    fn emptied(&self, files: &Files) -> bool {
        let said = |name: &Arc<str>| {
            let before = &self.state.files.sources;
            let before = before.iter().find(|source| source.name == *name);
            before.is_some_and(|source| !source.text.is_empty())
        };
        files
            .sources
            .iter()
            .any(|source| source.text.is_empty() && said(&source.name))
    }

    /// Takes files in and publishes what comes out, if it differs from what runs.
    async fn take(&mut self, files: Files) {
        let overlay = self
            .overlay
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let before = self.publish.borrow().clone();
        if before.version > 0 && self.state.files == files && self.state.overlay == overlay {
            let now = SystemTime::now();
            self.gauges.looked_at.set(seconds(now));
            self.gauges.stale(before.stale_since, now);
            return;
        }
        let (state, running) = (self.state.clone(), before.config.clone());
        let work = aside("configuration", move || {
            let (state, update) = state.update(files, overlay);
            let equal = *running == update.config;
            let changed = !equal && !running.does_the_same(&update.config);
            (state, update, equal, changed)
        });
        let (state, update, equal, changed) = match work.await {
            Ok(done) => done,
            Err(error) => {
                error!(%error, "checking the configuration failed, the last good one goes on");
                self.gauges.failed.inc();
                return;
            }
        };
        self.state = Arc::new(state);
        let now = SystemTime::now();
        self.gauges.looked_at.set(seconds(now));
        let errors = count(&update.problems, Severity::Error);
        let good_at = if errors == 0 {
            Some(now)
        } else {
            before.good_at
        };
        if let Some(good_at) = good_at {
            self.gauges.good_at.set(seconds(good_at));
        }
        let stale_since = match errors {
            0 => None,
            _ => before.stale_since.or(Some(now)),
        };
        self.gauges.stale(stale_since, now);
        if errors > 0 && before.problems != update.problems {
            self.gauges.refused_at.set(seconds(now));
        }
        let same = equal && before.problems == update.problems && before.sources == update.sources;
        if same && before.version > 0 {
            return;
        }
        tell(&before.problems, &update.problems);
        let version = before.version + u64::from(changed || before.version == 0);
        let config = match equal {
            true => before.config.clone(),
            false => Arc::new(update.config),
        };
        let warnings = count(&update.problems, Severity::Warning);
        self.gauges
            .version
            .set(i64::try_from(version).unwrap_or(i64::MAX));
        self.gauges.errors.set(errors);
        self.gauges.warnings.set(warnings);
        if changed {
            self.gauges.changes.inc();
            info!(
                version,
                errors,
                warnings,
                mappings = config.mappings.len(),
                "configuration changed"
            );
        }
        let Update {
            problems, sources, ..
        } = update;
        let published = Published {
            config,
            version,
            problems,
            sources,
            at: now,
            good_at,
            stale_since,
        };
        self.publish.send_replace(Arc::new(published));
    }
}

/// Logs the problems that were not there before.
fn tell(before: &[Problem], now: &[Problem]) {
    let before: HashSet<&Problem> = before.iter().collect();
    for problem in now
        .iter()
        .filter(|problem| !before.contains(problem))
        .take(PROBLEMS_TOLD_MAX)
    {
        warn!("{problem}");
    }
}

/// Most problems that one change writes to the log; all of them are published.
const PROBLEMS_TOLD_MAX: usize = 100;

fn count(problems: &[Problem], severity: Severity) -> i64 {
    problems
        .iter()
        .filter(|problem| problem.severity == severity)
        .count() as i64
}

fn seconds(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What is known from the files so far.
struct State {
    options: read::Options,
    files: Files,
    overlay: Overlay,
    readings: HashMap<Arc<str>, Arc<Reading>>,
    running: Running,
}

struct Update {
    config: Config,
    problems: Vec<Problem>,
    sources: Vec<Source>,
}

impl State {
    fn new(options: read::Options) -> State {
        State {
            options,
            files: Files::default(),
            overlay: Overlay::new(),
            readings: HashMap::new(),
            running: Running::new(),
        }
    }

    /// Reads what has changed and merges all of it.
    fn update(&self, files: Files, overlay: Overlay) -> (State, Update) {
        let known: HashMap<&Arc<str>, &Arc<str>> = self
            .files
            .sources
            .iter()
            .map(|source| (&source.name, &source.text))
            .collect();
        let mut readings = HashMap::new();
        for source in &files.sources {
            let same = known
                .get(&source.name)
                .is_some_and(|text| **text == source.text);
            let reading = match self.readings.get(&source.name).filter(|_| same) {
                Some(reading) => reading.clone(),
                None => Arc::new(read::read(source, &self.options)),
            };
            readings.insert(source.name.clone(), reading);
        }
        let names: Vec<Arc<str>> = files
            .sources
            .iter()
            .map(|source| source.name.clone())
            .collect();
        let ordered: Vec<Arc<Reading>> = names.iter().map(|name| readings[name].clone()).collect();
        let merged = merge(&ordered, &files.unread, &names, &self.running);
        let Merged {
            mut config,
            running,
            problems: mut found,
            ..
        } = merged;
        config.namespace = self.options.namespace.clone();
        for ((namespace, service), addresses) in &overlay {
            config.endpoints.tell(namespace, service, addresses.clone());
        }
        let mut problems = files.problems.clone();
        problems.append(&mut found);
        let sources = files.sources.clone();
        let state = State {
            options: self.options.clone(),
            files,
            overlay,
            readings,
            running,
        };
        let update = Update {
            config,
            problems,
            sources,
        };
        (state, update)
    }
}

/// What metrics tell about the configuration.
struct Gauges {
    version: Gauge,
    looked_at: Gauge,
    good_at: Gauge,
    refused_at: Gauge,
    stale_for: Gauge,
    errors: Gauge,
    warnings: Gauge,
    changes: Counter,
    failed: Counter,
}

impl Gauges {
    fn stale(&self, since: Option<SystemTime>, now: SystemTime) {
        let stale_for = since.and_then(|since| now.duration_since(since).ok());
        let seconds = stale_for.unwrap_or_default().as_secs();
        self.stale_for
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    fn new(metrics: &Metrics) -> Gauges {
        let problems = |severity| {
            let help = "Problems in the configuration at present";
            metrics.gauge("nuncio_config_problems", help, &[("severity", severity)])
        };
        Gauges {
            version: metrics.gauge(
                "nuncio_config_version",
                "Version of the configuration that runs",
                &[],
            ),
            looked_at: metrics.gauge(
                "nuncio_config_looked_at_seconds",
                "When the sources were looked at last, in seconds since 1970",
                &[],
            ),
            good_at: metrics.gauge(
                "nuncio_config_good_at_seconds",
                "When the sources were without an error last, in seconds since 1970",
                &[],
            ),
            refused_at: metrics.gauge(
                "nuncio_config_refused_at_seconds",
                "When something that is written was refused last, in seconds since 1970",
                &[],
            ),
            stale_for: metrics.gauge(
                "nuncio_config_stale_seconds",
                "For how long something that is written does not run because it is refused; 0 while all of it runs",
                &[],
            ),
            errors: problems("error"),
            warnings: problems("warning"),
            changes: metrics.counter(
                "nuncio_config_changes",
                "Changes of the configuration that took effect",
                &[],
            ),
            failed: metrics.counter(
                "nuncio_config_failures",
                "Looks at the configuration that failed inside",
                &[],
            ),
        }
    }
}
