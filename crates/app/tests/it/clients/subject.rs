//! The broker under test.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use testkit::apache::Apache;
use testkit::lab;
use testkit::nuncio::{Nuncio, Setup};

const APACHE_HEAP_MB: u32 = 512;

/// Ours unless the environment names another one.
pub(super) enum Subject {
    Nuncio(Box<Nuncio>),
    Apache(Box<Apache>),
    Other(String),
}

impl Subject {
    #[track_caller]
    pub(super) fn start() -> Self {
        match env::var("NUNCIO_TEST_BOOTSTRAP") {
            Ok(bootstrap) => Self::Other(bootstrap),
            Err(_) => Self::Nuncio(Box::new(setup().start())),
        }
    }

    /// Starts a broker that keeps its address when it is killed and started again.
    #[track_caller]
    pub(super) fn start_restartable() -> Option<Self> {
        match env::var("NUNCIO_TEST_SUBJECT") {
            Ok(name) => {
                assert_eq!(name, "apache-kafka", "NUNCIO_TEST_SUBJECT");
                let apache = lab::or_skip(Apache::start(APACHE_HEAP_MB))?;
                Some(Self::Apache(Box::new(apache)))
            }
            Err(_) => {
                let setup = setup().restartable();
                Some(Self::Nuncio(Box::new(setup.start())))
            }
        }
    }

    /// Ends it as a crash would.
    pub(super) fn kill(&mut self) {
        match self {
            Self::Nuncio(nuncio) => nuncio.kill(),
            Self::Apache(apache) => apache.kill(),
            Self::Other(_) => panic!("only a broker of our own can be killed"),
        }
    }

    /// Starts it again on its data.
    #[track_caller]
    pub(super) fn restart(&mut self) {
        match self {
            Self::Nuncio(nuncio) => nuncio.restart(),
            Self::Apache(apache) => apache.restart(),
            Self::Other(_) => panic!("only a broker of our own can be started"),
        }
    }

    pub(super) fn bootstrap(&self) -> String {
        match self {
            Self::Nuncio(nuncio) => nuncio.kafka().to_string(),
            Self::Apache(apache) => apache.address().to_string(),
            Self::Other(bootstrap) => bootstrap.clone(),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Nuncio(_) => "nuncio",
            Self::Apache(_) => "Apache Kafka",
            Self::Other(bootstrap) => bootstrap,
        }
    }
}

/// Ours as it was built with the tests, or another build that `NUNCIO_TEST_BINARY` names.
fn setup() -> Setup {
    let built = env!("CARGO_BIN_EXE_nuncio");
    Setup::new(env::var("NUNCIO_TEST_BINARY").unwrap_or_else(|_| built.to_owned()))
}

/// Returns a name that no earlier run left on a broker that lives on.
pub(super) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is after 1970");
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{next}", now.as_micros())
}
