//! What is wrong with the configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use crate::Origin;

/// Whether a problem refuses its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object is refused; the last good one goes on running if there was one.
    Error,
    /// The object is taken, and the user should know something about it.
    Warning,
}

/// One finding, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,

    /// File, line and column.
    pub origin: Origin,

    /// The bytes of the file that the excerpt underlines.
    pub span: Range<usize>,

    /// The object, as `Kind name.namespace`, or nothing when no object could be told.
    pub object: Option<String>,

    /// The path inside the document, such as `spec.retry_policy.num_retries`.
    pub path: String,

    /// What is wrong, in the user's words.
    pub what: String,

    /// What would be right, where we have an idea.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    /// One line: `file:line:column: error: path: what (hint)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: ", self.origin)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
