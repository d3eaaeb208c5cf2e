//! The settings of groups: what can be set, what was set for which group, and what holds.
//!
//! What was set is kept in `group-settings.json`, which is replaced as a whole at each change. Names, kinds, defaults
//! and bounds are those of Apache Kafka 4.3; a group need not exist to have settings.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::reset::Reset;
use crate::files;
use crate::topic::config::{Kind, Overrides, Setting, Takes, setting};

/// Groups that may have settings of their own: each change writes all of them.
const GROUPS_MAX: usize = 10_000;
/// Longest name of a group that may have settings.
const NAME_BYTES_MAX: usize = 1024;

/// Every setting of a group, by name.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    setting("consumer.assignment.interval.ms", Kind::Int, "1000", Some("group.consumer.assignment.interval.ms"), Takes::AtLeast(0),
        "how long an assignment stays before there is another; here the default is 0"),
    setting("consumer.heartbeat.interval.ms", Kind::Int, "5000", Some("group.consumer.heartbeat.interval.ms"), Takes::AtLeast(1),
        "how often members are told to say that they are alive"),
    setting("consumer.session.timeout.ms", Kind::Int, "45000", Some("group.consumer.session.timeout.ms"), Takes::AtLeast(1),
        "how long a member may be silent before it is given up"),
    setting("share.assignment.interval.ms", Kind::Int, "1000", Some("group.share.assignment.interval.ms"), Takes::AtLeast(0),
        "how long an assignment of a share group stays before there is another; here the default is 0"),
    setting("share.auto.offset.reset", Kind::String, "latest", None, Takes::Reset,
        "where a share group begins: `earliest`, `latest`, or `by_duration:` and a duration in ISO 8601"),
    setting("share.delivery.count.limit", Kind::Int, "5", Some("group.share.delivery.count.limit"), Takes::AtLeast(2),
        "how often a record is delivered before it is given up"),
    setting("share.heartbeat.interval.ms", Kind::Int, "5000", Some("group.share.heartbeat.interval.ms"), Takes::AtLeast(1),
        "how often members of a share group are told to say that they are alive"),
    setting("share.isolation.level", Kind::String, "read_uncommitted", None, Takes::OneOf(&["read_committed", "read_uncommitted"]),
        "whether a share group reads what is not committed"),
    setting("share.partition.max.record.locks", Kind::Int, "2000", Some("group.share.partition.max.record.locks"), Takes::AtLeast(100),
        "records of a partition that may be delivered and not yet acknowledged"),
    setting("share.record.lock.duration.ms", Kind::Int, "30000", Some("group.share.record.lock.duration.ms"), Takes::AtLeast(1000),
        "how long a record stays with the member that it was delivered to"),
    setting("share.renew.acknowledge.enable", Kind::Boolean, "true", None, Takes::Any,
        "whether members may ask to keep records for longer"),
    setting("share.session.timeout.ms", Kind::Int, "45000", Some("group.share.session.timeout.ms"), Takes::AtLeast(1),
        "how long a member of a share group may be silent before it is given up"),
    setting("streams.assignment.interval.ms", Kind::Int, "1000", Some("group.streams.assignment.interval.ms"), Takes::AtLeast(0),
        "how long an assignment of tasks stays before there is another"),
    setting("streams.heartbeat.interval.ms", Kind::Int, "5000", Some("group.streams.heartbeat.interval.ms"), Takes::AtLeast(1),
        "how often members of a streams group are told to say that they are alive"),
    setting("streams.initial.rebalance.delay.ms", Kind::Int, "3000", Some("group.streams.initial.rebalance.delay.ms"), Takes::AtLeast(0),
        "how long the first assignment of tasks waits for more members"),
    setting("streams.num.standby.replicas", Kind::Int, "0", Some("group.streams.num.standby.replicas"), Takes::AtLeast(0),
        "copies of each task that stand by"),
    setting("streams.session.timeout.ms", Kind::Int, "45000", Some("group.streams.session.timeout.ms"), Takes::AtLeast(1),
        "how long a member of a streams group may be silent before it is given up"),
];

/// Where this broker's default is not Kafka's: a first assignment at once is worth more on one machine than fewer of them.
const OURS: &[(&str, &str)] = &[
    ("consumer.assignment.interval.ms", "0"),
    ("share.assignment.interval.ms", "0"),
];

