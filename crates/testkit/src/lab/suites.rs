//! Test suites that clients bring along for the brokers that they are to work with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Missing, install, need, run};

/// Whose package brings librdkafka's sources, tests and tools included.
const LIBRDKAFKA: &str = "rdkafka-sys@4.10.0+2.12.1";

const RUST_RDKAFKA: &str = "rdkafka@0.39.0";
const RSKAFKA: &str = "rskafka@0.6.0";

/// What rskafka's lock file names, 2.2.0, no longer compiles with a current Rust.
const RSASL: &str = "rsasl@2.2.0";

/// A Rust library's own sources, whose tests are compiled.
pub struct RustTests(PathBuf);

impl RustTests {
    /// Returns `cargo test` in the library.
    pub fn command(&self) -> Command {
        let mut command = Command::new("cargo");
        // Its own lock file, and a target folder that is not ours.
        command
            .args(["test", "--locked", "--tests", "--no-fail-fast"])
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            .current_dir(self.0.join("library"));
        command
    }
}

/// Returns `rdkafka`, librdkafka for Rust.
pub fn rust_rdkafka() -> Result<RustTests, Missing> {
    need("make")?;
    need("gcc")?;
    rust_tests(RUST_RDKAFKA, None)
}

/// Returns `rskafka`, whose own tests compare it with librdkafka and, where they are asked to, with Java.
pub fn rskafka() -> Result<RustTests, Missing> {
    need("make")?;
    need("gcc")?;
    rust_tests(RSKAFKA, Some(RSASL))
}

/// Installs a library with its tests compiled; `outdated` is a package that needs to be newer than the library's lock file says.
fn rust_tests(package: &str, outdated: Option<&str>) -> Result<RustTests, Missing> {
    let (name, _) = package.split_once('@').unwrap_or((package, ""));
    let folder = install(&format!("{name}-tests"), package, |folder| {
        sources(folder, package)?;
        fs::rename(folder.join("sources").join(name), folder.join("library"))?;
        fs::remove_dir_all(folder.join("sources"))?;
        // It may ask for a toolchain of its own; the machine's is the one to test.
        let toolchain = folder.join("library/rust-toolchain.toml");
        if toolchain.exists() {
            fs::remove_file(toolchain)?;
        }
        // A workspace of its own within the folders of ours.
        let manifest = folder.join("library/Cargo.toml");
        let text = fs::read_to_string(&manifest)?;
        fs::write(manifest, format!("[workspace]\n{text}"))?;
        if let Some(outdated) = outdated {
            let mut update = Command::new("cargo");
            update.args(["update", "--quiet", "--package", outdated]);
            run(update.current_dir(folder.join("library")))?;
        }
        let mut build = RustTests(folder.to_owned()).command();
        run(build.arg("--no-run"))
    })?;
    Ok(RustTests(folder))
}

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
