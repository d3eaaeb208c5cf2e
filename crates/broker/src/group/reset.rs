//! Where a share group begins to read a partition that it has never read (`share.auto.offset.reset`).

use std::str::FromStr;

const BY_DURATION: &str = "by_duration";

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    /// With the oldest record.
    Earliest,
    /// With what comes next.
    Latest,
    /// With the first record that is at most this many milliseconds old.
    ByDuration(i64),
}

impl FromStr for Reset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Reset::Earliest),
            "latest" => Ok(Reset::Latest),
            _ => {
                let span = text
                    .strip_prefix(BY_DURATION)
                    .and_then(|rest| rest.strip_prefix(':'));
                let millis = span.and_then(millis).filter(|millis| *millis >= 0);
                millis.map(Reset::ByDuration).ok_or_else(|| {
                    format!(
                        "Invalid value `{text}`: write `earliest`, `latest`, or `{BY_DURATION}:` and a duration in ISO 8601, as `PT1H`"
                    )
                })
            }
        }
    }
}

/// Reads a duration as `java.time.Duration` does: `PnDTnHnMn.nS`, each number with its own sign.
fn millis(text: &str) -> Option<i64> {
    const DAY: i64 = 86_400_000;
    let upper = text.to_ascii_uppercase();
    let (negative, rest) = match upper.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, upper.strip_prefix('+').unwrap_or(&upper)),
    };
    let rest = rest.strip_prefix('P')?;
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    if !date.is_empty() {
        total = whole(date.strip_suffix('D')?)?.checked_mul(DAY)?;
    }
    let mut rest = time;
    for (unit, factor) in [('H', 3_600_000), ('M', 60_000)] {
        if let Some((number, later)) = rest.split_once(unit) {
            total = total.checked_add(whole(number)?.checked_mul(factor)?)?;
            rest = later;
        }
    }
    if !rest.is_empty() {
        total = total.checked_add(seconds(rest.strip_suffix('S')?)?)?;
    }
    match negative {
        true => total.checked_neg(),
        false => Some(total),
    }
}

fn whole(text: &str) -> Option<i64> {
    let digits = text.trim_start_matches(['-', '+']);
    let plain = digits.len() + 1 >= text.len() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// Seconds with at most nine digits behind the point; what is below a millisecond is left out.
fn seconds(text: &str) -> Option<i64> {
    let (number, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let good = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: i64 = format!("{fraction:0<3}")
        .get(..3)
        .filter(|_| good)?
        .parse()
        .ok()?;
    let millis = whole(number)?.checked_mul(1000)?;
    match number.starts_with('-') {
        true => millis.checked_sub(fraction),
        false => millis.checked_add(fraction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin_are_read_as_kafka_reads_them() {
        for (text, expected) in [
            ("earliest", Some(Reset::Earliest)),
            ("latest", Some(Reset::Latest)),
            ("by_duration:PT1H", Some(Reset::ByDuration(3_600_000))),
            ("by_duration:pt1m", Some(Reset::ByDuration(60_000))),
            (
                "by_duration:P1DT2H3M4.5S",
                Some(Reset::ByDuration(93_784_500)),
            ),
            ("by_duration:P-1DT25H", Some(Reset::ByDuration(3_600_000))),
            ("by_duration:PT0S", Some(Reset::ByDuration(0))),
            ("by_duration:-PT1H", None),
            ("by_duration:PT-1H", None),
            ("by_duration:P", None),
            ("by_duration:PT", None),
            ("by_duration:", None),
            ("by_duration", None),
            ("by_duration:1h", None),
            ("by_duration:PT1H1H", None),
            ("by_duration:P99999999999999999D", None),
            ("Latest", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Reset>().ok(), expected, "{text}");
        }
    }
}
