//! Random messages, written by walking the tables: independent of the generated code.

use std::path::Path;

use bytes::Bytes;

use crate::table::{self, Field, File, Kind, Message, Struct, Versions};

/// Reads the tables that the crate was built from.
pub(crate) fn tables() -> Vec<File> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("messages");
    table::read_all(&folder).expect("the build read them too")
}

/// Returns the bytes of a message with random values in every field that the version has.
pub(crate) fn bytes(message: &Message, version: i16, seed: u64) -> Bytes {
    let flexible = message.flexible.is_some_and(|first| version >= first);
    let mut random = Random {
        message,
        version,
        flexible,
        state: seed | 1,
        out: Vec::new(),
    };
    random.structure(&message.structs[0]);
    random.out.into()
}

struct Random<'a> {
    message: &'a Message,
    version: i16,
    flexible: bool,
    state: u64,
    out: Vec<u8>,
}

impl Random<'_> {
    fn next(&mut self) -> u64 {
        // xorshift64* by Vigna: plenty for test values, and the same everywhere.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 33) % limit
    }

    fn has(&self, versions: Versions) -> bool {
        (versions.first..=versions.last).contains(&self.version)
    }

    fn structure(&mut self, body: &Struct) {
        for field in &body.fields {
            if field.tag.is_none() && self.has(field.versions) {
                self.field(field);
            }
        }
        if self.flexible {
            self.tags(body);
        }
    }

    fn tags(&mut self, body: &Struct) {
        let mut tagged: Vec<&Field> = body
            .fields
            .iter()
            .filter(|field| field.tag.is_some() && self.has(field.versions))
            .collect();
        tagged.sort_by_key(|field| field.tag);
        tagged.retain(|_| self.below(3) > 0);
        self.uvarint(tagged.len() as u64);
        for field in tagged {
            let before = std::mem::take(&mut self.out);
            self.kind(&field.kind, true);
            let value = std::mem::replace(&mut self.out, before);
            self.uvarint(u64::from(field.tag.expect("filtered")));
            self.uvarint(value.len() as u64);
            self.out.extend(value);
        }
    }

    fn field(&mut self, field: &Field) {
        let nullable = field.nullable.is_some_and(|versions| self.has(versions));
        if nullable && self.below(4) == 0 {
            match &field.kind {
                Kind::Struct(_) => self.out.push(0xff),
                _ if self.flexible => self.out.push(0),
                Kind::Scalar(kind) if kind == "string" => self.out.extend([0xff; 2]),
                _ => self.out.extend([0xff; 4]),
            }
            return;
        }
        if nullable && matches!(field.kind, Kind::Struct(_)) {
            self.out.push(1);
        }
        self.kind(&field.kind, false);
    }

    /// A value; with `full` one that no field has by default.
    fn kind(&mut self, kind: &Kind, full: bool) {
        match kind {
            Kind::Array(inner) => {
                let count = u64::from(full) + self.below(3);
                self.length(count, 4);
                for _ in 0..count {
                    self.kind(inner, full);
                }
            }
            Kind::Struct(name) => {
                let body = self.message.structs.iter().find(|body| body.name == *name);
                self.structure(body.expect("the table says what it is made of"));
            }
            Kind::Scalar(name) => self.scalar(name, full),
        }
    }

    fn scalar(&mut self, name: &str, full: bool) {
        let size = match name {
            "bool" => {
                let set = full || self.below(2) == 0;
                return self.out.push(u8::from(set));
            }
            "string" => {
                let length = u64::from(full) + self.below(12);
                let text: String = (0..length)
                    .map(|_| ['a', 'Z', '7', '-', 'é', '中'][self.below(6) as usize])
                    .collect();
                self.length(text.len() as u64, 2);
                return self.out.extend(text.as_bytes());
            }
            "bytes" | "records" => {
                let length = match self.below(8) {
                    0 => 4000 + self.below(9000),
                    _ => self.below(200),
                };
                self.length(length, 4);
                let first = self.next();
                return self
                    .out
                    .extend((0..length).map(|at| (first ^ (at * 31)) as u8));
            }
            "f64" => {
                let number = self.next() as f64 / 1000.0;
                return self.out.extend(number.to_be_bytes());
            }
            "i8" => 1,
            "i16" | "u16" => 2,
            "i32" | "u32" => 4,
            "i64" => 8,
            "uuid" => 16,
            _ => unreachable!("the table has no scalar `{name}`"),
        };
        for _ in 0..size {
            let byte = self.next() as u8;
            self.out.push(byte);
        }
    }

    fn length(&mut self, length: u64, plain: usize) {
        if self.flexible {
            self.uvarint(length + 1);
        } else {
            self.out.extend(&length.to_be_bytes()[8 - plain..]);
        }
    }

    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
