//! Structured logs: one line an event on standard error, as text for people or as JSON for machines.

use tracing_subscriber::EnvFilter;

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
pub fn start(format: Format, filter: &str) -> Result<(), String> {
    let chosen = std::env::var("NUNCIO_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter =
        EnvFilter::try_new(&chosen).map_err(|error| format!("log filter `{chosen}`: {error}"))?;
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        Format::Text { colour } => base.with_ansi(colour).try_init(),
        Format::Json => base.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| error.to_string())
}
