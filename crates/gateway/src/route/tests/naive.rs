//! The same rules once more, written down as simply as can be and tried one after the other. The table has to agree.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use model::{
    Config, Host, Mapping, Object, Origin,
    host::{InsecureAction, InsecurePolicy, RequestPolicy, Selector},
};
use proptest::{prelude::*, sample::select};
use regex::Regex;

use super::Asked;
use crate::route::{Found, Miss, Table, Target};

#[derive(Debug, PartialEq)]
enum Answer {
    Mapping { index: usize, shadow: Option<usize> },
    Secure,
    NoHost,
    NoRoute,
    Insecure,
}

fn asked_of_table(table: &Table, asked: &Asked) -> Answer {
    let index = |target| match target {
        Target::Mapping(index) => index,
        Target::Publish(_) => unreachable!("there are none"),
    };
    match table.find(&asked.request(), || asked.draw) {
        Found::Route(found) => Answer::Mapping {
            index: index(found.route.target()),
            shadow: found.shadow.map(|shadow| index(shadow.target())),
        },
        Found::Secure(_) => Answer::Secure,
        Found::None(Miss::Host) => Answer::NoHost,
        Found::None(Miss::Route) => Answer::NoRoute,
        Found::None(Miss::Insecure) => Answer::Insecure,
    }
}

fn asked_of_rules(config: &Config, asked: &Asked) -> Answer {
    let built_in = [object(
        0,
        BTreeMap::new(),
        Host {
            hostname: "*".into(),
            request_policy: policy(InsecureAction::Route),
            ..Host::default()
        },
    )];
    let hosts = if config.hosts.is_empty() {
        &built_in[..]
    } else {
        &config.hosts
    };
    let candidates = hosts
        .iter()
        .filter(|host| glob(&host.spec.hostname, &asked.authority));
    let Some(host) = candidates.max_by_key(|host| specific(&host.spec.hostname)) else {
        return Answer::NoHost;
    };
    let action = match asked.secure {
        true => InsecureAction::Route,
        false => host.spec.insecure_action(),
    };
    if action == InsecureAction::Reject {
        return Answer::Insecure;
    }
    let takes = |mapping: &Object<Mapping>| match host.spec.selector() {
        Some(selector) => selector.matches(&mapping.labels),
        None => mapping.spec.hostname.is_some(),
    };
    let mappings = config
        .mappings
        .iter()
        .enumerate()
        .filter(|(_, mapping)| takes(mapping));
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
        if let Some((index, shadow)) = group(members, asked) {
            return match action {
                InsecureAction::Redirect => Answer::Secure,
                _ => Answer::Mapping { index, shadow },
            };
        }
    }
    Answer::NoRoute
}

/// Ambassador's list as text that sorts like it.
fn key(spec: &Mapping) -> Vec<String> {
    let number = |number: usize| format!("{number:06}");
    let mut headers: Vec<(String, String, bool)> = Vec::new();
    headers.extend(
        spec.headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone(), false)),
    );
    headers.extend(
        spec.regex_headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone(), true)),
    );
    headers.extend(
        spec.hostname
            .iter()
            .map(|host| (":authority".into(), host.clone(), false)),
    );
    let mut query: Vec<(String, String, bool)> = Vec::new();
    query.extend(
        spec.query_parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.clone(), false)),
    );
    let len = |fields: &[(String, String, bool)]| {
        fields
            .iter()
            .map(|(name, value, regex)| name.len() + value.len() + *regex as usize)
            .sum()
    };
    headers.sort();
    query.sort();
    let mut key = vec![
        number((spec.precedence + 1000) as usize),
        number(spec.prefix.len()),
        number(len(&headers)),
        number(len(&query)),
        spec.prefix.clone(),
        spec.method.clone().unwrap_or_default(),
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
fn group(members: Vec<(usize, &Mapping)>, asked: &Asked) -> Option<(usize, Option<usize>)> {
    let lead = members[0].1;
    let same = |spec: &Mapping| {
        (spec.prefix_regex, spec.prefix_exact, spec.bypass_auth)
            == (lead.prefix_regex, lead.prefix_exact, lead.bypass_auth)
    };
    let agreeing: Vec<_> = members
        .into_iter()
        .filter(|(_, spec)| {
            same(spec)
                || spec.shadow
                    && (spec.prefix_regex, spec.prefix_exact)
                        == (lead.prefix_regex, lead.prefix_exact)
        })
        .collect();
    let shadow = agreeing
        .iter()
        .find(|(_, spec)| spec.shadow)
        .map(|(index, _)| *index);
    let members: Vec<_> = agreeing
        .into_iter()
        .filter(|(_, spec)| !spec.shadow)
        .collect();
    let sum: u32 = members.iter().filter_map(|(_, spec)| spec.weight).sum();
    if members.len() > 1 && sum > 100 {
        return None;
    }
    let draw = f64::from(asked.draw) / 4_294_967_296.0 * 100.0;
    let silent = members
        .iter()
        .filter(|(_, spec)| spec.weight.is_none())
        .count();
    let (told, untold): (Vec<_>, Vec<_>) =
        members.iter().partition(|(_, spec)| spec.weight.is_some());
    let mut below = 0.0;
    for (index, spec) in told.into_iter().chain(untold) {
        below += match spec.weight {
            _ if members.len() == 1 => 100.0,
            Some(weight) => f64::from(weight),
            None => f64::from(100 - sum) / silent as f64,
        };
        if draw < below && matches(spec, asked) {
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
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap());
    let query = |wanted: &str| {
        let pairs = asked.query.as_deref().unwrap_or("").split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == wanted)
    };
    path && spec
        .hostname
        .as_ref()
        .is_none_or(|hostname| glob(hostname, &asked.authority))
        && spec
            .method
            .as_ref()
            .is_none_or(|method| method == asked.method.as_str())
        && spec
            .headers
            .iter()
            .all(|(name, value)| header(name) == Some(value))
        && spec
            .regex_headers
            .iter()
            .all(|(name, pattern)| header(name).is_some_and(|value| whole(pattern, value)))
        && spec
            .query_parameters
            .iter()
            .all(|(name, value)| query(name).is_some_and(|(_, found)| found == value))
}

/// Compiling takes most of the time, and there are few patterns.
fn whole(pattern: &str, text: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let regex = compiled
            .entry(pattern.to_owned())
            .or_insert_with(|| Regex::new(&format!("^(?:{pattern})$")).unwrap());
        regex.is_match(text)
    })
}

