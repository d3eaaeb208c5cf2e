//! The framing gate: stands between the socket and the HTTP/1 parser, lets whole checked heads and their bodies
//! through, and puts a marked request in the place of a head that is refused, so that the refusal is answered in its
//! turn like any request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{self, Framing, HeadLimits};
use super::watch::{Decision, Watch};
use crate::counted::Counted;
use crate::refusal::{Flaw, Refusal};

/// Bytes that a client may send ahead while it waits for its upgrade to be answered.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes that are still read and thrown away after the last answer, so that the client can read it before a reset.
const LINGER_BYTES_MAX: usize = 256 << 10;
/// Longest extension of one chunk's size.
const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;
/// All trailers of one body together.
const TRAILER_BYTES_MAX: usize = 16 << 10;
/// What hyper reads in the place of a refused head.
const MARK: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Where in the stream of requests the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Length(u64),
    Chunked(Chunk),
    /// The last head asks for another protocol; the exchange has yet to decide.
    Undecided,
    /// Everything passes: a tunnel, or HTTP/2, which has one framing only.
    Open,
    /// Nothing passes any more.
    Shut,
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
        bytes: usize,
    },
    SizeLineFeed {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataLineFeed,
    /// At the start of a trailer line, or of the empty line.
    Trailer {
        bytes: usize,
    },
    TrailerLine {
        bytes: usize,
        colon: bool,
    },
    TrailerLineFeed {
        bytes: usize,
    },
    EndLineFeed,
}

/// What may happen with bytes that were looked at: `pass` of them go on, then…
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// nothing is left.
    Done,
    /// the rest is an incomplete head.
    Hold,
    /// the rest waits for the exchange's decision.
    Decide,
    /// the rest is a head that is refused.
    Refuse(Refusal),
    /// the rest breaks the framing of a body.
    Break,
}

/// A connection's stream behind the gate.
pub(crate) struct Gate<S> {
    stream: Counted<S>,
    scanner: Scanner,
    /// Read but not yet passed on. The first `checked` bytes may go.
    held: Vec<u8>,
    checked: usize,
    broken: bool,
    lingered: usize,
    watch: Arc<Watch>,
}

impl<S: AsyncRead + Unpin> Gate<S> {
    /// Guards a stream from which `first` was already read.
    pub(super) fn http1(
        stream: Counted<S>,
        first: Vec<u8>,
        limits: HeadLimits,
        watch: Arc<Watch>,
    ) -> Self {
        let scanner = Scanner {
            phase: Phase::Head,
            limits,
            heads: 0,
        };
        let mut gate = Gate {
            stream,
            scanner,
            held: first,
            checked: 0,
            broken: false,
            lingered: 0,
            watch,
        };
        if !gate.held.is_empty() {
            gate.scan_held();
        }
        gate
    }

    /// Lets everything pass, after `first`.
    pub(super) fn open(stream: Counted<S>, first: Vec<u8>, watch: Arc<Watch>) -> Self {
        let limits = HeadLimits {
            bytes_max: 0,
            fields_max: 0,
        };
        let scanner = Scanner {
            phase: Phase::Open,
            limits,
            heads: 0,
        };
        let checked = first.len();
        Gate {
            stream,
            scanner,
            held: first,
            checked,
            broken: false,
            lingered: 0,
            watch,
        }
    }

    fn scan_held(&mut self) {
        let (pass, then) = self.scanner.scan(&self.held);
        self.checked = pass;
        self.after_scan(then);
    }

