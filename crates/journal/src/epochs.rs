//! The leader epochs of a partition and where each began, in Kafka's `leader-epoch-checkpoint`.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::disk;

pub(crate) const FILE: &str = "leader-epoch-checkpoint";

/// Which epoch began at which offset, ascending in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    entries: Vec<(i32, i64)>,
}

impl Epochs {
    /// Reads the file; `None` when it is missing or not readable as such.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Epochs>> {
        match std::fs::read_to_string(dir.join(FILE)) {
            Ok(text) => Ok(parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            writeln!(text, "{epoch} {start}").expect("writing to a string");
        }
        disk::replace(&dir.join(FILE), text.as_bytes())
    }

    /// Returns the latest epoch.
    pub(crate) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that `epoch` has records from `start` on; returns whether that is news.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) -> bool {
        let news = epoch >= 0 && self.latest().is_none_or(|latest| epoch > latest);
        if news {
            self.truncate(start);
            self.entries.push((epoch, start));
        }
        news
    }

    /// Forgets epochs that began at `end` or later.
    pub(crate) fn truncate(&mut self, end: i64) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// Forgets epochs that ended at or before `start`; the one in which `start` lies begins there.
    pub(crate) fn trim(&mut self, start: i64) {
        let gone = self.entries.partition_point(|(_, begin)| *begin <= start);
        if gone > 0 {
            self.entries.drain(..gone - 1);
            self.entries[0].1 = start;
        }
    }

    /// Returns the epoch in which `offset` lies.
    pub(crate) fn at(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map(|at| self.entries[at].0)
    }

    /// Answers OffsetForLeaderEpoch: the largest known epoch up to `epoch`, and where it ended.
    pub(crate) fn end_of(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let latest = self.latest()?;
        if epoch == latest {
            return Some((epoch, log_end));
        }
        let after = self.entries.partition_point(|(known, _)| *known <= epoch);
        // Later than all that is known here: no answer.
        let (_, end) = *self.entries.get(after)?;
        let known = after.checked_sub(1).map_or(epoch, |at| self.entries[at].0);
        Some((known, end))
    }
}

fn parse(text: &str) -> Option<Epochs> {
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut entries = Vec::new();
    for line in lines {
        let (epoch, start) = line.split_once(' ')?;
        entries.push((epoch.parse().ok()?, start.parse().ok()?));
    }
    let ascending = entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
    (entries.len() == count && ascending).then_some(Epochs { entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in entries {
            assert!(epochs.assign(*epoch, *start));
        }
        epochs
    }

    #[test]
    fn ends_as_kafka_answers_them() {
        let epochs = epochs(&[(2, 10), (4, 20), (5, 30)]);
        assert_eq!(epochs.end_of(5, 37), Some((5, 37)));
        assert_eq!(epochs.end_of(4, 37), Some((4, 30)));
        assert_eq!(epochs.end_of(3, 37), Some((2, 20)));
        assert_eq!(epochs.end_of(2, 37), Some((2, 20)));
        assert_eq!(epochs.end_of(1, 37), Some((1, 10)));
        assert_eq!(epochs.end_of(6, 37), None);
        assert_eq!(Epochs::default().end_of(0, 0), None);
    }

    #[test]
    fn an_epoch_without_records_leaves_no_trace() {
        let mut history = epochs(&[(1, 0), (2, 10)]);
        assert!(!history.assign(2, 15));
        assert!(history.assign(3, 10));
        assert_eq!(history, epochs(&[(1, 0), (3, 10)]));
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut history = epochs(&[(1, 0), (2, 10), (3, 20)]);
        history.truncate(20);
        assert_eq!(history, epochs(&[(1, 0), (2, 10)]));
        history.trim(5);
        assert_eq!(history, epochs(&[(1, 5), (2, 10)]));
        history.trim(10);
        assert_eq!(history, epochs(&[(2, 10)]));
        history.trim(12);
        assert_eq!(history, epochs(&[(2, 12)]));
    }

    #[test]
    fn the_file_is_kafkas() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let history = epochs(&[(1, 0), (2, 10)]);
        history.write(dir.path()).expect("written");
        let text = std::fs::read_to_string(dir.path().join(FILE)).expect("readable");
        assert_eq!(text, "0\n2\n1 0\n2 10\n");
        assert_eq!(Epochs::read(dir.path()).expect("readable"), Some(history));
    }

    #[test]
    fn a_damaged_file_is_no_history() {
        for text in [
            "",
            "1\n0\n",
            "0\n2\n1 0\n",
            "0\n2\n2 0\n1 5\n",
            "0\n1\nx y\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
