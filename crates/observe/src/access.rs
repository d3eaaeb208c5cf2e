//! Access lines: one line a finished request, written in batches by a thread of its own so that
//! a slow terminal never slows a request.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use jiff::Timestamp;

use crate::flags::Flags;
use crate::metrics::{Counter, Metrics};

/// Lines that may wait for the writer; above it lines are dropped and counted.
pub const LINES_WAITING_MAX: usize = 16_384;

/// The details of an answer that came from an upstream; the JSON line leaves them out.
pub const VIA_UPSTREAM: &str = "via_upstream";

/// What one request was and how it ended.
#[derive(Debug, Clone)]
pub struct Line {
    /// When its head had been read.
    pub started: Timestamp,
    /// From the head being read to the end of the answer's body.
    pub duration: Duration,
    /// The client's address as the connection says it.
    pub peer: Option<SocketAddr>,
    /// `GET`.
    pub method: String,
    /// `example.com:8080`.
    pub authority: String,
    /// Path and query as the client sent them.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The answer's status; 0 when the client left before there was one.
    pub status: u16,
    /// Why the gateway answered by itself, or cut the answer short; empty when it did not.
    pub reason: &'static str,
    /// Envoy's response flags.
    pub flags: Flags,
    /// Envoy's response code details: `via_upstream`, or what happened instead.
    pub details: &'static str,
    /// The matched route's name.
    pub route: Option<Arc<str>>,
    /// The endpoint that answered.
    pub upstream: Option<SocketAddr>,
    /// From the request's start to the first byte of the upstream's answer.
    pub upstream_duration: Option<Duration>,
    /// Body bytes read from the client.
    pub received_bytes: u64,
    /// Body bytes sent to the client.
    pub sent_bytes: u64,
    /// `x-request-id`.
    pub request_id: String,
    /// The trace this request belongs to, if any.
    pub trace_id: Option<u128>,
    /// `user-agent`.
    pub user_agent: String,
}

impl Line {
    /// Writes the line as one JSON object and a line end.
    pub fn write_json(&self, out: &mut String) {
        _ = write!(out, "{{\"access\":\"{:.3}\"", self.started);
        text(out, "method", &self.method);
        text(out, "authority", &self.authority);
        text(out, "path", &self.path);
        text(out, "protocol", self.protocol);
        _ = write!(out, ",\"status\":{}", self.status);
        if !self.reason.is_empty() {
            text(out, "reason", self.reason);
        }
        if !self.flags.is_empty() {
            _ = write!(out, ",\"flags\":\"{}\"", self.flags);
        }
        if !self.details.is_empty() && self.details != VIA_UPSTREAM {
            text(out, "details", self.details);
        }
        if let Some(route) = &self.route {
            text(out, "route", route);
        }
        if let Some(upstream) = self.upstream {
            _ = write!(out, ",\"upstream\":\"{upstream}\"");
        }
        _ = write!(
            out,
            ",\"duration_ms\":{:.3}",
            self.duration.as_secs_f64() * 1e3
        );
        if let Some(duration) = self.upstream_duration {
            _ = write!(out, ",\"upstream_ms\":{:.3}", duration.as_secs_f64() * 1e3);
        }
        _ = write!(
            out,
            ",\"received\":{},\"sent\":{}",
            self.received_bytes, self.sent_bytes
        );
        if let Some(peer) = self.peer {
            _ = write!(out, ",\"peer\":\"{peer}\"");
        }
        if !self.request_id.is_empty() {
            text(out, "request_id", &self.request_id);
        }
        if let Some(trace) = self.trace_id {
            _ = write!(out, ",\"trace_id\":\"{trace:032x}\"");
        }
        if !self.user_agent.is_empty() {
            text(out, "user_agent", &self.user_agent);
        }
        out.push_str("}\n");
    }
}

fn text(out: &mut String, key: &str, value: &str) {
    _ = write!(out, ",\"{key}\":");
    let quoted = serde_json::to_string(value).expect("a string is always valid JSON");
    out.push_str(&quoted);
}

/// Where access lines go. Clones share the writer; when the last one is dropped, what waits is still written.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: Option<SyncSender<Line>>,
    dropped: Counter,
}

impl AccessLog {
    /// Returns a log that writes nothing.
    pub fn off(metrics: &Metrics) -> Self {
        AccessLog {
            queue: None,
            dropped: dropped(metrics),
        }
    }

    /// Starts the writer's thread.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(out: impl Write + Send + 'static, metrics: &Metrics) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(LINES_WAITING_MAX);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(lines, out))?;
        Ok(AccessLog {
            queue: Some(queue),
            dropped: dropped(metrics),
        })
    }

    /// Returns whether lines are written, so that a caller can save itself the making of one.
    pub fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a line to the writer; drops and counts it when too many wait.
    pub fn write(&self, line: Line) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(line) {
            self.dropped.inc();
        }
    }
}

fn dropped(metrics: &Metrics) -> Counter {
    metrics.counter(
        "nuncio_access_lines_dropped",
        "Access lines dropped because the writer was too slow or its output closed.",
        &[],
    )
}

fn write_all(lines: Receiver<Line>, mut out: impl Write) {
    let mut buffer = String::with_capacity(64 * 1024);
    while let Ok(line) = lines.recv() {
        buffer.clear();
        line.write_json(&mut buffer);
        while buffer.len() < 60 * 1024 {
            let Ok(line) = lines.try_recv() else { break };
            line.write_json(&mut buffer);
        }
        if let Err(error) = out.write_all(buffer.as_bytes()).and_then(|()| out.flush()) {
            tracing::error!(%error, "access lines cannot be written any more");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            started: Timestamp::UNIX_EPOCH,
            duration: Duration::from_micros(1500),
            peer: Some(([127, 0, 0, 1], 4000).into()),
            method: "GET".into(),
            authority: "shop.example".into(),
            path: "/orders/\"1\"".into(),
            protocol: "HTTP/1.1",
            status: 200,
            reason: "",
            flags: Flags::URX.with(Flags::UF),
            details: "direct_response",
            route: Some("orders".into()),
            upstream: None,
            upstream_duration: None,
            received_bytes: 0,
            sent_bytes: 12,
            request_id: "r".into(),
            trace_id: Some(1),
            user_agent: String::new(),
        }
    }

    #[test]
    fn a_line_is_one_json_object() {
        let mut out = String::new();
        line().write_json(&mut out);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["path"], "/orders/\"1\"");
        assert_eq!(value["access"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["duration_ms"], 1.5);
        assert!(value.get("reason").is_none());
        assert_eq!(value["flags"], "UF,URX");
        assert_eq!(value["details"], "direct_response");
        assert!(out.ends_with("}\n"));
    }

    #[test]
    fn waiting_lines_are_written_after_the_last_handle_is_gone() {
        let (reader, writer) = std::io::pipe().unwrap();
        let log = AccessLog::start(writer, &Metrics::default()).unwrap();
        for _ in 0..3 {
            log.write(line());
        }
        drop(log);
        let text = std::io::read_to_string(reader).unwrap();
        assert_eq!(text.lines().count(), 3);
    }
}
