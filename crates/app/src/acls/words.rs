//! Kafka's numbers for what rules are made of, as words.

/// A number and its name.
type Names = &'static [(i8, &'static str)];

/// Stands in filters for everything.
pub(super) const ANY: i8 = 1;
pub(super) const LITERAL: i8 = 3;
pub(super) const DENY: i8 = 2;
pub(super) const ALLOW: i8 = 3;
pub(super) const TOPIC: i8 = 2;
pub(super) const GROUP: i8 = 3;
pub(super) const CLUSTER: i8 = 4;
pub(super) const TRANSACTIONAL_ID: i8 = 5;
pub(super) const DELEGATION_TOKEN: i8 = 6;
pub(super) const USER: i8 = 7;

const KINDS: Names = &[
    (ANY, "ANY"),
    (TOPIC, "TOPIC"),
    (GROUP, "GROUP"),
    (CLUSTER, "CLUSTER"),
    (TRANSACTIONAL_ID, "TRANSACTIONAL_ID"),
    (DELEGATION_TOKEN, "DELEGATION_TOKEN"),
    (USER, "USER"),
];
const PATTERNS: Names = &[
    (ANY, "ANY"),
    (2, "MATCH"),
    (LITERAL, "LITERAL"),
    (4, "PREFIXED"),
];
const OPERATIONS: Names = &[
    (ANY, "ANY"),
    (2, "ALL"),
    (3, "READ"),
    (4, "WRITE"),
    (5, "CREATE"),
    (6, "DELETE"),
    (7, "ALTER"),
    (8, "DESCRIBE"),
    (9, "CLUSTER_ACTION"),
    (10, "DESCRIBE_CONFIGS"),
    (11, "ALTER_CONFIGS"),
    (12, "IDEMPOTENT_WRITE"),
    (13, "CREATE_TOKENS"),
    (14, "DESCRIBE_TOKENS"),
    (15, "TWO_PHASE_COMMIT"),
];
const PERMISSIONS: Names = &[(ANY, "ANY"), (DENY, "DENY"), (ALLOW, "ALLOW")];

fn plain(text: &str) -> String {
    let letters = text.chars().filter(|letter| !matches!(letter, '-' | '_'));
    letters.flat_map(char::to_lowercase).collect()
}

/// Finds a number by its name, in any case, with or without what joins words.
fn number(names: Names, text: &str) -> Result<i8, String> {
    let wanted = plain(text);
    let found = names.iter().find(|(_, name)| plain(name) == wanted);
    found.map(|(number, _)| *number).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        format!("write one of {}", known.join(", "))
    })
}

fn name(names: Names, number: i8) -> String {
    let found = names.iter().find(|(known, _)| *known == number);
    found.map_or_else(|| format!("({number})"), |(_, name)| (*name).to_owned())
}

pub(super) fn kind(text: &str) -> Result<i8, String> {
    number(KINDS, text)
}

pub(super) fn pattern(text: &str) -> Result<i8, String> {
    number(PATTERNS, text)
}

pub(super) fn operation(text: &str) -> Result<i8, String> {
    number(OPERATIONS, text)
}

pub(super) fn permission(text: &str) -> Result<i8, String> {
    number(PERMISSIONS, text)
}

/// Takes a principal as Kafka writes it.
pub(super) fn principal(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("did you mean `User:{text}`?")),
    }
}

pub(super) fn kind_name(number: i8) -> String {
    name(KINDS, number)
}

pub(super) fn pattern_name(number: i8) -> String {
    name(PATTERNS, number)
}

pub(super) fn operation_name(number: i8) -> String {
    name(OPERATIONS, number)
}

pub(super) fn permission_name(number: i8) -> String {
    name(PERMISSIONS, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_people_write_them() {
        for text in ["DESCRIBE_CONFIGS", "DescribeConfigs", "describe-configs"] {
            assert_eq!(operation(text), Ok(10), "{text}");
        }
        for text in ["PREFIXED", "Prefixed", "prefixed"] {
            assert_eq!(pattern(text), Ok(4), "{text}");
        }
        assert_eq!(kind("transactional-id"), Ok(TRANSACTIONAL_ID));
        assert!(operation("reed").is_err_and(|why| why.contains("READ")));
        assert!(principal("alice").is_err_and(|why| why.contains("`User:alice`")));
        assert!(principal("User:CN=a,O=b:c").is_ok());
        assert_eq!(operation_name(77), "(77)");
    }
}
