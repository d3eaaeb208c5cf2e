//! Records as JSON, one on a line: what `consume --json` prints and `produce --json` reads.

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use krafka::{ConsumerRecord, Record};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A record as a line of JSON says it.
///
/// Bytes that are no text stand in Base64 in `keyBase64`, `valueBase64` and `headersBase64`, in place of `key`, `value` and `headers`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Told {
    #[serde(rename = "topic")]
    _topic: Option<String>,
    partition: Option<i32>,
    #[serde(rename = "offset")]
    _offset: Option<i64>,
    timestamp: Option<i64>,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    headers: Vec<(String, Option<String>)>,
    headers_base64: Vec<(String, Option<String>)>,
}

impl Told {
    /// Returns the record for a topic. Where it was before is not where it goes, but for the partition.
    pub(crate) fn record(self, topic: &str) -> anyhow::Result<Record> {
        let mut record = Record::new(topic, Bytes::new());
        record.partition = self.partition;
        record.timestamp = self.timestamp.filter(|ms| *ms >= 0);
        record.key = bytes(self.key, self.key_base64, "keyBase64")?;
        record.value = bytes(self.value, self.value_base64, "valueBase64")?;
        for (name, value) in self.headers {
            let value = value.map(Bytes::from);
            record = with_header(record, name, value);
        }
        for (name, value) in self.headers_base64 {
            let value = bytes(None, value, "headersBase64")?;
            record = with_header(record, name, value);
        }
        Ok(record)
    }
}

fn with_header(record: Record, name: String, value: Option<Bytes>) -> Record {
    match value {
        Some(value) => record.header(name, value),
        None => record.null_header(name),
    }
}

fn bytes(
    text: Option<String>,
    base64: Option<String>,
    field: &str,
) -> anyhow::Result<Option<Bytes>> {
    match base64 {
        Some(base64) => {
            let decoded = STANDARD.decode(&base64);
            let decoded = decoded.with_context(|| format!("`{field}` is not Base64"))?;
            Ok(Some(decoded.into()))
        }
        None => Ok(text.map(Bytes::from)),
    }
}

/// Returns a record as JSON.
pub(crate) fn tell(record: &ConsumerRecord) -> Value {
    let mut told = Map::new();
    told.insert("topic".to_owned(), json!(&*record.topic));
    told.insert("partition".to_owned(), json!(record.partition));
    told.insert("offset".to_owned(), json!(record.offset));
    told.insert("timestamp".to_owned(), json!(record.timestamp));
    put(&mut told, "key", record.key.as_deref());
    put(&mut told, "value", record.value.as_deref());
    let headers = record.headers.iter();
    let texts: Option<Vec<Value>> = headers
        .map(|(name, value)| match value {
            None => Some(json!([name, null])),
            Some(value) => std::str::from_utf8(value)
                .ok()
                .map(|text| json!([name, text])),
        })
        .collect();
    if let Some(texts) = texts {
        told.insert("headers".to_owned(), texts.into());
    } else {
        let headers = record.headers.iter();
        let coded = headers.map(|(name, value)| {
            let coded = value.as_ref().map(|value| STANDARD.encode(value));
            json!([name, coded])
        });
        told.insert("headersBase64".to_owned(), coded.collect());
    }
    told.into()
}

fn put(told: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        told.insert(name.to_owned(), Value::Null);
        return;
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => told.insert(name.to_owned(), text.into()),
        Err(_) => told.insert(format!("{name}Base64"), STANDARD.encode(bytes).into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_again() {
        let mut record =
            ConsumerRecord::new("t", 3, 7, Some("k".into()), Some(vec![0xff, 0].into()));
        record.timestamp = 5;
        record.headers = vec![("a".into(), Some("b".into())), ("c".into(), None)];
        let line = tell(&record).to_string();
        assert!(line.contains(r#""valueBase64":"/wA=""#), "{line}");
        let read: Told = serde_json::from_str(&line).expect("our own form");
        let read = read.record("u").expect("a record");
        assert_eq!((read.topic.as_str(), read.partition), ("u", Some(3)));
        assert_eq!((read.key, read.value), (record.key, record.value));
        assert_eq!((read.headers, read.timestamp), (record.headers, Some(5)));
    }

    #[test]
    fn no_value_is_a_tombstone_and_unknown_fields_are_refused() {
        let read: Told = serde_json::from_str(r#"{"key":"k"}"#).expect("a record");
        let read = read.record("t").expect("a record");
        assert!(read.value.is_none() && read.timestamp.is_none());
        assert!(serde_json::from_str::<Told>(r#"{"vallue":"k"}"#).is_err());
    }
}
