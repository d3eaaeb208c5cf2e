//! Metrics in the text formats that Prometheus reads. A handle is resolved once, when configuration is applied; counting
//! is then one atomic addition.
//!
//! Whoever has many things of a kind keeps their numbers himself, as small as he likes, and tells them when asked: a
//! [`Source`].

mod buckets;
mod page;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use buckets::Buckets;
pub use page::{Dialect, Family, Kind, Page, Sums, labels};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds so many.
    pub fn inc_by(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Becomes this number.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// A handle to a number that only grows.
pub type Counter = Arc<Count>;

/// A handle to a number that goes up and down.
pub type Gauge = Arc<Level>;

/// A handle to a distribution.
pub type Histogram = Arc<Buckets>;

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

/// Somebody who keeps numbers himself and tells them when a scrape asks.
pub trait Source: Send + Sync {
    /// Writes the families. No other source may write the same ones.
    fn tell(&self, page: &mut Page);
}

#[derive(Default)]
struct Inner {
    families: BTreeMap<String, Told>,
    sources: Vec<Weak<dyn Source>>,
}

struct Told {
    help: String,
    members: Members,
}

/// The members of a family by their labels, as the text has them.
enum Members {
    Counters(BTreeMap<Box<str>, Counter>),
    Gauges(BTreeMap<Box<str>, Gauge>),
    Histograms(BTreeMap<Box<str>, Histogram>),
}

impl Metrics {
    /// Returns the counter of this name and these labels, made at first use. The name carries no `_total`;
    /// the text format adds it.
    ///
    /// # Panics
    /// When the name already belongs to another kind of metric: that is a bug of ours.
    pub fn counter(&self, name: &str, help: &str, pairs: &[(&str, &str)]) -> Counter {
        let mut inner = self.lock();
        let empty = || Members::Counters(BTreeMap::new());
        let Members::Counters(members) = inner.family(name, help, empty) else {
            panic!("metric `{name}` is not a counter")
        };
        members.entry(labels(pairs).into()).or_default().clone()
    }

    /// Returns the gauge of this name and these labels, made at first use.
    ///
    /// # Panics
    /// When the name already belongs to another kind of metric.
    pub fn gauge(&self, name: &str, help: &str, pairs: &[(&str, &str)]) -> Gauge {
        let mut inner = self.lock();
        let empty = || Members::Gauges(BTreeMap::new());
        let Members::Gauges(members) = inner.family(name, help, empty) else {
            panic!("metric `{name}` is not a gauge")
        };
        members.entry(labels(pairs).into()).or_default().clone()
    }

    /// Returns the histogram of this name and these labels, made at first use with the upper bounds of its buckets
    /// ([`SECONDS`] for durations).
    ///
    /// # Panics
    /// When the name already belongs to another kind of metric.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        pairs: &[(&str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        let mut inner = self.lock();
        let empty = || Members::Histograms(BTreeMap::new());
        let Members::Histograms(members) = inner.family(name, help, empty) else {
            panic!("metric `{name}` is not a histogram")
        };
        members
            .entry(labels(pairs).into())
            .or_insert_with(|| Arc::new(Buckets::new(bounds)))
            .clone()
    }

    /// Forgets one label set of a metric, so that what no longer exists is no longer reported. Handles that are still
    /// held go on counting unseen.
    pub fn remove(&self, name: &str, pairs: &[(&str, &str)]) {
        let labels = labels(pairs);
        let mut inner = self.lock();
        if let Some(told) = inner.families.get_mut(name) {
            match &mut told.members {
                Members::Counters(members) => _ = members.remove(&*labels),
                Members::Gauges(members) => _ = members.remove(&*labels),
                Members::Histograms(members) => _ = members.remove(&*labels),
            }
        }
    }

    /// Asks somebody at every scrape, for as long as he lives.
    pub fn ask(&self, source: Weak<dyn Source>) {
        self.lock().sources.push(source);
    }

    /// Returns everything in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        self.encode_as(Dialect::OpenMetrics)
    }

    /// Returns everything in one of the text formats.
    pub fn encode_as(&self, dialect: Dialect) -> String {
        let mut page = Page::new(dialect);
        let mut inner = self.lock();
        for (name, told) in &inner.families {
            told.write(name, &mut page);
        }
        inner.sources.retain(|source| source.strong_count() > 0);
        let sources: Vec<_> = inner.sources.iter().filter_map(Weak::upgrade).collect();
        drop(inner);
        for source in sources {
            source.tell(&mut page);
        }
        page.finish()
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
    fn family(&mut self, name: &str, help: &str, empty: impl FnOnce() -> Members) -> &mut Members {
        if !self.families.contains_key(name) {
            let told = Told {
                help: help.to_owned(),
                members: empty(),
            };
            self.families.insert(name.to_owned(), told);
        }
        let told = self.families.get_mut(name).expect("it was just put in");
        &mut told.members
    }
}

