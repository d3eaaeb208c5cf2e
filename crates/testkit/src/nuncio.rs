//! The built binary, serving in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::Process;
use crate::{port, raw, wait};

/// Longest time from start to ready; recovery after a kill is part of it.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest time from SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// What it serves when the test says nothing.
const CONFIG: &str = "routes: []\n";

/// What `nuncio serve` is started with.
pub struct Setup {
    binary: PathBuf,
    files: Vec<(String, String)>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stable: bool,
}

impl Setup {
    /// Starts from the binary: `Setup::new(env!("CARGO_BIN_EXE_nuncio"))`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            files: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            stable: false,
        }
    }

    /// Adds a configuration file; without any, an empty `nuncio.yaml` is served.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Adds an argument of `serve`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets an environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps its addresses over a restart, so that connected clients find it again.
    pub fn restartable(mut self) -> Self {
        self.stable = true;
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(mut self) -> Nuncio {
        let folder = match tempfile::Builder::new().prefix("nuncio-test-").tempdir() {
            Ok(folder) => folder,
            Err(error) => panic!("could not make a folder: {error}"),
        };
        if self.files.is_empty() {
            self.files
                .push(("nuncio.yaml".to_owned(), CONFIG.to_owned()));
        }
        let config = folder.path().join("config");
        fs::create_dir(&config).expect("a new folder takes folders");
        for (name, text) in &self.files {
            fs::write(config.join(name), text).expect("a new folder takes files");
        }
        let mut asked = Addresses::default();
        if self.stable {
            asked.gateway = Some(port::stable());
            asked.kafka = Some(port::stable());
            asked.admin = Some(port::stable());
        }
        let begun = Instant::now();
        let (process, addresses) = launch(&self, folder.path(), &asked);
        let ready_after = begun.elapsed();
        Nuncio {
            setup: self,
            folder,
            asked,
            addresses,
            process,
            ready_after,
        }
    }
}

/// A running `nuncio serve`. It is killed, and its data removed, when this is dropped.
pub struct Nuncio {
    setup: Setup,
    folder: TempDir,
    asked: Addresses,
    addresses: Addresses,
    process: Process,
    ready_after: Duration,
}

/// None: not served (with `--role`), or when asked for: any.
#[derive(Debug, Clone, Default)]
struct Addresses {
    gateway: Option<SocketAddr>,
    kafka: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Nuncio {
    /// Returns where HTTP is served.
    #[track_caller]
    pub fn gateway(&self) -> SocketAddr {
        self.addresses.gateway.expect("this role has a gateway")
    }

    /// Returns where Kafka's protocol is served.
    #[track_caller]
    pub fn kafka(&self) -> SocketAddr {
        self.addresses.kafka.expect("this role has a broker")
    }

    /// Returns where the admin API is served.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin.expect("every role has an admin port")
    }

    /// Returns the folder with its configuration files: writing there is a live change.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Returns its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns the id of its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns how long its last start took until it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Returns the last lines of its output.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it as an operator would (SIGTERM), and panics when it fails or lingers.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.terminate();
        let status = self.process.wait(STOP_LIMIT);
        assert!(
            status.success(),
            "stopped with {status}\n{}",
            self.process.log()
        );
    }

    /// Starts it again on the same data, and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.kill();
        let begun = Instant::now();
        let (process, addresses) = launch(&self.setup, self.folder.path(), &self.asked);
        self.ready_after = begun.elapsed();
        self.process = process;
        self.addresses = addresses;
    }
}

#[track_caller]
fn launch(setup: &Setup, folder: &Path, asked: &Addresses) -> (Process, Addresses) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut command = Command::new(&setup.binary);
    command
        .arg("serve")
        .arg(folder.join("config"))
        .arg("--data")
        .arg(folder.join("data"));
    for (option, address) in [
        ("--gateway", asked.gateway),
        ("--kafka", asked.kafka),
        ("--admin", asked.admin),
    ] {
        command.arg(option).arg(address.unwrap_or(any).to_string());
    }
    command.args(&setup.arguments);
    command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(folder);
    let mut process = Process::start("nuncio serve", command);

    let role = setup
        .arguments
        .iter()
        .skip_while(|argument| *argument != "--role")
        .nth(1);
    let role = role.map_or("all", String::as_str);
    let mut addresses = Addresses::default();
    process.lines_until("its addresses", READY_LIMIT, |line| {
        let (name, address) = line.trim().split_once(' ').unwrap_or_default();
        let address = address
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .ok();
        match name {
            "gateway" => addresses.gateway = address.or(addresses.gateway),
            "kafka" => addresses.kafka = address.or(addresses.kafka),
            "admin" => addresses.admin = address.or(addresses.admin),
            _ => (),
        }
        addresses.admin.is_some()
            && (addresses.gateway.is_some() || role == "broker")
            && (addresses.kafka.is_some() || role == "gateway")
    });
    let admin = addresses.admin.expect("it was waited for");
    let request = format!("GET /ambassador/v0/check_ready HTTP/1.1\nhost: {admin}");
    wait::until("nuncio to be ready", READY_LIMIT, || {
        (raw::http(admin, &request, "").status == 200).then_some(())
    });
    (process, addresses)
}
