//! Share sessions: a member names the partitions that it reads once, and later only what has changed.
//!
//! A session ends with its connection: what the member has then goes to others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kafka::error::ErrorCode;
use kafka::messages::share_fetch::PartitionData;
use parking_lot::Mutex;
use uuid::Uuid;

use super::partitions::Shares;

/// Most sessions at a time (`group.share.max.share.sessions`).
const SESSIONS_MAX: usize = 2000;
/// Most partitions that all sessions may remember.
const PARTITIONS_MAX: usize = 250_000;

/// The epoch of a request that begins a session.
pub(crate) const FIRST: i32 = 0;
/// The epoch of a request that ends one.
pub(crate) const LAST: i32 = -1;

/// A topic and the index of a partition.
pub(crate) type Place = (Uuid, i32);

/// Who has a session: a group and a member.
pub(crate) type Holder = (Arc<str>, Arc<str>);

/// The sessions of all members.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<Holder, Session>,
    /// Of all sessions together.
    partitions: usize,
}

#[derive(Debug)]
struct Session {
    /// What the next request must carry.
    epoch: i32,
    /// The connection that it began on.
    connection: u64,
    /// In the order in which they are read.
    line: BTreeMap<u64, Place>,
    known: HashMap<Place, Known>,
    next: u64,
}

#[derive(Debug)]
struct Known {
    /// Its place in the line.
    at: u64,
    /// The next answer must speak of it, whether there are records or not.
    due: bool,
}

/// What a request does to a session.
#[derive(Debug)]
pub(crate) struct Change {
    pub epoch: i32,
    pub named: Vec<Place>,
    pub forgotten: Vec<Place>,
    /// It brings acknowledgements.
    pub acknowledges: bool,
}

impl Sessions {
    /// Begins a session, goes on with one or ends it; returns what is to be read.
    pub(crate) fn fetch(
        &self,
        holder: &Holder,
        change: Change,
        connection: u64,
    ) -> Result<Vec<Place>, ErrorCode> {
        let mut inner = self.inner.lock();
        match change.epoch {
            LAST => match inner.held.contains_key(holder) {
                true => Ok(Vec::new()),
                false => Err(ErrorCode::ShareSessionNotFound),
            },
            FIRST if change.acknowledges => Err(ErrorCode::InvalidRequest),
            FIRST => {
                inner.remove(holder);
                let mut session = Session {
                    epoch: following(FIRST),
                    connection,
                    line: BTreeMap::new(),
                    known: HashMap::new(),
                    next: 0,
                };
                session.change(&change, false);
                let partitions = inner.partitions + session.line.len();
                if inner.held.len() >= SESSIONS_MAX || partitions > PARTITIONS_MAX {
                    return Err(ErrorCode::ShareSessionLimitReached);
                }
                inner.partitions = partitions;
                let places = session.places();
                inner.held.insert(holder.clone(), session);
                Ok(places)
            }
            _ => {
                let session = inner.at(holder, change.epoch)?;
                let before = session.line.len();
                session.change(&change, true);
                let (after, places) = (session.line.len(), session.places());
                inner.partitions = inner.partitions - before + after;
                if inner.partitions > PARTITIONS_MAX {
                    inner.remove(holder);
                    return Err(ErrorCode::ShareSessionLimitReached);
                }
                Ok(places)
            }
        }
    }

    /// Goes on with a session that only brings acknowledgements.
    pub(crate) fn acknowledge(&self, holder: &Holder, epoch: i32) -> Result<(), ErrorCode> {
        let mut inner = self.inner.lock();
        match epoch {
            FIRST => Err(ErrorCode::InvalidShareSessionEpoch),
            LAST if inner.held.contains_key(holder) => Ok(()),
            LAST => Err(ErrorCode::ShareSessionNotFound),
            _ => inner.at(holder, epoch).map(|_| ()),
        }
    }

    /// Says whether an answer has to speak of a partition, and notes that it does.
    pub(crate) fn tells(&self, holder: &Holder, place: Place, data: &PartitionData) -> bool {
        let failed = data.error_code != ErrorCode::None.code();
        let full = !data.records.is_empty();
        let mut inner = self.inner.lock();
        let Some(session) = inner.held.get_mut(holder) else {
            return true;
        };
        let Some(known) = session.known.get_mut(&place) else {
            return true;
        };
        let due = std::mem::replace(&mut known.due, failed);
        if full {
            // To the end of the line, so that all have their turn.
            session.line.remove(&known.at);
            known.at = session.next;
            session.line.insert(known.at, place);
            session.next += 1;
        }
        due || failed || full
    }

    /// Ends a session; says whether there was one.
    pub(crate) fn end(&self, holder: &Holder) -> bool {
        self.inner.lock().remove(holder)
    }

    /// Ends the sessions that began on a connection, and returns whose they were.
    fn disconnected(&self, connection: u64, holders: Vec<Holder>) -> Vec<Holder> {
        let mut inner = self.inner.lock();
        let mut ended = Vec::new();
        for holder in holders {
            let session = inner.held.get(&holder);
            if session.is_some_and(|session| session.connection == connection) {
                inner.remove(&holder);
                ended.push(holder);
            }
        }
        ended
    }

    /// Returns how many sessions there are.
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().held.len()
    }
}

