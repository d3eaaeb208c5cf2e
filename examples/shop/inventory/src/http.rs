//! What the service answers by HTTP.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::stock::Stock;

const HEALTH_CHECK_MAX: Duration = Duration::from_secs(2);

/// Serves until told to stop, and then finishes what is under way.
pub async fn serve(
    listener: TcpListener,
    stock: Arc<Mutex<Stock>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/", get(show))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(stock);
    let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    served.await.context("cannot serve HTTP any more")
}

async fn show(State(stock): State<Arc<Mutex<Stock>>>) -> Json<BTreeMap<String, u32>> {
    Json(stock.lock().expect("no holder panics").available().clone())
}

/// Asks the service on this machine for its health: the image has no other program that could.
pub async fn check_health(port: u16) -> anyhow::Result<()> {
    let asked = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        anyhow::Ok(head)
    };
    let head = time::timeout(HEALTH_CHECK_MAX, asked).await??;
    ensure!(head.ends_with(b" 200"), "unhealthy: {}", String::from_utf8_lossy(&head));
    Ok(())
}
