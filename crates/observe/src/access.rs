//! Access lines: one line a finished request, written in batches by a thread of its own so that
//! a slow terminal never slows a request.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::flags::Flags;
use crate::metrics::{Counter, Metrics};

/// Lines that may wait for the writer; above it lines are dropped and counted.
pub const LINES_WAITING_MAX: usize = 16_384;

/// How often it is looked whether a log file was moved away.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

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
    /// What the client has sent.
    pub texts: Texts,
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
    /// The trace this request belongs to, if any.
    pub trace_id: Option<u128>,
    /// How its connection is secured, if it is.
    pub tls: Option<Arc<Secured>>,
}

/// How a connection is secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client has asked for; empty when it has asked for none.
    pub server_name: Box<str>,
    /// Whose certificate the client has shown; empty when it has shown none.
    pub subject: Box<str>,
}

/// What a client has sent, one text behind the other in one piece of memory.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    all: String,
    /// Where all but the first begin.
    authority_at: usize,
    path_at: usize,
    user_agent_at: usize,
    request_id_at: usize,
}

/// Room for a request id, which comes later.
const REQUEST_ID_BYTES: usize = 36;

impl Texts {
    /// Keeps a method such as `GET`, an authority such as `example.com:8080`, path and query as the client sent them, and
    /// the `user-agent`.
    pub fn new(method: &str, authority: &str, path: &str, user_agent: &str) -> Self {
        let texts = [method, authority, path, user_agent];
        let length: usize = texts.iter().map(|text| text.len()).sum();
        let mut all = String::with_capacity(length + REQUEST_ID_BYTES);
        let [authority_at, path_at, user_agent_at, request_id_at] = texts.map(|text| {
            all.push_str(text);
            all.len()
        });
        Texts {
            all,
            authority_at,
            path_at,
            user_agent_at,
            request_id_at,
        }
    }

    /// Keeps the `x-request-id` too.
    pub fn identify(&mut self, request_id: &str) {
        self.all.truncate(self.request_id_at);
        self.all.push_str(request_id);
    }

    fn method(&self) -> &str {
        &self.all[..self.authority_at]
    }

    fn authority(&self) -> &str {
        &self.all[self.authority_at..self.path_at]
    }

    fn path(&self) -> &str {
        &self.all[self.path_at..self.user_agent_at]
    }

    fn user_agent(&self) -> &str {
        &self.all[self.user_agent_at..self.request_id_at]
    }

    fn request_id(&self) -> &str {
        &self.all[self.request_id_at..]
    }
}

impl Line {
    /// Writes the line as one JSON object and a line end.
    pub fn write_json(&self, out: &mut String) {
        _ = write!(out, "{{\"access\":\"{:.3}\"", self.started);
        text(out, "method", self.texts.method());
        text(out, "authority", self.texts.authority());
        text(out, "path", self.texts.path());
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
        if !self.texts.request_id().is_empty() {
            text(out, "request_id", self.texts.request_id());
        }
        if let Some(trace) = self.trace_id {
            _ = write!(out, ",\"trace_id\":\"{trace:032x}\"");
        }
        if let Some(tls) = &self.tls {
            text(out, "tls", tls.version);
            for (key, value) in [("sni", &tls.server_name), ("client_subject", &tls.subject)] {
                if !value.is_empty() {
                    text(out, key, value);
                }
            }
        }
        if !self.texts.user_agent().is_empty() {
            text(out, "user_agent", self.texts.user_agent());
        }
        out.push_str("}\n");
    }
}

fn text(out: &mut String, key: &str, value: &str) {
    _ = write!(out, ",\"{key}\":");
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        out.push('"');
        out.push_str(value);
        out.push('"');
        return;
    }
    let quoted = serde_json::to_string(value).expect("a string is always valid JSON");
    out.push_str(&quoted);
}

/// Where access lines go. Clones share the writer; when the last one is dropped, what waits is still written.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: Option<SyncSender<Entry>>,
    /// The file that lines go to, if it is not what the log was started with.
    path: Arc<Mutex<Option<PathBuf>>>,
    dropped: Counter,
}

/// What waits for the writer.
enum Entry {
    Line(Box<Line>),
    /// A whole line with its end.
    Text(String),
    /// Lines go there from now on; `None` stands for what the log was started with.
    To(Option<Target>),
}

