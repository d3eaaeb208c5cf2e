//! Whatever clients do in whatever order: every request is answered once, and the group stays whole.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::machine::Group;
use super::member::Protocol;
use super::terms::{After, Effect, Join, Rules, State, Sync};

#[derive(Debug, Clone)]
enum Step {
    Join {
        client: usize,
        protocols: usize,
        id_required: bool,
        skip: bool,
        forget: bool,
    },
    Sync {
        client: usize,
        stale: bool,
    },
    Beat(usize),
    Leave(usize),
    Wait(i64),
    Stored(bool),
    Restart,
}

const CLIENTS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => (client.clone(), 0..4usize, any::<bool>(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(client, protocols, id_required, skip, forget)| Step::Join {
                client, protocols, id_required, skip, forget
            }
        ),
        6 => (client.clone(), prop::bool::weighted(0.1)).prop_map(|(client, stale)| Step::Sync { client, stale }),
        2 => client.clone().prop_map(Step::Beat),
        1 => client.prop_map(Step::Leave),
        3 => (1..70_000i64).prop_map(Step::Wait),
        5 => prop::bool::weighted(0.9).prop_map(Step::Stored),
        1 => Just(Step::Restart),
    ]
}

struct World {
    now: i64,
    rules: Rules,
    group: Group,
    ids: Vec<String>,
    generations: Vec<i32>,
    waiting: BTreeSet<u64>,
    /// Who asked with each ticket, and under which member id.
    owners: Vec<(usize, String)>,
    stores: Vec<(super::terms::Snapshot, After)>,
    durable: Option<super::terms::Snapshot>,
    next: u64,
}

