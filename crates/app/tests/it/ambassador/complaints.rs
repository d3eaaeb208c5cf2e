//! What Ambassador's users complain about cannot be said here. The numbers are those of its issues.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use testkit::{raw::Raw, wait};

use super::{HOST, Rig, Seen};

/// Some builds are slow, and some machines are busy: this only keeps a test from waiting forever.
const LIMIT: Duration = Duration::from_secs(20);

/// 4855: with ten thousand Mappings throughput fell to a fifteenth.
#[test]
fn ten_thousand_mappings_cost_a_request_what_one_costs() {
    let mut yaml = String::new();
    for number in 0..10_000 {
        let service = if number == 7_777 { "$b" } else { "$a" };
        _ = writeln!(
            yaml,
            "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: m{number} }}\n\
             spec: {{ hostname: '*', prefix: /team-{}/service-{number}/, service: '{service}' }}",
            number % 100
        );
    }
    let many = Rig::start_file(&yaml, &[]);
    let one = Rig::start(&["Mapping m: { prefix: /team-77/service-7777/, service: $b }"]);
    let time = |rig: &Rig| {
        let mut connection = Raw::connect(rig.nuncio.gateway());
        let mut best = Duration::MAX;
        for _ in 0..60 {
            let begun = Instant::now();
            connection.send("GET /team-77/service-7777/ HTTP/1.1\r\nhost: h\r\n\r\n");
            assert_eq!(connection.take_response().json()["backend"], "b");
            best = best.min(begun.elapsed());
        }
        best
    };
    let (many, one) = (time(&many), time(&one));
    // A scan of ten thousand would be hundreds of times slower in this build; noise is not.
    assert!(
        many < one * 5 + Duration::from_millis(2),
        "{many:?} against {one:?}"
    );
}

/// 1318, 1667: routes took minutes to appear, with 404 in between. 5349, 3280: it silently stopped to reload.
#[test]
fn changes_are_live_soon_and_after_any_mistake() {
    let rig = Rig::start(&["Mapping a: { prefix: /a/, service: $a }"]);
    for round in 0..5 {
        let broken = format!("Mapping broken: {{ prefx: /b{round}/, service: $b }}");
        rig.write(&[HOST, &broken, "Mapping a: { prefix: /a/, service: $a }"]);
        let path = format!("/new-{round}/");
        let good = format!("Mapping new: {{ prefix: {path}, service: $b }}");
        rig.write(&[HOST, &good, "Mapping a: { prefix: /a/, service: $a }"]);
        wait::until("the new route", LIMIT, || {
            assert_eq!(
                rig.ask("GET /a/").status,
                200,
                "what did not change goes on"
            );
            (rig.ask(&format!("GET {path}")).status == 200).then_some(())
        });
    }
}

/// 2479, 1635, 1180: one bad object broke everything. The last good one stays.
#[test]
fn a_bad_object_keeps_its_last_good_version() {
    let rig = Rig::start(&[
        "Mapping a: { prefix: /a/, service: $a }",
        "Mapping b: { prefix: /b/, service: $b }",
    ]);
    rig.write(&[
        HOST,
        "Mapping a: { prefix: /a/, service: $a, weigth: 5 }",
        "Mapping c: { prefix: /c/, service: $c }",
    ]);
    wait::until("the change", LIMIT, || {
        (rig.ask("GET /c/").status == 200).then_some(())
    });
    assert_eq!(Seen::of(&rig.ask("GET /a/")).backend.as_deref(), Some("a"));
    assert_eq!(rig.ask("GET /b/").status, 404, "what was taken out is gone");
    assert!(
        rig.told().contains("did you mean `weight`?"),
        "{}",
        rig.told()
    );
}

/// 2276, 3625, 5131, 4791: a port in the request's host gave 404. Case 3 as well.
#[test]
fn a_port_in_the_host_does_not_matter() {
    let objects = [
        "Host h: { hostname: shop.example, requestPolicy: { insecure: { action: Route } } }",
        "Mapping x: { hostname: shop.example, prefix: /x/, service: $a }",
    ];
    let strip = "Module ambassador: { strip_matching_host_port: true }";
    for rig in [
        Rig::start_bare(&objects),
        Rig::start_bare(&[&objects[..], &[strip]].concat()),
    ] {
        let port = rig.nuncio.gateway().port();
        for host in [
            "shop.example".to_owned(),
            format!("shop.example:{port}"),
            "shop.example:11875".to_owned(),
        ] {
            assert_eq!(rig.ask(&format!("GET //{host}/x/")).status, 200, "{host}");
        }
    }
}

