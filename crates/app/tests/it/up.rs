//! `nuncio up` on folders with small services of shell and Python.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;
use testkit::process::Process;
use testkit::{raw, wait};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Tells its process id and what it was told, and answers every request with 200.
const WEB: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.getpid()} {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
print("process", os.getpid(), flush=True)
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"#;

const CONFIG: &str = "
services:
  web: { run: exec python3 web.py, health: / }
routes:
  - { prefix: /web/, service: web }
";

/// A folder with a configuration and the web service.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new(config: &str) -> Folder {
        let folder = tempfile::tempdir().expect("a folder of our own");
        let made = Folder { folder };
        made.write("nuncio.yaml", config);
        made.write("web.py", WEB);
        made
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("the folder is ours");
    }

    /// Writes the smoke test.
    fn smoke(self, script: &str) -> Folder {
        self.write("smoke", script);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.folder.path().join("smoke"), mode).expect("it was just written");
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nuncio"));
        command.arg("up").arg(self.folder.path()).args(arguments);
        for door in ["--gateway", "--kafka", "--admin"] {
            command.args([door, "127.0.0.1:0"]);
        }
        command.arg("--data").arg(self.folder.path().join("data"));
        command
    }

    fn up(&self, arguments: &[&str]) -> Process {
        Process::start("nuncio up", self.command(arguments))
    }

    /// Runs `up --ci` to its end.
    fn ci(&self) -> (ExitStatus, String) {
        let mut up = self.up(&["--ci"]);
        let status = up.wait(LIMIT);
        (status, up.last_lines().join("\n"))
    }
}

/// Waits for the table; returns the gateway and the id of the web service's process.
fn ready(up: &mut Process) -> (SocketAddr, String) {
    let lines = up.lines_until("the table", LIMIT, |line| line.contains("Ctrl-C stops"));
    let after = |start: &str| {
        let found = lines.iter().find_map(|line| line.split_once(start));
        found
            .unwrap_or_else(|| panic!("no `{start}` in {lines:#?}"))
            .1
            .to_owned()
    };
    let gateway = after("gateway  http://")
        .parse()
        .expect("an address is shown");
    (gateway, after("| process "))
}

fn runs(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_service_is_served_and_ends_with_us() {
    let folder = Folder::new(CONFIG);
    let mut up = folder.up(&[]);
    let (gateway, process) = ready(&mut up);
    let answer = raw::http(gateway, "GET /web/here HTTP/1.1\nhost: shop", "");
    assert_eq!(answer.status, 200);
    assert_eq!(
        String::from_utf8_lossy(&answer.body),
        format!("{process} /here")
    );

    up.terminate();
    assert!(up.wait(LIMIT).success());
    assert!(!runs(&process));
    let last = up.last_lines().join("\n");
    assert!(last.contains("web * stopped"), "{last}");
}

#[test]
fn nothing_survives_when_we_are_killed() {
    let folder = Folder::new(CONFIG);
    let mut up = folder.up(&[]);
    let (_, process) = ready(&mut up);
    assert!(runs(&process));
    up.kill();
    wait::until("the end of the service", LIMIT, || {
        (!runs(&process)).then_some(())
    });
}

#[test]
fn the_exit_status_is_that_of_the_smoke_test() {
    let folder = Folder::new(CONFIG)
        .smoke("#!/bin/sh\necho \"asks $NUNCIO_GATEWAY_URL in ${PWD##*/}\"\nexit 7\n");
    let (status, said) = folder.ci();
    assert_eq!(status.code(), Some(7), "{said}");
    assert!(said.contains("asks http://127.0.0.1:"), "{said}");

    let (status, said) = folder.smoke("#!/bin/sh\nexit 0\n").ci();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("smoke test: passed"), "{said}");
}

#[test]
fn without_a_smoke_test_health_is_success() {
    let (status, said) = Folder::new(CONFIG).ci();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("there is no program `smoke`"), "{said}");
}

#[test]
fn what_is_not_healthy_is_named_and_fails_ci() {
    let config = CONFIG.replace(
        "routes:",
        "  lost: { run: no-such-runtime app.js }\nroutes:",
    );
    let folder = Folder::new(&config).smoke("#!/bin/sh\ntouch ran\n");
    let (status, said) = folder.ci();
    assert_eq!(status.code(), Some(1), "{said}");
    let reason =
        "lost is failed (needs `no-such-runtime`, which is not installed or not on the PATH)";
    assert!(
        said.contains(&format!("not all is healthy: {reason}")),
        "{said}"
    );
    assert!(said.contains("web  * healthy"), "the rest runs: {said}");
    assert!(
        !folder.folder.path().join("ran").exists(),
        "there is nothing to test yet"
    );
}

#[test]
fn what_is_not_healthy_in_time_fails_ci() {
    let folder = Folder::new("services: { deaf: { run: exec sleep 600 } }\n");
    let mut up = folder.up(&["--ci", "--timeout", "1s"]);
    let status = up.wait(LIMIT);
    let said = up.last_lines().join("\n");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("not all is healthy: deaf is starting (does not listen on"),
        "{said}"
    );
}

#[test]
fn routes_are_reloaded_and_changed_services_are_told() {
    let folder = Folder::new(CONFIG);
    let mut up = folder.up(&[]);
    let (gateway, process) = ready(&mut up);
    let ask = || raw::http(gateway, "GET /new/here HTTP/1.1\nhost: shop", "").status;
    assert_eq!(ask(), 404);
    folder.write(
        "nuncio.yaml",
        &CONFIG
            .replace("/web/", "/new/")
            .replace("health: /", "health: /x"),
    );
    wait::until("the new route", LIMIT, || (ask() == 200).then_some(()));
    wait::until("the word about the services", LIMIT, || {
        up.log()
            .contains("the declared services have changed")
            .then_some(())
    });
    assert!(runs(&process));
}

#[test]
fn a_folder_without_a_configuration_is_told() {
    let folder = tempfile::tempdir().expect("a folder of our own");
    let output = Command::new(env!("CARGO_BIN_EXE_nuncio"))
        .arg("up")
        .arg(folder.path())
        .output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no `nuncio.yaml` in `"), "{said}");
}

#[test]
fn a_taken_port_is_told_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let folder = Folder::new(CONFIG);
    let mut command = Command::new(env!("CARGO_BIN_EXE_nuncio"));
    command
        .arg("up")
        .arg(folder.folder.path())
        .args(["--gateway", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0", "--kafka", &address]);
    command.arg("--data").arg(folder.folder.path().join("data"));
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(&address) && said.contains("--kafka names another address"),
        "{said}"
    );
}
