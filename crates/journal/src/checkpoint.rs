//! What must be known about a partition before its segments are read.
//!
//! `checkpoint` lies in the partition's folder and is replaced as a whole: where the log starts
//! (after DeleteRecords), up to where everything is known to be good and on disk, how far compaction
//! has come, and which ranges are damaged.

use std::io;
use std::path::Path;

use tracing::warn;

use crate::disk;

const FILE: &str = "checkpoint";

/// The contents of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// No record before this offset is shown, even if its segment still holds it.
    pub(crate) start: i64,
    /// Recovery reads from here on.
    pub(crate) recovery: Option<Recovery>,
    /// Ranges that are never served.
    pub(crate) fences: Vec<Fence>,
    /// Compaction has worked up to here and goes on from here.
    pub(crate) cleaned_to: i64,
    /// Offsets before this one may be missing, because compaction took their records.
    pub(crate) sparse_to: i64,
}

/// The place up to which the log was checked and flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Base offset of the segment.
    pub(crate) segment: i64,
    /// Position in the segment.
    pub(crate) position: u64,
    /// Offset that the next record there has.
    pub(crate) offset: i64,
    /// Entries that the segment's offset index had then.
    pub(crate) offsets: usize,
    /// Entries that its time index had then.
    pub(crate) times: usize,
    /// Entries that its index of aborted transactions had then.
    pub(crate) aborted: usize,
}

impl Recovery {
    /// Returns the start of a segment.
    pub(crate) fn start_of(segment: i64) -> Recovery {
        Recovery {
            segment,
            position: 0,
            offset: segment,
            offsets: 0,
            times: 0,
            aborted: 0,
        }
    }
}

/// A damaged range: positions within one segment, and the offsets that are lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    /// Base offset of the segment.
    pub(crate) segment: i64,
    /// First damaged position.
    pub(crate) from_position: u64,
    /// First good position after it, or the end of the segment.
    pub(crate) to_position: u64,
    /// First offset that is lost.
    pub(crate) from_offset: i64,
    /// First good offset after it.
    pub(crate) to_offset: i64,
}

impl Checkpoint {
    /// Returns whether the folder has the file.
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Reads the file; `None` when it is missing or damaged.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Checkpoint>> {
        let text = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let checkpoint = parse(&text);
        if checkpoint.is_none() {
            warn!(dir = %dir.display(), "checkpoint is damaged, reading the whole log");
        }
        Ok(checkpoint)
    }

    /// Replaces the file, durably.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        disk::replace(&dir.join(FILE), self.text().as_bytes())?;
        disk::sync_dir(dir)
    }

    fn text(&self) -> String {
        let mut text = format!("version 0\nstart {}\n", self.start);
        if let Some(Recovery {
            segment,
            position,
            offset,
            offsets,
            times,
            aborted,
        }) = self.recovery
        {
            text +=
                &format!("recovery {segment} {position} {offset} {offsets} {times} {aborted}\n");
        }
        if self.sparse_to > 0 {
            text += &format!("cleaned {} {}\n", self.cleaned_to, self.sparse_to);
        }
        for fence in &self.fences {
            let Fence {
                segment,
                from_position,
                to_position,
                from_offset,
                to_offset,
            } = fence;
            text += &format!(
                "damaged {segment} {from_position} {to_position} {from_offset} {to_offset}\n"
            );
        }
        let crc = crc32c::crc32c(text.as_bytes());
        text + &format!("crc {crc:08x}\n")
    }
}

fn parse(text: &str) -> Option<Checkpoint> {
    let (body, crc) = text.strip_suffix('\n')?.rsplit_once("crc ")?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != "version 0" {
        return None;
    }
    let mut checkpoint = Checkpoint::default();
    for line in lines {
        let (name, numbers) = line.split_once(' ')?;
        let numbers: Vec<i64> = numbers
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        match (name, numbers.as_slice()) {
            ("start", [start]) => checkpoint.start = *start,
            ("cleaned", [cleaned_to, sparse_to]) => {
                checkpoint.cleaned_to = *cleaned_to;
                checkpoint.sparse_to = *sparse_to;
            }
            ("recovery", [segment, position, offset, offsets, times, aborted @ ..]) => {
                checkpoint.recovery = Some(Recovery {
                    segment: *segment,
                    position: u64::try_from(*position).ok()?,
                    offset: *offset,
                    offsets: usize::try_from(*offsets).ok()?,
                    times: usize::try_from(*times).ok()?,
                    // Older checkpoints do not tell.
                    aborted: aborted
                        .first()
                        .map_or(Ok(0), |count| usize::try_from(*count))
                        .ok()?,
                });
            }
            ("damaged", [segment, from, to, from_offset, to_offset]) => {
                checkpoint.fences.push(Fence {
                    segment: *segment,
                    from_position: u64::try_from(*from).ok()?,
                    to_position: u64::try_from(*to).ok()?,
                    from_offset: *from_offset,
                    to_offset: *to_offset,
                });
            }
            _ => return None,
        }
    }
    Some(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let fence = Fence {
            segment: 5,
            from_position: 1,
            to_position: 9,
            from_offset: 6,
            to_offset: 8,
        };
        let checkpoint = Checkpoint {
            start: 6,
            recovery: Some(Recovery {
                segment: 5,
                position: 100,
                offset: 12,
                offsets: 3,
                times: 2,
                aborted: 1,
            }),
            fences: vec![fence, fence],
            cleaned_to: 7,
            sparse_to: 8,
        };
        let text = checkpoint.text();
        assert_eq!(parse(&text), Some(checkpoint));
        assert_eq!(
            parse(&Checkpoint::default().text()),
            Some(Checkpoint::default())
        );
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]), None, "{end}");
        }
        assert_eq!(parse(&text.replace("100", "101")), None);
    }
}
