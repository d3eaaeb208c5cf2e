//! Writes what can be told from the code: the JSON schemas and the reference pages of all kinds, and how far the broker
//! is Apache Kafka.
//!
//! The sentences on the fields are the ones in the structs' comments, so that a page cannot say something else than the
//! code. `--check` only compares, for the test command.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use model::schema::{self, Section, Shape};
use model::support;
use serde_json::{Map, Value};

const NOTE: &str =
    "<!-- Written by `cargo xtask reference` from crates/model. Change the comments there. -->\n\n";

/// Writes all generated files, or with `check` fails when one of them is not as it would be written.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    let mut stale = Vec::new();
    for (name, text) in files() {
        let path = root.join(&name);
        let there = fs::read_to_string(&path).ok();
        if there.as_deref() == Some(text.as_str()) {
            continue;
        }
        match check {
            true => stale.push(name),
            false => write(&path, &text)?,
        }
    }
    if !stale.is_empty() {
        let names: Vec<String> = stale
            .iter()
            .map(|name| name.display().to_string())
            .collect();
        bail!(
            "docs/reference is not as the code says; run `cargo xtask reference` and commit: {}",
            names.join(", ")
        );
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().context("a generated file has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("could not make {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

/// Returns every generated file by its path under `docs/reference`.
fn files() -> Vec<(PathBuf, String)> {
    let mut shapes = schema::shapes();
    shapes
        .iter_mut()
        .for_each(|shape| shape.spec = sorted(&shape.spec));
    let mut files = vec![
        (
            PathBuf::from("kafka-compatibility.md"),
            broker::compatibility::page(),
        ),
        (PathBuf::from("README.md"), index(&shapes)),
        (
            PathBuf::from("schema/nuncio.json"),
            json(&schema::nuncio_yaml()),
        ),
    ];
    for shape in &shapes {
        let name = format!("{:?}", shape.kind).to_lowercase();
        files.push((format!("{name}.md").into(), page(shape)));
        files.push((
            format!("schema/{name}.json").into(),
            json(&schema::object(shape)),
        ));
    }
    files
}

fn json(schema: &Value) -> String {
    let text = serde_json::to_string_pretty(&sorted(schema)).expect("a schema is plain JSON");
    text + "\n"
}

/// Puts fields into the order of their names, whichever way `serde_json` was built to keep them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            fields
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn index(shapes: &[Shape]) -> String {
    let mut text = format!(
        "{NOTE}# Reference\n\n\
         Everything that can be configured. `nuncio.yaml` is the short spelling; each of its sections holds objects of one \
         kind, which can also be written as Kubernetes-style objects, with the same field names.\n\n\
         | section of `nuncio.yaml` | kind | `apiVersion` | what it is |\n|---|---|---|---|\n"
    );
    for shape in shapes {
        let name = format!("{:?}", shape.kind);
        let section = match shape.section {
            Section::Named(key) => format!("`{key}:` a map by name"),
            Section::Listed(key) => format!("`{key}:` a list"),
            Section::Single(key) => format!("`{key}:`"),
            Section::Nowhere => "–".to_owned(),
        };
        let (first, _) = described(&shape.spec);
        let first = first
            .split("\n\n")
            .next()
            .unwrap_or_default()
            .replace('\n', " ");
        let page = name.to_lowercase();
        let version = shape.version;
        _ = writeln!(
            text,
            "| {section} | [{name}]({page}.md) | `{version}` | {first} |"
        );
    }
    text.push_str(
        "\n`getambassador.io/v2` is taken too. A cluster's own `v1` Secret, Service and Endpoints and \
         `discovery.k8s.io/v1` EndpointSlice count as if a cluster had said them. Kinds of Ambassador that are not supported yet are \
         named with a warning (those that guard requests with an error: what they guard answers 500); kinds of others are \
         passed over with one. How Nuncio differs from Ambassador stands in \
         [ambassador-differences.md](ambassador-differences.md).\n\n\
         For editors there is a JSON schema of [`nuncio.yaml`](schema/nuncio.json) and of each kind in [`schema/`](schema/). \
         With the YAML language server, this line at the top of a file is enough:\n\n\
         ```yaml\n# yaml-language-server: $schema=docs/reference/schema/nuncio.json\n```\n",
    );
    text
}

fn page(shape: &Shape) -> String {
    let name = format!("{:?}", shape.kind);
    let (prose, example) = described(&shape.spec);
    let mut text = format!("{NOTE}# {name}\n\n{prose}\n\n```yaml\n{example}\n```\n\n");
    let place = match shape.section {
        Section::Named(key) => format!("under its name in the map `{key}:`"),
        Section::Listed(key) => format!(
            "as an item of the list `{key}:`, where `name:` may be added; without it a name is derived from what the item says"
        ),
        Section::Single(key) => format!("as the section `{key}:`"),
        Section::Nowhere => "nowhere".to_owned(),
    };
    let spec = if name == "Module" {
        "under `spec.config:`"
    } else {
        "under `spec:`"
    };
    let version = shape.version;
    let place = match shape.section {
        Section::Nowhere => "It is written as an object only.".to_owned(),
        _ => format!("In `nuncio.yaml` it stands {place}."),
    };
    _ = writeln!(
        text,
        "{place} As an object (`apiVersion: {version}`, `kind: {name}`) its fields stand {spec}.\n"
    );
    let waiting = support::waiting(shape.kind);
    if !waiting.is_empty() {
        text.push_str(
            "Fields marked *not yet* are read and checked, and have no effect in this version.\n\n",
        );
    }
    text.push_str("## Fields\n\n");
    fields(&mut text, &shape.spec, waiting);
    let empty = Map::new();
    let definitions = shape.spec["$defs"].as_object().unwrap_or(&empty);
    for (name, definition) in definitions {
        let (prose, _) = described(definition);
        _ = write!(text, "\n## {name}\n\n{prose}\n\n");
        match definition.get("oneOf").or_else(|| definition.get("enum")) {
            Some(values) => values_of(&mut text, values),
            None => fields(&mut text, definition, &[]),
        }
    }
    text
}

/// Returns a description's prose and its example.
fn described(schema: &Value) -> (String, String) {
    let text = schema["description"].as_str().unwrap_or_default();
    match text.split_once("```yaml\n") {
        Some((prose, rest)) => {
            let example = rest
                .split_once("\n```")
                .map_or(rest, |(example, _)| example);
            (prose.trim().to_owned(), example.to_owned())
        }
        None => (text.trim().to_owned(), String::new()),
    }
}

fn fields(text: &mut String, schema: &Value, waiting: &[&str]) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    text.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let default = match (required.contains(&name.as_str()), &field["default"]) {
            (true, _) => "required".to_owned(),
            (false, Value::Null) => "–".to_owned(),
            (false, Value::Object(fields)) if fields.is_empty() => "–".to_owned(),
            (false, Value::Object(fields)) => fields
                .iter()
                .map(|(name, value)| format!("`{name}: {}`", bare(value)))
                .collect::<Vec<_>>()
                .join(", "),
            (false, value) => format!("`{}`", bare(value)),
        };
        let meaning = field["description"]
            .as_str()
            .unwrap_or_default()
            .replace('\n', " ");
        let mut meaning = meaning.replace('|', "\\|");
        if waiting.contains(&name.as_str()) {
            meaning.push_str(" *Not yet.*");
        }
        let inner = waiting
            .iter()
            .filter_map(|path| path.strip_prefix(name.as_str())?.strip_prefix('.'));
        for path in inner {
            _ = write!(meaning, " *Not yet: `{path}`.*");
        }
        _ = writeln!(
            text,
            "| `{name}` | {} | {default} | {meaning} |",
            type_of(field)
        );
    }
}

fn bare(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
    }
}

fn values_of(text: &mut String, values: &Value) {
    text.push_str("| value | meaning |\n|---|---|\n");
    for value in values.as_array().into_iter().flatten() {
        let word = value["const"]
            .as_str()
            .or(value.as_str())
            .unwrap_or_default();
        let (meaning, _) = described(value);
        _ = writeln!(text, "| `{word}` | {} |", meaning.replace('\n', " "));
    }
}

/// Says in words what a field holds.
fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
    {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for several in ["anyOf", "allOf"] {
        if let Some(parts) = schema[several].as_array() {
            let parts: Vec<String> = parts
                .iter()
                .filter(|part| part["type"] != "null")
                .map(type_of)
                .collect();
            return parts.join(" or ");
        }
    }
    let kind = match &schema["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or_default(),
        _ => "",
    };
    match kind {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "number" => "number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" => match &schema["additionalProperties"] {
            Value::Object(_) => format!("map to {}", type_of(&schema["additionalProperties"])),
            _ => "map".to_owned(),
        },
        _ => "anything".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_files_are_as_the_model_says() {
        super::run(true).expect("run `cargo xtask reference`");
    }
}
