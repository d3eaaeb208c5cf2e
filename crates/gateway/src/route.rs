//! Which route takes a request: Ambassador's rules, compiled. Pure: no I/O, no clock, no randomness of its own.
//!
//! ```text
//! raw path --path::normalise--> path
//! authority --host index--> Host --path tree--> short list by rank --weights--> route --rewrite--> path upstream
//! ```
//!
//! Rules and their order are Ambassador's; where they differ on purpose, `docs/reference/ambassador-differences.md` says so.

pub mod explain;
pub mod path;

mod group;
mod host;
mod paths;
mod patterns;
mod rewrite;
mod rule;
mod table;
mod tree;
mod written;

#[cfg(test)]
mod tests;

use http::{HeaderMap, Method, StatusCode};

pub use host::split_port;
pub(crate) use host::{Authority, Glob, Names};
pub use patterns::Patterns;
pub use rewrite::Rewritten;
pub use rule::Target;
pub use table::{Route, Table};
pub(crate) use written::binds;

/// What the table looks at.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `:authority` or `Host`, with its port if it has one.
    pub authority: &'a str,
    /// After [`path::normalise`], without the query.
    pub path: &'a str,
    /// Without the question mark.
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// Whether the Listener's security model counts the request as secure.
    pub secure: bool,
}

/// What the table says about a request.
#[derive(Debug, Clone, Copy)]
pub enum Found<'t> {
    /// This route takes it.
    Route(Match<'t>),
    /// This route would take it, but the Host wants HTTPS: answer 301 with [`secure_location`].
    Secure(Match<'t>),
    /// Nothing takes it: 404.
    None(Miss),
}

/// Why nothing takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    #[error("no Host has this name")]
    Host,
    #[error("no route matches")]
    Route,
    #[error("the Host rejects requests without TLS")]
    Insecure,
}

/// A route and how it matched.
#[derive(Debug, Clone, Copy)]
pub struct Match<'t> {
    pub route: Route<'t>,
    /// Gets a copy of the request.
    pub shadow: Option<Route<'t>>,
    /// How many bytes of the path a rewrite replaces.
    pub matched: usize,
}

impl<'t> Match<'t> {
    /// Returns the path for the service, in pieces that borrow from `path` and the table.
    pub fn rewritten<'a>(&self, path: &'a str) -> Rewritten<'a>
    where
        't: 'a,
    {
        self.route.rule.rewrite.apply(path, self.matched)
    }

    /// Returns status and `Location` when the route is a redirect.
    pub fn redirect(&self, request: &Request<'_>) -> Option<(StatusCode, String)> {
        let redirect = self.route.rule.redirect.as_ref()?;
        let location = redirect.location(request.secure, request.path, self.matched, request.query);
        Some((redirect.status, location))
    }
}

/// Returns the `Location` that leads to the same place by HTTPS.
pub fn secure_location(request: &Request<'_>) -> String {
    rewrite::secure_location(request.authority, request.path, request.query)
}
