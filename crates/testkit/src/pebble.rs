//! Pebble, the authority that Let's Encrypt tests ACME clients with. It validates for real, at the ports that it is told;
//! names it looks up at a server that knows all of them as 127.0.0.1.

mod front;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

pub use self::front::{Front, Manners};
use crate::lab::{self, Missing};
use crate::process::Process;
use crate::tls::{Ca, Client};
use crate::{port, raw};

/// Longest time from start to ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What a Pebble is like.
pub struct Setup {
    /// Where it looks for HTTP-01.
    pub http: u16,
    /// Where it looks for TLS-ALPN-01.
    pub tls: u16,
    /// How long its certificates count.
    pub validity: Duration,
    /// Of a hundred nonces so many are refused.
    pub nonces_refused: u8,
    /// Accounts need this key of an external account: its name, and its value in base64url.
    pub external: Option<(&'static str, &'static str)>,
}

/// A running Pebble. It is killed when this is dropped, and it forgets everything when it is stopped.
pub struct Pebble {
    programs: PathBuf,
    folder: TempDir,
    ca: Ca,
    setup: Setup,
    address: SocketAddr,
    management: SocketAddr,
    names: SocketAddr,
    running: Vec<Process>,
}

impl Pebble {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be had on this machine.
    #[track_caller]
    pub fn start(setup: Setup) -> Result<Self, Missing> {
        let programs = lab::pebble()?;
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new();
        let identity = ca.sign("127.0.0.1");
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).expect("a new folder takes files");
            file
        };
        let (address, management) = (port::stable(), port::stable());
        let validity = setup.validity.as_secs();
        let config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": write("cert.pem", &identity.chain),
            "privateKey": write("key.pem", &identity.key),
            "httpPort": setup.http,
            "tlsPort": setup.tls,
            "externalAccountBindingRequired": setup.external.is_some(),
            "externalAccountMACKeys": setup.external.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
            "domainBlocklist": ["blocked.test"],
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": { "description": "the only one", "validityPeriod": validity } },
        } });
        write("config.json", &config.to_string());
        write("ca.pem", &ca.pem());
        let mut pebble = Pebble {
            programs,
            folder,
            ca,
            setup,
            address,
            management,
            names: port::stable(),
            running: Vec::new(),
        };
        pebble.resume();
        Ok(pebble)
    }

    /// Returns the address of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the CA of its own address, and the file that it is in.
    pub fn own_ca(&self) -> (&Ca, PathBuf) {
        (&self.ca, self.folder.path().join("ca.pem"))
    }

    /// Returns a client that trusts what it issues.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::trusting(&self.root())
    }

    /// Returns the root of what it issues, as PEM.
    #[track_caller]
    pub fn root(&self) -> String {
        let connected = Client::new(&self.ca).connect(self.management, "127.0.0.1");
        let mut raw = connected.expect("Pebble's management answers");
        let head = format!("GET /roots/0 HTTP/1.1\r\nhost: {}", self.management);
        let root = raw::ask(&mut raw, &head, "");
        String::from_utf8(root.body).expect("PEM")
    }

    /// Stops it; it forgets its accounts, orders and root.
    pub fn stop(&mut self) {
        self.running.clear();
    }

    /// Starts it again.
    #[track_caller]
    pub fn resume(&mut self) {
        let program = |name: &str| {
            let mut command = Command::new(self.programs.join(name));
            command.current_dir(self.folder.path());
            command
        };
        let mut names = program("pebble-challtestsrv");
        // All that it does here is to answer DNS: nobody else answers challenges.
        let off = ["-http01", "", "-https01", "", "-doh", "", "-tlsalpn01", ""];
        names
            .args(off)
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01"])
            .arg(self.names.to_string())
            .args(["-management", "127.0.0.1:0"]);
        let mut pebble = program("pebble");
        pebble
            .args(["-strict", "-config", "config.json", "-dnsserver"])
            .arg(self.names.to_string())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env(
                "PEBBLE_WFE_NONCEREJECT",
                self.setup.nonces_refused.to_string(),
            );
        let names = Process::start("pebble-challtestsrv", names);
        let mut pebble = Process::start("pebble", pebble);
        pebble.lines_until("ready", READY_LIMIT, |line| line.contains("Listening on"));
        self.running = vec![names, pebble];
        let end = std::time::Instant::now() + READY_LIMIT;
        for address in [self.address, self.management] {
            while std::net::TcpStream::connect(address).is_err() {
                assert!(std::time::Instant::now() < end, "{}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Returns the last lines of its output.
    pub fn log(&self) -> String {
        self.running.iter().map(Process::log).collect()
    }
}

impl Setup {
    /// Returns what most tests need: certificates for 90 days, and as many refused nonces as Pebble has by itself.
    pub fn new(http: SocketAddr, tls: SocketAddr) -> Self {
        Setup {
            http: http.port(),
            tls: tls.port(),
            validity: Duration::from_secs(90 * 24 * 3600),
            nonces_refused: 5,
            external: None,
        }
    }
}

/// Returns the file of a certificate that was ordered, in the data folder of a Nuncio.
pub fn file(data: &Path, directory: &str, name: &str) -> PathBuf {
    let authority = directory.trim_start_matches("https://");
    let authority = authority.replace([':', '/'], "_");
    data.join("acme")
        .join(authority)
        .join(format!("{name}.pem"))
}
