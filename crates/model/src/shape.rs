//! From a tree to a struct, by serde, with every problem reported at once.
//!
//! Serde stops at the first error. So we report the error, take the value that caused it out, and try again until the rest
//! has been looked at too.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};

use crate::tree::{Key, Node, Place, Value};

/// Most problems that are reported for one object.
const PROBLEMS_MAX: usize = 32;

/// A problem of shape, with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Misshape {
    pub(crate) place: Place,
    pub(crate) path: String,
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

/// Makes a `T` of a tree, or tells everything that is wrong with it. `path` is the tree's own place in its document.
pub(crate) fn shape<T: DeserializeOwned>(node: &Node, path: &str) -> Result<T, Vec<Misshape>> {
    let job = Job::default();
    let root = Path::Root(path);
    let mut found = Vec::new();
    while found.len() < PROBLEMS_MAX {
        let fail = match T::deserialize(At {
            node,
            path: &root,
            job: &job,
        }) {
            Ok(value) if found.is_empty() && job.unknown.borrow().is_empty() => return Ok(value),
            Ok(_) => break,
            Err(fail) => fail,
        };
        let Reason {
            what,
            hint,
            place,
            path,
            retry,
            silent,
        } = *fail.0;
        if !silent {
            let place = place.unwrap_or_else(|| node.place.clone());
            found.push(Misshape {
                place,
                path: path.unwrap_or_default(),
                what,
                hint,
            });
        }
        let known = match retry {
            Some(Retry::Without(id)) => job.out.borrow_mut().insert(id),
            Some(Retry::With(id, field)) => job.filled.borrow_mut().insert((id, field)),
            None => false,
        };
        if !known {
            break;
        }
    }
    // `prefx` explains why `prefix` is missing; saying both would be noise.
    let unknown = job.unknown.take();
    found.retain(|missing| !unknown.iter().any(|misspelt| misspelt.explains(missing)));
    found.extend(unknown);
    Err(found)
}

impl Misshape {
    fn explains(&self, missing: &Misshape) -> bool {
        let Some(hint) = &self.hint else { return false };
        let parent = self.path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let field = hint
            .strip_prefix("did you mean ")
            .and_then(|rest| rest.strip_suffix('?'));
        let said = field.map(|field| format!("the field {field} is missing"));
        parent == missing.path && said.as_ref() == Some(&missing.what)
    }
}

/// What is known from earlier tries.
#[derive(Default)]
struct Job {
    /// Values that are passed over, by address.
    out: RefCell<HashSet<usize>>,
    /// Missing fields that are filled with something, by the map's address.
    filled: RefCell<HashSet<(usize, &'static str)>>,
    /// Fields that nobody knows and keys that stand twice, each once.
    unknown: RefCell<Vec<Misshape>>,
}

impl Job {
    fn report(&self, misshape: Misshape) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() < PROBLEMS_MAX && !unknown.contains(&misshape) {
            unknown.push(misshape);
        }
    }
}

