//! Writes the `ErrorCode` enum from `errors.txt`: code, Kafka's name, `retry` or `-`, our words.

use std::fmt::Write;

pub(crate) fn emit(text: &str) -> Result<String, String> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let fail = || format!("errors.txt:{}: cannot be read: `{line}`", index + 1);
        let mut words = line
            .splitn(4, ' ')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let (Some(code), Some(name), Some(retry), Some(message)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(fail());
        };
        let code: i16 = code.parse().map_err(|_| fail())?;
        let retriable = match retry {
            "retry" => true,
            "-" => false,
            _ => return Err(fail()),
        };
        rows.push((code, name, camel(name), retriable, message));
    }

    let mut out = String::from(
        "/// What went wrong, as Kafka tells it on the wire.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n#[repr(i16)]\npub enum ErrorCode {\n",
    );
    for (code, name, variant, _, message) in &rows {
        let _ = writeln!(out, "/// `{name}`: {message}.\n{variant} = {code},");
    }
    out.push_str("}\n\n/// Every code that is known, with its facts, in the order of the table.\n");
    let _ = writeln!(out, "const FACTS: [Facts; {}] = [", rows.len());
    for (_, name, variant, retriable, message) in &rows {
        let _ = writeln!(
            out,
            "Facts {{ error: ErrorCode::{variant}, name: {name:?}, retriable: {retriable}, message: {message:?} }},"
        );
    }
    out.push_str("];\n");
    Ok(out)
}

fn camel(name: &str) -> String {
    let mut out = String::new();
    for word in name.split('_') {
        let (first, rest) = word.split_at(word.len().min(1));
        out.push_str(first);
        out.push_str(&rest.to_lowercase());
    }
    out
}