/// 737, 382: the diagnostics were public.
#[test]
fn diagnostics_are_on_the_admin_port_alone() {
    let rig = Rig::start(&["Mapping x: { prefix: /x/, service: $a }"]);
    for path in ["/ambassador/v0/diag/", "/metrics", "/debug", "/ready"] {
        assert_eq!(rig.ask(&format!("GET {path}")).status, 404, "{path}");
    }
}

/// 3469: nobody could tell the gateway's 404 from the service's. 885, 2993: nor why there was a 504.
#[test]
fn answers_of_the_gateway_say_so() {
    let rig = Rig::start(&["Mapping x: { prefix: /x/, service: $a, timeout_ms: 100 }"]);
    let reason = |request: &str| rig.ask(request).header("x-nuncio-reason").join(",");
    assert_eq!(reason("GET /nowhere/"), "no_route");
    assert_eq!(reason("GET /x/ Requested-Status=404"), "");
    assert_eq!(
        reason("GET /x/ Requested-Backend-Delay=5000"),
        "upstream_timeout"
    );
}

/// 4112: connections broke at each stop.
#[test]
fn a_stop_lets_requests_finish() {
    let mut rig = Rig::start(&["Mapping x: { prefix: /x/, service: $a, timeout_ms: 20000 }"]);
    let mut connection = Raw::connect(rig.nuncio.gateway());
    connection.send("GET /x/ HTTP/1.1\r\nhost: h\r\nrequested-backend-delay: 500\r\n\r\n");
    rig.upstreams[0].wait_seen(1, LIMIT);
    rig.nuncio.stop();
    assert_eq!(connection.take_response().status, 200);
}

/// 5778, 5451, 5399, 5845, 4714: everything was 404, and nothing said why.
#[test]
fn lost_mappings_are_told() {
    let rig = Rig::start_bare(&[
        "Host h: { hostname: shop.example, mappingSelector: { matchLabels: { shop: public } }, requestPolicy: { insecure: { action: Route } } }",
        "Mapping lost: { hostname: null, prefix: /x/, service: $a }",
        "Mapping elsewhere: { hostname: other.example, prefix: /x/, service: $a }",
        "Mapping unlabelled: { hostname: shop.example, prefix: /x/, service: $a }",
    ]);
    let told = rig.told();
    for part in [
        "no Host takes it: it has no `hostname`, and no Host selects it by its labels",
        "no Host takes it: none has a `hostname` that goes with `other.example`",
        "no Host takes it: its labels are not what their `mappingSelector` asks for",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert_eq!(rig.ask("GET //shop.example/x/").status, 404);

    let rig = Rig::start(&[
        "Mapping x: { prefix: /x/, service: $a }",
        "Listener nobody: { port: $port1, protocol: HTTP, securityModel: INSECURE, hostBinding: { selector: { matchLabels: { a: b } } } }",
    ]);
    let told = rig.told();
    for part in [
        "takes this Host: it is served nowhere",
        "every request to this port is answered with 404",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

/// The same: a Mapping alone is a configuration, without Host and Listener.
#[test]
fn a_mapping_alone_works() {
    let rig = Rig::start_bare(&[
        "Mapping x: { prefix: /x/, service: $a }",
        "Mapping y: { hostname: y.example, prefix: /y/, service: $a }",
    ]);
    assert_eq!(rig.ask("GET /x/").status, 200);
    assert_eq!(rig.ask("GET //y.example/y/").status, 200);
    assert_eq!(rig.told(), "");
}

/// 5167: endpoints beyond a thousand were lost, and EndpointSlices were not read.
#[test]
fn endpoint_slices_are_read() {
    let rig = Rig::start_file("", &[]);
    let address = rig.upstreams[1].address();
    let yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: orders }}\nspec: {{ ports: [{{ name: http, port: 80, targetPort: 8080 }}] }}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: orders-1, labels: {{ kubernetes.io/service-name: orders }} }}\n\
         addressType: IPv4\nports: [{{ name: http, port: {} }}]\nendpoints: [{{ addresses: [{}] }}]\n---\n\
         apiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: orders }}\nspec: {{ hostname: '*', prefix: /orders/, service: orders }}\n",
        address.port(),
        address.ip()
    );
    std::fs::write(rig.nuncio.config().join("more.yaml"), yaml).expect("written");
    wait::until("the route", LIMIT, || {
        (rig.ask("GET /orders/").status == 200).then_some(())
    });
    assert_eq!(
        Seen::of(&rig.ask("GET /orders/")).backend.as_deref(),
        Some("b")
    );
}
