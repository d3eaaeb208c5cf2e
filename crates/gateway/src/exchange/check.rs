//! What is looked at before any route: the rest of the gate, for both versions of HTTP.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version};
use model::listener::SecurityModel;
use model::module::UnderscoresAction;

use crate::listener::Connection;
use crate::listener::head::is_host;
use crate::policy::forward::X_FORWARDED_PROTO;
use crate::refusal::{Flaw, Refusal};
use crate::route;
use crate::snapshot::{Front, Settings};

/// Refuses heads that the settings do not want.
pub(super) fn head<B>(request: &mut Request<B>, settings: &Settings) -> Result<(), Refusal> {
    if request.version() < Version::HTTP_11 && !settings.http10 {
        return Err(Refusal::OldProtocol);
    }
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    // For HTTP/1.1 the gate has counted.
    if request.headers().len() > settings.head.fields_max {
        return Err(Refusal::HeadersTooMany);
    }
    if settings.underscores != UnderscoresAction::Allow {
        let headers = request.headers_mut();
        let named = headers.keys().filter(|name| name.as_str().contains('_'));
        let named: Vec<HeaderName> = named.cloned().collect();
        if !named.is_empty() && settings.underscores == UnderscoresAction::RejectRequest {
            return Err(Refusal::Underscore);
        }
        for name in named {
            headers.remove(name);
        }
    }
    Ok(())
}

/// Returns the one host that the request is for.
pub(super) fn host<B>(request: &Request<B>, front: &Front) -> Result<HeaderValue, Refusal> {
    let flaw = |flaw| Err(Refusal::Malformed(flaw));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return flaw(Flaw::HostRepeated);
    }
    let host = match (request.uri().authority(), header) {
        (Some(authority), header) => {
            let authority = authority.as_str();
            if header
                .is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
            {
                return flaw(Flaw::HostMismatch);
            }
            let host = HeaderValue::from_str(authority);
            host.map_err(|_| Refusal::Malformed(Flaw::HostMalformed))?
        }
        (None, Some(host)) => host.clone(),
        (None, None) => return flaw(Flaw::HostMissing),
    };
    if !is_host(host.as_bytes()) {
        return flaw(Flaw::HostMalformed);
    }
    if front.settings.matching_port_stripped
        && let Ok(text) = host.to_str()
        && let name = route::split_port(text)
        && let Some(port) = text[name.len()..].strip_prefix(':')
        && port.parse() == Ok(front.port)
    {
        return HeaderValue::from_str(name).map_err(|_| Refusal::Malformed(Flaw::HostMalformed));
    }
    Ok(host)
}

/// Returns whether the Listener's security model counts the request as secure: what trusted proxies tell comes before
/// what the connection itself speaks.
pub(super) fn is_secure(front: &Front, connection: &Connection, headers: &HeaderMap) -> bool {
    match front.security {
        SecurityModel::Secure => true,
        SecurityModel::Insecure => false,
        SecurityModel::Xfp if front.trusted_hops > 0 => match headers.get(&X_FORWARDED_PROTO) {
            Some(proto) => proto.as_bytes().eq_ignore_ascii_case(b"https"),
            None => connection.tls.is_some(),
        },
        SecurityModel::Xfp => connection.tls.is_some(),
    }
}

/// Returns whether a request came on a connection that was made for others: it is for a name that another certificate
/// answers for, and the one that the client was shown is not for that name, or the rules for clients differ.
pub(super) fn is_misdirected(front: &Front, connection: &Connection, authority: &str) -> bool {
    let (Some(tls), Some(chains)) = (&connection.tls, &front.chains) else {
        return false;
    };
    let name = route::split_port(authority);
    let asked = tls.session.server_name.as_deref();
    if asked.is_some_and(|asked| asked.eq_ignore_ascii_case(name)) {
        return false;
    }
    let ours = &tls.chain;
    match chains.find(Some(name)) {
        Some(theirs) if theirs.name == ours.name => false,
        Some(theirs) => {
            !ours.terminator.covers(name) || !theirs.terminator.agrees(&ours.terminator)
        }
        None => !ours.terminator.covers(name),
    }
}
