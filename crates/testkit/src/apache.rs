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
    process: Process,
    ready_after: Duration,
}

impl Apache {
    /// Installs it where it is not there, and starts it with fresh data.
    pub fn start(heap_mb: u32) -> Result<Self, Missing> {
        let class_path = lab::apache()?;
        let folder = tempfile::Builder::new().prefix("apache-kafka-").tempdir();
        let folder = folder.expect("the temporary folder takes folders");
        let address = port::stable();
        let properties = properties(address, port::stable(), &folder.path().join("data"));
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
            process,
            ready_after,
        })
    }

    /// Returns where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
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

fn properties(clients: SocketAddr, controller: SocketAddr, data: &Path) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers={controller}\n\
         listeners=PLAINTEXT://{clients},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{clients},CONTROLLER://{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
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
         num.partitions=4\n",
        data = data.display(),
    )
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