/// What may be set at least and at most; Kafka's brokers have settings for these, here they are fixed.
#[rustfmt::skip]
const BOUNDS: &[(&str, i64, i64, &str)] = &[
    ("consumer.assignment.interval.ms", 0, 15_000, "group.consumer.{}.assignment.interval.ms"),
    ("consumer.heartbeat.interval.ms", 5_000, 15_000, "group.consumer.{}.heartbeat.interval.ms"),
    ("consumer.session.timeout.ms", 45_000, 60_000, "group.consumer.{}.session.timeout.ms"),
    ("share.assignment.interval.ms", 0, 15_000, "group.share.{}.assignment.interval.ms"),
    ("share.delivery.count.limit", 2, 10, "group.share.{}.delivery.count.limit"),
    ("share.heartbeat.interval.ms", 5_000, 15_000, "group.share.{}.heartbeat.interval.ms"),
    ("share.partition.max.record.locks", 100, 4_000, "group.share.{}.partition.max.record.locks"),
    ("share.record.lock.duration.ms", 15_000, 60_000, "group.share.{}.record.lock.duration.ms"),
    ("share.session.timeout.ms", 45_000, 60_000, "group.share.{}.session.timeout.ms"),
    ("streams.assignment.interval.ms", 0, 15_000, "group.streams.{}.assignment.interval.ms"),
    ("streams.heartbeat.interval.ms", 5_000, 15_000, "group.streams.{}.heartbeat.interval.ms"),
    ("streams.num.standby.replicas", 0, 2, "group.streams.{}.standby.replicas"),
    ("streams.session.timeout.ms", 45_000, 60_000, "group.streams.{}.session.timeout.ms"),
];

/// Returns the setting of this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Returns the default of a setting on this broker, and whether it is not Kafka's.
pub(crate) fn default_of(setting: &Setting) -> (&'static str, bool) {
    match OURS.iter().find(|(name, _)| *name == setting.name) {
        Some((_, ours)) => (ours, true),
        None => (setting.default, false),
    }
}

/// Why settings are refused, in Kafka's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("Unknown group config name: {name}")]
    Unknown { name: String },
    #[error("Invalid value {value} for configuration {name}: {why}")]
    Value {
        name: String,
        value: String,
        why: String,
    },
    #[error("{name} must be {relation} {bound}")]
    Bound {
        name: &'static str,
        relation: &'static str,
        bound: String,
    },
}

/// Why settings cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("the name of the group is longer than {NAME_BYTES_MAX} bytes")]
    Name,
    #[error(
        "{GROUPS_MAX} groups have settings of their own, which is the most that the broker keeps"
    )]
    TooMany,
    #[error("the disk refused")]
    Disk(#[from] io::Error),
}

/// Checks a group's own settings, each alone and all together.
pub(crate) fn check(own: &Overrides) -> Result<(), Invalid> {
    if let Some(name) = own.keys().find(|name| find(name).is_none()) {
        return Err(Invalid::Unknown { name: name.clone() });
    }
    for setting in SETTINGS {
        let Some(value) = own.get(setting.name) else {
            continue;
        };
        setting.check(value.trim()).map_err(|why| Invalid::Value {
            name: setting.name.to_owned(),
            value: value.clone(),
            why,
        })?;
    }
    for (name, min, max, bound) in BOUNDS {
        let value = number(own, name);
        let (relation, end) = match value {
            value if value < *min => ("greater than or equal to", "min"),
            value if value > *max => ("less than or equal to", "max"),
            _ => continue,
        };
        let bound = bound.replace("{}", end);
        return Err(Invalid::Bound {
            name,
            relation,
            bound,
        });
    }
    for (session, heartbeat) in [
        (
            "consumer.session.timeout.ms",
            "consumer.heartbeat.interval.ms",
        ),
        ("share.session.timeout.ms", "share.heartbeat.interval.ms"),
        (
            "streams.session.timeout.ms",
            "streams.heartbeat.interval.ms",
        ),
    ] {
        if number(own, session) <= number(own, heartbeat) {
            return Err(Invalid::Bound {
                name: session,
                relation: "greater than",
                bound: heartbeat.to_owned(),
            });
        }
    }
    Ok(())
}

