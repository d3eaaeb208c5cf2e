//! The admin API: health, metrics, diagnostics, explain.
