//! The one stream of lines: what the services print, each line with its service's name, and what happens to them.

use std::io::{self, Write};

use anstyle::{AnsiColor, Reset, Style};
use services::board::{Board, State};
use services::output::{Line, Source, colour};

use super::table::{state_style, told};

/// Writes the stream. What it writes holds colours; the writer below takes them out where they are not wanted.
pub(crate) struct Stream<W> {
    out: W,
    width: usize,
    shown: Option<Board>,
}

impl<W: Write> Stream<W> {
    /// Leaves room for the longest of the names.
    pub(crate) fn new<'a>(out: W, names: impl Iterator<Item = &'a str>) -> Stream<W> {
        let width = names
            .map(|name| name.chars().count())
            .max()
            .unwrap_or_default();
        Stream {
            out,
            width,
            shown: None,
        }
    }

    /// Writes one line of a service.
    pub(crate) fn line(&mut self, line: &Line) -> io::Result<()> {
        let name = colour(line.place).on_default();
        let bar = match line.source {
            Source::Err => AnsiColor::Red.on_default(),
            Source::Out | Source::Note => Style::new().dimmed(),
        };
        let text = match line.source {
            Source::Note => AnsiColor::Yellow.on_default(),
            Source::Out | Source::Err => Style::new(),
        };
        let mark = if line.source == Source::Note {
            '*'
        } else {
            '|'
        };
        self.write(&line.service, name, bar, mark, text, &line.text)
    }

    /// Writes what has changed since the board was last seen.
    pub(crate) fn board(&mut self, board: &Board) -> io::Result<()> {
        let before = self.shown.replace(board.clone());
        for (place, status) in board.services.iter().enumerate() {
            let was = before.as_ref().and_then(|board| board.services.get(place));
            let quiet = status.state == State::Waiting && told(status).is_none();
            if quiet || was.is_some_and(|was| was.state == status.state) {
                continue;
            }
            let text = match (status.state, told(status)) {
                // That it is not up yet is no news.
                (State::Starting, _) | (_, None) => status.state.to_string(),
                (State::Waiting, Some(reason)) => reason.to_owned(),
                (state, Some(reason)) => format!("{state}: {reason}"),
            };
            let name = colour(place).on_default();
            let style = state_style(status.state);
            self.write(&status.name, name, Style::new().dimmed(), '*', style, &text)?;
        }
        Ok(())
    }

    /// Writes a text of our own.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn write(
        &mut self,
        service: &str,
        name: Style,
        bar: Style,
        mark: char,
        style: Style,
        text: &str,
    ) -> io::Result<()> {
        // A service may leave a colour open; it must not run into the next line.
        let reset = if text.contains('\u{1b}') {
            Reset.render().to_string()
        } else {
            String::new()
        };
        let width = self.width;
        writeln!(
            self.out,
            "{name}{service:width$}{name:#} {bar}{mark}{bar:#} {style}{text}{style:#}{reset}",
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use expect_test::{Expect, expect};
    use services::plan::{Health, Plan, Spec};

    use super::*;

    pub(crate) fn board() -> Board {
        let specs = ["orders", "mailer", "idle"].map(|name| Spec {
            name: name.into(),
            folder: ".".into(),
            prepare: None,
            run: None,
            health: Health::Tcp,
            port: Some(4000),
            start_timeout: Duration::ZERO,
            stop_timeout: Duration::ZERO,
            needs: Vec::new(),
            environment: Vec::new(),
        });
        let plan = Plan::new(specs.into(), std::path::Path::new("data")).expect("a sound plan");
        Board::new(&plan)
    }

    pub(crate) fn plain(written: Vec<u8>) -> String {
        let text = String::from_utf8(written).expect("text was written");
        anstream::adapter::strip_str(&text).to_string()
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Stream<&mut Vec<u8>>), expected: Expect) {
        let mut written = Vec::new();
        change(&mut Stream::new(
            &mut written,
            ["orders", "inventory"].into_iter(),
        ));
        expected.assert_eq(&plain(written));
    }

    fn line(source: Source, text: &str) -> Line {
        Line {
            service: "orders".into(),
            place: 0,
            source,
            text: text.into(),
        }
    }

    #[test]
    fn names_stand_in_a_column() {
        check(
            |stream| {
                stream.line(&line(Source::Out, "listening")).unwrap();
                stream.line(&line(Source::Err, "Error: no")).unwrap();
                stream
                    .line(&line(Source::Note, "exit 1, Error: no"))
                    .unwrap();
            },
            expect![[r#"
                orders    | listening
                orders    | Error: no
                orders    * exit 1, Error: no
            "#]],
        );
    }

    #[test]
    fn an_open_colour_ends_with_its_line() {
        let mut written = Vec::new();
        let mut stream = Stream::new(&mut written, ["orders"].into_iter());
        stream.line(&line(Source::Out, "\u{1b}[31mred")).unwrap();
        let text = String::from_utf8(written).unwrap();
        assert!(text.ends_with("\u{1b}[31mred\u{1b}[0m\n"), "{text:?}");
    }

    #[test]
    fn only_changes_of_state_are_told() {
        check(
            |stream| {
                let mut board = board();
                stream.board(&board).unwrap();
                board.services[0].state = State::Starting;
                board.services[2].reason = Some("waits for `orders`".into());
                board.services[2].state = State::Waiting;
                stream.board(&board).unwrap();
                board.services[0].reason = Some("does not listen".into());
                stream.board(&board).unwrap();
                board.services[0].state = State::Healthy;
                board.services[0].reason = None;
                board.services[1].state = State::Failed;
                board.services[1].reason = Some("exit 1".into());
                stream.board(&board).unwrap();
            },
            expect![[r#"
                orders    * starting
                orders    * healthy
                mailer    * failed: exit 1
            "#]],
        );
    }
}
