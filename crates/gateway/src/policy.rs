//! What routes do to requests and answers on the way, in this order:
//!
//! 1. `address`: who may not ask at all gets no further.
//! 2. `forward`: hop-by-hop headers go, what the client cannot be trusted with goes, and what the gateway knows
//!    (addresses, ids, the trace) comes, so that nothing after it can be fooled.
//! 3. the route's own header changes, which may override all of that on purpose.

pub(crate) mod address;
pub(crate) mod forward;

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use model::mapping::{AddedHeader, RetryOn};

/// Headers that a route adds and takes off.
#[derive(Debug, Default)]
pub(crate) struct HeaderChanges {
    add: Vec<(HeaderName, HeaderValue, bool)>,
    remove: Vec<HeaderName>,
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
            if added.value.replace("%%", "").contains('%') {
                problem(format!(
                    "header `{name}`: Envoy's variables are not filled in yet"
                ));
            }
            match (
                name.parse(),
                HeaderValue::from_str(&added.value.replace("%%", "%")),
            ) {
                (Ok(name), Ok(value)) => changes.add.push((name, value, added.append)),
                _ => problem(format!("`{name}` with this value cannot be a header")),
            }
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
            self.add.push((HeaderName::from_static(name), value, false));
        }
    }

    /// Takes off, then adds, as Envoy does.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value, append) in &self.add {
            if *append {
                headers.append(name.clone(), value.clone());
            } else {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
}

/// What host the service sees.
#[derive(Debug, Clone)]
pub(crate) enum HostChange {
    /// The client's.
    Keep,
    /// This one.
    To(HeaderValue),
}

/// When and how often a request is tried again.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    pub(crate) on: RetryOn,
    pub(crate) tries_max: u32,
    pub(crate) per_try: Option<Duration>,
}
