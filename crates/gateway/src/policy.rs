//! What routes do to requests and answers on the way, in this order:
//!
//! 1. `address`: who may not ask at all gets no further.
//! 2. `cors`: browsers that only ask what they may ask are answered, before anybody asks them who they are.
//! 3. `forward`: hop-by-hop headers go, what the client cannot be trusted with goes, and what the gateway knows
//!    (addresses, ids, the trace) comes, so that nothing after it can be fooled.
//! 4. `grpc`: what gRPC-Web and gRPC over HTTP/1.1 bring becomes gRPC.
//! 5. `headers`: the route's own header changes, which may override all of that on purpose.
//!
//! The answer comes back through `errors` (another body), `headers`, `cors`, `compress` and `grpc`; `memory` keeps what they need of the
//! request until then.

pub(crate) mod address;
pub(crate) mod client_cert;
pub(crate) mod compress;
pub(crate) mod cors;
pub(crate) mod errors;
pub(crate) mod forward;
pub(crate) mod grpc;
pub(crate) mod guards;
pub(crate) mod headers;
pub(crate) mod lines;
pub(crate) mod memory;
pub(crate) mod probes;
pub(crate) mod retry;

use http::HeaderValue;

/// What host the service sees.
#[derive(Debug, Clone)]
pub(crate) enum HostChange {
    /// The client's.
    Keep,
    /// This one.
    To(HeaderValue),
}
