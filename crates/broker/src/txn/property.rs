//! Whatever is asked in whatever order, with steps lost and restarts between: what was decided stays decided,
//! and no two producers ever hold the same id and epoch.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::machine::{End, Next, Start, Transaction, identity};
use super::schema;
use super::terms::{EPOCH_MAX, Metadata, Refusal, State, Version};
use crate::group::coordinator::Place;

const CLIENTS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Start {
        client: usize,
        expects: bool,
    },
    Add {
        client: usize,
        place: i32,
        second: bool,
    },
    Verify {
        client: usize,
        place: i32,
    },
    End {
        client: usize,
        commit: bool,
        second: bool,
    },
    Written,
    Wait(i64),
    Stored(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        2 => (client.clone(), any::<bool>()).prop_map(|(client, expects)| Step::Start { client, expects }),
        6 => (client.clone(), 0..3, any::<bool>())
            .prop_map(|(client, place, second)| Step::Add { client, place, second }),
        3 => (client.clone(), 0..3).prop_map(|(client, place)| Step::Verify { client, place }),
        5 => (client, any::<bool>(), any::<bool>())
            .prop_map(|(client, commit, second)| Step::End { client, commit, second }),
        5 => Just(Step::Written),
        2 => (1..300i64).prop_map(Step::Wait),
        12 => prop::bool::weighted(0.9).prop_map(Step::Stored),
        1 => Just(Step::Restart),
    ]
}

/// What follows when a step is stored.
#[derive(Debug, Clone, Copy)]
enum Then {
    Starts(usize),
    Ends(usize),
    Nothing,
}

struct World {
    now: i64,
    transaction: Transaction,
    durable: Option<Metadata>,
    storing: Option<(Metadata, Then)>,
    /// The id and epoch of each client.
    clients: [(i64, i16); CLIENTS],
    /// Who was given an id and an epoch.
    given: Vec<((i64, i16), usize)>,
    fresh: i64,
}

impl World {
    fn new(epoch: i16) -> World {
        let mut transaction = Transaction::new(1, 0);
        if epoch >= 0 {
            let known = Metadata {
                epoch,
                timeout_ms: 200,
                ..transaction.metadata().clone()
            };
            transaction = Transaction::restore(known);
        }
        World {
            now: 1000,
            durable: Some(transaction.metadata().clone()),
            transaction,
            storing: None,
            clients: [(-1, -1); CLIENTS],
            given: Vec::new(),
            fresh: 1,
        }
    }

    fn store(&mut self, next: Metadata, then: Then) {
        assert!(self.storing.is_none(), "one step at a time");
        let ours = self.transaction.metadata();
        assert!(may_follow(ours, &next), "{ours:?}\n{next:?}");
        self.transaction.begin(&next);
        self.storing = Some((next, then));
    }

