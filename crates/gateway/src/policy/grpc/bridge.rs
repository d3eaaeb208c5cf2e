//! The bridge for gRPC's clients over HTTP/1.1 that see no trailers: the answer is read whole, and the status of the call is
//! among its headers (Envoy's gRPC HTTP/1.1 bridge).

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::{MESSAGE, STATUS, is_grpc};
use crate::body::{Broken, ResponseBody};
use crate::refusal::Refusal;

/// Longest answer, which is kept in memory until its trailers are there.
const BYTES_MAX: usize = 1 << 20;

/// Reads an answer to its end and moves the status of the call into its head. A call that failed is answered with 503.
///
/// # Errors
/// When the body breaks off, comes too late or is longer than 1 MiB.
pub(crate) async fn whole(
    mut response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    if !is_grpc(response.headers()) || response.body().is_end_stream() {
        return Ok(response);
    }
    let mut body = std::mem::take(response.body_mut());
    let mut read = bytes::BytesMut::new();
    let mut status = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|broken| match broken {
            Broken::Idle(_) | Broken::Deadline => Refusal::UpstreamTimeout,
            Broken::TooLong(_) => Refusal::UpstreamProtocol,
            Broken::Read(_) | Broken::Handler(_) => Refusal::UpstreamReset,
        })?;
        match frame.into_data() {
            Ok(data) if read.len() + data.len() > BYTES_MAX => {
                return Err(Refusal::UpstreamProtocol);
            }
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => {
                let Some(trailers) = frame.trailers_ref() else {
                    continue;
                };
                status = trailers.get(STATUS).cloned();
                for name in [STATUS, MESSAGE] {
                    if let Some(value) = trailers.get(&name) {
                        response.headers_mut().insert(name, value.clone());
                    }
                }
            }
        }
    }
    if status.is_some_and(|status| status != HeaderValue::from_static("0")) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.remove(header::TRAILER);
    headers.insert(header::CONTENT_LENGTH, read.len().into());
    Ok(response.map(|_| ResponseBody::full(read.freeze())))
}
