//! Reads configuration files and folders.
//!
//! A folder gives its `*.yaml`, `*.yml` and `*.json` files in the order of their names, and so do the folders in it. Names
//! that start with a dot are passed over, among them what Kubernetes puts into mounted ConfigMaps, and so is a folder that
//! the broker keeps its data in.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kit::aside::let_others;
use model::{Origin, Problem, Severity, Source};

/// Most files that are read.
const FILES_MAX: usize = 10_000;

/// Deepest folder in a folder that is entered.
const DEPTH_MAX: usize = 8;

/// Most folders that are entered.
const FOLDERS_MAX: usize = 1000;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// What was found at a set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The texts, each named by its path.
    pub sources: Vec<Source>,

    /// Paths that could not be read: files, or folders with all that was in them.
    pub unread: Vec<Arc<str>>,

    /// Why they could not.
    pub problems: Vec<Problem>,
}

/// Reads the files at some paths, and in folders those of the folders inside.
pub fn read(paths: &[PathBuf]) -> Files {
    let mut files = Files::default();
    let mut seen = HashSet::new();
    for path in paths {
        match list(path) {
            Ok(found) => {
                for file in found {
                    let_others();
                    // A file may be named twice on the command line.
                    if seen.insert(file.clone()) {
                        files.take(&file);
                    }
                }
            }
            Err(error) => files.miss(path, &reason(&error)),
        }
    }
    files
}

/// Returns the files that a path stands for.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut walk = Walk::default();
    walk.enter(path, 0)?;
    walk.files.sort();
    Ok(walk.files)
}

/// Returns a folder and the folders in it that count.
pub(crate) fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut walk = Walk::default();
    // What cannot be entered cannot be watched; reading it tells why.
    _ = walk.enter(folder, 0);
    walk.folders
}

/// The file that tells a folder with the broker's data, should a user keep it beside the configuration.
const DATA_MARK: &str = "node.json";

#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// Where we were, without links: one may lead back.
    seen: HashSet<PathBuf>,
}

impl Walk {
    fn enter(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX
            || self.folders.len() >= FOLDERS_MAX
            || !self.seen.insert(fs::canonicalize(folder)?)
        {
            return Ok(());
        }
        if depth > 0 && folder.join(DATA_MARK).is_file() {
            return Ok(());
        }
        self.folders.push(folder.to_owned());
        for entry in entries(folder)? {
            match entry {
                Entry::File(file) => self.files.push(file),
                Entry::Folder(inner) => match self.enter(&inner, depth + 1) {
                    // A folder that went away since is simply not there any more.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                    entered => entered?,
                },
            }
        }
        Ok(())
    }
}

/// Something in a folder that counts.
enum Entry {
    File(PathBuf),
    Folder(PathBuf),
}

fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        let wanted = path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        });
        // What went away since is simply not there any more.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            found.push(Entry::Folder(path));
        } else if wanted {
            found.push(Entry::File(path));
        }
    }
    Ok(found)
}

impl Files {
    fn take(&mut self, path: &Path) {
        let name: Arc<str> = path.display().to_string().into();
        if self.sources.len() >= FILES_MAX {
            return self.miss(path, &format!("there are more than {FILES_MAX} files"));
        }
        match read_file(path) {
            Ok(text) => self.sources.push(Source {
                name,
                text: text.into(),
            }),
            Err(why) => self.miss(path, &why),
        }
    }

    fn miss(&mut self, path: &Path, why: &str) {
        let name: Arc<str> = path.display().to_string().into();
        self.problems.push(Problem {
            severity: Severity::Error,
            origin: Origin {
                file: name.clone(),
                line: 0,
                column: 0,
            },
            span: 0..0,
            object: None,
            path: String::new(),
            what: format!("could not be read: {why}"),
            hint: None,
        });
        self.unread.push(name);
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| reason(&error))?;
    let metadata = file.metadata().map_err(|error| reason(&error))?;
    if !metadata.is_file() {
        return Err("it is neither a file nor a folder".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| reason(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        format!("it is no UTF-8 text, see line {line}")
    })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