    fn play(&mut self, step: Step) {
        self.fresh += 1;
        let fresh = Some(self.fresh);
        let ours = self.transaction.metadata().clone();
        let now = self.now;
        match step {
            Step::Start { client, expects } => {
                let (id, epoch) = self.clients[client];
                let expected = (expects && id >= 0).then_some((id, epoch));
                match self.transaction.start(now, 200, expected, fresh) {
                    Ok(Start::Store(next)) => self.store(next, Then::Starts(client)),
                    Ok(Start::Abort(next)) => self.store(next, Then::Nothing),
                    Err(refusal) => self.refused(refusal),
                }
            }
            Step::Add {
                client,
                place,
                second,
            } => {
                let (id, epoch) = self.clients[client];
                let places = BTreeSet::from([place_of(place)]);
                match self
                    .transaction
                    .add(now, id, epoch, &places, version(second))
                {
                    Ok(Next::Store(next)) => {
                        self.owner(client);
                        assert!(next.places.contains(&place_of(place)));
                        self.store(next, Then::Nothing);
                    }
                    Ok(Next::Done) => self.owner(client),
                    Err(refusal) => self.refused(refusal),
                }
            }
            Step::Verify { client, place } => {
                let (id, epoch) = self.clients[client];
                let verified = self.transaction.verify(id, epoch, &place_of(place));
                let inside = ours.state == State::Ongoing && ours.places.contains(&place_of(place));
                if verified.is_ok() {
                    self.owner(client);
                    assert!(inside);
                }
            }
            Step::End {
                client,
                commit,
                second,
            } => {
                let (producer_id, epoch) = self.clients[client];
                let end = End {
                    producer_id,
                    epoch,
                    commit,
                    version: version(second),
                };
                match self.transaction.end(now, end, fresh) {
                    Ok(Next::Store(next)) => {
                        self.owner(client);
                        self.store(next, Then::Ends(client));
                    }
                    Ok(Next::Done) => {
                        let done = match commit {
                            true => State::CompleteCommit,
                            false => State::CompleteAbort,
                        };
                        assert_eq!(ours.state, done, "only what is so can be done before");
                        self.clients[client] = identity(&ours);
                    }
                    Err(refusal) => self.refused(refusal),
                }
            }
            Step::Written => {
                if let Some(next) = self.transaction.complete(now) {
                    self.store(next, Then::Nothing);
                }
            }
            Step::Wait(ms) => {
                self.now += ms;
                if let Some(next) = self.transaction.tick(self.now) {
                    assert!(next.epoch > ours.epoch);
                    self.store(next, Then::Nothing);
                }
            }
            Step::Stored(true) => {
                if let Some((next, then)) = self.storing.take() {
                    self.durable = Some(next.clone());
                    match then {
                        Then::Starts(client) => self.give(client, (next.producer_id, next.epoch)),
                        Then::Ends(client) => self.clients[client] = identity(&next),
                        Then::Nothing => (),
                    }
                    self.transaction.stored(next);
                }
            }
            Step::Stored(false) => {
                if self.storing.take().is_some() {
                    self.transaction.lost();
                }
            }
            Step::Restart => {
                self.storing = None;
                let durable = self.durable.clone().expect("there from the start");
                // As it comes back from its record.
                let (_, value) = schema::write("id", &durable).expect("short");
                let read = schema::read(&value.expect("a value")).expect("readable");
                self.transaction = Transaction::restore(read.expect("a state"));
            }
        }
    }

    fn refused(&self, refusal: Refusal) {
        assert_ne!(refusal, Refusal::NeedsId, "there was one");
    }

    /// Only the producer that was given the present id and epoch may do this.
    fn owner(&self, client: usize) {
        let ours = self.transaction.metadata();
        assert_eq!(self.clients[client], (ours.producer_id, ours.epoch));
    }

    fn give(&mut self, client: usize, given: (i64, i16)) {
        for (before, owner) in &self.given {
            assert!(
                *before != given || *owner == client || self.clients[*owner] != given,
                "{given:?} is held by two"
            );
        }
        assert!(given.1 <= EPOCH_MAX, "the last epoch is kept for fencing");
        self.given.push((given, client));
        self.clients[client] = given;
    }
}

fn place_of(index: i32) -> Place {
    ("t".into(), index)
}

fn version(second: bool) -> Version {
    match second {
        true => Version::V2,
        false => Version::V1,
    }
}

/// Apache Kafka's table of states, and what never goes back.
fn may_follow(now: &Metadata, next: &Metadata) -> bool {
    use State::*;
    let from: &[State] = match next.state {
        Empty => &[Empty, CompleteCommit, CompleteAbort],
        Ongoing => &[Ongoing, Empty, CompleteCommit, CompleteAbort],
        PrepareCommit => &[Ongoing],
        PrepareAbort => &[Ongoing, Empty, CompleteCommit, CompleteAbort],
        CompleteCommit => &[PrepareCommit],
        CompleteAbort => &[PrepareAbort],
        Dead => &[Empty, CompleteCommit, CompleteAbort],
        PrepareEpochFence => &[],
    };
    let same_id = next.producer_id == now.producer_id;
    let grows = if same_id {
        next.epoch >= now.epoch
    } else {
        next.producer_id > now.producer_id && next.epoch == 0
    };
    let kept = match next.state {
        Ongoing | PrepareCommit | PrepareAbort => now.places.is_subset(&next.places),
        _ => next.places.is_empty(),
    };
    from.contains(&now.state) && grows && kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decisions_stay_and_producers_are_told_apart(
        epoch in prop_oneof![3 => Just(-1i16), 1 => EPOCH_MAX - 4..=EPOCH_MAX],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(epoch);
        for step in steps {
            world.play(step);
        }
    }
}
