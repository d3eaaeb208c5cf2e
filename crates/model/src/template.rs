//! Templates such as `{header.x-tenant}-{body.order.id}`: text with places for parts of a request.

/// Text with places for parts of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its parts in order; their values, joined, are the result.
    pub parts: Vec<Part>,
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that stands as it is; `{{` and `}}` are written for braces.
    Text(String),
    /// `{path.name}`: the segment that the route calls so.
    Path(String),
    /// `{query.name}`: the first query parameter of that name, decoded.
    Query(String),
    /// `{header.name}`: the first header of that name, in lower case here.
    Header(String),
    /// `{body}`: the whole body; `{body.a.b.0}`: a field of the JSON body, by names and indexes.
    Body(Vec<String>),
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..];
            if brace.starts_with("{{") || brace.starts_with("}}") {
                plain.push_str(&brace[..1]);
                rest = &brace[2..];
                continue;
            }
            let Some(inner) = brace.strip_prefix('{') else {
                return Err("a `}` without its `{`; write `}}` for a plain one".to_owned());
            };
            let Some(end) = inner.find('}') else {
                return Err("a `{` without its `}`; write `{{` for a plain one".to_owned());
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::parse(&inner[..end])?);
            rest = &inner[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { parts })
    }

    /// Returns whether a part needs the request's body.
    pub fn reads_body(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Body(_)))
    }
}

impl Part {
    fn parse(inner: &str) -> Result<Part, String> {
        let (source, name) = inner.split_once('.').unwrap_or((inner, ""));
        let part = match source {
            "path" => Part::Path(name.to_owned()),
            "query" => Part::Query(name.to_owned()),
            "header" => Part::Header(name.to_ascii_lowercase()),
            "body" if name.is_empty() && !inner.contains('.') => return Ok(Part::Body(Vec::new())),
            "body" => {
                let fields: Vec<String> = name.split('.').map(str::to_owned).collect();
                if fields.iter().any(String::is_empty) {
                    return Err(format!("`{{{inner}}}` has an empty field name"));
                }
                return Ok(Part::Body(fields));
            }
            _ => {
                return Err(format!(
                    "`{{{inner}}}` is unknown, use `{{path.x}}`, `{{query.x}}`, `{{header.x}}` or `{{body.x}}`"
                ));
            }
        };
        if name.is_empty() {
            return Err(format!(
                "`{{{inner}}}` names nothing, write `{{{source}.x}}`"
            ));
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_read_as_written() {
        let parse = |text| Template::parse(text).map(|template| template.parts);
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("{body}"), Ok(vec![Part::Body(vec![])]));
        assert_eq!(
            parse("a{{b}}-{header.X-Tenant}/{body.order.0}"),
            Ok(vec![
                Part::Text("a{b}-".to_owned()),
                Part::Header("x-tenant".to_owned()),
                Part::Text("/".to_owned()),
                Part::Body(vec!["order".to_owned(), "0".to_owned()]),
            ])
        );
        for bad in [
            "{",
            "}",
            "{body",
            "body}",
            "{}",
            "{path}",
            "{query.}",
            "{body.}",
            "{body.a..b}",
            "{cookie.x}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
