//! Whatever members do, whatever is lost, and whenever the process ends: nothing is owned twice, and all is owned in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka::messages::Message;
use kafka::messages::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::catalog::Catalog;
use super::machine::Group;
use super::member::{AWAY, Partitions};
use super::records::{self, Stored};
use super::terms::{Beat, Beaten, State};
use crate::group::member::Protocol;
use crate::group::settings::Timing;
use crate::group::terms::{Join, Refusal, Rules, Sync};

const CLIENTS: usize = 4;
const TOPICS: usize = 3;
const TIMING: Timing = Timing {
    session_timeout_ms: 45_000,
    heartbeat_interval_ms: 5_000,
    assignment_interval_ms: 0,
};

#[derive(Debug, Clone)]
enum Step {
    /// A client says that it is alive; what it is asked to give up it has given up, unless it is slow.
    Beat {
        client: usize,
        lost: bool,
        slow: bool,
        full: bool,
    },
    Subscribe {
        client: usize,
        topics: BTreeSet<usize>,
        pattern: Option<usize>,
    },
    Leave(usize),
    /// A client is started anew with the other protocol.
    Convert(usize),
    Grow(usize),
    Replace(usize),
    Wait(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let often = |weight| prop::bool::weighted(weight);
    prop_oneof![
        20 => (client.clone(), often(0.1), often(0.2), often(0.1)).prop_map(
            |(client, lost, slow, full)| Step::Beat { client, lost, slow, full }
        ),
        2 => (client.clone(), prop::collection::btree_set(0..TOPICS, 0..=TOPICS), prop::option::of(0..TOPICS))
            .prop_map(|(client, topics, pattern)| Step::Subscribe { client, topics, pattern }),
        1 => client.clone().prop_map(Step::Leave),
        2 => client.prop_map(Step::Convert),
        1 => (0..TOPICS).prop_map(Step::Grow),
        1 => (0..TOPICS).prop_map(Step::Replace),
        2 => (1..40_000i64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

#[derive(Debug, Default)]
struct Client {
    id: String,
    instance: Option<String>,
    epoch: i32,
    joined: bool,
    topics: BTreeSet<usize>,
    pattern: Option<usize>,
    owned: Partitions,
    /// What it is told to own.
    told: Partitions,
    /// Whether the next heartbeat tells everything.
    full: bool,
    /// Whether it speaks the classic protocol; every other one gives up everything before it joins again.
    classic: bool,
}

impl Client {
    fn lose(&mut self) {
        self.owned.clear();
        self.told.clear();
        self.joined = false;
        self.epoch = 0;
    }

    fn beat(&self, tells: bool) -> Beat {
        // Who has not taken yet what it is told to own must not say that it owns nothing: that would give it back.
        let all = self.epoch == 0 || (self.full && self.owned == self.told);
        Beat {
            member_id: self.id.clone(),
            epoch: self.epoch,
            instance_id: self.instance.clone(),
            rebalance_timeout_ms: all.then_some(30_000),
            topics: all.then(|| {
                self.topics
                    .iter()
                    .map(|topic| format!("t{topic}"))
                    .collect()
            }),
            pattern: all.then(|| {
                self.pattern
                    .map_or(String::new(), |topic| format!("t[{topic}x]"))
            }),
            owned: (all || tells).then(|| self.owned.clone()),
            ..Beat::default()
        }
    }
}

struct World {
    now: i64,
    group: Group,
    stored: Stored,
    clients: Vec<Client>,
    topics: Vec<(Uuid, i32)>,
    version: u64,
    drawn: u128,
}

impl World {
    fn new() -> Self {
        let clients = (0..CLIENTS).map(|index| Client {
            instance: (index == 0).then(|| "fixed".to_owned()),
            topics: BTreeSet::from([0, 1]),
            ..Client::default()
        });
        let mut world = Self {
            now: 0,
            group: Group::new(),
            stored: Stored::new(),
            clients: clients.collect(),
            topics: Vec::new(),
            version: 1,
            drawn: 0,
        };
        for _ in 0..TOPICS {
            let id = world.draw();
            world.topics.push((id, 3));
        }
        world
    }

    fn draw(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::from_u128(self.drawn)
    }

    fn catalog(&self) -> Catalog {
        let topics = self.topics.iter().enumerate();
        let topics = topics
            .map(|(index, (id, partitions))| (Arc::from(format!("t{index}")), *id, *partitions));
        Catalog::new(self.version, topics)
    }

    fn store(&mut self) {
        for item in self.group.take_touched() {
            let (key, value) = records::record("g", &item, &self.group).expect("short");
            match value {
                Some(value) => self.stored.insert(key, value),
                None => self.stored.remove(&key),
            };
        }
    }

    fn play(&mut self, step: Step) {
        let catalog = self.catalog();
        match step {
            Step::Beat {
                client,
                lost,
                slow,
                full,
            } => {
                self.clients[client].full |= full;
                self.beat(client, lost, slow);
            }
            Step::Subscribe {
                client,
                topics,
                pattern,
            } => {
                let client = &mut self.clients[client];
                let pattern = pattern.filter(|_| !client.classic);
                (client.topics, client.pattern, client.full) = (topics, pattern, true);
            }
            Step::Leave(client) => {
                let client = &mut self.clients[client];
                if client.joined && client.classic {
                    let named = (client.id.clone(), client.instance.clone());
                    self.group.leave_classic(&[named], &catalog);
                    client.lose();
                } else if client.joined {
                    let epoch = if client.instance.is_some() { AWAY } else { -1 };
                    let instance = client.instance.as_deref();
                    // It may have been given up for its silence.
                    _ = self.group.leave(&client.id, instance, epoch, &catalog);
                    client.lose();
                }
            }
            Step::Convert(client) => {
                // One with an instance id comes back without having left.
                if self.clients[client].instance.is_none() {
                    self.play(Step::Leave(client));
                }
                let client = &mut self.clients[client];
                client.lose();
                client.classic = !client.classic;
                client.pattern = None;
            }
            Step::Grow(topic) => {
                self.topics[topic].1 += 1;
                self.version += 1;
            }
            Step::Replace(topic) => {
                self.topics[topic] = (self.draw(), 2);
                self.version += 1;
            }
            Step::Wait(ms) => {
                self.now += ms;
                self.group.tick(self.now, &catalog);
                // A client that is not heard from for so long gives up by itself.
                let alive: BTreeSet<String> =
                    self.group.members().map(|(id, _)| id.clone()).collect();
                for client in &mut self.clients {
                    if !alive.contains(&client.id) {
                        client.lose();
                    }
                }
            }
            Step::Restart => {
                let before = self.group.view();
                self.group = records::restore(&self.stored, self.now, TIMING).expect("reads");
                let after = self.group.view();
                assert_eq!(
                    (before.epoch, before.target_epoch, before.state),
                    (after.epoch, after.target_epoch, after.state)
                );
                for (one, other) in before.members.iter().zip(&after.members) {
                    assert_eq!(
                        (&one.0, &one.1.profile, &one.1.progress, &one.2),
                        (&other.0, &other.1.profile, &other.1.progress, &other.2)
                    );
                }
            }
        }
        self.store();
        self.check();
    }

    /// Says that it is alive; when it is told to, or has something else to say, joins again and asks what it has.
    fn beat_classic(&mut self, client: usize, lost: bool) {
        let (catalog, now) = (self.catalog(), self.now);
        let fresh = self.draw().to_string();
        let one = &mut self.clients[client];
        let instance = one.instance.as_deref();
        let mut beaten = Err(Refusal::RebalanceInProgress);
        if one.joined {
            beaten = self.group.beat_classic(now, &one.id, instance, one.epoch);
        } else {
            one.lose();
        }
        match beaten {
            Ok(()) if !one.full => return,
            Ok(()) | Err(Refusal::RebalanceInProgress) => (),
            Err(_) => return one.lose(),
        }
        if !client.is_multiple_of(2) {
            one.owned.clear();
            one.told.clear();
        }
        let names = one.topics.iter().map(|topic| format!("t{topic}"));
        let owned = one.owned.iter().map(|(topic, partitions)| TopicPartition {
            topic: catalog
                .name(*topic)
                .map_or("gone".into(), ToString::to_string),
            partitions: partitions.iter().copied().collect(),
        });
        let subscription = ConsumerProtocolSubscription {
            topics: names.collect(),
            owned_partitions: owned.collect(),
            ..ConsumerProtocolSubscription::default()
        };
        let join = Join {
            ticket: 0,
            member_id: if one.joined {
                one.id.clone()
            } else {
                String::new()
            },
            fresh_id: fresh,
            instance_id: one.instance.clone(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol {
                name: "range".into(),
                metadata: subscription.to_versioned(3).expect("short"),
            }],
            id_required: false,
            may_skip_assignment: true,
        };
        let joined = self
            .group
            .join(now, &join, &catalog, &Rules::default(), TIMING);
        let one = &mut self.clients[client];
        let joined = match joined {
            Ok(_) if lost => return, // it joins again; under another id if it had none
            Ok(joined) => joined,
            Err(_) => return one.lose(),
        };
        assert!(joined.generation >= one.epoch, "generations rise");
        (one.id, one.epoch) = (joined.member_id, joined.generation);
        (one.joined, one.full) = (true, false);
        let sync = Sync {
            ticket: 0,
            member_id: one.id.clone(),
            instance_id: one.instance.clone(),
            generation: one.epoch,
            protocol_type: None,
            protocol: joined.protocol,
            assignments: Vec::new(),
        };
        let synced = self
            .group
            .sync(now, &sync, &catalog)
            .expect("it has just joined");
        let assignment = ConsumerProtocolAssignment::from_versioned(&synced.assignment);
        one.owned.clear();
        for topic in assignment.expect("ours").assigned_partitions {
            let id = catalog.id(&topic.topic).expect("there");
            one.owned.insert(id, topic.partitions.into_iter().collect());
        }
        one.told = one.owned.clone();
    }

    fn beat(&mut self, client: usize, lost: bool, slow: bool) {
        if self.clients[client].classic {
            return self.beat_classic(client, lost);
        }
        let catalog = self.catalog();
        if !self.clients[client].joined {
            let id = self.draw().to_string();
            let client = &mut self.clients[client];
            client.lose();
            client.id = id;
        }
        let one = &mut self.clients[client];
        let mut tells = false;
        if !slow && one.owned != one.told {
            one.owned = one.told.clone();
            tells = true;
        }
        let beat = one.beat(tells);
        match self.group.heartbeat(self.now, &beat, &catalog, 100, TIMING) {
            Ok(_) if lost => one.full = one.joined, // it asks again, and tells everything
            Ok(Beaten {
                epoch, assignment, ..
            }) => {
                assert!(epoch >= one.epoch, "epochs rise");
                assert!(epoch > 0, "0 is for joining");
                (one.epoch, one.joined) = (epoch, true);
                one.full &= beat.topics.is_none();
                if let Some(assignment) = assignment {
                    one.told = assignment;
                }
            }
            Err(refused) => match refused.refusal {
                Refusal::FencedEpoch | Refusal::UnknownMember | Refusal::FencedInstance => {
                    one.lose()
                }
                Refusal::UnreleasedInstance => assert!(one.instance.is_some()),
                other => panic!("{other:?}"),
            },
        }
    }

    fn check(&self) {
        let mut owned: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
        for (index, client) in self.clients.iter().enumerate() {
            // What it is told it may take at any time, and what it has not given up it has.
            let both = client.owned.iter().chain(&client.told);
            for place in both.flat_map(|(topic, some)| some.iter().map(|one| (*topic, *one))) {
                let other = owned.insert(place, index);
                assert!(
                    other.is_none_or(|other| other == index),
                    "{place:?} is owned twice"
                );
            }
        }
        let held: usize = self
            .group
            .members()
            .map(|(_, member)| member.progress.held().count())
            .sum();
        assert_eq!(
            held,
            self.group.owners().len(),
            "each partition has one owner"
        );
    }

    /// Everybody goes on as they should.
    fn settle(&mut self) {
        for _ in 0..20 {
            for client in 0..CLIENTS {
                self.beat(client, false, false);
                self.store();
                self.check();
            }
        }
        assert_eq!(self.group.state(), State::Stable);
        let members: BTreeSet<&String> = self.group.members().map(|(id, _)| id).collect();
        let clients: BTreeSet<&String> = self.clients.iter().map(|client| &client.id).collect();
        assert_eq!(members, clients, "all are in the group");
        let read: BTreeSet<usize> = self
            .clients
            .iter()
            .flat_map(|client| client.topics.iter().copied().chain(client.pattern))
            .collect();
        let all: BTreeSet<(Uuid, i32)> = read
            .into_iter()
            .flat_map(|topic| {
                let (id, partitions) = self.topics[topic];
                (0..partitions).map(move |partition| (id, partition))
            })
            .collect();
        let owned: BTreeSet<(Uuid, i32)> = self
            .clients
            .iter()
            .flat_map(|client| &client.owned)
            .flat_map(|(topic, some)| some.iter().map(|one| (*topic, *one)))
            .collect();
        assert_eq!(owned, all, "everything that is read is owned");
        for client in &self.clients {
            for topic in client.owned.keys() {
                let index = self
                    .topics
                    .iter()
                    .position(|(id, _)| id == topic)
                    .expect("there");
                assert!(client.topics.contains(&index) || client.pattern == Some(index));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_is_owned_twice_and_all_is_owned_in_the_end(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            world.play(step);
        }
        // Members whose processes are gone are given up before long.
        world.play(Step::Wait(45_000));
        world.play(Step::Wait(1));
        world.settle();
    }
}
