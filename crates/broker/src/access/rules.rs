//! Who may do what to which resource: rules as those of Apache Kafka's StandardAuthorizer, without I/O.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::network::{self, Network};

/// The name of the cluster as a resource.
pub(crate) const CLUSTER: &str = "kafka-cluster";
pub(super) const ANY: &str = "*";
const ANYBODY: &str = "User:*";

/// Kinds of resources, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
}

/// What may be done, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
}

const ALL: i8 = 2;
const LAST_OPERATION: i8 = 15;
const LAST_KIND: i8 = 7;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
/// How a rule names resources: exactly, or by their beginning.
pub(crate) const LITERAL: i8 = 3;
pub(crate) const PREFIXED: i8 = 4;

/// One rule, in Kafka's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub kind: i8,
    pub name: String,
    pub pattern: i8,
    pub principal: String,
    pub host: String,
    pub operation: i8,
    pub permission: i8,
}

impl Rule {
    /// Says what is wrong with a rule that is to be made.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(2..=LAST_KIND).contains(&self.kind) {
            return Err(format!("Invalid resourceType {}", self.kind));
        }
        if self.kind == Kind::Cluster as i8 && self.name != CLUSTER {
            return Err(format!(
                "The only valid name for the CLUSTER resource is {CLUSTER}"
            ));
        }
        if self.name.is_empty() {
            return Err("Invalid empty resource name".to_owned());
        }
        if !matches!(self.pattern, LITERAL | PREFIXED) {
            return Err(format!("Invalid patternType {}", self.pattern));
        }
        if !(ALL..=LAST_OPERATION).contains(&self.operation) {
            return Err(format!("Invalid operation {}", self.operation));
        }
        if !matches!(self.permission, DENY | ALLOW) {
            return Err(format!("Invalid permissionType {}", self.permission));
        }
        if self.host.contains('/') && Network::read(&self.host).is_none() {
            return Err(format!("Invalid CIDR host {}", self.host));
        }
        match self.principal.split_once(':') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(()),
            _ => Err(format!(
                "expected a string in format principalType:principalName but got {}",
                self.principal
            )),
        }
    }

    fn concerns(&self, principal: &str, host: &str) -> bool {
        (self.principal == principal || self.principal == ANYBODY)
            && network::is_from(&self.host, host)
    }

    /// Returns whether it allows an operation (true), denies it (false), or says nothing of it. What lets read, write, delete or
    /// alter lets describe too; what denies it does not deny that.
    fn says(&self, operation: Operation) -> Option<bool> {
        use Operation::*;
        let number = operation as i8;
        if self.permission == DENY {
            return (self.operation == ALL || self.operation == number).then_some(false);
        }
        let implied: &[Operation] = match operation {
            Describe => &[Read, Write, Delete, Alter],
            DescribeConfigs => &[AlterConfigs],
            _ => &[],
        };
        let fits = self.operation == ALL
            || self.operation == number
            || implied.iter().any(|one| self.operation == *one as i8);
        fits.then_some(true)
    }
}

/// What rules are looked for; a number of 1 and no text mean any.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub kind: i8,
    pub name: Option<String>,
    pub pattern: i8,
    pub principal: Option<String>,
    pub host: Option<String>,
    pub operation: i8,
    pub permission: i8,
}

impl Filter {
    /// Returns whether all of its numbers are known.
    pub(crate) fn is_known(&self) -> bool {
        (1..=LAST_KIND).contains(&self.kind)
            && (1..=PREFIXED).contains(&self.pattern)
            && (1..=LAST_OPERATION).contains(&self.operation)
            && (1..=ALLOW).contains(&self.permission)
    }

    pub(crate) fn takes(&self, rule: &Rule) -> bool {
        let number = |wanted: i8, found: i8| wanted == 1 || wanted == found;
        let text = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        number(self.kind, rule.kind)
            && number(self.operation, rule.operation)
            && number(self.permission, rule.permission)
            && text(&self.principal, &rule.principal)
            && text(&self.host, &rule.host)
            && self.names(rule)
    }

    fn names(&self, rule: &Rule) -> bool {
        const MATCH: i8 = 2;
        let Some(name) = &self.name else {
            return matches!(self.pattern, 1 | MATCH) || self.pattern == rule.pattern;
        };
        match self.pattern {
            1 => *name == rule.name,
            MATCH if rule.pattern == PREFIXED => name.starts_with(&rule.name),
            MATCH => *name == rule.name || rule.name == ANY,
            pattern => pattern == rule.pattern && *name == rule.name,
        }
    }
}

