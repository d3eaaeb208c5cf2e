//! Where objects may stand, and which of them count.

use expect_test::{Expect, expect};
use model::resolver::Resolver;
use model::selector::Selector;
use model::{Config, Loaded, Options, Source};

use crate::{load, problems};

const ANNOTATED: &str = "apiVersion: v1
kind: Service
metadata:
  name: httpbin
  namespace: web
  labels: { team: a }
  annotations:
    getambassador.io/config: |
      ---
      apiVersion: getambassador.io/v2
      kind: Mapping
      name: httpbin_mapping
      prefix: /httpbin/
      service: httpbin:80
      headers: { x-a: true }
      timeout_ms: soon
      ---
      apiVersion: ambassador/v1
      kind:  Mapping
      name: other
      prefix: /other/
      service: other

      weight: 500
spec: { ports: [{ port: 80 }] }
";

/// Says which Mappings there are, with namespace, labels and place.
fn mappings(config: &Config) -> String {
    let one = |mapping: &std::sync::Arc<model::Object<model::Mapping>>| {
        let labels: Vec<String> = mapping
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!(
            "{} {} {} {}\n",
            mapping.full_name(),
            mapping.spec.prefix,
            labels.join(","),
            mapping.origin
        )
    };
    config.mappings.iter().map(one).collect()
}

