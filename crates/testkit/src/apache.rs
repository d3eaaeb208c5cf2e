//! Apache Kafka itself, one node, as the subject that behaviour is held against.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::lab::{self, Missing};
use crate::port;
use crate::process::Process;

/// Longest time from start to ready.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Name of a cluster, as its format wants it: 16 bytes in base64.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qk";

/// A running Apache Kafka. It is killed, and its data removed, when this is dropped.
pub struct Apache {
    class_path: String,
    heap_mb: u32,
    folder: TempDir,
    address: SocketAddr,
    secured: Option<SocketAddr>,
    process: Process,
    ready_after: Duration,
}

/// Users of an Apache Kafka that asks who a client is, and lets clients do what rules (ACLs) allow.
///
/// All have the same password, by PLAIN; SCRAM is for those who are made over the protocol.
pub struct Users<'a> {
    /// Their names; the first may do everything.
    pub names: &'a [&'a str],
    /// Their password.
    pub password: &'a str,
}

impl Apache {
    /// Installs it where it is not there, and starts it with fresh data.
    pub fn start(heap_mb: u32) -> Result<Self, Missing> {
        Self::start_for(heap_mb, None)
    }

    /// Does the same with one more listener that asks for users, and with the StandardAuthorizer. At the other listener
    /// everybody may do everything.
    pub fn start_secured(heap_mb: u32, users: &Users<'_>) -> Result<Self, Missing> {
        Self::start_for(heap_mb, Some(users))
    }

    fn start_for(heap_mb: u32, users: Option<&Users<'_>>) -> Result<Self, Missing> {
        let class_path = lab::apache()?;
        let folder = tempfile::Builder::new().prefix("apache-kafka-").tempdir();
        let folder = folder.expect("the temporary folder takes folders");
        let address = port::stable();
        let data = folder.path().join("data");
        let secured = users.map(|users| (port::stable(), users));
        let properties = properties(address, port::stable(), secured, &data);
        let secured = secured.map(|(address, _)| address);
        fs::write(folder.path().join("server.properties"), properties)
            .expect("a new folder takes files");
        fs::write(folder.path().join("log4j2.yaml"), LOGGING).expect("a new folder takes files");
        let mut format = java(&class_path, 128, folder.path());
        format.args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            CLUSTER,
        ]);
        let mut format = Process::start("storage tool", {
            format.args(["-c", "server.properties"]);
            format
        });
        let status = format.wait(READY_LIMIT);
        assert!(
            status.success(),
            "the data could not be formatted\n{}",
            format.log()
        );
        let begun = Instant::now();
        let process = launch(&class_path, heap_mb, folder.path());
        let ready_after = begun.elapsed();
        Ok(Self {
            class_path,
            heap_mb,
            folder,
            address,
            secured,
            process,
            ready_after,
        })
    }

    /// Returns where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where users connect, with SASL.
    pub fn secured_address(&self) -> SocketAddr {
        self.secured.expect("it was started for users")
    }

    /// Returns the id of its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns how long its last start took until it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Returns the class path of it and its tools.
    pub fn class_path(&self) -> &str {
        &self.class_path
    }

    /// Returns the folder that holds its partitions.
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Ends it as an operator would (SIGTERM), and waits for it.
    pub fn stop(&mut self) {
        self.process.terminate();
        self.process.wait(READY_LIMIT);
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data, and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.kill();
        let begun = Instant::now();
        self.process = launch(&self.class_path, self.heap_mb, self.folder.path());
        self.ready_after = begun.elapsed();
    }
}

/// Returns a `java` with a small heap; the main class and its arguments are still to be added.
pub fn java(class_path: &str, heap_mb: u32, folder: &Path) -> Command {
    let mut command = Command::new("java");
    command.args([format!("-Xmx{heap_mb}m"), format!("-Xms{heap_mb}m")]);
    // The serial collector is the light one; tests and a two-core machine gain nothing from the others.
    command.args([
        "-XX:+UseSerialGC",
        "-Dlog4j2.configurationFile=log4j2.yaml",
        "-cp",
        class_path,
    ]);
    command.current_dir(folder);
    command
}

#[track_caller]
fn launch(class_path: &str, heap_mb: u32, folder: &Path) -> Process {
    let mut command = java(class_path, heap_mb, folder);
    command.args(["kafka.Kafka", "server.properties"]);
    let mut process = Process::start("Apache Kafka", command);
    process.lines_until("it to start", READY_LIMIT, |line| {
        line.contains("Kafka Server started")
    });
    process
}

fn properties(
    clients: SocketAddr,
    controller: SocketAddr,
    secured: Option<(SocketAddr, &Users<'_>)>,
    data: &Path,
) -> String {
    let mut listeners = format!("PLAINTEXT://{clients},CONTROLLER://{controller}");
    let mut more = String::new();
    if let Some((address, users)) = secured {
        listeners += &format!(",SASL_PLAINTEXT://{address}");
        more = of_users(users);
    }
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers={controller}\n\
         listeners={listeners}\n\
         advertised.listeners={listeners}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
         log.dirs={data}\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         group.consumer.assignment.interval.ms=0\n\
         group.share.assignment.interval.ms=0\n\
         num.partitions=4\n{more}",
        data = data.display(),
    )
}

/// Returns what makes it ask users, and rules of what they may do. The brokers themselves come without a name.
fn of_users(users: &Users<'_>) -> String {
    let first = users.names.first().expect("somebody may do everything");
    let passwords: String = users
        .names
        .iter()
        .map(|name| format!(" user_{name}=\"{}\"", users.password))
        .collect();
    let mut out = format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:{first};User:ANONYMOUS\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl_plaintext.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required{passwords};\n"
    );
    for hash in ["256", "512"] {
        out += &format!(
            "listener.name.sasl_plaintext.scram-sha-{hash}.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
        );
    }
    out
}

const LOGGING: &str = "\
Configuration:
  status: warn
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: '%d %p %c %m%n'
  Loggers:
    Root:
      level: INFO
      AppenderRef:
        ref: STDOUT
";
