//! The headers that a route changes, for one request.

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use model::format::{Fact, Plain};
use model::mapping::AddedHeader;
use model::target::Target;
use model::{Config, Mapping, Object};

use super::{Policy, Said};
use crate::format::{self, Asked, Facts};
use crate::policy::forward::X_FORWARDED_HOST;
use crate::route::explain::Question;
use crate::snapshot::{Added, spec};

/// Headers that the gateway itself sets before the route's changes.
const OWN: [&str; 4] = ["x-forwarded-", "x-envoy-", "x-request-id", "trace"];

/// Returns the changes, and the request's headers after them as far as they are known.
pub(super) fn of(
    config: &Config,
    mapping: &Object<Mapping>,
    peers: &[&Mapping],
    question: &Question,
) -> (Vec<Policy>, HeaderMap) {
    let said = &mapping.spec;
    let added = Added::of(config, said, peers.iter().copied());
    let cluster = Target::parse(&said.service)
        .map(|target| spec(config, mapping, &target))
        .ok();
    let name = mapping.full_name();
    let path = match &question.query {
        Some(query) => format!("{}?{query}", question.path),
        None => question.path.clone(),
    };
    let facts = Facts {
        asked: Some(Asked {
            version: Version::HTTP_11,
            method: &question.method,
            secure: question.secure,
            authority: &question.authority,
            path: &path,
            headers: &question.headers,
        }),
        cluster: cluster.as_ref().map_or("", |spec| &spec.name),
        route: &name,
        ..Facts::default()
    };
    let mut policies = Vec::new();
    let mut headers = question.headers.clone();
    let defaults = config.module.defaults.as_ref();
    let defaults = defaults.and_then(|defaults| defaults.httpmapping.as_ref());

    let by = |own: bool| if own { Said::Mapping } else { Said::Module };
    let own = said.remove_request_headers.as_ref();
    let removed = own.or(defaults.and_then(|all| all.remove_request_headers.as_ref()));
    for name in removed.into_iter().flatten() {
        let there = headers.remove(name.as_str()).is_some();
        let told = match there {
            true => format!("takes off {name}"),
            false => format!("takes off {name}, which is not there"),
        };
        policies.push(Policy::new("request", told, by(own.is_some())));
    }
    for (name, value) in added.request.iter().flatten() {
        let by = who(name, said.add_request_headers.as_ref(), peers, |it| {
            it.add_request_headers.as_ref()
        });
        let there = headers.get(name.as_str()).cloned();
        let told = change(name, value, &facts, there.as_ref());
        if let (Some(value), Ok(name)) = (&told.value, name.parse::<HeaderName>()) {
            match told.append {
                true => _ = headers.append(name, value.clone()),
                false => _ = headers.insert(name, value.clone()),
            }
        }
        policies.push(Policy::new("request", told.text, by));
    }
    let linkerd = either(said.add_linkerd_headers, config.module.add_linkerd_headers);
    if let (Some(by), Some(spec)) = (linkerd, &cluster) {
        let told = format!("sets l5d-dst-override: {}:{}", spec.host, spec.port);
        policies.push(Policy::new("request", told, by));
    }
    if said.host_rewrite.is_some() || said.auto_host_rewrite {
        let told = format!("sets {X_FORWARDED_HOST}: {}", question.authority);
        policies.push(Policy::new("request", told, Said::Mapping));
    }

    let own = said.remove_response_headers.as_ref();
    let removed = own.or(defaults.and_then(|all| all.remove_response_headers.as_ref()));
    for name in removed.into_iter().flatten() {
        let told = format!("takes off {name}");
        policies.push(Policy::new("answer", told, by(own.is_some())));
    }
    for (name, value) in added.response.iter().flatten() {
        let by = who(name, said.add_response_headers.as_ref(), peers, |it| {
            it.add_response_headers.as_ref()
        });
        let told = change(name, value, &facts, None);
        policies.push(Policy::new("answer", told.text, by));
    }
    (policies, headers)
}

fn either(own: Option<bool>, module: bool) -> Option<Said> {
    match (own, module) {
        (Some(true), _) => Some(Said::Mapping),
        (None, true) => Some(Said::Module),
        _ => None,
    }
}

type Headers = std::collections::BTreeMap<String, AddedHeader>;

/// Returns who has added a header: the Mapping, another one of its group, or the Module.
fn who<'m>(
    name: &str,
    own: Option<&Headers>,
    peers: &[&'m Mapping],
    of: impl Fn(&'m Mapping) -> Option<&'m Headers>,
) -> Said {
    let has = |all: &Headers| all.keys().any(|key| key.eq_ignore_ascii_case(name));
    if own.is_some_and(has) {
        Said::Mapping
    } else if peers.iter().any(|peer| of(peer).is_some_and(has)) {
        Said::Group
    } else {
        Said::Module
    }
}

struct Change {
    text: String,
    /// What is sent, where that is known.
    value: Option<HeaderValue>,
    append: bool,
}

fn change(
    name: &str,
    added: &AddedHeader,
    facts: &Facts<'_>,
    there: Option<&HeaderValue>,
) -> Change {
    let append = added.append && there.is_some();
    let format = format::compile(&added.value).ok();
    let known = format.filter(|format| format.facts().all(is_known));
    let Some(format) = known else {
        let text = format!("sets {name}: {}, filled when it is sent", added.value);
        return Change {
            text,
            value: None,
            append,
        };
    };
    let value = format::fill(&format, facts, "");
    let text = match there.map(|value| String::from_utf8_lossy(value.as_bytes())) {
        _ if value.is_empty() => format!("leaves out {name}, its value is empty"),
        Some(there) if append => format!("adds {name}: {value} to `{there}`"),
        Some(there) => format!("sets {name}: {value}, it was `{there}`"),
        None if added.append => format!("adds {name}: {value}"),
        None => format!("sets {name}: {value}"),
    };
    Change {
        text,
        value: HeaderValue::try_from(value)
            .ok()
            .filter(|value| !value.is_empty()),
        append,
    }
}

/// Returns whether a request that nobody has sent tells it.
fn is_known(fact: &Fact) -> bool {
    let sent = |name: &str| !OWN.iter().any(|own| name.starts_with(own));
    match fact {
        Fact::RequestHeader(named) => {
            sent(&named.name) && named.otherwise.as_deref().is_none_or(sent)
        }
        Fact::QueryParameter(_) | Fact::Environment(_) => true,
        Fact::Plain(plain) => matches!(
            plain,
            Plain::UpstreamCluster | Plain::UpstreamClusterRaw | Plain::RouteName | Plain::Hostname
        ),
        Fact::ResponseHeader(_) | Fact::ResponseTrailer(_) | Fact::Time(..) => false,
    }
}