fn glob(pattern: &str, authority: &str) -> bool {
    let without_port = |text: &str| match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => text.to_owned(),
    };
    let mut name = authority.to_ascii_lowercase();
    if without_port(pattern) == pattern {
        name = without_port(&name);
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
        _ if hostname.ends_with('*') => 1,
        _ if hostname.starts_with('*') => 2,
        _ => 3,
    };
    (kind, hostname.len(), hostname.contains(':'))
}

fn object<T>(index: usize, labels: BTreeMap<String, String>, spec: T) -> Object<T> {
    let name = format!("r{index:03}");
    Object {
        name,
        namespace: "default".into(),
        labels,
        origin: Origin::source("test"),
        spec,
    }
}

fn policy(action: InsecureAction) -> Option<RequestPolicy> {
    let insecure = Some(InsecurePolicy {
        action: Some(action),
        ..InsecurePolicy::default()
    });
    Some(RequestPolicy { insecure })
}

const HOSTNAMES: &[&str] = &[
    "*",
    "a.example",
    "b.example",
    "*.example",
    "*.a.example",
    "a.*",
    "a.example:80",
    "*:80",
    "b*",
    "*example",
];

fn hostname() -> impl Strategy<Value = String> {
    select(HOSTNAMES).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    select(vec![
        vec![],
        vec![pair("l", "1")],
        vec![pair("l", "1"), pair("m", "2")],
        vec![pair("m", "3")],
    ])
    .prop_map(|pairs| pairs.into_iter().collect())
}

fn pairs(
    names: &'static [&'static str],
    values: &'static [&'static str],
) -> impl Strategy<Value = BTreeMap<String, String>> {
    let pair = (select(names), select(values))
        .prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    prop_oneof![3 => Just(BTreeMap::new()), 2 => prop::collection::btree_map(pair.clone().prop_map(|pair| pair.0), pair.prop_map(|pair| pair.1), 1..3)]
}

/// Few different values, so that routes collide a lot.
fn mapping() -> impl Strategy<Value = (BTreeMap<String, String>, Mapping)> {
    let prefix = prop_oneof![
        6 => select(&["/", "/a", "/a/", "/A/", "/a/b", "/ab/", "/b/c/d"][..]).prop_map(|prefix| (prefix.to_owned(), 0)),
        2 => select(&["/a/", "/a/b", "/A", "/b/c"][..]).prop_map(|prefix| (prefix.to_owned(), 1)),
        3 => select(&["/a.*", "/(a|b)/.*", "/a/[bc]", ".*", "/a|/b.*", "/ab?/", "(?i)/a/b"][..]).prop_map(|prefix| (prefix.to_owned(), 2)),
        1 => "/[abAB/]{0,5}".prop_map(|prefix| (prefix, 0)),
    ];
    let matching = (
        prefix,
        prop::option::weighted(0.9, hostname()),
        prop::option::weighted(0.3, select(&["GET", "POST"][..])),
        pairs(&["x", "yy"], &["1", "22"]),
        pairs(&["x", "z"], &["[12]+", ".*", "1"]),
        pairs(&["q", "r"], &["1", "22"]),
        prop::bool::weighted(0.8),
    );
    let rest = (
        prop_oneof![6 => Just(0), 1 => Just(1), 1 => Just(-1)],
        prop::option::weighted(0.4, select(&[0_u32, 10, 30, 50, 70, 100][..])),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        labels(),
    );
    (matching, rest).prop_map(|(matching, rest)| {
        let (
            (prefix, kind),
            hostname,
            method,
            headers,
            regex_headers,
            query_parameters,
            case_sensitive,
        ) = matching;
        let (precedence, weight, shadow, bypass_auth, labels) = rest;
        let mapping = Mapping {
            prefix,
            prefix_exact: kind == 1,
            prefix_regex: kind == 2,
            hostname,
            method: method.map(str::to_owned),
            // A header is only asked for once.
            regex_headers: regex_headers
                .into_iter()
                .filter(|(name, _)| !headers.contains_key(name))
                .collect(),
            headers,
            query_parameters,
            case_sensitive,
            precedence,
            weight,
            shadow,
            bypass_auth,
            service: "s".into(),
            ..Mapping::default()
        };
        (labels, mapping)
    })
}

