//! Tags: only what differs from its default is written, and unknown ones are passed over.
//!
//! Clients with librdkafka before 2.2 skip one byte too few for every tag of ApiVersions that they
//! do not know, so an explicit default locks them out.

use bytes::Bytes;
use expect_test::{Expect, expect};
use kafka::messages::{
    Message,
    api_versions::{ApiVersion, ApiVersionsResponse, FinalizedFeatureKey},
    fetch::{FetchRequest, PartitionData},
};

use crate::{cases, random};

#[track_caller]
fn check(bytes: &Bytes, expected: Expect) {
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    expected.assert_eq(&text.join(" "));
}

#[test]
fn plain_api_versions_answer_has_no_tags() {
    let produce = ApiVersion {
        api_key: 0,
        min_version: 0,
        max_version: 9,
    };
    let answer = ApiVersionsResponse {
        api_keys: vec![produce],
        ..Default::default()
    };
    let bytes = answer.to_bytes(3).expect("v3 is known");
    // No error, one key and no tags in it, throttle time 0, no tags.
    check(
        &bytes,
        expect!["00 00 02 00 00 00 00 00 09 00 00 00 00 00 00"],
    );
}

#[test]
fn set_features_are_tagged_in_order() {
    let feature = FinalizedFeatureKey {
        name: "transaction.version".to_owned(),
        max_version_level: 2,
        min_version_level: 2,
    };
    let answer = ApiVersionsResponse {
        finalized_features: vec![feature],
        finalized_features_epoch: 7,
        ..Default::default()
    };
    let bytes = answer.to_bytes(4).expect("v4 is known");
    check(
        &bytes,
        expect![
            "00 00 01 00 00 00 00 02 01 08 00 00 00 00 00 00 00 07 02 1a 02 14 74 72 61 6e 73 61 63 74 69 6f 6e 2e 76 65 72 73 69 6f 6e 00 02 00 02 00"
        ],
    );
    assert_eq!(ApiVersionsResponse::from_bytes(&bytes, 4), Ok(answer));
}

#[test]
fn defaults_write_no_tag_in_any_message() {
    let tables = random::tables();
    for case in cases::all() {
        let mut messages = tables.iter().flat_map(|file| &file.messages);
        let message = messages
            .find(|message| message.name == case.name)
            .expect("a table");
        let Some(first) = message.flexible else {
            continue;
        };
        for version in first.max(message.versions.first)..=message.versions.last {
            let bytes = (case.default_bytes)(version);
            assert_eq!(bytes.last(), Some(&0), "{} v{version}", case.name);
            let again = (case.ours)(&bytes, version).expect("our own bytes");
            assert_eq!(
                (again.left, again.bytes),
                (0, bytes),
                "{} v{version}",
                case.name
            );
        }
    }
}

#[test]
fn tags_of_older_versions_are_left_out() {
    let request = FetchRequest {
        cluster_id: Some("c".to_owned()),
        ..Default::default()
    };
    let old = FetchRequest::from_bytes(&request.to_bytes(11).expect("v11 is known"), 11);
    assert_eq!(old, Ok(FetchRequest::default()));
    let new = FetchRequest::from_bytes(&request.to_bytes(12).expect("v12 is known"), 12);
    assert_eq!(
        new.map(|request| request.cluster_id),
        Ok(Some("c".to_owned()))
    );
}

#[test]
fn unknown_tags_are_passed_over() {
    let plain = ApiVersionsResponse::default()
        .to_bytes(3)
        .expect("v3 is known");
    let mut tagged = plain.to_vec();
    tagged.pop();
    tagged.extend([2, 1, 8, 0, 0, 0, 0, 0, 0, 0, 5, 0x50, 3, 1, 2, 3]);
    let expected = ApiVersionsResponse {
        finalized_features_epoch: 5,
        ..Default::default()
    };
    assert_eq!(
        ApiVersionsResponse::from_bytes(&tagged.into(), 3),
        Ok(expected)
    );
}

#[test]
fn records_are_slices_of_the_frame_and_pieces_of_the_answer() {
    let records = Bytes::from(vec![7u8; 10_000]);
    let partition = PartitionData {
        records: Some(records.clone()),
        ..Default::default()
    };
    let topic = kafka::messages::fetch::FetchableTopicResponse {
        partitions: vec![partition],
        ..Default::default()
    };
    let answer = kafka::messages::fetch::FetchResponse {
        responses: vec![topic],
        ..Default::default()
    };

    let pieces =
        kafka::frame::encode_response::<FetchRequest>(&answer, 12, 1).expect("v12 is known");
    assert_eq!(pieces.len(), 3);
    assert_eq!(
        pieces[1].as_ptr(),
        records.as_ptr(),
        "written without a copy"
    );

    let frame = Bytes::from(pieces.concat()).slice(4..);
    let (correlation_id, read) =
        kafka::frame::decode_response::<FetchRequest>(&frame, 12).expect("our own bytes");
    assert_eq!((correlation_id, &read), (1, &answer));
    let slice = read.responses[0].partitions[0]
        .records
        .as_ref()
        .expect("records");
    assert!(
        frame.as_ptr_range().contains(&slice.as_ptr()),
        "read without a copy"
    );
}
