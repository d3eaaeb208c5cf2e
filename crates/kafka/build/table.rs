//! The notation of the message tables, read into plain data.
//!
//! A file is one API (or one family of blobs) and becomes one module:
//!
//! ```text
//! api 12 Heartbeat  0-4  flexible 4+     key, name, versions, first flexible version
//!
//! request                                or `response`, or `data NAME VERSIONS` without an api line
//!   group_id  string
//!   tagged    string?2+  3+  @0  = null  nullable from 2, present from 3, tag 0, default null
//!   topics    [Topic]                    an array; the fields of `Topic` follow, indented by two
//!     name    string
//! ```
//!
//! A struct is spelled out where it is first used. `#` starts a comment.

use std::{fs, path::Path};

/// An inclusive range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) first: i16,
    pub(crate) last: i16,
}

/// One file: a module of the generated code.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) module: String,
    /// The key and name, when the file describes an API.
    pub(crate) api: Option<(i16, String)>,
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) versions: Versions,
    /// The first version with compact types and tags.
    pub(crate) flexible: Option<i16>,
    /// The message itself first, then the structs in it.
    pub(crate) structs: Vec<Struct>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) versions: Versions,
    /// The versions in which the field may be null.
    pub(crate) nullable: Option<Versions>,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// `bool`, `i8`, `i16`, `u16`, `i32`, `u32`, `i64`, `f64`, `uuid`, `string`, `bytes` or `records`.
    Scalar(String),
    Struct(String),
    Array(Box<Kind>),
}

const SCALARS: [&str; 12] = [
    "bool", "i8", "i16", "u16", "i32", "u32", "i64", "f64", "uuid", "string", "bytes", "records",
];

/// Reads every table of a folder, in the order of their names.
pub(crate) fn read_all(folder: &Path) -> Result<Vec<File>, String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let module = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
            parse(module, &text).map_err(|error| format!("{}:{error}", path.display()))
        })
        .collect()
}

/// Parses one table; an error starts with the number of its line.
pub(crate) fn parse(module: String, text: &str) -> Result<File, String> {
    let mut file = File {
        module,
        api: None,
        messages: Vec::new(),
    };
    let mut shared = None; // versions and first flexible version of the api line
    let mut open: Vec<usize> = Vec::new(); // the struct that takes fields, for each depth
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let fail = |what: &str| format!("{}: {what}: `{line}`", index + 1);
        let spaces = line.len() - line.trim_start().len();
        match words.as_slice() {
            [] => (),
            ["api", key, name, versions, rest @ ..] if spaces == 0 => {
                let key = key.parse().map_err(|_| fail("no api key"))?;
                let versions = range(versions, None).ok_or_else(|| fail("no versions"))?;
                shared = Some((versions, flexible(rest).ok_or_else(|| fail("no flexible"))?));
                file.api = Some((key, (*name).to_owned()));
            }
            ["request" | "response"] if spaces == 0 => {
                let suffix = if words[0] == "request" {
                    "Request"
                } else {
                    "Response"
                };
                let (versions, flexible) = shared.ok_or_else(|| fail("no api line above"))?;
                let (_, name) = file.api.as_ref().ok_or_else(|| fail("no api line above"))?;
                let name = format!("{name}{suffix}");
                file.messages.push(message(name, versions, flexible));
                open = vec![0];
            }
            ["data", name, versions, rest @ ..] if spaces == 0 => {
                let versions = range(versions, None).ok_or_else(|| fail("no versions"))?;
                let flexible = flexible(rest).ok_or_else(|| fail("no flexible"))?;
                file.messages
                    .push(message((*name).to_owned(), versions, flexible));
                open = vec![0];
            }
            [name, kind, rest @ ..] if spaces >= 2 && spaces % 2 == 0 => {
                let message = file
                    .messages
                    .last_mut()
                    .ok_or_else(|| fail("no message above"))?;
                let depth = spaces / 2;
                if depth > open.len() {
                    return Err(fail("indented too far"));
                }
                open.truncate(depth);
                let owner = open[depth - 1];
                let field =
                    field(name, kind, rest, message.versions).ok_or_else(|| fail("no field"))?;
                if let Some(name) = struct_of(&field.kind) {
                    let known = message.structs.iter().position(|known| known.name == *name);
                    open.push(known.unwrap_or(message.structs.len()));
                    if known.is_none() {
                        message.structs.push(Struct {
                            name: name.to_owned(),
                            fields: Vec::new(),
                        });
                    }
                }
                message.structs[owner].fields.push(field);
            }
            _ => return Err(fail("cannot be read")),
        }
    }
    if let Some(empty) = file
        .messages
        .iter()
        .flat_map(|message| &message.structs[1..])
        .find(|nested| nested.fields.is_empty())
    {
        return Err(format!("0: struct `{}` has no fields", empty.name));
    }
    Ok(file)
}

fn message(name: String, versions: Versions, flexible: Option<i16>) -> Message {
    let structs = vec![Struct {
        name: name.clone(),
        fields: Vec::new(),
    }];
    Message {
        name,
        versions,
        flexible,
        structs,
    }
}

fn flexible(words: &[&str]) -> Option<Option<i16>> {
    match words {
        [] => Some(None),
        ["flexible", from] => Some(Some(from.strip_suffix('+')?.parse().ok()?)),
        _ => None,
    }
}

fn field(name: &str, kind: &str, rest: &[&str], all: Versions) -> Option<Field> {
    let (kind, nullable) = match kind.split_once('?') {
        Some((kind, from)) => (kind, Some(from)),
        None => (kind, None),
    };
    let mut field = Field {
        name: name.to_owned(),
        kind: self::kind(kind),
        versions: all,
        nullable: None,
        tag: None,
        default: None,
    };
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        if *word == "=" {
            field.default = Some((*rest.next()?).to_owned());
        } else if let Some(tag) = word.strip_prefix('@') {
            field.tag = Some(tag.parse().ok()?);
        } else {
            field.versions = range(word, Some(all))?;
        }
    }
    field.nullable = match nullable {
        Some("") => Some(field.versions),
        Some(versions) => Some(range(versions, Some(all))?),
        None => None,
    };
    Some(field)
}

fn kind(text: &str) -> Kind {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        Kind::Array(Box::new(kind(inner)))
    } else if SCALARS.contains(&text) {
        Kind::Scalar(text.to_owned())
    } else {
        Kind::Struct(text.to_owned())
    }
}

/// The struct that a field is made of, if any.
pub(crate) fn struct_of(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Scalar(_) => None,
        Kind::Struct(name) => Some(name),
        Kind::Array(inner) => struct_of(inner),
    }
}

/// `3`, `3-7` or, where there is an outer range to end it, `3+`.
fn range(text: &str, outer: Option<Versions>) -> Option<Versions> {
    if let Some(first) = text.strip_suffix('+') {
        return Some(Versions {
            first: first.parse().ok()?,
            last: outer?.last,
        });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(Versions {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
    })
}
