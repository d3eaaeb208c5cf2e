//! Reads request heads as bytes, before any parser that repairs what it reads. A head that two servers could
//! understand differently is refused here: that is how request smuggling starts.

use memchr::memchr;

use crate::refusal::{Flaw, Refusal};

/// Empty lines in front of a request.
const EMPTY_LINES_MAX: usize = 4;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    /// Bytes from the request line to the empty line.
    pub(crate) bytes_max: usize,
    /// Header lines.
    pub(crate) fields_max: usize,
}

/// What the bytes after a head are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

/// A head that can be understood in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the head, the empty line included.
    pub(super) len: usize,
    pub(super) framing: Framing,
    /// Whether another protocol may follow it.
    pub(super) upgrade: bool,
}

/// Checks the head at the start of `bytes`; `None` when it has not arrived entirely.
pub(super) fn check(bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, Refusal> {
    let mut lines = Lines { bytes, at: 0 };
    let mut empty = 0;
    let request_line = loop {
        match lines.next(limits)? {
            None => return Ok(None),
            // RFC 9112, 2.2: empty lines in front of a request are passed over.
            Some([]) if empty < EMPTY_LINES_MAX => empty += 1,
            Some([]) => return Err(Refusal::Malformed(Flaw::RequestLine)),
            Some(line) => break line,
        }
    };
    let (target, old) = request_line_parts(request_line)?;

    let mut found = Found::default();
    loop {
        match lines.next(limits)? {
            None => return Ok(None),
            Some([]) => break,
            Some(line) => found.header(line, limits)?,
        }
    }
    if lines.at > limits.bytes_max {
        return Err(Refusal::HeadTooLarge);
    }
    found.host_agrees(target)?;
    let framing = match (found.length, found.chunked) {
        (Some(_), true) => return Err(Refusal::Malformed(Flaw::LengthAndCoding)),
        (None, true) if old => return Err(Refusal::Malformed(Flaw::TransferEncoding)),
        (None, true) => Framing::Chunked,
        (None | Some(0), false) => Framing::Empty,
        (Some(length), false) => Framing::Length(length),
    };
    let upgrade = found.upgrade && !old && framing == Framing::Empty;
    Ok(Some(Head {
        len: lines.at,
        framing,
        upgrade,
    }))
}

/// The lines of a head without their CRLF.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self, limits: HeadLimits) -> Result<Option<&'a [u8]>, Refusal> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr(b'\n', rest) else {
            if self.bytes.len() > limits.bytes_max {
                return Err(Refusal::HeadTooLarge);
            }
            return Ok(None);
        };
        self.at += end + 1;
        match rest[..end].split_last() {
            Some((b'\r', line)) => Ok(Some(line)),
            _ => Err(Refusal::Malformed(Flaw::BareLineFeed)),
        }
    }
}

/// Returns the target, and whether the version is 1.0.
fn request_line_parts(line: &[u8]) -> Result<(&[u8], bool), Refusal> {
    const BAD: Refusal = Refusal::Malformed(Flaw::RequestLine);
    let space = memchr(b' ', line).ok_or(BAD)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    let (target, version) = rest
        .split_at_checked(rest.len().saturating_sub(9))
        .ok_or(BAD)?;
    let old = match version {
        b" HTTP/1.1" => false,
        b" HTTP/1.0" => true,
        _ => return Err(BAD),
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(BAD);
    }
    if target.is_empty()
        || target
            .iter()
            .any(|byte| matches!(byte, 0..=0x20 | 0x7f | b'#'))
    {
        return Err(BAD);
    }
    if method == b"CONNECT" {
        return Err(Refusal::Connect);
    }
    match target[0] {
        b'/' => Ok((target, old)),
        b'*' if target.len() == 1 && method == b"OPTIONS" => Ok((target, old)),
        _ if authority(target).is_some() => Ok((target, old)),
        _ => Err(BAD),
    }
}

/// Returns the authority of a target in absolute form.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.get(..5)?;
    let rest = if scheme.eq_ignore_ascii_case(b"http:") {
        &target[5..]
    } else if target.get(..6)?.eq_ignore_ascii_case(b"https:") {
        &target[6..]
    } else {
        return None;
    };
    let rest = rest.strip_prefix(b"//")?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    (end > 0).then_some(&rest[..end])
}

