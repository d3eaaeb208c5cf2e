//! Accepts connections until told to stop, then lets the open ones finish.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::connection;
use crate::core::Core;

/// How long open connections may take to answer what they were asked before they are closed.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long we wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(core.limits.connections_max));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => (), // reap, so that the set stays small
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match room.clone().try_acquire_owned() {
                    Ok(place) => {
                        let serving = connection::serve(core.clone(), stream, peer, stop.clone());
                        connections.spawn(async move {
                            serving.await;
                            drop(place);
                        });
                    }
                    Err(_) => warn!(%peer, "too many connections, closing the new one"),
                },
                Err(error) => {
                    warn!(%error, "accept failed");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    match time::timeout(DRAIN_MAX, drained).await {
        Ok(()) => info!("kafka listener drained"),
        Err(_) => warn!(after = ?DRAIN_MAX, "kafka connections still open, closing them"),
    }
}
