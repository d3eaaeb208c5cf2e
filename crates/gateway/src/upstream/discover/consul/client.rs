//! A small client of Consul's HTTP API, on one connection that stays open between the queries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Question;
use crate::upstream::cluster::Member;
use crate::upstream::discover::lookup::share;

/// How long Consul may hold a query back until something changes.
const HELD_MAX: Duration = Duration::from_secs(60);
/// Longest wait for an answer; Consul adds up to a sixteenth of its own wait.
const ANSWER_MAX: Duration = Duration::from_secs(75);
/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Most of an error's text that is told.
const TOLD_MAX: usize = 200;

/// What Consul says about a service.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// Its healthy instances.
    pub(super) members: Vec<Member>,
    /// What to wait on with the next query.
    pub(super) index: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("`{0}` is no address of Consul: {1}")]
    Address(String, &'static str),
    #[error("the token has characters that no header can carry")]
    Token,
    #[error("the certificates in `{0}` cannot be used: {1}")]
    Certificates(String, String),
    #[error("could not connect to {0}: {1}")]
    Connect(String, String),
    #[error("no answer within {ANSWER_MAX:?}")]
    Late,
    #[error("the query failed: {0}")]
    Http(String),
    #[error("it answered {0}: {1}")]
    Status(StatusCode, String),
    #[error("it may not say which instances there are: the token has no right to read the service")]
    Filtered,
    #[error("its answer is not as documented: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// One query, put again and again.
pub(super) struct Client {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    path: String,
    headers: HeaderMap,
    open: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    pub(super) fn new(question: &Question, token: Option<&str>) -> Result<Self, Error> {
        let wrong = |why| Error::Address(question.address.clone(), why);
        let (tls, rest) = match question.address.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(wrong("the scheme is neither `http` nor `https`")),
            None => (false, question.address.as_str()),
        };
        let authority: http::uri::Authority = rest
            .trim_end_matches('/')
            .parse()
            .map_err(|_| wrong("write `host:port`"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(8500);
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(authority.as_str());
        headers.insert(header::HOST, value.map_err(|_| wrong("write `host:port`"))?);
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token).map_err(|_| Error::Token)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-consul-token"), value);
        }
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut path = format!("/v1/health/service/{}?passing=1", encode(&question.service));
        if let Some(datacenter) = &question.datacenter {
            path.push_str(&format!("&dc={}", encode(datacenter)));
        }
        let tls = match tls {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| wrong("it has no name that a certificate could have"))?;
                Some((connector()?, name))
            }
        };
        Ok(Client {
            host,
            port,
            tls,
            path,
            headers,
            open: None,
        })
    }

    /// Asks once; an index other than 0 is waited on.
    pub(super) async fn ask(&mut self, index: u64) -> Result<Answer, Error> {
        let asked = timeout(ANSWER_MAX, self.answer(index)).await;
        let answer = asked.unwrap_or(Err(Error::Late));
        if answer.is_err() {
            self.open = None;
        }
        answer
    }

    async fn answer(&mut self, index: u64) -> Result<Answer, Error> {
        let failed = |error: hyper::Error| Error::Http(error.to_string());
        let path = match index {
            0 => self.path.clone(),
            index => format!("{}&index={index}&wait={}s", self.path, HELD_MAX.as_secs()),
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = path
            .parse()
            .map_err(|_| Error::Http(format!("`{path}` is no path")))?;
        *request.headers_mut() = self.headers.clone();
        // A connection that Consul has closed in the meantime is opened again.
        let mut open = self.open.take();
        if let Some(sender) = &mut open
            && sender.ready().await.is_err()
        {
            open = None;
        }
        let mut sender = match open {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map_err(|error| Error::Http(error.to_string()))?
            .to_bytes();
        if head.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            let told: String = text.trim().chars().take(TOLD_MAX).collect();
            return Err(Error::Status(head.status, told));
        }
        let told = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let instances: Vec<Instance> = serde_json::from_slice(&body)?;
        if instances.is_empty() && told("x-consul-results-filtered-by-acls") == Some("true") {
            return Err(Error::Filtered);
        }
        let members = members(instances).await;
        self.open = Some(sender);
        Ok(Answer {
            members,
            index: told("x-consul-index").and_then(|index| index.parse().ok()),
        })
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, Error> {
        let place = format!("{}:{}", self.host, self.port);
        let failed =
            |error: &dyn std::fmt::Display| Error::Connect(place.clone(), error.to_string());
        let connected = timeout(CONNECT_MAX, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(match &self.tls {
                None => Either::Plain(stream),
                Some((connector, name)) => {
                    Either::Tls(Box::new(connector.connect(name.clone(), stream).await?))
                }
            })
        });
        let stream = match connected.await {
            Ok(stream) => stream.map_err(|error| failed(&error))?,
            Err(_) => return Err(failed(&format!("not within {CONNECT_MAX:?}"))),
        };
        let sender = match stream {
            Either::Plain(stream) => handshake(stream).await,
            Either::Tls(stream) => handshake(*stream).await,
        };
        sender.map_err(|error| failed(&error))
    }
}