/// What the headers of one head say about its framing and its host.
#[derive(Default)]
struct Found<'a> {
    fields: usize,
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl<'a> Found<'a> {
    fn header(&mut self, line: &'a [u8], limits: HeadLimits) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limits.fields_max {
            return Err(Refusal::HeadersTooMany);
        }
        let flaw = |flaw| Err(Refusal::Malformed(flaw));
        if matches!(line[0], b' ' | b'\t') {
            return flaw(Flaw::Folded);
        }
        let Some(colon) = memchr(b':', line) else {
            return flaw(Flaw::HeaderName);
        };
        let name = &line[..colon];
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return flaw(Flaw::HeaderName);
        }
        let value = &line[colon + 1..];
        if value
            .iter()
            .any(|byte| matches!(byte, 0..=8 | 10..=0x1f | 0x7f))
        {
            return flaw(Flaw::HeaderValue);
        }
        let named = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            4 if named(b"host") => {
                if self.host.is_some() {
                    return flaw(Flaw::HostRepeated);
                }
                self.host = Some(trim(value));
            }
            14 if named(b"content-length") => match (self.length, plain_number(trim(value))) {
                (None, Some(length)) => self.length = Some(length),
                _ => return flaw(Flaw::ContentLength),
            },
            17 if named(b"transfer-encoding") => {
                if self.chunked || !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return flaw(Flaw::TransferEncoding);
                }
                self.chunked = true;
            }
            7 if named(b"upgrade") => self.upgrade = true,
            _ => (),
        }
        Ok(())
    }

    fn host_agrees(&self, target: &[u8]) -> Result<(), Refusal> {
        let flaw = |flaw| Err(Refusal::Malformed(flaw));
        let Some(host) = self.host else {
            return flaw(Flaw::HostMissing);
        };
        if !is_host(host) {
            return flaw(Flaw::HostMalformed);
        }
        match authority(target) {
            Some(authority) if !authority.eq_ignore_ascii_case(host) => flaw(Flaw::HostMismatch),
            _ => Ok(()),
        }
    }
}

fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// Returns the number of a value that is digits and nothing else.
fn plain_number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u64::from(byte - b'0')),
        _ => None,
    })
}