/// The way from the document's root to a value.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root(&'p str),
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(root) => f.write_str(root),
            Path::Key(Path::Root(""), key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Why a try failed, and what to leave out in the next one.
#[derive(Debug)]
struct Fail(Box<Reason>);

#[derive(Debug)]
struct Reason {
    what: String,
    hint: Option<String>,
    place: Option<Place>,
    path: Option<String>,
    retry: Option<Retry>,
    silent: bool,
}

#[derive(Debug)]
enum Retry {
    Without(usize),
    With(usize, &'static str),
}

impl Fail {
    fn new(what: String, hint: Option<String>) -> Fail {
        Fail(Box::new(Reason {
            what,
            hint,
            place: None,
            path: None,
            retry: None,
            silent: false,
        }))
    }

    /// Gives the failure its place, unless it has one.
    fn at(mut self, at: &At<'_, '_>) -> Fail {
        if self.0.place.is_some() {
            return self;
        }
        self.0.place = Some(at.node.place.clone());
        self.0.path = Some(at.path.to_string());
        if let Some(Retry::With(id, field)) = &mut self.0.retry {
            *id = address(at.node);
            // The field is there, but its value was taken out: that has been told.
            self.0.silent = at.node.get(field).is_some();
        } else {
            self.0.retry = Some(Retry::Without(address(at.node)));
        }
        self
    }
}

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Fail {}

impl de::Error for Fail {
    fn custom<T: fmt::Display>(message: T) -> Fail {
        Fail::new(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Fail {
        let hint = match found {
            Unexpected::Str(text) if text.parse::<i64>().is_ok() => {
                Some("take the quotes off".to_owned())
            }
            _ => None,
        };
        let what = format!("expected {}, found {}", wanted(expected), describe(found));
        Fail::new(what, hint)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Fail {
        Fail::new(
            format!("expected {}, found {}", wanted(expected), describe(found)),
            None,
        )
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Fail {
        let what = format!("unknown value `{found}`");
        Fail::new(what, Some(alternatives(found, expected)))
    }

    fn unknown_field(found: &str, expected: &'static [&'static str]) -> Fail {
        let what = format!("unknown field `{found}`");
        Fail::new(
            what,
            nearest(found, expected).map(|field| format!("did you mean `{field}`?")),
        )
    }

    fn missing_field(field: &'static str) -> Fail {
        let mut fail = Fail::new(format!("the field `{field}` is missing"), None);
        fail.0.retry = Some(Retry::With(0, field));
        fail
    }
}

/// Says in the user's words what serde expects.
fn wanted(expected: &dyn de::Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a map".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" => "a whole number, not negative".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        struct_name if struct_name.starts_with("struct ") => "a map of fields".to_owned(),
        _ => expected,
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        Unexpected::Str(text) => format!("`{}`", short(text)),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// Cuts a long text, so that it fits into a sentence.
fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the known word that is most like the one found, when it is alike at all.
pub(crate) fn nearest<'a, S: AsRef<str>>(found: &str, known: &'a [S]) -> Option<&'a str> {
    let found = found.to_ascii_lowercase().replace(['-', '_'], "");
    known
        .iter()
        .map(|word| {
            let plain = word.as_ref().to_ascii_lowercase().replace(['-', '_'], "");
            (strsim::damerau_levenshtein(&found, &plain), word.as_ref())
        })
        .filter(|(distance, word)| {
            *distance <= 1.max(word.len() / 3) && *distance < word.len().min(found.len())
        })
        .min()
        .map(|(_, word)| word)
}

/// Returns a hint: the most alike of the known words, or all of them.
pub(crate) fn alternatives<S: AsRef<str>>(found: &str, known: &[S]) -> String {
    match nearest(found, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None => {
            let words: Vec<String> = known
                .iter()
                .map(|word| format!("`{}`", word.as_ref()))
                .collect();
            format!("known are {}", words.join(", "))
        }
    }
}

/// A value on its way into a struct.
#[derive(Clone, Copy)]
struct At<'de, 'p> {
    node: &'de Node,
    path: &'p Path<'p>,
    job: &'p Job,
}

/// Reads a whole number as YAML writes it.
fn number(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let value = match digits.split_at_checked(2) {
        Some(("0x", hex)) => i128::from(u64::from_str_radix(hex, 16).ok()?),
        Some(("0o", octal)) => i128::from(u64::from_str_radix(octal, 8).ok()?),
        _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            i128::from(digits.parse::<u64>().ok()?)
        }
        _ => return None,
    };
    Some(if text.starts_with('-') { -value } else { value })
}

impl<'de> At<'de, '_> {
    fn visit_scalar<V: Visitor<'de>>(
        self,
        text: &'de str,
        plain: bool,
        visitor: V,
    ) -> Result<V::Value, Fail> {
        if !plain {
            return visitor.visit_borrowed_str(text);
        }
        if self.node.is_null() {
            return visitor.visit_unit();
        }
        if let Some(value) = self.node.bool() {
            return visitor.visit_bool(value);
        }
        match number(text).map(|value| (u64::try_from(value), i64::try_from(value))) {
            Some((Ok(value), _)) => return visitor.visit_u64(value),
            Some((_, Ok(value))) => return visitor.visit_i64(value),
            _ => (),
        }
        let numeric =
            text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
        match text.parse::<f64>() {
            Ok(value) if numeric && value.is_finite() => visitor.visit_f64(value),
            _ => visitor.visit_borrowed_str(text),
        }
    }

    fn visit_number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => self.visit_scalar(text, true, visitor),
            Value::Scalar { text, plain: false } => visitor.visit_borrowed_str(text),
            _ => self.visit_collection(visitor, None),
        }
    }

    fn visit_collection<V: Visitor<'de>>(
        self,
        visitor: V,
        fields: Option<&'static [&'static str]>,
    ) -> Result<V::Value, Fail> {
        match &self.node.value {
            Value::Scalar { text, plain } => self.visit_scalar(text, *plain, visitor),
            Value::List(items) => visitor.visit_seq(Items {
                at: self,
                items,
                next: 0,
            }),
            Value::Map(entries) => {
                let fill = self.job.filled.borrow();
                let mine = fill.iter().filter(|(id, _)| *id == address(self.node));
                let fill = mine.map(|(_, field)| *field).collect();
                let seen = HashSet::new();
                let (next, value) = (0, None);
                visitor.visit_map(Entries {
                    at: self,
                    entries,
                    fields,
                    next,
                    value,
                    fill,
                    seen,
                })
            }
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
            self.visit_number(visitor).map_err(|fail| fail.at(&self))
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'de, '_> {
    type Error = Fail;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.visit_collection(visitor, None)
            .map_err(|fail| fail.at(&self))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        let outcome = match &self.node.value {
            // YAML 1.1, which Kubernetes reads, has these too.
            Value::Scalar { text, plain: true } => match text.as_str() {
                "yes" | "Yes" | "YES" | "on" | "On" | "ON" => visitor.visit_bool(true),
                "no" | "No" | "NO" | "off" | "Off" | "OFF" => visitor.visit_bool(false),
                _ => self.visit_scalar(text, true, visitor),
            },
            _ => self.visit_collection(visitor, None),
        };
        outcome.map_err(|fail| fail.at(&self))
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        let outcome = match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => visitor.visit_borrowed_str(text),
            _ => self.visit_collection(visitor, None),
        };
        outcome.map_err(|fail| fail.at(&self))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match self.node.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
        .map_err(|fail| fail.at(&self))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        // A derived struct would also take a list of its fields' values; nobody writes that on purpose.
        let outcome = match &self.node.value {
            Value::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.visit_collection(visitor, Some(fields)),
        };
        outcome.map_err(|fail| fail.at(&self))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        let outcome = match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => {
                let text: StrDeserializer<'_, Fail> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            Value::Scalar { .. } => Err(de::Error::invalid_type(Unexpected::Unit, &"text")),
            Value::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"text")),
            Value::Map(_) => Err(de::Error::invalid_type(Unexpected::Map, &"text")),
        };
        outcome.map_err(|fail| fail.at(&self))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fail> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The items of a list.
