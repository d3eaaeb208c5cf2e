//! Why a request goes where it goes: the route with its reasons, and why the others lost.

mod show;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use model::{Config, Object, host::InsecureAction};
use serde::{Deserialize, Serialize};

use crate::explain::{Live, Policy, Said};

use super::{
    Found, Match, Request, Table, Target,
    group::{Key, WHOLE},
    host::Authority,
    path,
    rule::{HostRule, Loss, PathKind, Rule, Test},
    secure_location,
};

/// Losers that are told; the others are counted.
const LOSERS_MAX: usize = 10;

/// A request that nobody has sent.
#[derive(Debug, Clone)]
pub struct Question {
    pub method: Method,
    pub authority: String,
    /// As it would come, not yet normalised, without the query.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub secure: bool,
    /// The client's address, where it is known.
    pub client: Option<IpAddr>,
}

/// Why text is not a [`Question`].
#[derive(Debug, thiserror::Error)]
pub enum BadQuestion {
    #[error("`{0}` is no HTTP method")]
    Method(String),

    #[error("`{0}` is neither a path nor an `http://` or `https://` address")]
    Address(String),

    #[error("`{0}` is no header, write it as `name: value`")]
    Header(String),
}

impl Question {
    /// Reads `GET`, `http://host/path?query` (or only a path) and headers such as `x-tenant: a`.
    pub fn read(method: &str, address: &str, headers: &[String]) -> Result<Self, BadQuestion> {
        let bad_address = || BadQuestion::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| bad_address())?;
        let secure = match uri.scheme_str() {
            None if address.starts_with('/') => false,
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad_address()),
        };
        let mut question = Self {
            method: method
                .parse()
                .map_err(|_| BadQuestion::Method(method.to_owned()))?,
            authority: uri
                .authority()
                .map(|authority| authority.to_string())
                .unwrap_or_default(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            headers: HeaderMap::new(),
            secure,
            client: None,
        };
        for header in headers {
            let bad = || BadQuestion::Header(header.clone());
            let (name, value) = header.split_once(':').ok_or_else(bad)?;
            let name: HeaderName = name.trim().parse().map_err(|_| bad())?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| bad())?;
            if name == http::header::HOST {
                question.authority = value.to_str().map_err(|_| bad())?.to_owned();
            } else {
                question.headers.append(name, value);
            }
        }
        Ok(question)
    }
}

/// What would happen to a request, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub request: String,
    /// The path that routes are compared to.
    pub path: String,
    /// Which Host it is for, and what that means.
    pub host: String,
    pub outcome: Outcome,
    /// The best first.
    pub losers: Vec<Loser>,
    /// Routes that are not told in `losers`.
    pub losers_more: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Several when weights share the requests.
    Routed(Vec<Taker>),
    /// The gateway answers by itself a browser that asks what it may ask.
    Preflight(Preflight),
    /// 301 to HTTPS.
    RedirectedToHttps { location: String, route: String },
    /// 400.
    Refused { why: String },
    /// 404.
    NotFound { why: String },
}

/// The answer to a browser that asks what it may ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preflight {
    /// The route whose rules count.
    pub route: String,
    pub origin: String,
    /// Headers of the answer.
    pub headers: Vec<String>,
}

/// A route that takes the request, or a share of such requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taker {
    pub route: String,
    pub origin: String,
    pub share_percent: f64,
    pub reasons: Vec<String>,
    pub destination: Destination,
    /// The route that gets a copy.
    pub shadow: Option<String>,
    /// What is done besides, where it is set and not as usual.
    pub policies: Vec<Policy>,
    /// The service as a running process sees it.
    pub live: Option<Live>,
    /// Where the route is written.
    #[serde(skip)]
    pub(crate) target: Option<Target>,
    /// How many bytes of the path matched.
    #[serde(skip)]
    pub(crate) matched: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    Service {
        service: String,
        path: String,
        host: String,
    },
    Redirect {
        status: u16,
        location: String,
    },
    Topic {
        topic: String,
    },
    /// The gateway answers by itself.
    Refused {
        status: u16,
        why: String,
    },
    /// Weights leave this share to nobody.
    NotFound,
}

/// A route that does not take the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loser {
    pub route: String,
    pub origin: String,
    pub why: String,
}

