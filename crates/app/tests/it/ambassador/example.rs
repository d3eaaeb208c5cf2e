//! `examples/ambassador`: a company's whole configuration, request by request.

use std::path::Path;
use std::{fs, str::Lines};

use testkit::{
    echo::Echo,
    nuncio::{Nuncio, Setup},
    port,
};

use super::{Rig, Seen};

/// The services and their addresses in the example.
const SERVICES: [(&str, &str, u16); 7] = [
    ("storefront", "10.1.0.11", 8080),
    ("catalog", "10.1.0.12", 8080),
    ("catalog-next", "10.1.0.13", 8080),
    ("orders", "10.1.0.14", 8000),
    ("payments", "10.1.0.15", 8080),
    ("feed", "10.1.0.16", 8080),
    ("grafana", "10.1.0.17", 3000),
];

fn folder() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/ambassador"
    ))
}

/// Starts the example as it is, but for where the services are and which ports are listened on.
fn start() -> Rig {
    let upstreams: Vec<Echo> = SERVICES
        .iter()
        .map(|(name, ..)| Echo::start(name))
        .collect();
    let ports = vec![port::stable(), port::stable()];
    let mut setup = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .argument("--role")
        .argument("gateway");
    for file in fs::read_dir(folder())
        .expect("the example is there")
        .flatten()
    {
        let name = file.file_name().into_string().expect("text");
        if !name.ends_with(".yaml") {
            continue;
        }
        let mut text = fs::read_to_string(file.path()).expect("readable");
        for ((_, ip, port), upstream) in SERVICES.iter().zip(&upstreams) {
            let address = upstream.address();
            text = moved(&text, ip, *port, &address.ip().to_string(), address.port());
        }
        for (written, port) in ["port: 8080\n", "port: 8090\n"].iter().zip(&ports) {
            text = text.replace(written, &format!("port: {}\n", port.port()));
        }
        setup = setup.file(&name, &text);
    }
    let nuncio: Nuncio = setup.start();
    Rig {
        nuncio,
        upstreams,
        ports,
    }
}

/// Puts another address and port into the document that has this address.
fn moved(text: &str, ip: &str, port: u16, to_ip: &str, to_port: u16) -> String {
    let documents = text.split("---\n").map(|document| {
        let has = document.contains(&format!("{ip} ")) || document.contains(&format!("{ip}]"));
        match has {
            false => document.to_owned(),
            true => document
                .replace(ip, to_ip)
                .replace(&format!("port: {port} "), &format!("port: {to_port} "))
                .replace(&format!("port: {port},"), &format!("port: {to_port},")),
        }
    });
    documents.collect::<Vec<_>>().join("---\n")
}

#[test]
fn every_request_of_the_example_goes_where_it_should() {
    let rig = start();
    let requests = fs::read_to_string(folder().join("requests.txt")).expect("readable");
    let lines: Lines<'_> = requests.lines();
    let mut wrong = String::new();
    let mut count = 0;
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (request, expected) = line.split_once(" -> ").expect("an expectation");
        let (port, request) = match request.strip_prefix("internal: ") {
            Some(request) => (rig.ports[1], request),
            None => (rig.ports[0], request),
        };
        let response = rig.ask_at(port, &request.replacen("http://", "//", 1));
        let told = Seen::of(&response).told();
        if told != expected {
            wrong += &format!("{line}\n    but {told}\n");
        }
        count += 1;
    }
    assert!(count > 30, "{count}");
    assert_eq!(wrong, "", "\n{wrong}");
}

#[test]
fn the_example_shows_what_it_says() {
    let rig = start();
    let ask = |request: &str| rig.ask_at(rig.ports[0], request);
    let canary = (0..100)
        .filter(|_| {
            let response = ask("GET //shop.example.com/catalog/ x-forwarded-proto=https");
            Seen::of(&response).backend.as_deref() == Some("catalog-next")
        })
        .count();
    assert!((1..=30).contains(&canary), "{canary}");

    let seen = Seen::of(&ask(
        "GET //api.example.com/v1/payments/1 x-forwarded-proto=https x-forwarded-for=9.9.9.9 x-debug=1",
    ));
    assert_eq!(seen.header("x-client"), ["9.9.9.9"]);
    assert!(seen.header("x-debug").is_empty());
    assert!(
        seen.header("x-gateway").is_empty(),
        "its own headers take the defaults' place"
    );
    let seen = Seen::of(&ask(
        "GET //api.example.com/v1/orders/1 x-forwarded-proto=https",
    ));
    assert_eq!(seen.header("x-gateway"), ["northwind"]);
    let status = ask(
        "GET //api.example.com/v1/payments/status x-forwarded-proto=https Origin=http://any.example",
    );
    assert!(
        Seen::of(&status).header("x-gateway").is_empty(),
        "`{{}}` clears the defaults"
    );
    assert_eq!(
        status.header("access-control-allow-origin"),
        ["http://any.example"]
    );

    let nowhere = ask("GET //api.example.com/nowhere x-forwarded-proto=https");
    assert_eq!(nowhere.json()["error"], "not found");
    assert_eq!(nowhere.header("server"), ["northwind"]);
    let closed = ask("GET //api.example.com/v1/reports/1 x-forwarded-proto=https");
    assert_eq!(&*closed.body, b"We are back in a minute.");
    assert_eq!(closed.header("x-nuncio-reason"), ["no_upstream"]);
}

/// Nothing in it is wrong, and every warning is one that the company can do something about.
#[test]
fn the_example_is_good() {
    let rig = start();
    expect_test::expect![[r#"
        warning: no Host takes it: its labels are not what their `mappingSelector` asks for
          in Mapping grafana-debug.platform
    "#]]
    .assert_eq(&rig.told());
}
