//! Fetch sessions (KIP-227): a client names its partitions once, and later only what has changed.
//!
//! The answers of a session leave out partitions about which there is nothing new. Partitions that had records go to the end
//! of the line, so that a small `max_bytes` is shared out fairly.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka::error::ErrorCode;
use kafka::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use parking_lot::Mutex;
use rand::RngExt;
use tokio::time::Instant;
use uuid::Uuid;

/// Most sessions at a time (`max.incremental.fetch.session.cache.slots`).
const SESSIONS_MAX: usize = 1000;
/// Most partitions that all sessions may remember.
const PARTITIONS_MAX: usize = 250_000;
/// No topic has a longer name, so no session remembers one.
const NAME_BYTES_MAX: usize = 249;
/// A session may make way for a new one when it was not used for so long (`min.incremental.fetch.session.eviction.ms`).
const IDLE_MIN: Duration = Duration::from_secs(120);

/// The epoch of a request that wants a session and names everything.
const FIRST: i32 = 0;
/// The epoch of a request that wants none, or ends the one that it names.
const NONE: i32 = -1;

/// The sessions of all clients.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    sessions: HashMap<i32, Entry>,
    /// Of all sessions together.
    partitions: usize,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    partitions: usize,
}

#[derive(Debug)]
struct Session {
    id: i32,
    /// Topics are known by their ids; a session has ids or names, never both.
    by_id: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the next request must carry.
    epoch: i32,
    used: Instant,
    /// In the order in which they are read.
    line: BTreeMap<u64, Known>,
    places: HashMap<Place, u64>,
    next: u64,
}

/// Topic (name or id) and partition.
type Place = (Topic, i32);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Topic {
    Id(Uuid),
    Name(Arc<str>),
}

/// A partition that a session knows.
#[derive(Debug)]
struct Known {
    topic: Topic,
    asked: FetchPartition,
    /// As the client was told last.
    told: Option<(i64, i64)>,
}

/// What a request has to do with a session.
#[derive(Debug)]
pub(super) enum Context {
    /// Nothing.
    Without,
    /// It wants a new one.
    New {
        by_id: bool,
        topics: Vec<FetchTopic>,
    },
    /// It goes on with one.
    Goes { session: Running },
}

/// A session in the middle of a request.
#[derive(Debug)]
pub(super) struct Running {
    session: Arc<Session>,
    /// The session's epoch when the answer is due, if nobody else has used it.
    epoch: i32,
}

impl Sessions {
    /// Finds or ends the session that a request names, and puts all of the session's partitions into the request.
    pub(super) fn begin(
        &self,
        version: i16,
        request: &mut FetchRequest,
    ) -> Result<Context, ErrorCode> {
        let by_id = version >= 13;
        let named = |topic: &FetchTopic| topic.topic.len() <= NAME_BYTES_MAX;
        if request.session_epoch != NONE && !request.topics.iter().all(named) {
            return Err(ErrorCode::InvalidRequest);
        }
        match request.session_epoch {
            NONE | FIRST => {
                if request.session_id != 0 {
                    self.cache.lock().remove(request.session_id);
                }
                if request.session_epoch == NONE || request.topics.is_empty() {
                    return Ok(Context::Without);
                }
                let topics = request.topics.clone();
                Ok(Context::New { by_id, topics })
            }
            epoch => {
                let mut cache = self.cache.lock();
                let session = cache
                    .sessions
                    .get(&request.session_id)
                    .map(|entry| entry.session.clone())
                    .ok_or(ErrorCode::FetchSessionIdNotFound)?;
                if session.by_id != by_id {
                    return Err(ErrorCode::FetchSessionTopicIdError);
                }
                let mut state = session.state.lock();
                if state.epoch != epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                state.change(by_id, request);
                cache.resize(session.id, state.line.len());
                if state.line.is_empty() {
                    cache.remove(session.id);
                    return Ok(Context::Without);
                }
                if cache.partitions > PARTITIONS_MAX {
                    cache.remove(session.id);
                }
                request.topics = state.topics();
                state.epoch = following(epoch);
                state.used = Instant::now();
                let epoch = state.epoch;
                drop(state);
                let session = Running { session, epoch };
                Ok(Context::Goes { session })
            }
        }
    }

