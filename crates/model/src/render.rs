//! Problems for people: where, the line itself, what is wrong and what would be right.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::read::Source;
use crate::{Problem, Severity};

/// Whether a terminal will show the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With ANSI colours.
    Coloured,
}

/// Lines of an excerpt are cut here, so that a hostile file cannot flood the terminal.
const LINE_BYTES_MAX: usize = 400;

/// Renders problems one below the other.
pub fn render(problems: &[Problem], sources: &[Source], style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let mut text = String::new();
    for problem in problems {
        let source = sources
            .iter()
            .find(|source| source.name == problem.origin.file);
        text.push_str(&one(
            problem,
            source.map(|source| source.text.as_ref()),
            &renderer,
        ));
        text.push_str("\n\n");
    }
    text
}

/// Returns a line such as `2 errors, 1 warning`, or nothing when there are none.
pub fn summary(problems: &[Problem]) -> Option<String> {
    let count = |severity| {
        problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    };
    let part = |count: usize, noun: &str| match count {
        0 => None,
        1 => Some(format!("1 {noun}")),
        several => Some(format!("{several} {noun}s")),
    };
    let parts: Vec<String> = [
        part(count(Severity::Error), "error"),
        part(count(Severity::Warning), "warning"),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn one(problem: &Problem, text: Option<&str>, renderer: &Renderer) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let place = match (&problem.object, problem.path.as_str()) {
        (Some(object), "") => Some(format!("in {object}")),
        (Some(object), path) => Some(format!("in {object}, at {path}")),
        (None, "") => None,
        (None, path) => Some(format!("at {path}")),
    };
    let title = level.primary_title(problem.what.as_str());
    let mut group = match excerpt(problem, text) {
        Some((line, first, span)) => {
            let annotation = AnnotationKind::Primary.span(span);
            title.element(
                Snippet::source(line)
                    .line_start(first)
                    .path(problem.origin.file.as_ref())
                    .annotation(annotation),
            )
        }
        None => title.element(annotate_snippets::Origin::path(
            problem.origin.file.as_ref(),
        )),
    };
    if let Some(place) = &place {
        group = group.element(Level::NOTE.message(place.as_str()));
    }
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    renderer.render(&[group])
}

/// Returns the problem's first line, its number, and the part to underline.
fn excerpt<'a>(
    problem: &Problem,
    text: Option<&'a str>,
) -> Option<(&'a str, usize, std::ops::Range<usize>)> {
    let text = text?;
    if problem.origin.line == 0 {
        return None;
    }
    let start = match problem.span.is_empty() {
        // Only the line is known, or the problem is a point.
        true => start_of(problem.origin.line, text)?,
        false => problem.span.start,
    };
    let start = text.floor_char_boundary(start.min(text.len()));
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let line = &line[..line.floor_char_boundary(LINE_BYTES_MAX)];
    let from = match problem.span.is_empty() {
        true => {
            let column = problem.origin.column.saturating_sub(1) as usize;
            line.char_indices()
                .nth(column)
                .map_or(line.len(), |(at, _)| at)
        }
        false => (start - line_start).min(line.len()),
    };
    let to = problem
        .span
        .end
        .saturating_sub(line_start)
        .clamp(from, line.len());
    let to = line.floor_char_boundary(to).max(from);
    Some((line, problem.origin.line as usize, from..to))
}

/// Returns where a line begins.
fn start_of(line: u32, text: &str) -> Option<usize> {
    match line {
        0 | 1 => Some(0),
        line => text
            .match_indices('\n')
            .nth(line as usize - 2)
            .map(|(at, _)| at + 1),
    }
}
