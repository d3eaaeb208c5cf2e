//! YAML as a tree that keeps the place of every value, one document at a time.
//!
//! Documents are split before they are parsed, so that a syntax error costs its own document and no other. Depth, size and
//! the growth through aliases are bounded.

use std::collections::HashMap;
use std::ops::Range;

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Span};

/// Largest text that is read.
pub(crate) const SOURCE_BYTES_MAX: usize = 32 << 20;

/// Deepest nesting of lists and maps.
const DEPTH_MAX: usize = 64;

/// Most values in one text.
const NODES_MAX: usize = 2_000_000;

/// Nodes that the aliases of one document may add.
const ALIASED_NODES_MAX: usize = 100_000;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
    /// Nodes in this subtree, with long texts counted as several.
    weight: usize,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Text; `plain` when it had no quotes, so that it may be a number, a boolean or nothing.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the text, keys that stand twice included.
    Map(Vec<(Key, Node)>),
}

/// The key of a map's entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// Where something stands in the whole text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) span: Range<usize>,
}

/// Why a document could not be read, and where.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) place: Place,
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl Node {
    pub(crate) fn scalar(text: &str, plain: bool, place: Place) -> Node {
        let weight = weight_of(text);
        Node {
            value: Value::Scalar {
                text: text.to_owned(),
                plain,
            },
            place,
            weight,
        }
    }

    pub(crate) fn list(items: Vec<Node>, place: Place) -> Node {
        let weight = 1 + items.iter().map(|item| item.weight).sum::<usize>();
        Node {
            value: Value::List(items),
            place,
            weight,
        }
    }

    pub(crate) fn map(entries: Vec<(Key, Node)>, place: Place) -> Node {
        let weight = 1 + entries
            .iter()
            .map(|(key, node)| weight_of(&key.text) + node.weight)
            .sum::<usize>();
        Node {
            value: Value::Map(entries),
            place,
            weight,
        }
    }

    /// Returns the value under a key, nothing when it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// Returns a key and its value, nothing when it is null.
    pub(crate) fn entry(&self, key: &str) -> Option<(&Key, &Node)> {
        let (key, node) = self.entries().iter().find(|(known, _)| known.text == key)?;
        (!node.is_null()).then_some((key, node))
    }

    /// Returns the entries of a map, none of anything else.
    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the items of a list, none of anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the text of a scalar that is not null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// Returns the boolean that a plain scalar is.
    pub(crate) fn bool(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// Follows a dotted path such as `retry_policy.num_retries` or `allow_upgrade[0]` as far as it goes.
    pub(crate) fn deepest(&self, path: &str) -> &Node {
        let mut node = self;
        let mut rest = path;
        while !rest.is_empty() {
            // Some names have dots themselves.
            if let Some(whole) = node.get(rest) {
                return whole;
            }
            let (step, after) = match rest.find(['.', '[']) {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (rest, ""),
            };
            rest = after;
            if step.is_empty() {
                continue;
            }
            let next = match step.strip_suffix(']') {
                Some(index) => index
                    .parse()
                    .ok()
                    .and_then(|index: usize| node.items().get(index)),
                None => node.get(step),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

fn weight_of(text: &str) -> usize {
    1 + text.len() / 256
}

/// Reads every document of a text. Those without content are left out.
pub(crate) fn documents(text: &str) -> Vec<Result<Node, Unreadable>> {
    if text.len() > SOURCE_BYTES_MAX {
        let place = Place {
            line: 1,
            column: 1,
            span: 0..0,
        };
        let what = format!("the file is larger than {} MiB", SOURCE_BYTES_MAX >> 20);
        return vec![Err(Unreadable {
            place,
            what,
            hint: None,
        })];
    }
    documents_within(text, NODES_MAX)
}

fn documents_within(text: &str, mut nodes_left: usize) -> Vec<Result<Node, Unreadable>> {
    let mut documents = Vec::new();
    for piece in pieces(text) {
        read_piece(piece, &mut nodes_left, &mut documents);
    }
    documents
}

/// A part of the text that is parsed on its own.
struct Piece<'a> {
    text: &'a str,
    first_byte: usize,
    lines_before: usize,
}

/// Splits a text at its `---` lines, which can be nothing else at the start of a line.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut piece = Piece {
        text: "",
        first_byte: 0,
        lines_before: 0,
    };
    let mut content = false;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---").is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_whitespace())
        });
        if marker && content {
            piece.text = &text[piece.first_byte..at];
            pieces.push(piece);
            piece = Piece {
                text: "",
                first_byte: at,
                lines_before: number,
            };
            content = false;
        }
        let blank = line.trim().is_empty() || line.starts_with(['#', '%']);
        content |= marker || !blank;
        at += line.len();
    }
    piece.text = &text[piece.first_byte..];
    pieces.push(piece);
    pieces
}

fn read_piece(
    piece: Piece<'_>,
    nodes_left: &mut usize,
    documents: &mut Vec<Result<Node, Unreadable>>,
) {
    let mut options =
        granit_parser::options! { flow_nesting_limit: DEPTH_MAX, block_nesting_limit: DEPTH_MAX };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(piece.text, options);
    loop {
        match read_document(&mut parser, &piece, nodes_left) {
            Ok(Some(node)) if node.is_null() => (),
            Ok(Some(node)) => documents.push(Ok(node)),
            Ok(None) => return,
            Err(unreadable) => return documents.push(Err(unreadable)),
        }
    }
}

/// A list or map that is not finished.
struct Open {
    start: Place,
    anchor: usize,
    what: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        key: Option<Key>,
    },
}

