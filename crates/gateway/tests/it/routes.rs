//! The route table against Ambassador's rules, tried one after the other; and paths have one spelling.
//!
//! `fuzz/` runs the same functions with coverage.

mod agree;
mod edits;
mod made;
mod naive;
mod paths;

use std::path::Path;

use gateway::route;
use testkit::mutate;

#[test]
fn random_tables_answer_as_the_rules_do() {
    let corpus = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/routes"
    ));
    mutate::run(corpus, &[], agree::routes);
}

#[test]
fn random_paths_have_one_spelling() {
    let corpus = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/paths"
    ));
    mutate::run(
        corpus,
        &["/", "..", ".", "%2e", "%2F", "//", "%", "\\"],
        paths::paths,
    );
}
