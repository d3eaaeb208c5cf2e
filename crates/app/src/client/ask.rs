//! Questions that the client library has no words for, over its connections.

use anyhow::Context;
use kafka::messages::find_coordinator::FindCoordinatorRequest;
use kafka::messages::{Message, Request};
use krafka::__private as library;
use krafka::Kafka;

use super::told::checked;
use super::{Partition, Told};

/// Who answers a question.
pub(crate) enum To<'a> {
    /// Any broker; where one is said to be the controller, that one.
    Controller,
    /// The leader of a partition.
    Leader(&'a Partition),
    /// The one with this number.
    Broker(i32),
}

/// Asks in the newest version that both sides know.
pub(crate) async fn ask<R: Request>(
    kafka: &Kafka,
    to: To<'_>,
    request: &R,
) -> anyhow::Result<R::Response> {
    let known = library::kafka_metadata(kafka);
    let connection = match to {
        To::Leader(partition) => {
            let leader = known.get_leader_connection(&partition.topic, partition.index);
            leader.await.told()?
        }
        To::Broker(id) => known.get_broker_connection(id).await.told()?,
        To::Controller => {
            let broker = known.controller().or(known.brokers().into_iter().next());
            let broker = broker.context("the broker names no broker")?;
            known.get_broker_connection(broker.id()).await.told()?
        }
    };
    let api = library::protocol::ApiKey::from_i16(R::KEY as i16);
    let (oldest, newest) = (*R::VERSIONS.start(), *R::VERSIONS.end());
    let version = connection
        .negotiate_api_version(api, newest, oldest)
        .with_context(|| format!("the broker knows no {}", R::NAME))?;
    let body = request.to_bytes(version)?;
    let sent = connection.send_request(api, version, |buffer| {
        buffer.extend_from_slice(&body);
        Ok(())
    });
    let answer = sent.await.told()?;
    R::Response::from_bytes(&answer, version)
        .with_context(|| format!("the broker's answer to {} makes no sense", R::NAME))
}

/// Returns the number of the broker that coordinates a group.
pub(crate) async fn coordinator(kafka: &Kafka, group: &str) -> anyhow::Result<i32> {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![group.to_owned()],
        ..FindCoordinatorRequest::default()
    };
    let answer = ask(kafka, To::Controller, &request).await?;
    let found = answer.coordinators.into_iter().next();
    let found = found.with_context(|| format!("the broker names no coordinator of `{group}`"))?;
    checked(found.error_code, found.error_message.as_deref())?;
    Ok(found.node_id)
}