#[test]
fn annotations_hold_objects_and_their_places_are_those_of_the_file() {
    problems(
        ANNOTATED,
        expect![[r#"
            a.yaml:16:19: error: metadata.annotations.getambassador.io/config.spec.timeout_ms: expected a whole number, not negative, found `soon`
            a.yaml:24:15: error: metadata.annotations.getambassador.io/config.spec.weight: a weight of 500 is more than 100 percent
        "#]],
    );
    let good = ANNOTATED
        .replace("timeout_ms: soon", "timeout_ms: 100")
        .replace("weight: 500", "metadata_labels: { team: b }");
    let Loaded { config, problems } = load(&good);
    assert_eq!(problems, []);
    expect![[r#"
        httpbin_mapping.web /httpbin/ team=a a.yaml:10:7
        other.web /other/ team=b a.yaml:18:7
    "#]]
    .assert_eq(&mappings(&config));
    let mapping = &config.mappings[0].spec;
    assert_eq!(mapping.regex_headers["x-a"], ".*", "read as v2");
}

#[test]
fn the_marked_bytes_are_the_word_that_is_wrong() {
    for problem in load(ANNOTATED).problems {
        let marked = &ANNOTATED[problem.span.clone()];
        assert!(["soon", "500"].contains(&marked), "{marked}");
    }
}

#[test]
fn annotations_in_quotes_are_told_by_their_own_place() {
    problems(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  annotations:\n    getambassador.io/config: \"kind: Mapping\\napiVersion: getambassador.io/v3alpha1\\nname: m\\nprefix: /\\nservise: s\\n\"\n",
        expect![[r#"
            a.yaml:6:30: error: metadata.annotations.getambassador.io/config.spec.servise: unknown field `servise` (did you mean `service`?)
        "#]],
    );
    problems(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  annotations:\n    getambassador.io/config: |\n      kind: [\n",
        expect![[r#"
            a.yaml:7:13: error: metadata.annotations.getambassador.io/config: unclosed bracket '['
        "#]],
    );
}

#[test]
fn an_exported_list_is_taken_as_it_is() {
    let text = r#"apiVersion: v1
items:
- apiVersion: getambassador.io/v3alpha1
  kind: Mapping
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"getambassador.io/v3alpha1","kind":"Mapping","metadata":{"name":"quote"}}
    creationTimestamp: "2024-01-09T12:00:00Z"
    generation: 3
    managedFields:
    - { apiVersion: getambassador.io/v3alpha1, fieldsType: FieldsV1, manager: kubectl, operation: Update }
    name: quote
    namespace: default
    resourceVersion: "123"
    uid: 4f0c
  spec: { ambassador_id: ["--apiVersion-v3alpha1-only--default"], hostname: '*', prefix: /quote/, service: quote }
  status: { state: Running }
- apiVersion: v1
  kind: Namespace
  metadata: { name: web }
- { apiVersion: apps/v1, kind: Deployment, metadata: { name: a } }
- { apiVersion: apps/v1, kind: Deployment, metadata: { name: b } }
kind: List
metadata: { resourceVersion: "" }
---
apiVersion: getambassador.io/v3alpha1
kind: MappingList
items:
- apiVersion: getambassador.io/v3alpha1
  kind: Mapping
  metadata: { name: listed }
  spec: { hostname: '*', prefix: /listed/, service: quote }
"#;
    let Loaded { config, .. } = load(text);
    expect![[r#"
        quote.default /quote/  a.yaml:3:3
        listed.default /listed/  a.yaml:30:3
    "#]]
    .assert_eq(&mappings(&config));
    problems(
        text,
        expect![[r#"
            a.yaml:22:32: warning: items[2].kind: `Deployment` of `apps/v1` means nothing to Nuncio, it is passed over
        "#]],
    );
}

#[track_caller]
fn selected(options: &Options, expected: Expect) {
    let text = "apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: a, namespace: one, labels: { app: shop } }
spec: { prefix: /a/, service: s }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: b, namespace: two, labels: { app: blog } }
spec: { prefix: /b/, service: s, ambassador_id: [mine] }
---
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: c }
spec: { prefix: /c/, service: s, ambassador_id: _automatic_ }
";
    let source = Source {
        name: "a.yaml".into(),
        text: text.into(),
    };
    let loaded = model::load(&[source], options);
    assert_eq!(loaded.problems, []);
    expected.assert_eq(&mappings(&loaded.config));
}

#[test]
fn objects_are_selected_by_instance_namespace_and_labels() {
    selected(
        &Options::default(),
        expect![[r#"
            a.one /a/ app=shop a.yaml:1:1
            c.default /c/  a.yaml:11:1
        "#]],
    );
    selected(
        &Options {
            ambassador_id: "mine".to_owned(),
            ..Options::default()
        },
        expect![[r#"
            b.two /b/ app=blog a.yaml:6:1
            c.default /c/  a.yaml:11:1
        "#]],
    );
    selected(
        &Options {
            namespace: "one".to_owned(),
            single_namespace: true,
            ..Options::default()
        },
        expect![[r#"
            a.one /a/ app=shop a.yaml:1:1
            c.default /c/  a.yaml:11:1
        "#]],
    );
    selected(
        &Options {
            labels: Selector::parse("app in (shop, blog)").expect("a selector"),
            ..Options::default()
        },
        expect![[r#"
            a.one /a/ app=shop a.yaml:1:1
        "#]],
    );
}

#[test]
fn resolvers_are_known_by_their_name() {
    let text = "apiVersion: getambassador.io/v2
kind: ConsulResolver
metadata: { name: west, namespace: infra }
spec: { address: '${HOST_IP}:8500', datacenter: west }
---
apiVersion: getambassador.io/v3alpha1
kind: KubernetesEndpointResolver
metadata: { name: slices }
spec: {}
---
module: { resolver: slices }
resolvers: { east: {} }
routes:
- { prefix: /west/, service: orders, resolver: west }
- { prefix: /slices/, service: orders.shop }
- { prefix: /dns/, service: orders.shop, resolver: kubernetes-service }
";
    let Loaded { config, problems } = load(text);
    assert_eq!(problems, []);
    let Some(Resolver::Consul(west)) = config.resolver(Some("west")) else {
        panic!("{:?}", config.resolver(Some("west")));
    };
    assert_eq!(west.datacenter.as_deref(), Some("west"));
    assert_eq!(config.resolver(None), Some(Resolver::KubernetesEndpoint));
    assert!(matches!(
        config.resolver(Some("east")),
        Some(Resolver::Consul(_))
    ));
    assert_eq!(
        config.resolver(Some("kubernetes-service")),
        Some(Resolver::KubernetesService)
    );
    assert_eq!(load("routes: []").config.resolver(None), None);
}

#[test]
fn unknown_resolvers_and_ports_are_named_with_the_known_ones() {
    problems(
        "module: { resolver: consl }\nresolvers:\n  west: {}\n  east: { address: 'ftp://x' }\nroutes:\n- { prefix: /a, service: s, resolver: nomad }\n- { prefix: /b, service: s, resolver: east }\n",
        expect![[r#"
            a.yaml:1:21: error: module.resolver: unknown resolver `consl` (did you mean `consul`?)
            a.yaml:4:20: error: resolvers.east.address: the scheme `ftp` is neither `http` nor `https`
            a.yaml:6:39: error: routes[0].resolver: unknown resolver `nomad` (known are `kubernetes-service`, `kubernetes-endpoint`, `endpoint`, `consul`, `consul-endpoint`, `west`)
            a.yaml:7:39: error: routes[1].resolver: the resolver `east` is refused itself
        "#]],
    );
    let cluster = "apiVersion: v1
kind: Service
metadata: { name: web }
spec: { ports: [{ name: http, port: 8080 }, { name: admin, port: 9090 }] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: web }
subsets: [{ addresses: [{ ip: 10.0.0.1 }], ports: [{ name: http, port: 80 }, { name: admin, port: 81 }] }]
---
apiVersion: v1
kind: Endpoints
metadata: { name: alone }
subsets: [{ addresses: [{ ip: 10.0.0.1 }], ports: [{ port: 80 }] }]
---
routes:
- { prefix: /a, service: web }
- { prefix: /b, service: 'web:81', resolver: endpoint }
- { prefix: /c, service: 'web:9090', resolver: endpoint }
- { prefix: /d, service: alone, resolver: endpoint }
- { prefix: /e, service: orders.example.com, resolver: endpoint }
";
    problems(
        cluster,
        expect![[r#"
            a.yaml:17:26: warning: routes[0].service: the Service `web` has several ports, and none is 80, so nobody answers (it has 8080, 9090)
            a.yaml:18:26: warning: routes[1].service: the Service `web` has no port 81, so nobody answers (it has 8080, 9090)
            a.yaml:20:26: warning: routes[3].service: there is no `v1` Service `alone` in `default`, so its ports are those of its endpoints
            a.yaml:21:26: error: routes[4].service: `orders.example.com` is no Service's name (write `name.namespace`)
        "#]],
    );
}

#[test]
fn there_is_nothing_to_balance_behind_one_address() {
    let found = load("routes:\n- { prefix: /, service: web, resolver: kubernetes-service, load_balancer: { policy: least_request } }\n").problems;
    let told = |what: &str| found.iter().any(|problem| problem.what.contains(what));
    assert!(told("has one address"), "{found:?}");
}
