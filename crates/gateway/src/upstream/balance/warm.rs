//! Slow start: endpoints that have just come get less at first.

use std::time::Duration;

use tokio::time::Instant;

/// How endpoints start, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlowStart {
    pub(crate) window: Duration,
    /// In thousandths.
    pub(crate) aggression: u32,
    pub(crate) min_weight_percent: u32,
}

impl SlowStart {
    /// Returns what part of its weight an endpoint has so long after its start (Envoy's formula).
    fn part(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let time = age.as_secs_f64() / self.window.as_secs_f64();
        let grown = time.powf(1000.0 / f64::from(self.aggression));
        grown.max(f64::from(self.min_weight_percent) / 100.0)
    }
}

/// Which of the endpoints are starting.
#[derive(Debug)]
pub(crate) struct Warm {
    slow: SlowStart,
    /// Of each endpoint.
    since: Vec<Instant>,
    oldest: Instant,
    /// When all have started.
    until: Instant,
}

impl Warm {
    /// Returns `None` when nobody is starting.
    pub(crate) fn of(slow: &SlowStart, since: Vec<Instant>, now: Instant) -> Option<Box<Self>> {
        let oldest = *since.iter().min()?;
        let youngest = *since.iter().max()?;
        let until = youngest + slow.window;
        // Those that started together are equals.
        if until <= now || oldest == youngest {
            return None;
        }
        Some(Box::new(Warm {
            slow: slow.clone(),
            since,
            oldest,
            until,
        }))
    }

    /// Returns the endpoint's part compared with the part of the one that started first: 1 for that.
    pub(crate) fn part(&self, index: usize, now: Instant) -> f64 {
        if now >= self.until {
            return 1.0;
        }
        let age = |since: Instant| now.saturating_duration_since(since);
        self.slow.part(age(self.since[index])) / self.slow.part(age(self.oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_grows_from_the_least_to_all() {
        let slow = |aggression| SlowStart {
            window: Duration::from_secs(100),
            aggression,
            min_weight_percent: 10,
        };
        let parts = |aggression| {
            [0, 5, 25, 50, 100, 1000]
                .map(|age| (slow(aggression).part(Duration::from_secs(age)) * 100.0).round())
        };
        assert_eq!(parts(1000), [10.0, 10.0, 25.0, 50.0, 100.0, 100.0]);
        assert_eq!(parts(2000), [10.0, 22.0, 50.0, 71.0, 100.0, 100.0]);
        assert_eq!(parts(500), [10.0, 10.0, 10.0, 25.0, 100.0, 100.0]);
    }
}
