//! `cargo xtask bench reload`: how soon a change of the configuration is live, what it costs, and whether anybody notices.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{
    contender,
    process::{Pinned, pinned},
};

/// The longest wait for a change to be live.
const LIVE_MAX: Duration = Duration::from_secs(30);

/// Between two looks whether a change is live.
const LOOK_EVERY: Duration = Duration::from_micros(500);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Numbers of Mappings to measure.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    mappings: Vec<usize>,

    /// Mappings in one file; 0 puts all in one.
    #[arg(long, value_delimiter = ',', default_value = "100,0")]
    in_file: Vec<usize>,

    /// Changes whose way is timed, one after the other.
    #[arg(long, default_value_t = 20)]
    changes: usize,

    /// Changes after which memory is looked at again.
    #[arg(long, default_value_t = 300)]
    memory_changes: usize,

    /// The core that the gateway has for itself.
    #[arg(long, default_value_t = 1)]
    gateway_core: usize,

    /// The core that clients and upstream share.
    #[arg(long, default_value_t = 0)]
    load_core: usize,

    /// Our program; built when nothing is said.
    #[arg(long)]
    nuncio: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has a parent")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let packages: &[&str] = match options.nuncio {
        None => &["load", "app"],
        Some(_) => &["load"],
    };
    let built = contender::build(root, &target, packages)?;
    let program = options
        .nuncio
        .clone()
        .unwrap_or_else(|| built.join("nuncio"));
    let folder = target.join("bench/reload");
    fs::create_dir_all(&folder)?;
    let load = built.join("load");
    let upstream_at = free_address()?;
    let mut command = pinned(options.load_core, &load);
    command.arg("upstream").arg(upstream_at.to_string());
    let log = folder.join("upstream.log");
    let mut upstream = Pinned::start("the upstream", command, &log)?;
    upstream.wait_for(upstream_at, &log)?;

    println!(
        "| Mappings | in a file | change to live, median ms | worst ms | CPU ms a change | p99 us, quiet | p99 us, changing | MiB at start | MiB after {} changes |",
        options.memory_changes
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for &mappings in &options.mappings {
        for &in_file in &options.in_file {
            let in_file = if in_file == 0 { mappings } else { in_file };
            let rig = Rig {
                options,
                program: &program,
                load: &load,
                upstream: upstream_at,
                config: folder.join("config"),
                folder: &folder,
                mappings,
                in_file,
            };
            println!("{}", rig.measure()?);
        }
    }
    Ok(())
}

struct Rig<'a> {
    options: &'a Options,
    program: &'a Path,
    load: &'a Path,
    upstream: SocketAddr,
    folder: &'a Path,
    config: PathBuf,
    mappings: usize,
    in_file: usize,
}

