//! A running gateway with ten thousand Mappings that are edited at random: after each edit it answers as one would that was
//! started with the result.

use std::collections::BTreeMap;
use std::env;

use gateway::route::{Found, Request, Table, secure_location};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::host::{InsecureAction, InsecurePolicy, RequestPolicy, Selector};
use model::{Config, Host, Mapping, Object, Origin};
use testkit::raw;

use crate::rig::Rig;

const MAPPINGS: usize = 10_000;
/// Edits, unless the environment says otherwise: enough to meet each kind of them.
const EDITS: (&str, usize) = ("NUNCIO_EDITS", 5);
const SEED: (&str, u64) = ("NUNCIO_EDITS_SEED", 0x9e37_79b9_7f4a_7c15);
const QUESTIONS: usize = 12;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn number<T: std::str::FromStr>((name, default): (&str, T)) -> T {
    let said = env::var(name).ok().and_then(|text| text.parse().ok());
    said.unwrap_or(default)
}

fn object<T>(name: String, labels: BTreeMap<String, String>, spec: T) -> Object<T> {
    Object {
        name,
        namespace: "default".into(),
        labels,
        origin: Origin::source("edits"),
        spec,
    }
}

fn labels(of: &str) -> BTreeMap<String, String> {
    let pair = (!of.is_empty()).then(|| ("team".to_owned(), of.to_owned()));
    pair.into_iter().collect()
}

/// Who takes a request is seen in the place it is sent to.
fn mapping(random: &mut Random, id: usize) -> Object<Mapping> {
    let (team, service) = (random.below(50), random.below(200));
    let prefix = match random.below(20) {
        0 => format!("/t{team}"),
        1 => format!("/t{team}/s{service}"),
        _ => format!("/t{team}/s{service}/"),
    };
    let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let mut spec = Mapping {
        prefix,
        service: format!("m{id}.test"),
        host_redirect: true,
        case_sensitive: !random.chance(5),
        prefix_exact: random.chance(10),
        precedence: if random.chance(3) { 1 } else { 0 },
        hostname: Some(
            random
                .one(&["*", "*", "*", "a.example", "*.example", "b.*"])
                .into(),
        ),
        ..Mapping::default()
    };
    match random.below(10) {
        0 => spec.headers = pair("x-tenant", random.one(&["1", "2", "3", "4"])),
        1 => spec.query_parameters = pair("q", random.one(&["1", "2", "3", "4"])),
        2 => spec.method = Some(random.one(&["GET", "POST"]).into()),
        3 => spec.weight = Some(100),
        4 if random.chance(2) => {
            spec.prefix_regex = true;
            spec.prefix = format!("/t{team}/s[0-9]+/end{service}");
        }
        _ => (),
    }
    object(
        format!("m{id:06}"),
        labels(random.one(&["", "", "a", "b"])),
        spec,
    )
}

fn host(random: &mut Random, hostname: &str) -> Object<Host> {
    let action = match random.below(4) {
        0 => InsecureAction::Redirect,
        1 => InsecureAction::Reject,
        _ => InsecureAction::Route,
    };
    let insecure = InsecurePolicy {
        action: Some(action),
        ..InsecurePolicy::default()
    };
    let mapping_selector = random.chance(20).then(|| Selector {
        match_labels: labels(random.one(&["a", "b"])),
        ..Selector::default()
    });
    let spec = Host {
        hostname: hostname.to_owned(),
        mapping_selector,
        request_policy: Some(RequestPolicy {
            insecure: Some(insecure),
        }),
        ..Host::default()
    };
    object(hostname.replace(['*', '.'], "x"), BTreeMap::new(), spec)
}

