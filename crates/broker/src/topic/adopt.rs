//! Taking over topics from a stopped Apache Kafka, whose partitions' folders were laid into `adopt/`.
//!
//! A start looks through them as if they were ours, then enters each whole topic into the registry, marked as
//! on its way, moves its folders out of `adopt/` and takes the mark away. So a kill at any time leaves a topic that
//! the next start takes over to the end.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use journal::{Config, Log};
use tracing::{error, info};
use uuid::Uuid;

use crate::clock;
use crate::files;

/// The folder in the data directory that such folders are laid into.
const FOLDER: &str = "adopt";

/// What lies there.
#[derive(Debug, Default)]
pub(crate) struct Adoptable {
    /// By name: the partitions' ids of the topic, by their numbers.
    topics: BTreeMap<String, BTreeMap<usize, Option<Uuid>>>,
    /// The latest leader epoch in any of them, or -1.
    pub epoch: i32,
    /// The highest producer id in any of them, or -1.
    pub producer_id: i64,
}

/// A topic that can be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub name: String,
    pub id: Uuid,
    pub partitions: usize,
}

/// Looks through `adopt/` and recovers the logs in it. What cannot be taken over is told and left alone.
pub(crate) fn survey(data_dir: &Path) -> io::Result<Adoptable> {
    let mut adoptable = Adoptable {
        epoch: -1,
        producer_id: -1,
        ..Adoptable::default()
    };
    let entries = match fs::read_dir(data_dir.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(adoptable),
        entries => entries?,
    };
    for entry in entries {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str());
        let Some((topic, index)) = name.and_then(split) else {
            error!(folder = %folder.display(), "not a partition's folder, it is left there");
            continue;
        };
        if topic.starts_with("__") {
            error!(folder = %folder.display(), "the broker has its own internal topics, it is left there");
            continue;
        }
        let looked = look(&folder, &mut adoptable);
        match looked {
            Ok(id) => {
                let partitions = adoptable.topics.entry(topic.to_owned()).or_default();
                partitions.insert(index, id);
            }
            Err(error) => {
                error!(folder = %folder.display(), %error, "cannot be taken over, it is left there");
            }
        }
    }
    Ok(adoptable)
}

fn look(folder: &Path, adoptable: &mut Adoptable) -> io::Result<Option<Uuid>> {
    let id = journal::topic_id(folder)?.map(Uuid::from_bytes);
    let opened = Log::adopt(folder, Config::default(), clock::now_ms());
    let (log, report) = opened.map_err(io::Error::other)?;
    adoptable.epoch = adoptable.epoch.max(report.latest_epoch);
    let highest = log.producers().iter().map(|(id, _)| id).max();
    adoptable.producer_id = adoptable.producer_id.max(highest.unwrap_or(-1));
    log.close().map_err(io::Error::other)?;
    Ok(id)
}

/// Splits a folder's name into topic and partition.
fn split(name: &str) -> Option<(&str, usize)> {
    let (topic, index) = name.rsplit_once('-')?;
    let plain = !topic.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| index.parse().ok())
        .flatten()
        .map(|index| (topic, index))
}

impl Adoptable {
    /// Returns the topics that are whole and whose names `free` says are nobody's.
    pub(crate) fn whole(&self, free: impl Fn(&str) -> bool) -> Vec<Found> {
        let mut found = Vec::new();
        for (name, partitions) in &self.topics {
            let mut ids = partitions.values().flatten();
            let id = ids.next().copied();
            let why = if !free(name) {
                "there is a topic of this name"
            } else if partitions.keys().copied().ne(0..partitions.len()) {
                "some of its partitions are missing"
            } else if ids.any(|other| Some(*other) != id) {
                "its partitions belong to different topics"
            } else {
                found.push(Found {
                    name: name.clone(),
                    id: id.unwrap_or_else(Uuid::new_v4),
                    partitions: partitions.len(),
                });
                continue;
            };
            error!(topic = %name, why, "a topic cannot be taken over, it is left there");
        }
        found
    }
}

/// Moves the folders of a topic that are still in `adopt/` to their place.
pub(crate) fn move_in(data_dir: &Path, name: &str, partitions: usize) -> io::Result<()> {
    let adopt = data_dir.join(FOLDER);
    for index in 0..partitions {
        let (from, to): (PathBuf, PathBuf) = (
            adopt.join(format!("{name}-{index}")),
            data_dir.join(format!("{name}-{index}")),
        );
        if !from.exists() {
            continue; // it was moved before
        }
        if to.exists() {
            fs::remove_dir_all(&to)?; // of a topic that is no more
        }
        fs::rename(&from, &to)?;
    }
    files::sync_folder(data_dir)?;
    if adopt.exists() {
        files::sync_folder(&adopt)?;
    }
    info!(topic = %name, partitions, "topic taken over");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_for_topic_and_partition() {
        assert_eq!(split("orders-0"), Some(("orders", 0)));
        assert_eq!(split("a-b-12"), Some(("a-b", 12)));
        for name in ["orders", "orders-", "-1", "orders-x", "orders-1.deleted"] {
            assert_eq!(split(name), None, "{name}");
        }
    }

    #[test]
    fn only_whole_topics_are_taken() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let topic = |ids: &[(usize, Option<Uuid>)]| ids.iter().copied().collect();
        let adoptable = Adoptable {
            topics: BTreeMap::from([
                ("gap".into(), topic(&[(0, Some(one)), (2, Some(one))])),
                ("mixed".into(), topic(&[(0, Some(one)), (1, Some(other))])),
                ("taken".into(), topic(&[(0, Some(one))])),
                ("whole".into(), topic(&[(0, Some(one)), (1, None)])),
            ]),
            ..Adoptable::default()
        };
        let found = adoptable.whole(|name| name != "taken");
        let expected = Found {
            name: "whole".into(),
            id: one,
            partitions: 2,
        };
        assert_eq!(found, [expected]);
    }
}