/// Answers the question with the table that was built from the configuration.
pub fn explain(config: &Config, table: &Table, question: &Question) -> Explanation {
    let scheme = if question.secure { "https" } else { "http" };
    let query = question.query.as_deref();
    let mark = if query.is_some() { "?" } else { "" };
    let mut explanation = Explanation {
        request: format!(
            "{} {scheme}://{}{}{mark}{}",
            question.method,
            question.authority,
            question.path,
            query.unwrap_or_default()
        ),
        path: String::new(),
        host: String::new(),
        outcome: Outcome::NotFound { why: String::new() },
        losers: Vec::new(),
        losers_more: 0,
    };
    match path::normalise(&question.path, &path::Rules::of(&config.module)) {
        Ok(path) => explanation.path = path.into_owned(),
        Err(refusal) => {
            explanation.outcome = Outcome::Refused {
                why: refusal.to_string(),
            };
            return explanation;
        }
    }
    let path = explanation.path.clone();
    let request = Request {
        authority: &question.authority,
        path: &path,
        query,
        method: &question.method,
        headers: &question.headers,
        secure: question.secure,
    };
    let authority = Authority::new(request.authority);
    explanation.host = host_told(table, &authority, request.secure);

    let shares = shares(table, &request);
    let winners: Vec<usize> = shares
        .iter()
        .filter_map(|(found, _)| Some(taken(found)?.route.id))
        .collect();
    let first = shares.first().map(|share| share.0);
    explanation.outcome = match first {
        Some(Found::Secure(found)) => Outcome::RedirectedToHttps {
            location: secure_location(&request),
            route: found.route.name().to_owned(),
        },
        Some(Found::None(miss)) if shares.len() == 1 => Outcome::NotFound {
            why: miss.to_string(),
        },
        _ => Outcome::Routed(
            shares
                .iter()
                .map(|(found, share)| taker(config, table, found, *share, &request, &authority))
                .collect(),
        ),
    };
    let (losers, more) = losers(config, table, &winners, &request, &authority);
    explanation.losers = losers;
    explanation.losers_more = more;
    explanation
}

fn taken<'t>(found: &Found<'t>) -> Option<Match<'t>> {
    match found {
        Found::Route(found) | Found::Secure(found) => Some(*found),
        Found::None(_) => None,
    }
}

