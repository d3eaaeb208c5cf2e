//! Publish: an HTTP route whose requests become records of a topic.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Turns the requests of an HTTP route into records of a topic.
///
/// The body is the record's value, byte for byte. The 2xx comes after the record is durable and names topic, partition,
/// offset and timestamp; `Prefer: return=minimal` makes it a 204.
///
/// ```yaml
/// route: POST /events/orders/{region}
/// topic: orders.placed
/// key: "{body.order_id}"
/// headers: [content-type, x-tenant]
/// add_headers: { region: "{path.region}" }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Method and path, such as `POST /events/{kind}`; `{name}` stands for one path segment, `{name...}` at the end for
    /// the rest.
    pub route: String,

    /// Glob over the authority, as in a Mapping; any host when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,

    /// The topic.
    pub topic: String,

    /// Template of the record's key over `{path.x}`, `{query.x}`, `{header.x}` and `{body.x.y}`; no key when nothing is
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,

    /// Whether a request whose key cannot be made is refused with 400, instead of becoming a record without a key.
    #[serde(default)]
    pub key_required: bool,

    /// Request headers that become record headers, where the request has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,

    /// Record headers made from templates; one whose parts are missing is left out.
    #[serde(default)]
    pub add_headers: BTreeMap<String, String>,

    /// Largest body that is taken, else 413.
    #[serde(default = "body_bytes_max", with = "crate::units::size")]
    #[schemars(with = "String")]
    pub body_bytes_max: u64,

    /// How long the append may take, retries included, else 503 or 504.
    #[serde(default = "timeout", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

fn body_bytes_max() -> u64 {
    1 << 20
}

fn timeout() -> Duration {
    Duration::from_secs(3)
}

/// The `route` of a Publish, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method, in upper case.
    pub method: String,

    /// The path's segments.
    pub segments: Vec<Segment>,
}

/// One segment of a route's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this text.
    Exact(String),
    /// One segment, known by this name.
    One(String),
    /// All segments that are left, known by this name.
    Rest(String),
}

impl Publish {
    /// Takes the route apart.
    pub fn route(&self) -> Result<Route, String> {
        Route::parse(&self.route)
    }
}

impl Route {
    /// Parses `METHOD /path/{name}/{rest...}`.
    pub fn parse(text: &str) -> Result<Route, String> {
        let Some((method, path)) = text.trim().split_once(char::is_whitespace) else {
            return Err(format!("`{text}` is no route, write it as `POST /events`"));
        };
        let path = path.trim_start();
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!(
                "`{method}` is no method, write it in upper case as in `POST /events`"
            ));
        }
        let Some(inner) = path.strip_prefix('/') else {
            return Err(format!("the path `{path}` does not start with `/`"));
        };
        if path.contains(['?', '#']) || path.contains(char::is_whitespace) {
            return Err(format!(
                "the path `{path}` has a character that no path has"
            ));
        }
        let mut segments = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        let parts: Vec<&str> = inner.split('/').collect();
        for (index, part) in parts.iter().enumerate() {
            let Some(name) = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
            else {
                if part.contains(['{', '}']) {
                    return Err(format!(
                        "`{part}` must be a whole segment: either text or `{{name}}`"
                    ));
                }
                segments.push(Segment::Exact((*part).to_owned()));
                continue;
            };
            let (name, rest) = match name.strip_suffix("...") {
                Some(name) => (name, true),
                None => (name, false),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                return Err(format!(
                    "`{part}` is no name for a segment, use letters, digits, `_` and `-`"
                ));
            }
            if names.contains(&name) {
                return Err(format!(
                    "the segment name `{name}` stands twice in the route"
                ));
            }
            names.push(name);
            if rest && index + 1 != parts.len() {
                return Err(format!(
                    "`{part}` takes the rest of the path, so it must be last"
                ));
            }
            segments.push(match rest {
                true => Segment::Rest(name.to_owned()),
                false => Segment::One(name.to_owned()),
            });
        }
        Ok(Route {
            method: method.to_owned(),
            segments,
        })
    }

    /// Returns the names that templates may use as `{path.name}`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Exact(_) => None,
            Segment::One(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }
}
