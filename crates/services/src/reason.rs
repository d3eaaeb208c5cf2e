//! Finds the line that says why a service ended, among the last ones that it printed.

use std::collections::VecDeque;

/// Lines of standard error that are looked at; a stack trace stands between the reason and the end.
const LINES_KEPT_MAX: usize = 200;

/// The longest reason; it has to fit on a line of a table.
const REASON_CHARS_MAX: usize = 200;

/// The last lines that a service printed to its standard error.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    pub(crate) fn push(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == LINES_KEPT_MAX {
            self.lines.pop_front();
        }
        self.lines
            .push_back(line.trim().chars().take(REASON_CHARS_MAX).collect());
    }

    /// Returns the last line that names an error, else the last line that says anything.
    pub(crate) fn reason(&self) -> Option<&str> {
        let told = || {
            self.lines
                .iter()
                .map(String::as_str)
                .rev()
                .filter(|line| !is_epilogue(line))
        };
        told()
            .find(|line| names_an_error(line))
            .or_else(|| told().next())
    }
}

/// Whether the line starts as `TypeError: …`, `error: …`, `error[E0425]: …`, `java.io.IOException: …` do.
fn names_an_error(line: &str) -> bool {
    let Some((kind, _)) = line.split_once(": ") else {
        return false;
    };
    let kind = kind
        .split('[')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    !kind.contains(' ') && (kind.ends_with("error") || kind.ends_with("exception"))
}

/// Whether the line is what a runtime adds after the reason.
fn is_epilogue(line: &str) -> bool {
    line.starts_with("Node.js v")
        || line.starts_with("note: run with `RUST_BACKTRACE")
        || line == "}"
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(printed: &str, expected: Expect) {
        let mut tail = Tail::default();
        printed.lines().for_each(|line| tail.push(line));
        expected.assert_eq(tail.reason().unwrap_or("nothing"));
    }

    #[test]
    fn the_reason_is_what_a_reader_would_pick() {
        check("", expect!["nothing"]);
        check("\n  \n", expect!["nothing"]);
        check(
            "starting\ncannot open data\n\n",
            expect!["cannot open data"],
        );
        check(
            "node:events:496\n      throw er;\n\nError: listen EADDRINUSE: address already in use 127.0.0.1:80\n    \
             at Server.setupListenHandle (node:net:1817:16)\n  port: 80\n}\n\nNode.js v20.20.2\n",
            expect!["Error: listen EADDRINUSE: address already in use 127.0.0.1:80"],
        );
        check(
            "Traceback (most recent call last):\n  File \"app.py\", line 1\nKeyError: 'PORT'\n",
            expect!["KeyError: 'PORT'"],
        );
        check(
            "thread 'main' panicked at src/main.rs:2:5:\nno stock file\n\
             note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
            expect!["no stock file"],
        );
        let trace: String = (0..100)
            .map(|depth| format!("  {depth}: called\n"))
            .collect();
        check(
            &format!("Error: no broker\n\nCaused by:\n    refused\n\nStack backtrace:\n{trace}"),
            expect!["Error: no broker"],
        );
        check(
            "error[E0425]: cannot find value `x`\n --> src/main.rs:2:5\nwarning: unused\n",
            expect!["error[E0425]: cannot find value `x`"],
        );
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut tail = Tail::default();
        for number in 0..1000 {
            tail.push(&format!("line {number} {}", "x".repeat(1000)));
        }
        assert_eq!(tail.lines.len(), LINES_KEPT_MAX);
        assert_eq!(
            tail.reason().map(|reason| reason.chars().count()),
            Some(REASON_CHARS_MAX)
        );
    }
}
