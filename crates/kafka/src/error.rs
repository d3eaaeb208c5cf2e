//! Kafka's error codes, with their names, meanings, and whether trying again makes sense.

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/errors.rs"));

/// What is known about one code.
struct Facts {
    error: ErrorCode,
    name: &'static str,
    retriable: bool,
    message: &'static str,
}

impl ErrorCode {
    /// Returns the number that goes over the wire; 0 is [`ErrorCode::None`].
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Returns the error of a number, if it is a known one.
    pub fn from_code(code: i16) -> Option<ErrorCode> {
        // The table starts at -1 and has no gaps; a test holds it to that.
        let index = usize::try_from(i32::from(code) + 1).ok()?;
        FACTS.get(index).map(|facts| facts.error)
    }

    /// Returns Kafka's name, such as `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Returns whether a client may send the same request again and hope.
    pub fn retriable(self) -> bool {
        self.facts().retriable
    }

    /// Returns what the code means, in a few words.
    pub fn message(self) -> &'static str {
        self.facts().message
    }

    fn facts(self) -> &'static Facts {
        &FACTS[(i32::from(self.code()) + 1) as usize]
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_gaps() {
        for (index, facts) in FACTS.iter().enumerate() {
            assert_eq!(
                i32::from(facts.error.code()),
                index as i32 - 1,
                "{}",
                facts.name
            );
            assert_eq!(ErrorCode::from_code(facts.error.code()), Some(facts.error));
            assert_eq!(facts.error.name(), facts.name);
        }
    }

    #[test]
    fn unknown_codes_are_none() {
        for code in [i16::MIN, -2, FACTS.len() as i16, i16::MAX] {
            assert_eq!(ErrorCode::from_code(code), None);
        }
    }
}
