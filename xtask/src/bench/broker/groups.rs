//! Very many consumer groups, each with one member.

use std::sync::Mutex;
use std::thread;

use anyhow::ensure;
use bytes::Bytes;
use kafka::messages::heartbeat::HeartbeatRequest;
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::table::Aim;
use super::wire::{self, Connection};
use super::{Bench, is_ours};

/// Connections that the members share.
const LANES: usize = 8;
/// What a step may cost against Apache Kafka's.
const SHARE_MAX: f64 = 0.67;

/// A group and its member.
struct Member {
    group: String,
    generation: i32,
    id: String,
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let count = if bench.quick { 1000 } else { 10_000 };
    let topic = bench.topic();
    for broker in &bench.brokers {
        let ours = is_ours(broker);
        wire::make_topic(broker, &topic, 1, false)?;
        // The first group makes the topic for offsets.
        settled(&broker.bootstrap(), &topic)?;
        let before = broker.memory_mib()?;
        let members = Mutex::new(Vec::new());
        let mut cost = |what: &str, work: &(dyn Fn(usize) -> anyhow::Result<()> + Sync)| {
            let clock = broker.clock()?;
            let begun = std::time::Instant::now();
            thread::scope(|scope| {
                let lanes: Vec<_> = (0..LANES)
                    .map(|lane| scope.spawn(move || work(lane)))
                    .collect();
                for lane in lanes {
                    let ended = lane.join();
                    ended.map_err(|_| anyhow::anyhow!("a part of the load panicked"))??;
                }
                Ok::<_, anyhow::Error>(())
            })?;
            let (cpu, foreign) = clock.until(&broker.clock()?);
            let each = cpu * 1e6 / count as f64;
            let table = &mut bench.table;
            let aim = Aim::Share(SHARE_MAX);
            let what = format!("{count} groups: {what}");
            table.tell(&what, "CPU us", aim, ours, each);
            table.foreign(foreign, begun.elapsed().as_secs_f64());
            Ok::<_, anyhow::Error>(())
        };
        let to = broker.bootstrap();
        cost("a member joins and commits", &|lane| {
            let mut connection = Connection::to(&to)?;
            for number in (lane..count).step_by(LANES) {
                let group = format!("group-{number}");
                let member = join(&mut connection, group)?;
                commit(&mut connection, &member, &topic)?;
                let mut members = members
                    .lock()
                    .map_err(|_| anyhow::anyhow!("a lane panicked"))?;
                members.push(member);
            }
            Ok(())
        })?;
        let members = members
            .into_inner()
            .map_err(|_| anyhow::anyhow!("a lane panicked"))?;
        cost("a heartbeat", &|lane| {
            let mut connection = Connection::to(&to)?;
            for member in members.iter().skip(lane).step_by(LANES) {
                let request = HeartbeatRequest {
                    group_id: member.group.clone(),
                    generation_id: member.generation,
                    member_id: member.id.clone(),
                    ..HeartbeatRequest::default()
                };
                let code = connection.ask(1, &request)?.error_code;
                ensure!(code == 0, "a heartbeat was refused with error {code}");
            }
            Ok(())
        })?;
        let more = broker.memory_mib()? - before;
        let what = format!("memory that {count} groups take");
        bench.table.tell(&what, "MiB", Aim::None, ours, more);
        wire::delete_topic(broker, &topic)?;
    }
    Ok(())
}

/// Waits until groups can be joined.
fn settled(to: &str, topic: &str) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let mut connection = Connection::to(to)?;
        let joined = join(&mut connection, "first".to_owned());
        let done = joined.and_then(|member| commit(&mut connection, &member, topic));
        match done {
            Ok(()) => return Ok(()),
            Err(why) if begun.elapsed().as_secs() > 30 => return Err(why),
            Err(_) => thread::sleep(std::time::Duration::from_millis(100)),
        }
    }
}

fn join(connection: &mut Connection, group: String) -> anyhow::Result<Member> {
    let request = JoinGroupRequest {
        group_id: group.clone(),
        session_timeout_ms: 300_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        }],
        ..JoinGroupRequest::default()
    };
    let joined = connection.ask(2, &request)?;
    let code = joined.error_code;
    ensure!(code == 0, "a member was refused with error {code}");
    let request = SyncGroupRequest {
        group_id: group.clone(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        }],
        ..SyncGroupRequest::default()
    };
    let code = connection.ask(1, &request)?.error_code;
    ensure!(code == 0, "an assignment was refused with error {code}");
    Ok(Member {
        group,
        generation: joined.generation_id,
        id: joined.member_id,
    })
}

fn commit(connection: &mut Connection, member: &Member, topic: &str) -> anyhow::Result<()> {
    let request = OffsetCommitRequest {
        group_id: member.group.clone(),
        generation_id_or_member_epoch: member.generation,
        member_id: member.id.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.to_owned(),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let response = connection.ask(5, &request)?;
    let code = response.topics[0].partitions[0].error_code;
    ensure!(code == 0, "a commit was refused with error {code}");
    Ok(())
}