impl World {
    fn ticket(&mut self, client: usize) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.owners.push((client, self.ids[client].clone()));
        self.waiting.insert(ticket);
        ticket
    }

    fn play(&mut self, step: Step) {
        let before = self.group.generation();
        let mut effects = Vec::new();
        let now = self.now;
        match step {
            Step::Join {
                client,
                protocols,
                id_required,
                skip,
                forget,
            } => {
                let ticket = self.ticket(client);
                if forget {
                    self.ids[client].clear();
                }
                let names: &[&str] = [&["x"][..], &["x", "y"], &["y", "x"], &["y"]][protocols];
                let join = Join {
                    ticket,
                    member_id: self.ids[client].clone(),
                    fresh_id: format!("m{client}-{ticket}"),
                    // The upper half of the clients is static.
                    instance_id: (client >= CLIENTS / 2).then(|| format!("i{client}")),
                    client_id: String::new(),
                    client_host: String::new(),
                    session_timeout_ms: 10_000,
                    rebalance_timeout_ms: 30_000,
                    protocol_type: "consumer".into(),
                    protocols: names
                        .iter()
                        .map(|name| Protocol {
                            name: (*name).to_owned(),
                            metadata: Bytes::new(),
                        })
                        .collect(),
                    id_required,
                    may_skip_assignment: skip,
                };
                self.group.join(now, join, &self.rules, &mut effects);
            }
            Step::Sync { client, stale } => {
                let ticket = self.ticket(client);
                let sync = Sync {
                    ticket,
                    member_id: self.ids[client].clone(),
                    instance_id: (client >= CLIENTS / 2).then(|| format!("i{client}")),
                    generation: self.generations[client] - i32::from(stale),
                    protocol_type: None,
                    protocol: None,
                    assignments: self
                        .ids
                        .iter()
                        .map(|id| (id.clone(), Bytes::from(id.clone())))
                        .collect(),
                };
                self.group.sync(now, sync, &mut effects);
            }
            Step::Beat(client) => {
                _ = self.group.heartbeat(
                    now,
                    &self.ids[client].clone(),
                    None,
                    self.generations[client],
                );
            }
            Step::Leave(client) => {
                let leavers = [(self.ids[client].clone(), None)];
                self.group.leave(now, &leavers, &self.rules, &mut effects);
            }
            Step::Wait(ms) => {
                let until = now + ms;
                while let Some(at) = self.group.wakes_at().filter(|at| *at <= until) {
                    self.now = self.now.max(at);
                    self.group.tick(self.now, &self.rules, &mut effects);
                    let next = self.group.wakes_at();
                    assert!(next.is_none_or(|next| next > at), "time stands still");
                }
                self.now = until;
            }
            Step::Stored(durable) => {
                if !self.stores.is_empty() {
                    let (snapshot, after) = self.stores.remove(0);
                    if durable {
                        self.durable = Some(snapshot);
                    }
                    self.group
                        .stored(now, after, durable, &self.rules, &mut effects);
                }
            }
            Step::Restart => {
                self.group = match self.durable.clone() {
                    Some(snapshot) => Group::restore(snapshot, now),
                    None => Group::new(now),
                };
                self.stores.clear();
                self.waiting.clear(); // their connections are gone
            }
        }
        self.tell(effects);
        if !matches!(step, Step::Restart) {
            assert!(self.group.generation() >= before, "a generation went back");
        }
        self.hold();
    }

    fn tell(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Joined(ticket, answer) => {
                    assert!(self.waiting.remove(&ticket), "answered twice");
                    let client = self.owners[ticket as usize].0;
                    match answer {
                        Ok(joined) => {
                            self.ids[client] = joined.member_id;
                            self.generations[client] = joined.generation;
                        }
                        Err((_, id)) => self.ids[client] = id,
                    }
                }
                Effect::Synced(ticket, answer) => {
                    assert!(self.waiting.remove(&ticket), "answered twice");
                    if let Ok(synced) = answer
                        && !synced.assignment.is_empty()
                    {
                        let (client, id) = &self.owners[ticket as usize];
                        // A static member that comes back under another id goes on with its old part.
                        let own = match *client >= CLIENTS / 2 {
                            true => synced
                                .assignment
                                .starts_with(format!("m{client}-").as_bytes()),
                            false => synced.assignment == id.as_bytes(),
                        };
                        assert!(own, "somebody else's part: {synced:?} for {id}");
                    }
                }
                Effect::Store(snapshot, after) => self.stores.push((snapshot, after)),
            }
        }
    }

    fn hold(&self) {
        let group = &self.group;
        let held: BTreeSet<u64> = group
            .members()
            .flat_map(|member| member.joining.into_iter().chain(member.syncing))
            .chain(self.stores.iter().filter_map(|(_, after)| match after {
                After::Replace { ticket, .. } => Some(*ticket),
                _ => None,
            }))
            .collect();
        assert_eq!(held, self.waiting, "a request was forgotten");
        if group.members().len() > 0 {
            let leader = group.leader().expect("members have a leader");
            assert!(group.members().any(|member| member.id == leader));
            assert!(group.wakes_at().is_some(), "nothing would ever end this");
        }
        match group.state() {
            State::Empty => assert_eq!(group.members().len(), 0),
            State::PreparingRebalance => (),
            State::CompletingRebalance | State::Stable => {
                let protocol = group.protocol().expect("a generation has a protocol");
                for member in group.members() {
                    assert!(member.knows(protocol), "a member cannot follow");
                    assert!(member.joining.is_none(), "a join is left over");
                    assert!(group.state() != State::Stable || member.syncing.is_none());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn the_group_stays_whole(
        steps in prop::collection::vec(step(), 1..80),
        initial_delay_ms in prop_oneof![Just(0i64), Just(3_000), Just(40_000)],
    ) {
        let mut world = World {
            now: 0,
            rules: Rules { initial_delay_ms, ..Rules::default() },
            group: Group::new(0),
            ids: vec![String::new(); CLIENTS],
            generations: vec![-1; CLIENTS],
            waiting: BTreeSet::new(),
            owners: Vec::new(),
            stores: Vec::new(),
            durable: None,
            next: 0,
        };
        for step in steps {
            world.play(step);
        }
        // Left alone, a group comes to rest: nobody waits and nobody is in it.
        while !world.stores.is_empty() {
            world.play(Step::Stored(true));
        }
        world.play(Step::Wait(3_600_000));
        while !world.stores.is_empty() {
            world.play(Step::Stored(true));
        }
        prop_assert!(world.waiting.is_empty());
        prop_assert_eq!(world.group.state(), State::Empty);
    }
}
