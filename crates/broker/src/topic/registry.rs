//! All topics, and `topics.json`, which says after a kill which of them exist.
//!
//! A topic exists once the file names it: missing partition folders are made when it is opened. A
//! topic is gone once the file lists it under `deleting`: folders that are left are removed at the
//! next start. Each partition has a folder `TOPIC-INDEX` with a `partition.metadata`, as in Kafka.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use observe::metrics::Metrics;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use uuid::Uuid;

use super::adopt::{self, Adoptable, Found};
use super::config::{self, Base, Overrides};
use super::{Topic, is_internal};
use crate::files;
use crate::metrics::Counters;
use crate::partition::Partition;

/// Longest name: together with `-` and an index it still is a folder's name.
const NAME_BYTES_MAX: usize = 249;

/// Why a topic cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("topic `{name}` already exists")]
    Exists { name: String },
    #[error("this server does not host this topic-partition")]
    Unknown,
    #[error("topic name is invalid: {why}")]
    Name { why: String },
    #[error("{why}")]
    Partitions { why: String },
    #[error("{0}")]
    Config(#[from] config::Invalid),
    #[error("the broker's own topics cannot be changed")]
    Internal,
    #[error("the disk refused")]
    Disk(#[from] io::Error),
}

/// What a new topic should be like.
#[derive(Debug, Clone)]
pub(crate) struct NewTopic {
    pub name: String,
    pub partitions: usize,
    pub overrides: Overrides,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    topics: Vec<SavedTopic>,
    #[serde(default)]
    deleting: Vec<SavedTopic>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SavedTopic {
    name: String,
    #[serde(with = "text")]
    id: Uuid,
    partitions: usize,
    #[serde(default)]
    configs: Overrides,
    /// Its folders are on their way out of `adopt/`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    adopting: bool,
}

/// An id as text.
mod text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        id.to_string().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// How the registry is opened.
#[derive(Debug)]
pub(crate) struct Options {
    pub data_dir: PathBuf,
    pub base: Base,
    /// The leader epoch of this run.
    pub epoch: i32,
    /// Most partitions over all topics: each holds files open.
    pub partitions_max: usize,
    pub metrics: Metrics,
    /// Topics of another broker that are to be taken over.
    pub adoptable: Adoptable,
}

/// The registry of topics.
#[derive(Debug)]
pub(crate) struct Topics {
    options: Options,
    known: RwLock<Known>,
    /// Rises whenever a topic comes, goes or grows.
    version: AtomicU64,
    /// One change at a time; it waits for the disk, so it is never taken by a task directly.
    changes: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl Topics {
    /// Opens every topic, which recovers its partitions, and finishes deletions that a kill cut short.
    pub(crate) fn open(options: Options) -> io::Result<Self> {
        let mut saved: Saved = match files::read(&options.data_dir.join("topics.json"))? {
            Some(content) => serde_json::from_slice(&content)?,
            None => Saved::default(),
        };
        let topics = Self {
            options,
            known: RwLock::default(),
            version: AtomicU64::new(0),
            changes: Mutex::new(()),
        };
        journal::sweep(&topics.options.data_dir)?;
        for gone in &saved.deleting {
            topics.remove_folders(&gone.name, 0..gone.partitions)?;
        }
        let known = |name: &str| saved.topics.iter().any(|topic| topic.name == name);
        let free = |name: &str| check_name(name).is_ok() && !known(name);
        let adopted = topics.options.adoptable.whole(free);
        let moving = |found: Found| SavedTopic {
            name: found.name,
            id: found.id,
            partitions: found.partitions,
            configs: Overrides::new(),
            adopting: true,
        };
        let adopted: Vec<SavedTopic> = adopted.into_iter().map(moving).collect();
        if !adopted.is_empty() {
            saved.topics.extend(adopted);
            topics.write(&saved)?;
        }
        let mut moved = false;
        for topic in saved.topics.iter().filter(|topic| topic.adopting) {
            adopt::move_in(topics.data_dir(), &topic.name, topic.partitions)?;
            moved = true;
        }
        for saved in saved.topics {
            let topic = topics.open_topic(&saved)?;
            topics.insert(topic);
        }
        if moved || !saved.deleting.is_empty() {
            topics.save(&[])?;
        }
        Ok(topics)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.known.read().by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.known.read().by_id.get(&id).cloned()
    }

    /// Returns all topics in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.known.read().by_name.values().cloned().collect()
    }

    /// Returns a number that rises whenever a topic comes, goes or grows.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn base(&self) -> &Base {
        &self.options.base
    }

    /// Says whether `new` could be made, without making it.
    pub(crate) fn check(&self, new: &NewTopic) -> Result<(), Error> {
        check_name(&new.name)?;
        if self.get(&new.name).is_some() {
            let name = new.name.clone();
            return Err(Error::Exists { name });
        }
        if let Some(other) = self.alike(&new.name) {
            let why = format!(
                "`{}` and the existing `{other}` cannot be told apart in the names of metrics, where `.` and `_` are one",
                new.name
            );
            return Err(Error::Name { why });
        }
        if new.partitions == 0 {
            return Err(Error::Partitions {
                why: "number of partitions must be larger than 0".into(),
            });
        }
        self.check_room(new.partitions)?;
        self.options.base.check(&new.overrides)?;
        Ok(())
    }

    /// Returns a topic by its name, or says why there cannot be one, or that there is none.
    pub(crate) fn named(&self, name: &str) -> Result<Arc<Topic>, Error> {
        self.get(name)
            .ok_or_else(|| check_name(name).err().unwrap_or(Error::Unknown))
    }

    /// Returns a topic whose name differs in nothing but `.` and `_`, as Kafka wants it.
    fn alike(&self, name: &str) -> Option<Arc<str>> {
        let merged = name.replace('.', "_");
        let known = self.known.read();
        let mut names = match merged.contains('_') {
            true => known.by_name.keys(),
            false => return None,
        };
        names
            .find(|known| known.replace('.', "_") == merged)
            .cloned()
    }

    /// Makes a topic; it is durable when this returns. Waits for the disk.
    pub(crate) fn create(&self, new: NewTopic) -> Result<Arc<Topic>, Error> {
        let _one = self.changes.lock();
        self.check(&new)?;
        let saved = SavedTopic {
            name: new.name,
            id: Uuid::new_v4(),
            partitions: new.partitions,
            configs: new.overrides,
            adopting: false,
        };
        // The folders come first: a topic that the file names can be opened.
        let topic = self
            .open_topic(&saved)
            .inspect_err(|_| self.clear(&saved.name, 0..saved.partitions))?;
        self.insert(topic.clone());
        if let Err(error) = self.save(&[]) {
            self.forget(&topic);
            self.clear(&saved.name, 0..saved.partitions);
            return Err(error.into());
        }
        info!(topic = %topic.name, partitions = saved.partitions, "topic created");
        Ok(topic)
    }

    /// Deletes a topic for good. Waits for the disk.
    pub(crate) fn delete(&self, topic: &Arc<Topic>) -> Result<(), Error> {
        let _one = self.changes.lock();
        if topic.is_internal() {
            return Err(Error::Internal);
        }
        if !self.forget(topic) {
            return Err(Error::Unknown);
        }
        let partitions = topic.partitions();
        let gone = SavedTopic {
            name: topic.name.to_string(),
            id: topic.id,
            partitions: partitions.len(),
            configs: Overrides::new(),
            adopting: false,
        };
        if let Err(error) = self.save(std::slice::from_ref(&gone)) {
            self.insert(topic.clone());
            return Err(error.into());
        }
        for partition in partitions.iter() {
            partition.remove()?;
        }
        self.save(&[])?;
        info!(topic = %topic.name, "topic deleted");
        Ok(())
    }

    /// Says whether a topic could have `count` partitions.
    pub(crate) fn check_grow(&self, topic: &Topic, count: usize) -> Result<(), Error> {
        let now = topic.partitions().len();
        if topic.is_internal() {
            return Err(Error::Internal);
        }
        if count == now {
            let why = format!("topic already has {now} partition(s)");
            return Err(Error::Partitions { why });
        }
        if count < now {
            let why = format!(
                "the topic {} currently has {now} partition(s); {count} would not be an increase",
                topic.name
            );
            return Err(Error::Partitions { why });
        }
        self.check_room(count - now)
    }

    /// Gives a topic more partitions. Waits for the disk.
    pub(crate) fn grow(&self, topic: &Arc<Topic>, count: usize) -> Result<(), Error> {
        let _one = self.changes.lock();
        self.check_grow(topic, count)?;
        let now = topic.partitions().len();
        let settings = topic.settings();
        let more = (now..count)
            .map(|index| self.open_partition(&topic.name, topic.id, index, &settings))
            .collect::<io::Result<Vec<_>>>()
            .inspect_err(|_| self.clear(&topic.name, now..count))?;
        let mut saved = self.saved(&[]);
        for entry in &mut saved.topics {
            if entry.id == topic.id {
                entry.partitions = count;
            }
        }
        self.write(&saved)
            .inspect_err(|_| self.clear(&topic.name, now..count))?;
        topic.grow(more);
        self.version.fetch_add(1, Ordering::Release);
        info!(topic = %topic.name, partitions = count, "partitions added");
        Ok(())
    }

    /// Replaces what is set for a topic. Waits for the disk.
    pub(crate) fn configure(&self, topic: &Topic, overrides: Overrides) -> Result<(), Error> {
        self.options.base.check(&overrides)?;
        if topic.is_internal() {
            return Err(Error::Internal);
        }
        let _one = self.changes.lock();
        let mut saved = self.saved(&[]);
        for entry in &mut saved.topics {
            if entry.id == topic.id {
                entry.configs.clone_from(&overrides);
            }
        }
        self.write(&saved)?;
        topic.configure(overrides, &self.options.base);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), Error> {
        let max = self.options.partitions_max;
        let now: usize = self
            .all()
            .iter()
            .map(|topic| topic.partitions().len())
            .sum();
        if now.saturating_add(more) > max {
            let why = format!("this broker holds at most {max} partitions, and {now} exist");
            return Err(Error::Partitions { why });
        }
        Ok(())
    }

    fn insert(&self, topic: Arc<Topic>) {
        let mut known = self.known.write();
        known.by_id.insert(topic.id, topic.clone());
        known.by_name.insert(topic.name.clone(), topic);
        drop(known);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Returns false when the topic was not there any more.
    fn forget(&self, topic: &Topic) -> bool {
        let mut known = self.known.write();
        let there = known.by_id.remove(&topic.id).is_some();
        if there {
            known.by_name.remove(&topic.name);
        }
        drop(known);
        self.version.fetch_add(1, Ordering::Release);
        there
    }

    fn open_topic(&self, saved: &SavedTopic) -> io::Result<Arc<Topic>> {
        let name: Arc<str> = saved.name.as_str().into();
        let mut settings = self.options.base.settings(&saved.configs);
        if is_internal(&name) {
            // Nothing may expire by age or size; what was superseded goes.
            (settings.compact, settings.delete) = (true, false);
        }
        let settings = Arc::new(settings);
        let counters = Counters::new(&self.options.metrics, &name);
        let partitions = (0..saved.partitions)
            .map(|index| self.open_partition(&name, saved.id, index, &settings))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Arc::new(Topic::new(
            name,
            saved.id,
            counters,
            partitions,
            saved.configs.clone(),
            settings,
        )))
    }

    fn open_partition(
        &self,
        topic: &Arc<str>,
        id: Uuid,
        index: usize,
        settings: &config::Settings,
    ) -> io::Result<Arc<Partition>> {
        let partition = Partition::open(
            &self.folder(topic, index),
            topic.clone(),
            id,
            i32::try_from(index).map_err(io::Error::other)?,
            settings,
            self.options.epoch,
        )?;
        files::sync_folder(&self.options.data_dir)?;
        Ok(Arc::new(partition))
    }

    fn folder(&self, topic: &str, index: usize) -> PathBuf {
        self.options.data_dir.join(format!("{topic}-{index}"))
    }

    fn remove_folders(&self, topic: &str, partitions: Range<usize>) -> io::Result<()> {
        for index in partitions {
            match std::fs::remove_dir_all(self.folder(topic, index)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (),
            }
        }
        files::sync_folder(&self.options.data_dir)
    }

    /// Takes back folders of partitions that did not come to be.
    fn clear(&self, topic: &str, partitions: Range<usize>) {
        if let Err(error) = self.remove_folders(topic, partitions) {
            // They are in nobody's way: a topic of this name removes them when it is made.
            warn!(topic, %error, "could not remove folders of partitions that were not made");
        }
    }

    fn saved(&self, deleting: &[SavedTopic]) -> Saved {
        let entry = |topic: &Arc<Topic>| SavedTopic {
            name: topic.name.to_string(),
            id: topic.id,
            partitions: topic.partitions().len(),
            configs: topic.overrides(),
            adopting: false,
        };
        Saved {
            topics: self.all().iter().map(entry).collect(),
            deleting: deleting.to_vec(),
        }
    }

    fn save(&self, deleting: &[SavedTopic]) -> io::Result<()> {
        self.write(&self.saved(deleting))
    }

    fn write(&self, saved: &Saved) -> io::Result<()> {
        let path = self.path();
        files::replace(&path, &serde_json::to_vec_pretty(saved)?)
    }

    fn path(&self) -> PathBuf {
        self.data_dir().join("topics.json")
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let why = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => "it cannot be '.' or '..'".to_owned(),
        long if long.len() > NAME_BYTES_MAX => {
            format!("the length of '{long}' is longer than the max allowed length {NAME_BYTES_MAX}")
        }
        name => {
            let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            if name.chars().all(legal) {
                return Ok(());
            }
            format!(
                "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
            )
        }
    };
    Err(Error::Name { why })
}