/// All rules, ordered so that those that concern a resource are found at once.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    all: BTreeSet<Rule>,
    /// By kind and name.
    literal: HashMap<i8, HashMap<String, Vec<Rule>>>,
    prefixed: HashMap<i8, Prefixed>,
}

#[derive(Debug, Default)]
struct Prefixed {
    lengths: BTreeSet<usize>,
    rules: HashMap<String, Vec<Rule>>,
}

impl Rules {
    pub(crate) fn new(all: BTreeSet<Rule>) -> Self {
        let mut rules = Rules::default();
        for rule in &all {
            let place = match rule.pattern {
                LITERAL => rules.literal.entry(rule.kind).or_default(),
                _ => {
                    let prefixed = rules.prefixed.entry(rule.kind).or_default();
                    prefixed.lengths.insert(rule.name.len());
                    &mut prefixed.rules
                }
            };
            place
                .entry(rule.name.clone())
                .or_default()
                .push(rule.clone());
        }
        rules.all = all;
        rules
    }

    pub(crate) fn all(&self) -> &BTreeSet<Rule> {
        &self.all
    }

    /// Returns the rules that concern a resource.
    fn about<'a>(&'a self, kind: Kind, name: &'a str) -> impl Iterator<Item = &'a Rule> {
        let literal = self.literal.get(&(kind as i8));
        let exact = literal.and_then(|rules| rules.get(name));
        let any = literal
            .filter(|_| name != ANY)
            .and_then(|rules| rules.get(ANY));
        let prefixed = self.prefixed.get(&(kind as i8));
        let beginnings = prefixed.into_iter().flat_map(move |prefixed| {
            let lengths = prefixed.lengths.iter();
            let beginnings = lengths.filter_map(|length| name.get(..*length));
            beginnings.filter_map(|beginning| prefixed.rules.get(beginning))
        });
        exact.into_iter().chain(any).chain(beginnings).flatten()
    }

    /// Says whether an operation is allowed. A rule that denies it goes before all others; without any rule about the
    /// resource `open` decides.
    pub(crate) fn allow(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        kind: Kind,
        name: &str,
        open: bool,
    ) -> bool {
        let (mut any, mut allowed) = (false, false);
        for rule in self.about(kind, name) {
            any = true;
            if !rule.concerns(principal, host) {
                continue;
            }
            match rule.says(operation) {
                Some(false) => return false,
                Some(true) => allowed = true,
                None => (),
            }
        }
        if any { allowed } else { open }
    }

