//! Walks over the batches in a segment's file without holding more than a chunk of it.

use std::fs::File;
use std::io;

use kafka::record::{self, HEADER_LEN, Header};

use crate::disk;

/// Bytes read at once when headers are looked for near a known place.
pub(crate) const NEAR: usize = 4 * 1024;
/// Bytes read at once when a whole segment is walked.
pub(crate) const FAR: usize = 256 * 1024;

/// First byte that the checksum of a batch covers.
const CHECKED_FROM: u64 = 21;

/// What is wrong with the bytes where a batch should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error(transparent)]
    Batch(#[from] record::Error),
    #[error("found offset {found} where {due} was due")]
    Offset { found: i64, due: i64 },
    #[error("found leader epoch {found} where {due} was due")]
    Epoch { found: i32, due: i32 },
}

/// Why a walk ends before the end of the file.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The bytes at this position are not the batch that should be there.
    Damaged(Damage),
    /// The disk did not answer.
    Disk(io::Error),
}

impl From<record::Error> for Stop {
    fn from(error: record::Error) -> Stop {
        Stop::Damaged(Damage::Batch(error))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Disk(error)
    }
}

/// A position in a file between `position` and `end`, with the bytes around it.
pub(crate) struct Walk<'a> {
    file: &'a File,
    position: u64,
    end: u64,
    chunk_len: usize,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(file: &'a File, position: u64, end: u64, chunk_len: usize) -> Walk<'a> {
        Walk {
            file,
            position,
            end,
            chunk_len,
            chunk: Vec::new(),
            chunk_at: position,
        }
    }

    /// Returns the position of the batch that comes next.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Moves to another position.
    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// Returns the header at the current position without moving; `None` at the end.
    ///
    /// A batch that would reach beyond the end is cut short.
    pub(crate) fn header(&mut self) -> Result<Option<Header<'_>>, Stop> {
        if self.position >= self.end {
            return Ok(None);
        }
        self.fill(HEADER_LEN)?;
        let at = (self.position - self.chunk_at) as usize;
        let header = Header::parse(&self.chunk[at..])?;
        if header.size() as u64 > self.end - self.position {
            return Err(record::Error::CutShort.into());
        }
        Ok(Some(header))
    }

    /// Compares the checksum of the batch at the current position with its bytes.
    pub(crate) fn verify(&mut self) -> Result<(), Stop> {
        let Some(header) = self.header()? else {
            return Ok(());
        };
        let (stored, size) = (header.crc(), header.size() as u64);
        let (end, mut at) = (self.position + size, self.position + CHECKED_FROM);
        let mut computed = 0;
        let back = self.position;
        while at < end {
            self.position = at;
            self.fill(1)?;
            let from = (at - self.chunk_at) as usize;
            let until = self.chunk.len().min((end - self.chunk_at) as usize);
            computed = crc32c::crc32c_append(computed, &self.chunk[from..until]);
            at = self.chunk_at + until as u64;
        }
        self.position = back;
        if stored == computed {
            Ok(())
        } else {
            Err(record::Error::Checksum { stored, computed }.into())
        }
    }

    /// Makes sure that `len` bytes from the current position are in memory, or all up to the end.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        let wanted = self.position + (len as u64).min(self.end - self.position);
        let held = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if held.contains(&self.position) && wanted <= held.end {
            return Ok(());
        }
        self.chunk.clear();
        self.chunk_at = self.position;
        let room = (self.end - self.position).min(self.chunk_len as u64) as usize;
        disk::read_at(self.file, &mut self.chunk, self.position, room)?;
        if self.chunk_at + (self.chunk.len() as u64) < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}
