//! Consumes orders, reserves stock for them, and says what became of each.
//!
//! The order of steps makes it safe to die anywhere: the ledger, then our event, then the commit. What was not
//! committed comes again, the ledger knows it, and at worst our event is said twice.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use krafka::consumer::{AutoOffsetReset, ConsumerRecord};
use krafka::producer::{Acks, Producer};
use krafka::{Kafka, Record};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::events::{ORDERS_PLACED, Order, RESERVED, SOLD_OUT};
use crate::stock::{Outcome, Stock};

const POLL_MAX: Duration = Duration::from_secs(1);

/// The pause after the broker could not be asked.
const PAUSE: Duration = Duration::from_secs(1);

/// Works until told to stop.
pub async fn run(
    kafka: &Kafka,
    stock: &Mutex<Stock>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let producer = kafka.producer().acks(Acks::All).build().await?;
    let consumer = kafka
        .consumer("inventory")
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .enable_auto_commit(false)
        .build()
        .await?;
    consumer.subscribe([ORDERS_PLACED]).await?;

    while !stop.is_cancelled() {
        let polled = tokio::select! {
            () = stop.cancelled() => break,
            polled = consumer.poll(POLL_MAX) => polled,
        };
        let records = match polled {
            Ok(records) => records,
            Err(error) if error.is_fatal() => return Err(error).context("cannot consume any more"),
            Err(error) => {
                println!("cannot consume now: {error}");
                time::sleep(PAUSE).await;
                continue;
            }
        };
        if records.is_empty() {
            continue;
        }
        for record in &records {
            handle(record, stock, &producer).await?;
        }
        if let Err(error) = consumer.commit().await {
            // Another member may have taken over; what is not committed comes again, here or there.
            println!("cannot commit now: {error}");
        }
    }
    // Leaving the group hands our partitions to the other members at once.
    consumer.close().await?;
    producer.close().await?;
    Ok(())
}

/// An error ends the service before the commit, so that the record comes again.
async fn handle(
    record: &ConsumerRecord,
    stock: &Mutex<Stock>,
    producer: &Producer,
) -> anyhow::Result<()> {
    let place = format!("{}-{}@{}", record.topic, record.partition, record.offset);
    let value = record.value.as_deref().unwrap_or_default();
    let order: Order = match serde_json::from_slice(value) {
        Ok(order) => order,
        Err(error) => {
            // It would never be readable, and holds up all that come after it.
            println!("skipped {place}, which is no order: {error}");
            return Ok(());
        }
    };
    let outcome = stock.lock().expect("no holder panics").reserve(&order);
    let outcome = outcome.context("cannot write the ledger")?;
    let topic = match outcome {
        Outcome::Reserved => RESERVED,
        Outcome::SoldOut => SOLD_OUT,
    };
    let mut event = Record::new(topic, serde_json::to_vec(&order)?).key(order.order_id.clone());
    // One trace from the customer's request to the mail.
    if let Some(trace) = record.header_str("traceparent") {
        event = event.header("traceparent", trace.to_owned());
    }
    let sent = producer.send(event).await;
    let sent = sent.with_context(|| format!("cannot publish to {topic}"))?;
    let answer = format!("{topic}-{}@{}", sent.partition, sent.offset);
    println!("order {}: {place} answered by {answer}", order.order_id);
    Ok(())
}
