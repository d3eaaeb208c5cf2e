//! Says when to look at the files again: told by the system where it can, and every few seconds anyway.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{debug, warn};

/// Watches the folders in which something may change what the paths give.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Begins to watch; `wake` is told of every change. Where the system has no watches left, the regular look remains.
    pub(crate) fn start(wake: Arc<Notify>) -> Watch {
        let heard = move |event: notify::Result<Event>| match event {
            Ok(Event {
                kind: EventKind::Access(_),
                ..
            }) => (), // our own reading
            Ok(_) => wake.notify_one(),
            Err(error) => {
                debug!(%error, "a watch failed");
                wake.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(heard)
            .inspect_err(
                |error| warn!(%error, "files are not watched, only looked at now and then"),
            )
            .ok();
        Watch {
            watcher,
            folders: BTreeSet::new(),
        }
    }

    /// Watches the folders that count now. A folder that was replaced is watched anew.
    pub(crate) fn follow(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted: BTreeSet<PathBuf> = paths.iter().flat_map(|path| folders(path)).collect();
        for gone in self.folders.difference(&wanted) {
            _ = watcher.unwatch(gone); // it may be gone together with its watch
        }
        self.folders.clear();
        for folder in wanted {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.folders.insert(folder),
                Err(error) => debug!(%error, folder = %folder.display(), "folder is not watched"),
            }
        }
    }
}

/// Returns the folders in which a change may change what a path gives: the path itself if it is a folder, the folder of its
/// name, and where a link leads.
fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(parent) => Some(parent.to_owned()),
        None => None,
    };
    let mut folders: Vec<PathBuf> = parent(path).into_iter().collect();
    if path.is_dir() {
        folders.extend(crate::files::folders(path));
    }
    if let Ok(real) = path.canonicalize()
        && real != path
    {
        folders.extend(parent(&real));
    }
    folders
}
