//! Opens connections to the service of a subscription, with TLS where it is said.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway::connect::Secure;
use gateway::connect::io::Io;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tower_service::Service;

/// How long a connection to the service may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Opens the connections of one subscription.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    secure: Option<Secure>,
}

impl Connector {
    pub(super) fn new(secure: Option<Secure>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        tcp.enforce_http(false);
        Connector { tcp, secure }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, secure) = (self.tcp.call(uri), self.secure.clone());
        Box::pin(async move {
            let tcp = connecting.await?.into_inner();
            Ok(TokioIo::new(match secure {
                Some(secure) => secure.connect(tcp).await?,
                None => Io::Plain(tcp),
            }))
        })
    }
}
