//! Compiled regular expressions, kept from one table to the next: compiling one costs a thousand times what comparing two
//! texts costs.

use ahash::HashMap;

use super::rule::{Test, Whole};

/// The patterns of the present tables, and of those before while the present ones are built.
#[derive(Debug, Default)]
pub struct Patterns {
    before: HashMap<Box<str>, Whole>,
    now: HashMap<Box<str>, Whole>,
}

impl Patterns {
    /// Begins other tables.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Ends them: what they do not use is forgotten.
    pub fn finish(&mut self) {
        self.before = HashMap::default();
    }

    /// Returns the pattern, compiled only where it is not there already.
    pub(super) fn whole(&mut self, pattern: &str) -> Result<Whole, regex::Error> {
        if let Some(known) = self.now.get(pattern) {
            return Ok(known.clone());
        }
        let whole = match self.before.remove(pattern) {
            Some(known) => known,
            None => Whole::new(pattern)?,
        };
        self.now.insert(pattern.into(), whole.clone());
        Ok(whole)
    }

    /// Reads a test on a value; `.*` asks for presence.
    pub(super) fn test(&mut self, pattern: &str) -> Result<Test, regex::Error> {
        Ok(match pattern {
            ".*" => Test::Present,
            _ => Test::Regex(self.whole(pattern)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_lives_as_long_as_tables_use_it() {
        let mut patterns = Patterns::default();
        let known = |patterns: &Patterns| {
            let mut known: Vec<&str> = patterns.now.keys().map(|text| &**text).collect();
            known.sort_unstable();
            known.join(" ")
        };
        for (used, expected) in [
            (&["/a.*", "/b.*", "/a.*"][..], "/a.* /b.*"),
            (&["/b.*", "/c.*"], "/b.* /c.*"),
            (&[], ""),
        ] {
            patterns.begin();
            for pattern in used {
                let whole = patterns.whole(pattern).expect("a pattern");
                assert_eq!(whole.text(), *pattern);
            }
            assert!(patterns.whole("a)(b").is_err());
            patterns.finish();
            assert_eq!(known(&patterns), expected);
            assert!(patterns.before.is_empty());
        }
    }
}
