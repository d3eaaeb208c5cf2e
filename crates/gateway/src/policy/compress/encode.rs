//! Packs a body while it streams.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use async_compression::{brotli, zstd};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use model::module::Algorithm;
use tokio::io::AsyncWrite;

use crate::body::Broken;

/// What is packed in one go; a stream takes turns with the others of its core after [`TURNS_MAX`] of them.
const CHUNK_BYTES_MAX: usize = 16 << 10;
const TURNS_MAX: usize = 4;
/// What is sent on before the source pauses or ends.
const PIECE_BYTES_MIN: usize = 8 << 10;
/// How far back Brotli and zstd look, in powers of two: one stream keeps a few times as much. gzip keeps about 300 KiB.
const WINDOW_BITS: u8 = 17;

/// How much work is put into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Speed,
    Default,
    Best,
}

enum Encoder {
    Gzip(GzipEncoder<Vec<u8>>),
    Brotli(Box<BrotliEncoder<Vec<u8>>>),
    Zstd(ZstdEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(algorithm: Algorithm, level: Level) -> Self {
        use async_compression::Level::Precise;
        let by = |speed, default, best| match level {
            Level::Speed => speed,
            Level::Default => default,
            Level::Best => best,
        };
        let out = Vec::new();
        match algorithm {
            Algorithm::Gzip => Encoder::Gzip(GzipEncoder::with_quality(out, Precise(by(1, 6, 9)))),
            Algorithm::Br => {
                let params = brotli::EncoderParams::default()
                    .quality(Precise(by(1, 4, 7)))
                    .window_size(WINDOW_BITS.into());
                Encoder::Brotli(Box::new(BrotliEncoder::with_params(out, params)))
            }
            Algorithm::Zstd => {
                let window = zstd::CParameter::window_log(WINDOW_BITS.into());
                let level = Precise(by(1, 3, 7));
                Encoder::Zstd(ZstdEncoder::with_quality_and_params(out, level, &[window]))
            }
        }
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match self {
            Encoder::Gzip(encoder) => Pin::new(encoder),
            Encoder::Brotli(encoder) => Pin::new(encoder.as_mut()),
            Encoder::Zstd(encoder) => Pin::new(encoder),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let written = ready(self.writer().poll_write(&mut idle(), bytes))?;
            if written == 0 {
                return Err(stuck());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Brings out everything that went in so far.
    fn flush(&mut self) -> Result<(), Broken> {
        ready(self.writer().poll_flush(&mut idle()))
    }

    fn finish(&mut self) -> Result<(), Broken> {
        ready(self.writer().poll_shutdown(&mut idle()))
    }
}

/// Nothing here ever waits: what comes out goes into memory.
fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn ready<T>(poll: Poll<std::io::Result<T>>) -> Result<T, Broken> {
    match poll {
        Poll::Ready(done) => done.map_err(|error| Broken::Handler(error.into())),
        Poll::Pending => Err(stuck()),
    }
}

fn stuck() -> Broken {
    Broken::Handler("the compressor does not go on".into())
}

/// A body that packs another one.
pub(crate) struct Encoded<B> {
    source: B,
    encoder: Encoder,
    /// Taken from the source and not packed yet.
    rest: Bytes,
    /// Whether something went in since the last flush.
    dirty: bool,
    state: State,
}

enum State {
    Open,
    /// The source has ended, perhaps with trailers.
    Ended(Option<HeaderMap>),
    Done,
}

impl<B> Encoded<B> {
    pub(crate) fn new(source: B, algorithm: Algorithm, level: Level) -> Self {
        Encoded {
            source,
            encoder: Encoder::new(algorithm, level),
            rest: Bytes::new(),
            dirty: false,
            state: State::Open,
        }
    }

    fn piece(&mut self) -> Option<Frame<Bytes>> {
        let out = std::mem::take(self.encoder.out());
        (!out.is_empty()).then(|| Frame::data(out.into()))
    }
}

impl<B> Body for Encoded<B>
where
    B: Body<Data = Bytes, Error = Broken> + Unpin,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let mut turns = 0;
        loop {
            match &mut this.state {
                State::Open => (),
                State::Ended(trailers) => {
                    let trailers = trailers.take();
                    this.state = State::Done;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                State::Done => return Poll::Ready(None),
            }
            if !this.rest.is_empty() {
                if turns == TURNS_MAX {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                turns += 1;
                let chunk = this.rest.split_to(this.rest.len().min(CHUNK_BYTES_MAX));
                this.encoder.write(&chunk)?;
                this.dirty = true;
                if this.encoder.out().len() >= PIECE_BYTES_MIN {
                    return Poll::Ready(this.piece().map(Ok));
                }
                continue;
            }
            let trailers = match Pin::new(&mut this.source).poll_frame(cx) {
                Poll::Pending => {
                    if !std::mem::take(&mut this.dirty) {
                        return Poll::Pending;
                    }
                    this.encoder.flush()?;
                    return match this.piece() {
                        Some(piece) => Poll::Ready(Some(Ok(piece))),
                        None => Poll::Pending,
                    };
                }
                Poll::Ready(Some(Err(broken))) => {
                    this.state = State::Done;
                    return Poll::Ready(Some(Err(broken)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.rest = data;
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                Poll::Ready(None) => None,
            };
            this.encoder.finish()?;
            this.state = State::Ended(trailers);
            if let Some(piece) = this.piece() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done | State::Ended(None))
    }
}
