//! Writes the Rust of the messages: one module a file, one struct a message or nested struct.

use std::fmt::Write;

use crate::table::{Field, File, Kind, Message, Struct, Versions};

/// The default of a field for which the table names none.
const NATURAL: &str = "Default::default()";

/// Returns the text of every module, followed by the `ApiKey` enum.
pub(crate) fn messages(files: &[File]) -> Result<String, String> {
    let mut out = String::new();
    for file in files {
        module(&mut out, file)?;
    }
    api_keys(&mut out, files);
    Ok(indent(&out))
}

fn module(out: &mut String, file: &File) -> Result<(), String> {
    match &file.api {
        Some((key, name)) => put(out, format_args!("/// {name} (key {key}).")),
        None => put(out, format_args!("/// Blobs: {}.", words(&file.module))),
    }
    put(out, format_args!("pub mod {} {{", file.module));
    put(
        out,
        format_args!("#[allow(unused_imports)]\nuse super::prelude::*;"),
    );
    let mut done: Vec<&Struct> = Vec::new();
    for message in &file.messages {
        for body in &message.structs {
            match done.iter().find(|known| known.name == body.name) {
                Some(known) if *known == body => continue,
                Some(_) => return Err(format!("{}: two structs `{}`", file.module, body.name)),
                None => done.push(body),
            }
            let doc = if body.name == message.name {
                let Versions { first, last } = message.versions;
                format!("{}, versions {first} to {last}.", words(&message.name))
            } else {
                format!("Part of [`{}`].", message.name)
            };
            structure(out, message, body, &doc);
        }
        facts(out, file, message);
    }
    put(out, format_args!("}}\n"));
    Ok(())
}

fn structure(out: &mut String, message: &Message, body: &Struct, doc: &str) {
    let name = &body.name;
    let natural = |field: &Field| [NATURAL, "None"].contains(&default_of(field).as_str());
    let natural = body.fields.iter().all(natural);
    let derived = if natural { ", Default" } else { "" };
    put(
        out,
        format_args!("/// {doc}\n#[derive(Debug, Clone, PartialEq{derived})]"),
    );
    put(out, format_args!("pub struct {name} {{"));
    for field in &body.fields {
        put(out, format_args!("/// {}", field_doc(field, message)));
        put(
            out,
            format_args!("pub {}: {},", field.name, rust_type(field)),
        );
    }
    put(out, format_args!("}}\n"));
    if !natural {
        put(out, format_args!("impl Default for {name} {{"));
        put(out, format_args!("fn default() -> Self {{\nSelf {{"));
        for field in &body.fields {
            put(out, format_args!("{}: {},", field.name, default_of(field)));
        }
        put(out, format_args!("}}\n}}\n}}\n"));
    }
    put(out, format_args!("impl Wire for {name} {{"));
    read(out, message, body);
    write(out, message, body);
    put(out, format_args!("}}\n"));
}

fn read(out: &mut String, message: &Message, body: &Struct) {
    put(
        out,
        format_args!("fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {{"),
    );
    if asks_version(message, body) {
        put(out, format_args!("let v = r.version();"));
    }
    let tagged = tagged(body);
    let mutable = if tagged.is_empty() { "" } else { "mut " };
    put(out, format_args!("let {mutable}m = Self {{"));
    for field in &body.fields {
        let (name, default) = (&field.name, default_of(field));
        let value = match null_gate(field) {
            Some(nullable) => format!("r.nullable_if({nullable})?"),
            None => "Wire::read(r)?".to_owned(),
        };
        match gate(field.versions, message.versions) {
            _ if field.tag.is_some() => put(out, format_args!("{name}: {default},")),
            Some(gate) => {
                put(
                    out,
                    format_args!("{name}: if {gate} {{ {value} }} else {{ {default} }},"),
                );
            }
            None => put(out, format_args!("{name}: {value},")),
        }
    }
    put(out, format_args!("}};"));
    if message.flexible.is_some() && tagged.is_empty() {
        put(out, format_args!("r.skip_tags()?;"));
    } else if message.flexible.is_some() {
        put(out, format_args!("r.tags(|r, tag| {{"));
        for field in tagged {
            let gate = tag_gate(field, message).map(|gate| format!(" && {gate}"));
            let (name, tag) = (&field.name, field.tag.unwrap_or_default());
            put(
                out,
                format_args!("if tag == {tag}{} {{", gate.unwrap_or_default()),
            );
            put(out, format_args!("m.{name} = Wire::read(r)?;\n}}"));
        }
        put(out, format_args!("Ok(())\n}})?;"));
    }
    put(out, format_args!("Ok(m)\n}}\n"));
}

