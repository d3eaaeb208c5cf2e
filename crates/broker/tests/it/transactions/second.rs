//! The second version of the protocol (KIP-890): each end raises the epoch, partitions join by themselves.

use super::*;

#[tokio::test]
async fn partitions_join_by_being_written_to() {
    let stage = Stage::open().await;
    let mut reader = stage.client().await;
    reader.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    let (id, epoch) = (writer.producer_id, writer.epoch);
    assert_eq!(writer.produce(12, "t", &["a"]).await, (NONE, 0));
    assert_eq!(writer.produce(12, "t", &["b"]).await, (NONE, 1));
    let ending = writer.ending(true);
    assert_eq!(writer.end(5, true).await, NONE);
    assert_eq!((writer.producer_id, writer.epoch), (id, epoch + 1));
    // The answer was lost: the producer asks again.
    loop {
        let again = writer.client.ask(5, ending.clone()).await;
        match error(again.error_code) {
            ErrorCode::ConcurrentTransactions => continue,
            code => assert_eq!(code, NONE),
        }
        assert_eq!((again.producer_id, again.producer_epoch), (id, epoch + 1));
        break;
    }
    assert_eq!(await_visible(&mut reader, "t", 3).await, ["a", "b"]);
    // What is late from the transaction before cannot get into the next one.
    let mut late = Writer::start(&stage, "other").await;
    (late.id, late.producer_id, late.epoch, late.sequence) = ("w", id, epoch, 2);
    assert_eq!(
        late.produce(12, "t", &["late"]).await.0,
        ErrorCode::InvalidProducerEpoch
    );
    assert_eq!(writer.produce(12, "t", &["c"]).await, (NONE, 3));
    assert_eq!(late.end(5, false).await, ErrorCode::ProducerFenced);
    assert_eq!(writer.end(5, false).await, NONE);
    assert_eq!(writer.epoch, epoch + 2);
    assert_eq!(await_visible(&mut reader, "t", 5).await, ["a", "b"]);
}

#[tokio::test]
async fn a_producer_may_abort_what_it_has_not_begun() {
    let stage = Stage::open().await;
    let mut writer = Writer::start(&stage, "w").await;
    let epoch = writer.epoch;
    assert_eq!(writer.end(5, true).await, ErrorCode::InvalidTxnState);
    for number in 1..4 {
        let code = loop {
            match writer.end(5, false).await {
                ErrorCode::ConcurrentTransactions => continue,
                code => break code,
            }
        };
        assert_eq!((code, writer.epoch), (NONE, epoch + number));
    }
}

#[tokio::test]
async fn requests_in_flight_keep_their_order_while_partitions_join() {
    let stage = Stage::open().await;
    let mut reader = stage.client().await;
    reader.create("t", 1, &[]).await;
    reader.create("u", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    let mut expected = Vec::new();
    for round in 0..5 {
        let mut sent = Vec::new();
        for number in 0..20 {
            let value = format!("{round}.{number}");
            let topic = if number % 3 == 2 { "u" } else { "t" };
            let mut request = writer.request(topic, &[&value]);
            if topic == "t" {
                writer.sequence += 1;
                expected.push(value);
            } else {
                // Each partition has its own sequence.
                let sequence = std::mem::replace(&mut writer.sequence, number / 3);
                request = writer.request(topic, &[&value]);
                writer.sequence = sequence;
            }
            sent.push(writer.client.send(12, request).await);
        }
        for id in sent {
            let answer = writer.client.answer::<ProduceRequest>(12, id).await;
            let one = &answer.responses[0].partition_responses[0];
            assert_eq!(error(one.error_code), NONE, "{:?}", one.error_message);
        }
        assert_eq!(writer.end(5, true).await, NONE);
    }
    assert_eq!(await_visible(&mut reader, "t", 5 * 15).await, expected);
}

#[tokio::test]
async fn many_transactions_are_asked_about_at_once() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    let mut one = Writer::start(&stage, "one").await;
    let two = Writer::start(&stage, "two").await;
    one.write("t", &["a"]).await;
    let about =
        |writer: &Writer, epoch, verify_only, partitions: &[i32]| AddPartitionsToTxnTransaction {
            transactional_id: writer.id.into(),
            producer_id: writer.producer_id,
            producer_epoch: epoch,
            verify_only,
            topics: vec![AddPartitionsToTxnTopic {
                name: "t".into(),
                partitions: partitions.to_vec(),
            }],
        };
    let request = AddPartitionsToTxnRequest {
        transactions: vec![
            about(&one, one.epoch, true, &[0, 1]),
            about(&one, one.epoch - 1, true, &[0]),
            about(&two, two.epoch, true, &[0]),
            about(&two, two.epoch, false, &[0, 1]),
            about(&two, two.epoch, true, &[1]),
        ],
        ..AddPartitionsToTxnRequest::default()
    };
    let answer = client.ask(5, request).await;
    assert_eq!(error(answer.error_code), NONE);
    let told: Vec<Vec<ErrorCode>> = answer
        .results_by_transaction
        .iter()
        .map(|one| {
            let partitions = one
                .topic_results
                .iter()
                .flat_map(|topic| &topic.results_by_partition);
            partitions
                .map(|one| error(one.partition_error_code))
                .collect()
        })
        .collect();
    let expected = [
        vec![NONE, ErrorCode::TransactionAbortable],
        vec![ErrorCode::ProducerFenced],
        vec![ErrorCode::TransactionAbortable],
        vec![NONE, NONE],
        vec![NONE],
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn clients_are_told_to_speak_it() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    for version in [3, 4] {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..ApiVersionsRequest::default()
        };
        let answer = client.ask(version, request).await;
        let [.., feature] = &answer.finalized_features[..] else {
            panic!("{answer:?}")
        };
        assert_eq!(
            (&*feature.name, feature.max_version_level),
            ("transaction.version", 2)
        );
        assert_eq!(answer.finalized_features_epoch, 0);
        // Features that can be off are told to those only who understand it.
        let supported = if version >= 4 { 4 } else { 0 };
        assert_eq!(answer.supported_features.len(), supported);
    }
}
