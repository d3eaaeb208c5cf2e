//! Text in, Config and problems out.

mod ambassador;
mod hostile;
mod kubernetes;
mod look;
mod random;
mod short;
mod sources;

use expect_test::Expect;
use model::{Loaded, Options, Source};

fn load(text: &str) -> Loaded {
    let source = Source {
        name: "a.yaml".into(),
        text: text.into(),
    };
    model::load(&[source], &Options::default())
}

/// Loads a text and compares its problems, one a line, with what is expected.
#[track_caller]
fn problems(text: &str, expected: Expect) {
    let loaded = load(text);
    let lines: Vec<String> = loaded
        .problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    expected.assert_eq(&lines.concat());
}

/// Loads a text without errors and compares the names of what came out with what is expected.
#[track_caller]
fn names(text: &str, expected: Expect) {
    let Loaded { config, .. } = load(text);
    let mut lines = String::new();
    let mut line = |kind: &str, names: Vec<String>| {
        if !names.is_empty() {
            lines.push_str(&format!("{kind}: {}\n", names.join(" ")));
        }
    };
    line(
        "mappings",
        config
            .mappings
            .iter()
            .map(|mapping| mapping.full_name())
            .collect(),
    );
    line(
        "hosts",
        config.hosts.iter().map(model::Object::full_name).collect(),
    );
    line(
        "listeners",
        config
            .listeners
            .iter()
            .map(model::Object::full_name)
            .collect(),
    );
    line(
        "services",
        config
            .services
            .iter()
            .map(model::Object::full_name)
            .collect(),
    );
    line(
        "topics",
        config.topics.iter().map(model::Object::full_name).collect(),
    );
    line(
        "publish",
        config
            .publish
            .iter()
            .map(model::Object::full_name)
            .collect(),
    );
    line(
        "subscribe",
        config
            .subscribe
            .iter()
            .map(model::Object::full_name)
            .collect(),
    );
    expected.assert_eq(&lines);
}
