//! Metrics, logs, trace context and access lines.