impl Inner {
    fn remove(&mut self, holder: &Holder) -> bool {
        let session = self.held.remove(holder);
        if let Some(session) = &session {
            self.partitions -= session.line.len();
        }
        session.is_some()
    }

    /// Finds the session and takes it to its next epoch.
    fn at(&mut self, holder: &Holder, epoch: i32) -> Result<&mut Session, ErrorCode> {
        let session = self.held.get_mut(holder);
        let session = session.ok_or(ErrorCode::ShareSessionNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.epoch = following(epoch);
        Ok(session)
    }
}

impl Session {
    fn change(&mut self, change: &Change, due: bool) {
        for place in &change.named {
            if !self.known.contains_key(place) {
                let at = self.next;
                self.known.insert(*place, Known { at, due });
                self.line.insert(at, *place);
                self.next += 1;
            }
        }
        for place in &change.forgotten {
            if let Some(known) = self.known.remove(place) {
                self.line.remove(&known.at);
            }
        }
    }

    fn places(&self) -> Vec<Place> {
        self.line.values().copied().collect()
    }
}

/// Epochs count from 1 to the largest number and begin anew.
fn following(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// The sessions that began on a connection; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    shares: Arc<Shares>,
    holders: Mutex<Vec<Holder>>,
}

impl Connection {
    pub(crate) fn new(shares: Arc<Shares>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            shares,
            holders: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Notes that a session has begun here.
    pub(crate) fn began(&self, holder: &Holder) {
        let mut holders = self.holders.lock();
        if !holders.contains(holder) {
            holders.push(holder.clone());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let holders = std::mem::take(self.holders.get_mut());
        if holders.is_empty() {
            return;
        }
        for holder in self.shares.sessions.disconnected(self.id, holders) {
            self.shares.release(&holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        ("g".into(), "m".into())
    }

    fn change(epoch: i32, named: &[i32], forgotten: &[i32]) -> Change {
        let places = |indexes: &[i32]| indexes.iter().map(|index| (Uuid::nil(), *index)).collect();
        Change {
            epoch,
            named: places(named),
            forgotten: places(forgotten),
            acknowledges: false,
        }
    }

    fn indexes(places: Result<Vec<Place>, ErrorCode>) -> Result<Vec<i32>, ErrorCode> {
        places.map(|places| places.into_iter().map(|place| place.1).collect())
    }

    #[test]
    fn a_session_goes_from_epoch_to_epoch() {
        let sessions = Sessions::default();
        let fetch = |change| indexes(sessions.fetch(&holder(), change, 1));
        assert_eq!(
            fetch(change(1, &[], &[])),
            Err(ErrorCode::ShareSessionNotFound)
        );
        assert_eq!(
            fetch(change(LAST, &[], &[])),
            Err(ErrorCode::ShareSessionNotFound)
        );
        assert_eq!(fetch(change(FIRST, &[0, 1], &[])), Ok(vec![0, 1]));
        assert_eq!(fetch(change(1, &[2], &[0])), Ok(vec![1, 2]));
        assert_eq!(
            fetch(change(1, &[], &[])),
            Err(ErrorCode::InvalidShareSessionEpoch)
        );
        assert_eq!(sessions.acknowledge(&holder(), 2), Ok(()));
        assert_eq!(
            sessions.acknowledge(&holder(), 2),
            Err(ErrorCode::InvalidShareSessionEpoch)
        );
        assert_eq!(
            sessions.acknowledge(&holder(), FIRST),
            Err(ErrorCode::InvalidShareSessionEpoch)
        );
        assert_eq!(fetch(change(3, &[], &[])), Ok(vec![1, 2]));
        assert_eq!(fetch(change(FIRST, &[5], &[])), Ok(vec![5]), "begun anew");
        assert_eq!(fetch(change(LAST, &[], &[])), Ok(vec![]));
        assert!(sessions.end(&holder()));
        assert!(!sessions.end(&holder()));
        let acknowledging = Change {
            acknowledges: true,
            ..change(FIRST, &[0], &[])
        };
        assert_eq!(fetch(acknowledging), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn answers_leave_out_what_says_nothing() {
        let sessions = Sessions::default();
        sessions
            .fetch(&holder(), change(FIRST, &[0], &[]), 1)
            .expect("begins");
        sessions
            .fetch(&holder(), change(1, &[1], &[]), 1)
            .expect("goes on");
        let empty = PartitionData::default();
        let tells =
            |index, data: &PartitionData| sessions.tells(&holder(), (Uuid::nil(), index), data);
        assert!(!tells(0, &empty));
        assert!(tells(1, &empty), "it was named just now");
        assert!(!tells(1, &empty));
        let failed = PartitionData {
            error_code: 3,
            ..PartitionData::default()
        };
        assert!(tells(0, &failed));
        assert!(tells(0, &empty), "the error is gone");
        assert!(!tells(0, &empty));
    }

    #[test]
    fn a_connection_ends_only_its_own_sessions() {
        let sessions = Sessions::default();
        sessions
            .fetch(&holder(), change(FIRST, &[0], &[]), 1)
            .expect("begins");
        sessions
            .fetch(&holder(), change(FIRST, &[0], &[]), 2)
            .expect("begins on another");
        assert_eq!(sessions.disconnected(1, vec![holder()]), vec![]);
        assert_eq!(sessions.disconnected(2, vec![holder()]), vec![holder()]);
        assert_eq!(sessions.count(), 0);
    }
}