fn write(out: &mut String, message: &Message, body: &Struct) {
    let silent = body.fields.is_empty() && message.flexible.is_none();
    put(
        out,
        format_args!(
            "fn write(&self, {}: &mut Writer) {{",
            if silent { "_" } else { "w" }
        ),
    );
    if asks_version(message, body) {
        put(out, format_args!("let v = w.version();"));
    }
    for field in body.fields.iter().filter(|field| field.tag.is_none()) {
        let name = &field.name;
        let line = match null_gate(field) {
            Some(nullable) => format!("w.nullable_if({nullable}, &self.{name});"),
            None => format!("self.{name}.write(w);"),
        };
        match gate(field.versions, message.versions) {
            Some(gate) => put(out, format_args!("if {gate} {{\n{line}\n}}")),
            None => put(out, format_args!("{line}")),
        }
    }
    let tagged = tagged(body);
    if message.flexible.is_some() && tagged.is_empty() {
        put(out, format_args!("w.no_tags();"));
    } else if message.flexible.is_some() {
        put(out, format_args!("let mut tags = w.tags();"));
        for field in tagged {
            let gate = tag_gate(field, message).map(|gate| format!("{gate} && "));
            let (name, tag) = (&field.name, field.tag.unwrap_or_default());
            put(
                out,
                format_args!("if {}{} {{", gate.unwrap_or_default(), differs(field)),
            );
            put(out, format_args!("tags.put({tag}, &self.{name});\n}}"));
        }
    }
    put(out, format_args!("}}"));
}

fn facts(out: &mut String, file: &File, message: &Message) {
    let Versions { first, last } = message.versions;
    let name = &message.name;
    let flexible = message
        .flexible
        .map_or("i16::MAX".to_owned(), |from| from.to_string());
    put(
        out,
        format_args!(
            "impl Message for {name} {{\nconst NAME: &'static str = \"{name}\";\n\
             const VERSIONS: RangeInclusive<i16> = {first}..={last};\n\
             const FLEXIBLE: i16 = {flexible};\n{}}}\n",
            throttle(message)
        ),
    );
    if let Some((_, api)) = &file.api
        && name.ends_with("Request")
    {
        put(
            out,
            format_args!(
                "impl Request for {name} {{\nconst KEY: ApiKey = ApiKey::{api};\n\
                 type Response = {api}Response;\n}}\n"
            ),
        );
    }
}

/// What gets at the time that a response asks its client to wait, if it can tell it.
fn throttle(message: &Message) -> &'static str {
    let tells = |field: &Field| field.name == "throttle_time_ms";
    match message.structs[0].fields.iter().any(tells) {
        true => {
            "fn throttle_time_ms(&mut self) -> Option<&mut i32> {\nSome(&mut self.throttle_time_ms)\n}\n"
        }
        false => "",
    }
}

