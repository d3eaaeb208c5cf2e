//! Reads a request's body whole before it goes on (the Module's `buffer`).

use http::{Request, header};
use http_body::Body as _;

use crate::body::{Broken, RequestBody};
use crate::refusal::Refusal;

/// Replaces the body by its bytes when it has at most `bytes_max` of them. Its trailers are lost.
pub(super) async fn read(
    request: &mut Option<Request<RequestBody>>,
    bytes_max: usize,
) -> Result<(), Refusal> {
    let streams = |request: &Request<RequestBody>| !request.body().is_end_stream();
    let Some(whole) = request.take_if(|request| streams(request)) else {
        return Ok(());
    };
    let (mut head, body) = whole.into_parts();
    let bytes = body
        .collect_max(bytes_max)
        .await
        .map_err(|broken| match broken {
            Broken::TooLong(_) => Refusal::BodyTooLarge,
            Broken::Idle(_) => Refusal::BodyTimeout,
            _ => Refusal::BrokenBody,
        })?;
    head.headers
        .insert(header::CONTENT_LENGTH, bytes.len().into());
    head.headers.remove(header::TRAILER);
    *request = Some(Request::from_parts(head, RequestBody::bytes(bytes)));
    Ok(())
}
