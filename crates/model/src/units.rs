//! Durations and sizes as people write them, for serde: `7d`, `250ms`, `1GiB`.

use std::time::Duration;

/// `7d`, `1h30m`, `250ms`; with `#[serde(with = "crate::units::duration")]`.
pub mod duration {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&print_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// The same for a duration that may be absent.
pub mod maybe_duration {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_str(&print_duration(*value)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| parse_duration(&text).map_err(D::Error::custom))
            .transpose()
    }
}

/// `64KiB`, `1GiB`, `500MB`, `1048576`; with `#[serde(with = "crate::units::size")]`.
pub mod size {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&print_size(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        parse_size(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// The same for a size that may be absent.
pub mod maybe_size {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_str(&print_size(*value)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| parse_size(&text).map_err(D::Error::custom))
            .transpose()
    }
}

const DURATION_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
    ("w", 604_800_000),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Parses `7d`, `1h30m`, `250ms`, `1.5s`; every number needs its unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration, write it as `250ms`, `30s`, `1h30m` or `7d`");
    let mut rest = text.trim();
    let mut total_ms = 0f64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let (_, unit_ms) = DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == &rest[..letters])
            .ok_or_else(bad)?;
        total_ms += number * *unit_ms as f64;
        rest = &rest[letters..];
    }
    if total_ms > MS_MAX {
        return Err(format!("`{text}` is longer than a thousand years"));
    }
    Ok(Duration::from_millis(total_ms.round() as u64))
}

/// A thousand years: beyond it, adding to a timestamp would overflow.
const MS_MAX: f64 = 1000.0 * 366.0 * 86_400_000.0;

/// Prints a duration with the largest unit that divides it.
pub fn print_duration(value: Duration) -> String {
    let ms = value.as_millis() as u64;
    if ms == 0 {
        return "0s".to_owned();
    }
    let (name, unit) = DURATION_UNITS[..5]
        .iter()
        .find(|(_, unit)| ms.is_multiple_of(*unit))
        .expect("every number of milliseconds is divisible by 1");
    format!("{}{name}", ms / unit)
}

/// Parses `1048576`, `64KiB`, `1GiB`, `500MB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size, write it as `64KiB`, `500MB` or `1GiB`");
    let text_trimmed = text.trim();
    let digits = text_trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(digits);
    let unit = unit.trim();
    let factor = match unit {
        "" => 1,
        unit => {
            let known = SIZE_UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit));
            known.ok_or_else(bad)?.1
        }
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .ok_or_else(|| format!("`{text}` is too large"));
    }
    let number: f64 = number.parse().map_err(|_| bad())?;
    let bytes = number * factor as f64;
    if bytes >= u64::MAX as f64 {
        return Err(format!("`{text}` is too large"));
    }
    Ok(bytes.round() as u64)
}

/// Prints a size with the largest binary unit that divides it.
pub fn print_size(value: u64) -> String {
    match SIZE_UNITS[..4]
        .iter()
        .find(|(_, unit)| value != 0 && value.is_multiple_of(*unit))
    {
        Some((name, unit)) => format!("{}{name}", value / unit),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written() {
        for (text, ms) in [
            ("250ms", 250),
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "7",
            "d",
            "7 days",
            "-1s",
            "1s2",
            "9999999999999d",
            "1..2s",
            "ms",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("64KiB", 65_536),
            ("1.5 MiB", 1_572_864),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "12 apples", "-5", "99999999999TiB", "1e5"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn printed_units_read_back() {
        for ms in [0, 1, 999, 1000, 60_000, 5_400_000, 604_800_000] {
            let value = Duration::from_millis(ms);
            assert_eq!(parse_duration(&print_duration(value)), Ok(value));
        }
        for bytes in [0, 1, 1000, 1024, 1 << 30, u64::MAX] {
            assert_eq!(parse_size(&print_size(bytes)), Ok(bytes));
        }
    }
}
