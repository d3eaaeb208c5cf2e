//! Objects that decide who may ask, and that nobody can ask yet. What they guard is refused: passing it on unasked would
//! let everybody in.

/// An AuthService, a FilterPolicy or a WebApplicationFirewallPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Such as `FilterPolicy shop.default`.
    pub name: String,

    /// Which requests it is about; the first that matches counts. `None` stands for all requests.
    pub rules: Option<Vec<Rule>>,
}

/// One rule of a FilterPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Glob over the authority.
    pub host: String,

    /// Glob over the path.
    pub path: String,

    /// Whether it has filters. A rule without any lets pass what it matches.
    pub asks: bool,
}

impl Guard {
    /// Returns one that guards everything.
    pub fn all(name: impl Into<String>) -> Guard {
        Guard {
            name: name.into(),
            rules: None,
        }
    }
}