enum Either {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Empty<Bytes>>, hyper::Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender or with Consul; what went wrong the sender tells.
    tokio::spawn(async move { _ = connection.await });
    Ok(sender)
}

/// Trusts what the system trusts and what `CONSUL_CACERT` names, and shows the certificate in `CONSUL_CLIENT_CERT` with the
/// key in `CONSUL_CLIENT_KEY`, as Consul's own tools do.
fn connector() -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = file("CONSUL_CACERT") {
        for certificate in certificates(&file)? {
            let added = roots.add(certificate);
            added.map_err(|error| unusable(&file, &error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", &error))?
        .with_root_certificates(roots);
    let config = match (file("CONSUL_CLIENT_CERT"), file("CONSUL_CLIENT_KEY")) {
        (Some(chain), Some(key)) => {
            let shown = certificates(&chain)?;
            let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| unusable(&key, &error))?;
            let config = builder.with_client_auth_cert(shown, key);
            config.map_err(|error| unusable(&chain, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Returns the file that a variable names.
fn file(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|file| !file.is_empty())
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(file).map_err(|error| unusable(file, &error))?;
    all.collect::<Result<_, _>>()
        .map_err(|error| unusable(file, &error))
}

fn unusable(file: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Certificates(file.to_owned(), error.to_string())
}

/// An entry of `/v1/health/service/NAME`, as far as it counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    node: Node,
    service: Service,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
    locality: Option<Locality>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    /// Empty where it is the node's.
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    weights: Option<Weights>,
    locality: Option<Locality>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    #[serde(default)]
    zone: String,
}

/// Returns the instances as endpoints, each address once and in order.
pub(super) async fn members(instances: Vec<Instance>) -> Vec<Member> {
    let weight = |one: &Instance| one.service.weights.as_ref().map_or(1, |w| w.passing);
    let largest = instances.iter().map(weight).max().unwrap_or(1);
    let mut members: Vec<Member> = Vec::new();
    for one in &instances {
        let Service { address, port, .. } = &one.service;
        let host = match address.is_empty() {
            true => &one.node.address,
            false => address,
        };
        let locality = one.service.locality.as_ref().or(one.node.locality.as_ref());
        let zone = locality
            .map(|l| l.zone.as_str())
            .filter(|zone| !zone.is_empty());
        let address = match host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, *port)),
            // Services outside may be registered by their name.
            Err(_) => {
                match timeout(CONNECT_MAX, tokio::net::lookup_host((host.as_str(), *port))).await {
                    Ok(Ok(mut found)) => found.next(),
                    _ => None,
                }
            }
        };
        let Some(address) = address else {
            tracing::warn!(%host, "an instance in Consul has no address");
            continue;
        };
        members.push(Member {
            weight: share(weight(one), largest),
            zone: zone.map(Arc::from),
            ..Member::new(address)
        });
    }
    members.sort_by_key(|member| member.address);
    members.dedup_by_key(|member| member.address);
    members
}
