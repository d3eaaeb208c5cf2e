//! Case 32: load balancers that are right, and those that are not.

use testkit::wait;

use super::{Rig, Seen};

/// Two endpoints behind one name.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: pair }
spec: { ports: [{ name: http, port: 80 }] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: pair }
subsets:
- addresses: [{ ip: 127.0.0.1 }]
  ports: [{ name: http, port: $first }]
- addresses: [{ ip: 127.0.0.1 }]
  ports: [{ name: http, port: $second }]
";

fn start(mappings: &[(&str, &str)]) -> Rig {
    let rig = Rig::start_file("", &[]);
    let port = |nth: usize| rig.upstreams[nth].address().port().to_string();
    let mut yaml = SERVICE
        .replace("$first", &port(0))
        .replace("$second", &port(1));
    for (name, balancer) in mappings {
        yaml += &format!(
            "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: {name} }}\n\
             spec: {{ hostname: '*', prefix: /{name}/, service: pair, resolver: endpoint, load_balancer: {{ {balancer} }} }}\n"
        );
    }
    // Tells when the file has been read.
    yaml += "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: { name: there }\nspec: { hostname: '*', prefix: /there/, service: pair }\n";
    std::fs::write(rig.nuncio.config().join("pair.yaml"), yaml).expect("written");
    wait::until("the routes", std::time::Duration::from_secs(20), || {
        (rig.ask("GET /there/").status == 200).then_some(())
    });
    rig
}

#[test]
fn right_ones_serve() {
    let rig = start(&[
        ("rr", "policy: round_robin"),
        ("least", "policy: least_request"),
        ("header", "policy: ring_hash, header: x-user"),
        (
            "cookie",
            "policy: ring_hash, cookie: { name: sticky, ttl: 60s }",
        ),
        ("maglev", "policy: maglev, header: x-user"),
        ("source", "policy: maglev, source_ip: true"),
    ]);
    let who = |request: &str| Seen::of(&rig.ask(request)).backend.expect("an upstream");
    let share = rig.shares("GET /rr/", 20);
    assert_eq!((share("a"), share("b")), (10, 10));
    assert_eq!(rig.shares("GET /least/", 20)("404"), 0);
    for path in ["header", "maglev"] {
        let mut all = Vec::new();
        for user in 0..30 {
            let request = format!("GET /{path}/ x-user=user-{user}");
            let first = who(&request);
            assert!((0..3).all(|_| who(&request) == first), "{request}");
            all.push(first);
        }
        assert!(
            ["a", "b"]
                .iter()
                .all(|name| all.iter().any(|who| who == name)),
            "{path}"
        );
    }
    let source = who("GET /source/");
    assert!((0..10).all(|_| who("GET /source/") == source));
    let response = rig.ask("GET /cookie/");
    let cookie = response.header("set-cookie")[0]
        .split(';')
        .next()
        .expect("a pair")
        .to_owned();
    assert!(cookie.starts_with("sticky="), "{cookie}");
    let first = Seen::of(&response).backend;
    let again = format!("GET /cookie/ Cookie={cookie}");
    assert!((0..10).all(|_| Seen::of(&rig.ask(&again)).backend == first));
}

/// Such a Mapping is left out and told, as in Ambassador.
#[test]
fn wrong_ones_are_left_out() {
    let wrong = [
        ("two", "policy: ring_hash, header: x-user, source_ip: true"),
        ("none", "policy: maglev"),
        ("rrcookie", "policy: round_robin, cookie: { name: c }"),
        ("unknown", "policy: rr"),
        ("leastcookie", "policy: least_request, cookie: { name: c }"),
    ];
    let rig = start(&wrong);
    let told = rig.told();
    for (name, _) in wrong {
        assert_eq!(rig.ask(&format!("GET /{name}/")).status, 404, "{name}");
        assert!(
            told.contains(&format!("in Mapping {name}.default, at spec.load_balancer")),
            "{name}\n{told}"
        );
    }
}
