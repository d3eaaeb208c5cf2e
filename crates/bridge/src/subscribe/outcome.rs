//! What a service's answer means for the record that it was given.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

/// What happens to a record next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Delivered.
    Acknowledged,
    /// Try again, after this long if the service named a time. `slow` holds the whole subscription back that long.
    Retry {
        after: Option<Duration>,
        slow: bool,
        why: String,
    },
    /// Trying again is useless: to the dead-letter topic.
    Dead { why: String },
    /// The service has no use for it.
    Dropped,
    /// The service wants no more records at all.
    Disabled,
}

/// Retry-After values above this are cut to it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Reads an answer. The header `x-outcome: retry[;delay=SECONDS] | drop | dlq` wins over the status.
pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let said = headers
        .get("x-outcome")
        .and_then(|value| value.to_str().ok());
    if let Some(outcome) = said.and_then(explicit) {
        return outcome;
    }
    let why = format!("the service answered {status}");
    match status.as_u16() {
        200..=299 => Outcome::Acknowledged,
        408 | 425 | 429 | 503 => Outcome::Retry {
            after: retry_after(headers),
            slow: true,
            why,
        },
        410 => Outcome::Disabled,
        500..=599 => Outcome::Retry {
            after: retry_after(headers),
            slow: false,
            why,
        },
        _ => Outcome::Dead { why },
    }
}

fn explicit(text: &str) -> Option<Outcome> {
    let mut parts = text.split(';').map(str::trim);
    match parts.next()? {
        "retry" => {
            let seconds = parts
                .find_map(|part| part.strip_prefix("delay="))
                .and_then(|text| text.parse().ok());
            let after = seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
            Some(Outcome::Retry {
                after,
                slow: false,
                why: "the service asked for a retry".into(),
            })
        }
        "drop" => Some(Outcome::Dropped),
        "dlq" => Some(Outcome::Dead {
            why: "the service sent it to the dead letters".into(),
        }),
        _ => None,
    }
}

/// Reads Retry-After in seconds; the form with a date is left to the back-off.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Returns the wait before try number `attempt` + 1: doubled each time, between the bounds, and jittered to between a
/// half and the whole of itself so that records that failed together do not come back together.
pub(super) fn backoff(retry: &model::subscribe::Retry, attempt: u32, random: f64) -> Duration {
    let doubled = retry.backoff_min.saturating_mul(
        1u32.checked_shl(attempt.saturating_sub(1))
            .unwrap_or(u32::MAX),
    );
    doubled.min(retry.backoff_max).mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, headers: &[(&'static str, &'static str)], expected: &str) {
        let headers = headers
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
            .collect();
        let text = match of_answer(StatusCode::from_u16(status).unwrap(), &headers) {
            Outcome::Acknowledged => "ack".into(),
            Outcome::Retry { after, slow, .. } => {
                format!("retry {after:?} {}", if slow { "all" } else { "one" })
            }
            Outcome::Dead { .. } => "dead".into(),
            Outcome::Dropped => "drop".into(),
            Outcome::Disabled => "disable".to_owned(),
        };
        assert_eq!(text, expected, "{status} {headers:?}");
    }

    #[test]
    fn statuses_mean_what_the_mapping_says() {
        check(200, &[], "ack");
        check(204, &[], "ack");
        check(302, &[], "dead");
        check(400, &[], "dead");
        check(404, &[], "dead");
        check(408, &[], "retry None all");
        check(410, &[], "disable");
        check(425, &[], "retry None all");
        check(429, &[("retry-after", "7")], "retry Some(7s) all");
        check(500, &[], "retry None one");
        check(503, &[("retry-after", "99999999")], "retry Some(3600s) all");
        check(503, &[("retry-after", "tomorrow")], "retry None all");
    }

    #[test]
    fn an_explicit_outcome_wins() {
        check(
            200,
            &[("x-outcome", "retry;delay=30")],
            "retry Some(30s) one",
        );
        check(200, &[("x-outcome", "retry")], "retry None one");
        check(500, &[("x-outcome", "drop")], "drop");
        check(200, &[("x-outcome", "dlq")], "dead");
        check(200, &[("x-outcome", "perhaps")], "ack");
    }

    #[test]
    fn the_backoff_doubles_within_its_bounds() {
        let retry = model::subscribe::Retry::default();
        let whole = |attempt| backoff(&retry, attempt, 1.0);
        assert_eq!(whole(1), retry.backoff_min);
        assert_eq!(whole(2), retry.backoff_min * 2);
        assert_eq!(whole(40), retry.backoff_max);
        assert_eq!(whole(u32::MAX), retry.backoff_max);
        assert_eq!(backoff(&retry, 1, 0.0), retry.backoff_min / 2);
    }
}
