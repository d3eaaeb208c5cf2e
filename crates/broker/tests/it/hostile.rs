//! What no client should send: the connection ends, the broker goes on.

use bytes::{BufMut, Bytes, BytesMut};
use kafka::error::ErrorCode;
use kafka::messages::ApiKey;
use kafka::messages::Message;
use kafka::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use kafka::messages::metadata::MetadataRequest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt;

use crate::stage::{Stage, batch, error, produce};

/// A frame that asks for `key` at `version`, in the form that versions without tags have.
fn head(key: i16, version: i16, rest: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(10 + i32::try_from(rest.len()).expect("short"));
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(7);
    frame.put_i16(-1);
    frame.put_slice(rest);
    frame.freeze()
}

async fn closes(stage: &Stage, bytes: &[u8]) {
    let mut client = stage.client().await;
    client.stream.write_all(bytes).await.expect("sent");
    assert_eq!(client.frame().await, None, "{bytes:02x?}");
}

#[tokio::test]
async fn what_is_unknown_ends_the_connection() {
    let stage = Stage::open().await;
    closes(&stage, &head(999, 0, b"")).await;
    closes(&stage, &head(-1, 0, b"")).await;
    closes(&stage, &head(ApiKey::Metadata as i16, 99, b"")).await;
    // Offered so that old clients compress, but not there.
    closes(&stage, &head(ApiKey::Produce as i16, 2, b"")).await;
    // Known to the codec, not offered.
    closes(&stage, &head(ApiKey::EndTxn as i16, 0, b"")).await;
    closes(&stage, &i32::MAX.to_be_bytes()).await;
    closes(&stage, &(-5i32).to_be_bytes()).await;
    closes(
        &stage,
        &head(ApiKey::Metadata as i16, 1, &[0x7f, 0xff, 0xff, 0xff]),
    )
    .await;
}

#[tokio::test]
async fn a_version_of_api_versions_that_is_too_new_is_answered_in_version_0() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    let asking = head(ApiKey::ApiVersions as i16, 99, b"\0rubbish");
    client.stream.write_all(&asking).await.expect("sent");
    let frame = client.frame().await.expect("an answer");
    let answer = ApiVersionsResponse::from_bytes(&frame.slice(4..), 0).expect("version 0");
    assert_eq!(error(answer.error_code), ErrorCode::UnsupportedVersion);
    let [offered] = &answer.api_keys[..] else {
        panic!("one range")
    };
    assert_eq!(
        (offered.api_key, offered.min_version, offered.max_version),
        (18, 0, 4)
    );
    // The same connection goes on with a version that is known.
    let answer = client.ask(3, ApiVersionsRequest::default()).await;
    assert_eq!(error(answer.error_code), ErrorCode::None);
    let produce = answer.api_keys.iter().find(|offered| offered.api_key == 0);
    assert_eq!(produce.expect("produce").min_version, 0);
}

#[tokio::test]
async fn random_frames_do_no_harm() {
    let stage = Stage::open().await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..300 {
        let api = ApiKey::ALL[random.random_range(0..ApiKey::ALL.len())];
        let version = random.random_range(0..=*api.versions().end());
        let mut rest = vec![0; random.random_range(0..60)];
        random.fill(&mut rest[..]);
        let mut client = stage.client().await;
        client
            .stream
            .write_all(&head(api as i16, version, &rest))
            .await
            .expect("sent");
        client.stream.shutdown().await.expect("closed our side");
        while client.frame().await.is_some() {}
    }
    let mut client = stage.client().await;
    client.ask(9, MetadataRequest::default()).await;
}

#[tokio::test]
async fn an_acks_0_producer_hears_nothing_and_loses_the_connection_on_errors() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    client.send(9, produce("t", 0, batch(&["one"]))).await;
    // The next answer on this connection belongs to the next request.
    client.ask(9, MetadataRequest::default()).await;
    assert_eq!(client.values("t", 0).await, [(0, "one".to_owned())]);
    client.send(9, produce("nowhere", 0, batch(&["two"]))).await;
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn too_many_connections_are_refused() {
    let stage = Stage::open_with(|options| options.limits.connections_max = 1).await;
    let mut first = stage.client().await;
    first.ask(9, MetadataRequest::default()).await;
    let mut second = stage.client().await;
    assert_eq!(second.frame().await, None);
    first.ask(9, MetadataRequest::default()).await;
}