fn api_keys(out: &mut String, files: &[File]) {
    let mut apis: Vec<(i16, &str, &Message)> = files
        .iter()
        .filter_map(|file| {
            let (key, name) = file.api.as_ref()?;
            Some((*key, name.as_str(), file.messages.first()?))
        })
        .collect();
    apis.sort_by_key(|(key, ..)| *key);

    put(
        out,
        format_args!("/// The APIs whose messages this crate knows, with Kafka's keys.\n///"),
    );
    put(
        out,
        format_args!("/// What a broker offers of them is the broker's decision."),
    );
    put(
        out,
        format_args!("#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]"),
    );
    put(out, format_args!("#[repr(i16)]\npub enum ApiKey {{"));
    for (key, name, message) in &apis {
        let Versions { first, last } = message.versions;
        put(
            out,
            format_args!("/// Versions {first} to {last}.\n{name} = {key},"),
        );
    }
    put(
        out,
        format_args!("}}\n\nimpl ApiKey {{\n/// Every known API, in the order of the keys."),
    );
    put(
        out,
        format_args!("pub const ALL: [ApiKey; {}] = [", apis.len()),
    );
    for (_, name, _) in &apis {
        put(out, format_args!("ApiKey::{name},"));
    }
    put(out, format_args!("];\n"));
    table(
        out,
        &apis,
        "Returns Kafka's name.",
        "name(self) -> &'static str",
        |_, name, _| format!("ApiKey::{name} => \"{name}\","),
    );
    let doc = "Returns the versions whose layout is known.";
    table(
        out,
        &apis,
        doc,
        "versions(self) -> RangeInclusive<i16>",
        |_, name, message| {
            format!(
                "ApiKey::{name} => {}..={},",
                message.versions.first, message.versions.last
            )
        },
    );
    let doc = "Returns the first version with compact types and tags, `None` when there is none.";
    table(
        out,
        &apis,
        doc,
        "first_flexible(self) -> Option<i16>",
        |_, name, message| format!("ApiKey::{name} => {:?},", message.flexible),
    );
    put(out, format_args!("/// Returns the API of a key."));
    put(
        out,
        format_args!("pub fn from_key(key: i16) -> Option<ApiKey> {{\nmatch key {{"),
    );
    for (key, name, _) in &apis {
        put(out, format_args!("{key} => Some(ApiKey::{name}),"));
    }
    put(out, format_args!("_ => None,\n}}\n}}\n}}"));
}

fn table(
    out: &mut String,
    apis: &[(i16, &str, &Message)],
    doc: &str,
    signature: &str,
    line: impl Fn(i16, &str, &Message) -> String,
) {
    put(
        out,
        format_args!("/// {doc}\npub fn {signature} {{\nmatch self {{"),
    );
    for (key, name, message) in apis {
        put(out, format_args!("{}", line(*key, name, message)));
    }
    put(out, format_args!("}}\n}}\n"));
}

/// The tagged fields, in the order in which they are written.
fn tagged(body: &Struct) -> Vec<&Field> {
    let mut tagged: Vec<&Field> = body
        .fields
        .iter()
        .filter(|field| field.tag.is_some())
        .collect();
    tagged.sort_by_key(|field| field.tag);
    tagged
}

/// Whether reading or writing the struct depends on the version.
fn asks_version(message: &Message, body: &Struct) -> bool {
    body.fields.iter().any(|field| match field.tag {
        Some(_) => tag_gate(field, message).is_some(),
        None => gate(field.versions, message.versions)
            .or(null_gate(field))
            .is_some(),
    })
}

/// The condition under which the field may be null, if there is one.
fn null_gate(field: &Field) -> Option<String> {
    gate(field.nullable?, field.versions)
}

/// Tags exist in flexible versions only, so a tag that is as old as they are needs no condition.
fn tag_gate(field: &Field, message: &Message) -> Option<String> {
    let first = message
        .flexible
        .unwrap_or(i16::MAX)
        .max(message.versions.first);
    gate(
        field.versions,
        Versions {
            first,
            last: message.versions.last,
        },
    )
}

/// The condition under which `v` is in `inner`, given that it is in `outer`.
fn gate(inner: Versions, outer: Versions) -> Option<String> {
    match (inner.first > outer.first, inner.last < outer.last) {
        (false, false) => None,
        (true, false) => Some(format!("v >= {}", inner.first)),
        (false, true) => Some(format!("v <= {}", inner.last)),
        (true, true) if inner.first == inner.last => Some(format!("v == {}", inner.first)),
        (true, true) => Some(format!("({}..={}).contains(&v)", inner.first, inner.last)),
    }
}

