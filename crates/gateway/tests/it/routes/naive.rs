//! Ambassador's routing rules once more, written down as simply as can be and tried one after the other. The route table has
//! to agree with them. Nothing of the gateway is used here.

use std::{cell::RefCell, collections::HashMap};

use http::{HeaderMap, Method};
use model::{
    Config, Host, Mapping, Object,
    host::{InsecureAction, InsecurePolicy, RequestPolicy},
};
use regex::Regex;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) authority: String,
    /// Normalised.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) secure: bool,
    /// The random number by which weights decide.
    pub(crate) draw: u32,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Indices in the list of Mappings.
    Mapping {
        index: usize,
        shadow: Option<usize>,
    },
    Secure,
    NoHost,
    NoRoute,
    Insecure,
}

/// One Host, or several with the same name.
struct Virtual<'c> {
    hostname: String,
    hosts: Vec<&'c Host>,
}

/// Answers a request by the rules.
pub(crate) fn answer(config: &Config, asked: &Asked) -> Answer {
    let built_in = Host {
        hostname: "*".into(),
        request_policy: Some(RequestPolicy {
            insecure: Some(InsecurePolicy {
                action: Some(InsecureAction::Route),
                ..InsecurePolicy::default()
            }),
        }),
        ..Host::default()
    };
    let mut written: Vec<_> = config
        .hosts
        .iter()
        .map(|host| (host.full_name(), &host.spec))
        .collect();
    written.sort_by(|a, b| a.0.cmp(&b.0));
    if written.is_empty() {
        written.push((String::new(), &built_in));
    }
    let mut hosts: Vec<Virtual<'_>> = Vec::new();
    for (_, host) in written {
        let hostname = host.hostname.to_ascii_lowercase();
        match hosts.iter_mut().find(|known| known.hostname == hostname) {
            Some(known) => known.hosts.push(host),
            None => hosts.push(Virtual {
                hostname,
                hosts: vec![host],
            }),
        }
    }
    let candidates = hosts
        .iter()
        .filter(|host| glob(&host.hostname, &asked.authority));
    let Some(host) = candidates.max_by_key(|host| specific(&host.hostname)) else {
        return Answer::NoHost;
    };
    let acme = asked.path.starts_with("/.well-known/acme-challenge/");
    let action = match asked.secure || acme {
        true => InsecureAction::Route,
        false => host.hosts[0].insecure_action(),
    };
    if action == InsecureAction::Reject {
        return Answer::Insecure;
    }
    let takes = |mapping: &Object<Mapping>| {
        host.hosts.iter().any(|host| match host.selector() {
            Some(selector) if !selector.match_labels.is_empty() => {
                selector.matches(&mapping.labels)
            }
            _ => mapping.spec.hostname.is_some() || mapping.spec.host.is_some(),
        })
    };
    let mappings = config
        .mappings
        .iter()
        .enumerate()
        .filter(|(_, mapping)| works(&mapping.spec) && takes(mapping));
    type Members<'a> = Vec<(usize, &'a Mapping)>;
    let mut groups: Vec<(Vec<String>, Members<'_>)> = Vec::new();
    for (index, mapping) in mappings {
        let key = key(&mapping.spec);
        match groups.iter_mut().find(|group| group.0 == key) {
            Some(group) => group.1.push((index, &mapping.spec)),
            None => groups.push((key, vec![(index, &mapping.spec)])),
        }
    }
    groups.sort_by(|a, b| b.0.cmp(&a.0));
    for (_, members) in groups {
        if let Some((index, shadow)) = group(config, members, asked) {
            return match action {
                InsecureAction::Redirect => Answer::Secure,
                _ => Answer::Mapping { index, shadow },
            };
        }
    }
    Answer::NoRoute
}

/// Whether all its regular expressions are some, and its host can be one.
fn works(spec: &Mapping) -> bool {
    let regexes = spec
        .regex_headers
        .values()
        .chain(spec.regex_query_parameters.values())
        .chain(spec.prefix_regex.then_some(&spec.prefix))
        .chain(spec.method.as_ref().filter(|_| spec.method_regex));
    let host = match (&spec.hostname, &spec.host) {
        (None, Some(host)) if spec.host_regex => compiles(host),
        (None, Some(host)) => !host.contains('*'),
        _ => true,
    };
    host && regexes.into_iter().all(|pattern| compiles(pattern))
}

