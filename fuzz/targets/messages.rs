//! Kafka's messages and request headers, from bytes that a stranger sends.
//!
//! The first byte picks the message, the second its version. What can be read must survive being
//! written and read again. Run with `-malloc_limit_mb=100`: no input may ask for more memory.

#![no_main]

use bytes::Bytes;
use kafka::{frame::RequestHeader, messages::Message, wire::Reader};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/kafka/tests/it/list.rs"]
#[macro_use]
mod list;

fn survive<M: Message>(bytes: &Bytes, version: u8) {
    let span = *M::VERSIONS.end() - *M::VERSIONS.start() + 1;
    let version = *M::VERSIONS.start() + i16::from(version) % span;
    let Ok(message) = M::from_bytes(bytes, version) else {
        return;
    };
    let written = message
        .to_bytes(version)
        .expect("what was read can be written");
    let again = M::from_bytes(&written, version).expect("what was written can be read");
    // Compared as bytes, because a number that is not one differs from itself.
    assert_eq!(again.to_bytes(version).expect("as before"), written);
}

macro_rules! targets {
    ($($module:ident: $($name:ident)*,)*) => {
        const TARGETS: &[fn(&Bytes, u8)] = &[
            $($(survive::<kafka::messages::$module::$name>,)*)*
            survive::<kafka::messages::group_state::OffsetCommitKey>,
            survive::<kafka::messages::group_state::OffsetCommitValue>,
            survive::<kafka::messages::group_state::GroupMetadataKey>,
            survive::<kafka::messages::group_state::GroupMetadataValue>,
            survive::<kafka::messages::transaction_state::TransactionLogKey>,
            survive::<kafka::messages::transaction_state::TransactionLogValue>,
            survive::<kafka::messages::streams_group_describe::StreamsGroupDescribeRequest>,
            survive::<kafka::messages::streams_group_describe::StreamsGroupDescribeResponse>,
            survive::<kafka::messages::streams_group_heartbeat::StreamsGroupHeartbeatRequest>,
            survive::<kafka::messages::streams_group_heartbeat::StreamsGroupHeartbeatResponse>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupMetadataKey>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupMetadataValue>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupPartitionMetadataKey>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupMemberMetadataKey>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupMemberMetadataValue>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupTargetAssignmentMetadataKey>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupTargetAssignmentMetadataValue>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupTargetAssignmentMemberKey>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupTargetAssignmentMemberValue>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupCurrentMemberAssignmentKey>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupCurrentMemberAssignmentValue>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupRegularExpressionKey>,
            survive::<kafka::messages::consumer_group_state::ConsumerGroupRegularExpressionValue>,
            survive::<kafka::messages::share_group_members::ShareGroupMemberMetadataKey>,
            survive::<kafka::messages::share_group_members::ShareGroupMemberMetadataValue>,
            survive::<kafka::messages::share_group_members::ShareGroupMetadataKey>,
            survive::<kafka::messages::share_group_members::ShareGroupMetadataValue>,
            survive::<kafka::messages::share_group_members::ShareGroupTargetAssignmentMetadataKey>,
            survive::<kafka::messages::share_group_members::ShareGroupTargetAssignmentMetadataValue>,
            survive::<kafka::messages::share_group_members::ShareGroupTargetAssignmentMemberKey>,
            survive::<kafka::messages::share_group_members::ShareGroupTargetAssignmentMemberValue>,
            survive::<kafka::messages::share_group_members::ShareGroupCurrentMemberAssignmentKey>,
            survive::<kafka::messages::share_group_members::ShareGroupCurrentMemberAssignmentValue>,
            survive::<kafka::messages::share_group_members::ShareGroupStatePartitionMetadataKey>,
            survive::<kafka::messages::share_group_members::ShareGroupStatePartitionMetadataValue>,
            survive::<kafka::messages::share_partition_state::ShareSnapshotKey>,
            survive::<kafka::messages::share_partition_state::ShareSnapshotValue>,
            survive::<kafka::messages::streams_group_state::StreamsGroupMetadataKey>,
            survive::<kafka::messages::streams_group_state::StreamsGroupMetadataValue>,
            survive::<kafka::messages::streams_group_state::StreamsGroupMemberMetadataKey>,
            survive::<kafka::messages::streams_group_state::StreamsGroupMemberMetadataValue>,
            survive::<kafka::messages::streams_group_state::StreamsGroupTargetAssignmentMetadataKey>,
            survive::<kafka::messages::streams_group_state::StreamsGroupTargetAssignmentMetadataValue>,
            survive::<kafka::messages::streams_group_state::StreamsGroupTargetAssignmentMemberKey>,
            survive::<kafka::messages::streams_group_state::StreamsGroupTargetAssignmentMemberValue>,
            survive::<kafka::messages::streams_group_state::StreamsGroupCurrentMemberAssignmentKey>,
            survive::<kafka::messages::streams_group_state::StreamsGroupCurrentMemberAssignmentValue>,
            survive::<kafka::messages::streams_group_state::StreamsGroupTopologyKey>,
            survive::<kafka::messages::streams_group_state::StreamsGroupTopologyValue>,
        ];
    };
}

each_message!(targets);

fuzz_target!(|input: &[u8]| {
    let [which, version, bytes @ ..] = input else {
        return;
    };
    let bytes = Bytes::copy_from_slice(bytes);
    match TARGETS.get(usize::from(*which)) {
        Some(target) => target(&bytes, *version),
        None => _ = RequestHeader::decode(&mut Reader::new(&bytes)),
    }
});
