//! Real Kafka clients (and Apache Kafka itself) and other proxies, installed from their registries into `target/lab/`.
//!
//! Versions are pinned here. An installation is made once, under a lock, and kept between runs; another
//! recipe makes a new one. `NUNCIO_LAB` names another folder. Where something is missing on the machine, a
//! test says so and passes; with `CI=true` it fails, so that nothing goes untested in silence:
//!
//! ```no_run
//! # use testkit::lab;
//! let Some(python) = lab::or_skip(lab::python()) else { return };
//! ```

mod suites;

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use self::suites::{RustTests, librdkafka, rskafka, rust_rdkafka};

/// Longest time for one step of an installation.
const STEP_LIMIT: Duration = Duration::from_secs(600);

/// What the Python clients are installed from. The last three are codecs that the last two look for.
const PYTHON: &[&str] = &[
    "confluent-kafka==2.16.1",
    "kafka-python==3.0.12",
    "aiokafka==0.14.0",
    "lz4==4.4.5",
    "python-snappy==0.7.3",
    "zstandard==0.25.0",
];
/// An old librdkafka, as Debian 12 has it.
const OLD_CONFLUENT: &[&str] = &["confluent-kafka==2.0.2"];
/// What Prometheus' own parsers are installed from.
const SCRAPER: &[&str] = &["prometheus-client==0.26.0"];
/// What the Go clients are installed from, each with the file of its script.
const FRANZ_GO: &[&str] = &[
    "github.com/twmb/franz-go@v1.22.2",
    "github.com/twmb/franz-go/pkg/kadm@v1.19.0",
];
const SARAMA: &[&str] = &["github.com/IBM/sarama@v1.61.1"];
const KAFKA_GO: &[&str] = &["github.com/segmentio/kafka-go@v0.4.51"];
/// Let's Encrypt's authority for tests, and what it asks for addresses.
const PEBBLE: &[&str] = &[
    "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.8.0",
    "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv@v2.8.0",
];
/// What the Node.js client is installed from.
const NODE: &[&str] = &["kafkajs@2.2.4"];
/// What the Java client is installed from. Jackson is there for the test's own script.
const JAVA: &[&str] = &[
    "org.apache.kafka:kafka-clients:4.3.1",
    "com.fasterxml.jackson.core:jackson-databind:2.21.2",
    "org.slf4j:slf4j-nop:1.7.36",
];
/// What Kafka Streams is installed from; RocksDB and Jackson come with it.
const STREAMS: &[&str] = &[
    "org.apache.kafka:kafka-streams:4.3.1",
    "org.slf4j:slf4j-simple:1.7.36",
];
/// What a broker is installed from: Apache Kafka publishes no archive to Maven, but all its parts.
const APACHE: &[&str] = &[
    "org.apache.kafka:kafka_2.13:4.3.1",
    "org.apache.kafka:kafka-tools:4.3.1",
    "org.apache.logging.log4j:log4j-core:2.25.3",
    "org.apache.logging.log4j:log4j-api:2.25.3",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
    "org.apache.logging.log4j:log4j-1.2-api:2.25.3",
];

/// What HAProxy is unpacked from: itself and the libraries that Debian installs with nothing else.
const HAPROXY: &[&str] = &[
    "haproxy",
    "liblua5.3-0",
    "libopentracing-c-wrapper0",
    "libopentracing1",
];
/// What nginx is unpacked from.
const NGINX: &[&str] = &["nginx", "libnginx-mod-stream"];

/// Why something cannot be had on this machine, in a sentence.
#[derive(Debug)]
pub struct Missing(String);

/// Returns what was found; otherwise says `skipped: why`, or fails the test where `CI=true`.
#[track_caller]
pub fn or_skip<T>(found: Result<T, Missing>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(Missing(why)) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("nothing may be skipped with CI=true: {why}")
        }
        Err(Missing(why)) => {
            say(&format!("skipped: {why}"));
            None
        }
    }
}

/// Prints a line that the test runner does not swallow, such as which client ran.
pub fn say(line: &str) {
    // Whoever closed our stderr does not read it.
    _ = writeln!(io::stderr(), "{line}");
}

/// Returns a Python interpreter that has `confluent_kafka`, `kafka` (kafka-python) and `aiokafka`.
pub fn python() -> Result<PathBuf, Missing> {
    pip("python", PYTHON)
}

/// Returns a Python interpreter that has an old `confluent_kafka`.
pub fn old_confluent() -> Result<PathBuf, Missing> {
    pip("old-confluent", OLD_CONFLUENT)
}

/// Returns a Python interpreter that has `prometheus_client`.
pub fn scraper() -> Result<PathBuf, Missing> {
    pip("scraper", SCRAPER)
}

