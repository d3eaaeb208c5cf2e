//! Text that means no good: every answer is a problem with a place, in bounded time and space.

use expect_test::expect;
use model::{Options, Source};
use proptest::prelude::*;

use crate::{load, names, problems};

#[test]
fn a_syntax_error_costs_its_own_document() {
    let good = |name: &str| format!("topics:\n  {name}: {{}}\n");
    let text = format!("{}---\nroutes: [\n---\n{}", good("a"), good("b"));
    problems(
        &text,
        expect![[r#"
        a.yaml:4:9: error: unclosed bracket '['
    "#]],
    );
    names(
        &text,
        expect![[r#"
        topics: a.default b.default
    "#]],
    );
    problems(
        "a: b: c\n",
        expect![[r#"
        a.yaml:1:5: error: mapping values are not allowed in this context
    "#]],
    );
    problems(
        "routes:\n\t- a\n",
        expect![[r#"
        a.yaml:2:2: error: tabs disallowed within this context (block indentation)
    "#]],
    );
    problems(
        "routes: \"a\n",
        expect![[r#"
        a.yaml:1:9: error: unclosed quote
    "#]],
    );
    problems(
        "routes: *nobody\n",
        expect![[r#"
        a.yaml:1:9: error: while parsing node, found unknown anchor
    "#]],
    );
    problems(
        "routes: !weird a\n",
        expect![[r#"
        a.yaml:1:16: error: this tag has no meaning here (leave the `!tag` out)
    "#]],
    );
    problems(
        "? [a]\n: b\n",
        expect![[r#"
        a.yaml:1:3: error: a list or a map cannot be a key (quote it if it is meant as text)
    "#]],
    );
}

#[test]
fn aliases_cannot_blow_up() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut last = 'a';
    for next in 'b'..='i' {
        let items = vec![format!("*{last}"); 9].join(", ");
        text.push_str(&format!("{next}: &{next} [{items}]\n"));
        last = next;
    }
    problems(
        &text,
        expect![[r#"
        a.yaml:5:42: error: the anchors of this document hold too much (split it)
    "#]],
    );
    problems(
        "a: &a [*a]\n",
        expect![[r#"
        a.yaml:1:8: error: this alias stands inside what it repeats (write it out)
    "#]],
    );
}

#[test]
fn nesting_ends() {
    let deep = 100_000;
    for text in ["[".repeat(deep), "{a: ".repeat(deep), "- ".repeat(deep)] {
        let loaded = load(&text);
        assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
    }
}

#[test]
fn a_huge_file_is_not_parsed() {
    let text = "a".repeat((32 << 20) + 1);
    problems(
        &text,
        expect![[r#"
        a.yaml:1:1: error: the file is larger than 32 MiB
    "#]],
    );
}

#[test]
fn many_wrong_fields_are_told_in_bounds() {
    let fields: String = (0..5_000).map(|index| format!("  f{index}: x\n")).collect();
    let text = format!("routes:\n- prefix: /\n  service: s\n{fields}");
    let loaded = load(&text);
    assert!(
        (1..=64).contains(&loaded.problems.len()),
        "{}",
        loaded.problems.len()
    );
    let values: String = (0..5_000)
        .map(|index| format!("    h{index}: [x]\n"))
        .collect();
    let text = format!("routes:\n- prefix: /\n  service: s\n  headers:\n{values}");
    let loaded = load(&text);
    assert!(
        (1..=64).contains(&loaded.problems.len()),
        "{}",
        loaded.problems.len()
    );
}

/// Pieces that make up almost-right configurations.
const PIECES: [&str; 32] = [
    "routes:",
    "services:",
    "topics:",
    "publish:",
    "subscribe:",
    "\n",
    "\n  ",
    "\n- ",
    "\n---\n",
    ": ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "prefix: /a",
    "service: s",
    "apiVersion: getambassador.io/v2\n",
    "apiVersion: v1\n",
    "kind: Mapping\n",
    "kind: List\n",
    "metadata: { name: x }\n",
    "spec:\n",
    "items:\n",
    "&a ",
    "*a",
    "<<: ",
    "\"",
    "'",
    "é",
    "headers: { x: true }",
    "weight: 60",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let source = Source { name: "a".into(), text: text.into() };
        let loaded = model::load(std::slice::from_ref(&source), &Options::default());
        model::render(&loaded.problems, &[source], model::render::Style::Plain);
    }

    #[test]
    fn no_pieces_make_it_panic(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.into_iter().map(|index| PIECES[index]).collect();
        let source = Source { name: "a".into(), text: text.into() };
        let loaded = model::load(std::slice::from_ref(&source), &Options::default());
        model::render(&loaded.problems, &[source], model::render::Style::Coloured);
    }
}
