//! TLS towards services for whoever calls them without a route, such as subscriptions: TLSContexts, their Secrets and their
//! files mean the same as for routes.

pub mod io;

use std::sync::Arc;

use model::tls_context::Verify;
use model::{Config, Object, Origin, TlsContext};
use rustls::pki_types::ServerName;
use tls::keep::Originators;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use self::io::Io;
use crate::upstream::tls::Tls;

/// The TLSContexts in use, which stay from one configuration to the next.
pub struct Contexts(Originators);

impl Contexts {
    /// Returns none yet; files are looked at on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Contexts(Originators::new(runtime))
    }

    /// Begins another configuration.
    pub fn begin(&mut self) {
        self.0.begin();
    }

    /// Ends it: what nobody uses any more is forgotten.
    pub fn finish(&mut self) {
        self.0.finish();
    }

    /// Returns how connections to a host speak TLS. Where the TLSContext has no CA, or there is none, the roots of the
    /// operating system count, unless it says `verify: none`.
    pub fn of(
        &mut self,
        config: &Config,
        context: Option<&Object<TlsContext>>,
        host: &str,
    ) -> Secure {
        let mut context = context.cloned().unwrap_or_else(|| Object {
            name: String::new(),
            namespace: String::new(),
            labels: Default::default(),
            origin: Origin::source("default"),
            spec: TlsContext::default(),
        });
        if !context.spec.verifies() {
            context.spec.verify.get_or_insert(Verify::System);
        }
        let name = context.spec.sni.as_deref().unwrap_or(host);
        Secure(Tls {
            name: ServerName::try_from(name.to_owned()).ok(),
            originator: self.0.of(config, Some(&context)),
        })
    }
}

/// How connections to one host speak TLS.
#[derive(Clone)]
pub struct Secure(Tls);

impl Secure {
    /// Shakes hands.
    ///
    /// # Errors
    /// When the service is not trusted, does not trust us, or speaks no TLS.
    pub async fn connect(&self, stream: TcpStream) -> std::io::Result<Io> {
        let stream = self.0.connect(stream, false).await?;
        Ok(Io::Tls(Box::new(stream)))
    }

    /// Returns what is wrong with what is written now.
    pub fn problem(&self) -> Option<Arc<String>> {
        self.0.originator.problem()
    }
}
