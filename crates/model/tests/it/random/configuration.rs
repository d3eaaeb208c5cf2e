//! What must hold for every text of a configuration.

use model::{Loaded, Object, Options, Severity, Source, render::Style};
use serde::Serialize;
use serde_json::{Value, json};

/// Problems of one text that are told; the rest is counted by the reader.
const PROBLEMS_MAX: usize = 10_000;

/// Reads the input, renders what is wrong with it, writes what is good and reads that again.
pub(crate) fn configuration(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let source = Source {
        name: "a.yaml".into(),
        text: text.as_ref().into(),
    };
    let loaded = load(&source);
    assert!(loaded.problems.len() <= PROBLEMS_MAX);
    model::render(
        &loaded.problems,
        std::slice::from_ref(&source),
        Style::Coloured,
    );
    assert_eq!(
        loaded.config,
        load(&source).config,
        "the same text, the same result"
    );

    let written = write(&loaded);
    let text: Vec<String> = written
        .iter()
        .map(|object| format!("---\n{object}\n"))
        .collect();
    let again = load(&Source {
        name: "again.yaml".into(),
        text: text.concat().into(),
    });
    let errors: Vec<_> = again
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{}", text.concat());
    assert_eq!(write(&again), written, "{}", text.concat());
}

fn load(source: &Source) -> Loaded {
    model::load(std::slice::from_ref(source), &Options::default())
}

/// Writes the objects of the kinds that decide about requests.
fn write(loaded: &Loaded) -> Vec<Value> {
    let config = &loaded.config;
    let mut written = Vec::new();
    objects(&mut written, "Mapping", &config.mappings);
    objects(&mut written, "Host", &config.hosts);
    objects(&mut written, "Listener", &config.listeners);
    let version = "getambassador.io/v3alpha1";
    written.push(json!({
        "apiVersion": version, "kind": "Module", "metadata": { "name": "ambassador" },
        "spec": { "config": config.module },
    }));
    written
}

fn objects<T: Serialize, O: std::borrow::Borrow<Object<T>>>(
    written: &mut Vec<Value>,
    kind: &str,
    objects: &[O],
) {
    for object in objects.iter().map(std::borrow::Borrow::borrow) {
        written.push(json!({
            "apiVersion": "getambassador.io/v3alpha1", "kind": kind,
            "metadata": { "name": object.name, "namespace": object.namespace, "labels": object.labels },
            "spec": object.spec,
        }));
    }
}
