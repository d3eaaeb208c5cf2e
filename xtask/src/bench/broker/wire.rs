//! Our own loader: requests made once and sent over and over, so that nearly all work is the broker's.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use kafka::frame;
use kafka::messages::Request;
use kafka::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use kafka::messages::delete_topics::DeleteTopicsRequest;
use kafka::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use kafka::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka::record::{BatchBuilder, NewRecord, batches};

use super::sides::Broker;

/// The longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// The longest wait until a load has done everything once: the first record of a partition makes files.
const WARM_MAX: Duration = Duration::from_secs(20);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;
pub(super) const PRODUCE: i16 = 9;
pub(super) const FETCH: i16 = 12;
/// Requests that a connection has in flight, as Apache Kafka's producer by default.
const IN_FLIGHT: usize = 5;
/// Connections of a load.
pub(super) const CONNECTIONS: usize = 4;
/// What one request carries at most, as Apache Kafka's producer by default.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// What a batch carries at most, as Apache Kafka's producer by default.
const BATCH_BYTES: usize = 16 << 10;
/// What an answer to a fetch carries at most, of each partition and in all.
const PARTITION_FETCH_BYTES: i32 = 1 << 20;
const FETCH_BYTES: i32 = 4 << 20;

pub(super) struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub(super) fn to(broker: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(broker).context("could not connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream })
    }

    /// A second handle on the same connection, to read by one thread what another one asks for.
    pub(super) fn clone(&self) -> anyhow::Result<Self> {
        let stream = self.stream.try_clone()?;
        Ok(Self { stream })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> anyhow::Result<R::Response> {
        self.send(&encoded(version, request)?)?;
        let answer = self.receive()?;
        Ok(frame::decode_response::<R>(&answer, version)?.1)
    }

    pub(super) fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(frame).context("could not send")
    }

    pub(super) fn receive(&mut self) -> anyhow::Result<Bytes> {
        let mut length = [0; 4];
        let read = self.stream.read_exact(&mut length);
        read.context("no answer")?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
        ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
        let mut frame = BytesMut::zeroed(length);
        self.stream.read_exact(&mut frame).context("no answer")?;
        Ok(frame.freeze())
    }

    /// Reads an answer to a produce request, all of whose records must have been taken.
    pub(super) fn produced(&mut self) -> anyhow::Result<()> {
        let answer = self.receive()?;
        let (_, answer) = frame::decode_response::<ProduceRequest>(&answer, PRODUCE)?;
        for topic in &answer.responses {
            for partition in &topic.partition_responses {
                let (index, code) = (partition.index, partition.error_code);
                ensure!(code == 0, "partition {index} was refused with error {code}");
            }
        }
        Ok(())
    }
}

/// Returns a whole request as it is sent.
pub(super) fn encoded<R: Request>(version: i16, request: &R) -> anyhow::Result<Vec<u8>> {
    let pieces = frame::encode_request(request, version, 1, Some("bench"))?;
    Ok(pieces.concat())
}

/// Makes a topic unless it is there.
pub(super) fn have_topic(
    broker: &Broker,
    name: &str,
    partitions: i32,
    durable: bool,
) -> anyhow::Result<()> {
    let mut connection = Connection::to(&broker.bootstrap())?;
    match Reading::new(name, &[0])
        .over_and_over()
        .step(&mut connection)
    {
        Ok(_) => Ok(()),
        Err(_) => make_topic(broker, name, partitions, durable),
    }
}

