//! Clients that ask, wait for the whole answer, and ask again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// The host that is asked.
const HOST: &str = "bench.local";

/// The longest answer head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Where the proxy listens.
    pub(crate) address: SocketAddr,

    /// The path to ask for.
    pub(crate) path: String,

    /// Connections at the same time.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,

    /// How long to ask.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,

    /// A new connection for each request.
    #[arg(long)]
    pub(crate) close: bool,

    /// Speaks TLS and trusts the CA in this file; each connection begins anew, no session goes on.
    #[arg(long)]
    pub(crate) tls: Option<PathBuf>,
}

/// What carries the bytes.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open connection, and room for what is read of it.
type Open = (Box<dyn Stream>, Vec<u8>);

/// What one client saw.
#[derive(Default)]
struct Seen {
    waits_us: Vec<u32>,
    failures: u64,
    failure: Option<String>,
}

/// Asks for as long as it was told and returns the counts.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Value> {
    let connector = options.tls.as_deref().map(connector).transpose()?;
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..options.connections {
        clients.spawn(client(options.clone(), connector.clone(), end));
    }
    let mut all = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let seen = seen.context("a client came to an end before its time")?;
        all.waits_us.extend(seen.waits_us);
        all.failures += seen.failures;
        all.failure = all.failure.or(seen.failure);
    }
    let seconds = began.elapsed().as_secs_f64();
    all.waits_us.sort_unstable();
    let at = |share: f64| {
        let index = (all.waits_us.len() as f64 * share) as usize;
        all.waits_us.get(index).copied()
    };
    Ok(json!({
        "requests": all.waits_us.len(),
        "failures": all.failures,
        "failure": all.failure,
        "per_second": all.waits_us.len() as f64 / seconds,
        "p50_us": at(0.5),
        "p99_us": at(0.99),
    }))
}

async fn client(options: Options, connector: Option<TlsConnector>, end: Instant) -> Seen {
    let mut seen = Seen::default();
    let close = if options.close {
        "connection: close\r\n"
    } else {
        ""
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {HOST}\r\n{close}\r\n",
        options.path
    );
    let mut connection: Option<Open> = None;
    while Instant::now() < end {
        let began = Instant::now();
        let asked = timeout(
            ANSWER_MAX,
            ask(
                &options,
                connector.as_ref(),
                connection.take(),
                request.as_bytes(),
            ),
        )
        .await;
        match asked.map_err(anyhow::Error::from).and_then(|answer| answer) {
            Ok(open) => {
                connection = open;
                let wait = began.elapsed().as_micros();
                seen.waits_us.push(u32::try_from(wait).unwrap_or(u32::MAX));
            }
            Err(error) => {
                seen.failures += 1;
                seen.failure.get_or_insert(format!("{error:#}"));
            }
        }
    }
    seen
}

/// Asks once. Returns the connection when it can be used again.
async fn ask(
    options: &Options,
    connector: Option<&TlsConnector>,
    connection: Option<Open>,
    request: &[u8],
) -> anyhow::Result<Option<Open>> {
    let (mut stream, mut read) = match connection {
        Some(open) => open,
        None => {
            let stream = TcpStream::connect(options.address)
                .await
                .context("could not connect")?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match connector {
                None => Box::new(stream),
                Some(connector) => {
                    let name = ServerName::try_from(HOST)?;
                    let shaken = connector.connect(name, stream).await;
                    Box::new(shaken.context("no handshake")?)
                }
            };
            (stream, Vec::with_capacity(64 << 10))
        }
    };
    stream.write_all(request).await.context("could not send")?;
    read.clear();
    let head = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        ensure!(read.len() < HEAD_BYTES_MAX, "the answer's head is too long");
        ensure!(
            stream.read_buf(&mut read).await? > 0,
            "closed before the answer"
        );
    };
    let text = std::str::from_utf8(&read[..head]).context("the answer's head is no text")?;
    let status = text.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "the answer was {status}");
    let Some(len) = content_length(text) else {
        bail!("the answer has no content-length")
    };
    let mut left = (head + len).saturating_sub(read.len());
    while left > 0 {
        read.clear();
        let got = stream.read_buf(&mut read).await?;
        ensure!(got > 0, "closed in the middle of the answer");
        left = left.saturating_sub(got);
    }
    Ok((!options.close).then_some((stream, read)))
}

fn connector(ca: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).context("could not read the CA")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })
}
