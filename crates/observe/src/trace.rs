//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): read, continued, written.

use std::fmt::{self, Write as _};

/// One span's place in a trace: what a `traceparent` header carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Identifies the whole trace; never zero.
    pub trace_id: u128,
    /// Identifies the span; never zero.
    pub span_id: u64,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// The length of a written `traceparent`.
    pub const TEXT_LEN: usize = 55;

    /// Starts a new trace.
    pub fn start(sampled: bool) -> Self {
        TraceContext {
            trace_id: rand::random::<u128>().max(1),
            span_id: rand::random::<u64>().max(1),
            sampled,
        }
    }

    /// Reads a `traceparent` value. Any malformed value, all-zero ids and version `ff` give `None`, after which a new
    /// trace starts, as the standard asks. Versions above `00` are read by their first four fields.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (version, rest) = (text.get(..2)?, text.get(2..)?);
        let longer_allowed = version != b"00";
        if version == b"ff" || hex(version)? > 0xff || rest.len() < Self::TEXT_LEN - 2 {
            return None;
        }
        match rest.get(Self::TEXT_LEN - 2) {
            None => (),
            Some(b'-') if longer_allowed => (),
            Some(_) => return None,
        }
        if rest[0] != b'-' || rest[33] != b'-' || rest[50] != b'-' {
            return None;
        }
        let trace_id = hex(&rest[1..33])?;
        let span_id = hex(&rest[34..50])? as u64;
        let flags = hex(&rest[51..53])?;
        (trace_id != 0 && span_id != 0).then_some(TraceContext {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// Returns a new span in the same trace.
    pub fn child(&self) -> Self {
        TraceContext {
            span_id: rand::random::<u64>().max(1),
            ..*self
        }
    }

    /// Returns the `traceparent` value.
    pub fn header(&self) -> String {
        let mut text = String::with_capacity(Self::TEXT_LEN);
        write!(text, "{self}").expect("writing to a String cannot fail");
        text
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }
}

/// Reads lower-case hexadecimal digits, at most 32 of them.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let parsed = TraceContext::parse(text.as_bytes()).map(|context| context.header());
        assert_eq!(parsed.as_deref(), expected, "{text}");
    }

    #[test]
    fn a_good_parent_reads_and_writes_the_same() {
        check(GOOD, Some(GOOD));
        check(
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            Some(GOOD),
        );
    }

    #[test]
    fn a_malformed_parent_starts_a_new_trace() {
        check("", None);
        check(
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            None,
        );
        check(
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            None,
        );
        check(
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            None,
        );
        check(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            None,
        );
        check(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            None,
        );
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None);
    }

    #[test]
    fn a_child_stays_in_the_trace() {
        let parent = TraceContext::start(true);
        let child = parent.child();
        assert_eq!((child.trace_id, child.sampled), (parent.trace_id, true));
        assert_ne!(child.span_id, parent.span_id);
    }
}
