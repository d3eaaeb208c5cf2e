//! Ambassador's objects in the annotation `getambassador.io/config` of a Service: documents of YAML inside a text of YAML.

use super::{Draft, Reader};
use crate::Severity;
use crate::tree::{self, Key, Node, Place, Value};

/// The annotation that holds them.
const NAME: &str = "getambassador.io/config";

/// Where the annotation's own text stands in the source, so that what is wrong in it gets the right place.
struct Frame<'a> {
    /// The annotation's own place, for texts whose lines are not those of the source.
    whole: Place,
    /// Line, indentation and byte of each line, when they are.
    lines: Option<Vec<(u32, usize, usize)>>,
    inner: &'a str,
}

impl Reader<'_> {
    /// Reads the objects in the annotation of an object that is otherwise read for itself.
    pub(super) fn annotation(&mut self, parent: &Draft) {
        let annotations = parent.node.deepest("metadata.annotations");
        let Some(node) = annotations.get(NAME) else {
            return;
        };
        let path = super::join(&parent.path, &format!("metadata.annotations.{NAME}"));
        let Some(text) = node.text() else {
            let what = "expected a text of YAML".to_owned();
            return self.problem(
                Severity::Error,
                &node.place,
                &path,
                what,
                None,
                Some(&parent.id),
            );
        };
        let frame = Frame::of(self.text, text, &node.place);
        for document in tree::documents(text) {
            match document {
                Ok(node) => self.annotated(parent, frame.moved(node), &path),
                Err(unreadable) => {
                    self.reading.unreadable = true;
                    let place = frame.place(&unreadable.place);
                    let (what, hint) = (unreadable.what, unreadable.hint);
                    self.problem(Severity::Error, &place, &path, what, hint, None);
                }
            }
        }
    }

    /// Reads one document of an annotation. Its fields stand beside `kind` and `name`; a whole object is taken too.
    fn annotated(&mut self, parent: &Draft, node: Node, path: &str) {
        if !node.is_map() {
            return self.nameless(&node.place, path, "a document must be a map", None);
        }
        if node.get("metadata").is_some() || node.get("spec").is_some() {
            return self.object(node, path);
        }
        let place = node.place.clone();
        let key = |text: &str| Key {
            text: text.to_owned(),
            place: place.clone(),
        };
        let said = |name: &str| node.get(name).cloned();
        let scalar = |text: &str| Node::scalar(text, false, place.clone());
        let version = match node.get("apiVersion").and_then(Node::text) {
            // The first versions differ from v2 in nothing that counts here.
            Some(
                "ambassador/v0"
                | "ambassador/v1"
                | "ambassador/v2"
                | "getambassador.io/v0"
                | "getambassador.io/v1",
            ) => Some(scalar("getambassador.io/v2")),
            _ => said("apiVersion"),
        };
        let labels = said("metadata_labels")
            .or_else(|| parent.node.deepest("metadata").get("labels").cloned());
        let metadata: Vec<(Key, Node)> = [
            ("name", said("name")),
            (
                "namespace",
                Some(said("namespace").unwrap_or_else(|| scalar(&parent.id.namespace))),
            ),
            ("labels", labels),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((key(name), value?)))
        .collect();
        let about = [
            "apiVersion",
            "kind",
            "name",
            "namespace",
            "metadata_labels",
            "generation",
        ];
        let fields = node
            .entries()
            .iter()
            .filter(|(key, _)| !about.contains(&key.text.as_str()));
        let spec = Node::map(fields.cloned().collect(), place.clone());
        let whole: Vec<(Key, Node)> = [
            ("apiVersion", version),
            ("kind", said("kind")),
            ("metadata", Some(Node::map(metadata, place.clone()))),
            ("spec", Some(spec)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((key(name), value?)))
        .collect();
        self.object(Node::map(whole, place.clone()), path);
    }
}

impl<'a> Frame<'a> {
    /// Looks where `inner`, the text that stands at `whole`, has its lines in the source: a block that begins with `|`
    /// keeps them, quotes do not.
    fn of(source: &str, inner: &'a str, whole: &Place) -> Self {
        let lines = block(source, inner, whole);
        Frame {
            whole: whole.clone(),
            lines,
            inner,
        }
    }

    fn place(&self, inner: &Place) -> Place {
        let Some(lines) = &self.lines else {
            return self.whole.clone();
        };
        let byte = |at: usize| {
            let before = self.inner.get(..at).unwrap_or(self.inner);
            let line = before
                .matches('\n')
                .count()
                .min(lines.len().saturating_sub(1));
            let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1);
            lines
                .get(line)
                .map_or(0, |(_, indent, start)| start + indent + column)
        };
        let index = usize::try_from(inner.line.saturating_sub(1)).unwrap_or(0);
        let Some((line, indent, _)) = lines.get(index).or(lines.last()) else {
            return self.whole.clone();
        };
        let start = byte(inner.span.start);
        Place {
            line: *line,
            column: inner.column + u32::try_from(*indent).unwrap_or(0),
            span: start..byte(inner.span.end).max(start),
        }
    }

    fn moved(&self, node: Node) -> Node {
        let place = self.place(&node.place);
        match node.value {
            Value::Scalar { text, plain } => Node::scalar(&text, plain, place),
            Value::List(items) => Node::list(
                items.into_iter().map(|item| self.moved(item)).collect(),
                place,
            ),
            Value::Map(entries) => {
                let moved = |(key, node): (Key, Node)| {
                    let place = self.place(&key.place);
                    (Key { place, ..key }, self.moved(node))
                };
                Node::map(entries.into_iter().map(moved).collect(), place)
            }
        }
    }
}

/// Returns line number, indentation and first byte of each line of a text, if the source has it line by line.
fn block(source: &str, inner: &str, whole: &Place) -> Option<Vec<(u32, usize, usize)>> {
    // A text begins at its first word; the line before belongs to it.
    let before = source.get(..whole.span.start)?;
    let mut at = before.rfind('\n').map_or(0, |end| end + 1);
    let mut lines = Vec::new();
    let mut indent = None;
    for (line, wanted) in (whole.line..).zip(inner.lines()) {
        let there = source.get(at..)?.split('\n').next()?;
        let there = there.strip_suffix('\r').unwrap_or(there);
        if !wanted.trim().is_empty() && indent.is_none() {
            indent = Some(there.len().checked_sub(wanted.len())?);
        }
        let indent = indent.unwrap_or(0);
        if there.get(indent.min(there.len())..)? != wanted {
            return None;
        }
        lines.push((line, indent, at));
        at += source.get(at..)?.find('\n').map_or(0, |end| end + 1);
    }
    Some(lines)
}
