//! The four codecs of Kafka's record batches, with a bound on what may come out.
//!
//! A batch of a few hundred bytes can claim to inflate to gigabytes, so every decompression takes
//! the most bytes it may yield and stops there.

use std::borrow::Cow;
use std::io::{self, Read, Write};

/// Largest window a zstd frame may ask for, as a power of two: the format's own default limit.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Kafka's default level for zstd.
const ZSTD_LEVEL: i32 = 3;
/// No snappy block yields more than this many bytes for each compressed byte (64 for 3).
const SNAPPY_RATIO_MAX: usize = 22;
/// Java writes snappy in blocks of this size, each with its length in front.
const XERIAL_BLOCK: usize = 32 * 1024;
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_LEN: usize = 16;

/// How the records of a batch are compressed: the lowest three bits of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Plain records.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy: framed as Java's `SnappyOutputStream` does, or one raw block.
    Snappy,
    /// LZ4's frame format.
    Lz4,
    /// Zstandard; clients need Produce 7 and Fetch 10 for it.
    Zstd,
}

impl Compression {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// Returns the codec with this number, if Kafka has one.
    pub fn from_id(id: u8) -> Option<Compression> {
        Compression::ALL.get(usize::from(id)).copied()
    }

    /// Returns the codec with the name that `compression.type` uses.
    pub fn from_name(name: &str) -> Option<Compression> {
        Compression::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
    }

    /// Returns the number in the batch's attributes.
    pub fn id(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// Returns the name that `compression.type` uses.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Why bytes could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output would be larger than the caller allows.
    #[error("decompressed records are larger than {max} bytes")]
    TooLarge {
        /// The caller's bound.
        max: usize,
    },
    /// The bytes are not what the codec writes.
    #[error("{} data is damaged", codec.name())]
    Damaged {
        /// The codec that refused.
        codec: Compression,
        /// What it said.
        source: io::Error,
    },
}

/// A codec and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codec {
    /// Which one.
    pub compression: Compression,
    /// The level of gzip (1 to 9) or zstd (-131072 to 22); `None` is Kafka's default. The others have none.
    pub level: Option<i32>,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Codec {
        Codec {
            compression,
            level: None,
        }
    }
}

/// Compresses the records of one batch.
pub fn compress(codec: impl Into<Codec>, input: &[u8]) -> Vec<u8> {
    let Codec { compression, level } = codec.into();
    let written = match compression {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => gzip(input, level),
        Compression::Snappy => xerial(input),
        Compression::Lz4 => lz4(input),
        Compression::Zstd => zstd::stream::encode_all(input, level.unwrap_or(ZSTD_LEVEL)),
    };
    written.expect("compressing from memory into memory does no I/O that could fail")
}

/// Decompresses the records of one batch, yielding at most `max` bytes.
pub fn decompress(codec: Compression, input: &[u8], max: usize) -> Result<Cow<'_, [u8]>, Error> {
    let damaged = |source| Error::Damaged { codec, source };
    match codec {
        Compression::None if input.len() > max => Err(Error::TooLarge { max }),
        Compression::None => Ok(Cow::Borrowed(input)),
        Compression::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(input), codec, max),
        Compression::Snappy => unsnappy(input, max).map(Cow::Owned),
        Compression::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(input), codec, max),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input).map_err(damaged)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(damaged)?;
            read_bounded(decoder, codec, max)
        }
    }
}

fn gzip(input: &[u8], level: Option<i32>) -> io::Result<Vec<u8>> {
    let level = level.and_then(|level| u32::try_from(level).ok());
    let level = level.map_or_else(flate2::Compression::default, |level| {
        flate2::Compression::new(level.clamp(1, 9))
    });
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(input)?;
    encoder.finish()
}

/// Writes LZ4 with independent blocks: Java's reader refuses linked ones.
fn lz4(input: &[u8]) -> io::Result<Vec<u8>> {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_mode(lz4_flex::frame::BlockMode::Independent)
        .block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(input)?;
    encoder.finish().map_err(io::Error::other)
}

/// Writes snappy as Java does: a header, then blocks with their lengths.
fn xerial(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = Vec::with_capacity(XERIAL_HEADER_LEN + input.len() / 2);
    output.extend_from_slice(&XERIAL_MAGIC);
    output.extend_from_slice(&1i32.to_be_bytes()); // version
    output.extend_from_slice(&1i32.to_be_bytes()); // oldest version that can read it
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK) {
        let packed = encoder.compress_vec(block)?;
        output.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        output.extend_from_slice(&packed);
    }
    Ok(output)
}