/// Returns whether the bytes are a host name, an IPv4 address or an IPv6 address in brackets, with an optional port.
pub(crate) fn is_host(host: &[u8]) -> bool {
    let (name_good, port) = match host {
        [b'[', rest @ ..] => {
            let Some(end) = memchr(b']', rest) else {
                return false;
            };
            let inner = &rest[..end];
            let good = inner.len() >= 2
                && inner
                    .iter()
                    .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
            (good, &rest[end + 1..])
        }
        _ => {
            let end = memchr(b':', host).unwrap_or(host.len());
            let name = &host[..end];
            let good = !name.is_empty()
                && name
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
            (good, &host[end..])
        }
    };
    let port_good = match port {
        [] => true,
        [b':', digits @ ..] => {
            (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    name_good && port_good
}

/// Returns whether a method or a header name may hold the byte (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = matches!(byte as u8,
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
                | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
            byte += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes_max: 1024,
        fields_max: 10,
    };

    #[track_caller]
    fn check_head(head: &str, expected: &str) {
        let said = match check(head.as_bytes(), LIMITS) {
            Ok(None) => "partial".to_owned(),
            Ok(Some(Head {
                len,
                framing,
                upgrade,
            })) => {
                assert_eq!(len, head.len(), "the whole of {head:?}");
                format!("{framing:?}{}", if upgrade { " upgrade" } else { "" })
            }
            Err(refusal) => refusal.to_string(),
        };
        assert_eq!(said, expected, "{head:?}");
    }

    #[test]
    fn plain_heads_pass() {
        check_head("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "Empty");
        check_head("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "Empty");
        check_head("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "Empty");
        check_head(
            "POST / HTTP/1.1\r\nHost: a:80\r\nContent-Length: 7\r\n\r\n",
            "Length(7)",
        );
        check_head(
            "POST / HTTP/1.1\r\nhost:a\r\ntransfer-encoding:Chunked \r\n\r\n",
            "Chunked",
        );
        check_head(
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\nUpgrade: websocket\r\n\r\n",
            "Empty upgrade",
        );
        check_head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "Empty");
        check_head("GET http://A/x HTTP/1.1\r\nHost: a\r\n\r\n", "Empty");
        check_head("GET / HTTP/1.1\r\nHost: a\r\n", "partial");
        check_head("GET / HT", "partial");
        check_head(
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\nY:\r\n\r\n",
            "Empty",
        );
    }

    #[test]
    fn broken_framing_is_refused() {
        let post = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
        let both = "bad request: both content-length and transfer-encoding";
        check_head(
            &post("Content-Length: 1\r\nTransfer-Encoding: chunked"),
            both,
        );
        check_head(
            &post("Transfer-Encoding: chunked\r\nContent-Length: 1"),
            both,
        );
        let coding = "bad request: the transfer-encoding is not exactly `chunked`";
        for value in [
            "chunked, chunked",
            "gzip, chunked",
            "identity",
            "xchunked",
            "chunked;q=1",
            "",
            "\"chunked\"",
        ] {
            check_head(&post(&format!("Transfer-Encoding: {value}")), coding);
        }
        check_head(
            &post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            coding,
        );
        check_head(
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            coding,
        );
        let length = "bad request: the content-length is not one plain number";
        for value in [
            "+1",
            "-1",
            "0x1",
            "1,1",
            "1, 1",
            "1 1",
            "",
            "99999999999999999999",
            "1;",
        ] {
            check_head(&post(&format!("Content-Length: {value}")), length);
        }
        check_head(&post("Content-Length: 1\r\nContent-Length: 1"), length);
    }

    #[test]
    fn broken_lines_are_refused() {
        let get = |headers: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
        check_head(
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "bad request: a line does not end with CRLF",
        );
        check_head(
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "bad request: a line does not end with CRLF",
        );
        check_head(
            &get("X: a\n b"),
            "bad request: a line does not end with CRLF",
        );
        check_head(
            &get("X: a\rY: b"),
            "bad request: a header value holds a control character",
        );
        check_head(
            &get("X: a\0"),
            "bad request: a header value holds a control character",
        );
        check_head(
            &get("X: a\r\n b"),
            "bad request: a header is folded over lines",
        );
        let name = "bad request: a header name is malformed";
        for line in [
            "X : a",
            ": a",
            "X a",
            "Content-Length\t: 5",
            "X\u{e9}: a",
            "Transfer-Encoding\u{b}: chunked",
        ] {
            check_head(&get(line), name);
        }
        let line = "bad request: the request line is malformed";
        for request in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET /",
            "GET / http/1.1",
            " GET / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /#a HTTP/1.1",
            "GET a HTTP/1.1",
            "G@T / HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET * HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / HTTP/1.1 ",
        ] {
            check_head(&format!("{request}\r\nHost: a\r\n\r\n"), line);
        }
        check_head(
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            "CONNECT is not served",
        );
    }

    #[test]
    fn the_host_is_one_and_valid_and_the_target_agrees() {
        let host = |headers: &str| format!("GET / HTTP/1.1\r\n{headers}X: y\r\n\r\n");
        check_head(&host(""), "bad request: the host is missing");
        check_head(
            &host("Host: a\r\nHost: a\r\n"),
            "bad request: more than one host",
        );
        for value in [
            "", "a b", "a,b", "a@b", "a/b", "a:", "a:x", "a:123456", "[::1", "[]", "[g::1]",
            "http://a", "a:80:80",
        ] {
            check_head(
                &host(&format!("Host: {value}\r\n")),
                "bad request: the host is malformed",
            );
        }
        check_head(
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "bad request: the target and the host name different authorities",
        );
    }

    #[test]
    fn heads_have_limits() {
        let fields = "X: y\r\n".repeat(10);
        check_head(
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
            "too many header fields",
        );
        let long = "y".repeat(1024);
        check_head(
            &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            "request head too large",
        );
        check_head(&format!("GET /{long}"), "request head too large");
    }
}