/// Changes a few Mappings or a Host. Returns where in the list something happened.
fn edit(config: &mut Config, random: &mut Random, next: &mut usize) -> usize {
    if random.chance(20) {
        let place = random.below(config.hosts.len());
        let hostname = config.hosts[place].spec.hostname.clone();
        config.hosts[place] = host(random, &hostname);
    }
    let mut touched = 0;
    for _ in 0..1 + random.below(5) {
        touched = random.below(config.mappings.len());
        *next += 1;
        match random.below(4) {
            0 => config.mappings.push(mapping(random, *next).into()),
            1 => drop(config.mappings.swap_remove(touched)),
            2 => {
                // Another route under the same name.
                let name = config.mappings[touched].name.clone();
                let other = mapping(random, *next);
                config.mappings[touched] = Object { name, ..other }.into();
            }
            // The same once more, which comes after it or before it by name.
            _ => {
                let mut twin = Object::clone(&config.mappings[touched]);
                twin.name = format!("{}{next}", random.one(&["a", "z"]));
                config.mappings.push(twin.into());
            }
        }
    }
    touched.min(config.mappings.len() - 1)
}

struct Asked {
    method: Method,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

/// Asks for something that this Mapping may take.
fn question(random: &mut Random, mapping: &Mapping) -> Asked {
    let mut path = match mapping.prefix_regex {
        true => mapping.prefix.replace("[0-9]+", "7"),
        false => mapping.prefix.clone(),
    };
    if random.chance(30) {
        path.push_str(random.one(&["x", "/", "more/of/it"]));
    }
    let mut headers = HeaderMap::new();
    if random.chance(40) {
        let name = HeaderName::from_static("x-tenant");
        let said = mapping.headers.get("x-tenant").map_or("2", String::as_str);
        headers.insert(name, HeaderValue::from_str(said).expect("a value"));
    }
    let said = mapping
        .query_parameters
        .get("q")
        .map_or("3", String::as_str);
    Asked {
        method: if random.chance(70) {
            Method::GET
        } else {
            Method::POST
        },
        authority: random
            .one(&["a.example", "c.example", "b.org", "else"])
            .to_owned(),
        path,
        query: random.chance(40).then(|| format!("q={said}")),
        headers,
    }
}

/// What a table built anew makes of it: status and location.
fn fresh(table: &Table, asked: &Asked) -> (u16, String) {
    let request = Request {
        authority: &asked.authority,
        path: &asked.path,
        query: asked.query.as_deref(),
        method: &asked.method,
        headers: &asked.headers,
        secure: false,
    };
    match table.find(&request, || 0) {
        Found::Route(found) => {
            let (status, location) = found.redirect(&request).expect("all redirect");
            (status.as_u16(), location)
        }
        Found::Secure(_) => (301, secure_location(&request)),
        Found::None(_) => (404, String::new()),
    }
}

fn running(rig: &Rig, asked: &Asked) -> (u16, String) {
    let query = asked.query.as_ref().map(|query| format!("?{query}"));
    let mut head = format!(
        "{} {}{} HTTP/1.1\nhost: {}",
        asked.method,
        asked.path,
        query.unwrap_or_default(),
        asked.authority
    );
    for (name, value) in &asked.headers {
        head += &format!("\n{name}: {}", value.to_str().expect("text"));
    }
    let response = raw::http(rig.address, &head, "");
    (response.status, response.header("location").join(","))
}

#[test]
fn a_table_that_is_edited_answers_as_one_built_anew() {
    let seed = number(SEED);
    let mut random = Random(seed | 1);
    let mappings = (0..MAPPINGS)
        .map(|id| mapping(&mut random, id).into())
        .collect();
    let hosts = ["*", "a.example", "*.example", "b.*"].map(|name| host(&mut random, name));
    let mut config = Config {
        mappings,
        hosts: hosts.into(),
        ..Config::default()
    };
    let rig = Rig::start("routes: []");
    rig.gateway.apply(&config, &[]);
    let mut next = MAPPINGS;
    let mut taken = 0;
    for round in 0..number(EDITS) {
        let touched = edit(&mut config, &mut random, &mut next);
        rig.gateway.apply(&config, &[]);
        let (table, _) = Table::build(&config);
        for nth in 0..QUESTIONS {
            let place = match nth {
                0..4 => touched,
                _ => random.below(config.mappings.len()),
            };
            let asked = question(&mut random, &config.mappings[place].spec);
            let (found, expected) = (running(&rig, &asked), fresh(&table, &asked));
            assert_eq!(
                found, expected,
                "seed {seed}, edit {round}: {} {}",
                asked.authority, asked.path
            );
            taken += usize::from(expected.0 == 301);
        }
    }
    assert!(taken > 8, "only {taken} requests were taken");
}