/// Asks the table with every draw that makes a difference. Returns each answer with its share in percent.
fn shares<'t>(table: &'t Table, request: &Request<'_>) -> Vec<(Found<'t>, f64)> {
    let mut steps: Vec<u64> = vec![0, WHOLE];
    let groups = table
        .groups()
        .iter()
        .filter(|group| group.members.len() > 1);
    for group in groups.filter(|group| {
        let rule = table.route(group.members[0].rule as usize).rule;
        rule.path.matches(request.path) || !rule.path.case_sensitive
    }) {
        steps.extend(group.members.iter().map(|member| member.below));
    }
    steps.sort_unstable();
    steps.dedup();
    let mut shares: Vec<(Found<'t>, f64)> = Vec::new();
    for step in steps.windows(2) {
        let draw = u32::try_from(step[0]).unwrap_or(u32::MAX);
        let found = table.find(request, || draw);
        let share = (step[1] - step[0]) as f64 * 100.0 / WHOLE as f64;
        let id = taken(&found).map(|found| found.route.id);
        match shares
            .iter_mut()
            .find(|(other, _)| taken(other).map(|found| found.route.id) == id)
        {
            Some((_, sum)) => *sum += share,
            None => shares.push((found, share)),
        }
    }
    shares
}

fn host_told(table: &Table, authority: &Authority<'_>, secure: bool) -> String {
    let Some(host) = table.host(authority) else {
        return "none has this name".to_owned();
    };
    let action = match host.insecure {
        _ if secure => "the request is secure",
        InsecureAction::Route => "requests without TLS are routed",
        InsecureAction::Redirect => "requests without TLS are redirected to HTTPS",
        InsecureAction::Reject => "requests without TLS are rejected",
    };
    format!("`{}`, {action}", host.name)
}

fn origin(config: &Config, target: Target) -> String {
    match target {
        Target::Mapping(index) => config.mappings[index].origin.to_string(),
        Target::Publish(index) => config.publish[index].origin.to_string(),
    }
}

fn taker(
    config: &Config,
    table: &Table,
    found: &Found<'_>,
    share: f64,
    request: &Request<'_>,
    authority: &Authority<'_>,
) -> Taker {
    let Some(found) = taken(found) else {
        return Taker {
            route: "none".to_owned(),
            origin: String::new(),
            share_percent: share,
            reasons: vec![
                "the weights leave this share to the next route, and there is none".into(),
            ],
            destination: Destination::NotFound,
            shadow: None,
            policies: Vec::new(),
            live: None,
            target: None,
            matched: 0,
        };
    };
    let route = found.route;
    let mut reasons = reasons(route.rule, request);
    let others = (0..table.len())
        .filter(|&id| id != route.id && table.left_out(id).is_none())
        .filter(|&id| table.route(id).rule.loss(request, authority).is_none())
        .count();
    match others {
        0 => reasons.push("no other route matches".to_owned()),
        _ => reasons.push(format!("first of the {} routes that match", others + 1)),
    }
    Taker {
        route: route.name().to_owned(),
        origin: origin(config, route.target()),
        share_percent: share,
        reasons,
        destination: destination(config, &found, request),
        shadow: found.shadow.map(|shadow| shadow.name().to_owned()),
        policies: found
            .shadow
            .map(|it| copied(config, it))
            .into_iter()
            .collect(),
        live: None,
        target: Some(route.target()),
        matched: found.matched,
    }
}

/// Says how many requests a shadow gets, and where it is.
fn copied(config: &Config, shadow: super::Route<'_>) -> Policy {
    let share = shadow.weight().unwrap_or(100);
    let service = match shadow.target() {
        Target::Mapping(index) => &config.mappings[index].spec.service,
        Target::Publish(index) => &config.publish[index].spec.topic,
    };
    let (name, origin) = (shadow.name(), origin(config, shadow.target()));
    let told = format!(
        "{share} % go to {service} too, as {name} ({origin}) says; its answers are thrown away"
    );
    Policy::new("shadow", told, Said::Mapping)
}

fn destination(config: &Config, found: &Match<'_>, request: &Request<'_>) -> Destination {
    if let Some((status, location)) = found.redirect(request) {
        return Destination::Redirect {
            status: status.as_u16(),
            location,
        };
    }
    let mapping = match found.route.target() {
        Target::Mapping(index) => &config.mappings[index],
        Target::Publish(index) => {
            return Destination::Topic {
                topic: config.publish[index].spec.topic.clone(),
            };
        }
    };
    let mut path = String::new();
    found
        .rewritten(request.path)
        .write(request.query, &mut path);
    let service = &mapping.spec.service;
    Destination::Service {
        service: service.clone(),
        path,
        host: host_header(mapping, request),
    }
}

fn host_header(mapping: &Object<model::Mapping>, request: &Request<'_>) -> String {
    let spec = &mapping.spec;
    if let Some(host) = &spec.host_rewrite {
        return host.clone();
    }
    if spec.auto_host_rewrite {
        let service = &spec.service;
        let name = service
            .split_once("://")
            .map_or(&**service, |(_, rest)| rest);
        return super::split_port(name).to_owned();
    }
    request.authority.to_owned()
}

/// What the route asks for, and that it is so.
fn reasons(rule: &Rule, request: &Request<'_>) -> Vec<String> {
    let mut reasons = vec![match &rule.host {
        HostRule::Unsaid => "the Host selects it by its labels".to_owned(),
        HostRule::Glob(glob) => format!("the host is `{glob}`"),
        HostRule::Regex(regex) => format!("the host matches `{}`", regex.text()),
    }];
    let text = &rule.path.text;
    reasons.push(match rule.path.kind {
        PathKind::Prefix => format!("the path begins with `{text}`"),
        PathKind::Exact => format!("the path is `{text}`"),
        PathKind::Regex(_) | PathKind::Segments(_) => format!("the path matches `{text}`"),
    });
    if rule.method.is_some() {
        reasons.push(format!("the method is {}", request.method));
    }
    let headers = rule
        .headers
        .iter()
        .map(|header| ("header", header.name.as_str(), &header.test));
    let query = rule
        .query
        .iter()
        .map(|query| ("query parameter", &*query.name, &query.test));
    for (kind, name, test) in headers.chain(query) {
        reasons.push(match test {
            Test::Present => format!("{kind} `{name}` is there"),
            Test::Exact(text) => format!("{kind} `{name}` is `{text}`"),
            Test::Regex(regex) => format!("{kind} `{name}` matches `{}`", regex.text()),
        });
    }
    reasons
}

/// How close a route came: it lost by order, by something else than the path, by the path.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    Order,
    LeftOut,
    Detail,
    /// The length of what the paths have in common, the longest first.
    Path(std::cmp::Reverse<usize>),
}