    /// Makes the session that was asked for, or takes out of the answer what the client knows.
    pub(super) fn finish(&self, context: Context, response: &mut FetchResponse) {
        match context {
            Context::Without => (),
            Context::New { by_id, topics } => {
                response.session_id = self.create(by_id, topics, response).unwrap_or(0);
            }
            Context::Goes { session } => {
                let Running { session, epoch } = session;
                response.session_id = session.id;
                let mut state = session.state.lock();
                if state.epoch == epoch {
                    state.tell(session.by_id, response);
                }
            }
        }
    }

    /// Returns the id of a new session, or nothing when there is no room.
    fn create(
        &self,
        by_id: bool,
        topics: Vec<FetchTopic>,
        response: &FetchResponse,
    ) -> Option<i32> {
        let mut state = State {
            epoch: following(FIRST),
            used: Instant::now(),
            line: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
        };
        for topic in topics {
            let name = Topic::of(by_id, &topic.topic, topic.topic_id);
            for partition in topic.partitions {
                state.put(name.clone(), partition);
            }
        }
        for topic in &response.responses {
            let name = Topic::of(by_id, &topic.topic, topic.topic_id);
            for data in &topic.partitions {
                state.note(&(name.clone(), data.partition_index), data);
            }
        }
        let mut cache = self.cache.lock();
        if cache.sessions.len() >= SESSIONS_MAX {
            let oldest = cache.idle(state.used)?;
            cache.remove(oldest);
        }
        if cache.partitions + state.line.len() > PARTITIONS_MAX {
            return None;
        }
        let id = loop {
            let id = rand::rng().random_range(1..i32::MAX);
            if !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        let partitions = state.line.len();
        let session = Arc::new(Session {
            id,
            by_id,
            state: Mutex::new(state),
        });
        cache.partitions += partitions;
        let entry = Entry {
            session,
            partitions,
        };
        cache.sessions.insert(id, entry);
        Some(id)
    }
}

/// Epochs count from 1 to the largest number and begin anew.
fn following(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(entry) = self.sessions.remove(&id) {
            self.partitions -= entry.partitions;
        }
    }

    fn resize(&mut self, id: i32, partitions: usize) {
        if let Some(entry) = self.sessions.get_mut(&id) {
            self.partitions = self.partitions - entry.partitions + partitions;
            entry.partitions = partitions;
        }
    }

    /// Returns the session that was not used for the longest time, if that is long enough.
    fn idle(&self, now: Instant) -> Option<i32> {
        let used = self
            .sessions
            .values()
            .map(|entry| (entry.session.state.lock().used, entry.session.id));
        let (used, id) = used.min()?;
        (now.duration_since(used) >= IDLE_MIN).then_some(id)
    }
}

impl Topic {
    fn of(by_id: bool, name: &str, id: Uuid) -> Topic {
        match by_id {
            true => Topic::Id(id),
            false => Topic::Name(name.into()),
        }
    }
}

impl State {
    /// Takes in what a request names anew, otherwise, or no longer.
    fn change(&mut self, by_id: bool, request: &mut FetchRequest) {
        for topic in std::mem::take(&mut request.topics) {
            let name = Topic::of(by_id, &topic.topic, topic.topic_id);
            for partition in topic.partitions {
                self.put(name.clone(), partition);
            }
        }
        for topic in std::mem::take(&mut request.forgotten_topics_data) {
            let name = Topic::of(by_id, &topic.topic, topic.topic_id);
            for partition in topic.partitions {
                if let Some(at) = self.places.remove(&(name.clone(), partition)) {
                    self.line.remove(&at);
                }
            }
        }
    }

    fn put(&mut self, topic: Topic, asked: FetchPartition) {
        let place = (topic.clone(), asked.partition);
        if let Some(known) = self.places.get(&place).and_then(|at| self.line.get_mut(at)) {
            known.asked = asked;
            return;
        }
        self.places.insert(place, self.next);
        let known = Known {
            topic,
            asked,
            told: None,
        };
        self.line.insert(self.next, known);
        self.next += 1;
    }

