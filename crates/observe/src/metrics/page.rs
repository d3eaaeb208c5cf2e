//! The text that a scrape answers with, in both formats that Prometheus reads.

use std::fmt::{Display, Write as _};

use super::Buckets;

/// Which text format is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenMetrics 1.0: counters' samples end in `_total`, the text ends with `# EOF`.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

impl Dialect {
    /// Returns what a scraper asks for with its `accept` header.
    pub fn asked(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// Returns the `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a family's numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// The text under way.
#[derive(Debug)]
pub struct Page {
    out: String,
    dialect: Dialect,
}

/// One family of the text: its head is written, its samples follow.
#[derive(Debug)]
pub struct Family<'p> {
    page: &'p mut Page,
    /// The samples' name.
    name: String,
}

impl Page {
    /// Returns an empty page.
    pub fn new(dialect: Dialect) -> Self {
        Page {
            out: String::new(),
            dialect,
        }
    }

    /// Ends the page.
    pub fn finish(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    /// Begins a family of ours. A counter's name carries no `_total`; its samples get it.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let sample = match kind {
            Kind::Counter => format!("{name}_total"),
            Kind::Gauge | Kind::Histogram => name.to_owned(),
        };
        let family = match self.dialect {
            Dialect::OpenMetrics => name,
            Dialect::Prometheus => &sample,
        };
        self.head(family, kind_name(kind), help);
        Family {
            page: self,
            name: sample,
        }
    }

    /// Begins a family that others have named: its samples have exactly this name. OpenMetrics has no counters without
    /// `_total`, and calls them `unknown`.
    pub fn foreign(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let told = match (self.dialect, kind) {
            (Dialect::OpenMetrics, Kind::Counter) => "unknown",
            _ => kind_name(kind),
        };
        self.head(name, told, help);
        Family {
            page: self,
            name: name.to_owned(),
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.trim_end_matches('.');
        _ = write!(self.out, "# HELP {name} {help}.\n# TYPE {name} {kind}\n");
    }

    fn bound(&mut self, bound: f64) {
        // OpenMetrics wants `1.0` where Prometheus has `1`.
        match self.dialect {
            Dialect::OpenMetrics => _ = write!(self.out, "{bound:?}"),
            Dialect::Prometheus => _ = write!(self.out, "{bound}"),
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

impl Family<'_> {
    /// Writes one sample. `labels` come from [`labels`].
    pub fn value(&mut self, labels: &str, value: impl Display) {
        _ = writeln!(self.page.out, "{}{{{labels}}} {value}", self.name);
    }

    /// Writes one distribution, in seconds as it was counted.
    pub fn buckets(&mut self, labels: &str, buckets: &Buckets) {
        let (counts, sum) = buckets.read();
        let bounds = buckets.bounds().iter().copied();
        self.distribution(labels, bounds.zip(counts.iter().copied()), &counts, sum);
    }

    /// Writes several distributions of the same bounds as one.
    pub fn sums<'b>(&mut self, labels: &str, all: impl Iterator<Item = &'b Buckets>) {
        let mut sums = Sums::default();
        all.for_each(|buckets| sums.add(buckets));
        let steps = sums.bounds.iter().copied().zip(sums.counts.iter().copied());
        self.distribution(labels, steps, &sums.counts, sums.sum);
    }

    /// Writes one distribution in milliseconds that was counted in seconds. `skipped` bounds, in seconds, are left out.
    pub fn millis(&mut self, labels: &str, sums: &Sums, skipped: &[f64]) {
        let mut before = 0;
        let mut steps = Vec::with_capacity(sums.bounds.len());
        for (bound, count) in sums.bounds.iter().zip(&sums.counts) {
            before += count;
            if !skipped.contains(bound) {
                steps.push(((bound * 1e4).round() / 10.0, before));
                before = 0;
            }
        }
        self.distribution(labels, steps.into_iter(), &sums.counts, sums.sum * 1e3);
    }

    fn distribution(
        &mut self,
        labels: &str,
        steps: impl Iterator<Item = (f64, u64)>,
        counts: &[u64],
        sum: f64,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let (name, page) = (&self.name, &mut *self.page);
        let mut below = 0;
        for (bound, count) in steps {
            below += count;
            _ = write!(page.out, "{name}_bucket{{{labels}{comma}le=\"");
            page.bound(bound);
            _ = writeln!(page.out, "\"}} {below}");
        }
        let all: u64 = counts.iter().sum();
        _ = write!(
            page.out,
            "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {all}\n{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {all}\n"
        );
    }
}

/// Several distributions added up.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Sums {
    /// Adds another one. All must have the same bounds.
    pub fn add(&mut self, buckets: &Buckets) {
        let (counts, sum) = buckets.read();
        if self.counts.is_empty() {
            self.bounds = buckets.bounds();
            self.counts = counts;
        } else {
            debug_assert_eq!(self.bounds, buckets.bounds());
            for (all, more) in self.counts.iter_mut().zip(counts) {
                *all += more;
            }
        }
        self.sum += sum;
    }

    /// Returns how many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Writes labels as the text format wants them: `a="b",c="d"`.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(pairs.iter().map(|(k, v)| k.len() + v.len() + 4).sum());
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                char => out.push(char),
            }
        }
        out.push('"');
    }
    out
}