struct Items<'de, 'p> {
    at: At<'de, 'p>,
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Fail;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fail> {
        while let Some(node) = self.items.get(self.next) {
            let index = self.next;
            self.next += 1;
            if self.at.job.out.borrow().contains(&address(node)) {
                continue;
            }
            let path = Path::Index(self.at.path, index);
            let at = At {
                node,
                path: &path,
                job: self.at.job,
            };
            return seed.deserialize(at).map(Some).map_err(|fail| fail.at(&at));
        }
        Ok(None)
    }
}

/// The entries of a map; those of a struct are compared with its fields.
struct Entries<'de, 'p> {
    at: At<'de, 'p>,
    entries: &'de [(Key, Node)],
    fields: Option<&'static [&'static str]>,
    next: usize,
    value: Option<(&'de Key, &'de Node)>,
    fill: Vec<&'static str>,
    seen: HashSet<&'de str>,
}

impl Entries<'_, '_> {
    fn report(&self, key: &Key, what: String, hint: Option<String>) {
        let path = Path::Key(self.at.path, &key.text).to_string();
        self.at.job.report(Misshape {
            place: key.place.clone(),
            path,
            what,
            hint,
        });
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Fail;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fail> {
        while let Some((key, node)) = self.entries.get(self.next) {
            self.next += 1;
            if self.at.job.out.borrow().contains(&address(node)) {
                continue;
            }
            if !self.seen.insert(key.text.as_str()) {
                self.report(
                    key,
                    format!("the key `{}` stands here twice", key.text),
                    None,
                );
                continue;
            }
            if let Some(fields) = self.fields {
                if !fields.contains(&key.text.as_str()) {
                    let fail: Fail = de::Error::unknown_field(&key.text, fields);
                    self.report(key, fail.0.what, fail.0.hint);
                    continue;
                }
                if node.is_null() {
                    continue; // nothing said
                }
            }
            self.value = Some((key, node));
            let text: StrDeserializer<'_, Fail> = key.text.as_str().into_deserializer();
            return seed.deserialize(text).map(Some).map_err(|mut fail| {
                fail.0.place = Some(key.place.clone());
                fail.0.path = Some(Path::Key(self.at.path, &key.text).to_string());
                fail.0.retry = Some(Retry::Without(address(node)));
                fail
            });
        }
        let Some(field) = self.fill.last() else {
            return Ok(None);
        };
        let field: StrDeserializer<'_, Fail> = (*field).into_deserializer();
        seed.deserialize(field).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fail> {
        match self.value.take() {
            Some((key, node)) => {
                let path = Path::Key(self.at.path, &key.text);
                let at = At {
                    node,
                    path: &path,
                    job: self.at.job,
                };
                seed.deserialize(at).map_err(|fail| fail.at(&at))
            }
            None => {
                self.fill.pop();
                seed.deserialize(Something)
            }
        }
    }
}

/// Stands in for a missing field, so that the other fields are looked at. What it makes is never used.
struct Something;

impl<'de> Deserializer<'de> for Something {
    type Error = Fail;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_str("").map_err(|_: Fail| {
            let mut fail = Fail::new(String::new(), None);
            fail.0.silent = true;
            fail.0.place = Some(Place {
                line: 0,
                column: 0,
                span: 0..0,
            });
            fail
        })
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_str("")
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_u64(0)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_u64(0)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        let first = variants.first().copied().unwrap_or_default();
        let first: StrDeserializer<'_, Fail> = first.into_deserializer();
        visitor.visit_enum(first)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        // Only a struct without required fields comes out of nothing.
        _ = name;
        let empty = std::iter::empty::<(&str, &str)>();
        visitor
            .visit_map(de::value::MapDeserializer::new(empty))
            .map_err(|mut fail: Fail| {
                fail.0.silent = true;
                fail.0.retry = None;
                fail.0.place = Some(Place {
                    line: 0,
                    column: 0,
                    span: 0..0,
                });
                fail
            })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u32 u128 f32 f64 char bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}
