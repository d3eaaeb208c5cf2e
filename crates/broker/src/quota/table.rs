//! What was set for whom, and which of it holds for a client.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use kafka::error::ErrorCode;

pub(crate) const USER: &str = "user";
pub(crate) const CLIENT: &str = "client-id";
pub(crate) const IP: &str = "ip";

/// Longest name.
const NAME_BYTES_MAX: usize = 1024;
/// Most entities that may have quotas: each change writes all of them.
const ENTITIES_MAX: usize = 10_000;

/// Whom a quota is for: names by kind, where no name stands for everybody who has no quota of its own.
pub(crate) type Entity = BTreeMap<String, Option<String>>;
/// Limits by their keys.
pub(crate) type Values = BTreeMap<String, f64>;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Produce,
    Fetch,
    Request,
    Mutation,
    Connection,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Kind::Produce,
        Kind::Fetch,
        Kind::Request,
        Kind::Mutation,
        Kind::Connection,
    ];

    /// Kafka's name of it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Kind::Produce => "producer_byte_rate",
            Kind::Fetch => "consumer_byte_rate",
            Kind::Request => "request_percentage",
            Kind::Mutation => "controller_mutation_rate",
            Kind::Connection => "connection_creation_rate",
        }
    }

    /// The largest value, where only whole numbers are taken.
    fn whole_max(self) -> Option<f64> {
        match self {
            Kind::Produce | Kind::Fetch => Some(i64::MAX as f64),
            Kind::Connection => Some(f64::from(i32::MAX)),
            Kind::Request | Kind::Mutation => None,
        }
    }
}

/// Why a quota is refused: code and words.
pub(crate) type Refused = (ErrorCode, String);

fn invalid<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err((ErrorCode::InvalidRequest, why.into()))
}

/// Checks whom a quota is for, and returns what can be limited for it.
fn check_entity(entity: &Entity) -> Result<&'static [Kind], Refused> {
    if entity.is_empty() {
        return invalid("Invalid empty client quota entity");
    }
    for (kind, name) in entity {
        if ![USER, CLIENT, IP].contains(&kind.as_str()) {
            return invalid(format!("Unhandled client quota entity type: {kind}"));
        }
        match name {
            Some(name) if name.is_empty() => return invalid(format!("Empty {kind} not supported")),
            Some(name) if name.len() > NAME_BYTES_MAX => {
                return invalid(format!("the name is longer than {NAME_BYTES_MAX} bytes"));
            }
            _ => (),
        }
    }
    let Some(ip) = entity.get(IP) else {
        return Ok(&[Kind::Produce, Kind::Fetch, Kind::Request, Kind::Mutation]);
    };
    if entity.len() > 1 {
        return invalid(
            "Invalid quota entity combination, IP entity should not be combined with User or ClientId",
        );
    }
    match ip {
        Some(ip) if ip.parse::<IpAddr>().is_err() => invalid(format!("{ip} is not a valid IP")),
        _ => Ok(&[Kind::Connection]),
    }
}

fn check_value(kinds: &[Kind], key: &str, value: f64) -> Result<(), Refused> {
    let Some(kind) = kinds.iter().find(|kind| kind.key() == key) else {
        return invalid(format!("Invalid configuration key {key}"));
    };
    if value.is_nan() || value <= 0.0 {
        return invalid(format!("Quota {key} must be greater than 0"));
    }
    match kind.whole_max() {
        Some(max) if value > max => invalid(format!("Proposed value for {key} is too large.")),
        Some(_) if value % 1.0 > 1e-6 => invalid(format!("{key} cannot be a fractional value.")),
        _ => Ok(()),
    }
}

/// What a filter wants of one kind of name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// This name, or that of the default.
    Exact(Option<String>),
    /// Any.
    Any,
}

/// Whose limit it is: names where it counts for each of them alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub user: Option<String>,
    pub client: Option<String>,
}

/// All quotas.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    entities: BTreeMap<Entity, Values>,
}

