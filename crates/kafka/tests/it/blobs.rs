//! Blobs that clients and brokers store: subscriptions, assignments, group state.

use bytes::Bytes;
use kafka::{
    messages::{
        Message,
        consumer_protocol::ConsumerProtocolSubscription,
        group_state::{
            GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey,
            OffsetCommitValue,
        },
        transaction_state::{TransactionLogKey, TransactionLogValue},
    },
    wire::DecodeError,
};

use crate::{random, table::Versions};

#[test]
fn a_subscription_starts_with_its_version() {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["a".to_owned()],
        ..Default::default()
    };
    let bytes = subscription.to_versioned(1).expect("v1 is known");
    assert_eq!(
        &bytes[..],
        [
            0, 1, 0, 0, 0, 1, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0
        ]
    );
    assert_eq!(
        ConsumerProtocolSubscription::from_versioned(&bytes),
        Ok(subscription)
    );
}

#[test]
fn a_subscription_of_the_future_is_read_as_far_as_it_is_known() {
    let subscription = ConsumerProtocolSubscription {
        rack_id: Some("r".to_owned()),
        ..Default::default()
    };
    let mut bytes = subscription.to_versioned(3).expect("v3 is known").to_vec();
    bytes[1] = 9;
    bytes.extend([1, 2, 3]);
    assert_eq!(
        ConsumerProtocolSubscription::from_versioned(&bytes.into()),
        Ok(subscription)
    );
    let negative = Bytes::from_static(&[0xff, 0xff, 0, 0, 0, 0]);
    assert!(matches!(
        ConsumerProtocolSubscription::from_versioned(&negative),
        Err(DecodeError::Version { version: -1, .. })
    ));
}

#[test]
fn a_committed_offset_is_stored_as_kafka_stores_it() {
    let key = OffsetCommitKey {
        group: "g".to_owned(),
        topic: "t".to_owned(),
        partition: 3,
    };
    let bytes = key.to_versioned(1).expect("v1 is known");
    assert_eq!(&bytes[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]);

    let value = OffsetCommitValue {
        offset: 5,
        leader_epoch: 2,
        metadata: "m".to_owned(),
        commit_timestamp: 9,
        ..Default::default()
    };
    let bytes = value.to_versioned(3).expect("v3 is known");
    assert_eq!(
        &bytes[..],
        [
            0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 9
        ]
    );
    assert_eq!(OffsetCommitValue::from_versioned(&bytes), Ok(value));
}

#[test]
fn a_group_is_stored_as_kafka_stores_it() {
    let key = GroupMetadataKey {
        group: "g".to_owned(),
    };
    assert_eq!(
        &key.to_versioned(2).expect("v2 is known")[..],
        [0, 2, 0, 1, b'g']
    );

    let member = MemberMetadata {
        member_id: "m".to_owned(),
        client_id: "c".to_owned(),
        client_host: "h".to_owned(),
        rebalance_timeout: 1,
        session_timeout: 2,
        subscription: Bytes::from_static(&[7]),
        ..Default::default()
    };
    let value = GroupMetadataValue {
        protocol_type: "p".to_owned(),
        generation: 4,
        protocol: None,
        leader: Some("m".to_owned()),
        current_state_timestamp: 6,
        members: vec![member],
    };
    let bytes = value.to_versioned(3).expect("v3 is known");
    #[rustfmt::skip]
    let expected = [
        0, 3, // version
        0, 1, b'p', 0, 0, 0, 4, 0xff, 0xff, 0, 1, b'm', // type, generation, protocol, leader
        0, 0, 0, 0, 0, 0, 0, 6, // timestamp
        0, 0, 0, 1, 0, 1, b'm', 0xff, 0xff, 0, 1, b'c', 0, 1, b'h', // one member
        0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 7, 0, 0, 0, 0, // timeouts, subscription, assignment
    ];
    assert_eq!(&bytes[..], expected);
    assert_eq!(GroupMetadataValue::from_versioned(&bytes), Ok(value));
}

#[test]
fn stored_values_survive_in_every_version() {
    fn survive<T: Message>() {
        let tables = random::tables();
        let mut messages = tables.iter().flat_map(|file| &file.messages);
        let message = messages
            .find(|message| message.name == T::NAME)
            .expect("a table");
        let Versions { first, last } = message.versions;
        for version in first..=last {
            for seed in 1..20 {
                let bytes = random::bytes(message, version, seed);
                let value = T::from_bytes(&bytes, version).expect("well formed");
                assert_eq!(value.to_bytes(version), Ok(bytes), "{} v{version}", T::NAME);
            }
        }
    }
    survive::<OffsetCommitKey>();
    survive::<OffsetCommitValue>();
    survive::<GroupMetadataKey>();
    survive::<GroupMetadataValue>();
    survive::<TransactionLogKey>();
    survive::<TransactionLogValue>();
}
