//! What an application reads and writes: whether its topics are there, how many partitions those between its parts have
//! to have, and how many tasks each part has.
//!
//! The order of checks and the words are Apache Kafka's.

use std::collections::{BTreeMap, BTreeSet};

use kafka::messages::streams_group_state::{
    StreamsGroupTopologyValue as Topology, Subtopology, TopicInfo,
};

use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::terms::Refused;
use crate::group::terms::Refusal;

/// Names that are told of topics that are missing.
const NAMES_TOLD_MAX: usize = 3;

/// What a member is told beside its tasks, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    StaleTopology = 0,
    MissingSourceTopics = 1,
    IncorrectlyPartitionedTopics = 2,
    MissingInternalTopics = 3,
    ShutdownApplication = 4,
    AssignmentDelayed = 5,
}

/// A topic of the application itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Internal {
    pub name: String,
    pub partitions: i32,
    pub configs: BTreeMap<String, String>,
}

/// A part of a topology of which the topics are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub tasks: i32,
    /// Whether it keeps a state, of which copies can stand by.
    pub stateful: bool,
    /// The topics that its tasks read.
    pub reads: BTreeSet<String>,
}

/// A topology held against the topics that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Configured {
    /// Empty when a problem stands before it.
    pub parts: BTreeMap<String, Part>,
    /// How many partitions each topic of the application itself has.
    pub counts: BTreeMap<String, i32>,
    /// Topics that have to be made.
    pub missing: Vec<Internal>,
    pub problem: Option<(Status, String)>,
}

impl Configured {
    /// True when the tasks can run.
    pub(crate) fn is_ready(&self) -> bool {
        self.problem.is_none()
    }
}

/// Why a topology cannot be run.
enum Fault {
    /// It may become right when topics change.
    Problem(Status, String),
    /// It never will.
    Invalid(String),
}

/// Says whether two topologies are the same, in whatever order.
pub(super) fn same(left: &Topology, right: &Topology) -> bool {
    let parts = |topology: &Topology| -> BTreeMap<String, Subtopology> {
        let parts = topology.subtopologies.iter();
        parts
            .map(|part| (part.subtopology_id.clone(), part.clone()))
            .collect()
    };
    left.epoch == right.epoch && parts(left) == parts(right)
}

/// The topics that a part reads, its own ones included.
fn reads(part: &Subtopology) -> impl Iterator<Item = &str> {
    let own = part.repartition_source_topics.iter();
    let sources = part.source_topics.iter().map(String::as_str);
    sources.chain(own.map(|topic| topic.name.as_str()))
}

/// The part that reads a topic.
pub(super) fn reader<'a>(topology: &'a Topology, topic: &str) -> Option<&'a str> {
    let mut parts = topology.subtopologies.iter();
    let part = parts.find(|part| reads(part).any(|read| read == topic))?;
    Some(&part.subtopology_id)
}

/// Every topic that has to be there.
pub(super) fn required(topology: &Topology) -> BTreeSet<&str> {
    let parts = topology.subtopologies.iter();
    let each = parts.flat_map(|part| {
        let changelogs = part.state_changelog_topics.iter();
        reads(part).chain(changelogs.map(|topic| topic.name.as_str()))
    });
    each.collect()
}

/// Holds a topology against the topics that are there.
pub(super) fn configure(topology: &Topology, catalog: &Catalog) -> Result<Configured, Refused> {
    match (Deciding { topology, catalog }).decide() {
        Ok(configured) => Ok(configured),
        Err(Fault::Problem(status, why)) => Ok(Configured {
            problem: Some((status, why)),
            ..Configured::default()
        }),
        Err(Fault::Invalid(why)) => Err(Refused {
            refusal: Refusal::InvalidTopology,
            why,
        }),
    }
}

type Counts = BTreeMap<String, i32>;

struct Deciding<'a> {
    topology: &'a Topology,
    catalog: &'a Catalog,
}

