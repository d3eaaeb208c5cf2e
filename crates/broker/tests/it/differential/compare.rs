//! Evening out what two brokers cannot have in common, and showing what is left.

use std::fmt::Write as _;

use kafka::messages::Request;

use super::Answer;

/// Fields whose values say nothing about behaviour.
const SCRUBBED: &[&str] = &[
    "throttle_time_ms",
    "host",
    "port",
    "cluster_id",
    "error_message",
    "batch_index_error_message",
    "log_dir",
    "total_bytes",
    "usable_bytes",
    "leader_epoch",
    "current_leader_epoch",
    "producer_id",
    "session_id",
];

/// Returns the answer as text, with everything evened out that two brokers may tell differently: ids, addresses, the
/// wording of messages, and the order of lists.
///
/// The fields that are `blind` are evened out too.
pub(super) fn even<R: Request>(answer: &Answer<R::Response>, blind: &[&str]) -> String {
    let answer = match answer {
        Answer::Given(answer) => answer,
        Answer::Closed => return "(connection closed)\n".to_owned(),
        Answer::Silent => return "(no answer)\n".to_owned(),
    };
    let text = format!("{answer:#?}");
    let mut lines = text.lines().peekable();
    let mut out = String::with_capacity(text.len());
    while lines.peek().is_some() {
        write(&node(&mut lines, blind), 0, &mut out);
    }
    out
}

/// A line of what `{:#?}` prints, and what is indented below it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    line: String,
    below: Vec<Node>,
    end: Option<String>,
}

fn node<'a>(
    lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    blind: &[&str],
) -> Node {
    let line = lines.next().expect("the caller has looked").trim();
    let name = line.split_once(": ").map(|(name, _)| name);
    let opens = line.ends_with(['(', '[', '{']);
    let mut below = Vec::new();
    let mut end = None;
    while opens && end.is_none() {
        let next = lines.peek().expect("what is opened is closed").trim();
        if next.trim_end_matches(',').len() == 1 && next.starts_with([')', ']', '}']) {
            end = lines.next().map(|line| line.trim().to_owned());
        } else {
            below.push(node(lines, blind));
        }
    }
    if let Some(name) = name.filter(|name| SCRUBBED.contains(name) || blind.contains(name)) {
        return Node {
            line: format!("{name}: _"),
            below: Vec::new(),
            end: None,
        };
    }
    if line.ends_with('[') {
        below.sort();
    }
    Node {
        line: without_ids(line),
        below,
        end,
    }
}

fn write(node: &Node, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    _ = writeln!(out, "{indent}{}", node.line);
    for below in &node.below {
        write(below, depth + 1, out);
    }
    if let Some(end) = &node.end {
        _ = writeln!(out, "{indent}{end}");
    }
}

/// Puts a word in the place of each UUID.
fn without_ids(line: &str) -> String {
    const LENGTH: usize = 36;
    const NIL: &str = "00000000-0000-0000-0000-000000000000";
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        let (word, taken) = match rest.get(..LENGTH).filter(|text| is_uuid(text)) {
            Some(NIL) => ("no-id", LENGTH),
            Some(_) => ("an-id", LENGTH),
            None => (&rest[..next.len_utf8()], next.len_utf8()),
        };
        out += word;
        rest = &rest[taken..];
    }
    out
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// Returns the lines that differ, with one line of context.
pub(super) fn difference(ours: &str, theirs: &str) -> String {
    let ours: Vec<&str> = ours.lines().collect();
    let theirs: Vec<&str> = theirs.lines().collect();
    // Longest common subsequence; answers are short.
    let (rows, columns) = (ours.len(), theirs.len());
    let mut common = vec![vec![0_u32; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = match ours[row] == theirs[column] {
                true => common[row + 1][column + 1] + 1,
                false => common[row + 1][column].max(common[row][column + 1]),
            };
        }
    }
    let mut marked = Vec::new();
    let (mut row, mut column) = (0, 0);
    while row < rows || column < columns {
        if row < rows && column < columns && ours[row] == theirs[column] {
            marked.push((' ', ours[row]));
            (row, column) = (row + 1, column + 1);
        } else if column >= columns
            || (row < rows && common[row + 1][column] >= common[row][column + 1])
        {
            marked.push(('-', ours[row]));
            row += 1;
        } else {
            marked.push(('+', theirs[column]));
            column += 1;
        }
    }
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT_LINES);
        let to = (at + CONTEXT_LINES + 1).min(marked.len());
        marked[from..to].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut out = String::new();
    let shown = (0..marked.len()).filter(|at| near(*at)).take(LINES_MAX);
    for (mark, line) in shown.map(|at| &marked[at]) {
        _ = writeln!(out, "  {mark} {line}");
    }
    out
}

/// Equal lines that are shown around different ones.
const CONTEXT_LINES: usize = 3;
/// Most lines that are shown of one step.
const LINES_MAX: usize = 60;
