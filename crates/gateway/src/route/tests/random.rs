//! The table against Ambassador's rules, tried one after the other.
//!
//! This runs beside the integration tests' run of the same, because here even two routes that are alike get an index.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use self::{agree::routes, made::made};
use super::Asked;
use crate::route::{self, Found, Table};

#[path = "../../../tests/it/routes/agree.rs"]
mod agree;
#[path = "../../../tests/it/routes/made.rs"]
mod made;
#[path = "../../../tests/it/routes/naive.rs"]
mod naive;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_the_rules_say(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        routes(&bytes);
    }

    #[test]
    fn hostile_requests_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        authority in "\\PC{0,20}",
        raw in "/\\PC{0,30}",
        query in prop::option::of("\\PC{0,30}"),
        value in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (table, _) = Table::build(&made(&bytes).0);
        let Ok(path) = route::path::normalise(&raw, &route::path::Rules::default()) else {
            return Ok(());
        };
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append("x", value.clone());
            headers.append("x", value);
        }
        let path = path.into_owned();
        let method = "GET".parse().unwrap();
        let asked = Asked { method, authority, path, query, headers, secure: false, draw: u32::MAX };
        if let Found::Route(found) = table.find(&asked.request(), || asked.draw) {
            let mut out = String::new();
            found.rewritten(&asked.path).write(asked.query.as_deref(), &mut out);
            prop_assert!(out.starts_with('/'));
        }
    }
}
