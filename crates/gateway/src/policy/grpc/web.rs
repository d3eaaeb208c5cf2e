//! gRPC-Web: browsers cannot read trailers, so they follow the messages in the body, and bodies may be in base64
//! (grpc/doc/PROTOCOL-WEB.md).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Response;
use http::header::{self, HeaderMap, HeaderValue};
use http_body::{Body, Frame};

use super::{GRPC, WEB, WEB_TEXT, is_grpc, rest, text};
use crate::body::{Broken, RequestBody, ResponseBody};

/// The flag of a frame that holds trailers.
const TRAILERS: u8 = 0x80;
const UNFINISHED: &str = "the base64 ends within a group";

/// Makes a request of gRPC-Web one of gRPC.
pub(super) fn request(headers: &mut HeaderMap, body: RequestBody) -> RequestBody {
    let kind = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let (suffix, is_text) = match rest(kind, WEB_TEXT) {
        Some(suffix) => (suffix, true),
        None => (rest(kind, WEB).unwrap_or_default(), false),
    };
    let kind = HeaderValue::from_str(&format!("{GRPC}{suffix}"));
    headers.insert(
        header::CONTENT_TYPE,
        kind.unwrap_or(HeaderValue::from_static(GRPC)),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if !is_text {
        return body;
    }
    headers.remove(header::CONTENT_LENGTH);
    RequestBody::boxed(Decoded {
        body,
        begun: Vec::with_capacity(4),
        done: false,
    })
}

/// Makes an answer of gRPC one of gRPC-Web. What is no gRPC stays as it is.
pub(crate) fn response(
    text_wanted: bool,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    if !is_grpc(response.headers()) {
        return response;
    }
    let headers = response.headers_mut();
    let kind = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let suffix = rest(kind, GRPC).unwrap_or_default();
    let name = if text_wanted { WEB_TEXT } else { WEB };
    let kind = HeaderValue::from_str(&format!("{name}{suffix}"));
    if let Ok(kind) = kind {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if response.body().is_end_stream() {
        return response; // the status is among the headers
    }
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(header::TRAILER);
    response.map(|body| {
        ResponseBody::boxed(Encoded {
            body,
            text: text_wanted,
        })
    })
}

/// A request's body, out of base64. Pieces that were encoded one by one may follow each other, each with its padding.
struct Decoded {
    body: RequestBody,
    /// Up to three characters of a group of four.
    begun: Vec<u8>,
    done: bool,
}

impl Decoded {
    fn decode(&mut self, data: &[u8]) -> Result<Bytes, Broken> {
        let mut out = BytesMut::with_capacity(data.len() / 4 * 3 + 3);
        let mut data = data;
        if !self.begun.is_empty() {
            let missing = (4 - self.begun.len()).min(data.len());
            self.begun.extend_from_slice(&data[..missing]);
            data = &data[missing..];
            if self.begun.len() < 4 {
                return Ok(Bytes::new());
            }
            group(&self.begun, &mut out)?;
            self.begun.clear();
        }
        let (whole, rest) = data.split_at(data.len() / 4 * 4);
        // Padding may stand at the end of any group, so that what follows one begins anew.
        for piece in whole.split_inclusive_groups() {
            group(piece, &mut out)?;
        }
        self.begun.extend_from_slice(rest);
        Ok(out.freeze())
    }
}

/// Runs of groups of four characters, each up to the first one with padding.
trait Groups {
    fn split_inclusive_groups(&self) -> impl Iterator<Item = &[u8]>;
}

impl Groups for [u8] {
    fn split_inclusive_groups(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let padded = rest.chunks(4).position(|group| group.contains(&b'='));
            let end = padded.map_or(rest.len(), |position| (position + 1) * 4);
            let (piece, after) = rest.split_at(end);
            rest = after;
            Some(piece)
        })
    }
}

fn group(characters: &[u8], out: &mut BytesMut) -> Result<(), Broken> {
    match STANDARD.decode(characters) {
        Ok(bytes) => {
            out.extend_from_slice(&bytes);
            Ok(())
        }
        Err(error) => Err(Broken::Handler(error.into())),
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
        while !this.done {
            let decoded = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.decode(&data),
                    Err(trailers) if this.begun.is_empty() => {
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                    Err(_) => Err(Broken::Handler(UNFINISHED.into())),
                },
                Some(Err(broken)) => Err(broken),
                None if this.begun.is_empty() => break,
                None => Err(Broken::Handler(UNFINISHED.into())),
            };
            match decoded {
                Ok(data) if data.is_empty() => (),
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(broken) => {
                    this.done = true;
                    return Poll::Ready(Some(Err(broken)));
                }
            }
        }
        this.done = true;
        Poll::Ready(None)
    }
}

/// An answer's body with its trailers behind the messages. Each piece is encoded by itself, so that none waits for the next.
struct Encoded {
    body: ResponseBody,
    text: bool,
}

impl Body for Encoded {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => behind(&trailers),
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            },
        };
        let data = match this.text {
            true => STANDARD.encode(&data).into(),
            false => data,
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Returns trailers as a frame: the flag, the length, and lines as in a head of HTTP/1 with names in lower case.
fn behind(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    // The head that they came in is far smaller than 4 GiB.
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(&lines);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(pieces: &[&str]) -> Result<Vec<u8>, String> {
        let mut body = Decoded {
            body: RequestBody::empty(),
            begun: Vec::new(),
            done: false,
        };
        let mut all = Vec::new();
        for piece in pieces {
            let bytes = body.decode(piece.as_bytes());
            all.extend_from_slice(&bytes.map_err(|broken| broken.to_string())?);
        }
        match body.begun.is_empty() {
            true => Ok(all),
            false => Err("it ends within a group".to_owned()),
        }
    }

    #[test]
    fn base64_comes_in_any_pieces() {
        let (text, plain) = ("AAAAAAMKAWE=AAAAAAA=AAECAwQF", {
            let mut plain = vec![0, 0, 0, 0, 3, 10, 1, 97];
            plain.extend([0, 0, 0, 0, 0]);
            plain.extend([0, 1, 2, 3, 4, 5]);
            plain
        });
        for size in 1..=text.len() {
            let pieces: Vec<&str> = text
                .as_bytes()
                .chunks(size)
                .map(|piece| std::str::from_utf8(piece).expect("ASCII"))
                .collect();
            assert_eq!(decoded(&pieces).as_deref(), Ok(plain.as_slice()), "{size}");
        }
        for bad in ["AAA", "A===", "AA=A", "====", "AA*A", "AAAA\r\n"] {
            assert!(decoded(&[bad]).is_err(), "{bad}");
        }
    }
}