/// What is asked of the headers: name, value, whether that is a regular expression.
fn headers(spec: &Mapping) -> Vec<(String, String, bool)> {
    let mut headers = Vec::new();
    let name = |name: &String| match name.to_ascii_lowercase().as_str() {
        "host" => ":authority".to_owned(),
        name => name.to_owned(),
    };
    for (header, value) in &spec.headers {
        headers.push((name(header), value.clone(), false));
    }
    for (header, value) in &spec.regex_headers {
        headers.push((name(header), value.clone(), true));
    }
    headers
}

fn query(spec: &Mapping) -> Vec<(String, String, bool)> {
    let exact = spec.query_parameters.iter();
    let regex = spec.regex_query_parameters.iter();
    exact
        .map(|(name, value)| (name.clone(), value.clone(), false))
        .chain(regex.map(|(name, value)| (name.clone(), value.clone(), true)))
        .collect()
}

/// Ambassador's list as text that sorts like it.
fn key(spec: &Mapping) -> Vec<String> {
    let number = |number: usize| format!("{number:06}");
    let mut headers = headers(spec);
    match (&spec.hostname, &spec.host) {
        (Some(host), _) => headers.push((":authority".into(), host.to_ascii_lowercase(), false)),
        (None, Some(host)) if spec.host_regex => {
            headers.push((":authority".into(), host.clone(), true));
        }
        (None, Some(host)) => headers.push((":authority".into(), host.to_ascii_lowercase(), false)),
        (None, None) => (),
    }
    let mut query = query(spec);
    let len = |fields: &[(String, String, bool)]| {
        let len = |text: &String| text.chars().count();
        fields
            .iter()
            .map(|(name, value, regex)| len(name) + len(value) + usize::from(*regex))
            .sum()
    };
    headers.sort();
    query.sort();
    let method = spec.method.as_ref().map(|method| match spec.method_regex {
        true => format!("-{}\0regex", method),
        false => format!("-{method}"),
    });
    let mut key = vec![
        number((spec.precedence + 1000) as usize),
        number(spec.prefix.chars().count()),
        number(len(&headers)),
        number(len(&query)),
        spec.prefix.clone(),
        method.unwrap_or_default(),
    ];
    let text = |(name, value, regex): &(String, String, bool)| {
        format!("{name}-{value}{}", if *regex { "\0regex" } else { "" })
    };
    key.extend(headers.iter().map(text));
    key.push(String::new());
    key.extend(query.iter().map(text));
    key
}

/// Returns the member that takes the request, and the shadow.
///
/// The first by name that is no shadow decides what all must agree on.
fn group(
    config: &Config,
    mut members: Vec<(usize, &Mapping)>,
    asked: &Asked,
) -> Option<(usize, Option<usize>)> {
    members.sort_by_key(|(index, spec)| (spec.shadow, config.mappings[*index].full_name()));
    let lead = members[0].1;
    let kind = |spec: &Mapping| (spec.prefix_regex, !spec.prefix_regex && spec.prefix_exact);
    let agreed = |spec: &Mapping| {
        (
            kind(spec),
            spec.bypass_auth,
            spec.connect_timeout_ms,
            spec.host_redirect,
        )
    };
    let mut shadow = None;
    let mut sharing: Vec<(usize, &Mapping)> = Vec::new();
    for (index, spec) in members {
        if spec.shadow && kind(spec) == kind(lead) {
            shadow = shadow.or(Some(index));
        } else if agreed(spec) == agreed(lead)
            && !spec.shadow
            && (sharing.is_empty() || !spec.host_redirect)
        {
            sharing.push((index, spec));
        }
    }
    let sum: u32 = sharing.iter().filter_map(|(_, spec)| spec.weight).sum();
    if sharing.len() > 1 && sum > 100 || sharing.iter().any(|(_, spec)| spec.weight > Some(100)) {
        return None;
    }
    let silent = sharing
        .iter()
        .filter(|(_, spec)| spec.weight.is_none())
        .count() as u64;
    let (told, untold): (Vec<_>, Vec<_>) =
        sharing.iter().partition(|(_, spec)| spec.weight.is_some());
    // Percents are too coarse where several share what is left.
    let parts = silent.max(1);
    let mut below = 0;
    for (index, spec) in told.into_iter().chain(untold) {
        below += match spec.weight {
            _ if sharing.len() == 1 => 100 * parts,
            Some(weight) => u64::from(weight) * parts,
            None => u64::from(100 - sum),
        };
        let drawn = u64::from(asked.draw) * 100 * parts < below << 32;
        if drawn && matches(spec, asked) {
            return Some((index, shadow));
        }
    }
    None
}

