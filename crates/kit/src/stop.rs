//! Stop signals: Ctrl-C and SIGTERM become one cancellation that the whole house listens to.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long after the first signal another one still counts as the same: some senders signal the process and then its
/// whole group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Cancels `stop` at the first SIGINT or SIGTERM and ends the process at once, with status 130, at the next.
///
/// # Errors
/// When the operating system refuses to install the handlers.
pub fn on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
        stop.cancel();
        let first = Instant::now();
        loop {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
            if first.elapsed() > SAME_SIGNAL {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}
