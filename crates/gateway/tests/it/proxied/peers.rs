//! The PROXY protocol with HAProxy and nginx on the other side.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use socket2::{Domain, Socket, Type};
use testkit::lab::{self, Unpacked};
use testkit::process::Process;
use testkit::raw::Raw;
use testkit::wait;

use super::*;

/// Longest wait for a peer to serve.
const SERVES_MAX: Duration = Duration::from_secs(60);

/// Who a client seems to be that comes from no proxy of ours.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

struct Peer {
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts a peer and waits until it listens.
    fn start(name: &str, mut command: Command, config: &str, address: SocketAddr) -> Peer {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config");
        let text = config.replace("FOLDER", &folder.path().display().to_string());
        fs::write(&file, text).expect("the folder takes files");
        command.arg(&file);
        let process = Process::start(name, command);
        wait::until(name, SERVES_MAX, || TcpStream::connect(address).ok());
        Peer {
            _process: process,
            _folder: folder,
        }
    }

    fn haproxy(packages: &Unpacked, config: &str, address: SocketAddr) -> Peer {
        let all = format!(
            "global\n  maxconn 100\ndefaults\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n{config}"
        );
        let mut command = packages.command("haproxy");
        command.args(["-db", "-f"]);
        Self::start("haproxy", command, &all, address)
    }

    fn nginx(packages: &Unpacked, config: &str, address: SocketAddr) -> Peer {
        let module = packages.file("usr/lib/nginx/modules/ngx_stream_module.so");
        let all = format!(
            "daemon off; master_process off; pid FOLDER/pid; load_module {};\nevents {{}}\n{config}\n",
            module.display()
        );
        let mut command = packages.command("nginx");
        command.args(["-e", "stderr", "-c"]);
        Self::start("nginx", command, &all, address)
    }
}

/// Asks through a proxy, as a client with an address of its own.
fn ask(proxy: SocketAddr) -> testkit::raw::Response {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own = SocketAddr::from((CLIENT, 0));
    socket.bind(&own.into()).expect("an address of loopback");
    socket.connect(&proxy.into()).expect("a proxy");
    let mut raw = Raw::of(TcpStream::from(socket));
    raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    raw.take_response()
}

/// Lets a gateway tell a service the client, and checks that the service understood.
#[track_caller]
fn tells(version: &str, service: SocketAddr) {
    let rig = Rig::start(&format!(
        "module: {{ use_proxy_proto: true }}\nroutes: [{{ prefix: /, service: '{service}', proxy_protocol: {version} }}]"
    ));
    for (line, expected) in [
        (TCP4, "192.0.2.7 4711"),
        (
            "PROXY TCP6 2001:db8::7 2001:db8::1 4712 80\r\n",
            "2001:db8::7 4712",
        ),
    ] {
        let mut client = rig.connect();
        client.send(line);
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            let answer = client.take_response();
            let seen = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!((answer.status, &*seen), (200, expected), "{version}");
        }
    }
}

/// Checks that a gateway behind this proxy knows the client.
#[track_caller]
fn is_told(proxy: SocketAddr, echo: &Echo) {
    for _ in 0..3 {
        let answer = ask(proxy);
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(seen_as(echo), json!([CLIENT.to_string()]));
    }
}

#[test]
fn haproxy_understands_and_is_understood() {
    let Some(packages) = lab::or_skip(lab::haproxy()) else {
        return;
    };
    let address = testkit::port::stable();
    let config = format!(
        "frontend f\n  mode http\n  bind {address} accept-proxy\n  http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port]\"\n"
    );
    let haproxy = Peer::haproxy(&packages, &config, address);
    tells("v1", address);
    tells("v2", address);
    drop(haproxy);
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"] {
        let (rig, echo) = rig("");
        let address = testkit::port::stable();
        let config = format!(
            "listen l\n  mode tcp\n  bind {address}\n  server s {} {version}\n",
            rig.address
        );
        let _haproxy = Peer::haproxy(&packages, &config, address);
        is_told(address, &echo);
    }
}

#[test]
fn nginx_understands_and_is_understood() {
    let Some(packages) = lab::or_skip(lab::nginx()) else {
        return;
    };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path FOLDER/{name};"))
        .concat();
    let address = testkit::port::stable();
    let config = format!(
        "http {{ access_log off; {temporary} server {{ listen {address} proxy_protocol; \
         location / {{ return 200 '$proxy_protocol_addr $proxy_protocol_port'; }} }} }}"
    );
    let nginx = Peer::nginx(&packages, &config, address);
    tells("v1", address);
    tells("v2", address);
    drop(nginx);
    let (rig, echo) = rig("");
    let address = testkit::port::stable();
    let config = format!(
        "stream {{ server {{ listen {address}; proxy_pass {}; proxy_protocol on; }} }}",
        rig.address
    );
    let _nginx = Peer::nginx(&packages, &config, address);
    is_told(address, &echo);
}