fn text<'a>(own: &'a Overrides, name: &str) -> &'a str {
    match own.get(name) {
        Some(value) => value.trim(),
        None => find(name).map_or("", |setting| default_of(setting).0),
    }
}

/// Every value was checked when it was set.
fn number(own: &Overrides, name: &str) -> i64 {
    text(own, name).parse().unwrap_or_default()
}

/// What holds for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub consumer: Timing,
    pub share: Share,
    pub streams: Streams,
}

/// What holds for a streams group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streams {
    pub timing: Timing,
    /// How long the first assignment waits for more members.
    pub initial_delay_ms: i32,
    /// Copies of each task that stand by.
    pub standbys: i32,
}

/// How often members have to be heard from, and how often they are assigned anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub session_timeout_ms: i32,
    pub heartbeat_interval_ms: i32,
    pub assignment_interval_ms: i32,
}

/// What holds for a share group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub timing: Timing,
    /// Where it begins to read.
    pub reset: Reset,
    pub read_committed: bool,
    /// How long a record stays with whom it was delivered to.
    pub lock_ms: i32,
    /// Deliveries of a record before it is given up.
    pub deliveries_max: i32,
    /// Records of a partition that are delivered and not acknowledged.
    pub locks_max: i32,
    /// Whether members may ask to keep records for longer.
    pub renewable: bool,
}

impl Settings {
    /// Puts a group's own settings over the defaults.
    fn new(own: &Overrides) -> Self {
        let number = |name: &str| i32::try_from(number(own, name)).unwrap_or(i32::MAX);
        let timing = |kind: &str| Timing {
            session_timeout_ms: number(&format!("{kind}.session.timeout.ms")),
            heartbeat_interval_ms: number(&format!("{kind}.heartbeat.interval.ms")),
            assignment_interval_ms: number(&format!("{kind}.assignment.interval.ms")),
        };
        Self {
            consumer: timing("consumer"),
            share: Share {
                timing: timing("share"),
                reset: text(own, "share.auto.offset.reset")
                    .parse()
                    .unwrap_or(Reset::Latest),
                read_committed: text(own, "share.isolation.level") == "read_committed",
                lock_ms: number("share.record.lock.duration.ms"),
                deliveries_max: number("share.delivery.count.limit"),
                locks_max: number("share.partition.max.record.locks"),
                renewable: text(own, "share.renew.acknowledge.enable") == "true",
            },
            streams: Streams {
                timing: timing("streams"),
                initial_delay_ms: number("streams.initial.rebalance.delay.ms"),
                standbys: number("streams.num.standby.replicas"),
            },
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(&Overrides::new())
    }
}

impl Default for Timing {
    /// What holds for consumers.
    fn default() -> Self {
        Settings::default().consumer
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    groups: BTreeMap<String, Overrides>,
}

/// The settings of all groups.
#[derive(Debug)]
pub(crate) struct GroupSettings {
    path: PathBuf,
    default: Arc<Settings>,
    set: RwLock<HashMap<String, (Overrides, Arc<Settings>)>>,
    /// One change at a time; it waits for the disk.
    changes: Mutex<()>,
}

impl GroupSettings {
    /// Reads what was set.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("group-settings.json");
        let saved: Saved = match files::read(&path)? {
            Some(content) => serde_json::from_slice(&content)?,
            None => Saved::default(),
        };
        let set = saved.groups.into_iter().map(|(group, own)| {
            let settings = Arc::new(Settings::new(&own));
            (group, (own, settings))
        });
        Ok(Self {
            path,
            default: Arc::default(),
            set: RwLock::new(set.collect()),
            changes: Mutex::new(()),
        })
    }

    /// Returns what holds for a group now.
    pub(crate) fn of(&self, group: &str) -> Arc<Settings> {
        let set = self.set.read();
        set.get(group)
            .map_or_else(|| self.default.clone(), |(_, settings)| settings.clone())
    }

    /// Returns what was set for a group itself.
    pub(crate) fn own(&self, group: &str) -> Overrides {
        let set = self.set.read();
        set.get(group)
            .map(|(own, _)| own.clone())
            .unwrap_or_default()
    }

    /// Returns the groups that have settings of their own, in the order of their names.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = self.set.read().keys().cloned().collect();
        groups.sort_unstable();
        groups
    }