impl Rig<'_> {
    /// Returns a row of the table.
    fn measure(&self) -> anyhow::Result<String> {
        if self.config.exists() {
            fs::remove_dir_all(&self.config)?;
        }
        fs::create_dir_all(&self.config)?;
        for file in 0..self.mappings.div_ceil(self.in_file) {
            self.write(file, 0)?;
        }
        let listen = free_address()?;
        let mut command = pinned(self.options.gateway_core, self.program);
        command
            .arg("serve")
            .arg(&self.config)
            .args(["--role", "gateway"]);
        command.arg("--gateway").arg(listen.to_string());
        command.args(["--admin", "127.0.0.1:0"]);
        command.arg("--data").arg(self.folder.join("data"));
        command.args(["--log", "error", "--no-access-log"]);
        let log = self.folder.join("nuncio.log");
        let mut gateway = Pinned::start("nuncio", command, &log)?;
        gateway.wait_for(listen, &log)?;
        gateway.settle()?;
        let mut version = 1;
        // The first change fills what is kept from one to the next.
        self.change(listen, version)?;
        gateway.settle()?;
        let memory = gateway.memory_kib()?;

        let mut waits = Vec::new();
        let before = gateway.cpu()?;
        for _ in 0..self.options.changes {
            version += 1;
            waits.push(self.change(listen, version)?.as_secs_f64() * 1e3);
        }
        gateway.settle()?;
        let cpu = (gateway.cpu()? - before).as_secs_f64() * 1e3 / self.options.changes as f64;
        waits.sort_by(f64::total_cmp);

        let quiet = self.asked(listen, 3.0, || Ok(()))?;
        let changing = self.asked(listen, 3.0, || {
            version += 1;
            self.change(listen, version).map(drop)
        })?;
        for _ in 0..self.options.memory_changes {
            version += 1;
            self.change(listen, version)?;
        }
        gateway.settle()?;
        let memory_after = gateway.memory_kib()?;
        Ok(format!(
            "| {} | {} | {:.1} | {:.1} | {cpu:.1} | {quiet} | {changing} | {:.1} | {:.1} |",
            self.mappings,
            self.in_file,
            waits.get(waits.len() / 2).copied().unwrap_or(f64::NAN),
            waits.last().copied().unwrap_or(f64::NAN),
            memory as f64 / 1024.0,
            memory_after as f64 / 1024.0,
        ))
    }

    /// Writes a file with its share of the Mappings; the version is in an answer's header of the first file's first route.
    fn write(&self, file: usize, version: usize) -> anyhow::Result<()> {
        let mut text = String::new();
        for at in (file * self.in_file)..((file + 1) * self.in_file).min(self.mappings) {
            let said = if at == 0 { version } else { 0 };
            _ = write!(
                text,
                "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata:\n  name: m{at}\nspec:\n  \
                 hostname: \"*\"\n  prefix: /r{at}/\n  rewrite: \"\"\n  timeout_ms: 0\n  service: http://{}\n  \
                 add_response_headers: {{ x-version: {{ value: \"{said}\" }} }}\n",
                self.upstream
            );
        }
        // Renamed into its place, as editors and mounts do.
        let written = self.folder.join("written.yaml");
        fs::write(&written, text)?;
        fs::rename(&written, self.config.join(format!("{file:05}.yaml")))?;
        Ok(())
    }

    /// Makes a change and returns after how long it was live.
    fn change(&self, listen: SocketAddr, version: usize) -> anyhow::Result<Duration> {
        self.write(0, version)?;
        let began = Instant::now();
        let mut stream = TcpStream::connect(listen)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIVE_MAX))?;
        let expected = format!("x-version: {version}\r\n");
        while began.elapsed() < LIVE_MAX {
            if head(&mut stream)?.contains(&expected) {
                return Ok(began.elapsed());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("version {version} is not live after {LIVE_MAX:?}")
    }

    /// Puts load on the gateway, does something again and again meanwhile, and returns the load's 99th percentile.
    fn asked(
        &self,
        listen: SocketAddr,
        seconds: f64,
        mut meanwhile: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut command: Command = pinned(self.options.load_core, self.load);
        command.arg("run").arg(listen.to_string()).arg("/r1/small");
        command.args(["--connections", "16", "--seconds", &seconds.to_string()]);
        command.stdout(std::process::Stdio::piped());
        let mut asking = command.spawn().context("could not start the clients")?;
        let began = Instant::now();
        while began.elapsed().as_secs_f64() < seconds {
            meanwhile()?;
            if asking.try_wait()?.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = asking.wait_with_output()?;
        let seen: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(
            seen["failures"] == 0 && seen["requests"] != 0,
            "requests failed: {seen}"
        );
        seen["p99_us"].as_u64().context("no 99th percentile")
    }
}

/// Asks once over an open connection and returns the head of the answer.
fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    stream.write_all(b"GET /r0/small HTTP/1.1\r\nhost: bench.local\r\n\r\n")?;
    let mut read = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes)?;
        ensure!(count > 0, "closed before the answer");
        read.extend_from_slice(&bytes[..count]);
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&read[..end + 4]).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse::<usize>().ok())
            .context("the answer has no content-length")?;
        let mut left = (end + 4 + length).saturating_sub(read.len());
        while left > 0 {
            let count = stream.read(&mut bytes)?;
            ensure!(count > 0, "closed in the middle of the answer");
            left = left.saturating_sub(count);
        }
        return Ok(head);
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
