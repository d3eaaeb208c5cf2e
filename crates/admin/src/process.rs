//! What the operating system says about this process: under Prometheus' usual names, under Ambassador's, and under
//! Envoy's. Where there is no `/proc`, most of it stays absent.

use std::fs;
use std::time::{Instant, SystemTime};

use observe::metrics::{Kind, Page, Source};

/// Clock ticks a second in `/proc`; Linux has had no other number for decades.
const TICKS: f64 = 100.0;

/// This process, which is as old as this value.
#[derive(Debug)]
pub(crate) struct Process {
    started: Instant,
    started_at: SystemTime,
}

impl Default for Process {
    fn default() -> Self {
        Process {
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }
}

impl Source for Process {
    fn tell(&self, page: &mut Page) {
        let started = self
            .started_at
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let resident = status("VmRSS:").map(|kib| kib * 1024.0);
        let open = fs::read_dir("/proc/self/fd").map_or(None, |open| Some(open.count() as f64));
        let threads = status("Threads:");
        for prefix in ["", "ambassador_"] {
            let mut each = |name: &str, kind, help, value: Option<f64>| {
                if let Some(value) = value {
                    page.foreign(&format!("{prefix}process_{name}"), kind, help)
                        .value("", value);
                }
            };
            let cpu = "CPU time used, in seconds.";
            each("cpu_seconds_total", Kind::Counter, cpu, cpu_seconds());
            let help = "Memory held in RAM, in bytes.";
            each("resident_memory_bytes", Kind::Gauge, help, resident);
            let help = "Memory mapped, in bytes.";
            let mapped = status("VmSize:").map(|kib| kib * 1024.0);
            each("virtual_memory_bytes", Kind::Gauge, help, mapped);
            each("open_fds", Kind::Gauge, "Open file descriptors.", open);
            let help = "Open file descriptors at most.";
            each("max_fds", Kind::Gauge, help, files_max());
            let help = "Start, in seconds since 1970.";
            each("start_time_seconds", Kind::Gauge, help, Some(started));
            each("threads", Kind::Gauge, "Threads.", threads);
        }
        let uptime = self.started.elapsed().as_secs() as f64;
        for (name, help, value) in [
            ("live", "1 while the process answers.", Some(1.0)),
            (
                "state",
                "0: the process serves; it does not answer here in any other state.",
                Some(0.0),
            ),
            ("uptime", "Seconds since the start.", Some(uptime)),
            (
                "memory_allocated",
                "Memory held in RAM, in bytes.",
                resident,
            ),
            (
                "memory_heap_size",
                "Memory held in RAM, in bytes.",
                resident,
            ),
            ("concurrency", "Threads.", threads),
        ] {
            if let Some(value) = value {
                page.foreign(&format!("envoy_server_{name}"), Kind::Gauge, help)
                    .value("", value);
            }
        }
    }
}

/// Returns the number behind a key of `/proc/self/status`.
fn status(key: &str) -> Option<f64> {
    number(&fs::read_to_string("/proc/self/status").ok()?, key)
}

fn number(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn files_max() -> Option<f64> {
    number(
        &fs::read_to_string("/proc/self/limits").ok()?,
        "Max open files",
    )
}

fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name stands in parentheses and may hold anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use observe::metrics::Metrics;

    use super::*;

    #[test]
    fn the_process_knows_its_own_size() {
        let metrics = Metrics::default();
        let process: Arc<dyn Source> = Arc::new(Process::default());
        metrics.ask(Arc::downgrade(&process));
        let text = metrics.encode();
        for name in [
            "process_resident_memory_bytes{} ",
            "ambassador_process_cpu_seconds_total{} ",
            "process_max_fds{} ",
            "envoy_server_live{} 1\n",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