    /// Acts on what the scanner found; `held` starts with the checked bytes, if any are held.
    fn after_scan(&mut self, then: Then) {
        match then {
            Then::Done | Then::Decide => (),
            Then::Hold => self.watch.head_began(),
            Then::Refuse(refusal) => self.refuse(refusal),
            Then::Break => {
                self.held.truncate(self.checked);
                self.broken = true;
                self.scanner.phase = Phase::Shut;
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.held.truncate(self.checked);
        self.held.extend_from_slice(MARK);
        self.checked = self.held.len();
        self.scanner.phase = Phase::Shut;
        self.watch.refuse(self.scanner.heads, refusal);
    }

    /// Passes checked bytes on; returns whether there were any.
    fn pass(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.checked.min(buf.remaining());
        if count == 0 {
            return false;
        }
        buf.put_slice(&self.held[..count]);
        self.checked -= count;
        if count == self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..count);
        }
        true
    }

    /// Reads behind what is held; `Ready(Ok(0))` is the end of the stream.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        const STEP: usize = 4 << 10;
        let len = self.held.len();
        self.held.resize(len + STEP, 0);
        let mut more = ReadBuf::new(&mut self.held[len..]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut more);
        let count = more.filled().len();
        self.held.truncate(len + count);
        ready!(read)?;
        Poll::Ready(Ok(count))
    }

    /// Reads and forgets, up to a limit.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 4 << 10];
        while self.lingered < LINGER_BYTES_MAX {
            let mut bytes = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bytes)) {
                Ok(()) if !bytes.filled().is_empty() => self.lingered += bytes.filled().len(),
                // The end, or a connection that is gone anyway.
                _ => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.pass(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.broken {
                this.broken = false;
                let flaw = Refusal::Malformed(Flaw::Chunk);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, flaw)));
            }
            match this.scanner.phase {
                Phase::Open => return Pin::new(&mut this.stream).poll_read(cx, buf),
                Phase::Shut => {
                    ready!(this.poll_linger(cx));
                    return Poll::Ready(Ok(()));
                }
                Phase::Undecided => match this.watch.decision() {
                    Decision::Tunnel => {
                        this.scanner.phase = Phase::Open;
                        this.checked = this.held.len();
                    }
                    Decision::Plain => {
                        this.scanner.phase = Phase::Head;
                        this.scan_held();
                    }
                    Decision::Open => {
                        this.watch.wait_decision(cx.waker());
                        if this.held.len() >= AHEAD_BYTES_MAX {
                            return Poll::Pending;
                        }
                        if ready!(this.poll_hold(cx))? == 0 {
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Phase::Head if !this.held.is_empty() => {
                    if this.watch.take_expired() {
                        this.refuse(Refusal::HeadTimeout);
                        continue;
                    }
                    let before = this.held.len();
                    if ready!(this.poll_hold(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    // A head only changes its meaning with a whole line: slow bytes cost nothing.
                    let whole = memchr::memchr(b'\n', &this.held[before..]).is_some();
                    if whole || this.held.len() > this.scanner.limits.bytes_max {
                        this.scan_held();
                    }
                }
                Phase::Head | Phase::Length(_) | Phase::Chunked(_) => {
                    let before = buf.filled().len();
                    ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                    let read = &buf.filled()[before..];
                    if read.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    let (pass, then) = this.scanner.scan(read);
                    if pass < read.len() {
                        this.held.extend_from_slice(&read[pass..]);
                        buf.set_filled(before + pass);
                    }
                    this.after_scan(then);
                    if pass > 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.scanner.phase != Phase::Open {
            self.watch.closing();
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// Follows the framing of a connection's requests, byte by byte; it never waits and keeps no bytes.
struct Scanner {
    phase: Phase,
    limits: HeadLimits,
    /// Heads that have passed.
    heads: u64,
}

impl Scanner {
    fn scan(&mut self, bytes: &[u8]) -> (usize, Then) {
        let mut at = 0;
        loop {
            match self.phase {
                Phase::Open => return (bytes.len(), Then::Done),
                Phase::Undecided => return (at, Then::Decide),
                Phase::Shut => return (at, Then::Done),
                _ if at == bytes.len() => return (at, Then::Done),
                Phase::Head => match head::check(&bytes[at..], self.limits) {
                    Ok(Some(head)) => {
                        at += head.len;
                        self.heads += 1;
                        self.phase = match head.framing {
                            Framing::Empty if head.upgrade => Phase::Undecided,
                            Framing::Empty => Phase::Head,
                            Framing::Length(length) => Phase::Length(length),
                            Framing::Chunked => Phase::Chunked(Chunk::Size {
                                value: 0,
                                digits: 0,
                            }),
                        };
                    }
                    Ok(None) => return (at, Then::Hold),
                    Err(refusal) => return (at, Then::Refuse(refusal)),
                },
                Phase::Length(left) => {
                    let here = ((bytes.len() - at) as u64).min(left);
                    at += here as usize;
                    self.phase = if here == left {
                        Phase::Head
                    } else {
                        Phase::Length(left - here)
                    };
                }
                Phase::Chunked(Chunk::Data { left }) => {
                    let here = ((bytes.len() - at) as u64).min(left);
                    at += here as usize;
                    let left = left - here;
                    self.phase = Phase::Chunked(match left {
                        0 => Chunk::DataReturn,
                        left => Chunk::Data { left },
                    });
                }
                Phase::Chunked(chunk) => match chunk.step(bytes[at]) {
                    Some(phase) => {
                        self.phase = phase;
                        at += 1;
                    }
                    None => return (at, Then::Break),
                },
            }
        }
    }
}

impl Chunk {
    /// Returns where the stream stands after one more byte that is no chunk data; `None` when it breaks the framing.
    fn step(self, byte: u8) -> Option<Phase> {
        let next = match (self, byte) {
            (Chunk::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).map(u64::from)?;
                // Sixteen digits fill 64 bits; one less keeps clear of overflow everywhere.
                if digits == 15 {
                    return None;
                }
                Chunk::Size {
                    value: value << 4 | digit,
                    digits: digits + 1,
                }
            }
            (Chunk::Size { digits: 0, .. }, _) => return None,
            (Chunk::Size { value, .. }, b'\r') => Chunk::SizeLineFeed { value },
            (Chunk::Size { value, .. }, b';') => Chunk::Extension { value, bytes: 0 },
            (Chunk::Extension { value, .. }, b'\r') => Chunk::SizeLineFeed { value },
            (Chunk::Extension { .. }, 0..=8 | 10..=0x1f | 0x7f) => return None,
            (Chunk::Extension { value, bytes }, _) if bytes < CHUNK_LINE_BYTES_MAX => {
                Chunk::Extension {
                    value,
                    bytes: bytes + 1,
                }
            }
            (Chunk::SizeLineFeed { value: 0 }, b'\n') => Chunk::Trailer { bytes: 0 },
            (Chunk::SizeLineFeed { value }, b'\n') => Chunk::Data { left: value },
            (Chunk::DataReturn, b'\r') => Chunk::DataLineFeed,
            (Chunk::DataLineFeed, b'\n') => Chunk::Size {
                value: 0,
                digits: 0,
            },
            (Chunk::Trailer { .. }, b'\r') => Chunk::EndLineFeed,
            (Chunk::EndLineFeed, b'\n') => return Some(Phase::Head),
            (Chunk::Trailer { .. }, b' ' | b'\t' | b':' | b'\n') => return None,
            (Chunk::Trailer { bytes }, _) => Chunk::TrailerLine {
                bytes: bytes + 1,
                colon: false,
            },
            (Chunk::TrailerLine { bytes, colon: true }, b'\r') => Chunk::TrailerLineFeed { bytes },
            (Chunk::TrailerLine { bytes, colon }, _) => {
                let bad = match byte {
                    b'\t' | b' ' => !colon,
                    0..=0x1f | 0x7f => true,
                    _ => false,
                };
                if bad || bytes >= TRAILER_BYTES_MAX {
                    return None;
                }
                Chunk::TrailerLine {
                    bytes: bytes + 1,
                    colon: colon || byte == b':',
                }
            }
            (Chunk::TrailerLineFeed { bytes }, b'\n') => Chunk::Trailer { bytes },
            _ => return None,
        };
        Some(Phase::Chunked(next))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes_max: 1024,
        fields_max: 10,
    };

    fn scanner() -> Scanner {
        Scanner {
            phase: Phase::Head,
            limits: LIMITS,
            heads: 0,
        }
    }

    /// Scans in one piece: heads that passed, bytes that passed, and what stopped it.
    fn whole(bytes: &[u8]) -> (u64, usize, Then) {
        let mut scanner = scanner();
        let (pass, then) = scanner.scan(bytes);
        (scanner.heads, pass, then)
    }

    /// The same, byte by byte.
    fn single(bytes: &[u8]) -> (u64, usize, Then) {
        let mut scanner = scanner();
        let (mut start, mut last) = (0, Then::Done);
        for end in 1..=bytes.len() {
            let (passed, then) = scanner.scan(&bytes[start..end]);
            start += passed;
            last = then;
            if matches!(last, Then::Refuse(_) | Then::Break) {
                break;
            }
        }
        (scanner.heads, start, last)
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let bytes = text.as_bytes();
        let (heads, pass, then) = whole(bytes);
        expected.assert_eq(&format!(
            "{heads} heads, {pass} of {} bytes, {then:?}",
            bytes.len()
        ));
        assert_eq!(single(bytes), (heads, pass, then), "byte by byte: {text:?}");
    }

    proptest::proptest! {
        #[test]
        fn pieces_change_nothing(parts in proptest::collection::vec(proptest::sample::select(vec![
            "GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "host: a\r\n", "\r\n", "content-length: 3\r\n",
            "transfer-encoding: chunked\r\n", "upgrade: x\r\n", "x: y\r\n", "3\r\n", "abc", "abc\r\n", "0\r\n", "a;b=c\r\n",
            " ", "\n", "\r", ":", "\0", "x",
        ]), 0..24)) {
            let text = parts.concat();
            proptest::prop_assert_eq!(whole(text.as_bytes()), single(text.as_bytes()), "{:?}", text);
        }
    }

    #[test]
    fn follows_pipelined_requests() {
        check(
            "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            expect!["2 heads, 54 of 54 bytes, Done"],
        );
        check(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nho",
            expect!["1 heads, 50 of 68 bytes, Hold"],
        );
        check(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
            3;x=\"y\"\r\nabc\r\n0a\r\n0123456789\r\n0\r\nt: v\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            expect!["2 heads, 124 of 124 bytes, Done"],
        );
    }

    #[test]
    fn refuses_a_bad_head_after_good_ones() {
        check(
            "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            expect!["1 heads, 27 of 45 bytes, Refuse(Malformed(HostMissing))"],
        );
    }

    #[test]
    fn waits_for_the_decision_after_an_upgrade() {
        check(
            "GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\n\r\nGET",
            expect!["1 heads, 39 of 42 bytes, Decide"],
        );
    }

    #[test]
    fn breaks_at_bad_chunks() {
        let chunked = |body: &str| {
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}")
        };
        for body in [
            "\r\n",
            "g\r\n",
            " 3\r\n",
            "3 \r\n",
            "0x3\r\n",
            "-1\r\n",
            "3\n",
            "3\rx",
            "3\r\nabcd",
            "3\r\nabc\n",
            "3;\n",
            "1111111111111111\r\n",
            "0\r\n\n",
            "0\r\n x: y\r\n",
            "0\r\nx : y\r\n",
            "0\r\nx\r\n",
            "0\r\nx: \0",
            "0\r\n: y\r\n",
            "0\r\nx: y\n",
        ] {
            let text = chunked(body);
            let (_, _, then) = whole(text.as_bytes());
            assert_eq!(then, Then::Break, "{body:?}");
        }
    }
}
