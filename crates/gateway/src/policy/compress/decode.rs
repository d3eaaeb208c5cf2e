//! Unpacks the body of a request while it streams, for services that take it plain.
//!
//! A few packed bytes can become very many, so both the bytes and how many times more they are than the packed ones have a
//! limit; over it the request ends with 413. Unpacking goes on only as fast as the service takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http_body::{Body, Frame};
use model::module::Decompression;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use crate::body::{Broken, RequestBody};

/// Unpacked bytes where the Module does not say it.
const BYTES_MAX: u64 = 16 << 20;
/// How many times more bytes there may be than packed ones where the Module does not say it (Envoy's default).
const RATIO_MAX: u64 = 100;
/// Below this the ratio does not count: a short text may well be packed that tightly.
const RATIO_FREE_BYTES: u64 = 64 << 10;
/// What is unpacked in one go.
const PIECE_BYTES: usize = 16 << 10;
/// How far back a zstd stream may look, in powers of two: 8 MiB. Brotli keeps at most 16 MiB by its standard.
const ZSTD_WINDOW_BITS_MAX: u32 = 23;

/// What may come out of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    bytes_max: u64,
    ratio_max: u64,
}

impl Limits {
    pub(crate) fn of(said: &Decompression) -> Self {
        Limits {
            bytes_max: said.max_bytes.unwrap_or(BYTES_MAX),
            ratio_max: said.max_ratio.map_or(RATIO_MAX, u64::from),
        }
    }
}

/// Unpacks the body when its coding is a known one, and takes what described the packed body off the head.
pub(crate) fn apply(limits: Limits, headers: &mut HeaderMap, body: RequestBody) -> RequestBody {
    if body.is_end_stream() {
        return body;
    }
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let (Some(coding), None) = (codings.next(), codings.next()) else {
        return body;
    };
    let coding = coding.as_bytes().trim_ascii().to_ascii_lowercase();
    let source = Source {
        body,
        rest: Bytes::new(),
        taken: 0,
    };
    let decoder = match coding.as_slice() {
        b"gzip" | b"x-gzip" => {
            let mut decoder = GzipDecoder::new(source);
            decoder.multiple_members(true);
            Decoder::Gzip(decoder)
        }
        b"br" => Decoder::Brotli(BrotliDecoder::new(source)),
        b"zstd" => {
            let window = DParameter::window_log_max(ZSTD_WINDOW_BITS_MAX);
            let mut decoder = ZstdDecoder::with_params(source, &[window]);
            decoder.multiple_members(true);
            Decoder::Zstd(decoder)
        }
        _ => return source.body,
    };
    for name in [
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::TRAILER,
    ] {
        headers.remove(name);
    }
    RequestBody::boxed(Decoded {
        decoder: Box::new(decoder),
        piece: vec![0; PIECE_BYTES].into(),
        limits,
        given: 0,
        done: false,
    })
}

/// The packed body as bytes to be read.
struct Source {
    body: RequestBody,
    rest: Bytes,
    taken: u64,
}

impl AsyncBufRead for Source {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => break,
                Some(Err(broken)) => return Poll::Ready(Err(io::Error::other(broken))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.rest = data;
                    }
                }
            }
        }
        Poll::Ready(Ok(&this.rest))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        let this = self.get_mut();
        _ = this.rest.split_to(count);
        this.taken += count as u64;
    }
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

enum Decoder {
    Gzip(GzipDecoder<Source>),
    Brotli(BrotliDecoder<Source>),
    Zstd(ZstdDecoder<Source>),
}

impl Decoder {
    fn reader(&mut self) -> Pin<&mut (dyn AsyncRead + Send + Sync + Unpin)> {
        match self {
            Decoder::Gzip(decoder) => Pin::new(decoder),
            Decoder::Brotli(decoder) => Pin::new(decoder),
            Decoder::Zstd(decoder) => Pin::new(decoder),
        }
    }

    fn source(&mut self) -> &mut Source {
        match self {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Brotli(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

/// The unpacked body. Its trailers are lost.
struct Decoded {
    decoder: Box<Decoder>,
    /// Where each piece is unpacked to.
    piece: Box<[u8]>,
    limits: Limits,
    given: u64,
    done: bool,
}

impl Decoded {
    fn broken(&mut self, error: io::Error) -> Broken {
        self.done = true;
        match error.downcast::<Broken>() {
            Ok(broken) => broken,
            Err(error) => Broken::Handler(error.into()),
        }
    }
}

impl Body for Decoded {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let mut buf = ReadBuf::new(&mut this.piece);
        if let Err(error) = ready!(this.decoder.reader().poll_read(cx, &mut buf)) {
            return Poll::Ready(Some(Err(this.broken(error))));
        }
        let count = buf.filled().len();
        if count == 0 {
            // What follows the packed data is no part of it.
            let source = Pin::new(this.decoder.source());
            let more = match ready!(source.poll_fill_buf(cx)) {
                Ok(rest) => !rest.is_empty(),
                Err(error) => return Poll::Ready(Some(Err(this.broken(error)))),
            };
            this.done = true;
            let junk = || Broken::Handler("bytes follow the packed body".into());
            return Poll::Ready(more.then(|| Err(junk())));
        }
        this.given += count as u64;
        let packed = this.decoder.source().taken;
        let most = packed
            .saturating_mul(this.limits.ratio_max)
            .max(RATIO_FREE_BYTES)
            .min(this.limits.bytes_max);
        if this.given > most {
            this.done = true;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            return Poll::Ready(Some(Err(Broken::TooLong(most))));
        }
        let piece = Bytes::copy_from_slice(&this.piece[..count]);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
