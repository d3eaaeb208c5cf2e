//! `nuncio explain` on files and on a running process.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use testkit::echo::Echo;
use testkit::nuncio::{Nuncio, Setup};
use testkit::{raw, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// Returns the exit code and what was written.
fn explain(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nuncio"))
        .arg("explain")
        .args(arguments)
        .output()
        .expect("the binary was built");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).expect("text"))
}

fn start(routes: &str) -> Nuncio {
    Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("nuncio.yaml", routes)
        .argument("--role")
        .argument("gateway")
        .start()
}

#[test]
fn a_running_process_tells_how_its_endpoints_fare() {
    let good = Echo::start("good");
    let port = good.address().port();
    // Loopback too, where nobody listens.
    let dead = SocketAddr::from(([127, 0, 0, 2], port));
    let nuncio = start(&format!(
        "routes:\n- {{ prefix: /x/, service: shop, timeout_ms: 5000, load_balancer: {{ policy: maglev, header: x-user }}, \
         retry_policy: {{ retry_on: connect-failure, num_retries: 3 }}, \
         outlier_detection: {{ consecutive_5xx: 1, base_ejection_time: 1h, max_ejection_percent: 50 }} }}\n---\n\
         apiVersion: v1\nkind: Endpoints\nmetadata: {{ name: shop }}\nsubsets:\n\
         - {{ addresses: [{{ ip: 127.0.0.1 }}, {{ ip: 127.0.0.2 }}], ports: [{{ port: {port} }}] }}\n"
    ));
    let admin = format!("http://{}", nuncio.admin());
    let ask = |more: &[&str]| {
        let request = ["--", "http://shop.example/x/y", "-H", "x-user: ann"];
        explain(&[&["--admin", &admin], more, &request].concat())
    };
    let (code, told) = ask(&[]);
    assert_eq!(code, Some(0), "{told}");
    for part in [
        "goes to shop, path /y",
        "timeout 5s for the whole request",
        "retry   3 more tries on connect-failure",
        "balance Maglev by the header `x-user`",
        "now     shop: 0 under way",
        &format!("{} healthy", good.address()),
    ] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }
    // One of the two is dead: some user leads there, and it is put aside.
    wait::until("the dead endpoint to be put aside", LIMIT, || {
        let user = format!("{:?}", std::time::Instant::now());
        let request = format!("GET /x/y HTTP/1.1\nhost: a\nx-user: {user}");
        assert_eq!(raw::http(nuncio.gateway(), &request, "").status, 200);
        let (_, told) = ask(&[]);
        told.contains(&format!("{dead} ejected")).then_some(())
    });
    let (_, told) = ask(&["--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let taker = &told["outcome"]["routed"][0];
    let endpoints = taker["live"]["endpoints"].as_array().expect("a list");
    let state = |address: String| {
        let mut all = endpoints.iter();
        let found = all
            .find(|it| it["address"] == *address)
            .expect("it is there");
        found["state"].clone()
    };
    assert_eq!(state(good.address().to_string()), "healthy", "{told:#}");
    assert_eq!(state(dead.to_string()), "ejected", "{told:#}");
    let picks = taker["policies"].as_array().expect("a list");
    let picks = picks
        .iter()
        .find(|it| it["policy"] == "picks")
        .expect("it picks");
    assert_eq!(picks["told"], good.address().to_string(), "{told:#}");
    let limits = taker["live"]["limits"].as_array().expect("a list");
    assert!(
        limits
            .iter()
            .any(|it| it["of"] == "connections" && it["most"] == 1024),
        "{told:#}"
    );

    let (code, told) = explain(&["--admin", &admin, "--", "http://shop.example/nowhere"]);
    assert!(code == Some(1) && told.contains("answer  404"), "{told}");
}

/// Answers one request with this text, and returns where.
fn odd(answer: &'static str) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut raw = raw::Raw::of(stream.try_clone().expect("a second handle"));
        _ = raw.take_until(b"\r\n\r\n");
        let mut stream = stream;
        stream.write_all(answer.as_bytes()).expect("it reads");
    });
    (address, served)
}

#[test]
fn who_cannot_be_asked_is_told() {
    let refused = |admin: &str| {
        let (code, told) = explain(&["--admin", admin, "--", "/x"]);
        assert_eq!(code, Some(1), "{told}");
        told
    };
    let told = refused("ftp://a");
    assert!(
        told.contains("`ftp://a` is no address of an admin API"),
        "{told}"
    );
    let told = refused("https://a");
    assert!(told.contains("does not speak TLS"), "{told}");

    // Who has a port of one loopback address keeps others from having it on all.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let nobody = SocketAddr::from(([127, 0, 0, 2], port));
    let told = refused(&format!("http://{nobody}"));
    assert!(
        told.contains("no admin API answers at") && told.contains("is Nuncio running"),
        "{told}"
    );

    for (answer, expected) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "one of an older Nuncio",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "does not answer in JSON",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 48\r\n\r\n{\"request\": \"GET /x\", \"path\": \"/x\", \"host\": \"*\"}",
            "runs an older Nuncio",
        ),
        (
            "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
            "answers 500",
        ),
        ("SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
    ] {
        let (address, served) = odd(answer);
        let told = refused(&address);
        served.join().expect("it ends");
        assert!(
            told.contains(expected),
            "`{expected}` is missing in\n{told}"
        );
    }

    let nuncio = start("routes:\n- { prefix: /x/, service: s }\n");
    let admin = format!("http://{}", nuncio.admin());
    let (_, told) = explain(&["--admin", &admin, "nuncio.yaml", "--", "/x"]);
    assert!(told.contains("cannot be used with"), "{told}");
}
