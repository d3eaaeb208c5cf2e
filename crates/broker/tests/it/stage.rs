//! A broker in a folder of its own, and a client that says exactly what a test wants said.

use std::net::SocketAddr;
use std::time::Duration;

use broker::{Broker, OpenError, Options};
use bytes::{Bytes, BytesMut};
use kafka::error::ErrorCode;
use kafka::frame;
use kafka::messages::Request;
use kafka::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use kafka::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use kafka::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use kafka::record::{BatchBuilder, NewRecord, Producer, Records, batches};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Stage {
    pub broker: Broker,
    pub address: SocketAddr,
    options: Options,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    folder: TempDir,
}

impl Stage {
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| ()).await
    }

    pub(crate) async fn open_with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options::new(folder.path());
        change(&mut options);
        Self::start(folder, options).await
    }

    async fn start(folder: TempDir, options: Options) -> Self {
        // Tasks of a broker that was abandoned may still be about to end.
        let opened = timeout(LIMIT, async {
            loop {
                match Broker::open(options.clone()).await {
                    Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
                    opened => break opened,
                }
            }
        });
        let broker = opened.await.expect("in time").expect("opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let (serving, ending) = (broker.clone(), stop.clone());
        let serving = tokio::spawn(async move { serving.serve(listener, ending).await });
        Self {
            broker,
            address,
            options,
            stop,
            serving,
            folder,
        }
    }

    /// Stops cleanly and starts again on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.stop.cancel();
        self.serving.await.expect("served to the end");
        self.broker.close().await;
        drop(self.broker);
        Self::start(self.folder, self.options).await
    }

    /// Stops cleanly, has the data directory changed, and starts again.
    pub(crate) async fn closed(self, change: impl FnOnce(&std::path::Path)) -> Self {
        self.stop.cancel();
        self.serving.await.expect("served to the end");
        self.broker.close().await;
        drop(self.broker);
        change(self.folder.path());
        Self::start(self.folder, self.options).await
    }

    /// Starts again on the same data without having closed anything.
    pub(crate) async fn abandon(self) -> Self {
        self.serving.abort();
        _ = self.serving.await; // aborted, as asked
        drop(self.broker);
        Self::start(self.folder, self.options).await
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }
}

pub(crate) struct Client {
    pub stream: TcpStream,
    received: BytesMut,
    next: i32,
}

impl Client {
    /// Connects as soon as somebody listens there.
    pub(crate) async fn await_at(address: SocketAddr) -> Self {
        let connecting = async {
            loop {
                match TcpStream::connect(address).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        Self {
            stream: timeout(LIMIT, connecting).await.expect("a broker in time"),
            received: BytesMut::new(),
            next: 0,
        }
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.expect("connects"),
            received: BytesMut::new(),
            next: 0,
        }
    }

    /// Sends a request and returns its answer, `None` when the broker closes the connection instead.
    pub(crate) async fn try_ask<R: Request>(
        &mut self,
        version: i16,
        request: R,
    ) -> Option<R::Response> {
        self.next += 1;
        let id = self.next;
        let pieces = frame::encode_request(&request, version, id, Some("test"));
        for piece in pieces.expect("encodes") {
            self.stream.write_all(&piece).await.ok()?;
        }
        let frame = self.frame().await?;
        let (found, response) = frame::decode_response::<R>(&frame, version).expect("decodes");
        assert_eq!(found, id, "answers come in the order of requests");
        Some(response)
    }

    /// Sends a request and returns its answer.
    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        let id = self.send(version, request).await;
        self.answer::<R>(version, id).await
    }

    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: R) -> i32 {
        self.next += 1;
        let pieces = frame::encode_request(&request, version, self.next, Some("test"));
        for piece in pieces.expect("encodes") {
            self.stream.write_all(&piece).await.expect("sent");
        }
        self.next
    }

    pub(crate) async fn answer<R: Request>(&mut self, version: i16, id: i32) -> R::Response {
        let frame = self.frame().await.expect("an answer, not the end");
        let (found, response) = frame::decode_response::<R>(&frame, version).expect("decodes");
        assert_eq!(found, id, "answers come in the order of requests");
        response
    }

    /// Returns the next frame, `None` when the broker has closed the connection.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        self.frame_within(LIMIT).await
    }

    /// Returns the next frame, `None` when the broker has closed the connection.
    pub(crate) async fn frame_within(&mut self, limit: Duration) -> Option<Bytes> {
        loop {
            if let Some(frame) = frame::split(&mut self.received, 1 << 28).expect("a frame") {
                return Some(frame);
            }
            let reading = timeout(limit, self.stream.read_buf(&mut self.received));
            match reading.await.expect("an answer in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => (),
            }
        }
    }

    pub(crate) async fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        });
        let topic = CreatableTopic {
            name: topic.to_owned(),
            num_partitions: partitions,
            replication_factor: -1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let response = self.ask(7, request).await;
        assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
    }

    /// Produces bytes to partition 0 of a topic and returns what is told about them.
    pub(crate) async fn produce(
        &mut self,
        version: i16,
        topic: &str,
        acks: i16,
        records: Bytes,
    ) -> PartitionProduceResponse {
        let response = self.ask(version, produce(topic, acks, records)).await;
        response.responses[0].partition_responses[0].clone()
    }

    /// Returns the values from an offset on, with the offset of each.
    pub(crate) async fn values(&mut self, topic: &str, offset: i64) -> Vec<(i64, String)> {
        let response = self.ask(12, fetch(topic, offset, 0, 1 << 20)).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(error(partition.error_code), ErrorCode::None);
        let mut values = Vec::new();
        for batch in batches(partition.records.as_ref().expect("records")) {
            let records = Records::read(&batch.expect("whole"), 1 << 20).expect("reads");
            for record in &records {
                let record = record.expect("whole");
                if record.offset >= offset {
                    let value = record.value.expect("a value");
                    values.push((record.offset, String::from_utf8_lossy(value).into_owned()));
                }
            }
        }
        values
    }
}

pub(crate) fn produce(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

pub(crate) fn fetch(topic: &str, offset: i64, wait_ms: i32, bytes_max: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes: bytes_max,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: bytes_max,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

pub(crate) fn batch(values: &[&str]) -> Bytes {
    stamped(values, now_ms(), None)
}

pub(crate) fn numbered(values: &[&str], id: i64, epoch: i16, base_sequence: i32) -> Bytes {
    let producer = Producer {
        id,
        epoch,
        base_sequence,
    };
    stamped(values, now_ms(), Some(producer))
}

pub(crate) fn stamped(values: &[&str], timestamp: i64, producer: Option<Producer>) -> Bytes {
    let mut builder = BatchBuilder::default();
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for value in values {
        builder.push(NewRecord {
            timestamp,
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        });
    }
    builder.build()
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("not that late")
}

pub(crate) fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).expect("a known error")
}
