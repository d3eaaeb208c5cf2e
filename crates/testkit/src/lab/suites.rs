//! Test suites that clients bring along for the brokers that they are to work with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Missing, install, need, run};

/// Whose package brings librdkafka's sources, tests and tools included.
const LIBRDKAFKA: &str = "rdkafka-sys@4.10.0+2.12.1";

/// Returns librdkafka's sources with its test runner (`tests/test-runner`) and `examples/rdkafka_performance`, compiled.
pub fn librdkafka() -> Result<PathBuf, Missing> {
    for program in ["make", "gcc", "g++", "bash", "python3"] {
        need(program)?;
    }
    let folder = install("librdkafka", LIBRDKAFKA, |folder| {
        sources(folder, LIBRDKAFKA)?;
        let made = folder.join("librdkafka");
        fs::rename(folder.join("sources/rdkafka-sys/librdkafka"), &made)?;
        fs::remove_dir_all(folder.join("sources"))?;
        let step = |arguments: &[&str]| {
            let mut command = Command::new(arguments[0]);
            // The libraries are found by where they lie: nothing is installed.
            run(command.args(&arguments[1..]).current_dir(&made))
        };
        step(&["chmod", "-R", "u+x", "."])?;
        // Nothing that the machine may or may not have.
        step(&[
            "bash",
            "configure",
            "--disable-gssapi",
            "--disable-syslog",
            "--disable-curl",
        ])?;
        step(&["make", "-j2", "-C", "src"])?;
        step(&["make", "-j2", "-C", "src-cpp"])?;
        step(&["make", "-j2", "-C", "tests", "build"])?;
        step(&["make", "-C", "examples", "rdkafka_performance"])
    })?;
    Ok(folder.join("librdkafka"))
}

/// Fetches a package of the crates registry, and what it needs, into `sources/`.
fn sources(folder: &Path, package: &str) -> std::io::Result<()> {
    let (name, version) = package.split_once('@').unwrap_or((package, "*"));
    let manifest = format!(
        "[workspace]\n[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\n{name} = \"={version}\"\n"
    );
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("src/lib.rs"), "")?;
    run(Command::new("cargo")
        .args(["vendor", "--quiet", "sources"])
        .current_dir(folder))
}
