//! librdkafka's own tests, those for a broker of one node: 0001 to 0060. `NUNCIO_TEST_SUITE=0033,0077` names others.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use testkit::lab;
use testkit::process::Process;

use super::{Known, Subject};

/// Longest time for one test; librdkafka's own limits are shorter.
const LIMIT: Duration = Duration::from_secs(400);
/// So many tests run side by side: they wait more than they work.
const LANES: usize = 3;
/// The last of the tests that run when nobody names others.
const LAST: u32 = 60;
/// Partitions of a topic that nobody made by hand.
const CONFIG: &str = "broker:\n  default_partitions: 4\n";
const KNOWN: &str = include_str!("librdkafka.txt");

#[test]
fn librdkafka_passes_its_own_tests() {
    let needed = lab::librdkafka().and_then(|sources| Ok((sources, lab::apache()?)));
    let Some((sources, class_path)) = lab::or_skip(needed) else {
        return;
    };
    let Some(subject) = Subject::start(CONFIG) else {
        return;
    };
    let folder = tempfile::tempdir().expect("the temporary folder takes folders");
    let bench = Bench {
        tests: sources.join("tests"),
        folder: folder.path(),
        bootstrap: subject.bootstrap(),
    };
    bench.prepare(&class_path);
    let mut cases = match env::var("NUNCIO_TEST_SUITE") {
        Ok(named) => named.split(',').map(str::to_owned).collect(),
        Err(_) => bench.cases(),
    };
    cases.reverse();
    let count = cases.len();
    let (left, failed) = (Mutex::new(cases), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let next = || left.lock().expect("no lane panics with the list").pop();
                while let Some(case) = next() {
                    if let Err(log) = bench.run(&case) {
                        let mut failed = failed.lock().expect("no lane panics with the list");
                        failed.insert(case, log);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no lane has panicked");
    lab::say(&format!(
        "librdkafka at {}: {count} of its tests run, {} failed",
        subject.name(),
        failed.len()
    ));
    Known::read("librdkafka.txt", KNOWN).check(&failed);
}

struct Bench<'b> {
    /// librdkafka's `tests/`.
    tests: PathBuf,
    folder: &'b Path,
    bootstrap: String,
}

impl Bench<'_> {
    /// Writes what the tests look for: where the broker is, and Kafka's tool for topics.
    fn prepare(&self, class_path: &str) {
        // A machine that others use too is slow.
        let conf = format!(
            "metadata.broker.list={}\ntest.timeout.multiplier=6\n",
            self.bootstrap
        );
        fs::write(self.folder.join("test.conf"), conf).expect("a new folder takes files");
        let tool = self.folder.join("bin/kafka-topics.sh");
        let script = format!(
            "#!/bin/sh\nexec java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '{class_path}' org.apache.kafka.tools.TopicCommand \"$@\"\n"
        );
        fs::create_dir(self.folder.join("bin")).expect("a new folder takes folders");
        fs::write(&tool, script).expect("a new folder takes files");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("our own file");
    }

    /// Returns the numbers of the tests that there are.
    fn cases(&self) -> Vec<String> {
        let files = fs::read_dir(&self.tests).expect("the sources are there");
        let names = files.map(|file| file.expect("a readable folder").file_name());
        let mut cases: Vec<String> = names
            .filter_map(|name| {
                let name = name.to_str()?;
                let number = name.split_once('-')?.0;
                let source = name.ends_with(".c") || name.ends_with(".cpp");
                let counts = (1..=LAST).contains(&number.parse().ok()?);
                (source && number.len() == 4 && counts).then(|| number.to_owned())
            })
            .collect();
        cases.sort();
        cases.dedup();
        cases
    }

    /// Runs one test.
    ///
    /// # Errors
    /// The last lines that it wrote, when it failed.
    fn run(&self, case: &str) -> Result<(), String> {
        let mut command = Command::new(self.tests.join("test-runner"));
        // Without tests that need no broker, that cut connections by preloading, or that are known to be broken.
        command
            .args(["-p1", "-L", "-E", "-K", "-V", "4.0.0"])
            .current_dir(&self.tests)
            .env("TESTS", case)
            .env("RDKAFKA_TEST_CONF", self.folder.join("test.conf"))
            .env("BROKERS", &self.bootstrap)
            .env("KAFKA_PATH", self.folder)
            .env("LD_LIBRARY_PATH", "../src:../src-cpp");
        let mut process = Process::start(case, command);
        match process.wait(LIMIT).success() {
            true => Ok(()),
            false => Err(process.log()),
        }
    }
}
