//! Two members share a topic; whoever comes later goes on where the group was.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use testkit::wait;

use super::contract::{Client, Kind, Member, Producing, Record};
use super::data::now_ms;
use super::kcat::hex;
use super::subject::unique;

const LIMIT: Duration = Duration::from_secs(60);
pub(super) const PARTITIONS: i32 = 4;

/// Join, rebalance, leave, resume.
#[track_caller]
pub(super) fn share_and_resume(client: &mut Client) -> &'static str {
    let (topic, group) = (unique("shared"), unique("group"));
    client.make_topic(&topic, PARTITIONS);
    let mut work = Work {
        topic: topic.clone(),
        produced: 0,
    };
    work.produce(client, 40);

    let mut first = client.member(&group, &topic);
    wait_for("one member to have all", &mut [&mut first], |members| {
        members[0].assigned == [0, 1, 2, 3]
    });
    wait_for("one member to read all", &mut [&mut first], |members| {
        seen(members) == work.expected()
    });

    let mut second = client.member(&group, &topic);
    let both = &mut [&mut first, &mut second];
    wait_for("two members to share", both, |members| {
        shares(members, &[2, 2])
    });
    check_group(client, &group, "Stable", 2);
    work.produce(client, 40);
    wait_for("both to read all", both, |members| {
        seen(members) == work.expected()
    });
    for member in both {
        assert!(!member.records.is_empty(), "each member has its share");
    }

    second.leave();
    let all = &mut [&mut first, &mut second];
    wait_for("the other to take over", all, |members| {
        members[0].assigned == [0, 1, 2, 3]
    });
    work.produce(client, 20);
    wait_for("it to read on", all, |members| {
        seen(members) == work.expected()
    });
    first.leave();
    check_once(client.kind(), &[&first, &second]);
    check_group(client, &group, "Empty", 0);
    check_committed(client, &group, &topic, work.produced / PARTITIONS);

    work.produce(client, 8);
    let mut third = client.member(&group, &topic);
    wait_for("a new member to resume", &mut [&mut third], |members| {
        seen(members).len() >= 8
    });
    third.leave();
    assert_eq!(
        seen(&[&mut third]),
        work.last(8),
        "it reads what nobody has read, and nothing else"
    );
    "group shared, rebalanced, resumed"
}

/// Members of different clients in one group; all of them speak of the `range` assignor.
#[test]
fn members_of_different_clients_share_a_group() {
    let subject = super::Subject::start();
    let start = |kind| Client::start(kind, subject.bootstrap());
    let (Some(mut one), Some(other)) = (start(Kind::Confluent), start(Kind::Java)) else {
        return;
    };
    let (topic, group) = (unique("mixed"), unique("mixed"));
    one.make_topic(&topic, PARTITIONS);
    let mut work = Work {
        topic: topic.clone(),
        produced: 0,
    };
    work.produce(&mut one, 40);
    let mut first = one.member(&group, &topic);
    let mut second = other.member(&group, &topic);
    let both = &mut [&mut first, &mut second];
    wait_for("two members to share", both, |members| {
        shares(members, &[2, 2])
    });
    work.produce(&mut one, 40);
    wait_for("both to read all", both, |members| {
        seen(members) == work.expected()
    });
    first.leave();
    let both = &mut [&mut first, &mut second];
    wait_for("the other to take over", both, |members| {
        members[1].assigned == [0, 1, 2, 3]
    });
    second.leave();
}

pub(super) struct Work {
    pub(super) topic: String,
    pub(super) produced: i32,
}

impl Work {
    /// Produces so many more records, spread over all partitions.
    #[track_caller]
    pub(super) fn produce(&mut self, client: &mut Client, count: i32) {
        let mut records: Vec<Record> = (self.produced..self.produced + count)
            .map(|number| Record {
                partition: number % PARTITIONS,
                key: Some(hex(b"key")),
                value: Some(value(number)),
                timestamp: now_ms(),
                headers: Vec::new(),
            })
            .collect();
        records.sort_by_key(|record| record.partition);
        let topic = &self.topic;
        client.produce(
            Producing {
                topic,
                codec: "none",
                acks: "all",
                idempotent: false,
            },
            &records,
        );
        self.produced += count;
    }

    pub(super) fn expected(&self) -> BTreeSet<String> {
        (0..self.produced).map(value).collect()
    }

    fn last(&self, count: i32) -> BTreeSet<String> {
        (self.produced - count..self.produced).map(value).collect()
    }
}

fn value(number: i32) -> String {
    hex(format!("value-{number}").as_bytes())
}

#[track_caller]
pub(super) fn wait_for(
    what: &str,
    members: &mut [&mut Member],
    done: impl Fn(&[&mut Member]) -> bool,
) {
    wait::until(what, LIMIT, || {
        for member in members.iter_mut() {
            member.look();
        }
        done(members).then_some(())
    });
}

/// Returns the values that the members have read.
pub(super) fn seen(members: &[&mut Member]) -> BTreeSet<String> {
    let records = members.iter().flat_map(|member| &member.records);
    records
        .filter_map(|read| read.record.value.clone())
        .collect()
}

/// Tells whether the members have so many partitions each, and together all of them.
pub(super) fn shares(members: &[&mut Member], counts: &[usize]) -> bool {
    let all: BTreeSet<i32> = members
        .iter()
        .flat_map(|member| member.assigned.clone())
        .collect();
    let each: Vec<usize> = members.iter().map(|member| member.assigned.len()).collect();
    all.len() == PARTITIONS as usize && each == counts
}

/// Nothing was read twice: every member commits what it has read before it gives a partition away.
#[track_caller]
pub(super) fn check_once(kind: Kind, members: &[&Member]) {
    if kind == Kind::Kcat {
        return; // it commits by the clock
    }
    let mut places = BTreeSet::new();
    for read in members.iter().flat_map(|member| &member.records) {
        let place = (read.record.partition, read.offset);
        assert!(places.insert(place), "{place:?} was read twice");
    }
}

#[track_caller]
pub(super) fn check_group(client: &mut Client, group: &str, state: &str, members: usize) {
    let Client::Script(agent) = client else {
        return;
    };
    let groups = agent.ask(json!({ "do": "groups" }));
    let listed = groups["groups"]
        .as_array()
        .is_some_and(|groups| groups.contains(&json!(group)));
    assert!(listed, "{group} is not in {groups}");
    let found = agent.ask(json!({ "do": "group", "group": group }));
    let same = found["state"]
        .as_str()
        .is_some_and(|found| found.eq_ignore_ascii_case(state));
    assert!(
        same && found["members"] == members,
        "{state} with {members} expected: {found}"
    );
}

#[track_caller]
pub(super) fn check_committed(client: &mut Client, group: &str, topic: &str, each: i32) {
    let Client::Script(agent) = client else {
        return;
    };
    let partitions: Vec<i32> = (0..PARTITIONS).collect();
    let found = agent.ask(json!({
        "do": "committed", "group": group, "topic": topic, "partitions": partitions,
    }));
    assert_eq!(
        found["offsets"],
        json!(vec![each; PARTITIONS as usize]),
        "{found}"
    );
}
