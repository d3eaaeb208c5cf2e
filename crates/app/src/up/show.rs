//! Shows what goes on while something is waited for.

use std::io::Write;

use services::board::Board;
use services::output::Line;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::stream::Stream;

/// Owns the terminal.
pub(crate) struct Show<W> {
    pub(crate) stream: Stream<W>,
    pub(crate) lines: mpsc::Receiver<Line>,
    pub(crate) board: watch::Receiver<Board>,
    /// Cancelled when nobody can be shown anything any more, as after `nuncio up | head`.
    pub(crate) stop: CancellationToken,
}

impl<W: Write> Show<W> {
    /// Shows lines and states until `event` has happened.
    pub(crate) async fn until<T>(&mut self, event: impl Future<Output = T>) -> T {
        tokio::pin!(event);
        let (mut lines_open, mut board_open) = (true, true);
        loop {
            let shown = tokio::select! {
                biased;
                changed = self.board.changed(), if board_open => {
                    board_open = changed.is_ok();
                    self.stream.board(&self.board.borrow_and_update())
                }
                line = self.lines.recv(), if lines_open => match line {
                    Some(line) => self.stream.line(&line),
                    None => {
                        lines_open = false;
                        Ok(())
                    }
                },
                value = &mut event => {
                    self.catch_up();
                    return value;
                }
            };
            if shown.is_err() {
                self.stop.cancel();
            }
        }
    }

    /// Shows what was said before now, so that it does not come after what we say next.
    fn catch_up(&mut self) {
        let mut shown = Ok(());
        while let Ok(line) = self.lines.try_recv() {
            shown = shown.and_then(|()| self.stream.line(&line));
        }
        let board = self.board.borrow_and_update().clone();
        if shown.and_then(|()| self.stream.board(&board)).is_err() {
            self.stop.cancel();
        }
    }

    /// Shows a text of our own.
    pub(crate) fn text(&mut self, text: &str) {
        if self.stream.text(text).is_err() {
            self.stop.cancel();
        }
    }
}
