//! Asks a service whether it works, and says when the answer counts.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time;

use crate::board::State;
use crate::plan::Health;

/// How long one check may take.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// Time between checks until the service is healthy.
const PERIOD_STARTING: Duration = Duration::from_millis(200);

/// Time between checks of a service that is, or was, healthy.
const PERIOD_RUNNING: Duration = Duration::from_secs(2);

/// Checks that must fail in a row before a healthy service counts as unhealthy.
const FAILURES_MAX: u32 = 3;

/// Checks once; the error is the reason in one line.
pub(crate) async fn check(health: &Health, address: SocketAddr) -> Result<(), String> {
    let asked = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => format!("does not listen on {address}"),
                _ => format!("cannot connect to {address}: {error}"),
            })?;
        match health {
            Health::Tcp => Ok(()),
            Health::Http(path) => get(stream, path, address).await,
        }
    };
    let late = || Err(format!("health check takes longer than {CHECK_MAX:?}"));
    time::timeout(CHECK_MAX, asked)
        .await
        .unwrap_or_else(|_| late())
}

async fn get(stream: TcpStream, path: &str, address: SocketAddr) -> Result<(), String> {
    let request = Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "nuncio-health")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("cannot ask for `{path}`: {error}"))?;
    let failed = |error: hyper::Error| format!("GET {path} failed: {error}");
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let answered = async {
        let response = send.send_request(request).await.map_err(failed)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("GET {path} answers {}", status.as_u16())),
        }
    };
    // The connection lives no longer than the answer's head; nothing is left behind when the check ends.
    tokio::pin!(connection);
    tokio::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        ended = &mut connection => match ended {
            // The connection may end before the answer was looked at.
            Ok(()) => answered.await,
            Err(error) => Err(failed(error)),
        },
    }
}

/// Turns the results of checks into a state.
#[derive(Debug)]
pub(crate) struct Pulse {
    start_timeout: Duration,
    was_healthy: bool,
    failures: u32,
}

impl Pulse {
    pub(crate) fn new(start_timeout: Duration) -> Pulse {
        Pulse {
            start_timeout,
            was_healthy: false,
            failures: 0,
        }
    }

    /// Takes one check's result, so long after the start; returns the state that follows from all so far.
    pub(crate) fn take(&mut self, passed: bool, since_start: Duration) -> State {
        if passed {
            self.was_healthy = true;
            self.failures = 0;
            return State::Healthy;
        }
        self.failures = self.failures.saturating_add(1);
        match (self.was_healthy, self.failures >= FAILURES_MAX) {
            (false, _) if since_start < self.start_timeout => State::Starting,
            (false, _) => State::Unhealthy,
            (true, false) => State::Healthy,
            (true, true) => State::Unhealthy,
        }
    }

    /// Returns the time until the next check.
    pub(crate) fn period(&self) -> Duration {
        // A check that failed after health is repeated soon: it is either a hiccup or news.
        if self.was_healthy && self.failures == 0 {
            PERIOD_RUNNING
        } else {
            PERIOD_STARTING
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(results: &str, expected: Expect) {
        let mut pulse = Pulse::new(Duration::from_secs(5));
        let states = results.chars().enumerate().map(|(second, result)| {
            let since_start = Duration::from_secs(second as u64);
            pulse.take(result == '+', since_start).to_string()
        });
        expected.assert_eq(&states.collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn one_pass_is_health_and_three_failures_are_news() {
        check("--+", expect!["starting starting healthy"]);
        check("+--+", expect!["healthy healthy healthy healthy"]);
        check(
            "+---+",
            expect!["healthy healthy healthy unhealthy healthy"],
        );
    }

    #[test]
    fn a_start_that_takes_too_long_is_unhealthy_until_it_succeeds() {
        check(
            "------+",
            expect!["starting starting starting starting starting unhealthy healthy"],
        );
    }
}