fn pip(name: &str, packages: &[&str]) -> Result<PathBuf, Missing> {
    let folder = install(name, &packages.join(" "), |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let pip = folder.join("bin/pip");
        run(Command::new(pip)
            .args(["install", "--only-binary", ":all:"])
            .args(packages))
    })?;
    Ok(folder.join("bin/python"))
}

/// Returns a `node_modules` folder that has `kafkajs`, for `NODE_PATH`.
pub fn node() -> Result<PathBuf, Missing> {
    need("node")?;
    let folder = install("node", &NODE.join(" "), |folder| {
        fs::write(folder.join("package.json"), "{ \"private\": true }\n")?;
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund"])
            .args(NODE)
            .current_dir(folder))
    })?;
    Ok(folder.join("node_modules"))
}

/// Returns `franz-go` under a test's own script, compiled.
pub fn franz_go(sources: &[&Path]) -> Result<PathBuf, Missing> {
    go("franz-go", sources, FRANZ_GO)
}

/// Returns `sarama` under a test's own script, compiled.
pub fn sarama(sources: &[&Path]) -> Result<PathBuf, Missing> {
    go("sarama", sources, SARAMA)
}

/// Returns `kafka-go` under a test's own script, compiled.
pub fn kafka_go(sources: &[&Path]) -> Result<PathBuf, Missing> {
    go("kafka-go", sources, KAFKA_GO)
}

/// Returns a folder with `pebble` and `pebble-challtestsrv`.
pub fn pebble() -> Result<PathBuf, Missing> {
    need("go")?;
    install("pebble", &PEBBLE.join(" "), |folder| {
        run(Command::new("go")
            .arg("install")
            .args(PEBBLE)
            .env("GOBIN", folder))
    })
}

/// Compiles Go files with the modules that they need.
fn go(name: &str, sources: &[&Path], modules: &[&str]) -> Result<PathBuf, Missing> {
    need("go")?;
    let mut hash = DefaultHasher::new();
    for source in sources {
        let text = fs::read_to_string(source).map_err(|error| missing(source.display(), &error))?;
        text.hash(&mut hash);
    }
    let recipe = format!("{} {:x}", modules.join(" "), hash.finish());
    let folder = install(name, &recipe, |folder| {
        for source in sources {
            let file = source.file_name().unwrap_or_default();
            fs::copy(source, folder.join(file))?;
        }
        let go = || {
            let mut go = Command::new("go");
            go.current_dir(folder).env("GOFLAGS", "-mod=mod");
            go
        };
        run(go().args(["mod", "init", "lab"]))?;
        run(go().arg("get").args(modules))?;
        run(go().args(["build", "-o", "client", "."]))
    })?;
    Ok(folder.join("client"))
}

/// Returns the class path of the Java client.
pub fn java() -> Result<String, Missing> {
    maven("java", JAVA)
}

/// Returns the class path of Kafka Streams.
pub fn streams() -> Result<String, Missing> {
    maven("streams", STREAMS)
}

/// Returns the class path of a whole Apache Kafka with its tools.
pub fn apache() -> Result<String, Missing> {
    maven("apache-kafka", APACHE)
}

/// Compiles one Java file against a class path, and returns the class path with the result in front.
pub fn javac(source: &Path, class_path: &str) -> Result<String, Missing> {
    need("javac")?;
    let text = fs::read_to_string(source).map_err(|error| missing(source.display(), &error))?;
    let mut hash = DefaultHasher::new();
    (text, class_path).hash(&mut hash);
    let name = source.file_stem().unwrap_or_default().to_string_lossy();
    let folder = install(
        &format!("classes-{name}"),
        &format!("{:x}", hash.finish()),
        |folder| {
            run(Command::new("javac")
                .args(["-cp", class_path, "-d"])
                .arg(folder)
                .arg(source))
        },
    )?;
    Ok(format!("{}:{class_path}", folder.display()))
}

/// Returns the `kcat` program; as root on Debian it is installed when it is not there.
pub fn kcat() -> Result<PathBuf, Missing> {
    if let Ok(found) = need("kcat") {
        return Ok(found);
    }
    install("kcat", "kcat", |_| {
        let apt = || {
            let mut apt = Command::new("apt-get");
            apt.env("DEBIAN_FRONTEND", "noninteractive");
            apt
        };
        run(apt().arg("update"))?;
        run(apt().args(["install", "-y", "--no-install-recommends", "kcat"]))
    })?;
    need("kcat")
}

/// Debian packages, unpacked into a folder: nothing of them runs by itself, and the machine does not have them.
pub struct Unpacked(PathBuf);