fn losers(
    config: &Config,
    table: &Table,
    winners: &[usize],
    request: &Request<'_>,
    authority: &Authority<'_>,
) -> (Vec<Loser>, usize) {
    let winner = winners.first().map(|&id| Key::new(table.route(id).rule));
    let mut lost: Vec<(Closeness, std::cmp::Reverse<Key>, usize, String)> = Vec::new();
    for route in table.routes().filter(|route| !winners.contains(&route.id)) {
        let rule = route.rule;
        let loss = rule.loss(request, authority);
        let key = Key::new(rule);
        let (closeness, why) = match loss {
            Some(Loss::Path) => {
                let pairs = rule.path.text.bytes().zip(request.path.bytes());
                let common = pairs.take_while(|(a, b)| a == b).count();
                (
                    Closeness::Path(std::cmp::Reverse(common)),
                    why_lost(rule, Loss::Path, request),
                )
            }
            Some(loss) if rule.path.matches(request.path) => {
                (Closeness::Detail, why_lost(rule, loss, request))
            }
            Some(loss) => (
                Closeness::Path(std::cmp::Reverse(0)),
                why_lost(rule, loss, request),
            ),
            None => match table.left_out(route.id) {
                Some(why) => (Closeness::LeftOut, format!("it is left out: {why}")),
                None if table.host(authority).is_some_and(|host| !host.takes(rule)) => (
                    Closeness::Detail,
                    "the Host does not select it by its labels".to_owned(),
                ),
                None => (Closeness::Order, order_told(rule, &key, winner.as_ref())),
            },
        };
        lost.push((closeness, std::cmp::Reverse(key), route.id, why));
    }
    lost.sort();
    let more = lost.len().saturating_sub(LOSERS_MAX);
    lost.truncate(LOSERS_MAX);
    let told = lost.into_iter().map(|(_, _, id, why)| {
        let route = table.route(id);
        let origin = origin(config, route.target());
        Loser {
            route: route.name().to_owned(),
            origin,
            why,
        }
    });
    (told.collect(), more)
}

fn order_told(rule: &Rule, key: &Key, winner: Option<&Key>) -> String {
    match winner {
        None => "it would match".to_owned(),
        Some(_) if rule.shadow => "it matches and gets a copy".to_owned(),
        Some(winner) if key < winner => format!("it matches too, but {}", key.why_after(winner)),
        Some(_) => "it matches too, but its weight leaves this request to others".to_owned(),
    }
}

fn why_lost(rule: &Rule, loss: Loss, request: &Request<'_>) -> String {
    let text = &rule.path.text;
    match loss {
        Loss::Host => match &rule.host {
            HostRule::Glob(glob) => format!("it is for the host `{glob}`"),
            HostRule::Regex(regex) => format!("it is for hosts that match `{}`", regex.text()),
            HostRule::Unsaid => "it is for another host".to_owned(),
        },
        Loss::Path => match rule.path.kind {
            PathKind::Prefix => format!("the path does not begin with `{text}`"),
            PathKind::Exact => format!("the path is not `{text}`"),
            PathKind::Regex(_) | PathKind::Segments(_) => {
                format!("the path does not match `{text}`")
            }
        },
        Loss::Method => {
            let wanted = rule.method.as_ref().map_or("", |test| test.written().0);
            format!("the method is {}, not {wanted}", request.method)
        }
        Loss::Header(index) => {
            let header = &rule.headers[index];
            let value = request.headers.get(header.name.as_str());
            let value = value.map(|value| String::from_utf8_lossy(value.as_bytes()));
            unmet(
                "header",
                header.name.as_str(),
                &header.test,
                value.as_deref(),
            )
        }
        Loss::Query(index) => {
            let query = &rule.query[index];
            unmet("query parameter", &query.name, &query.test, None)
        }
    }
}

fn unmet(kind: &str, name: &str, test: &Test, value: Option<&str>) -> String {
    let is = value
        .map(|value| format!(", it is `{value}`"))
        .unwrap_or_default();
    match test {
        Test::Present => format!("{kind} `{name}` is not there"),
        Test::Exact(text) => format!("{kind} `{name}` is not `{text}`{is}"),
        Test::Regex(regex) => format!("{kind} `{name}` does not match `{}`{is}", regex.text()),
    }
}
