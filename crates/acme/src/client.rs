//! HTTP as far as an authority needs it: one request on a connection of its own, always TLS, everything with a limit. What the
//! last refusal said about coming back is remembered.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest time for a request, from looking up the name to the last byte of the answer.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Largest answer; a chain of certificates has a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What we say we are, beside the library.
const AGENT: &str = concat!("nuncio/", env!("CARGO_PKG_VERSION"));

/// What an authority is asked with.
#[derive(Clone)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    refused: Arc<Mutex<Option<Refused>>>,
}

/// A refusal, as HTTP tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// When to come back.
    pub(crate) after: Option<Duration>,
}

impl Client {
    /// Returns a client that trusts the CA in a file, or those that the operating system trusts.
    ///
    /// # Errors
    /// Why there is nobody to trust.
    pub(crate) fn new(ca_file: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err("the operating system trusts no CA".to_owned());
                }
            }
            Some(file) => {
                let told = |why: String| format!("`caFile`: could not read `{file}`: {why}");
                let all = CertificateDer::pem_file_iter(file)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(|error| told(error.to_string()))?;
                roots.add_parsable_certificates(all);
                if roots.is_empty() {
                    return Err(told("there is no certificate in it".to_owned()));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client {
            config: Arc::new(config),
            refused: Arc::default(),
        })
    }

    /// Returns the last refusal, unless something went well since.
    pub(crate) fn refused(&self) -> Option<Refused> {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, response: &Response<Bytes>) {
        let status = response.status();
        let refused = (status.is_client_error() || status.is_server_error()).then(|| Refused {
            status,
            after: response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| after(value.to_str().ok()?)),
        });
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let asked = timeout(REQUEST_MAX, ask(client.config.clone(), request)).await;
            let asked = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let response = asked.map_err(|error| Error::Other(Box::new(error)))?;
            client.note(&response);
            Ok(BytesResponse::from(response.map(Full::new)))
        })
    }
}

async fn ask(
    config: Arc<ClientConfig>,
    request: Request<BodyWrapper<Bytes>>,
) -> io::Result<Response<Bytes>> {
    let (mut head, body) = request.into_parts();
    let uri = head.uri.clone();
    if uri.scheme_str() != Some("https") {
        return Err(io::Error::other(format!("`{uri}` is without TLS")));
    }
    let authority = uri
        .authority()
        .ok_or_else(|| io::Error::other(format!("`{uri}` names nobody")))?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let value = |text: &str| http::HeaderValue::from_str(text).map_err(io::Error::other);
    head.headers
        .insert(header::HOST, value(authority.as_str())?);
    head.headers.insert(header::USER_AGENT, value(AGENT)?);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    head.uri = target.parse().map_err(io::Error::other)?;
    let asking = async {
        let response = sender.send_request(Request::from_parts(head, body)).await;
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let mut asking = std::pin::pin!(asking);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut asking => answer,
        // The answer may have been the last that came.
        _ = &mut connection => asking.await,
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3).
fn after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let rest = at.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(rest).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_says_when_to_come_back() {
        assert_eq!(after(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let future = after("Mon, 31 Dec 2998 23:59:59 GMT").expect("a time");
        assert!(future > Duration::from_secs(86_400 * 365 * 900));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }
}
