//! What others' tools see: OpenSSL, curl and Python.

use std::process::{Command, Stdio};

use super::*;

/// A gateway with an RSA and an ECDSA certificate, and the CA in a file.
fn start() -> (Edge, tempfile::TempDir) {
    let ca = Ca::new();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("ca.pem"), ca.pem()).expect("a file");
    let (rsa, ecdsa) = (ca.sign_rsa("shop.example"), ca.sign("shop.example"));
    let edge = Edge::start(&format!(
        "hosts: [{{ name: shop, hostname: shop.example, tlsSecret: {{ name: rsa }} }}]
tls_contexts: [{{ name: more, hosts: [shop.example], secret: ecdsa }}]
{}",
        secrets(&[("rsa", &rsa), ("ecdsa", &ecdsa)])
    ));
    (edge, folder)
}

/// Runs a tool, and returns what it says; `None` where it is not installed.
fn run(tool: &str, arguments: &[String]) -> Option<String> {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("there is no {tool} here, nothing is tested");
        return None;
    };
    let (out, err) = (&output.stdout, &output.stderr);
    Some(String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err))
}

fn words(text: &str, more: &[(&str, String)]) -> Vec<String> {
    let filled = |word: &str| match more.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => value.clone(),
        None => word.to_owned(),
    };
    text.split(' ').map(filled).collect()
}

#[test]
fn openssl_agrees_with_every_version_and_kind_of_key() {
    let (edge, folder) = start();
    let more = [
        ("ADDRESS", edge.rig.address.to_string()),
        ("CA", folder.path().join("ca.pem").display().to_string()),
    ];
    let common =
        "s_client -connect ADDRESS -servername shop.example -CAfile CA -verify_return_error";
    for (options, expected) in [
        (
            "-tls1_3 -sigalgs RSA-PSS+SHA256",
            ["TLSv1.3", "Peer signature type: RSA-PSS"],
        ),
        (
            "-tls1_3 -sigalgs ECDSA+SHA256",
            ["TLSv1.3", "Peer signature type: ECDSA"],
        ),
        (
            "-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384",
            ["TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"],
        ),
        (
            "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
            ["TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        ),
        (
            "-alpn h2,http/1.1",
            ["ALPN protocol: h2", "Verify return code: 0 (ok)"],
        ),
        (
            "-alpn http/1.1",
            ["ALPN protocol: http/1.1", "Verify return code: 0 (ok)"],
        ),
    ] {
        let Some(told) = run("openssl", &words(&format!("{common} {options}"), &more)) else {
            return;
        };
        for part in expected {
            assert!(told.contains(part), "{options}: no `{part}` in\n{told}");
        }
    }
    for options in [
        "-tls1_1 -cipher ALL:@SECLEVEL=0",
        "-tls1_2 -cipher AES128-SHA",
    ] {
        let Some(told) = run("openssl", &words(&format!("{common} {options}"), &more)) else {
            return;
        };
        assert!(told.contains("Cipher is (NONE)"), "{options}:\n{told}");
    }
}

#[test]
fn curl_speaks_both_versions_of_http() {
    let (edge, folder) = start();
    let more = [
        ("CA", folder.path().join("ca.pem").display().to_string()),
        (
            "RESOLVE",
            format!("shop.example:{}:127.0.0.1", edge.rig.address.port()),
        ),
        (
            "URL",
            format!("https://shop.example:{}/x", edge.rig.address.port()),
        ),
        ("FORMAT", "%{http_version} %{response_code} ".to_owned()),
    ];
    for (option, expected) in [
        ("--http1.1", "1.1 200 1.1 200 "),
        ("--http2", "2 200 2 200 "),
    ] {
        let text = format!(
            "--silent --cacert CA --resolve RESOLVE {option} -o /dev/null -o /dev/null -w FORMAT URL URL"
        );
        if let Some(told) = run("curl", &words(&text, &more)) {
            assert_eq!(told, expected);
        }
    }
}

#[test]
fn python_resumes_its_sessions() {
    let (edge, folder) = start();
    let script = r#"
import socket, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
session = None
for turn in range(2):
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with context.wrap_socket(plain, server_hostname="shop.example", session=session) as tls:
            tls.sendall(b"GET /x HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n")
            answer = b""
            while piece := tls.recv(4096):
                answer += piece
            session = tls.session
            print(tls.version(), tls.session_reused, answer.split(b" ")[1].decode())
"#;
    let arguments = [
        "-c".to_owned(),
        script.to_owned(),
        edge.rig.address.port().to_string(),
        folder.path().join("ca.pem").display().to_string(),
    ];
    if let Some(told) = run("python3", &arguments) {
        assert_eq!(told, "TLSv1.3 False 200\nTLSv1.3 True 200\n");
    }
}

/// What a CA makes with OpenSSL: a certificate in files, and its word that it is not revoked.
const STAPLE: &str = "
set -e
cd \"$1\"
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 30
openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=shop.example
printf 'subjectAltName=DNS:shop.example' > names
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -set_serial 0xf123456789 -days 30 -extfile names -out chain.pem
printf 'V\\t300101000000Z\\t\\tF123456789\\tunknown\\t/CN=shop.example\\n' > index
openssl ocsp -index index -rsigner ca.pem -rkey ca.key -CA ca.pem -issuer ca.pem -cert chain.pem -respout staple -ndays 1
";

#[test]
fn openssl_takes_the_staple_that_its_ca_has_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let made = Command::new("sh")
        .args(["-c", STAPLE, "sh", &path])
        .output()
        .expect("a shell");
    if !made.status.success() && Command::new("openssl").arg("version").output().is_err() {
        eprintln!("there is no openssl here, nothing is tested");
        return;
    }
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let edge = Edge::start(&format!(
        "hosts:
- hostname: shop.example
  tls: {{ cert_chain_file: {path}/chain.pem, private_key_file: {path}/key.pem, ocsp_staple_file: {path}/staple }}"
    ));
    let more = [
        ("ADDRESS", edge.rig.address.to_string()),
        ("CA", format!("{path}/ca.pem")),
    ];
    let options = "s_client -connect ADDRESS -servername shop.example -CAfile CA -status";
    let told = run("openssl", &words(options, &more)).expect("openssl is there");
    for part in [
        "OCSP Response Status: successful",
        "Cert Status: good",
        "Verify return code: 0 (ok)",
    ] {
        assert!(told.contains(part), "no `{part}` in\n{told}");
    }
}
