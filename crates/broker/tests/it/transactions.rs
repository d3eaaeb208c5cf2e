//! Transactions on the wire.

use kafka::messages::describe_producers::{DescribeProducersRequest, TopicRequest};

use kafka::error::ErrorCode;

use crate::stage::{Stage, error, numbered};

#[tokio::test]
async fn producers_are_described() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    for sequence in [0, 2] {
        let records = numbered(&["a", "b"], 7, 3, sequence);
        client.produce(9, "t", -1, records).await;
    }
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: "t".into(),
            partition_indexes: vec![0, 1],
        }],
    };
    let answer = client.ask(0, request).await;
    let [known, unknown] = &answer.topics[0].partitions[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(
        error(unknown.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let [producer] = &known.active_producers[..] else {
        panic!("{known:?}")
    };
    let (id, epoch, sequence) = (
        producer.producer_id,
        producer.producer_epoch,
        producer.last_sequence,
    );
    assert_eq!((id, epoch, sequence), (7, 3, 3));
    assert_eq!(producer.current_txn_start_offset, -1);
}
