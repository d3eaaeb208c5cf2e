//! How far the broker is Apache Kafka 4.3: every API and every setting, told from what the code knows.
//!
//! The lists of what Apache Kafka has are held against a running one in the tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::api::versions;
use crate::group::settings as groups;
use crate::topic::config::{self, Acts, Setting};

mod settings;

use self::settings::{GROUPS, Standing};

/// What Apache Kafka 4.3.1 advertises: key, name, first and last version.
#[rustfmt::skip]
pub const APIS: &[(i16, &str, i16, i16)] = &[
    (0, "Produce", 0, 13),
    (1, "Fetch", 4, 18),
    (2, "ListOffsets", 1, 11),
    (3, "Metadata", 0, 13),
    (8, "OffsetCommit", 2, 10),
    (9, "OffsetFetch", 1, 10),
    (10, "FindCoordinator", 0, 6),
    (11, "JoinGroup", 0, 9),
    (12, "Heartbeat", 0, 4),
    (13, "LeaveGroup", 0, 5),
    (14, "SyncGroup", 0, 5),
    (15, "DescribeGroups", 0, 6),
    (16, "ListGroups", 0, 5),
    (17, "SaslHandshake", 0, 1),
    (18, "ApiVersions", 0, 4),
    (19, "CreateTopics", 2, 7),
    (20, "DeleteTopics", 1, 6),
    (21, "DeleteRecords", 0, 2),
    (22, "InitProducerId", 0, 5),
    (23, "OffsetForLeaderEpoch", 2, 4),
    (24, "AddPartitionsToTxn", 0, 5),
    (25, "AddOffsetsToTxn", 0, 4),
    (26, "EndTxn", 0, 5),
    (27, "WriteTxnMarkers", 1, 2),
    (28, "TxnOffsetCommit", 0, 5),
    (29, "DescribeAcls", 1, 3),
    (30, "CreateAcls", 1, 3),
    (31, "DeleteAcls", 1, 3),
    (32, "DescribeConfigs", 1, 4),
    (33, "AlterConfigs", 0, 2),
    (34, "AlterReplicaLogDirs", 1, 2),
    (35, "DescribeLogDirs", 1, 5),
    (36, "SaslAuthenticate", 0, 2),
    (37, "CreatePartitions", 0, 3),
    (38, "CreateDelegationToken", 1, 3),
    (39, "RenewDelegationToken", 1, 2),
    (40, "ExpireDelegationToken", 1, 2),
    (41, "DescribeDelegationToken", 1, 3),
    (42, "DeleteGroups", 0, 2),
    (43, "ElectLeaders", 0, 2),
    (44, "IncrementalAlterConfigs", 0, 1),
    (45, "AlterPartitionReassignments", 0, 1),
    (46, "ListPartitionReassignments", 0, 0),
    (47, "OffsetDelete", 0, 0),
    (48, "DescribeClientQuotas", 0, 1),
    (49, "AlterClientQuotas", 0, 1),
    (50, "DescribeUserScramCredentials", 0, 0),
    (51, "AlterUserScramCredentials", 0, 0),
    (55, "DescribeQuorum", 0, 2),
    (57, "UpdateFeatures", 0, 2),
    (60, "DescribeCluster", 0, 2),
    (61, "DescribeProducers", 0, 0),
    (64, "UnregisterBroker", 0, 0),
    (65, "DescribeTransactions", 0, 0),
    (66, "ListTransactions", 0, 2),
    (68, "ConsumerGroupHeartbeat", 0, 1),
    (69, "ConsumerGroupDescribe", 0, 1),
    (74, "ListConfigResources", 0, 1),
    (75, "DescribeTopicPartitions", 0, 0),
    (76, "ShareGroupHeartbeat", 1, 1),
    (77, "ShareGroupDescribe", 1, 1),
    (78, "ShareFetch", 1, 2),
    (79, "ShareAcknowledge", 1, 2),
    (80, "AddRaftVoter", 0, 1),
    (81, "RemoveRaftVoter", 0, 0),
    (83, "InitializeShareGroupState", 0, 0),
    (84, "ReadShareGroupState", 0, 0),
    (85, "WriteShareGroupState", 0, 1),
    (86, "DeleteShareGroupState", 0, 0),
    (87, "ReadShareGroupStateSummary", 0, 1),
    (88, "StreamsGroupHeartbeat", 0, 0),
    (89, "StreamsGroupDescribe", 0, 0),
    (90, "DescribeShareGroupOffsets", 0, 1),
    (91, "AlterShareGroupOffsets", 0, 0),
    (92, "DeleteShareGroupOffsets", 0, 0),
];

/// The settings that DescribeConfigs tells of the broker, beside the defaults of topics.
#[rustfmt::skip]
const TOLD: &[&str] = &[
    "advertised.listeners", "auto.create.topics.enable", "broker.id", "broker.rack",
    "connections.max.idle.ms", "connections.max.reauth.ms", "default.replication.factor",
    "delete.topic.enable", "fetch.max.bytes", "group.initial.rebalance.delay.ms",
    "group.max.session.timeout.ms", "group.max.size", "group.min.session.timeout.ms",
    "listener.security.protocol.map", "listeners", "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size", "log.cleaner.enable", "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.threads", "log.dir", "log.dirs", "log.retention.check.interval.ms",
    "max.connections", "node.id", "num.partitions", "offset.metadata.max.bytes",
    "offsets.retention.minutes", "offsets.topic.num.partitions",
    "offsets.topic.replication.factor", "process.roles", "queued.max.request.bytes",
    "sasl.enabled.mechanisms", "socket.request.max.bytes", "transaction.max.timeout.ms",
    "transaction.state.log.num.partitions", "transaction.state.log.replication.factor",
    "transaction.two.phase.commit.enable", "transactional.id.expiration.ms",
];

