//! Sizes as people write them, for serde: `64KiB`, `1GiB`, `1048576`.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// A size field: `#[serde(with = "crate::units::size")]`.
pub(crate) mod size {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&kit::human::size_text(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        kit::human::size(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A size field that may be absent: `#[serde(default, with = "crate::units::maybe_size")]`.
pub(crate) mod maybe_size {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => size::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| kit::human::size(&text).map_err(D::Error::custom))
            .transpose()
    }
}
