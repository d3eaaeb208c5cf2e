//! Metrics in the Prometheus text format. A handle is resolved once, when configuration is
//! applied; counting is then one atomic addition.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

type Labels = Vec<(String, String)>;

/// A number that only grows.
pub type Counter = counter::Counter<u64, AtomicU64>;

/// A number that goes up and down.
pub type Gauge = gauge::Gauge<i64, AtomicI64>;

/// Upper bounds in seconds for how long requests take: 0.5 ms to 60 s.
pub const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// The registry of all metrics of one process. Clones share it.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    registry: Registry,
    families: HashMap<String, Kind>,
}

#[derive(Clone)]
enum Kind {
    Counter(Family<Labels, Counter>),
    Gauge(Family<Labels, Gauge>),
    Histogram(Family<Labels, Histogram, Bounds>),
}

impl Metrics {
    /// Returns the counter of this name and these labels, made at first use. The name carries no `_total`;
    /// the text format adds it.
    ///
    /// # Panics
    /// When the name already belongs to another kind of metric: that is a bug of ours.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let mut inner = self.lock();
        let kind = inner.family(name, || Kind::Counter(Family::default()), help);
        let Kind::Counter(family) = kind else {
            panic!("metric `{name}` is not a counter")
        };
        family.get_or_create_owned(&owned(labels))
    }

    /// Returns the gauge of this name and these labels, made at first use.
    ///
    /// # Panics
    /// When the name already belongs to another kind of metric.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        let mut inner = self.lock();
        let kind = inner.family(name, || Kind::Gauge(Family::default()), help);
        let Kind::Gauge(family) = kind else {
            panic!("metric `{name}` is not a gauge")
        };
        family.get_or_create_owned(&owned(labels))
    }

    /// Returns the histogram of this name and these labels, made at first use with the upper bounds of its buckets
    /// ([`SECONDS`] for durations). The bounds of the first call hold for the whole name.
    ///
    /// # Panics
    /// When the name already belongs to another kind of metric.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        let mut inner = self.lock();
        let make = || Kind::Histogram(Family::new_with_constructor(Bounds(bounds)));
        let Kind::Histogram(family) = inner.family(name, make, help) else {
            panic!("metric `{name}` is not a histogram")
        };
        family.get_or_create_owned(&owned(labels))
    }

    /// Forgets one label set of a metric, so that what no longer exists is no longer reported. Handles that are still
    /// held go on counting unseen.
    pub fn remove(&self, name: &str, labels: &[(&str, &str)]) {
        let labels = owned(labels);
        match self.lock().families.get(name) {
            Some(Kind::Counter(family)) => _ = family.remove(&labels),
            Some(Kind::Gauge(family)) => _ = family.remove(&labels),
            Some(Kind::Histogram(family)) => _ = family.remove(&labels),
            None => (),
        }
    }

    /// Returns everything in the OpenMetrics text format, which Prometheus reads.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let inner = self.lock();
        text::encode(&mut out, &inner.registry).expect("writing to a String cannot fail");
        out
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Inner {
    fn family(&mut self, name: &str, make: impl FnOnce() -> Kind, help: &str) -> Kind {
        if let Some(kind) = self.families.get(name) {
            return kind.clone();
        }
        let kind = make();
        // The registry ends each help text with a full stop of its own.
        let help = help.trim_end_matches('.');
        match &kind {
            Kind::Counter(family) => self.registry.register(name, help, family.clone()),
            Kind::Gauge(family) => self.registry.register(name, help, family.clone()),
            Kind::Histogram(family) => self.registry.register(name, help, family.clone()),
        }
        self.families.insert(name.to_owned(), kind.clone());
        kind
    }
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[derive(Clone, Copy, Debug)]
struct Bounds(&'static [f64]);

impl MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0)
    }
}

/// A distribution over fixed buckets, counted with atomics only: no lock on the hot path.
#[derive(Clone, Debug)]
pub struct Histogram {
    inner: Arc<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than `bounds`: the last counts what lies above them all.
    counts: Box<[AtomicU64]>,
    /// The sum of all values in millionths.
    sum_micro: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram {
            inner: Arc::new(Buckets {
                bounds,
                counts,
                sum_micro: AtomicU64::new(0),
            }),
        }
    }

    /// Counts one value, in the unit of the bounds. Negative values count as zero.
    pub fn observe(&self, value: f64) {
        let bucket = self.inner.bounds.partition_point(|bound| *bound < value);
        self.inner.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.inner
            .sum_micro
            .fetch_add((value.max(0.0) * 1e6) as u64, Ordering::Relaxed);
    }

    /// Counts one duration in seconds.
    pub fn record(&self, value: Duration) {
        self.observe(value.as_secs_f64());
    }

    /// Returns how many values were counted.
    pub fn count(&self) -> u64 {
        self.inner
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts: Vec<u64> = self
            .inner
            .counts
            .iter()
            .map(|c| c.load(Ordering::Relaxed))
            .collect();
        let bounds = self.inner.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let sum = self.inner.sum_micro.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_was_counted() {
        let metrics = Metrics::default();
        metrics
            .counter("nuncio_requests", "Requests.", &[("route", "a")])
            .inc_by(3);
        metrics
            .counter("nuncio_requests", "Requests.", &[("route", "a")])
            .inc();
        metrics
            .gauge("nuncio_open", "Open connections.", &[])
            .set(2);
        let seconds = metrics.histogram("nuncio_seconds", "Time.", &[], SECONDS);
        seconds.record(Duration::from_millis(3));
        seconds.observe(100.0);
        let text = metrics.encode();
        for line in [
            "# HELP nuncio_requests Requests.\n",
            "nuncio_requests_total{route=\"a\"} 4\n",
            "nuncio_open{} 2\n",
            "nuncio_seconds_sum{} 100.003\n",
            "nuncio_seconds_count{} 2\n",
            "nuncio_seconds_bucket{le=\"0.0025\"} 0\n",
            "nuncio_seconds_bucket{le=\"0.005\"} 1\n",
            "nuncio_seconds_bucket{le=\"+Inf\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_removed_label_set_is_no_longer_reported() {
        let metrics = Metrics::default();
        metrics
            .counter("nuncio_requests", "Requests.", &[("route", "a")])
            .inc();
        metrics.remove("nuncio_requests", &[("route", "a")]);
        assert!(!metrics.encode().contains("route=\"a\""));
    }
}
