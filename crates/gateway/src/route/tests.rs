//! Ambassador's routing rules, as tables: what is written, what is asked, what comes out.

mod explain;
mod many;
mod random;
mod rules;

use std::collections::BTreeMap;

use expect_test::Expect;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::{Config, Host, Mapping, Object, Origin, Publish};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Found, Request, Table, Target, path, secure_location};

/// Reads `routes:`, `hosts:` and `publish:`, each a list of specs with a `name` and `labels` mixed in.
///
/// As in Ambassador's own tests every route has the hostname `*`, unless it says otherwise; `hostname: ~` leaves it out.
pub(super) fn config(text: &str) -> Config {
    let mut written: BTreeMap<String, Vec<Map<String, Value>>> =
        serde_saphyr::from_str(text).expect("the test's YAML");
    for route in written.get_mut("routes").into_iter().flatten() {
        let said = route.contains_key("host") || route.contains_key("hostname");
        if !said {
            route.insert("hostname".into(), "*".into());
        }
        route.entry("service").or_insert("s".into());
    }
    let config = Config {
        mappings: objects::<Mapping>(written.remove("routes"))
            .into_iter()
            .map(std::sync::Arc::new)
            .collect(),
        hosts: objects::<Host>(written.remove("hosts")),
        publish: objects::<Publish>(written.remove("publish")),
        ..Config::default()
    };
    assert!(written.is_empty(), "nobody reads {:?}", written.keys());
    config
}

fn objects<T: DeserializeOwned>(written: Option<Vec<Map<String, Value>>>) -> Vec<Object<T>> {
    let read = |mut spec: Map<String, Value>| Object {
        name: spec
            .remove("name")
            .map_or("x".into(), |name| name.as_str().unwrap().to_owned()),
        namespace: "default".to_owned(),
        labels: spec.remove("labels").map_or(BTreeMap::new(), |labels| {
            serde_json::from_value(labels).unwrap()
        }),
        origin: Origin::source("test"),
        spec: serde_json::from_value(Value::Object(spec)).expect("the test's spec"),
    };
    written.into_iter().flatten().map(read).collect()
}

/// A request as the tests write it: `METHOD [http[s]://authority]/path?query [name=value]... [draw=PERCENT]`.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    method: Method,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    secure: bool,
    draw: u32,
}

impl Asked {
    fn new(text: &str) -> Self {
        let mut words = text.split(' ');
        let method = words.next().unwrap().parse().unwrap();
        let target = words.next().unwrap();
        let (secure, rest) = match target.split_once("://") {
            Some((scheme, rest)) => (scheme == "https", rest),
            None => (false, target),
        };
        let (authority, rest) = rest.split_at(rest.find('/').expect("a path"));
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        let mut asked = Self {
            method,
            authority: authority.to_owned(),
            path: path::normalise(path, &path::Rules::default())
                .unwrap()
                .into_owned(),
            query,
            headers: HeaderMap::new(),
            secure,
            draw: 0,
        };
        for word in words {
            let (name, value) = word.split_once('=').expect("name=value");
            if name == "draw" {
                let percent: f64 = value.parse().unwrap();
                asked.draw = (percent / 100.0 * f64::from(u32::MAX)) as u32;
            } else {
                let name: HeaderName = name.parse().unwrap();
                asked
                    .headers
                    .append(name, HeaderValue::from_str(value).unwrap());
            }
        }
        asked
    }

    fn request(&self) -> Request<'_> {
        Request {
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            secure: self.secure,
        }
    }
}

/// Says for each request what the table does with it, after what it complains about.
#[track_caller]
fn check(written: &str, asked: &[&str], expected: Expect) {
    let config = config(written);
    let (table, problems) = Table::build(&config);
    let mut told = String::new();
    for problem in problems {
        let object = problem.object.unwrap();
        told += &format!("! {object} {}: {}\n", problem.path, problem.what);
    }
    for text in asked {
        told += &format!("{text} -> {}\n", answer(&config, &table, &Asked::new(text)));
    }
    expected.assert_eq(&told);
}

fn answer(config: &Config, table: &Table, asked: &Asked) -> String {
    let request = asked.request();
    let found = match table.find(&request, || asked.draw) {
        Found::None(miss) => return format!("404 {miss}"),
        Found::Secure(_) => return format!("301 {}", secure_location(&request)),
        Found::Route(found) => found,
    };
    if let Some((status, location)) = found.redirect(&request) {
        return format!("{} {location}", status.as_u16());
    }
    let mut told = match found.route.target() {
        Target::Mapping(index) => config.mappings[index].name.clone(),
        Target::Publish(index) => {
            format!(
                "{} {:?}",
                config.publish[index].spec.topic,
                found.route.params(&asked.path)
            )
        }
    };
    told += &format!(" {}", found.rewritten(&asked.path));
    if let Some(shadow) = found.shadow {
        told += &format!(" shadowed by {}", shadow.name());
    }
    told
}

/// Counts who gets how many of 100 requests with evenly spread draws.
#[track_caller]
fn check_shares(written: &str, asked: &str, expected: Expect) {
    let config = config(written);
    let (table, _) = Table::build(&config);
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for percent in 0..100 {
        let mut asked = Asked::new(asked);
        asked.draw = ((u64::from(u32::MAX) + 1) * (2 * percent + 1) / 200) as u32;
        *shares.entry(answer(&config, &table, &asked)).or_default() += 1;
    }
    let told: String = shares
        .iter()
        .map(|(who, count)| format!("{count} {who}\n"))
        .collect();
    expected.assert_eq(&told);
}
