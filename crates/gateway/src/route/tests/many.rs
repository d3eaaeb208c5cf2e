//! Thousands of routes that are alike but for one thing: only a handful is looked at for a request.

use std::fmt::Write as _;

use super::{Asked, config};
use crate::route::{Table, host::Authority};

const MANY: usize = 10_000;
/// Compiling them is what takes its time, without optimisation.
const REGEXES: usize = 500;
/// More than this is a list.
const TRIED_MAX: usize = 8;

/// Builds the table of routes with `{n}` in `spec` replaced by their number, and counts the groups that are tried.
#[track_caller]
fn check(count: usize, spec: &str, asked: &str) {
    let mut written = String::from("routes:\n");
    for number in 0..count {
        let spec = spec.replace("{n}", &format!("{number:05}"));
        _ = writeln!(written, "- {{ name: r{number}, {spec} }}");
    }
    let config = config(&written);
    let (table, problems) = Table::build(&config);
    assert!(problems.is_empty(), "{:?}", &problems[0]);
    for (number, expected) in [
        (0, true),
        (count / 3, true),
        (count - 1, true),
        (count, false),
    ] {
        let asked = Asked::new(&asked.replace("{n}", &format!("{number:05}")));
        let request = asked.request();
        let authority = Authority::new(request.authority);
        let mut tried = 0;
        let found = table.lowest(0, &request, &authority, |rank| {
            tried += 1;
            let lead = table.groups()[rank as usize].members[0].rule;
            table
                .route(lead as usize)
                .rule
                .loss(&request, &authority)
                .is_none()
        });
        assert_eq!(found != u32::MAX, expected, "{asked:?}");
        assert!(tried <= TRIED_MAX, "{tried} were tried for {asked:?}");
    }
}

#[test]
fn prefixes() {
    check(MANY, "prefix: /a/{n}/", "GET h/a/{n}/x");
}

#[test]
fn host_names() {
    check(
        MANY,
        "prefix: /a/, hostname: h{n}.example",
        "GET h{n}.example:80/a/",
    );
}

#[test]
fn values_of_a_header() {
    check(
        MANY,
        "prefix: /a/, headers: { x-env: prod, x-tenant: t{n}, x-zone: z }",
        "GET h/a/ x-env=prod x-tenant=t{n} x-zone=z",
    );
}

#[test]
fn values_of_a_query_parameter() {
    check(
        MANY,
        "prefix: /a/, query_parameters: { env: prod, tenant: 't {n}' }",
        "GET h/a/?x&env=prod&tenant=t%20{n}",
    );
}

#[test]
fn regular_expressions_for_the_path() {
    check(
        REGEXES,
        "prefix_regex: true, prefix: '/v[0-9]+/tenant-{n}(/.*)?'",
        "GET h/v1/tenant-{n}/x",
    );
    check(
        REGEXES,
        "prefix_regex: true, prefix: '/[^/]+/([a-z]+)/{n}$'",
        "GET h/x/orders/{n}",
    );
}

#[test]
fn regular_expressions_for_the_host() {
    check(
        REGEXES,
        "prefix: /a/, host_regex: true, host: '^(www[.])?t{n}[.]example$'",
        "GET www.t{n}.example/a/",
    );
}
