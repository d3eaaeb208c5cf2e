//! An object of the configuration: a spec with its name and the place where it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One object as the rest of the house sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<T> {
    /// Unique among the objects of one kind and namespace; derived when the short spelling has none.
    pub name: String,

    /// The Kubernetes namespace, `default` where nothing is said.
    pub namespace: String,

    /// The Kubernetes labels, by which a Host selects its Mappings.
    pub labels: BTreeMap<String, String>,

    /// Where it was written.
    pub origin: Origin,

    /// What was written.
    pub spec: T,
}

impl<T> Object<T> {
    /// Returns `name.namespace`, the way objects are named in logs, reports and diagnostics.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

/// A place in a source. Lines and columns start at 1; 0 means that the source has no text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file's path as the user named it, or the name of another source.
    pub file: Arc<str>,

    /// The line, starting at 1.
    pub line: u32,

    /// The column in characters, starting at 1.
    pub column: u32,
}

impl Origin {
    /// Returns a place in a source that is no text, such as the endpoints that `up` tells.
    pub fn source(name: &str) -> Origin {
        Origin {
            file: name.into(),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}
