//! What the operating system says about this process, under Prometheus' usual names.

use std::fs;

use observe::metrics::Metrics;

/// Brings the process metrics up to date. Where there is no `/proc` they stay absent.
pub(crate) fn refresh(metrics: &Metrics) {
    if let Some(resident) = resident_bytes() {
        metrics
            .gauge(
                "process_resident_memory_bytes",
                "Memory held in RAM, in bytes.",
                &[],
            )
            .set(resident);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(open.count()).unwrap_or(i64::MAX);
        metrics
            .gauge("process_open_fds", "Open file descriptors.", &[])
            .set(open);
    }
    if let Some(threads) = status("Threads:") {
        metrics
            .gauge("process_threads", "Threads.", &[])
            .set(threads);
    }
}

fn resident_bytes() -> Option<i64> {
    status("VmRSS:").map(|kib| kib * 1024)
}

/// Returns the number behind a key of `/proc/self/status`.
fn status(key: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_own_size() {
        let metrics = Metrics::default();
        refresh(&metrics);
        let text = metrics.encode();
        assert!(text.contains("process_resident_memory_bytes{} "), "{text}");
    }
}
