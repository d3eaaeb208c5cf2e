//! Plain TCP: what a client library would never send, and what it would hide.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(10);
/// What says that nothing more comes: of a socket, and of TLS.
const ENDS: [io::ErrorKind; 3] = [
    io::ErrorKind::ConnectionReset,
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::InvalidData,
];
/// Most bytes that one answer may have.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What carries the bytes.
pub trait Wire: Read + Write + Send {
    /// Says that nothing more comes.
    fn finish(&mut self) -> io::Result<()>;
}

impl Wire for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A raw connection with a limit on every wait.
pub struct Raw {
    stream: Box<dyn Wire>,
    /// Read from the socket, not yet asked for.
    ahead: Vec<u8>,
}

impl Raw {
    /// Connects.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => stream,
            Err(error) => panic!("could not connect to {address}: {error}"),
        };
        Self::of(stream)
    }

    /// Takes over a connection, such as one that was accepted.
    pub fn of(stream: TcpStream) -> Self {
        stream
            .set_nodelay(true)
            .expect("a connected socket takes options");
        stream
            .set_read_timeout(Some(LIMIT))
            .expect("a connected socket takes options");
        stream
            .set_write_timeout(Some(LIMIT))
            .expect("a connected socket takes options");
        Self::over(stream)
    }

    /// Speaks over something that has a limit on every wait itself.
    pub fn over(wire: impl Wire + 'static) -> Self {
        Self {
            stream: Box::new(wire),
            ahead: Vec::new(),
        }
    }

    /// Sends all bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            panic!("could not send: {error}");
        }
    }

    /// Sends all bytes, or returns false when the other side has closed.
    #[must_use]
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Tells the other side that nothing more comes.
    pub fn finish(&mut self) {
        // An error says that the other side was faster.
        _ = self.stream.finish();
    }

    /// Returns exactly so many bytes.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            if !self.read_more() {
                panic!(
                    "closed after {} of {count} bytes: {:?}",
                    self.ahead.len(),
                    text(&self.ahead)
                );
            }
        }
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Returns everything up to and including the mark, for example `\r\n\r\n`.
    #[track_caller]
    pub fn take_until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self
                .ahead
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return self.take(at + mark.len());
            }
            if !self.read_more() {
                panic!("closed before {:?}: {:?}", text(mark), text(&self.ahead));
            }
        }
    }

    /// Like [`Raw::take_until`], but `None` when the other side closes first.
    #[track_caller]
    pub fn try_take_until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .ahead
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return Some(self.take(at + mark.len()));
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    /// Returns everything until the other side closes (or resets) the connection.
    #[track_caller]
    pub fn take_to_end(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.ahead)
    }

    /// Reads one HTTP/1.1 response with a `content-length`, a chunked or no body: its head and its body's bytes.
    #[track_caller]
    pub fn take_response(&mut self) -> Response {
        let head = text(&self.take_until(b"\r\n\r\n"));
        let header = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("not a response: {head:?}"));
        let body = if (100..200).contains(&status) || status == 204 || status == 304 {
            Vec::new()
        } else if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            self.take_chunks()
        } else if let Some(length) = header("content-length") {
            let length = length
                .parse()
                .unwrap_or_else(|_| panic!("odd content-length in {head:?}"));
            self.take(length)
        } else {
            self.take_to_end()
        };
        Response { status, head, body }
    }

    fn take_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = text(&self.take_until(b"\r\n"));
            let digits = line.trim_end().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16)
                .unwrap_or_else(|_| panic!("odd chunk size {line:?}"));
            if size == 0 {
                while self.take_until(b"\r\n") != b"\r\n" {}
                return body;
            }
            body.extend(self.take(size));
            assert_eq!(self.take(2), b"\r\n", "a chunk ends with CRLF");
        }
    }

    /// Returns whether the other side closes the connection without another byte.
    pub fn closes(&mut self) -> bool {
        self.ahead.is_empty() && !self.read_more()
    }

    /// Sends one Kafka request (with its size in front) and returns the answer without its size.
    #[track_caller]
    pub fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let size = i32::try_from(request.len()).expect("test requests are small");
        self.send(size.to_be_bytes());
        self.send(request);
        self.take_frame()
    }

    /// Returns the next frame with a 4-byte size in front, without the size.
    #[track_caller]
    pub fn take_frame(&mut self) -> Vec<u8> {
        let size: [u8; 4] = self.take(4).try_into().expect("four bytes were asked for");
        let size = usize::try_from(i32::from_be_bytes(size)).expect("sizes are not negative");
        assert!(size <= ANSWER_BYTES_MAX, "an answer of {size} bytes");
        self.take(size)
    }

    /// Returns false at the end of the stream.
    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        let begun = Instant::now();
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.ahead.extend_from_slice(&bytes[..count]);
                assert!(self.ahead.len() <= ANSWER_BYTES_MAX, "an endless answer");
                true
            }
            // A TLS alert, too, says that nothing more comes.
            Err(error) if ENDS.contains(&error.kind()) => false,
            Err(error) => {
                let after = begun.elapsed();
                panic!(
                    "no answer ({error}) after {after:?}; so far: {:?}",
                    text(&self.ahead)
                )
            }
        }
    }
}

/// One HTTP/1.1 response as it came.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The status line and the headers, up to the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// Returns all values of a header, in the order they came.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {}\n{}", self.head, text(&self.body)),
        }
    }
}

/// Sends one HTTP/1.1 request on its own connection: `request` is the request line and the headers, one a line.
///
/// ```no_run
/// let gateway = "127.0.0.1:8080".parse().unwrap();
/// let answer = testkit::raw::http(gateway, "GET /orders/ HTTP/1.1\nhost: shop", "");
/// assert_eq!(answer.status, 200);
/// ```
#[track_caller]
pub fn http(address: SocketAddr, request: &str, body: impl AsRef<[u8]>) -> Response {
    ask(&mut Raw::connect(address), request, body)
}

/// Sends one HTTP/1.1 request on a connection, its last one.
#[track_caller]
pub fn ask(raw: &mut Raw, request: &str, body: impl AsRef<[u8]>) -> Response {
    let body = body.as_ref();
    let mut head = String::new();
    for line in request.lines() {
        head.push_str(line);
        head.push_str("\r\n");
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("connection: close\r\n\r\n");
    raw.send([head.as_bytes(), body].concat());
    raw.take_response()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