impl Deciding<'_> {
    fn decide(&self) -> Result<Configured, Fault> {
        let parts = &self.topology.subtopologies;
        let sources = parts.iter().flat_map(|part| &part.source_topics);
        let missing: BTreeSet<&str> = sources
            .map(String::as_str)
            .filter(|topic| self.there(topic).is_none())
            .collect();
        if !missing.is_empty() {
            let why = format!("Source topics {} are missing.", summary(&missing));
            return Err(Fault::Problem(Status::MissingSourceTopics, why));
        }
        let mut counts = self.between()?;
        for part in parts {
            for group in copartitioned(part)? {
                self.align(&group, &mut counts)?;
            }
        }
        for part in parts {
            let tasks = self.tasks(part, &counts)?;
            for changelog in &part.state_changelog_topics {
                counts.insert(changelog.name.clone(), tasks);
            }
        }
        self.compare(counts)
    }

    /// Returns how many partitions a topic has that is there.
    fn there(&self, topic: &str) -> Option<i32> {
        let id = self.catalog.id(topic)?;
        Some(self.catalog.partitions(id))
    }

    fn count(&self, topic: &str, counts: &Counts) -> Result<i32, Fault> {
        let count = self.there(topic).or_else(|| counts.get(topic).copied());
        let unset = || {
            Fault::Invalid(format!(
                "Number of partitions is not set for topic: {topic}"
            ))
        };
        count.ok_or_else(unset)
    }

    /// The topics between the parts: as many partitions as is said, or as what is written into them is read from.
    fn between(&self) -> Result<Counts, Fault> {
        let parts = &self.topology.subtopologies;
        let own = || {
            parts
                .iter()
                .flat_map(|part| &part.repartition_source_topics)
        };
        let said = own().filter(|topic| topic.partitions != 0);
        let mut counts: Counts = said
            .map(|topic| (topic.name.clone(), topic.partitions))
            .collect();
        loop {
            let (mut open, mut went_on) = (false, false);
            for part in parts {
                for sink in &part.repartition_sink_topics {
                    if counts.contains_key(sink) {
                        continue;
                    }
                    let own = part.repartition_source_topics.iter();
                    let own = own.filter_map(|topic| counts.get(&topic.name).copied());
                    let sources = part.source_topics.iter();
                    let sources = sources.filter_map(|topic| self.there(topic));
                    match own.chain(sources).max() {
                        None => open = true,
                        Some(most) => {
                            counts.insert(sink.clone(), most);
                            went_on = true;
                        }
                    }
                }
            }
            if !open {
                break;
            }
            if !went_on {
                return Err(Fault::Invalid("Failed to compute number of partitions for all repartition topics. There may be loops in the topology that cannot be resolved.".into()));
            }
        }
        if own().any(|topic| !counts.contains_key(&topic.name)) {
            return Err(Fault::Invalid("Failed to compute number of partitions for all repartition topics, because a repartition source topic is never used as a sink topic.".into()));
        }
        Ok(counts)
    }

    /// Gives topics that are read together the same number of partitions.
    fn align(&self, group: &BTreeSet<&str>, counts: &mut Counts) -> Result<(), Fault> {
        let parts = self.topology.subtopologies.iter();
        let own: BTreeMap<&str, bool> = parts
            .flat_map(|part| &part.repartition_source_topics)
            .map(|topic| (topic.name.as_str(), topic.partitions != 0))
            .collect();
        let counted = |names: Vec<&str>| -> Result<Counts, Fault> {
            let each = names.into_iter();
            each.map(|name| Ok((name.to_owned(), self.count(name, counts)?)))
                .collect()
        };
        let (inner, outer): (Vec<&str>, Vec<&str>) =
            group.iter().partition(|name| own.contains_key(**name));
        let (inner, outer) = (counted(inner)?, counted(outer)?);
        let is_fixed = |name: &str| own.get(name) == Some(&true);
        let fixed: Vec<i32> = inner
            .iter()
            .filter(|(name, _)| is_fixed(name))
            .map(|(_, count)| *count)
            .collect();
        let uneven = |told: &Counts| {
            let each: Vec<String> = told
                .iter()
                .map(|(name, count)| format!("{name}={count}"))
                .collect();
            let why = format!(
                "Following topics do not have the same number of partitions: [{{{}}}]",
                each.join(", ")
            );
            Fault::Problem(Status::IncorrectlyPartitionedTopics, why)
        };
        let wanted = if let Some(first) = outer.values().next() {
            if outer.values().any(|count| count != first) {
                return Err(uneven(&outer));
            }
            *first
        } else if let Some(first) = fixed.first() {
            if fixed.iter().any(|count| count != first) {
                return Err(uneven(&inner));
            }
            *first
        } else {
            match inner.values().max() {
                None => return Ok(()),
                Some(most) => *most,
            }
        };
        for (name, count) in inner {
            if !is_fixed(&name) {
                counts.insert(name, wanted);
            } else if count != wanted {
                let why = format!(
                    "Number of partitions [{count}] of repartition topic [{name}] doesn't match number of partitions [{wanted}] of the source topic."
                );
                return Err(Fault::Problem(Status::IncorrectlyPartitionedTopics, why));
            }
        }
        Ok(())
    }

    fn tasks(&self, part: &Subtopology, counts: &Counts) -> Result<i32, Fault> {
        let mut most = None;
        for topic in reads(part) {
            most = most.max(Some(self.count(topic, counts)?));
        }
        most.ok_or_else(|| {
            let id = &part.subtopology_id;
            Fault::Invalid(format!("No source topics found for subtopology {id}"))
        })
    }

    /// Compares what is decided with what is there.
    fn compare(&self, counts: Counts) -> Result<Configured, Fault> {
        let mut parts = BTreeMap::new();
        let mut own: BTreeMap<&str, Internal> = BTreeMap::new();
        for part in &self.topology.subtopologies {
            let known = Part {
                tasks: self.tasks(part, &counts)?,
                stateful: !part.state_changelog_topics.is_empty(),
                reads: reads(part).map(str::to_owned).collect(),
            };
            parts.insert(part.subtopology_id.clone(), known);
            let topics = part.repartition_source_topics.iter();
            for topic in topics.chain(&part.state_changelog_topics) {
                own.insert(&topic.name, internal(topic, &counts));
            }
        }
        for topic in required(self.topology) {
            let Some(found) = self.there(topic) else {
                continue;
            };
            if let Some(expected) = own.remove(topic)
                && expected.partitions != found
            {
                let why = format!(
                    "Existing topic {topic} has different number of partitions: expected {}, found {found}",
                    expected.partitions
                );
                return Err(Fault::Problem(Status::IncorrectlyPartitionedTopics, why));
            }
        }
        let names: BTreeSet<&str> = own.keys().copied().collect();
        let problem = (!names.is_empty()).then(|| {
            let why = format!("Internal topics are missing: {}", summary(&names));
            (Status::MissingInternalTopics, why)
        });
        Ok(Configured {
            parts,
            missing: own.into_values().collect(),
            problem,
            counts,
        })
    }
}

