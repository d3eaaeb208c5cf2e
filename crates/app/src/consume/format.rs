//! How a record is printed, in the letters that kcat has made common.

use std::io::{self, Write};
use std::str::FromStr;

use krafka::ConsumerRecord;

/// A format such as `%o %k=%s\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    Headers,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' && letter != '\\' {
                plain.push(letter);
                continue;
            }
            let part = match (letter, letters.next()) {
                ('\\', Some('n')) => Part::Text("\n".to_owned()),
                ('\\', Some('t')) => Part::Text("\t".to_owned()),
                ('\\', Some('0')) => Part::Text("\0".to_owned()),
                ('\\', Some('\\')) => Part::Text("\\".to_owned()),
                ('%', Some('%')) => Part::Text("%".to_owned()),
                ('%', Some('t')) => Part::Topic,
                ('%', Some('p')) => Part::Partition,
                ('%', Some('o')) => Part::Offset,
                ('%', Some('T')) => Part::Timestamp,
                ('%', Some('k')) => Part::Key,
                ('%', Some('K')) => Part::KeyBytes,
                ('%', Some('s')) => Part::Value,
                ('%', Some('S')) => Part::ValueBytes,
                ('%', Some('h')) => Part::Headers,
                (sign, other) => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "`{sign}{other}` is not known; %t %p %o %T %k %K %s %S %h %% \\n \\t \\0 \\\\ are"
                    ));
                }
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

impl Format {
    /// Writes a record.
    pub(crate) fn write(&self, record: &ConsumerRecord, out: &mut impl Write) -> io::Result<()> {
        let bytes = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(-1, |b| b.len() as i64);
        for part in &self.0 {
            match part {
                Part::Text(text) => out.write_all(text.as_bytes())?,
                Part::Topic => out.write_all(record.topic.as_bytes())?,
                Part::Partition => write!(out, "{}", record.partition)?,
                Part::Offset => write!(out, "{}", record.offset)?,
                Part::Timestamp => write!(out, "{}", record.timestamp)?,
                Part::Key => out.write_all(record.key.as_deref().unwrap_or_default())?,
                Part::KeyBytes => write!(out, "{}", bytes(&record.key))?,
                Part::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Part::ValueBytes => write!(out, "{}", bytes(&record.value))?,
                Part::Headers => headers(record, out)?,
            }
        }
        Ok(())
    }
}

fn headers(record: &ConsumerRecord, out: &mut impl Write) -> io::Result<()> {
    for (number, (name, value)) in record.headers.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        write!(out, "{comma}{name}=")?;
        out.write_all(value.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_letter_stands_for_a_part_of_the_record() {
        let mut record = ConsumerRecord::new("t", 1, 2, Some("k".into()), None);
        record.headers = vec![("a".into(), Some("b".into())), ("c".into(), None)];
        let check = |format: &str, expected: &str| {
            let mut out = Vec::new();
            let format: Format = format.parse().expect("a format");
            format.write(&record, &mut out).expect("memory takes it");
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(r"%t/%p@%o %k=%s\n", "t/1@2 k=\n");
        check("%K %S %h 100%%", "1 -1 a=b,c= 100%");
        assert!("%x".parse::<Format>().is_err() && "%".parse::<Format>().is_err());
    }
}