fn unsnappy(input: &[u8], max: usize) -> Result<Vec<u8>, Error> {
    let mut output = Vec::new();
    if !input.starts_with(&XERIAL_MAGIC) {
        snappy_block(input, &mut output, max)?;
        return Ok(output);
    }
    let mut rest = input
        .get(XERIAL_HEADER_LEN..)
        .ok_or_else(|| cut_short("header"))?;
    while !rest.is_empty() {
        let (length, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| cut_short("length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = after.get(..length).ok_or_else(|| cut_short("block"))?;
        snappy_block(block, &mut output, max)?;
        rest = &after[length..];
    }
    Ok(output)
}

fn snappy_block(block: &[u8], output: &mut Vec<u8>, max: usize) -> Result<(), Error> {
    let damaged = |source: snap::Error| Error::Damaged {
        codec: Compression::Snappy,
        source: io::Error::new(io::ErrorKind::InvalidData, source),
    };
    let claimed = snap::raw::decompress_len(block).map_err(damaged)?;
    if claimed > max.saturating_sub(output.len()) {
        return Err(Error::TooLarge { max });
    }
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(cut_short("block"));
    }
    let start = output.len();
    output.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut output[start..])
        .map_err(damaged)?;
    output.truncate(start + written);
    Ok(())
}

fn cut_short(what: &str) -> Error {
    Error::Damaged {
        codec: Compression::Snappy,
        source: io::Error::new(io::ErrorKind::UnexpectedEof, format!("{what} is cut short")),
    }
}

fn read_bounded<'a>(
    reader: impl Read,
    codec: Compression,
    max: usize,
) -> Result<Cow<'a, [u8]>, Error> {
    let mut output = Vec::new();
    // One byte more than allowed tells a full buffer from an overflowing one.
    let mut reader = reader.take(max as u64 + 1);
    reader
        .read_to_end(&mut output)
        .map_err(|source| Error::Damaged { codec, source })?;
    if output.len() > max {
        return Err(Error::TooLarge { max });
    }
    Ok(Cow::Owned(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKED: [Compression; 4] = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn text(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| b"the quick brown fox "[i % 20] ^ (i / 997) as u8)
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for codec in Compression::ALL {
            for len in [0, 1, 100, XERIAL_BLOCK, XERIAL_BLOCK + 1, 300_000] {
                let input = text(len);
                let packed = compress(codec, &input);
                let output = decompress(codec, &packed, len).expect("own output is readable");
                assert_eq!(output, input, "{codec:?} {len}");
            }
        }
    }

    #[test]
    fn one_byte_too_many_is_refused() {
        let input = text(100_000);
        for codec in Compression::ALL {
            let packed = compress(codec, &input);
            let refused = decompress(codec, &packed, input.len() - 1);
            assert!(
                matches!(refused, Err(Error::TooLarge { .. })),
                "{codec:?} {refused:?}"
            );
        }
    }

    #[test]
    fn bombs_stop_at_the_bound() {
        let zeros = vec![0; 64 << 20];
        for codec in PACKED {
            let packed = compress(codec, &zeros);
            let refused = decompress(codec, &packed, 1 << 20);
            assert!(matches!(refused, Err(Error::TooLarge { .. })), "{codec:?}");
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let input = text(5000);
        let packed = snap::raw::Encoder::new()
            .compress_vec(&input)
            .expect("small");
        let output = decompress(Compression::Snappy, &packed, 5000).expect("raw block");
        assert_eq!(output, input);
    }

    #[test]
    fn a_snappy_block_cannot_claim_more_than_it_could_hold() {
        // The length 2^27 as a varint, then three bytes of nothing.
        let claim = [0x80, 0x80, 0x80, 0x40, 0, 0, 0];
        let refused = decompress(Compression::Snappy, &claim, 1 << 30);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    }

    #[test]
    fn cut_input_is_an_error_or_a_prefix_never_a_panic() {
        let input = text(3000);
        for codec in PACKED {
            let packed = compress(codec, &input);
            for end in 0..packed.len() {
                if let Ok(output) = decompress(codec, &packed[..end], 3000) {
                    assert!(input.starts_with(&output), "{codec:?} {end}");
                }
            }
        }
    }

    #[test]
    fn names_and_numbers_agree() {
        for codec in Compression::ALL {
            assert_eq!(Compression::from_id(codec.id()), Some(codec));
            assert_eq!(Compression::from_name(codec.name()), Some(codec));
        }
        assert_eq!(Compression::from_id(5), None);
        assert_eq!(Compression::from_name("brotli"), None);
    }
}