/// Makes a topic. With `durable`, Apache Kafka flushes each append before it answers, as ours does for `acks=all`.
pub(super) fn make_topic(
    broker: &Broker,
    name: &str,
    partitions: i32,
    durable: bool,
) -> anyhow::Result<()> {
    let setting = |name: &str, value: &str| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value.to_owned()),
    };
    let mut configs = vec![setting("file.delete.delay.ms", "0")];
    if durable && matches!(broker, Broker::Apache(_)) {
        configs.push(setting("flush.messages", "1"));
    }
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        configs,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 120_000,
        ..CreateTopicsRequest::default()
    };
    let mut connection = Connection::to(&broker.bootstrap())?;
    let response = connection.ask(5, &request)?;
    let refused = response.topics.iter().find(|topic| topic.error_code != 0);
    if let Some(refused) = refused {
        let code = refused.error_code;
        bail!("topic {name} was refused with error {code}");
    }
    // Apache Kafka answers before its partitions have leaders.
    let everything: Vec<i32> = (0..partitions).collect();
    let begun = Instant::now();
    loop {
        let mut reading = Reading::new(name, &everything).over_and_over();
        match reading.step(&mut connection) {
            Ok(_) => return Ok(()),
            Err(why) if begun.elapsed() > ANSWER_MAX => return Err(why),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

pub(super) fn delete_topic(broker: &Broker, name: &str) -> anyhow::Result<()> {
    let request = DeleteTopicsRequest {
        topic_names: vec![name.to_owned()],
        timeout_ms: 120_000,
        ..DeleteTopicsRequest::default()
    };
    let mut connection = Connection::to(&broker.bootstrap())?;
    let response = connection.ask(4, &request)?;
    for topic in &response.responses {
        let code = topic.error_code;
        ensure!(code == 0, "topic {name} could not be deleted: error {code}");
    }
    Ok(())
}

/// What is sent.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) record_bytes: usize,
    /// Records in a batch; a request has one batch for a partition.
    pub(super) batch_records: usize,
    /// Batches in a request.
    pub(super) request_batches: usize,
    pub(super) acks: i16,
}

impl Shape {
    /// The batches and requests that Apache Kafka's producer makes by default when it is busy.
    pub(super) fn usual(record_bytes: usize, partitions: usize, acks: i16) -> Self {
        let batch_records = (BATCH_BYTES / record_bytes).max(1);
        let fit = REQUEST_BYTES_MAX / (batch_records * record_bytes);
        Self {
            record_bytes,
            batch_records,
            request_batches: partitions.min(12).min(fit),
            acks,
        }
    }

    fn batch(&self) -> Bytes {
        // Bytes that no batch could be squeezed by; the first ones of a simple generator.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let value: Vec<u8> = (0..self.record_bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let now = now.map_or(0, |since| since.as_millis());
        let mut batch = BatchBuilder::default();
        for _ in 0..self.batch_records {
            batch.push(NewRecord {
                timestamp: i64::try_from(now).unwrap_or(0),
                value: Some(&value),
                ..NewRecord::default()
            });
        }
        batch.build()
    }

    /// Returns whole requests that together write to these partitions once, each with the batches in it.
    pub(super) fn requests(
        &self,
        topic: &str,
        partitions: &[i32],
    ) -> anyhow::Result<Vec<(Vec<u8>, u64)>> {
        let batch = self.batch();
        let of = |some: &[i32]| {
            let data = some.iter().map(|index| PartitionProduceData {
                index: *index,
                records: Some(batch.clone()),
            });
            let request = ProduceRequest {
                acks: self.acks,
                timeout_ms: 60_000,
                topic_data: vec![TopicProduceData {
                    name: topic.to_owned(),
                    partition_data: data.collect(),
                    ..TopicProduceData::default()
                }],
                ..ProduceRequest::default()
            };
            Ok((encoded(PRODUCE, &request)?, some.len() as u64))
        };
        partitions.chunks(self.request_batches).map(of).collect()
    }
}

/// What the workers of a load have done so far, and whether they are to go on.
#[derive(Default)]
pub(super) struct Run {
    stop: AtomicBool,
    /// Workers that have done everything once.
    warm: AtomicUsize,
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Run {
    pub(super) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says that a worker has done once all that it does over and over.
    pub(super) fn warmed(&self) {
        self.warm.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends its workers.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A piece of a load; it ends soon after the run ends.
pub(super) type Worker<'a> = Box<dyn FnOnce(&Run) -> anyhow::Result<()> + Send + 'a>;

/// What a load took.
pub(super) struct Window {
    pub(super) cpu: f64,
    pub(super) seconds: f64,
    pub(super) records: f64,
    pub(super) bytes: f64,
    /// CPU seconds of processes that have nothing to do with it.
    pub(super) foreign: f64,
}

impl Window {
    pub(super) fn megabytes_per_cpu(&self) -> f64 {
        self.bytes / 1e6 / self.cpu
    }

    pub(super) fn megabytes_per_second(&self) -> f64 {
        self.bytes / 1e6 / self.seconds
    }

    pub(super) fn microseconds_per_record(&self) -> f64 {
        self.cpu * 1e6 / self.records
    }
}

/// Runs workers until all of them are warm and some time more, and measures between two moments in the midst of it.
pub(super) fn measured(
    broker: &Broker,
    warm: Duration,
    time: Duration,
    workers: Vec<Worker<'_>>,
) -> anyhow::Result<Window> {
    let run = Run::default();
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| scope.spawn(move || worker(run)))
            .collect();
        let begun = Instant::now();
        let all = threads.len();
        while begun.elapsed() < WARM_MAX
            && run.warm.load(Ordering::Relaxed) < all
            && threads.iter().all(|thread| !thread.is_finished())
        {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(warm);
        let mark = || {
            let records = run.records.load(Ordering::Relaxed);
            let bytes = run.bytes.load(Ordering::Relaxed);
            Ok::<_, anyhow::Error>((broker.clock()?, Instant::now(), records, bytes))
        };
        let before = mark();
        thread::sleep(time);
        // Something must have been done, however slow it is.
        let begun = Instant::now();
        let mut after = mark();
        while let (Ok(before), Ok(now)) = (&before, &after)
            && now.2 == before.2
            && begun.elapsed() < WARM_MAX
        {
            thread::sleep(time);
            after = mark();
        }
        run.end();
        for thread in threads {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("a part of the load panicked"))??;
        }
        let (before, after) = (before?, after?);
        let (cpu, foreign) = before.0.until(&after.0);
        ensure!(after.2 > before.2, "nothing was done in {time:?}");
        Ok(Window {
            cpu,
            foreign,
            seconds: (after.1 - before.1).as_secs_f64(),
            records: (after.2 - before.2) as f64,
            bytes: (after.3 - before.3) as f64,
        })
    })
}

/// The partitions of one of the connections: its share, or all where there are too few to share.
pub(super) fn share(partitions: i32, connection: usize) -> Vec<i32> {
    let count = i32::try_from(CONNECTIONS).unwrap_or(1);
    let connection = i32::try_from(connection).unwrap_or(0);
    if partitions < count {
        return (0..partitions).collect();
    }
    (0..partitions)
        .filter(|partition| partition % count == connection)
        .collect()
}

/// Workers that produce as fast as the broker takes it.
pub(super) fn producers<'a>(
    broker: &Broker,
    topic: &'a str,
    partitions: i32,
    shape: Shape,
) -> Vec<Worker<'a>> {
    let producer = |connection| {
        let to = broker.bootstrap();
        let worker = move |run: &Run| {
            let mut connection_to = Connection::to(&to)?;
            let requests = shape.requests(topic, &share(partitions, connection))?;
            let mut flying = std::collections::VecDeque::new();
            let mut answered = 0;
            let mut next = requests.iter().cycle();
            while run.goes_on() || !flying.is_empty() {
                if run.goes_on()
                    && flying.len() < IN_FLIGHT
                    && let Some((request, batches)) = next.next()
                {
                    connection_to.send(request)?;
                    flying.push_back(*batches);
                    continue;
                }
                connection_to.produced()?;
                answered += 1;
                if answered == requests.len() {
                    run.warmed();
                }
                let batches = flying.pop_front().unwrap_or(0);
                let records = batches * shape.batch_records as u64;
                run.count(records, records * shape.record_bytes as u64);
            }
            Ok(())
        };
        Box::new(worker) as Worker<'a>
    };
    (0..CONNECTIONS).map(producer).collect()
}