    /// Says whether a group could have these settings and no others.
    pub(crate) fn check(&self, group: &str, own: &Overrides) -> Result<(), Error> {
        check(own)?;
        let set = self.set.read();
        if group.len() > NAME_BYTES_MAX {
            return Err(Error::Name);
        }
        match set.len() >= GROUPS_MAX && !set.contains_key(group) && !own.is_empty() {
            true => Err(Error::TooMany),
            false => Ok(()),
        }
    }

    /// Changes what is set for a group; it is durable and holds when this returns. Waits for the disk.
    pub(crate) fn change<E: From<Error>>(
        &self,
        group: &str,
        change: impl FnOnce(Overrides) -> Result<Overrides, E>,
    ) -> Result<(), E> {
        let _one = self.changes.lock();
        let now = self.own(group);
        let own = change(now.clone())?;
        self.check(group, &own)?;
        if own == now {
            return Ok(());
        }
        let mut saved = Saved {
            groups: {
                let set = self.set.read();
                let each = set.iter();
                each.map(|(group, (own, _))| (group.clone(), own.clone()))
                    .collect()
            },
        };
        match own.is_empty() {
            true => saved.groups.remove(group),
            false => saved.groups.insert(group.to_owned(), own.clone()),
        };
        let content = serde_json::to_vec_pretty(&saved).map_err(io::Error::from);
        content
            .and_then(|content| files::replace(&self.path, &content))
            .map_err(Error::Disk)?;
        let mut set = self.set.write();
        match own.is_empty() {
            true => set.remove(group),
            false => {
                let settings = Arc::new(Settings::new(&own));
                set.insert(group.to_owned(), (own, settings))
            }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pairs: &[(&str, &str)]) -> Overrides {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_default_is_a_value_that_may_be_set() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        let all = |default: fn(&Setting) -> &str| -> Overrides {
            let each = SETTINGS.iter();
            each.map(|one| (one.name.to_owned(), default(one).to_owned()))
                .collect()
        };
        assert_eq!(check(&all(|one| one.default)), Ok(()));
        assert_eq!(check(&all(|one| default_of(one).0)), Ok(()));
        for (name, ..) in BOUNDS {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn refusals_are_in_kafkas_words() {
        for (pairs, expected) in [
            (
                &[("no.such", "1")][..],
                "Unknown group config name: no.such",
            ),
            (
                &[("consumer.session.timeout.ms", "x")],
                "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT",
            ),
            (
                &[("consumer.session.timeout.ms", "1000")],
                "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
            ),
            (
                &[("share.delivery.count.limit", "11")],
                "share.delivery.count.limit must be less than or equal to group.share.max.delivery.count.limit",
            ),
            (
                &[("streams.num.standby.replicas", "3")],
                "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
            ),
        ] {
            let refused = check(&own(pairs)).expect_err("refused");
            assert_eq!(refused.to_string(), expected);
        }
    }

    #[test]
    fn what_is_set_holds_at_once_and_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = GroupSettings::open(folder.path()).expect("opens");
        assert_eq!(settings.of("g").consumer.session_timeout_ms, 45_000);
        let wanted = own(&[
            ("consumer.session.timeout.ms", " 50000 "),
            ("share.auto.offset.reset", "by_duration:PT1S"),
        ]);
        let changed = settings.change::<Error>("g", |_| Ok(wanted.clone()));
        changed.expect("changed");
        for settings in [settings, GroupSettings::open(folder.path()).expect("opens")] {
            let now = settings.of("g");
            assert_eq!(now.consumer.session_timeout_ms, 50_000);
            assert_eq!(now.share.reset, Reset::ByDuration(1000));
            assert_eq!(settings.of("other"), Arc::default());
            assert_eq!(settings.groups(), ["g"]);
        }
        let settings = GroupSettings::open(folder.path()).expect("opens");
        let refused = settings.change::<Error>("g", |_| Ok(own(&[("no.such", "1")])));
        assert!(matches!(refused, Err(Error::Invalid(_))));
        assert_eq!(settings.own("g"), wanted);
        let removed = settings.change::<Error>("g", |_| Ok(Overrides::new()));
        removed.expect("removed");
        assert!(settings.groups().is_empty());
    }
}
