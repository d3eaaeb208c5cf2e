//! A disk that can lose its power, or refuse, at every single operation.
//!
//! Everything that the journal does to files passes here in tests. The operations of a run are recorded; from
//! any prefix of them [`Trace::after`] makes a folder as a power failure might leave it: of what was not synced,
//! any part may be there, in blocks, names in the order in which they changed. Or one operation fails, as on a
//! full disk, and the run goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

mod crash;
mod refuse;
mod rot;

/// Bytes that are written to the disk as a whole. Small, because our files are.
const BLOCK: usize = 64;

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct Recorder {
    trace: Trace,
    /// Latest file of each inode.
    files: HashMap<u64, usize>,
    /// Which file has a name now.
    names: BTreeMap<String, usize>,
    /// Numbers of the operations that fail.
    failing: std::ops::Range<usize>,
    /// Changes of names fail too, not only what takes room.
    broken: bool,
}

/// All operations of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    ops: Vec<Op>,
}

#[derive(Debug, Clone)]
enum Op {
    Create(String, usize),
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Sync(usize),
    Rename(String, String),
    Remove(String),
    SyncDir,
    Nothing,
}

/// Records what `run` does, and has operations fail whose numbers are in `failing`, as on a full disk.
pub(crate) fn record<T>(failing: std::ops::Range<usize>, run: impl FnOnce() -> T) -> (T, Trace) {
    start(failing, false, run)
}

/// As [`record`], but on a broken disk, which does not even change names.
pub(crate) fn record_broken<T>(
    failing: std::ops::Range<usize>,
    run: impl FnOnce() -> T,
) -> (T, Trace) {
    start(failing, true, run)
}

fn start<T>(failing: std::ops::Range<usize>, broken: bool, run: impl FnOnce() -> T) -> (T, Trace) {
    RECORDER.with_borrow_mut(|recorder| {
        *recorder = Some(Recorder {
            failing,
            broken,
            ..Recorder::default()
        });
    });
    let result = run();
    let recorder = RECORDER.take().unwrap_or_default();
    (result, recorder.trace)
}

/// Returns how many operations were recorded so far.
pub(crate) fn count() -> usize {
    RECORDER.with_borrow(|recorder| {
        recorder
            .as_ref()
            .map_or(0, |recorder| recorder.trace.ops.len())
    })
}

fn note(op: impl FnOnce(&mut Recorder) -> io::Result<Option<Op>>) -> io::Result<bool> {
    RECORDER.with_borrow_mut(|recorder| {
        let Some(recorder) = recorder else {
            return Ok(false);
        };
        let number = recorder.trace.ops.len();
        let failing = recorder.failing.contains(&number);
        match op(recorder)? {
            Some(op) => {
                apply(&mut recorder.names, &op);
                recorder.trace.ops.push(op);
            }
            // It counts, so that the disk is not full for ever.
            None if failing => recorder.trace.ops.push(Op::Nothing),
            None => {}
        }
        Ok(failing)
    })
}

/// Notes a change of names, which needs no room.
fn note_names(op: Op) -> io::Result<()> {
    let mut refused = false;
    note(|recorder| {
        let failing = recorder.failing.contains(&recorder.trace.ops.len());
        refused = failing && recorder.broken;
        Ok((!refused).then_some(op))
    })?;
    refuse_if(refused)
}

fn refuse_if(failing: bool) -> io::Result<()> {
    match failing {
        true => Err(io::ErrorKind::StorageFull.into()),
        false => Ok(()),
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Recorder {
    fn id(&mut self, file: &File) -> io::Result<usize> {
        let inode = file.metadata()?.ino();
        let next = self.files.len();
        Ok(*self.files.entry(inode).or_insert(next))
    }
}

pub(crate) fn create(path: &Path, file: &File) -> io::Result<()> {
    let failing = note(|recorder| {
        let inode = file.metadata()?.ino();
        let made = |op: &Op| matches!(op, Op::Create(..));
        let known = recorder.files.get(&inode);
        if known.is_some() && known == recorder.names.get(&name(path)) {
            return Ok(None);
        }
        // An inode that was freed may be another file's now.
        let id = 1_000_000 + recorder.trace.ops.iter().filter(|op| made(op)).count();
        recorder.files.insert(inode, id);
        Ok(Some(Op::Create(name(path), id)))
    })?;
    refuse_if(failing)
}

pub(crate) fn write(file: &File, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
    let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
    let failing = note(|recorder| {
        let id = recorder.id(file)?;
        if recorder.failing.contains(&recorder.trace.ops.len()) {
            bytes.truncate(bytes.len() / 2);
        }
        Ok(Some(Op::Write(id, position, bytes.clone())))
    })?;
    if failing {
        file.write_all_at(&bytes, position)?; // a full disk takes a part
    }
    refuse_if(failing)
}

pub(crate) fn set_len(file: &File, len: u64) -> io::Result<()> {
    // Making a file shorter always works.
    note(|recorder| Ok(Some(Op::SetLen(recorder.id(file)?, len)))).map(|_| ())
}

pub(crate) fn sync(file: &File) -> io::Result<()> {
    let failing = note(|recorder| {
        let id = recorder.id(file)?;
        let failing = recorder.failing.contains(&recorder.trace.ops.len());
        Ok((!failing).then_some(Op::Sync(id)))
    })?;
    refuse_if(failing)
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(()); // the caller is told by the system
    }
    note_names(Op::Rename(name(from), name(to)))
}

pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    note_names(Op::Remove(name(path)))
}

