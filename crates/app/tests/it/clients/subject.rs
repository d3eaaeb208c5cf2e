//! The broker under test.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use testkit::nuncio::{Nuncio, Setup};

/// Ours unless the environment names another one.
pub(super) enum Subject {
    Nuncio(Box<Nuncio>),
    Other(String),
}

impl Subject {
    #[track_caller]
    pub(super) fn start() -> Self {
        match env::var("NUNCIO_TEST_BOOTSTRAP") {
            Ok(bootstrap) => Self::Other(bootstrap),
            Err(_) => Self::Nuncio(Box::new(Setup::new(env!("CARGO_BIN_EXE_nuncio")).start())),
        }
    }

    pub(super) fn bootstrap(&self) -> String {
        match self {
            Self::Nuncio(nuncio) => nuncio.kafka().to_string(),
            Self::Other(bootstrap) => bootstrap.clone(),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Nuncio(_) => "nuncio",
            Self::Other(bootstrap) => bootstrap,
        }
    }
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
