//! Authorities that want to see whose a name is (ACME, HTTP-01): answered before anybody else is asked, since they come from
//! anywhere, without TLS, and what they get is no secret.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use tls::ordered::{Ordered, PATH};

use crate::body::ResponseBody;

/// Answers a request for a challenge that is open. Others go their usual way, to a Mapping for example.
pub(super) fn answer<B>(ordered: &Ordered, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let token = request.uri().path().strip_prefix(PATH)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let answer = ordered.answer(token)?;
    let body = Bytes::copy_from_slice(answer.as_bytes());
    let mut response = Response::new(ResponseBody::full(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Some(response)
}
