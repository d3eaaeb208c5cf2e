//! Finishing what compaction had begun when it was interrupted.
//!
//! A cleaned segment is written to files that end in `.cleaned`. Once all of it is on disk they are renamed
//! to `.swap`, the batches last: from then on the cleaned segment holds and those that it replaces are to go.
//! At the end the indexes get their own names, and then the batches.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use tracing::{info, warn};

use crate::disk;
use crate::scan::{FAR, Stop, Walk};
use crate::segment::{INDEXES, path};

/// The ending of a segment that is being written.
pub(crate) const CLEANED: &str = ".cleaned";
/// The ending of one that takes the place of others.
pub(crate) const SWAP: &str = ".swap";

/// Makes the cleaned segments hold whose batches are complete, and drops what belongs to others.
pub(super) fn finish(dir: &Path) -> io::Result<()> {
    let (mut swapped, mut plain) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some((base, extension)) = name.to_str().and_then(split) else {
            continue;
        };
        match extension {
            "log" => _ = plain.insert(base),
            "log.swap" => _ = swapped.insert(base),
            _ => {}
        }
    }
    for base in &swapped {
        let end = next_offset(dir, *base)?;
        info!(dir = %dir.display(), base, end, "finishing an interrupted compaction");
        for old in plain.range(base + 1..end.max(base + 1)) {
            for extension in INDEXES.iter().chain(&["log"]) {
                disk::remove(&path(dir, *old, extension))?;
            }
        }
        rename(dir, *base)?;
    }
    Ok(())
}

/// Gives the files of a segment that end in `.swap` their own names, the batches last.
pub(crate) fn rename(dir: &Path, base: i64) -> io::Result<()> {
    for extension in INDEXES {
        let from = path(dir, base, &format!("{extension}{SWAP}"));
        match disk::rename(&from, &path(dir, base, extension)) {
            // It got its name before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    disk::sync_dir(dir)?;
    let from = path(dir, base, &format!("log{SWAP}"));
    disk::rename(&from, &path(dir, base, "log"))?;
    disk::sync_dir(dir)
}

/// Splits a segment's file name into base offset and extension.
fn split(name: &str) -> Option<(i64, &str)> {
    let (base, extension) = name.split_once('.')?;
    let base = (base.len() == 20).then(|| base.parse().ok())??;
    (base >= 0).then_some((base, extension))
}

/// Returns the offset after the last record of a segment that waits for its name.
fn next_offset(dir: &Path, base: i64) -> io::Result<i64> {
    let path = path(dir, base, &format!("log{SWAP}"));
    let file = fs::File::open(&path)?;
    let size = file.metadata()?.len();
    let mut walk = Walk::new(&file, 0, size, FAR);
    let mut end = base;
    loop {
        let at = walk.position();
        match walk.header() {
            Ok(Some(header)) => {
                end = header.next_offset();
                let next = at + header.size() as u64;
                walk.seek(next);
            }
            Ok(None) => return Ok(end),
            Err(Stop::Damaged(problem)) => {
                warn!(path = %path.display(), %problem, "a compacted segment is damaged");
                return Ok(end);
            }
            Err(Stop::Disk(error)) => return Err(error),
        }
    }
}