impl Piece<'_> {
    fn place(&self, span: &Span) -> Place {
        let place = |marker: &Marker| self.first_byte + marker.byte_offset().unwrap_or(0);
        let start = place(&span.start);
        Place {
            line: u32::try_from(span.start.line() + self.lines_before).unwrap_or(u32::MAX),
            column: u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX),
            span: start..place(&span.end).max(start),
        }
    }
}

type Str<'a> = Parser<'a, granit_parser::StrInput<'a>>;

/// Reads one document, iteratively, so that no nesting can exhaust the stack.
fn read_document(
    parser: &mut Str<'_>,
    piece: &Piece<'_>,
    nodes_left: &mut usize,
) -> Result<Option<Node>, Unreadable> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut aliased = 0;
    let mut root = None;
    loop {
        let (event, span) = match parser.next_event() {
            None => return Ok(root),
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                let marker = *error.marker();
                let place = piece.place(&Span::new(marker, marker));
                return Err(Unreadable {
                    place,
                    what: error.info(),
                    hint: None,
                });
            }
        };
        let place = piece.place(&span);
        let at = place.clone();
        let refuse = |what: &str, hint: &str| Unreadable {
            place: at.clone(),
            what: what.to_owned(),
            hint: Some(hint.to_owned()),
        };
        let (node, anchor) = match event {
            Event::StreamEnd => return Ok(root),
            Event::DocumentEnd => return Ok(Some(root.unwrap_or(Node::scalar("", true, place)))),
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref();
                if tag.is_some_and(|tag| !tag.is_yaml_core_schema()) {
                    return Err(refuse(
                        "this tag has no meaning here",
                        "leave the `!tag` out",
                    ));
                }
                let string = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
                let plain = style == ScalarStyle::Plain && !string;
                (Node::scalar(&text, plain, place), anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open {
                    start: place,
                    anchor,
                    what: OpenKind::List(Vec::new()),
                });
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                let what = OpenKind::Map {
                    entries: Vec::new(),
                    key: None,
                };
                open.push(Open {
                    start: place,
                    anchor,
                    what,
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open {
                    start,
                    anchor,
                    what,
                }) = open.pop()
                else {
                    continue;
                };
                let end = place.span.end;
                let place = Place {
                    span: start.span.start..end.max(start.span.start),
                    ..start
                };
                match what {
                    OpenKind::List(items) => (Node::list(items, place), anchor),
                    OpenKind::Map { entries, .. } => (Node::map(merged(entries), place), anchor),
                }
            }
            Event::Alias(anchor) => {
                let Some(target) = anchors.get(&anchor) else {
                    return Err(refuse(
                        "this alias stands inside what it repeats",
                        "write it out",
                    ));
                };
                aliased += target.weight;
                if aliased > ALIASED_NODES_MAX {
                    return Err(refuse(
                        "the aliases of this document add too much",
                        "write the values out or split the document",
                    ));
                }
                (target.clone(), 0)
            }
            _ => continue,
        };
        match nodes_left.checked_sub(1) {
            Some(left) => *nodes_left = left,
            None => return Err(refuse("the file holds too many values", "split it")),
        }
        if anchor != 0 {
            aliased += node.weight;
            if aliased > ALIASED_NODES_MAX {
                return Err(refuse(
                    "the anchors of this document hold too much",
                    "split it",
                ));
            }
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            None => root = Some(node),
            Some(Open {
                what: OpenKind::List(items),
                ..
            }) => items.push(node),
            Some(Open {
                what: OpenKind::Map { entries, key },
                ..
            }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => match node {
                    Node {
                        value: Value::Scalar { text, .. },
                        place,
                        ..
                    } => {
                        *key = Some(Key { text, place });
                    }
                    Node { place, .. } => {
                        return Err(Unreadable {
                            place,
                            what: "a list or a map cannot be a key".to_owned(),
                            hint: Some("quote it if it is meant as text".to_owned()),
                        });
                    }
                },
            },
        }
    }
}

/// Puts the entries that `<<` brings behind those that stand there.
fn merged(entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    let brings = |(key, node): &(Key, Node)| {
        key.text == "<<" && (node.is_map() || node.items().iter().any(Node::is_map))
    };
    if !entries.iter().any(brings) {
        return entries;
    }
    let (merges, mut result): (Vec<_>, Vec<_>) = entries.into_iter().partition(brings);
    for (_, node) in merges {
        let maps = match node.value {
            Value::List(items) => items,
            _ => vec![node],
        };
        for map in maps {
            if let Value::Map(entries) = map.value {
                for (key, node) in entries {
                    if !result.iter().any(|(known, _)| known.text == key.text) {
                        result.push((key, node));
                    }
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_holds_so_many_values_and_no_more() {
        let good =
            |text: &str, nodes_max| documents_within(text, nodes_max).iter().all(Result::is_ok);
        assert!(good("[a, b]", 3));
        assert!(!good("[a, b]", 2));
        assert!(!good("[a]\n---\n[b]\n", 3), "all documents count together");
    }

    #[test]
    fn pieces_begin_where_documents_do() {
        let starts = |text| {
            pieces(text)
                .iter()
                .map(|piece| piece.lines_before)
                .collect::<Vec<_>>()
        };
        assert_eq!(starts("a: 1\n---\nb: 1\n--- # c\n---x: 1\n"), [0, 1, 3]);
        assert_eq!(starts("# comment\n%YAML 1.2\n---\na: 1\n"), [0]);
        assert_eq!(starts("---\n---\n"), [0, 1]);
        assert_eq!(starts("a: |\n  ---\n  text\n"), [0]);
    }
}