fn matches(spec: &Mapping, asked: &Asked) -> bool {
    let path = if spec.prefix_regex {
        whole(&spec.prefix, &asked.path)
    } else {
        let fold = |text: &str| match spec.case_sensitive {
            true => text.to_owned(),
            false => text.to_ascii_lowercase(),
        };
        match spec.prefix_exact {
            true => fold(&asked.path) == fold(&spec.prefix),
            false => fold(&asked.path).starts_with(&fold(&spec.prefix)),
        }
    };
    let method = spec
        .method
        .as_ref()
        .is_none_or(|method| match spec.method_regex {
            true => whole(method, asked.method.as_str()),
            false => method == asked.method.as_str(),
        });
    path && method
        && host(spec, &asked.authority)
        && headers(spec).iter().all(|wanted| header(wanted, asked))
        && query(spec).iter().all(|wanted| parameter(wanted, asked))
}

fn host(spec: &Mapping, authority: &str) -> bool {
    match (&spec.hostname, &spec.host) {
        (Some(hostname), _) => glob(hostname, authority),
        (None, Some(host)) if spec.host_regex => {
            let authority = authority.to_ascii_lowercase();
            whole(host, &authority) || whole(host, without_port(&authority))
        }
        (None, Some(host)) => glob(host, authority),
        (None, None) => true,
    }
}

fn header((name, wanted, regex): &(String, String, bool), asked: &Asked) -> bool {
    let passes = |value: &str| match regex {
        true => whole(wanted, value),
        false => value == wanted,
    };
    match name.as_str() {
        ":authority" => {
            let authority = asked.authority.to_ascii_lowercase();
            passes(&authority) || passes(without_port(&authority))
        }
        ":method" => passes(asked.method.as_str()),
        ":path" => match &asked.query {
            Some(query) => passes(&format!("{}?{query}", asked.path)),
            None => passes(&asked.path),
        },
        name => {
            let values: Vec<&str> = asked
                .headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().expect("the questions are ASCII"))
                .collect();
            !values.is_empty() && passes(&values.join(","))
        }
    }
}

/// The first parameter of that name counts, as it stands or decoded.
fn parameter((name, wanted, regex): &(String, String, bool), asked: &Asked) -> bool {
    let passes = |value: &str| match regex {
        true => whole(wanted, value),
        false => value == wanted,
    };
    let pairs = asked.query.as_deref().unwrap_or("").split('&');
    let mut pairs = pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .find(|(found, _)| found == name || decoded(found) == *name)
        .is_some_and(|(_, value)| passes(value) || passes(&decoded(value)))
}

fn decoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.get(at + 1..at + 3);
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

/// Compiling takes most of the time, and there are few patterns.
fn compiled<T>(pattern: &str, then: impl FnOnce(Option<&Regex>) -> T) -> T {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        if compiled.len() > 1000 {
            compiled.clear();
        }
        let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| {
            Regex::new(pattern).ok()?;
            Regex::new(&format!(r"\A(?:{pattern})\z")).ok()
        });
        then(regex.as_ref())
    })
}

fn compiles(pattern: &str) -> bool {
    compiled(pattern, |regex| regex.is_some())
}

fn whole(pattern: &str, text: &str) -> bool {
    compiled(pattern, |regex| {
        regex.is_some_and(|regex| regex.is_match(text))
    })
}

fn without_port(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => text,
    }
}

fn glob(pattern: &str, authority: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let mut name = authority.to_ascii_lowercase();
    if without_port(&pattern) == pattern {
        name = without_port(&name).to_owned();
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        // The star is never a bare dot.
        (Some(end), _) => name
            .strip_suffix(end)
            .is_some_and(|star| !["", "."].contains(&star)),
        (_, Some(start)) => name
            .strip_prefix(start)
            .is_some_and(|star| !star.is_empty()),
        (None, None) => name == pattern,
    }
}

fn specific(hostname: &str) -> (u8, usize, bool) {
    let kind = match hostname {
        "*" => 0,
        _ if hostname.starts_with('*') => 2,
        _ if hostname.ends_with('*') => 1,
        _ => 3,
    };
    (kind, hostname.len(), hostname.contains(':'))
}