/// Why an API, or some of its versions, are not offered.
const WITHOUT: &[(i16, &str)] = &[
    (80, "there is one node"),
    (81, "there is one node"),
    (83, "the broker keeps it by itself"),
    (84, "the broker keeps it by itself"),
    (85, "the broker keeps it by itself"),
    (86, "the broker keeps it by itself"),
    (87, "the broker keeps it by itself"),
];

/// One API of Apache Kafka, or of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Kafka's number of it.
    pub key: i16,
    /// Kafka's name of it.
    pub name: &'static str,
    /// The versions that Apache Kafka offers.
    pub theirs: Option<(i16, i16)>,
    /// The versions that are offered here.
    pub ours: Option<(i16, i16)>,
    /// Why they differ.
    pub why: Option<&'static str>,
}

/// Returns every API, in the order of the keys.
pub fn apis() -> Vec<Api> {
    let mut all: BTreeMap<i16, Api> = BTreeMap::new();
    for (key, name, first, last) in APIS {
        let api = Api {
            key: *key,
            name,
            theirs: Some((*first, *last)),
            ours: None,
            why: WITHOUT
                .iter()
                .find(|(one, _)| one == key)
                .map(|(_, why)| *why),
        };
        all.insert(*key, api);
    }
    for (api, first, last) in versions::OFFERED {
        let entry = all.entry(*api as i16).or_insert(Api {
            key: *api as i16,
            name: api.name(),
            theirs: None,
            ours: None,
            why: None,
        });
        entry.ours = Some((*first, *last));
    }
    all.into_values().collect()
}

/// Returns the names of Apache Kafka's broker settings that are known: those that are told, and the others.
pub fn broker_settings() -> Vec<&'static str> {
    let others = GROUPS
        .iter()
        .flat_map(|(_, _, names)| names.iter().copied());
    let mut all: Vec<&str> = told().chain(others).collect();
    all.sort_unstable();
    all
}

/// Returns the names of the settings that DescribeConfigs tells of the broker.
pub fn told() -> impl Iterator<Item = &'static str> {
    let defaults = config::SETTINGS.iter().filter_map(|one| one.synonym);
    defaults.chain(TOLD.iter().copied())
}

/// Returns the page of the reference.
pub fn page() -> String {
    let mut text = String::from(
        "<!-- Written by `cargo xtask reference` from crates/broker/src/compatibility.rs. Change it there. -->\n\n\
         # Compatibility with Apache Kafka\n\n\
         Held against Apache Kafka 4.3.1: the lists of what it has are compared with a running one in the tests, and so are the \
         answers to some fifteen hundred requests. [kafka-protocol.md](kafka-protocol.md) tells what is behind them.\n\n\
         ## APIs\n\n\
         Produce 0 to 2 are named because old librdkafka clients switch compression off otherwise; they themselves are not \
         spoken, here and there. A request of another kind or version ends the connection.\n\n\
         | key | API | Apache Kafka | here | |\n|---|---|---|---|---|\n",
    );
    let span = |versions: Option<(i16, i16)>| match versions {
        Some((first, last)) if first == last => first.to_string(),
        Some((first, last)) => format!("{first}-{last}"),
        None => "–".to_owned(),
    };
    for api in apis() {
        let why = match (api.why, api.theirs == api.ours) {
            (_, true) => "",
            (Some(why), _) => why,
            (None, _) => "not yet",
        };
        let (theirs, ours) = (span(api.theirs), span(api.ours));
        _ = writeln!(
            text,
            "| {} | {} | {theirs} | {ours} | {why} |",
            api.key, api.name
        );
    }
    let table = |text: &mut String, settings: &[Setting], default: fn(&Setting) -> &str| {
        *text += "| setting | type | default | what it does |\n|---|---|---|---|\n";
        for one in settings {
            let about = match one.acts {
                Acts::Yes => one.about.to_owned(),
                Acts::Not(why) => format!("*nothing*: {why}"),
            };
            let kind = one.kind.name().to_lowercase();
            _ = writeln!(
                text,
                "| `{}` | {kind} | `{}` | {about} |",
                one.name,
                default(one)
            );
        }
    };
    text += "\n## Settings of topics\n\nAll of Apache Kafka's, with its types, defaults, bounds and refusals.\n\n";
    table(&mut text, config::SETTINGS, |one| one.default);
    text += "\n## Settings of groups\n\nAll of Apache Kafka's, with its types, bounds and refusals, and its defaults but for the intervals of assignments, which are 1000 there.\n\n";
    table(&mut text, groups::SETTINGS, |one| groups::default_of(one).0);
    text += "\n## Settings of the broker\n\nThese are told by DescribeConfigs, and changed in the configuration, most of them under the same names in \
             [`broker.settings`](broker.md#brokersettings): ";
    let mut names: Vec<String> = told().map(|name| format!("`{name}`")).collect();
    names.sort_unstable();
    _ = writeln!(
        text,
        "{}.\n\nThe others of Apache Kafka:\n",
        names.join(", ")
    );
    text += "| settings | standing | why |\n|---|---|---|\n";
    for (standing, why, names) in GROUPS {
        let standing = match standing {
            Standing::Fixed => "fixed",
            Standing::Elsewhere => "said elsewhere",
            Standing::Nothing => "nothing to act on",
        };
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        _ = writeln!(text, "| {} | {standing} | {why} |", names.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_named_once() {
        let all = broker_settings();
        for two in all.windows(2) {
            assert_ne!(two[0], two[1]);
        }
    }
}
