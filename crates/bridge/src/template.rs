//! Fills a template such as `{header.x-tenant}-{body.order.id}` from one request.

use std::borrow::Cow;

use http::HeaderMap;
use model::template::{Part, Template};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// What a template can speak of.
pub(crate) struct Parts<'a> {
    pub(crate) params: &'a [(String, String)],
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    /// The body as JSON; `None` when it is none, or no template asks for it.
    pub(crate) json: Option<&'a Value>,
}

impl Parts<'_> {
    /// Returns the template's text, or the part that the request does not have.
    pub(crate) fn fill(&self, template: &Template) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for part in &template.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Path(name) => {
                    let found = self.params.iter().find(|(param, _)| param == name);
                    let (_, value) = found.ok_or_else(|| format!("path.{name}"))?;
                    out.extend(percent_decode_str(value));
                }
                Part::Query(name) => {
                    let value = query(self.query, name).ok_or_else(|| format!("query.{name}"))?;
                    out.extend_from_slice(&value);
                }
                Part::Header(name) => {
                    let value = self
                        .headers
                        .get(name)
                        .ok_or_else(|| format!("header.{name}"))?;
                    out.extend_from_slice(value.as_bytes());
                }
                Part::Body(fields) if fields.is_empty() => out.extend_from_slice(self.body),
                Part::Body(fields) => {
                    let missing = || format!("body.{}", fields.join("."));
                    let value =
                        field(self.json.ok_or_else(missing)?, fields).ok_or_else(missing)?;
                    out.extend_from_slice(scalar(value).ok_or_else(missing)?.as_bytes());
                }
            }
        }
        Ok(out)
    }
}

/// Returns the first parameter of that name, decoded.
fn query<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut found = pairs.filter(|(key, _)| *decoded(key) == *name.as_bytes());
    found.next().map(|(_, value)| decoded(value))
}

/// Decodes a part of a query, in which `+` stands for a space.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).collect());
    }
    percent_decode_str(text).into()
}

fn field<'a>(json: &'a Value, fields: &[String]) -> Option<&'a Value> {
    fields.iter().try_fold(json, |value, name| match value {
        Value::Object(object) => object.get(name),
        Value::Array(array) => array.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Returns the text of a string, number or bool; nothing else makes a good key.
fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: Result<&str, &str>) {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", "acme".parse().unwrap());
        let body = br#"{"order":{"id":7,"tags":["a","b"],"none":null}}"#;
        let json: Value = serde_json::from_slice(body).unwrap();
        let params = [("region".to_owned(), "eu%20west".to_owned())];
        let parts = Parts {
            params: &params,
            query: "a=1&b=x+y%21&a=2&c",
            headers: &headers,
            body,
            json: Some(&json),
        };
        let filled = parts.fill(&Template::parse(template).unwrap());
        let filled = filled.map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(
            filled,
            expected.map(str::to_owned).map_err(str::to_owned),
            "{template}"
        );
    }

    #[test]
    fn every_part_of_a_request_can_be_named() {
        check("{header.X-Tenant}-{body.order.id}", Ok("acme-7"));
        check("{body.order.tags.1}", Ok("b"));
        check("{path.region}", Ok("eu west"));
        check("{query.a}{query.b}{query.c}", Ok("1x y!"));
        check("plain", Ok("plain"));
    }

    #[test]
    fn a_missing_part_is_named() {
        check("{header.x-other}", Err("header.x-other"));
        check("{body.order.none}", Err("body.order.none"));
        check("{body.order}", Err("body.order"));
        check("{body.order.tags.9}", Err("body.order.tags.9"));
        check("{query.z}", Err("query.z"));
        check("{path.z}", Err("path.z"));
    }
}
