//! Ambassador's diagnostics: `/ambassador/v0/diag/`, for machines with `?json=true` and as a page for people.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::Shared;

/// What may stand behind the question mark.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wish {
    /// Anything: JSON instead of a page.
    json: Option<String>,
    /// Only the value of this key.
    filter: Option<String>,
    /// What is logged from now on.
    loglevel: Option<String>,
}

pub(crate) async fn overview(State(shared): State<Shared>, Query(wish): Query<Wish>) -> Response {
    let Some(mut told) = shared.subject.diagnose() else {
        return (StatusCode::NOT_FOUND, "Not found\n").into_response();
    };
    if let Some(level) = &wish.loglevel
        && let Err(why) = shared.subject.log_at(level)
    {
        return super::bad(&why);
    }
    if wish.json.as_deref().unwrap_or_default().is_empty() {
        return Html(page(&told)).into_response();
    }
    match &wish.filter {
        Some(key) => Json(told[key.as_str()].take()).into_response(),
        None => Json(told).into_response(),
    }
}

/// What a table shows: its title, the key of its list, and the columns with their keys.
type Table = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const TABLES: &[Table] = &[
    (
        "Errors and warnings",
        "problems",
        &[
            ("", "severity"),
            ("object", "object"),
            ("file", "file"),
            ("line", "line"),
            ("path", "path"),
            ("what", "what"),
            ("hint", "hint"),
        ],
    ),
    (
        "Routes",
        "route_info",
        &[
            ("host", "host"),
            ("prefix", "prefix"),
            ("method", "method"),
            ("rewrite", "rewrite"),
            ("precedence", "precedence"),
            ("to", "to"),
            ("written in", "_source"),
        ],
    ),
    (
        "Hosts",
        "hosts",
        &[
            ("name", "name"),
            ("hostname", "hostname"),
            ("without TLS", "insecure"),
            ("written in", "location"),
        ],
    ),
];

/// Writes the page: everything is in it, there is no script.
fn page(told: &Value) -> String {
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Nuncio</title><style>\
         body{font:14px/1.4 sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse;margin-bottom:2em}\
         th,td{text-align:left;padding:.2em .8em .2em 0;vertical-align:top;border-bottom:1px solid #ccc}\
         .bad{color:#a00}</style><h1>Nuncio</h1>",
    );
    let system = &told["system"];
    _ = write!(
        out,
        "<p>Version {}, up for {}, configuration {}.</p>",
        text(&system["version"]),
        text(&system["hr_uptime"]),
        text(&told["configuration"]["version"]),
    );
    for (title, key, columns) in TABLES {
        table(&mut out, title, &told[key], columns);
    }
    upstreams(&mut out, &told["upstreams"]);
    out.push_str("</html>");
    out
}

fn table(out: &mut String, title: &str, rows: &Value, columns: &[(&str, &str)]) {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    _ = write!(out, "<h2>{title}</h2>");
    if rows.is_empty() {
        out.push_str("<p>none</p>");
        return;
    }
    out.push_str("<table><tr>");
    for (head, _) in columns {
        _ = write!(out, "<th>{head}</th>");
    }
    out.push_str("</tr>");
    for row in rows {
        out.push_str("<tr>");
        for (_, key) in columns {
            _ = write!(out, "<td>{}</td>", text(&row[key]));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

fn upstreams(out: &mut String, upstreams: &Value) {
    let upstreams = upstreams.as_array().map_or(&[][..], Vec::as_slice);
    out.push_str(
        "<h2>Upstreams</h2><table><tr><th>name</th><th>endpoint</th><th>state</th><th>weight</th>\
         <th>active</th><th>last error</th></tr>",
    );
    for upstream in upstreams {
        let name = text(&upstream["name"]);
        let endpoints = upstream["endpoints"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        if endpoints.is_empty() {
            _ = write!(out, "<tr><td>{name}</td><td class=\"bad\">none</td></tr>");
        }
        for endpoint in endpoints {
            let state = match (&endpoint["healthy"], &endpoint["ejected"]) {
                (_, Value::Bool(true)) => "<td class=\"bad\">ejected</td>",
                (Value::Bool(true), _) => "<td>healthy</td>",
                _ => "<td class=\"bad\">unhealthy</td>",
            };
            _ = write!(
                out,
                "<tr><td>{name}</td><td>{}</td>{state}<td>{}</td><td>{}</td><td>{}</td></tr>",
                text(&endpoint["address"]),
                text(&endpoint["weight"]),
                text(&endpoint["active"]),
                text(&endpoint["last_error"]),
            );
        }
    }
    out.push_str("</table>");
}

/// Writes a value so that nothing in it is markup.
fn text(value: &Value) -> String {
    let plain = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::with_capacity(plain.len());
    for char in plain.chars() {
        match char {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_users_write_is_no_markup() {
        let told = json!({
            "route_info": [{ "prefix": "<script>alert(1)</script>" }],
            "upstreams": [{ "name": "shop", "endpoints": [{ "address": "10.0.0.1:80", "healthy": false }] }],
        });
        let page = page(&told);
        assert!(
            page.contains("&lt;script&gt;") && !page.contains("<script"),
            "{page}"
        );
        assert!(page.contains("unhealthy"), "{page}");
    }
}