impl AccessLog {
    /// Returns a log that writes nothing.
    pub fn off(metrics: &Metrics) -> Self {
        AccessLog {
            queue: None,
            path: Arc::default(),
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
            path: Arc::default(),
            dropped: dropped(metrics),
        })
    }

    /// Returns whether lines are written, so that a caller can save itself the making of one.
    pub fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a line to the writer; drops and counts it when too many wait.
    pub fn write(&self, line: Box<Line>) {
        self.send(Entry::Line(line));
    }

    /// Hands over a line that is written already, its end included.
    pub fn write_text(&self, line: String) {
        self.send(Entry::Text(line));
    }

    /// Lines go to the file at this path from now on, which is appended to; `None` and `/dev/stdout` stand for what the
    /// log was started with. A file that is moved away is made again.
    ///
    /// # Errors
    /// When the file cannot be opened; lines then go where they went.
    pub fn set_path(&self, path: Option<&Path>) -> io::Result<()> {
        let path = path.filter(|path| *path != Path::new("/dev/stdout"));
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        let mut present = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if present.as_deref() == path {
            return Ok(());
        }
        let target = path.map(Target::open).transpose()?;
        if queue.send(Entry::To(target)).is_ok() {
            *present = path.map(Path::to_owned);
        }
        Ok(())
    }

    fn send(&self, entry: Entry) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(entry) {
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

/// A file that access lines go to.
struct Target {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
        };
        Ok(Target {
            path: path.to_owned(),
            file: file.map_err(named)?,
            looked: Instant::now(),
        })
    }

    /// Opens the file anew when it was moved away or removed, as those who rotate logs do.
    fn follow(&mut self) {
        if self.looked.elapsed() < FOLLOW_EVERY {
            return;
        }
        self.looked = Instant::now();
        let there = std::fs::metadata(&self.path).ok();
        let ours = self.file.metadata().ok();
        let same = match (there, ours) {
            (Some(there), Some(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        };
        if same {
            return;
        }
        match Target::open(&self.path) {
            Ok(target) => *self = target,
            Err(error) => tracing::error!(%error, "the access log cannot be opened again"),
        }
    }
}

fn write_all(entries: Receiver<Entry>, mut out: impl Write) {
    let mut buffer = String::with_capacity(64 * 1024);
    let mut target: Option<Target> = None;
    let mut next = None;
    while let Some(entry) = next.take().or_else(|| entries.recv().ok()) {
        buffer.clear();
        let mut entry = Some(entry);
        while let Some(one) = entry {
            match one {
                Entry::Line(line) => line.write_json(&mut buffer),
                Entry::Text(line) => buffer.push_str(&line),
                // What came before goes where it was meant to go.
                other @ Entry::To(_) if !buffer.is_empty() => {
                    next = Some(other);
                    break;
                }
                Entry::To(to) => target = to,
            }
            let room = buffer.len() < 60 * 1024;
            entry = room.then(|| entries.try_recv().ok()).flatten();
        }
        let written = match &mut target {
            Some(target) => {
                target.follow();
                target.file.write_all(buffer.as_bytes())
            }
            None => out.write_all(buffer.as_bytes()).and_then(|()| out.flush()),
        };
        match (written, &target) {
            (Ok(()), _) => (),
            // A full disk may have room again.
            (Err(error), Some(_)) => tracing::error!(%error, "access lines are lost"),
            (Err(error), None) => {
                tracing::error!(%error, "access lines cannot be written any more");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let mut texts = Texts::new("GET", "shop.example", "/orders/\"1\"", "");
        texts.identify("longer than the next");
        texts.identify("r");
        Line {
            texts,
            started: Timestamp::UNIX_EPOCH,
            duration: Duration::from_micros(1500),
            peer: Some(([127, 0, 0, 1], 4000).into()),
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
            trace_id: Some(1),
            tls: Some(Arc::new(Secured {
                version: "TLSv1.3",
                server_name: "shop.example".into(),
                subject: "".into(),
            })),
        }
    }

    #[test]
    fn a_line_is_one_json_object() {
        let mut out = String::new();
        line().write_json(&mut out);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["path"], "/orders/\"1\"");
        assert_eq!(value["method"], "GET");
        assert_eq!(value["authority"], "shop.example");
        assert_eq!(value["request_id"], "r");
        assert!(value.get("user_agent").is_none());
        assert_eq!(value["access"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["duration_ms"], 1.5);
        assert!(value.get("reason").is_none());
        assert_eq!(value["flags"], "UF,URX");
        assert_eq!(value["details"], "direct_response");
        assert_eq!(
            (&value["tls"], &value["sni"]),
            (&"TLSv1.3".into(), &"shop.example".into())
        );
        assert!(value.get("client_subject").is_none());
        assert!(out.ends_with("}\n"));
    }

    #[test]
    fn waiting_lines_are_written_after_the_last_handle_is_gone() {
        let (reader, writer) = std::io::pipe().unwrap();
        let log = AccessLog::start(writer, &Metrics::default()).unwrap();
        for _ in 0..3 {
            log.write(Box::new(line()));
        }
        drop(log);
        let text = std::io::read_to_string(reader).unwrap();
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn lines_go_to_the_file_that_is_asked_for_and_back() {
        let folder = std::env::temp_dir().join(format!("nuncio-access-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("access.log");
        let (reader, writer) = std::io::pipe().unwrap();
        let log = AccessLog::start(writer, &Metrics::default()).unwrap();
        log.write_text("first\n".into());
        log.set_path(Some(&path)).unwrap();
        log.write_text("second\n".into());
        assert!(log.set_path(Some(&folder)).is_err());
        log.write_text("third\n".into());
        log.set_path(Some(Path::new("/dev/stdout"))).unwrap();
        log.write_text("fourth\n".into());
        drop(log);
        let out = std::io::read_to_string(reader).unwrap();
        let file = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            (out.as_str(), file.as_str()),
            ("first\nfourth\n", "second\nthird\n")
        );
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let folder = std::env::temp_dir().join(format!("nuncio-rotate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, old) = (folder.join("access.log"), folder.join("access.log.1"));
        let mut target = Target::open(&path).unwrap();
        target.file.write_all(b"first\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        target.looked = Instant::now().checked_sub(FOLLOW_EVERY).unwrap();
        target.follow();
        target.file.write_all(b"second\n").unwrap();
        let told = [&old, &path].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(told, ["first\n", "second\n"]);
    }
}
