//! Core objects of Kubernetes, as if a cluster had said them.

use expect_test::expect;

use crate::{load, problems};

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec:
  selector: { app: web }
  ports:
  - { name: http, port: 80, targetPort: 8080 }
  - { name: admin, port: 81, targetPort: 9090 }
  - { name: dns, port: 53, protocol: UDP }
";

const ENDPOINTS: &str = "---
apiVersion: v1
kind: Endpoints
metadata: { name: web, namespace: shop }
subsets:
- addresses: [{ ip: 10.0.0.1 }, { ip: 10.0.0.2, nodeName: n }]
  notReadyAddresses: [{ ip: 10.0.0.3 }]
  ports: [{ name: http, port: 8080 }, { name: admin, port: 9090 }]
";

const SLICE: &str = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, namespace: shop, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: http, port: 8080 }, { name: admin, port: 9090 }]
endpoints:
- { addresses: [10.1.0.1], conditions: { ready: true } }
- { addresses: [10.1.0.2], conditions: { ready: false } }
- { addresses: ['fd00::1'] }
";

fn find(text: &str, host: &str, port: Option<u16>) -> String {
    let loaded = load(text);
    assert_eq!(loaded.problems, []);
    match loaded.config.endpoints.find(host, "shop", port) {
        None => "unknown".to_owned(),
        Some(found) => found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[test]
fn endpoints_are_joined_with_their_service() {
    let text = [SERVICE, ENDPOINTS].concat();
    assert_eq!(find(&text, "web", None), "10.0.0.1:8080 10.0.0.2:8080");
    assert_eq!(
        find(&text, "web.shop.svc.cluster.local", Some(81)),
        "10.0.0.1:9090 10.0.0.2:9090"
    );
    assert_eq!(find(&text, "web", Some(8080)), "");
    assert_eq!(find(&text, "web.default", None), "unknown");
    assert_eq!(find(SERVICE, "web", None), "unknown");
}

#[test]
fn slices_win_and_leave_out_who_is_not_ready() {
    let text = [SERVICE, ENDPOINTS, SLICE].concat();
    assert_eq!(find(&text, "web", Some(80)), "10.1.0.1:8080 [fd00::1]:8080");
}

#[test]
fn endpoints_alone_answer_by_their_own_port() {
    let one = "apiVersion: v1\nkind: Endpoints\nmetadata: { name: db, namespace: shop }\nsubsets:\n- { addresses: [{ ip: 10.0.0.9 }], ports: [{ port: 5000 }] }\n";
    assert_eq!(find(one, "db", None), "10.0.0.9:5000");
    assert_eq!(find(one, "db", Some(80)), "10.0.0.9:5000");
    assert_eq!(
        find(ENDPOINTS, "web", Some(9090)),
        "10.0.0.1:9090 10.0.0.2:9090"
    );
}

#[test]
fn lists_hold_objects() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- { apiVersion: getambassador.io/v3alpha1, kind: Mapping, metadata: { name: a }, spec: { prefix: /, sevice: s } }\n- 5\n";
    problems(
        text,
        expect![[r#"
            a.yaml:4:101: error: items[0].spec.sevice: unknown field `sevice` (did you mean `service`?)
            a.yaml:5:3: error: items[1]: expected an object
        "#]],
    );
}

#[test]
fn secrets_are_decoded_and_never_shown() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\ntype: kubernetes.io/tls\ndata: { a: aGVsbG8= }\nstringData: { b: world }\n";
    let config = load(text).config;
    let secret = &config.secrets[&("default".to_owned(), "s".to_owned())];
    assert_eq!(secret.data["a"], b"hello");
    assert_eq!(secret.data["b"], b"world");
    assert_eq!(
        format!("{secret:?}"),
        r#"Secret { kind: "kubernetes.io/tls", keys: ["a", "b"] }"#
    );
    problems(
        "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\ndata: { a: '!' }\n",
        expect![[r#"
            a.yaml:4:12: error: data.a: this is no base64 (plain text belongs under `stringData:`)
        "#]],
    );
}

#[test]
fn bad_addresses_and_ports_are_told() {
    problems(
        "apiVersion: v1\nkind: Endpoints\nmetadata: { name: db }\nsubsets:\n- { addresses: [{ ip: 10.0.0 }, { hostname: x }], ports: [{ port: 0x }] }\n",
        expect![[r#"
            a.yaml:5:23: error: subsets[0].addresses[0].ip: `10.0.0` is no IP address
            a.yaml:5:33: error: subsets[0].addresses[1].ip: `` is no IP address
            a.yaml:5:67: error: subsets[0].ports[0].port: a port must be a number from 1 to 65535
        "#]],
    );
}