fn hosts() -> impl Strategy<Value = Vec<Object<Host>>> {
    let action = select(vec![
        InsecureAction::Route,
        InsecureAction::Route,
        InsecureAction::Redirect,
        InsecureAction::Reject,
    ]);
    let selector = prop::option::weighted(
        0.4,
        labels().prop_filter("asks for something", |labels| !labels.is_empty()),
    );
    let host = (hostname(), action, selector);
    prop_oneof![
        1 => Just(Vec::new()),
        2 => prop::collection::vec(host, 1..5).prop_map(|hosts| {
            let mut seen = Vec::new();
            let distinct = hosts.into_iter().filter(|(hostname, ..)| {
                let new = !seen.contains(hostname);
                seen.push(hostname.clone());
                new
            });
            distinct
                .enumerate()
                .map(|(index, (hostname, action, labels))| {
                    let mapping_selector = labels.map(|match_labels| Selector { match_labels });
                    let host = Host { hostname, mapping_selector, request_policy: policy(action), ..Host::default() };
                    object(index, BTreeMap::new(), host)
                })
                .collect()
        }),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (prop::collection::vec(mapping(), 0..14), hosts()).prop_map(|(mappings, hosts)| Config {
        mappings: mappings
            .into_iter()
            .enumerate()
            .map(|(index, (labels, spec))| object(index, labels, spec))
            .collect(),
        hosts,
        ..Config::default()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let path = prop_oneof![
        select(
            &[
                "/", "/a", "/a/", "/A/b", "/a/b", "/a/c", "/ab/x", "/b/c/d/e", "/b/c"
            ][..]
        )
        .prop_map(str::to_owned),
        "/[abcAB/]{0,6}",
    ];
    let authority = select(
        &[
            "",
            "a.example",
            "b.example",
            "x.a.example",
            "a.org",
            "a.example:80",
            "c:80",
            "B",
            "bb",
            "A.Example:8080",
            ".example",
        ][..],
    );
    let query = pairs(&["q", "r", "s"], &["1", "22", "3"]);
    let headers = pairs(&["x", "yy", "z"], &["1", "22", "3"]);
    (
        select(&["GET", "POST", "PUT"][..]),
        authority,
        path,
        query,
        headers,
        any::<(bool, u32)>(),
    )
        .prop_map(
            |(method, authority, path, query, headers, (secure, draw))| {
                let query: Vec<String> = query
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let header = |(name, value): (String, String)| {
                    (
                        name.parse::<HeaderName>().unwrap(),
                        value.parse::<HeaderValue>().unwrap(),
                    )
                };
                Asked {
                    method: method.parse().unwrap(),
                    authority: authority.to_owned(),
                    path,
                    query: (!query.is_empty()).then(|| query.join("&")),
                    headers: headers.into_iter().map(header).collect::<HeaderMap>(),
                    secure,
                    draw,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_the_rules_say(config in config(), questions in prop::collection::vec(asked(), 1..20)) {
        let (table, _) = Table::build(&config);
        for asked in &questions {
            prop_assert_eq!(asked_of_table(&table, asked), asked_of_rules(&config, asked), "{:?}", asked);
        }
    }

    #[test]
    fn hostile_requests_never_panic(
        config in config(),
        authority in "\\PC{0,20}",
        raw in "/\\PC{0,30}",
        query in prop::option::of("\\PC{0,30}"),
        value in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (table, _) = Table::build(&config);
        let Ok(path) = crate::route::path::normalise(&raw, &crate::route::path::Rules::default()) else {
            return Ok(());
        };
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append("x", value.clone());
            headers.append("x", value);
        }
        let path = path.into_owned();
        let method = "GET".parse().unwrap();
        let asked = Asked { method, authority, path, query, headers, secure: false, draw: u32::MAX };
        if let Found::Route(found) = table.find(&asked.request(), || asked.draw) {
            let mut out = String::new();
            found.rewritten(&asked.path).write(asked.query.as_deref(), &mut out);
            prop_assert!(out.starts_with('/'));
        }
    }
}
