//! Every message under a name, with what the tests do to it.

use bytes::{Bytes, BytesMut};
use kafka::{
    messages::Message,
    wire::{DecodeError, Reader},
};
use kafka_protocol::protocol::{Decodable, Encodable};

/// One message, in this crate and in the other implementation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Decodes and encodes again.
    pub(crate) ours: fn(&Bytes, i16) -> Result<Again, DecodeError>,
    /// The same by the other implementation. It must not see hostile bytes: it aborts.
    pub(crate) theirs: fn(&Bytes, i16) -> Result<Again, String>,
    /// The default values as text, ours and theirs.
    pub(crate) defaults: fn() -> (String, String),
    /// The bytes of our default value.
    pub(crate) default_bytes: fn(i16) -> Bytes,
    /// The last version that the other implementation knows.
    pub(crate) their_last: i16,
}

/// A message that was decoded and encoded again.
pub(crate) struct Again {
    pub(crate) bytes: Bytes,
    /// How many bytes were not read.
    pub(crate) left: usize,
    /// The decoded values as text.
    pub(crate) text: String,
}

fn ours<T: Message>(bytes: &Bytes, version: i16) -> Result<Again, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = T::decode(&mut reader, version)?;
    let again = message
        .to_bytes(version)
        .expect("what was decoded can be encoded");
    Ok(Again {
        bytes: again,
        left: reader.remaining(),
        text: format!("{message:?}"),
    })
}

fn theirs<T>(bytes: &Bytes, version: i16) -> Result<Again, String>
where
    T: Decodable + Encodable + std::fmt::Debug,
{
    let mut left = bytes.clone();
    let message = T::decode(&mut left, version).map_err(|error| format!("{error:#}"))?;
    let mut again = BytesMut::new();
    message
        .encode(&mut again, version)
        .map_err(|error| format!("{error:#}"))?;
    Ok(Again {
        bytes: again.freeze(),
        left: left.len(),
        text: format!("{message:?}"),
    })
}

fn defaults<O: Message, T: Default + std::fmt::Debug>() -> (String, String) {
    (format!("{:?}", O::default()), format!("{:?}", T::default()))
}

fn default_bytes<T: Message>(version: i16) -> Bytes {
    T::default()
        .to_bytes(version)
        .expect("a default can be encoded")
}

macro_rules! cases {
    ($($module:ident: $($name:ident)*,)*) => {
        /// Returns every message that both implementations know.
        pub(crate) fn all() -> Vec<Case> {
            vec![$($(Case {
                name: stringify!($name),
                ours: ours::<kafka::messages::$module::$name>,
                theirs: theirs::<kafka_protocol::messages::$name>,
                defaults: defaults::<
                    kafka::messages::$module::$name,
                    kafka_protocol::messages::$name,
                >,
                default_bytes: default_bytes::<kafka::messages::$module::$name>,
                their_last: <kafka_protocol::messages::$name as kafka_protocol::protocol::Message>
                    ::VERSIONS.max,
            },)*)*]
        }
    };
}

