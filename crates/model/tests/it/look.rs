//! How problems look, and that the examples in the doc comments are good.

use expect_test::expect;
use model::render::{Style, render, summary};
use model::{Options, Source};

#[test]
fn a_problem_shows_place_line_and_hint() {
    let text = "routes:\n  - prefix: /é/\n    service: s\n    prefx: /b/\n  - { prefix: /c/, service: s, timeout_ms: 0 }\n";
    let source = Source {
        name: "shop/nuncio.yaml".into(),
        text: text.into(),
    };
    let loaded = model::load(std::slice::from_ref(&source), &Options::default());
    expect![[r#"
        error: unknown field `prefx`
         --> shop/nuncio.yaml:4:5
          |
        4 |     prefx: /b/
          |     ^^^^^
          |
          = note: in Mapping root.default, at routes[0].prefx
          = help: did you mean `prefix`?

        warning: 0 means that a request may take forever
         --> shop/nuncio.yaml:5:44
          |
        5 |   - { prefix: /c/, service: s, timeout_ms: 0 }
          |                                            ^
          |
          = note: in Mapping c.default, at routes[1].timeout_ms

    "#]]
    .assert_eq(&render(
        &loaded.problems,
        std::slice::from_ref(&source),
        Style::Plain,
    ));
    let coloured = render(&loaded.problems, &[source], Style::Coloured);
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    assert_eq!(
        summary(&loaded.problems).as_deref(),
        Some("1 error, 1 warning")
    );
    assert_eq!(summary(&[]), None);
}

#[test]
fn a_problem_without_a_text_is_still_named() {
    let loaded = crate::load("routes: 5\n");
    expect![[r#"
        error: expected a list
        --> a.yaml
         = note: at routes
         = help: begin each item with `- `

    "#]]
    .assert_eq(&render(&loaded.problems, &[], Style::Plain));
}

#[test]
fn a_problem_that_knows_only_its_line_shows_that_line() {
    let text = "a: 1\nroutes:\n  - prefix: /a/\n";
    let source = Source {
        name: "a.yaml".into(),
        text: text.into(),
    };
    let problem = model::Problem {
        severity: model::Severity::Warning,
        origin: model::Origin {
            file: "a.yaml".into(),
            line: 3,
            column: 5,
        },
        span: 0..0,
        object: Some("Mapping a.default".into()),
        path: String::new(),
        what: "no Host takes it".into(),
        hint: None,
    };
    expect![[r#"
        warning: no Host takes it
         --> a.yaml:3:5
          |
        3 |   - prefix: /a/
          |     ^
          |
          = note: in Mapping a.default

    "#]]
    .assert_eq(&render(&[problem], &[source], Style::Plain));
}
