//! What the services print, as one stream of lines.

use std::io;
use std::sync::Arc;

use anstyle::AnsiColor;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;

/// The longest line that is passed on; the rest of a longer one is dropped and marked.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Lines that wait to be shown. When they are that many, the services that print wait.
pub const LINES_QUEUED_MAX: usize = 1024;

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The service's standard output.
    Out,
    /// The service's standard error.
    Err,
    /// Ourselves, about the service.
    Note,
}

/// One line of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The service's name.
    pub service: Arc<str>,
    /// The service's place in the plan, for [`colour`].
    pub place: usize,
    /// Where it comes from.
    pub source: Source,
    /// The text, without the line's end and without control characters but tabs and colours.
    pub text: String,
}

/// Returns the colour of the service at `place` in the plan: the same in every run, and never that of an error.
pub fn colour(place: usize) -> AnsiColor {
    const COLOURS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Yellow,
        AnsiColor::Blue,
        AnsiColor::BrightCyan,
    ];
    COLOURS[place % COLOURS.len()]
}

/// Where supervisors put lines. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    lines: mpsc::Sender<Line>,
}

impl Output {
    pub(crate) fn new() -> (Output, mpsc::Receiver<Line>) {
        let (lines, taken) = mpsc::channel(LINES_QUEUED_MAX);
        (Output { lines }, taken)
    }

    /// Waits for room, so that nothing is lost and nothing grows. Without a reader the line is dropped.
    pub(crate) async fn put(&self, line: Line) {
        _ = self.lines.send(line).await;
    }
}

/// Cuts a stream into lines.
pub(crate) struct Lines<R> {
    stream: BufReader<R>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn of(stream: R) -> Lines<R> {
        Lines {
            stream: BufReader::new(stream),
        }
    }

    /// Returns the next line, or `None` at the stream's end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut dropped = 0usize;
        loop {
            let available = self.stream.fill_buf().await?;
            if available.is_empty() {
                let last = !line.is_empty() || dropped > 0;
                return Ok(last.then(|| clean(&line, dropped)));
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let text = &available[..end.unwrap_or(available.len())];
            let room = LINE_BYTES_MAX - line.len();
            line.extend_from_slice(&text[..text.len().min(room)]);
            dropped += text.len().saturating_sub(room);

            let used = text.len() + usize::from(end.is_some());
            self.stream.consume(used);
            if end.is_some() {
                return Ok(Some(clean(&line, dropped)));
            }
        }
    }
}

/// Makes bytes fit to be shown: no broken letters, and no control characters that would move the cursor.
fn clean(line: &[u8], dropped: usize) -> String {
    let mut text = String::from_utf8_lossy(line).into_owned();
    text.retain(|letter| !letter.is_control() || letter == '\t' || letter == '\u{1b}');
    if dropped > 0 {
        text.push_str(&format!(" … ({dropped} more bytes)"));
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    async fn all(printed: &[u8]) -> Vec<String> {
        let mut lines = Lines::of(printed);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.expect("a slice can be read") {
            seen.push(line);
        }
        seen
    }

    async fn check(printed: &[u8], expected: Expect) {
        expected.assert_eq(&all(printed).await.join("|"));
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends() {
        check(b"", expect![""]).await;
        check(b"one\ntwo\n", expect!["one|two"]).await;
        check(
            b"one\r\n\nlast without end",
            expect!["one||last without end"],
        )
        .await;
        check(
            b"bad \xff utf-8 \x07bell\n",
            expect!["bad \u{fffd} utf-8 bell"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_says_so() {
        let mut printed = vec![b'x'; LINE_BYTES_MAX + 7];
        printed.extend_from_slice(b"\nnext\n");
        let seen = all(&printed).await;
        assert_eq!(seen.len(), 2);
        assert!(
            seen[0].ends_with("x … (7 more bytes)"),
            "{}",
            &seen[0][LINE_BYTES_MAX - 5..]
        );
        assert_eq!(seen[1], "next");
    }
}
