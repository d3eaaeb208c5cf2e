//! ApiVersions: which APIs and which of their versions clients may use.
//!
//! A version stands here only when every path behind it is right. `compatibility` holds them against Apache Kafka's.

use std::ops::RangeInclusive;

use kafka::error::ErrorCode;
use kafka::messages::ApiKey;
use kafka::messages::api_versions::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};

/// What we tell: key, lowest version, highest version, in the order of the keys.
pub(crate) const OFFERED: &[(ApiKey, i16, i16)] = &[
    // Versions 0 to 2 cannot be read; librdkafka turns compression off unless they are offered.
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 11),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 10),
    (ApiKey::OffsetFetch, 1, 10),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::SaslHandshake, 0, 1),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 5),
    (ApiKey::AddOffsetsToTxn, 0, 4),
    (ApiKey::EndTxn, 0, 5),
    (ApiKey::WriteTxnMarkers, 1, 2),
    (ApiKey::TxnOffsetCommit, 0, 5),
    (ApiKey::DescribeAcls, 1, 3),
    (ApiKey::CreateAcls, 1, 3),
    (ApiKey::DeleteAcls, 1, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::AlterReplicaLogDirs, 1, 2),
    (ApiKey::DescribeLogDirs, 1, 5),
    (ApiKey::SaslAuthenticate, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::CreateDelegationToken, 1, 3),
    (ApiKey::RenewDelegationToken, 1, 2),
    (ApiKey::ExpireDelegationToken, 1, 2),
    (ApiKey::DescribeDelegationToken, 1, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::ElectLeaders, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::AlterPartitionReassignments, 0, 1),
    (ApiKey::ListPartitionReassignments, 0, 0),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeClientQuotas, 0, 1),
    (ApiKey::AlterClientQuotas, 0, 1),
    (ApiKey::DescribeUserScramCredentials, 0, 0),
    (ApiKey::AlterUserScramCredentials, 0, 0),
    (ApiKey::DescribeQuorum, 0, 2),
    (ApiKey::UpdateFeatures, 0, 2),
    (ApiKey::DescribeCluster, 0, 2),
    (ApiKey::DescribeProducers, 0, 0),
    (ApiKey::UnregisterBroker, 0, 0),
    (ApiKey::DescribeTransactions, 0, 0),
    (ApiKey::ListTransactions, 0, 2),
    (ApiKey::ConsumerGroupHeartbeat, 0, 1),
    (ApiKey::ConsumerGroupDescribe, 0, 1),
    (ApiKey::ListConfigResources, 0, 1),
    (ApiKey::DescribeTopicPartitions, 0, 0),
    (ApiKey::ShareGroupHeartbeat, 1, 1),
    (ApiKey::ShareGroupDescribe, 1, 1),
    (ApiKey::ShareFetch, 1, 2),
    (ApiKey::ShareAcknowledge, 1, 2),
    (ApiKey::StreamsGroupHeartbeat, 0, 0),
    (ApiKey::StreamsGroupDescribe, 0, 0),
    (ApiKey::DescribeShareGroupOffsets, 0, 1),
    (ApiKey::AlterShareGroupOffsets, 0, 0),
    (ApiKey::DeleteShareGroupOffsets, 0, 0),
];

/// Returns the versions of `api` that are answered, `None` when it is not offered at all.
pub(crate) fn supported(api: ApiKey) -> Option<RangeInclusive<i16>> {
    let (_, first, last) = OFFERED.iter().find(|(key, ..)| *key == api)?;
    let readable = api.versions();
    Some(*first.max(readable.start())..=*last.min(readable.end()))
}

/// Returns every API that is offered.
pub(crate) fn apis() -> impl Iterator<Item = ApiKey> {
    OFFERED.iter().map(|(api, ..)| *api)
}

/// Features with their highest level, which is in force: consumers may have the broker assign their partitions
/// (KIP-848), groups may share partitions (KIP-932), Kafka Streams may have the broker assign tasks (KIP-1071), and producers are to speak the second version of transactions (KIP-890).
pub(crate) const FEATURES: [(&str, i16); 4] = [
    ("group.version", 1),
    ("share.version", 1),
    ("streams.version", 1),
    ("transaction.version", 2),
];
/// From this version on, features that can be off may be told (KAFKA-17011).
const FEATURES_OFF_FROM: i16 = 4;

/// The answer to a version that we know.
pub(crate) fn answer(version: i16) -> ApiVersionsResponse {
    let supported = FEATURES.map(|(name, level)| SupportedFeatureKey {
        name: name.to_owned(),
        min_version: 0,
        max_version: level,
    });
    let finalized = FEATURES.map(|(name, level)| FinalizedFeatureKey {
        name: name.to_owned(),
        max_version_level: level,
        min_version_level: level,
    });
    ApiVersionsResponse {
        api_keys: OFFERED.iter().map(|offer| offered(*offer)).collect(),
        supported_features: match version {
            FEATURES_OFF_FROM.. => supported.to_vec(),
            _ => Vec::new(),
        },
        // Clients take features in from an epoch that is not negative. It never changes, and zero is what
        // librdkafka before 2.2 gets over: it skips a byte too few for each tag.
        finalized_features_epoch: 0,
        finalized_features: finalized.to_vec(),
        ..ApiVersionsResponse::default()
    }
}

/// The answer to a version that is too new: the client tries again with what is told here (KIP-511).
pub(crate) fn too_new() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: OFFERED
            .iter()
            .filter(|(key, ..)| *key == ApiKey::ApiVersions)
            .map(|offer| offered(*offer))
            .collect(),
        ..ApiVersionsResponse::default()
    }
}

fn offered((api, min_version, max_version): (ApiKey, i16, i16)) -> ApiVersion {
    ApiVersion {
        api_key: api as i16,
        min_version,
        max_version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_can_be_read() {
        for (api, first, last) in OFFERED {
            let readable = api.versions();
            assert!(readable.contains(last), "{} {last}", api.name());
            assert!(
                *first == 0 || readable.contains(first),
                "{} {first}",
                api.name()
            );
        }
        assert!(OFFERED.is_sorted_by_key(|(api, ..)| *api as i16));
    }
}