impl Unpacked {
    /// Returns a command for one of their programs.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.0.join("usr/sbin").join(program));
        let libraries = fs::read_dir(self.0.join("usr/lib")).into_iter().flatten();
        let libraries: Vec<PathBuf> = libraries.flatten().map(|entry| entry.path()).collect();
        command.env(
            "LD_LIBRARY_PATH",
            std::env::join_paths(libraries).unwrap_or_default(),
        );
        command
    }

    /// Returns one of their files.
    pub fn file(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

/// Returns HAProxy.
pub fn haproxy() -> Result<Unpacked, Missing> {
    debian("haproxy", HAPROXY)
}

/// Returns nginx with its module for plain TCP.
pub fn nginx() -> Result<Unpacked, Missing> {
    debian("nginx", NGINX)
}

fn debian(name: &str, packages: &[&str]) -> Result<Unpacked, Missing> {
    need("apt-get")?;
    let folder = install(name, &packages.join(" "), |folder| {
        let download = || {
            run(Command::new("apt-get")
                .arg("download")
                .args(packages)
                .current_dir(folder))
        };
        // Without lists of packages, or with old ones, they must be fetched first; only root may.
        if download().is_err() {
            run(Command::new("apt-get").arg("update"))?;
            download()?;
        }
        for entry in fs::read_dir(folder)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
            }
        }
        Ok(())
    })?;
    Ok(Unpacked(folder))
}

/// Returns where a program is.
pub fn need(program: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Missing(format!("`{program}` is not installed")))
}

fn maven(name: &str, artifacts: &[&str]) -> Result<String, Missing> {
    need("java")?;
    let folder = install(name, &artifacts.join(" "), |folder| {
        fs::write(folder.join("pom.xml"), pom(artifacts))?;
        let goal = "dependency:copy-dependencies";
        run(Command::new("mvn")
            .args([
                "-q",
                "-B",
                "-ntp",
                goal,
                "-DincludeScope=runtime",
                "-DoutputDirectory=lib",
            ])
            .current_dir(folder))
    })?;
    Ok(format!("{}/lib/*", folder.display()))
}

fn pom(artifacts: &[&str]) -> String {
    let mut pom = String::from(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n<modelVersion>4.0.0</modelVersion>\n\
         <groupId>lab</groupId><artifactId>lab</artifactId><version>1</version>\n<dependencies>\n",
    );
    for artifact in artifacts {
        let mut parts = artifact.split(':');
        for tag in ["groupId", "artifactId", "version"] {
            let part = parts.next().unwrap_or_default();
            let open = if tag == "groupId" { "<dependency>" } else { "" };
            let close = if tag == "version" {
                "</dependency>\n"
            } else {
                ""
            };
            pom.push_str(&format!("{open}<{tag}>{part}</{tag}>{close}"));
        }
    }
    pom + "</dependencies>\n</project>\n"
}

/// Makes `root/name` with `work` unless the same recipe made it before.
fn install(
    name: &str,
    recipe: &str,
    work: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<PathBuf, Missing> {
    let root = root();
    let folder = root.join(name);
    let stamp = folder.join(".recipe");
    let done = |_: &()| fs::read_to_string(&stamp).is_ok_and(|made| made == recipe);
    let locked = || -> io::Result<File> {
        fs::create_dir_all(&root)?;
        let lock = File::create(root.join(format!("{name}.lock")))?;
        lock.lock()?;
        Ok(lock)
    };
    // Tests run side by side, and so do test binaries: one of them installs, the others wait.
    let _lock = locked().map_err(|error| missing(root.display(), &error))?;
    if done(&()) {
        return Ok(folder);
    }
    say(&format!("installing {name}: {recipe}"));
    let made = || -> io::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        work(&folder)?;
        fs::write(&stamp, recipe)
    };
    made().map_err(|error| missing(name, &error))?;
    Ok(folder)
}

fn missing(what: impl std::fmt::Display, error: &io::Error) -> Missing {
    Missing(format!("{what} cannot be installed: {error}"))
}

/// Runs one step; its output goes into the error when it fails.
fn run(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log = tempfile::NamedTempFile::new()?;
    command
        .stdin(Stdio::null())
        .stdout(log.reopen()?)
        .stderr(log.reopen()?);
    let mut child = command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("`{program}`: {error}")))?;
    let end = Instant::now() + STEP_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!(
                "`{program}` took more than {STEP_LIMIT:?}"
            )));
        }
        thread::sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(());
    }
    let output = fs::read(log.path())?;
    let output = String::from_utf8_lossy(&output);
    let start = output.len().saturating_sub(2000);
    let start = (start..output.len())
        .find(|at| output.is_char_boundary(*at))
        .unwrap_or(0);
    Err(io::Error::other(format!(
        "`{program}` failed ({status}): {}",
        &output[start..]
    )))
}

/// Returns the folder of all installations: beside the build's own output, so that `cargo clean` takes it too.
fn root() -> PathBuf {
    if let Some(root) = std::env::var_os("NUNCIO_LAB") {
        return root.into();
    }
    let program = std::env::current_exe().unwrap_or_default();
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    match target {
        Some(target) => target.join("lab"),
        None => std::env::temp_dir().join("nuncio-lab"),
    }
}
