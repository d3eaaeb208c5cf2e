//! Asks one endpoint how it is, over the cluster's own way of connecting.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{Http, Probe};
use crate::body::RequestBody;
use crate::upstream::cluster::{Cluster, Protocol};
use crate::upstream::dial;
use crate::upstream::pool::Endpoint;
use crate::upstream::send::Failure;

const USER_AGENT: HeaderValue = HeaderValue::from_static("nuncio-health-check");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest answer of a gRPC health service.
const GRPC_ANSWER_BYTES_MAX: usize = 4 << 10;
/// `SERVING` in `grpc.health.v1`.
const SERVING: u64 = 1;

/// Returns why the endpoint is not well, for people. A check has connections of its own: requests and their limits do
/// not keep it from asking, and an endpoint that takes no more connections is not well.
pub(super) async fn ask(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    probe: &Probe,
) -> Result<(), String> {
    let asked = match probe {
        Probe::Tcp => dial::opens(cluster, endpoint).await.map(|()| None),
        Probe::Http(http) => ask_http(cluster, endpoint, http).await,
        Probe::Grpc { service, authority } => {
            let authority = authority.as_ref().unwrap_or(&cluster.spec.name);
            ask_grpc(cluster, endpoint, service, authority).await
        }
    };
    match asked {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(why),
        Err(failure) => Err(told(&failure)),
    }
}

/// Says a failure with its causes.
fn told(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// Returns what is wrong with the answer.
async fn ask_http(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    http: &Http,
) -> Result<Option<String>, Failure> {
    let host = http.host.as_ref().unwrap_or(&cluster.spec.host);
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, USER_AGENT);
    for name in &http.remove {
        headers.remove(name);
    }
    for (name, value, append) in &http.add {
        if *append {
            headers.append(name.clone(), value.clone());
        } else {
            headers.insert(name.clone(), value.clone());
        }
    }
    let response = match cluster.spec.protocol {
        Protocol::Http1 => {
            if let (Ok(host), false) = (host.parse(), headers.contains_key(header::HOST)) {
                headers.insert(header::HOST, host);
            }
            let request = request(Method::GET, &http.path, None, headers)?;
            let mut sender = dial::http1_apart(cluster, endpoint).await?;
            let sent = sender.send_request(request).await;
            sent.map_err(Failure::Broken)?
        }
        Protocol::Http2 => {
            let request = request(Method::GET, &http.path, Some(host), headers)?;
            send_http2(cluster, endpoint, request).await?
        }
    };
    let status = response.status().as_u16();
    let expected = |(from, to): &(u16, u16)| (*from..=*to).contains(&status);
    Ok((!http.expected.iter().any(expected)).then(|| format!("answered with {status}")))
}

async fn ask_grpc(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    service: &str,
    authority: &str,
) -> Result<Option<String>, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let mut request = request(Method::POST, GRPC_PATH, Some(authority), headers)?;
    *request.body_mut() = RequestBody::bytes(question(service));
    let response = send_http2(cluster, endpoint, request).await?;
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Ok(Some(format!("answered with {}", head.status.as_u16())));
    }
    if let Some(status) = grpc_error(&head.headers) {
        return Ok(Some(status));
    }
    let Ok(body) = Limited::new(body, GRPC_ANSWER_BYTES_MAX).collect().await else {
        return Ok(Some("the answer broke off or is too long".to_owned()));
    };
    if let Some(status) = body.trailers().and_then(grpc_error) {
        return Ok(Some(status));
    }
    Ok(match status(&body.to_bytes()) {
        Some(SERVING) => None,
        Some(status) => Some(format!("serving status {status}")),
        None => Some("the answer is not of grpc.health.v1".to_owned()),
    })
}

/// Returns what `grpc-status` says, unless it is 0.
fn grpc_error(headers: &HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?;
    (status != "0").then(|| format!("grpc-status {}", String::from_utf8_lossy(status.as_bytes())))
}

fn request(
    method: Method,
    path: &str,
    authority: Option<&str>,
    headers: HeaderMap,
) -> Result<Request<RequestBody>, Failure> {
    let mut parts = http::uri::Parts::default();
    // The model has checked them; what cannot be sent counts as no endpoint to ask.
    let path = path.parse::<PathAndQuery>();
    parts.path_and_query = Some(path.map_err(|_| Failure::NoEndpoint)?);
    let mut request = Request::new(RequestBody::empty());
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = authority {
        let authority = authority.parse::<Authority>();
        parts.authority = Some(authority.map_err(|_| Failure::NoEndpoint)?);
        parts.scheme = Some(Scheme::HTTP);
        *request.version_mut() = Version::HTTP_2;
    }
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Failure::NoEndpoint)?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn send_http2(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, Failure> {
    let mut sender = dial::http2_apart(cluster, endpoint).await?;
    let sent = sender.send_request(request).await;
    sent.map_err(Failure::Broken)
}

/// Writes a `HealthCheckRequest` in gRPC's framing.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a); // field 1, text
        varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0); // not compressed
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

fn varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

/// Reads the status out of a framed `HealthCheckResponse`. A message without it says 0, as the format has it.
fn status(framed: &[u8]) -> Option<u64> {
    let (&compressed, rest) = framed.split_first()?;
    let (length, message) = rest.split_first_chunk::<4>()?;
    let message = message.get(..u32::from_be_bytes(*length) as usize)?;
    if compressed != 0 {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, value @ ..] => {
            let mut status = 0u64;
            for (index, byte) in value.iter().take(9).enumerate() {
                status |= u64::from(byte & 0x7f) << (7 * index);
                if byte & 0x80 == 0 {
                    return Some(status);
                }
            }
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_a_framed_message() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(200));
        assert_eq!(&long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn the_status_is_read_from_what_is_well_formed() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 3, 8, 0x82, 1]), Some(130));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        for bad in [
            &[][..],
            &[0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 9, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 8, 0x80],
            &[0, 0, 0, 0, 2, 0x10, 1],
            &[0, 255, 255, 255, 255, 8, 1],
        ] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }
}
