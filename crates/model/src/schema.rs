//! The shapes of all kinds as JSON schema: for editors, for the reference pages and for clusters.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::read::{Kind, OWN_VERSION};
use crate::resolver::{ConsulResolver, KubernetesEndpointResolver, KubernetesServiceResolver};
use crate::{
    Broker, Host, Listener, Mapping, Module, Publish, Service, Subscribe, TlsContext, Topic,
};

/// A kind and its shape.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The kind.
    pub kind: Kind,

    /// Its `apiVersion` as an object.
    pub version: &'static str,

    /// Where the short spelling has it.
    pub section: Section,

    /// The shape of its spec, with `$defs`.
    pub spec: Value,
}

/// A section of the short spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// A map from names to specs.
    Named(&'static str),
    /// A list of specs, whose names are derived.
    Listed(&'static str),
    /// One spec.
    Single(&'static str),
    /// None: it is only written as an object.
    Nowhere,
}

impl Section {
    /// Returns the section's key.
    pub fn key(self) -> &'static str {
        match self {
            Section::Named(key) | Section::Listed(key) | Section::Single(key) => key,
            Section::Nowhere => "",
        }
    }
}

const AMBASSADOR: &str = "getambassador.io/v3alpha1";

/// Returns the shapes of all kinds, in the order in which a newcomer meets them.
pub fn shapes() -> Vec<Shape> {
    use Section::{Listed, Named, Nowhere, Single};
    vec![
        shape::<Service>(Kind::Service, OWN_VERSION, Named("services")),
        shape::<Mapping>(Kind::Mapping, AMBASSADOR, Listed("routes")),
        shape::<Topic>(Kind::Topic, OWN_VERSION, Named("topics")),
        shape::<Publish>(Kind::Publish, OWN_VERSION, Listed("publish")),
        shape::<Subscribe>(Kind::Subscribe, OWN_VERSION, Listed("subscribe")),
        shape::<Host>(Kind::Host, AMBASSADOR, Listed("hosts")),
        shape::<Listener>(Kind::Listener, AMBASSADOR, Listed("listeners")),
        shape::<Module>(Kind::Module, AMBASSADOR, Single("module")),
        shape::<TlsContext>(Kind::TLSContext, AMBASSADOR, Named("tls_contexts")),
        shape::<ConsulResolver>(Kind::ConsulResolver, AMBASSADOR, Named("resolvers")),
        shape::<KubernetesEndpointResolver>(Kind::KubernetesEndpointResolver, AMBASSADOR, Nowhere),
        shape::<KubernetesServiceResolver>(Kind::KubernetesServiceResolver, AMBASSADOR, Nowhere),
        shape::<Broker>(Kind::Broker, OWN_VERSION, Single("broker")),
    ]
}

fn shape<T: JsonSchema>(kind: Kind, version: &'static str, section: Section) -> Shape {
    let spec = generator().into_root_schema_for::<T>().to_value();
    Shape {
        kind,
        version,
        section,
        spec,
    }
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft07()
        .with(|settings| settings.definitions_path = "/$defs".into())
        .into_generator()
}

/// Returns the schema of `nuncio.yaml`.
pub fn nuncio_yaml() -> Value {
    let mut properties = Map::new();
    let mut definitions = Map::new();
    for shape in shapes() {
        let name = format!("{:?}", shape.kind);
        let (mut spec, inner) = split(shape.spec);
        let item = json!({ "$ref": format!("#/$defs/{name}") });
        let (key, value) = match shape.section {
            Section::Named(key) => (
                key,
                json!({ "type": "object", "additionalProperties": nullable(item) }),
            ),
            Section::Listed(key) => {
                let described = json!({ "type": "string", "description": "Name of the object; derived when nothing is said." });
                if let Some(Value::Object(fields)) = spec.get_mut("properties") {
                    fields.insert("name".to_owned(), described);
                }
                (key, json!({ "type": "array", "items": item }))
            }
            Section::Single(key) => (key, item),
            Section::Nowhere => continue,
        };
        properties.insert(key.to_owned(), nullable(value));
        definitions.insert(name, spec);
        definitions.extend(inner);
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "nuncio.yaml",
        "description": "The short spelling of a Nuncio configuration.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// Returns the schema of a kind as a Kubernetes-style object.
pub fn object(shape: &Shape) -> Value {
    let kind = format!("{:?}", shape.kind);
    let (spec, definitions) = split(shape.spec.clone());
    let spec = match shape.kind {
        Kind::Module => json!({ "type": "object", "properties": { "config": spec } }),
        _ => spec,
    };
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": kind,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": { "const": shape.version },
            "kind": { "const": kind },
            "metadata": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": { "type": "string" },
                    "namespace": { "type": "string" },
                    "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                },
            },
            "spec": spec,
            "status": { "type": "object" },
        },
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// Takes the definitions out of a schema.
fn split(mut schema: Value) -> (Value, Map<String, Value>) {
    let Some(fields) = schema.as_object_mut() else {
        return (schema, Map::new());
    };
    fields.remove("$schema");
    let definitions = match fields.remove("$defs") {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    (schema, definitions)
}

/// Nothing behind a key means that nothing is said.
fn nullable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Source, load};

    /// Returns the example in a doc comment.
    fn example(spec: &Value) -> &str {
        let text = spec["description"]
            .as_str()
            .expect("every kind is described");
        let (_, rest) = text
            .split_once("```yaml\n")
            .expect("every kind has an example");
        rest.split_once("\n```").expect("the example ends").0
    }

    #[test]
    fn the_examples_in_the_comments_are_good() {
        for shape in shapes() {
            let example = example(&shape.spec).replace('\n', "\n    ");
            let (version, kind) = (shape.version, shape.kind);
            let (inner, name) = match kind {
                Kind::Module => ("spec:\n  config:", "ambassador"),
                _ => ("spec:\n ", "example"),
            };
            let text = format!(
                "apiVersion: {version}\nkind: {kind:?}\nmetadata: {{ name: {name} }}\n{inner}\n    {example}\n"
            );
            // What the examples refer to.
            let around =
                "---\ntopics: { orders.placed: {} }\nservices: { inventory: { run: x } }\n";
            let source = Source {
                name: "a".into(),
                text: format!("{text}{around}").into(),
            };
            assert_eq!(load(&[source], &Options::default()).problems, [], "{text}");
        }
    }

    #[test]
    fn every_field_is_described() {
        fn look(name: &str, schema: &Value) {
            for (field, value) in schema["properties"].as_object().into_iter().flatten() {
                let described = value["description"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty());
                assert!(described, "{name}.{field} has no description");
            }
        }
        for shape in shapes() {
            look(&format!("{:?}", shape.kind), &shape.spec);
            for (name, definition) in shape.spec["$defs"].as_object().into_iter().flatten() {
                look(name, definition);
            }
        }
    }

    #[test]
    fn fields_that_wait_exist() {
        for shape in shapes() {
            for path in crate::support::waiting(shape.kind) {
                let first = path.split('.').next().unwrap_or_default();
                assert!(
                    shape.spec["properties"][first].is_object(),
                    "{:?} has no {path}",
                    shape.kind
                );
            }
        }
    }

    #[test]
    fn references_lead_somewhere() {
        let schema = nuncio_yaml();
        let text = schema.to_string();
        for part in text.split("\"$ref\":\"#/$defs/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(schema["$defs"][name].is_object(), "{name}");
        }
    }
}
