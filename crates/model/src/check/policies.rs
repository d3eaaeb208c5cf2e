//! Checks of what both a Mapping and the Module may say about policies.

use super::{format, header_name, header_value};
use crate::mapping::{Cors, ErrorBody, ErrorResponseOverride};
use crate::module::{Module, Probe};
use crate::read::Finding;

/// Checks cross-origin rules.
pub(super) fn cors(cors: &Option<Cors>, findings: &mut Vec<Finding>) {
    let Some(cors) = cors else { return };
    for (index, text) in cors.origins.iter().enumerate() {
        origin(text, &format!("cors.origins[{index}]"), findings);
    }
    if cors.origins.is_empty() {
        let what = "no origin may ask";
        findings.push(Finding::warning("cors.origins", what).hint("write `*` for any"));
    }
    if cors.credentials && cors.origins.iter().any(|origin| origin == "*") {
        let what = "any website may ask in the name of its visitors";
        let hint = "write down the origins that may";
        findings.push(Finding::warning("cors.credentials", what).hint(hint));
    }
    for (list, field) in [
        (&cors.methods, "methods"),
        (&cors.headers, "headers"),
        (&cors.exposed_headers, "exposed_headers"),
    ] {
        for (index, name) in list.iter().enumerate() {
            header_name(name, &format!("cors.{field}[{index}]"), findings);
        }
    }
    if let Some(age) = &cors.max_age
        && age.parse::<i32>().is_err()
    {
        let what = format!("`{age}` is no number of seconds");
        findings.push(Finding::error("cors.max_age", what).hint("for example `86400`"));
    }
}

fn origin(text: &str, path: &str, findings: &mut Vec<Finding>) {
    if matches!(text, "*" | "null") {
        return;
    }
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | '*' | ',');
    let good = text.split_once("://").is_some_and(|(scheme, host)| {
        let host = host.strip_prefix("*.").unwrap_or(host);
        !scheme.is_empty()
            && scheme.chars().all(plain)
            && !host.is_empty()
            && host.chars().all(plain)
    });
    if !good {
        // Ambassador takes any text; one that is no origin never matches.
        let what = format!("no browser sends the origin `{text}`");
        let hint = "write `https://shop.example.com`, `https://*.example.com` or `*`";
        findings.push(Finding::warning(path, what).hint(hint));
    }
}

/// Checks bodies for error answers.
pub(super) fn errors(said: &Option<Vec<ErrorResponseOverride>>, findings: &mut Vec<Finding>) {
    let mut seen = Vec::new();
    for (index, one) in said.iter().flatten().enumerate() {
        let path = format!("error_response_overrides[{index}]");
        let status = one.on_status_code;
        if !(400..=599).contains(&status) {
            let path = format!("{path}.on_status_code");
            let what = format!("{status} is no error");
            findings.push(Finding::error(&path, what).hint("use 400 to 599"));
        } else if seen.contains(&status) {
            let path = format!("{path}.on_status_code");
            let what = format!("the first entry for {status} counts, this one has no effect");
            findings.push(Finding::warning(&path, what));
        }
        seen.push(status);
        body(&one.body, &format!("{path}.body"), findings);
    }
}

fn body(body: &ErrorBody, path: &str, findings: &mut Vec<Finding>) {
    let formats = [
        body.text_format.is_some(),
        body.json_format.is_some(),
        body.text_format_source.is_some(),
    ];
    if formats.iter().filter(|there| **there).count() != 1 {
        let what = "exactly one of `text_format`, `json_format` and `text_format_source` is needed";
        findings.push(Finding::error(path, what));
    }
    if let Some(text) = &body.text_format {
        format(text, &format!("{path}.text_format"), findings);
    }
    for (name, text) in body.json_format.iter().flatten() {
        format(text, &format!("{path}.json_format.{name}"), findings);
    }
    if let Some(content_type) = &body.content_type {
        header_value(content_type, &format!("{path}.content_type"), findings);
    }
}

const LEVELS: [&str; 3] = ["BEST", "SPEED", "DEFAULT"];
const STRATEGIES: [&str; 4] = ["FILTERED", "HUFFMAN", "RLE", "DEFAULT"];

/// Checks compression.
pub(super) fn compression(module: &Module, findings: &mut Vec<Finding>) {
    let mut word = |text: &Option<String>, known: &[&str], path: &str| {
        if let Some(text) = text.as_deref().filter(|text| !known.contains(text)) {
            let what = format!("`{text}` is unknown");
            let hint = crate::shape::alternatives(text, known);
            findings.push(Finding::error(path, what).hint(hint));
        }
    };
    if let Some(said) = &module.compression {
        word(
            &said.compression_level,
            &LEVELS,
            "compression.compression_level",
        );
    }
    if let Some(said) = &module.gzip {
        word(&said.compression_level, &LEVELS, "gzip.compression_level");
        word(
            &said.compression_strategy,
            &STRATEGIES,
            "gzip.compression_strategy",
        );
    }
    if let Some(said) = &module.gzip {
        let mut range = |value: Option<u32>, field: &str, least: u32, most: u32| {
            let Some(value) = value else { return };
            let path = format!("gzip.{field}");
            if !(least..=most).contains(&value) {
                let what = format!("{value} is out of range");
                let hint = format!("use {least} to {most}");
                findings.push(Finding::error(&path, what).hint(hint));
            } else {
                let what =
                    "this has no effect: the compressor's memory is the same for all streams";
                findings.push(Finding::warning(&path, what));
            }
        };
        range(said.memory_level, "memory_level", 1, 9);
        range(said.window_bits, "window_bits", 9, 15);
        let strategy = said.compression_strategy.as_deref();
        if strategy.is_some_and(|strategy| strategy != "DEFAULT" && STRATEGIES.contains(&strategy))
        {
            let what = "this has no effect: the compressor has one strategy";
            findings.push(Finding::warning("gzip.compression_strategy", what));
        }
    }
    if module.gzip.is_some() && module.compression.is_some() {
        let what = "`gzip` and `compression` exclude each other";
        let hint = "`compression` can say all that `gzip` can";
        findings.push(Finding::error("gzip", what).hint(hint));
    }
    let offered = module
        .compression
        .as_ref()
        .and_then(|said| said.algorithms.as_ref());
    if offered.is_some_and(Vec::is_empty) {
        let what = "nothing is offered, so nothing is compressed";
        findings.push(Finding::warning("compression.algorithms", what));
    }
}

/// Checks the probes on the public listener.
pub(super) fn probes(module: &Module, findings: &mut Vec<Finding>) {
    for (probe, field) in [
        (&module.liveness_probe, "liveness_probe"),
        (&module.readiness_probe, "readiness_probe"),
    ] {
        let Some(Probe {
            enabled: _,
            prefix,
            rewrite,
            service,
        }) = probe
        else {
            continue;
        };
        if let Some(prefix) = prefix.as_ref().filter(|prefix| !prefix.starts_with('/')) {
            let what = format!("the path `{prefix}` does not begin with `/`");
            findings.push(Finding::error(&format!("{field}.prefix"), what));
        }
        for (said, name) in [(rewrite, "rewrite"), (service, "service")] {
            if said.is_some() {
                let what = format!("`{name}` has no effect, the gateway itself answers the probe");
                let finding = Finding::warning(&format!("{field}.{name}"), what);
                findings.push(finding.hint("write a Mapping to have a service answer"));
            }
        }
    }
}
