//! Durations and sizes as people write them: `7d`, `1m30s`, `250ms`; `10MiB`, `1GB`.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a duration or a size could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError {
    what: String,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for UnitError {}

fn error(what: String) -> UnitError {
    UnitError { what }
}

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a duration: one or more numbers with a unit of `ms`, `s`, `m`, `h`, `d`, `w`, largest first or not
/// (`1h30m`, `7d`, `1.5s`). A bare `0` is allowed; any other bare number is not, because its unit would be a guess.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(kit::human::duration("1m30s").unwrap(), Duration::from_secs(90));
/// assert!(kit::human::duration("10").is_err());
/// ```
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = trimmed;
    if rest.is_empty() {
        return Err(error("an empty duration; write for example `1s`".into()));
    }
    let mut total_ms = 0f64;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or_else(|| {
            error(format!(
                "`{text}` is not a duration; write for example `250ms`, `1m30s` or `7d`"
            ))
        })?;
        let unit_end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(error(if unit.is_empty() {
                format!("`{text}` has no unit; write for example `{trimmed}s` or `{trimmed}ms`")
            } else {
                format!("`{text}` has the unknown unit `{unit}`; use ms, s, m, h, d or w")
            }));
        };
        total_ms += number * *factor as f64;
        rest = next.trim_start();
    }
    // A hundred thousand years: beyond it the value is a mistake and would overflow a clock.
    if total_ms > 3.2e15 {
        return Err(error(format!("`{text}` is too long a duration")));
    }
    Ok(Duration::from_micros((total_ms * 1000.0).round() as u64))
}

/// Writes a duration in the largest unit that keeps it whole, so that [`duration`] reads the same value.
pub fn duration_text(value: Duration) -> String {
    let ms = value.as_millis();
    if ms == 0 && !value.is_zero() {
        return format!("{}ms", value.as_micros() as f64 / 1000.0);
    }
    for (unit, factor) in DURATION_UNITS.iter().rev() {
        let factor = u128::from(*factor);
        if ms >= factor
            && ms.is_multiple_of(factor)
            && value.subsec_nanos().is_multiple_of(1_000_000)
        {
            return format!("{}{unit}", ms / factor);
        }
    }
    if ms == 0 {
        "0".into()
    } else {
        format!("{}ms", value.as_micros() as f64 / 1000.0)
    }
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
];

/// Reads a size in bytes: `1024`, `64KiB`, `1.5GB`, Kubernetes' `64Mi` too. Units are read without regard to case.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let bad = || {
        error(format!(
            "`{text}` is not a size; write for example `1024`, `64KiB` or `1GB`"
        ))
    };
    let (value, unit) = number(trimmed).ok_or_else(bad)?;
    let unit = unit.trim();
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or_else(bad)?;
    let bytes = value * *factor as f64;
    if bytes > i64::MAX as f64 {
        return Err(error(format!("`{text}` is too large a size")));
    }
    Ok(bytes.round() as u64)
}

/// Writes a size in the largest binary unit that keeps it whole, so that [`size`] reads the same value.
pub fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let factor = 1u64 << shift;
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Splits a leading decimal number from the rest.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let value = text[..end].parse::<f64>().ok().filter(|v| v.is_finite())?;
    Some((value, &text[end..]))
}

/// A duration field: `#[serde(with = "kit::human::as_duration")]`.
pub mod as_duration {
    use super::*;

    /// Reads a text such as `1m30s`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        duration(&text).map_err(D::Error::custom)
    }

    /// Writes a text that reads back the same.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&duration_text(*value))
    }
}

/// An optional duration field: `#[serde(default, with = "kit::human::as_duration_option")]`.
pub mod as_duration_option {
    use super::*;

    /// Reads a text such as `1m30s`, or nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| duration(&text).map_err(D::Error::custom))
            .transpose()
    }

    /// Writes a text that reads back the same, or nothing.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(duration_text).serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_duration(text: &str, expected: Result<u64, &str>) {
        match (duration(text), expected) {
            (Ok(value), Ok(ms)) => {
                assert_eq!(value.as_millis() as u64, ms, "{text}");
                assert_eq!(
                    duration(&duration_text(value)).unwrap(),
                    value,
                    "{text} round trip"
                );
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{text}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        check_duration("7d", Ok(604_800_000));
        check_duration("1m30s", Ok(90_000));
        check_duration("1.5s", Ok(1_500));
        check_duration(" 250ms ", Ok(250));
        check_duration("0", Ok(0));
        check_duration("10", Err("no unit"));
        check_duration("10x", Err("unknown unit `x`"));
        check_duration("", Err("empty"));
        check_duration("s", Err("not a duration"));
        check_duration("99999999999999w", Err("too long"));
    }

    #[track_caller]
    fn check_size(text: &str, expected: Option<u64>) {
        assert_eq!(size(text).ok(), expected, "{text}");
        if let Some(bytes) = expected {
            assert_eq!(size(&size_text(bytes)).unwrap(), bytes, "{text} round trip");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        check_size("1024", Some(1024));
        check_size("64KiB", Some(65_536));
        check_size("64Mi", Some(64 << 20));
        check_size("1.5GB", Some(1_500_000_000));
        check_size("1 gib", Some(1 << 30));
        check_size("ten", None);
        check_size("10 apples", None);
        check_size("999999999999TiB", None);
    }
}