impl Table {
    pub(crate) fn new(entities: impl IntoIterator<Item = (Entity, Values)>) -> Self {
        Self {
            entities: entities.into_iter().collect(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Entity, &Values)> {
        self.entities.iter()
    }

    /// Whether some limit of this kind is set.
    pub(super) fn limits(&self, kind: Kind) -> bool {
        let mut all = self.entities.values();
        all.any(|values| values.contains_key(kind.key()))
    }

    /// Changes the limits of one entity: a value, or none to remove it. A refusal changes nothing.
    pub(crate) fn alter(
        &mut self,
        entity: &Entity,
        changes: &[(String, Option<f64>)],
    ) -> Result<(), Refused> {
        let mut seen = HashSet::new();
        if let Some((key, _)) = changes.iter().find(|(key, _)| !seen.insert(key)) {
            return invalid(format!("Duplicate quota key {key}"));
        }
        let kinds = check_entity(entity)?;
        for (key, value) in changes {
            if let Some(value) = value {
                check_value(kinds, key, *value)?;
            }
        }
        if self.entities.len() >= ENTITIES_MAX && !self.entities.contains_key(entity) {
            return invalid(format!("at most {ENTITIES_MAX} entities may have quotas"));
        }
        let mut values = self.entities.remove(entity).unwrap_or_default();
        for (key, value) in changes {
            match value {
                Some(value) => values.insert(key.clone(), *value),
                None => values.remove(key),
            };
        }
        if !values.is_empty() {
            self.entities.insert(entity.clone(), values);
        }
        Ok(())
    }

    /// Returns the quotas whose entity has names as they are wanted, and with `strict` no others.
    pub(crate) fn matching<'a>(
        &'a self,
        wanted: &'a BTreeMap<String, Match>,
        strict: bool,
    ) -> impl Iterator<Item = (&'a Entity, &'a Values)> {
        let fits = move |entity: &Entity| {
            (!strict || entity.len() == wanted.len())
                && wanted.iter().all(|(kind, one)| {
                    let name = entity.get(kind);
                    name.is_some_and(|name| match one {
                        Match::Any => true,
                        Match::Exact(wanted) => wanted == name,
                    })
                })
        };
        self.entities.iter().filter(move |(entity, _)| fits(entity))
    }

    /// Returns the limit that holds for a client, and with whom it shares it. The nearest one wins, in Kafka's order.
    pub(super) fn limit(&self, kind: Kind, user: &str, client: &str) -> Option<(Scope, f64)> {
        let this = |name: &str| Some(Some(name.to_owned()));
        let (default, absent) = (Some(None), None);
        let both = |users, clients| (users, clients, true, true);
        let order = [
            both(this(user), this(client)),
            both(this(user), default.clone()),
            (this(user), absent.clone(), true, false),
            both(default.clone(), this(client)),
            both(default.clone(), default.clone()),
            (default.clone(), absent.clone(), true, false),
            (absent.clone(), this(client), false, true),
            (absent, default, false, true),
        ];
        order
            .into_iter()
            .find_map(|(users, clients, by_user, by_client)| {
                let named = [(USER, users), (CLIENT, clients)].into_iter();
                let entity: Entity = named
                    .filter_map(|(kind, name)| Some((kind.to_owned(), name?)))
                    .collect();
                let limit = *self.entities.get(&entity)?.get(kind.key())?;
                let scope = Scope {
                    user: by_user.then(|| user.to_owned()),
                    client: by_client.then(|| client.to_owned()),
                };
                Some((scope, limit))
            })
    }

    /// Returns how many connections a second an address may open.
    pub(super) fn connections(&self, ip: IpAddr) -> Option<f64> {
        let of = |name: Option<String>| {
            let entity = Entity::from([(IP.to_owned(), name)]);
            self.entities.get(&entity)?.get(Kind::Connection.key())
        };
        of(Some(ip.to_string())).or_else(|| of(None)).copied()
    }

    /// The kinds of which some limit is set.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| self.limits(*kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(names: &[(&str, Option<&str>)]) -> Entity {
        let names = names.iter();
        names
            .map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned)))
            .collect()
    }

    #[test]
    fn the_nearest_limit_holds() {
        let levels: [&[(&str, Option<&str>)]; 8] = [
            &[(CLIENT, None)],
            &[(CLIENT, Some("c"))],
            &[(USER, None)],
            &[(USER, None), (CLIENT, None)],
            &[(USER, None), (CLIENT, Some("c"))],
            &[(USER, Some("u"))],
            &[(USER, Some("u")), (CLIENT, None)],
            &[(USER, Some("u")), (CLIENT, Some("c"))],
        ];
        let mut table = Table::default();
        assert_eq!(table.limit(Kind::Produce, "u", "c"), None);
        for (level, names) in levels.into_iter().enumerate() {
            let value = (level + 1) as f64;
            let change = [(Kind::Produce.key().to_owned(), Some(value))];
            table.alter(&entity(names), &change).expect("taken");
            let (scope, limit) = table.limit(Kind::Produce, "u", "c").expect("a limit");
            assert_eq!(limit, value);
            let by = |kind: &str| names.iter().any(|(one, _)| *one == kind);
            assert_eq!(
                (scope.user.is_some(), scope.client.is_some()),
                (by(USER), by(CLIENT))
            );
        }
        assert_eq!(
            table.limit(Kind::Fetch, "u", "c"),
            None,
            "each kind for itself"
        );
        let (_, other) = table.limit(Kind::Produce, "v", "d").expect("a limit");
        assert_eq!(
            other, 4.0,
            "the default of users with the default of clients"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut table = Table::default();
        let mut check = |names: &[(&str, Option<&str>)], key: &str, value: f64, expected: &str| {
            let change = [(key.to_owned(), Some(value))];
            let refused = table.alter(&entity(names), &change).expect_err("refused");
            assert_eq!(refused.1, expected);
        };
        let user: &[_] = &[(USER, Some("u"))];
        check(
            &[],
            "producer_byte_rate",
            1.0,
            "Invalid empty client quota entity",
        );
        check(
            &[("planet", None)],
            "producer_byte_rate",
            1.0,
            "Unhandled client quota entity type: planet",
        );
        check(
            &[(USER, Some(""))],
            "producer_byte_rate",
            1.0,
            "Empty user not supported",
        );
        check(user, "no_such", 1.0, "Invalid configuration key no_such");
        check(
            user,
            "connection_creation_rate",
            1.0,
            "Invalid configuration key connection_creation_rate",
        );
        check(
            user,
            "producer_byte_rate",
            0.0,
            "Quota producer_byte_rate must be greater than 0",
        );
        check(
            user,
            "producer_byte_rate",
            1.5,
            "producer_byte_rate cannot be a fractional value.",
        );
        check(
            &[(IP, Some("planet"))],
            "connection_creation_rate",
            1.0,
            "planet is not a valid IP",
        );
        assert_eq!(table, Table::default());
    }
}
