//! How long to wait before an ended service is started again, and when to call it a crash loop.

use std::time::Duration;

/// The pause after the first end; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Ends in a row after which it is a crash loop.
const ENDS_MAX: u32 = 5;

/// A service that was healthy for as long as this has proved that it can run, and is counted afresh.
const PROVEN_AFTER: Duration = Duration::from_secs(30);

/// Counts the ends of one service.
#[derive(Debug, Default)]
pub(crate) struct Crashes {
    in_a_row: u32,
}

impl Crashes {
    /// Notes an end after so long in health, and returns the pause before the next start.
    pub(crate) fn ended(&mut self, healthy_for: Duration) -> Duration {
        if healthy_for >= PROVEN_AFTER {
            self.in_a_row = 0;
        }
        let pause = PAUSE_MIN
            .saturating_mul(1 << self.in_a_row.min(16))
            .min(PAUSE_MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        pause
    }

    /// Whether the service ends again and again.
    pub(crate) fn looping(&self) -> bool {
        self.in_a_row >= ENDS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::ZERO;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut crashes = Crashes::default();
        let pauses: Vec<u128> = (0..9).map(|_| crashes.ended(NEVER).as_millis()).collect();
        assert_eq!(
            pauses,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
        for _ in 0..100 {
            assert_eq!(crashes.ended(NEVER), PAUSE_MAX);
        }
    }

    #[test]
    fn five_ends_in_a_row_are_a_loop_and_health_ends_it() {
        let mut crashes = Crashes::default();
        let looping: Vec<bool> = (0..5)
            .map(|_| {
                crashes.ended(NEVER);
                crashes.looping()
            })
            .collect();
        assert_eq!(looping, [false, false, false, false, true]);
        assert_eq!(crashes.ended(PROVEN_AFTER), PAUSE_MIN);
        assert!(!crashes.looping());
    }
}
