//! Real files, real changes: what is published, and what goes on running.

mod changes;
mod folders;
mod last_good;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::{Control, Options, Published};
use observe::metrics::Metrics;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest wait for anything.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A folder of its own and the configuration that is read from it.
struct Lab {
    dir: TempDir,
    control: Control,
    published: watch::Receiver<Arc<Published>>,
    metrics: Metrics,
    _stop: DropGuard,
}

impl Lab {
    /// Writes files, then starts on one of the paths in the folder; an empty one is the folder itself.
    async fn start(path: &str, files: &[(&str, &str)]) -> Lab {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            write(&dir.path().join(name), text);
        }
        Lab::start_in(dir, path).await
    }

    async fn start_in(dir: TempDir, path: &str) -> Lab {
        let path = match path {
            "" => dir.path().to_owned(),
            path => dir.path().join(path),
        };
        let options = Options {
            settle: Duration::from_millis(5),
            poll: Duration::from_millis(500),
            ..Options::new(vec![path])
        };
        let metrics = Metrics::default();
        let stop = CancellationToken::new();
        let control = Control::start(options, &metrics, stop.clone()).await;
        let published = control.published();
        Lab {
            dir,
            control,
            published,
            metrics,
            _stop: stop.drop_guard(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path(name), text);
    }

    /// Tells routes and problems, without the folder's name.
    fn tell(&self) -> String {
        let folder = format!("{}/", self.dir.path().display());
        tell(&self.control.current()).replace(&folder, "")
    }

    /// Waits until what is published is as wanted.
    #[track_caller]
    fn until(
        &mut self,
        wanted: impl Fn(&Published) -> bool,
    ) -> impl Future<Output = Arc<Published>> {
        let caller = std::panic::Location::caller();
        async move {
            let waited = time::timeout(WAIT_MAX, self.published.wait_for(|now| wanted(now))).await;
            match waited {
                Ok(now) => now.expect("the loop goes on").clone(),
                Err(_) => panic!(
                    "{caller}: waited in vain, there is {}",
                    tell(&self.control.current())
                ),
            }
        }
    }

    /// Waits until exactly these prefixes are routed.
    #[track_caller]
    fn until_routes(&mut self, wanted: &[&str]) -> impl Future<Output = Arc<Published>> {
        let wanted = wanted.join(" ");
        self.until(move |now| routes(now) == wanted)
    }
}

fn write(path: &Path, text: &str) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a folder");
    }
    fs::write(path, text).expect("a file");
}

fn routes(now: &Published) -> String {
    let prefixes: Vec<&str> = now
        .config
        .mappings
        .iter()
        .map(|mapping| mapping.spec.prefix.as_str())
        .collect();
    prefixes.join(" ")
}

/// Tells routes and problems.
fn tell(now: &Published) -> String {
    let lines = now.problems.iter().map(|problem| format!("{problem}\n"));
    format!("{}\n{}", routes(now), lines.collect::<String>())
}

fn route(prefix: &str) -> String {
    format!("routes:\n- {{ prefix: {prefix}, service: s }}\n")
}
