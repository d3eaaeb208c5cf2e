//! Keeps the shop's stock and reserves it for orders.
//!
//! Consumes `orders.placed` in the consumer group `inventory`, and answers each order with one event:
//! `inventory.reserved` or `inventory.sold-out`.
//!
//!     GET /         shows the stock
//!     GET /healthz  says that the service works

mod events;
mod http;
mod reserve;
mod stock;

use std::env;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use krafka::Kafka;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::stock::Stock;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let host = variable("HOST", "0.0.0.0");
    let port = variable("PORT", "8080").parse::<u16>().context("PORT is no port")?;
    if env::args().nth(1).as_deref() == Some("check-health") {
        return http::check_health(port).await;
    }

    let ledger = PathBuf::from(variable("DATA_DIR", "data")).join("reservations.jsonl");
    let stock =
        Stock::open(&ledger).with_context(|| format!("cannot open {}", ledger.display()))?;
    let stock = Arc::new(Mutex::new(stock));
    let stop = stop_on_signals()?;

    let brokers = variable("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092");
    let kafka = Kafka::builder(&*brokers).client_id("inventory").connect().await;
    let kafka = kafka.with_context(|| format!("cannot reach a broker at {brokers}"))?;

    let listener = TcpListener::bind((&*host, port)).await;
    let listener = listener.with_context(|| format!("cannot listen on {host}:{port}"))?;
    println!("listening on {host}:{port}, consuming from {brokers}");

    // The service is both halves: when one fails, it ends, and whoever runs it starts it again.
    tokio::try_join!(
        http::serve(listener, Arc::clone(&stock), stop.clone()),
        reserve::run(&kafka, &stock, &stop),
    )?;
    println!("stopped");
    Ok(())
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Returns what SIGTERM and Ctrl-C cancel.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        told.cancel();
    });
    Ok(stop)
}