cases! {
    add_offsets_to_txn: AddOffsetsToTxnRequest AddOffsetsToTxnResponse,
    add_partitions_to_txn: AddPartitionsToTxnRequest AddPartitionsToTxnResponse,
    alter_client_quotas: AlterClientQuotasRequest AlterClientQuotasResponse,
    alter_configs: AlterConfigsRequest AlterConfigsResponse,
    alter_partition_reassignments: AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
    alter_replica_log_dirs: AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse,
    alter_share_group_offsets: AlterShareGroupOffsetsRequest AlterShareGroupOffsetsResponse,
    alter_user_scram_credentials: AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse,
    api_versions: ApiVersionsRequest ApiVersionsResponse,
    consumer_group_describe: ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
    consumer_group_heartbeat: ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
    consumer_protocol: ConsumerProtocolSubscription ConsumerProtocolAssignment,
    create_acls: CreateAclsRequest CreateAclsResponse,
    create_delegation_token: CreateDelegationTokenRequest CreateDelegationTokenResponse,
    create_partitions: CreatePartitionsRequest CreatePartitionsResponse,
    create_topics: CreateTopicsRequest CreateTopicsResponse,
    delete_acls: DeleteAclsRequest DeleteAclsResponse,
    delete_groups: DeleteGroupsRequest DeleteGroupsResponse,
    delete_records: DeleteRecordsRequest DeleteRecordsResponse,
    delete_share_group_offsets: DeleteShareGroupOffsetsRequest DeleteShareGroupOffsetsResponse,
    delete_topics: DeleteTopicsRequest DeleteTopicsResponse,
    describe_acls: DescribeAclsRequest DescribeAclsResponse,
    describe_client_quotas: DescribeClientQuotasRequest DescribeClientQuotasResponse,
    describe_cluster: DescribeClusterRequest DescribeClusterResponse,
    describe_configs: DescribeConfigsRequest DescribeConfigsResponse,
    describe_delegation_token: DescribeDelegationTokenRequest DescribeDelegationTokenResponse,
    describe_groups: DescribeGroupsRequest DescribeGroupsResponse,
    describe_log_dirs: DescribeLogDirsRequest DescribeLogDirsResponse,
    describe_producers: DescribeProducersRequest DescribeProducersResponse,
    describe_quorum: DescribeQuorumRequest DescribeQuorumResponse,
    describe_share_group_offsets: DescribeShareGroupOffsetsRequest DescribeShareGroupOffsetsResponse,
    describe_topic_partitions: DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
    describe_transactions: DescribeTransactionsRequest DescribeTransactionsResponse,
    describe_user_scram_credentials: DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse,
    elect_leaders: ElectLeadersRequest ElectLeadersResponse,
    end_txn: EndTxnRequest EndTxnResponse,
    expire_delegation_token: ExpireDelegationTokenRequest ExpireDelegationTokenResponse,
    fetch: FetchRequest FetchResponse,
    find_coordinator: FindCoordinatorRequest FindCoordinatorResponse,
    get_telemetry_subscriptions: GetTelemetrySubscriptionsRequest GetTelemetrySubscriptionsResponse,
    heartbeat: HeartbeatRequest HeartbeatResponse,
    incremental_alter_configs: IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    init_producer_id: InitProducerIdRequest InitProducerIdResponse,
    join_group: JoinGroupRequest JoinGroupResponse,
    leave_group: LeaveGroupRequest LeaveGroupResponse,
    list_config_resources: ListConfigResourcesRequest ListConfigResourcesResponse,
    list_groups: ListGroupsRequest ListGroupsResponse,
    list_offsets: ListOffsetsRequest ListOffsetsResponse,
    list_partition_reassignments: ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
    list_transactions: ListTransactionsRequest ListTransactionsResponse,
    metadata: MetadataRequest MetadataResponse,
    offset_commit: OffsetCommitRequest OffsetCommitResponse,
    offset_delete: OffsetDeleteRequest OffsetDeleteResponse,
    offset_fetch: OffsetFetchRequest OffsetFetchResponse,
    offset_for_leader_epoch: OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
    produce: ProduceRequest ProduceResponse,
    push_telemetry: PushTelemetryRequest PushTelemetryResponse,
    renew_delegation_token: RenewDelegationTokenRequest RenewDelegationTokenResponse,
    sasl_authenticate: SaslAuthenticateRequest SaslAuthenticateResponse,
    sasl_handshake: SaslHandshakeRequest SaslHandshakeResponse,
    share_acknowledge: ShareAcknowledgeRequest ShareAcknowledgeResponse,
    share_fetch: ShareFetchRequest ShareFetchResponse,
    share_group_describe: ShareGroupDescribeRequest ShareGroupDescribeResponse,
    share_group_heartbeat: ShareGroupHeartbeatRequest ShareGroupHeartbeatResponse,
    sync_group: SyncGroupRequest SyncGroupResponse,
    txn_offset_commit: TxnOffsetCommitRequest TxnOffsetCommitResponse,
    unregister_broker: UnregisterBrokerRequest UnregisterBrokerResponse,
    update_features: UpdateFeaturesRequest UpdateFeaturesResponse,
    write_txn_markers: WriteTxnMarkersRequest WriteTxnMarkersResponse,
}
