//! Random changes of real configurations. `fuzz/` runs the same function with coverage.

mod configuration;

use std::path::Path;

use testkit::mutate;

/// Pieces that make up almost-right configurations.
const WORDS: &[&str] = &[
    "\n---\n",
    "\n  ",
    "\n- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "&a ",
    "*a",
    "<<: ",
    "~",
    "true",
    "-1",
    "1e9",
    "18446744073709551616",
    "hostname: '*'",
    "prefix_regex: true",
    "headers: { x: true }",
    "weight: 60",
    "kind: Mapping",
    "kind: Host",
    "kind: Listener",
    "apiVersion: getambassador.io/v2\n",
    "apiVersion: getambassador.io/v3alpha1\n",
    "timeout_ms: ",
    "https://",
    "%2e",
    "(",
];

#[test]
fn random_texts_are_read_or_refused() {
    let corpus = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/configuration"
    ));
    mutate::run(corpus, WORDS, configuration::configuration);
}
