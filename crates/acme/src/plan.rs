//! When to do something about a certificate, as functions of what is known: nothing here waits or asks.
//!
//! ```text
//! not_before                      renewal (2/3)        not_after
//!      |-----------------------------|----------------------|
//!                          ^ earlier, or later, where the authority says so (ARI, RFC 9773)
//! ```

use std::time::{Duration, SystemTime};

/// How much of its life a certificate has left when it is renewed, where the authority says nothing: a third.
const LEFT: u32 = 3;
/// Some are renewed earlier than others by up to this part of their life, so that they do not come all at once.
const SPREAD: u32 = 30;
/// A certificate is kept for so long at least, whatever the authority says, or a third of its life where that is less.
const KEPT_MIN: Duration = Duration::from_secs(3600);
/// When this part of its life is left a certificate is renewed, whatever the authority says: there must be time to try again.
const LATEST: u32 = 5;
/// The authority is asked when to renew no more often than this, and no less often than that.
const ASKED_MIN: Duration = Duration::from_secs(600);
const ASKED_MAX: Duration = Duration::from_secs(24 * 3600);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// From when until when a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// When the authority would like it to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
}

/// Why an order came to nothing, as far as it matters for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The authority is not there, or unwell.
    Unreachable,
    /// The authority has had enough of us for now.
    Busy,
    /// The authority did not see that the name is ours.
    Unproven,
    /// The authority does not want to, or what it gives cannot be used.
    Refused,
}

/// Returns when a certificate is renewed. `dice`, from 0 to 1, is the same each time that it is asked about one certificate.
pub(crate) fn renewal(life: Life, window: Option<Window>, dice: f64) -> SystemTime {
    let whole = life
        .not_after
        .duration_since(life.not_before)
        .unwrap_or_default();
    let usual = life.not_after - whole / LEFT - (whole / SPREAD).mul_f64(dice);
    let Some(window) = window else { return usual };
    let wide = window
        .end
        .duration_since(window.start)
        .unwrap_or_default()
        .min(whole);
    let wished = window.start + wide.mul_f64(dice);
    // One that would have every certificate renewed at once must not keep us ordering; one that comes too late is not waited for.
    let earliest = life.not_before + KEPT_MIN.min(whole / LEFT);
    let latest = life.not_after - whole / LATEST;
    wished.max(earliest).min(latest)
}

/// Returns how long to wait before the authority is asked again when to renew, where it says `said`.
pub(crate) fn asked_again(life: Life, said: Duration) -> Duration {
    let whole = life
        .not_after
        .duration_since(life.not_before)
        .unwrap_or_default();
    said.clamp(ASKED_MIN, ASKED_MAX)
        .min((whole / 10).max(MINUTE))
}

/// Returns how long to wait after so many failures in a row, the last of them for this cause. What the authority says itself
/// counts, as long as it is not too little.
pub(crate) fn rest(cause: Cause, failures: u32, said: Option<Duration>, dice: f64) -> Duration {
    let (first, most) = match cause {
        Cause::Unreachable => (Duration::from_secs(5), HOUR),
        // Let's Encrypt: five failures an hour for a name.
        Cause::Unproven => (5 * MINUTE, 12 * HOUR),
        Cause::Busy => (HOUR, 24 * HOUR),
        Cause::Refused => (HOUR, 24 * HOUR),
    };
    let doubled = 1_u32 << failures.saturating_sub(1).min(16);
    let rest = first.saturating_mul(doubled).min(most);
    let rest = match (said, cause) {
        // It knows better than we do.
        (Some(said), Cause::Busy) => said.clamp(Duration::from_secs(1), 7 * 24 * HOUR),
        (Some(said), _) => rest.max(said.min(24 * HOUR)),
        (None, _) => rest,
    };
    rest + rest.mul_f64(dice / 5.0)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn day(day: u32) -> SystemTime {
        UNIX_EPOCH + DAY * day
    }

    fn life() -> Life {
        Life {
            not_before: day(0),
            not_after: day(90),
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
        assert_eq!(renewal(life(), None, 0.0), day(60));
        assert_eq!(renewal(life(), None, 1.0), day(57));
    }

    #[test]
    fn the_authority_may_wish_another_time() {
        let window = |start, end| {
            Some(Window {
                start: day(start),
                end: day(end),
            })
        };
        assert_eq!(renewal(life(), window(69, 71), 0.0), day(69));
        assert_eq!(renewal(life(), window(69, 71), 0.5), day(70));
        // It has to be revoked.
        let day_ten = Life {
            not_before: day(10),
            not_after: day(100),
        };
        assert_eq!(renewal(day_ten, window(0, 1), 0.0), day(10) + HOUR);
        // Nobody waits for a window behind the end.
        assert_eq!(renewal(life(), window(200, 201), 0.0), day(72));
    }

    #[test]
    fn failures_are_followed_by_longer_and_longer_rests() {
        let rests = |cause| -> Vec<u64> {
            let all = [1, 2, 3, 5, 100].into_iter();
            all.map(|failures| rest(cause, failures, None, 0.0).as_secs())
                .collect()
        };
        assert_eq!(rests(Cause::Unreachable), [5, 10, 20, 80, 3600]);
        assert_eq!(rests(Cause::Unproven), [300, 600, 1200, 4800, 43200]);
        assert_eq!(rests(Cause::Refused), [3600, 7200, 14400, 57600, 86400]);
        assert_eq!(rests(Cause::Busy), [3600, 7200, 14400, 57600, 86400]);
        let said = |cause, secs| rest(cause, 1, Some(Duration::from_secs(secs)), 0.0).as_secs();
        assert_eq!(said(Cause::Busy, 30), 30);
        assert_eq!(said(Cause::Busy, u64::MAX), 7 * 86400);
        assert_eq!(said(Cause::Unreachable, 60), 60);
        assert_eq!(said(Cause::Unreachable, 1), 5);
        assert_eq!(said(Cause::Refused, 60), 3600);
    }

    proptest! {
        #[test]
        fn a_renewal_lies_within_the_life(
            from in 0_u32..40_000,
            secs in 1_u64..400 * 86_400,
            start in 0_u32..50_000,
            wide in 0_u32..400,
            asked in any::<bool>(),
            dice in 0.0..1.0_f64,
        ) {
            let life = Life {
                not_before: day(from),
                not_after: day(from) + Duration::from_secs(secs),
            };
            let window = Window { start: day(start), end: day(start + wide) };
            let at = renewal(life, asked.then_some(window), dice);
            prop_assert!(life.not_before < at && at < life.not_after);
        }

        #[test]
        fn a_rest_is_never_shorter_than_a_second_nor_longer_than_nine_days(
            cause in prop_oneof![
                Just(Cause::Unreachable), Just(Cause::Busy), Just(Cause::Unproven), Just(Cause::Refused)
            ],
            failures in any::<u32>(),
            said in proptest::option::of(any::<u64>()),
            dice in 0.0..1.0_f64,
        ) {
            let rest = rest(cause, failures, said.map(Duration::from_secs), dice);
            prop_assert!(rest >= Duration::from_secs(1) && rest < DAY * 9);
        }
    }
}
