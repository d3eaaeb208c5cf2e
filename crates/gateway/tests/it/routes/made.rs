//! Configurations and requests made of bytes: each byte decides one thing, and no byte decides for the plain one. There are
//! few different values, so that routes collide a lot.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use model::{
    Config, Host, Mapping, Object, Origin,
    host::{InsecureAction, InsecurePolicy, RequestPolicy, Selector},
};

use super::naive::Asked;

/// Decisions.
pub(crate) struct Bytes<'b>(pub(crate) &'b [u8]);

impl<'b> Bytes<'b> {
    pub(crate) fn next(&mut self) -> u8 {
        match self.0 {
            [] => 0,
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
        }
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()) % end
    }

    fn one<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.below(of.len())]
    }

    /// True for that many of 100; false when there are no bytes left.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }
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
    "A.Example",
];
const HOST_REGEXES: &[&str] = &["[ab].example", ".*", "a.example:80", "(a|x[.]a)[.]example"];
const PREFIXES: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/A/",
    "/a/b",
    "/ab/",
    "/b/c/d",
    "/.well-known/acme-challenge/",
    "/a/b/",
    "",
];
const EXACTS: &[&str] = &["/a/", "/a/b", "/A", "/b/c"];
const REGEXES: &[&str] = &[
    "/a.*",
    "/(a|b)/.*",
    "/a/[bc]",
    ".*",
    "/a|/b.*",
    "/ab?/",
    "(?i)/a/b",
    "/a/(b|c)/?.*",
    "/[ab]/c.*",
    "/a{1,2}.*",
    "^/a/.*$",
    "/a.*/d",
];
const SYLLABLES: &[&str] = &[
    "/", "a", "b", "c", ".*", "|", "(", ")", "?", "[ab]", "A", "+", "(?i)",
];

/// Makes a configuration and some requests.
pub(crate) fn made(input: &[u8]) -> (Config, Vec<Asked>) {
    let mut bytes = Bytes(input);
    // The questions first: a short input then still asks for something.
    let questions = 1 + bytes.below(12);
    let questions = (0..questions).map(|_| asked(&mut bytes)).collect();
    let hosts = match bytes.below(3) {
        0 => 0,
        _ => bytes.below(5),
    };
    let hosts = (0..hosts).map(|index| host(&mut bytes, index)).collect();
    let count = bytes.below(16);
    let mappings = (0..count)
        .map(|index| std::sync::Arc::new(mapping(&mut bytes, index)))
        .collect();
    let config = Config {
        mappings,
        hosts,
        ..Config::default()
    };
    (config, questions)
}

fn object<T>(name: String, labels: BTreeMap<String, String>, spec: T) -> Object<T> {
    Object {
        name,
        namespace: "default".into(),
        labels,
        origin: Origin::source("made"),
        spec,
    }
}