impl Told {
    fn write(&self, name: &str, page: &mut Page) {
        match &self.members {
            Members::Counters(members) if !members.is_empty() => {
                let mut family = page.family(name, Kind::Counter, &self.help);
                for (labels, counter) in members {
                    family.value(labels, counter.get());
                }
            }
            Members::Gauges(members) if !members.is_empty() => {
                let mut family = page.family(name, Kind::Gauge, &self.help);
                for (labels, gauge) in members {
                    family.value(labels, gauge.get());
                }
            }
            Members::Histograms(members) if !members.is_empty() => {
                let mut family = page.family(name, Kind::Histogram, &self.help);
                for (labels, histogram) in members {
                    family.buckets(labels, histogram);
                }
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    #[test]
    fn both_formats_tell_the_same_under_the_names_they_want() {
        struct Envoy(Buckets);
        impl Source for Envoy {
            fn tell(&self, page: &mut Page) {
                let name = labels(&[("envoy_cluster_name", "a\"b")]);
                page.foreign("envoy_cluster_upstream_rq_xx", Kind::Counter, "Answers.")
                    .value(&name, 7);
                let mut sums = Sums::default();
                sums.add(&self.0);
                sums.add(&self.0);
                page.foreign("envoy_cluster_upstream_rq_time", Kind::Histogram, "Time.")
                    .millis(&name, &sums, &[0.0025]);
            }
        }
        let metrics = Metrics::default();
        metrics.counter("nuncio_requests", "Requests.", &[]).inc();
        let envoy = Arc::new(Envoy(Buckets::new(SECONDS)));
        envoy.0.observe(0.002);
        let source: Arc<dyn Source> = envoy.clone();
        metrics.ask(Arc::downgrade(&source));
        drop(source);
        let open = metrics.encode_as(Dialect::OpenMetrics);
        let plain = metrics.encode_as(Dialect::Prometheus);
        for (text, lines) in [
            (
                &open,
                [
                    "# TYPE nuncio_requests counter\n",
                    "# TYPE envoy_cluster_upstream_rq_xx unknown\n",
                    "rq_time_bucket{envoy_cluster_name=\"a\\\"b\",le=\"5.0\"} 2\n",
                ],
            ),
            (
                &plain,
                [
                    "# TYPE nuncio_requests_total counter\n",
                    "# TYPE envoy_cluster_upstream_rq_xx counter\n",
                    "rq_time_bucket{envoy_cluster_name=\"a\\\"b\",le=\"5\"} 2\n",
                ],
            ),
        ] {
            let both = [
                "nuncio_requests_total{} 1\n",
                "envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"a\\\"b\"} 7\n",
                "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"a\\\"b\"} 4\n",
            ];
            for line in lines.into_iter().chain(both) {
                assert!(text.contains(line), "{line} is missing in\n{text}");
            }
            assert!(!text.contains("2.5\""), "{text}");
        }
        assert!(open.ends_with("# EOF\n") && !plain.contains("EOF"));
        drop(envoy);
        assert!(!metrics.encode().contains("envoy"));
    }
}