/// A consumer that keeps its own offsets.
pub(super) struct Reading {
    topic: String,
    /// Partitions with the offset to go on from, those that had records last.
    pub(super) next: Vec<(i32, i64)>,
    starts: HashMap<i32, i64>,
    again: bool,
    wait_ms: i32,
    bytes_max: i32,
}

impl Reading {
    /// From the first records on.
    pub(super) fn new(topic: &str, partitions: &[i32]) -> Self {
        let starts: Vec<_> = partitions.iter().map(|partition| (*partition, 0)).collect();
        Self::from(topic, &starts)
    }

    pub(super) fn from(topic: &str, starts: &[(i32, i64)]) -> Self {
        Self {
            topic: topic.to_owned(),
            next: starts.to_vec(),
            starts: starts.iter().copied().collect(),
            again: false,
            wait_ms: 500,
            bytes_max: FETCH_BYTES,
        }
    }

    /// Waits for nothing.
    pub(super) fn once(mut self) -> Self {
        self.wait_ms = 0;
        self
    }

    /// Begins anew at the end of a partition, and waits for nothing.
    pub(super) fn over_and_over(mut self) -> Self {
        self.again = true;
        self.wait_ms = 0;
        self
    }

    pub(super) fn request(&self) -> FetchRequest {
        let partitions = self.next.iter().map(|(partition, offset)| FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: PARTITION_FETCH_BYTES.min(self.bytes_max),
            ..FetchPartition::default()
        });
        FetchRequest {
            max_wait_ms: self.wait_ms,
            min_bytes: 1,
            max_bytes: self.bytes_max,
            topics: vec![FetchTopic {
                topic: self.topic.clone(),
                partitions: partitions.collect(),
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    /// Fetches once, and returns how many records and bytes came.
    pub(super) fn step(&mut self, connection: &mut Connection) -> anyhow::Result<(u64, u64)> {
        let answer = connection.ask(FETCH, &self.request())?;
        let (mut records, mut bytes) = (0, 0);
        let mut had = Vec::new();
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let (index, code) = (partition.partition_index, partition.error_code);
            ensure!(code == 0, "partition {index} was refused with error {code}");
            let Some(data) = &partition.records else {
                continue;
            };
            let Some(at) = self.next.iter().position(|(next, _)| *next == index) else {
                continue;
            };
            // The last batch may be cut off.
            for batch in batches(data).map_while(Result::ok) {
                let batch_records = u64::try_from(batch.record_count()).unwrap_or(0);
                records += batch_records;
                self.next[at].1 = batch.next_offset();
            }
            if !data.is_empty() {
                bytes += data.len() as u64;
                had.push(index);
            }
            if self.again && self.next[at].1 >= partition.high_watermark {
                self.next[at].1 = self.starts[&index];
            }
        }
        // Whoever had something goes to the end of the line, as real consumers do.
        let (first, last): (Vec<_>, Vec<_>) = self
            .next
            .iter()
            .partition(|(index, _)| !had.contains(index));
        self.next = first.into_iter().chain(last).collect();
        Ok((records, bytes))
    }
}

/// Returns the ends of a topic's partitions.
pub(super) fn ends(
    broker: &Broker,
    topic: &str,
    partitions: i32,
) -> anyhow::Result<Vec<(i32, i64)>> {
    let everything: Vec<i32> = (0..partitions).collect();
    let mut reading = Reading::new(topic, &everything).over_and_over();
    reading.bytes_max = 1;
    let answer = Connection::to(&broker.bootstrap())?.ask(FETCH, &reading.request())?;
    let told = answer.responses.iter().flat_map(|topic| &topic.partitions);
    Ok(told
        .map(|partition| (partition.partition_index, partition.high_watermark))
        .collect())
}

/// Workers that read a topic from the given offsets to its end, over and over, as fast as the broker sends.
pub(super) fn consumers<'a>(
    broker: &Broker,
    topic: &'a str,
    starts: &[(i32, i64)],
) -> Vec<Worker<'a>> {
    let partitions = i32::try_from(starts.len()).unwrap_or(i32::MAX);
    let consumer = |connection| {
        let to = broker.bootstrap();
        let mine = share(partitions, connection);
        let mine = starts.iter().filter(|(index, _)| mine.contains(index));
        let starts: Vec<_> = mine.copied().collect();
        let worker = move |run: &Run| {
            let mut connection_to = Connection::to(&to)?;
            let mut reading = Reading::from(topic, &starts).over_and_over();
            run.warmed();
            while run.goes_on() {
                let (records, bytes) = reading.step(&mut connection_to)?;
                run.count(records, bytes);
            }
            Ok(())
        };
        Box::new(worker) as Worker<'a>
    };
    (0..CONNECTIONS).map(consumer).collect()
}
