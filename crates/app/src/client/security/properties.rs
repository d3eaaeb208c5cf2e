//! Java's properties files, as far as Kafka's clients use them.

use std::collections::HashMap;

/// Names and values.
#[derive(Debug, Default)]
pub(super) struct Properties(HashMap<String, String>);

impl Properties {
    /// Reads `name=value`, `name: value` and `name value`; `#` and `!` begin comments, a backslash at the end continues a line.
    pub(super) fn read(text: &str) -> Self {
        let mut found = HashMap::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let mut line = line.trim_start().to_owned();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            while continues(&line) {
                line.pop();
                match lines.next() {
                    Some(next) => line.push_str(next.trim_start()),
                    None => break,
                }
            }
            let end = line.find(['=', ':', ' ', '\t']).unwrap_or(line.len());
            let (name, rest) = line.split_at(end);
            let rest = rest.trim_start();
            let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
            found.insert(unescape(name), unescape(rest.trim_start()));
        }
        Self(found)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Returns whether the last backslash is not itself escaped.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, characters.clone().next()) {
            ('\\', Some(next)) => {
                characters.next();
                out.push(match next {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                });
            }
            _ => out.push(character),
        }
    }
    out
}

/// Returns an option of a JAAS login module: `... required username="alice" password="...";`.
pub(super) fn of_jaas(login: &str, option: &str) -> Option<String> {
    let mut rest = login;
    loop {
        let at = rest.find(option)?;
        let free = at == 0 || rest[..at].ends_with(char::is_whitespace);
        rest = &rest[at + option.len()..];
        let Some(value) = rest.trim_start().strip_prefix('=').filter(|_| free) else {
            continue;
        };
        let value = value.trim_start();
        let Some(quoted) = value.strip_prefix('"') else {
            let end = value.find(|c: char| c.is_whitespace() || c == ';');
            return Some(value[..end.unwrap_or(value.len())].to_owned());
        };
        let mut out = String::new();
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => return Some(out),
                '\\' => out.extend(characters.next()),
                other => out.push(other),
            }
        }
        return None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_java_does() {
        let text = "# no\n! no\n\na=1\n b : 2\nc 3\nd=x\\\n   y\ne=\nf=a\\=b\\\\\ng\nh==\n";
        let properties = Properties::read(text);
        for (name, value) in [
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", "xy"),
            ("e", ""),
            ("f", "a=b\\"),
            ("g", ""),
            ("h", "="),
        ] {
            assert_eq!(properties.get(name), Some(value), "{name}");
        }
        assert_eq!(properties.get("#"), None);
    }

    #[test]
    fn logins_have_options() {
        let login = "a.b.PlainLoginModule required username=\"al\\\"ice\"  password=plain;";
        assert_eq!(of_jaas(login, "username").as_deref(), Some("al\"ice"));
        assert_eq!(of_jaas(login, "password").as_deref(), Some("plain"));
        assert_eq!(of_jaas(login, "token"), None);
        assert_eq!(of_jaas("x username=\"open", "username"), None);
    }
}
