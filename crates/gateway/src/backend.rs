//! Where a matched request goes: a service, a redirect, a fixed answer, or code of another room.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use observe::trace::TraceContext;

use crate::body::{RequestBody, ResponseBody};
use crate::refusal::Refusal;
use crate::upstream::cluster::Cluster;

/// Who answers the requests of a route.
#[derive(Clone)]
pub(crate) enum Backend {
    /// Endpoints over the network.
    Service(Arc<Cluster>),
    /// A `location` elsewhere.
    Redirect,
    /// An answer that never changes.
    Fixed(Fixed),
    /// Code behind a trait: publishing to a topic, for example.
    Handler(Arc<dyn Handler>),
}

/// An answer that never changes.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
    /// What it tells, where it stands for something that cannot be served.
    pub(crate) refusal: Option<Refusal>,
}

/// Answers requests inside this process. It sees the request after the gate, the route's header policies and its
/// timeout, as an upstream would.
pub trait Handler: Send + Sync {
    /// Answers one request. The future is dropped when the client leaves or the route's time is over.
    fn handle(&self, call: Call) -> Answering;
}

/// The answer of a [`Handler`], under way.
pub type Answering = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// One request on its way into a [`Handler`].
pub struct Call {
    /// The request: normalised path, framing headers gone, body unread.
    pub request: Request<RequestBody>,

    /// What the route's pattern captured from the path, by name.
    pub params: Vec<(String, String)>,

    /// The host that the client asked for, in lower case, with its port if it sent one.
    pub authority: String,

    /// The client's address as the connection says it.
    pub peer: SocketAddr,

    /// This request's place in its trace.
    pub trace: TraceContext,
}