fn rust_type(field: &Field) -> String {
    let plain = plain_type(&field.kind);
    if field.nullable.is_some() {
        format!("Option<{plain}>")
    } else {
        plain
    }
}

fn plain_type(kind: &Kind) -> String {
    match kind {
        Kind::Scalar(name) => match name.as_str() {
            "string" => "String".to_owned(),
            "bytes" | "records" => "Bytes".to_owned(),
            "uuid" => "Uuid".to_owned(),
            number => number.to_owned(),
        },
        Kind::Struct(name) => name.clone(),
        Kind::Array(inner) => format!("Vec<{}>", plain_type(inner)),
    }
}

fn default_of(field: &Field) -> String {
    let records = field.kind == Kind::Scalar("records".to_owned());
    match (&field.default, field.nullable) {
        (Some(value), Some(_)) if value == "null" => "None".to_owned(),
        (None, Some(_)) if records => "None".to_owned(),
        (None, Some(_)) => "Some(Default::default())".to_owned(),
        (None, None) => NATURAL.to_owned(),
        (Some(value), nullable) => {
            let value = match &field.kind {
                Kind::Scalar(kind) if kind == "string" => format!("{value}.to_owned()"),
                Kind::Scalar(kind) if kind == "i64" && value == "9223372036854775807" => {
                    "i64::MAX".to_owned()
                }
                Kind::Scalar(kind) if kind == "i32" && value == "2147483647" => {
                    "i32::MAX".to_owned()
                }
                Kind::Scalar(kind) if kind == "i32" && value == "-2147483648" => {
                    "i32::MIN".to_owned()
                }
                _ => value.clone(),
            };
            if nullable.is_some() {
                format!("Some({value})")
            } else {
                value
            }
        }
    }
}

/// The test that a tagged field is not at its default: only then is it written.
fn differs(field: &Field) -> String {
    let name = &field.name;
    match (&field.kind, default_of(field).as_str()) {
        (_, "None") => format!("self.{name}.is_some()"),
        (Kind::Array(_), NATURAL) => format!("!self.{name}.is_empty()"),
        (Kind::Scalar(kind), NATURAL) => match kind.as_str() {
            "bool" => format!("self.{name}"),
            "string" | "bytes" | "records" => format!("!self.{name}.is_empty()"),
            "uuid" => format!("!self.{name}.is_nil()"),
            _ => format!("self.{name} != 0"),
        },
        (Kind::Struct(kind), NATURAL) => format!("self.{name} != {kind}::default()"),
        (_, value) => format!("self.{name} != {value}"),
    }
}

fn field_doc(field: &Field, message: &Message) -> String {
    let Versions { first, last } = field.versions;
    let mut doc = words(&field.name);
    doc[..1].make_ascii_uppercase();
    if gate(field.versions, message.versions).is_some() {
        let _ = match first == last {
            true => write!(doc, "; version {first} only"),
            false if last == message.versions.last => write!(doc, "; from version {first}"),
            false => write!(doc, "; versions {first} to {last}"),
        };
    }
    if let Some(default) = &field.default {
        let _ = write!(doc, "; default {default}");
    }
    doc.push('.');
    doc
}

/// `topic_id` and `TopicId` as words.
fn words(name: &str) -> String {
    if name.contains('_') || name.starts_with(char::is_lowercase) {
        return name.replace('_', " ");
    }
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.push(letter);
    }
    out
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}"); // writing to a String cannot fail
}

/// Indents by braces: nothing else in the generated text opens or closes a block.
fn indent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    for line in text.lines() {
        let doc = line.starts_with("///");
        let closes = !doc && line.starts_with(['}', ']']);
        depth = depth.saturating_sub(usize::from(closes));
        let width = if line.is_empty() { 0 } else { depth * 4 };
        let _ = writeln!(out, "{:width$}{line}", "");
        depth += usize::from(!doc && line.ends_with(['{', '[']));
    }
    out
}
