//! Holds the route table against the naive matcher.

use model::Config;

use super::made::made;
use super::naive::{self, Answer, Asked};
use super::route::{Found, Miss, Request, Table, Target, secure_location};

/// Makes a configuration and requests of bytes, and asks the table and the rules.
pub(crate) fn routes(input: &[u8]) {
    let (config, questions) = made(input);
    let (table, _) = Table::build(&config);
    for asked in &questions {
        agree(&table, &config, asked);
    }
}

/// Panics when the table says something else than the rules.
pub(crate) fn agree(table: &Table, config: &Config, asked: &Asked) {
    let (found, expected) = (of_table(table, asked), naive::answer(config, asked));
    assert_eq!(found, expected, "{asked:?}\n{:#?}", config.mappings);
}

/// Asks the table. What it makes of a path has to be one.
pub(crate) fn of_table(table: &Table, asked: &Asked) -> Answer {
    let index = |target| match target {
        Target::Mapping(index) => index,
        Target::Publish(_) => unreachable!("there are none"),
    };
    let request = Request {
        authority: &asked.authority,
        path: &asked.path,
        query: asked.query.as_deref(),
        method: &asked.method,
        headers: &asked.headers,
        secure: asked.secure,
    };
    match table.find(&request, || asked.draw) {
        Found::Route(found) => {
            let mut path = String::new();
            found
                .rewritten(&asked.path)
                .write(asked.query.as_deref(), &mut path);
            assert!(path.starts_with('/'), "{path}");
            if let Some((status, location)) = found.redirect(&request) {
                assert!(status.is_redirection() && location.contains("://"));
            }
            Answer::Mapping {
                index: index(found.route.target()),
                shadow: found.shadow.map(|shadow| index(shadow.target())),
            }
        }
        Found::Secure(_) => {
            assert!(secure_location(&request).starts_with("https://"));
            Answer::Secure
        }
        Found::None(Miss::Host) => Answer::NoHost,
        Found::None(Miss::Route) => Answer::NoRoute,
        Found::None(Miss::Insecure) => Answer::Insecure,
    }
}
