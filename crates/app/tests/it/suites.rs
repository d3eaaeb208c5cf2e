//! The suites that client libraries bring along to be run against a broker, run against a fresh `nuncio serve`.
//!
//! `NUNCIO_TEST_SUBJECT=apache-kafka` runs them against Apache Kafka instead: that tells whose fault a failure is. What is
//! known to fail stands in a list beside the suite, with its reason; a list that is longer or shorter than what
//! fails is an error.

mod librdkafka;
mod rust;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;

use testkit::apache::Apache;
use testkit::lab;
use testkit::nuncio::{Nuncio, Setup};

const APACHE_HEAP_MB: u32 = 512;

/// The broker that a suite runs against.
enum Subject {
    Nuncio(Box<Nuncio>),
    Apache(Box<Apache>),
}

impl Subject {
    fn start(config: &str) -> Option<Self> {
        match env::var("NUNCIO_TEST_SUBJECT") {
            Ok(name) => {
                assert_eq!(name, "apache-kafka", "NUNCIO_TEST_SUBJECT");
                let apache = lab::or_skip(Apache::start(APACHE_HEAP_MB))?;
                Some(Self::Apache(Box::new(apache)))
            }
            Err(_) => {
                let built = env!("CARGO_BIN_EXE_nuncio");
                let program = env::var("NUNCIO_TEST_BINARY").unwrap_or_else(|_| built.to_owned());
                let nuncio = Setup::new(program).file("nuncio.yaml", config).start();
                Some(Self::Nuncio(Box::new(nuncio)))
            }
        }
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Nuncio(nuncio) => nuncio.kafka().to_string(),
            Self::Apache(apache) => apache.address().to_string(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Nuncio(_) => "nuncio",
            Self::Apache(_) => "Apache Kafka",
        }
    }
}

/// Cases that fail, by the suite's name for them, and whether they do so each time.
struct Known<'l> {
    file: &'l str,
    cases: BTreeMap<&'l str, bool>,
}

impl<'l> Known<'l> {
    /// Reads a list: a case a line, `apache: passes`, `apache: fails` or, where it is a matter of time with ours too,
    /// `apache: sometimes`, and a reason, with `|` between them.
    fn read(file: &'l str, text: &'l str) -> Self {
        let lines = text.lines().map(str::trim);
        let entries = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let cases = entries.map(|line| {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            match parts[..] {
                [case, "apache: passes" | "apache: fails", reason] if !reason.is_empty() => {
                    (case, true)
                }
                [case, "apache: sometimes", reason] if !reason.is_empty() => (case, false),
                _ => panic!(
                    "{file}: not `case | apache: passes, fails or sometimes | reason`: {line}"
                ),
            }
        });
        Self {
            file,
            cases: cases.collect(),
        }
    }

    /// Panics when other cases have failed than those of the list.
    #[track_caller]
    fn check(&self, failed: &BTreeMap<String, String>) {
        let mut wrong = String::new();
        for (case, log) in failed {
            if !self.cases.contains_key(case.as_str()) {
                _ = writeln!(wrong, "---- {case} failed ----\n{log}");
            }
        }
        let failed: BTreeSet<&str> = failed.keys().map(String::as_str).collect();
        let always = self.cases.iter().filter(|(_, always)| **always);
        for case in always
            .map(|(case, _)| case)
            .filter(|case| !failed.contains(*case))
        {
            _ = writeln!(wrong, "{}: {case} does not fail any more", self.file);
        }
        assert!(wrong.is_empty(), "{wrong}");
    }
}
