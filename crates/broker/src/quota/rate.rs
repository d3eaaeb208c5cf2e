//! How fast something goes, measured as Apache Kafka measures it, so that a limit is the same limit.

use std::collections::VecDeque;

/// Milliseconds of a clock that never jumps.
pub(super) type Millis = i64;

/// Samples that are kept, and how long each is (`quota.window.num`, `quota.window.size.seconds`).
const SAMPLES: usize = 11;
pub(super) const WINDOW_MS: Millis = 1_000;
const KEPT_MS: Millis = SAMPLES as Millis * WINDOW_MS;

/// A rate over the last samples; at its begin it counts as if it had been measured for ten seconds of silence.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When each sample began, and its sum.
    samples: VecDeque<(Millis, f64)>,
}

impl Rate {
    pub(super) fn record(&mut self, now: Millis, value: f64) {
        self.forget(now);
        match self.samples.back_mut() {
            Some((since, sum)) if now < *since + WINDOW_MS => *sum += value,
            _ => self.samples.push_back((now, value)),
        }
    }

    /// Takes back what was recorded last.
    pub(super) fn take_back(&mut self, value: f64) {
        if let Some((_, sum)) = self.samples.back_mut() {
            *sum -= value;
        }
    }

    /// Returns how long to wait until the rate is at `limit` a second again.
    pub(super) fn throttle_ms(&mut self, now: Millis, limit: f64) -> Millis {
        self.forget(now);
        let Some((oldest, _)) = self.samples.front() else {
            return 0;
        };
        let mut window_ms = now - oldest;
        let full = window_ms / WINDOW_MS;
        window_ms += (SAMPLES as Millis - 1 - full).max(0) * WINDOW_MS;
        let sum: f64 = self.samples.iter().map(|(_, sum)| sum).sum();
        let window_ms = window_ms as f64;
        let rate = sum * 1000.0 / window_ms;
        match rate > limit {
            true => ((rate - limit) / limit * window_ms).round() as Millis,
            false => 0,
        }
    }

    /// Whether nothing of it counts any more.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        let last = self.samples.back();
        last.is_none_or(|(since, _)| now - since >= KEPT_MS)
    }

    fn forget(&mut self, now: Millis) {
        while self
            .samples
            .front()
            .is_some_and(|(since, _)| now - since >= KEPT_MS)
        {
            self.samples.pop_front();
        }
    }
}

/// Tokens that come at a rate, and may be saved up for as long as rates are measured.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    tokens: f64,
    /// When they were counted, and for which rate.
    counted: Option<(Millis, f64)>,
}

impl Bucket {
    fn count(&mut self, now: Millis, limit: f64) {
        let most = limit * KEPT_MS as f64 / 1000.0;
        self.tokens = match self.counted {
            None => most,
            Some((before, _)) => (self.tokens + (now - before) as f64 / 1000.0 * limit).min(most),
        };
        self.counted = Some((now, limit));
    }

    /// Whether there are tokens; a debt has to be waited for.
    pub(super) fn has_some(&mut self, now: Millis, limit: f64) -> bool {
        self.count(now, limit);
        self.tokens >= 0.0
    }

    /// Takes tokens, which may leave a debt.
    pub(super) fn take(&mut self, now: Millis, limit: f64, value: f64) {
        self.count(now, limit);
        self.tokens -= value;
    }

    /// Returns how long to wait until the debt is gone.
    pub(super) fn throttle_ms(&mut self, now: Millis, limit: f64) -> Millis {
        self.count(now, limit);
        match self.tokens < 0.0 {
            true => (-self.tokens / limit * 1000.0).round() as Millis,
            false => 0,
        }
    }

    /// Whether a fresh one would be the same.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        self.counted.is_none_or(|(at, limit)| {
            let most = limit * KEPT_MS as f64 / 1000.0;
            self.tokens + (now - at) as f64 / 1000.0 * limit >= most
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_ten_seconds() {
        let mut rate = Rate::default();
        rate.record(0, 1000.0);
        assert_eq!(rate.throttle_ms(0, 100.0), 0, "ten seconds' worth at once");
        rate.record(0, 100.0);
        assert_eq!(rate.throttle_ms(0, 100.0), 1000);
        rate.record(500, 100.0);
        assert_eq!(rate.throttle_ms(500, 100.0), 1500);
        assert!(!rate.is_idle(10_999));
        assert!(rate.is_idle(11_000));
        assert_eq!(rate.throttle_ms(11_000, 1.0), 0, "forgotten");
    }

    #[test]
    fn who_waits_as_told_comes_to_the_limit() {
        let (mut rate, mut now, mut sum) = (Rate::default(), 0, 0.0);
        while now < 60_000 {
            rate.record(now, 500.0);
            sum += 500.0;
            now += rate.throttle_ms(now, 1000.0).max(1);
        }
        let per_second = sum / 60.0;
        assert!((1000.0..1250.0).contains(&per_second), "{per_second}");
    }

    #[test]
    fn a_bucket_lends_once_and_waits() {
        let mut bucket = Bucket::default();
        assert!(bucket.has_some(0, 1.0));
        bucket.take(0, 1.0, 20.0);
        assert!(!bucket.has_some(0, 1.0));
        assert_eq!(bucket.throttle_ms(0, 1.0), 9000);
        assert_eq!(bucket.throttle_ms(4000, 1.0), 5000);
        assert!(bucket.has_some(9000, 1.0));
        assert!(!bucket.is_idle(9000));
        assert!(bucket.is_idle(20_000));
    }
}
