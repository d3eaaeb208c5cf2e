//! Structured logs: one line an event on standard error, as text for people or as JSON for machines.

use std::fmt;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

/// What is logged, which can be changed while the process runs. Clones change the same.
#[derive(Clone)]
pub struct Filter {
    set: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl Filter {
    /// Logs by another filter from now on, in the same syntax.
    ///
    /// # Errors
    /// When the filter cannot be read.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        (self.set)(read(filter)?)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

fn read(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| format!("log filter `{filter}`: {error}"))
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-23T10:00:00Z  INFO gateway: listening address=127.0.0.1:8080`
    Text {
        /// Whether levels are coloured.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
}

/// Starts logging for the process. `filter` follows `RUST_LOG`'s syntax (`info`, `broker=debug,warn`); the variable
/// `NUNCIO_LOG` wins over it.
///
/// # Errors
/// When the filter cannot be read, or logging was started before.
pub fn start(format: Format, filter: &str) -> Result<Filter, String> {
    let chosen = std::env::var("NUNCIO_LOG").unwrap_or_else(|_| filter.to_owned());
    let base = tracing_subscriber::fmt()
        .with_env_filter(read(&chosen)?)
        .with_writer(std::io::stderr);
    match format {
        Format::Text { colour } => {
            let base = base.with_ansi(colour).with_filter_reloading();
            let handle = base.reload_handle();
            base.try_init().map_err(|error| error.to_string())?;
            Ok(Filter {
                set: Arc::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())),
            })
        }
        Format::Json => {
            let base = base.json().flatten_event(true).with_filter_reloading();
            let handle = base.reload_handle();
            base.try_init().map_err(|error| error.to_string())?;
            Ok(Filter {
                set: Arc::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())),
            })
        }
    }
}
