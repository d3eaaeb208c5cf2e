//! `cargo xtask fuzz`: random bytes against one of the targets in `fuzz/`, led by the code that they reach.
//!
//! It is libFuzzer on the stable compiler: the coverage comes from LLVM, and as there is no `unsafe` here, no sanitizer is
//! needed. `cargo xtask test` runs the same functions for a short time without coverage (`testkit::mutate`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// What `cargo xtask fuzz` wants to know.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to fuzz.
    #[arg(value_parser = [
        "batches", "configuration", "frames", "messages", "paths", "routes", "sasl", "states",
    ])]
    target: String,

    /// How long.
    #[arg(long, default_value_t = 60)]
    minutes: u64,

    /// Longest input in bytes.
    #[arg(long, default_value_t = 4096)]
    input_bytes_max: usize,

    /// An input that takes longer, in seconds of the clock, is a finding: more than the usual on a machine that others use too.
    #[arg(long, default_value_t = 10)]
    seconds_max: u64,
}

/// Tells LLVM to count which code runs and what is compared, as libFuzzer wants it.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// An input that makes one target ask for more memory at once, or all in all, is a finding.
const MEMORY_MIB_MAX: [&str; 2] = ["-malloc_limit_mb=256", "-rss_limit_mb=2048"];

/// Builds and runs one target; new inputs that reach more are kept in `fuzz/found/TARGET`, findings in `fuzz/artifacts/TARGET`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let folder = parent.expect("xtask lies in the workspace").join("fuzz");
    let host = host()?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args([
            "build",
            "--release",
            "--bin",
            &options.target,
            "--target",
            &host,
        ])
        .env("RUSTFLAGS", COVERAGE)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .current_dir(&folder);
    succeed("build the target", build)?;

    let found = folder.join("found").join(&options.target);
    let artifacts = folder.join("artifacts").join(&options.target);
    for folder in [&found, &artifacts] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
    }
    let program = folder
        .join("target")
        .join(host)
        .join("release")
        .join(&options.target);
    let mut fuzz = Command::new(program);
    fuzz.arg(format!("-max_total_time={}", options.minutes * 60))
        .arg(format!("-max_len={}", options.input_bytes_max))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(MEMORY_MIB_MAX)
        .arg(format!("-timeout={}", options.seconds_max))
        .arg("-print_final_stats=1")
        .arg(&found);
    let corpus = folder.join("corpus").join(&options.target);
    if corpus.is_dir() {
        fuzz.arg(corpus);
    }
    succeed("fuzz", fuzz)
}

/// Returns the triple of this machine: flags for a named target leave build scripts alone.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.context("could not start rustc")?.stdout;
    let text = String::from_utf8_lossy(&output);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not say its host")?.to_owned())
}

fn succeed(what: &str, mut command: Command) -> anyhow::Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("could not {what}: {command:?}"))?;
    if !status.success() {
        bail!("could not {what}: {status}");
    }
    Ok(())
}
