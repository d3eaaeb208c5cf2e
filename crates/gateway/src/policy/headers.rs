//! Headers that a route adds and takes off, with Envoy's variables filled for each request.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use model::format::Format;
use model::mapping::AddedHeader;

use crate::format;

/// Headers that a route adds and takes off.
#[derive(Debug, Default)]
pub(crate) struct HeaderChanges {
    add: Vec<(HeaderName, Value, bool)>,
    remove: Vec<HeaderName>,
    /// Whether a value has variables.
    filled: bool,
}

#[derive(Debug)]
enum Value {
    Fixed(HeaderValue),
    Filled(Box<Format>),
}

impl HeaderChanges {
    /// Compiles what is written; tells what cannot be a header and leaves it out.
    pub(crate) fn new(
        add: Option<&BTreeMap<String, AddedHeader>>,
        remove: Option<&Vec<String>>,
        problem: &mut impl FnMut(String),
    ) -> Self {
        let mut changes = HeaderChanges::default();
        for (name, added) in add.into_iter().flatten() {
            let Ok(header) = name.parse() else {
                problem(format!("`{name}` is no header name"));
                continue;
            };
            let value = match format::compile(&added.value) {
                Err(wrong) => {
                    problem(format!("header `{name}`: {}", wrong.what));
                    continue;
                }
                Ok(format) => match format.constant().map(HeaderValue::from_str) {
                    // Nothing is not sent, as Envoy does.
                    Some(Ok(value)) if value.is_empty() => continue,
                    Some(Ok(value)) => Value::Fixed(value),
                    Some(Err(_)) => {
                        problem(format!("`{name}` with this value cannot be a header"));
                        continue;
                    }
                    None => Value::Filled(Box::new(format)),
                },
            };
            changes.filled |= matches!(value, Value::Filled(_));
            changes.add.push((header, value, added.append));
        }
        for name in remove.into_iter().flatten() {
            match name.parse() {
                Ok(name) => changes.remove.push(name),
                Err(_) => problem(format!("`{name}` is no header name")),
            }
        }
        changes
    }

    /// Sets one more header.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            let value = Value::Fixed(value);
            self.add.push((HeaderName::from_static(name), value, false));
        }
    }

    /// Returns the values with variables.
    pub(crate) fn formats(&self) -> impl Iterator<Item = &Format> {
        self.add.iter().filter_map(|(_, value, _)| match value {
            Value::Filled(format) => Some(&**format),
            Value::Fixed(_) => None,
        })
    }

    /// Takes off, then fills what `fill` knows, then adds, as Envoy does. A value that comes out empty is not added.
    pub(crate) fn apply(
        &self,
        headers: &mut HeaderMap,
        fill: impl Fn(&Format, &HeaderMap) -> String,
    ) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut filled = match self.filled {
            true => self.fill(headers, fill),
            false => Vec::new(),
        }
        .into_iter();
        for (name, value, append) in &self.add {
            let value = match value {
                Value::Fixed(value) => value.clone(),
                Value::Filled(_) => match filled.next().flatten() {
                    Some(value) => value,
                    None => continue,
                },
            };
            if *append {
                headers.append(name.clone(), value);
            } else {
                headers.insert(name.clone(), value);
            }
        }
    }

    /// Fills all values before any is added, so that their order does not matter.
    fn fill(
        &self,
        headers: &HeaderMap,
        fill: impl Fn(&Format, &HeaderMap) -> String,
    ) -> Vec<Option<HeaderValue>> {
        let value = |format| {
            let text = fill(format, headers);
            // What came from outside may hold bytes that no value may have; such a header is left out.
            Some(HeaderValue::try_from(text).ok()?).filter(|value| !value.is_empty())
        };
        self.formats().map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &str, remove: &str, before: &[(&str, &str)], after: &[(&str, &str)]) {
        let add = serde_saphyr::from_str(add).expect("the test's headers");
        let remove = serde_saphyr::from_str(remove).expect("the test's names");
        let changes = HeaderChanges::new(Some(&add), Some(&remove), &mut |what| panic!("{what}"));
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(
                name.parse::<HeaderName>().expect("a name"),
                value.parse().expect("a value"),
            );
        }
        changes.apply(&mut headers, |format, response| {
            let facts = format::Facts {
                response: Some(response),
                ..format::Facts::default()
            };
            format::fill(format, &facts, "")
        });
        let mut found: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        found.sort_unstable();
        assert_eq!(found, after);
    }

    #[test]
    fn a_header_is_added_or_replaced() {
        // Ambassador's own case.
        check(
            "{ koo: { value: KooK, append: false }, zoo: { value: ZooZ, append: true }, test: { value: boo }, foo: { value: Foo } }",
            "[]",
            &[("koo", "Koot"), ("zoo", "Zoo"), ("test", "Test")],
            &[
                ("foo", "Foo"),
                ("koo", "KooK"),
                ("test", "Test"),
                ("test", "boo"),
                ("zoo", "Zoo"),
                ("zoo", "ZooZ"),
            ],
        );
    }

    #[test]
    fn variables_see_what_was_taken_off_as_gone_and_what_is_added_not_yet() {
        check(
            "{ a: { value: 'b=%RESP(b)%' }, b: { value: 'a=%RESP(a)%', append: false }, c: { value: '%RESP(gone)%' } }",
            "[gone]",
            &[("b", "1"), ("gone", "2")],
            &[("a", "b=1"), ("b", "a=")],
        );
    }
}