fn labels(bytes: &mut Bytes<'_>) -> BTreeMap<String, String> {
    let all: [&[(&str, &str)]; 4] = [&[], &[("l", "1")], &[("l", "1"), ("m", "2")], &[("m", "3")]];
    let pairs = bytes.one(&all);
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn host(bytes: &mut Bytes<'_>, index: usize) -> Object<Host> {
    let hostname = bytes.one(HOSTNAMES).to_owned();
    let action = match bytes.below(5) {
        0..=2 => InsecureAction::Route,
        3 => InsecureAction::Redirect,
        _ => InsecureAction::Reject,
    };
    let selector = bytes.chance(40).then(|| Selector {
        match_labels: labels(bytes),
        any: false,
    });
    let insecure = InsecurePolicy {
        action: Some(action),
        ..InsecurePolicy::default()
    };
    let mut host = Host {
        hostname,
        request_policy: Some(RequestPolicy {
            insecure: Some(insecure),
        }),
        ..Host::default()
    };
    match bytes.chance(20) {
        true => host.selector = selector,
        false => host.mapping_selector = selector,
    }
    object(format!("h{index}"), BTreeMap::new(), host)
}

fn pairs(bytes: &mut Bytes<'_>, names: &[&str], values: &[&str]) -> BTreeMap<String, String> {
    let count = match bytes.below(5) {
        0..=2 => 0,
        3 => 1,
        _ => 2,
    };
    (0..count)
        .map(|_| (bytes.one(names).to_owned(), bytes.one(values).to_owned()))
        .collect()
}

/// Makes a Mapping with any of the fields that decide where a request goes.
pub(crate) fn mapping(bytes: &mut Bytes<'_>, index: usize) -> Object<Mapping> {
    let mut spec = Mapping {
        service: "s".into(),
        prefix: "/".into(),
        case_sensitive: true,
        ..Mapping::default()
    };
    match bytes.below(16) {
        0..=8 => spec.prefix = bytes.one(PREFIXES).into(),
        9 | 10 => {
            spec.prefix = bytes.one(EXACTS).into();
            spec.prefix_exact = true;
        }
        11..=13 => {
            spec.prefix = bytes.one(REGEXES).into();
            spec.prefix_regex = true;
            // Ambassador ignores it there.
            spec.prefix_exact = bytes.chance(5);
        }
        14 => {
            let count = bytes.below(7);
            spec.prefix = (0..count).map(|_| bytes.one(SYLLABLES)).collect();
            spec.prefix_regex = true;
        }
        _ => {
            let count = bytes.below(6);
            spec.prefix = (0..count)
                .map(|_| bytes.one(&["/", "a", "b", "A"]))
                .collect();
        }
    }
    match bytes.below(16) {
        0..=11 => spec.hostname = Some(bytes.one(HOSTNAMES).into()),
        12 => spec.host = Some(bytes.one(HOSTNAMES).into()),
        13 | 14 => {
            spec.host = Some(bytes.one(HOST_REGEXES).into());
            spec.host_regex = true;
        }
        _ => (),
    }
    match bytes.below(8) {
        5 => spec.method = Some("GET".into()),
        6 => spec.method = Some("POST".into()),
        7 => {
            spec.method = Some(bytes.one(&["GET|PUT", "P.*", ".*"]).into());
            spec.method_regex = true;
        }
        _ => (),
    }
    spec.headers = pairs(
        bytes,
        &["x", "yy", "X", ":authority", ":path", ":method"],
        &["1", "22", "1,1", "a.example", "GET", "/a"],
    );
    spec.regex_headers = pairs(
        bytes,
        &["x", "z", ":authority", ":path"],
        &["[12]+", ".*", "1", "1,.*", "a.*"],
    );
    // A header is only asked for once.
    let (headers, regexes) = (&mut spec.headers, &mut spec.regex_headers);
    if headers.contains_key("x") {
        headers.remove("X");
    }
    regexes.retain(|name, _| !headers.keys().any(|other| other.eq_ignore_ascii_case(name)));
    spec.query_parameters = pairs(bytes, &["q", "r", "a b"], &["1", "22", "a b"]);
    spec.regex_query_parameters = pairs(bytes, &["q", "t"], &["[12]+", ".*", "a.b"]);
    let query = &spec.query_parameters;
    spec.regex_query_parameters
        .retain(|name, _| !query.contains_key(name));
    spec.case_sensitive = !bytes.chance(20);
    spec.precedence = match bytes.below(8) {
        6 => 1,
        7 => -1,
        _ => 0,
    };
    if bytes.chance(40) {
        spec.weight = Some([0, 10, 30, 50, 70, 100, 101][bytes.below(7)]);
    }
    spec.shadow = bytes.chance(10);
    spec.bypass_auth = bytes.chance(10);
    spec.host_redirect = bytes.chance(10);
    spec.connect_timeout_ms = bytes.chance(5).then_some(7);
    let labels = labels(bytes);
    object(format!("r{index:05}"), labels, spec)
}

/// Makes a request.
pub(crate) fn asked(bytes: &mut Bytes<'_>) -> Asked {
    const PATHS: &[&str] = &[
        "/",
        "/a",
        "/a/",
        "/A/b",
        "/a/b",
        "/a/c",
        "/ab/x",
        "/b/c/d/e",
        "/b/c",
        "/.well-known/acme-challenge/x",
    ];
    const AUTHORITIES: &[&str] = &[
        "a.example",
        "",
        "b.example",
        "x.a.example",
        "a.org",
        "a.example:80",
        "c:80",
        "B",
        "bb",
        "A.Example:8080",
        ".example",
        "a.example:",
        ":80",
    ];
    let method = bytes
        .one(&["GET", "POST", "PUT"])
        .parse()
        .expect("a method");
    let authority = bytes.one(AUTHORITIES).to_owned();
    let path = match bytes.chance(70) {
        false => bytes.one(PATHS).to_owned(),
        true => {
            let count = bytes.below(7);
            let tail: String = (0..count)
                .map(|_| bytes.one(&["a", "b", "/", "c", "A", "B"]))
                .collect();
            format!("/{tail}")
        }
    };
    let count = bytes.below(4);
    let query: Vec<String> = (0..count)
        .map(|_| {
            let name = bytes.one(&["q", "r", "s", "a%20b", "%71", "", "t"]);
            match bytes.one(&["1", "22", "3", "a%20b", "%31", "", "%"]) {
                "" => name.to_owned(),
                value => format!("{name}={value}"),
            }
        })
        .collect();
    let mut headers = HeaderMap::new();
    for _ in 0..bytes.below(4) {
        let name: HeaderName = bytes.one(&["x", "yy", "z"]).parse().expect("a name");
        headers.append(
            name,
            HeaderValue::from_static(bytes.one(&["1", "22", "3", ""])),
        );
    }
    Asked {
        method,
        authority,
        path,
        query: (!query.is_empty()).then(|| query.join("&")),
        headers,
        secure: bytes.chance(50),
        draw: u32::from_be_bytes([bytes.next(), bytes.next(), bytes.next(), bytes.next()]),
    }
}