    /// Returns everything that is to be read, in order.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut last = None;
        for known in self.line.values() {
            if last != Some(&known.topic) {
                let (topic, topic_id) = match &known.topic {
                    Topic::Id(id) => (String::new(), *id),
                    Topic::Name(name) => (name.to_string(), Uuid::nil()),
                };
                topics.push(FetchTopic {
                    topic,
                    topic_id,
                    ..FetchTopic::default()
                });
                last = Some(&known.topic);
            }
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(known.asked.clone());
            }
        }
        topics
    }

    /// Leaves in the answer what is new to the client, and remembers it.
    fn tell(&mut self, by_id: bool, response: &mut FetchResponse) {
        for topic in &mut response.responses {
            let name = Topic::of(by_id, &topic.topic, topic.topic_id);
            topic
                .partitions
                .retain(|data| self.note(&(name.clone(), data.partition_index), data));
        }
        response
            .responses
            .retain(|topic| !topic.partitions.is_empty());
    }

    /// Remembers what is told of a partition, and returns whether it has to be told.
    fn note(&mut self, place: &Place, data: &PartitionData) -> bool {
        let Some(at) = self.places.get(place).copied() else {
            return true;
        };
        let Some(mut known) = self.line.remove(&at) else {
            return true;
        };
        let failed = data.error_code != ErrorCode::None.code();
        let marks = (data.high_watermark, data.log_start_offset);
        let records = data.records.as_ref().is_some_and(|bytes| !bytes.is_empty());
        let new = failed
            || records
            || known.told != Some(marks)
            || data.diverging_epoch != Default::default();
        // What failed is told again, also when it is well again.
        known.told = (!failed).then_some(marks);
        let at = match records {
            true => {
                self.next += 1;
                self.next - 1
            }
            false => at,
        };
        self.places.insert(place.clone(), at);
        self.line.insert(at, known);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(session_id: i32, session_epoch: i32, topic: &str, partitions: i32) -> FetchRequest {
        let partition = |partition| FetchPartition {
            partition,
            ..FetchPartition::default()
        };
        FetchRequest {
            session_id,
            session_epoch,
            topics: vec![FetchTopic {
                topic: topic.to_owned(),
                partitions: (0..partitions).map(partition).collect(),
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    fn open(sessions: &Sessions, partitions: i32) -> i32 {
        let mut request = asking(0, FIRST, "t", partitions);
        let context = sessions.begin(12, &mut request).expect("a new session");
        let mut response = FetchResponse::default();
        sessions.finish(context, &mut response);
        response.session_id
    }

    #[test]
    fn sessions_are_bounded_by_number_and_by_partitions() {
        let sessions = Sessions::default();
        for _ in 0..SESSIONS_MAX {
            assert_ne!(open(&sessions, 1), 0);
        }
        assert_eq!(open(&sessions, 1), 0, "nobody was idle for long enough");
        let sessions = Sessions::default();
        let most = i32::try_from(PARTITIONS_MAX).expect("fits");
        let id = open(&sessions, most);
        assert_ne!(id, 0);
        assert_eq!(open(&sessions, 1), 0);
        // Ending it makes room.
        let mut end = asking(id, NONE, "t", 0);
        sessions.begin(12, &mut end).expect("ends");
        assert_ne!(open(&sessions, 1), 0);
        assert_eq!(sessions.cache.lock().partitions, 1);
    }

    #[test]
    fn no_session_remembers_a_name_that_no_topic_has() {
        let sessions = Sessions::default();
        let mut request = asking(0, FIRST, &"n".repeat(NAME_BYTES_MAX + 1), 1);
        let refused = sessions.begin(12, &mut request);
        assert_eq!(refused.err(), Some(ErrorCode::InvalidRequest));
    }

    #[test]
    fn what_had_records_goes_to_the_end_of_the_line() {
        let sessions = Sessions::default();
        let id = open(&sessions, 3);
        let mut request = FetchRequest {
            topics: Vec::new(),
            ..asking(id, 1, "t", 0)
        };
        let context = sessions.begin(12, &mut request).expect("goes on");
        let told = |partition_index, records: &'static [u8]| PartitionData {
            partition_index,
            records: Some(bytes::Bytes::from_static(records)),
            ..PartitionData::default()
        };
        let mut response = FetchResponse {
            responses: vec![kafka::messages::fetch::FetchableTopicResponse {
                topic: "t".to_owned(),
                partitions: vec![told(0, b"x"), told(1, b""), told(2, b"")],
                ..Default::default()
            }],
            ..FetchResponse::default()
        };
        sessions.finish(context, &mut response);
        let mut request = FetchRequest {
            topics: Vec::new(),
            ..asking(id, 2, "t", 0)
        };
        sessions.begin(12, &mut request).expect("goes on");
        let order: Vec<i32> = request.topics[0]
            .partitions
            .iter()
            .map(|one| one.partition)
            .collect();
        assert_eq!(order, [1, 2, 0]);
    }
}