pub(crate) fn sync_dir() -> io::Result<()> {
    note_names(Op::SyncDir)
}

/// Numbers that look like chance and come again with the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Tells what a folder holds.
pub(crate) fn listing(dir: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(dir).expect("readable");
    let mut found: Vec<(String, u64)> = entries
        .map(|entry| {
            let entry = entry.expect("readable");
            let len = entry.metadata().expect("there").len();
            (name(&entry.path()), len)
        })
        .collect();
    found.sort();
    found
}

#[derive(Debug, Clone, Default)]
struct Content {
    synced: Vec<u8>,
    now: Vec<u8>,
}

impl Trace {
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Tells the operations before the power fails.
    pub(crate) fn tell(&self, count: usize) -> String {
        let mut told = String::new();
        for (number, op) in self.ops[..count].iter().enumerate() {
            told += &match op {
                Op::Write(id, position, bytes) => {
                    format!("{number} write {id} {position} +{}\n", bytes.len())
                }
                op => format!("{number} {op:?}\n"),
            };
        }
        told
    }

    /// Fills `dir` with what may be left when the power fails after so many operations.
    pub(crate) fn after(&self, count: usize, dir: &Path, chance: &mut Chance) {
        let mut files: HashMap<usize, Content> = HashMap::new();
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        let mut pending: Vec<&Op> = Vec::new();
        for op in &self.ops[..count] {
            match op {
                Op::Create(..) | Op::Rename(..) | Op::Remove(_) => pending.push(op),
                Op::Write(id, position, bytes) => {
                    let now = &mut files.entry(*id).or_default().now;
                    let (from, to) = (*position as usize, *position as usize + bytes.len());
                    now.resize(now.len().max(to), 0);
                    now[from..to].copy_from_slice(bytes);
                }
                Op::SetLen(id, len) => {
                    files.entry(*id).or_default().now.resize(*len as usize, 0);
                }
                Op::Nothing => {}
                Op::Sync(id) => {
                    let content = files.entry(*id).or_default();
                    content.synced = content.now.clone();
                }
                Op::SyncDir => {
                    pending.drain(..).for_each(|op| apply(&mut names, op));
                }
            }
        }
        let reached = chance.below(pending.len() + 1);
        pending[..reached]
            .iter()
            .for_each(|op| apply(&mut names, op));
        let mode = chance.below(4);
        for (name, id) in &names {
            let content = files.remove(id).unwrap_or_default();
            let left = content.left(mode, chance);
            let mut file = File::create(dir.join(name)).expect("creates");
            file.write_all(&left).expect("written");
        }
        fs::create_dir_all(dir).expect("there");
    }
}

fn apply(names: &mut BTreeMap<String, usize>, op: &Op) {
    match op {
        Op::Create(name, id) => _ = names.insert(name.clone(), *id),
        Op::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        Op::Remove(name) => _ = names.remove(name),
        _ => {}
    }
}

impl Content {
    /// What of the file reaches the disk.
    fn left(self, mode: usize, chance: &mut Chance) -> Vec<u8> {
        let Content { synced, now } = self;
        match mode {
            _ if synced == now => now,
            0 => now,
            1 => synced,
            // A longer file may be cut anywhere, and any block may be as it was.
            _ => {
                let (least, most) = (synced.len().min(now.len()), synced.len().max(now.len()));
                let len = least + chance.below(most - least + 1);
                let mut left = vec![0; len];
                for (number, block) in left.chunks_mut(BLOCK).enumerate() {
                    let from = number * BLOCK;
                    let source = if mode == 2 || chance.one_in(2) {
                        &now
                    } else {
                        &synced
                    };
                    let known = source.get(from..).unwrap_or_default();
                    let known = &known[..known.len().min(block.len())];
                    block[..known.len()].copy_from_slice(known);
                }
                left
            }
        }
    }
}