    /// Says whether an operation is allowed on some resource of a kind.
    pub(crate) fn allow_somewhere(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        kind: Kind,
        open: bool,
    ) -> bool {
        let number = kind as i8;
        let said = |rule: &&Rule| rule.kind == number && rule.concerns(principal, host);
        let denied: Vec<&Rule> = self
            .all
            .iter()
            .filter(said)
            .filter(|rule| rule.says(operation) == Some(false))
            .collect();
        let covered = |rule: &Rule| {
            denied.iter().any(|deny| match deny.pattern {
                LITERAL if deny.name == ANY => true,
                LITERAL => rule.pattern == LITERAL && rule.name == deny.name,
                _ => rule.name.starts_with(&deny.name),
            })
        };
        let mut allowed = self
            .all
            .iter()
            .filter(said)
            .filter(|rule| rule.says(operation) == Some(true));
        if allowed.any(|rule| !covered(rule)) {
            return true;
        }
        let all = denied
            .iter()
            .any(|deny| deny.pattern == LITERAL && deny.name == ANY);
        open && !all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(principal: &str, operation: i8, name: &str, pattern: i8, permission: i8) -> Rule {
        Rule {
            kind: Kind::Topic as i8,
            name: name.into(),
            pattern,
            principal: principal.into(),
            host: "*".into(),
            operation,
            permission,
        }
    }

    fn rules(all: &[Rule]) -> Rules {
        Rules::new(all.iter().cloned().collect())
    }

    fn may(rules: &Rules, who: &str, operation: Operation, topic: &str) -> bool {
        rules.allow(who, "10.0.0.1", operation, Kind::Topic, topic, false)
    }

    use Operation::*;

    #[test]
    fn what_nobody_allows_is_denied_unless_it_is_open() {
        let none = rules(&[]);
        assert!(!may(&none, "User:a", Read, "t"));
        assert!(none.allow("User:a", "h", Read, Kind::Topic, "t", true));
        // A rule for anybody closes the resource for all others.
        let one = rules(&[rule("User:b", 3, "t", LITERAL, ALLOW)]);
        assert!(!one.allow("User:a", "h", Read, Kind::Topic, "t", true));
        assert!(one.allow("User:a", "h", Read, Kind::Topic, "u", true));
        assert!(one.allow("User:b", "h", Read, Kind::Topic, "t", true));
        assert!(!one.allow("User:b", "h", Write, Kind::Topic, "t", true));
    }

    #[test]
    fn to_deny_goes_before_to_allow() {
        let some = rules(&[
            rule("User:*", ALL, "*", LITERAL, ALLOW),
            rule("User:a", 4, "secret-", PREFIXED, DENY),
        ]);
        assert!(may(&some, "User:a", Write, "open"));
        assert!(!may(&some, "User:a", Write, "secret-1"));
        assert!(may(&some, "User:a", Describe, "secret-1"), "not denied");
        assert!(may(&some, "User:b", Write, "secret-1"));
    }

    #[test]
    fn beginnings_are_found_at_each_length() {
        let some = rules(&[
            rule("User:a", 3, "f", PREFIXED, ALLOW),
            rule("User:a", 4, "foo", PREFIXED, ALLOW),
            rule("User:a", 6, "foobar", LITERAL, ALLOW),
        ]);
        for operation in [Read, Write, Delete, Describe] {
            assert!(may(&some, "User:a", operation, "foobar"), "{operation:?}");
        }
        assert!(!may(&some, "User:a", Delete, "foobarr"));
        assert!(!may(&some, "User:a", Write, "fo"));
        assert!(may(&some, "User:a", Read, "fo"));
        assert!(!may(&some, "User:a", Read, "g"));
    }

    #[test]
    fn hosts_count() {
        let mut one = rule("User:a", 3, "t", LITERAL, ALLOW);
        one.host = "10.0.0.2".into();
        assert!(!may(&rules(&[one.clone()]), "User:a", Read, "t"));
        one.host = "10.0.0.1".into();
        assert!(may(&rules(&[one.clone()]), "User:a", Read, "t"));
        one.host = "10.0.0.0/24".into();
        assert!(may(&rules(&[one.clone()]), "User:a", Read, "t"));
        one.host = "10.0.1.0/24".into();
        assert!(!may(&rules(&[one.clone()]), "User:a", Read, "t"));
        one.host = "10.0.1.0/33".into();
        assert!(one.check().is_err());
    }

    #[test]
    fn somewhere_is_not_where_it_is_denied() {
        let somewhere =
            |all: &[Rule]| rules(all).allow_somewhere("User:a", "h", Write, Kind::Topic, false);
        let allow = rule("User:a", 4, "foo", LITERAL, ALLOW);
        assert!(!somewhere(&[]));
        assert!(somewhere(std::slice::from_ref(&allow)));
        let deny = |name, pattern| rule("User:*", 4, name, pattern, DENY);
        assert!(!somewhere(&[allow.clone(), deny("foo", LITERAL)]));
        assert!(!somewhere(&[allow.clone(), deny("fo", PREFIXED)]));
        assert!(!somewhere(&[allow.clone(), deny("*", LITERAL)]));
        assert!(somewhere(&[allow, deny("fooo", PREFIXED)]));
    }

    #[test]
    fn filters_take_what_they_name() {
        let literal = rule("User:a", 3, "foo", LITERAL, ALLOW);
        let prefixed = rule("User:a", 3, "fo", PREFIXED, ALLOW);
        let any = rule("User:a", 3, "*", LITERAL, ALLOW);
        let filter = |name: Option<&str>, pattern| Filter {
            kind: 1,
            name: name.map(str::to_owned),
            pattern,
            principal: None,
            host: None,
            operation: 1,
            permission: 1,
        };
        let taken = |filter: Filter| [&literal, &prefixed, &any].map(|rule| filter.takes(rule));
        assert_eq!(taken(filter(None, 1)), [true; 3]);
        assert_eq!(taken(filter(Some("foo"), 1)), [true, false, false]);
        assert_eq!(taken(filter(Some("foo"), 2)), [true, true, true]);
        assert_eq!(taken(filter(Some("foo"), 3)), [true, false, false]);
        assert_eq!(taken(filter(None, 4)), [false, true, false]);
    }
}