/// The topics of a part that are read together, by group.
fn copartitioned(part: &Subtopology) -> Result<Vec<BTreeSet<&str>>, Fault> {
    let invalid = |index: i16| {
        let id = &part.subtopology_id;
        Fault::Invalid(format!("there is no topic {index} in subtopology {id}"))
    };
    let mut groups = Vec::new();
    for group in &part.copartition_groups {
        let mut names = BTreeSet::new();
        for index in &group.source_topics {
            let found = usize::try_from(*index).ok();
            let found = found.and_then(|at| part.source_topics.get(at));
            names.insert(found.ok_or_else(|| invalid(*index))?.as_str());
        }
        for index in &group.repartition_source_topics {
            let found = usize::try_from(*index).ok();
            let found = found.and_then(|at| part.repartition_source_topics.get(at));
            names.insert(found.ok_or_else(|| invalid(*index))?.name.as_str());
        }
        groups.push(names);
    }
    Ok(groups)
}

fn internal(topic: &TopicInfo, counts: &Counts) -> Internal {
    let decided = counts.get(&topic.name).copied();
    let configs = topic.topic_configs.iter();
    Internal {
        name: topic.name.clone(),
        partitions: match topic.partitions {
            0 => decided.unwrap_or(1),
            said => said,
        },
        configs: configs
            .map(|config| (config.key.clone(), config.value.clone()))
            .collect(),
    }
}

/// The first names, and how many more there are.
fn summary(names: &BTreeSet<&str>) -> String {
    let first: Vec<&str> = names.iter().copied().take(NAMES_TOLD_MAX).collect();
    let first = first.join(", ");
    match names.len().saturating_sub(NAMES_TOLD_MAX) {
        0 => first,
        more => format!("{first} and {more} additional topics"),
    }
}
