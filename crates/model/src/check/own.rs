//! Checks of one object of our own kinds.

use super::{glob, header_name};
use crate::read::{Finding, Written};
use crate::shape::alternatives;
use crate::target::Target;
use crate::template::{Part, Template};
use crate::{Publish, Service, Subscribe, Topic};

/// Most partitions of one topic: each is a folder with open files and an owner.
pub(super) const PARTITIONS_MAX: u32 = 10_000;

/// Most requests of one subscription that may be under way at once.
const IN_FLIGHT_MAX: u32 = 10_000;

pub(super) fn service(service: &Service, written: &Written, findings: &mut Vec<Finding>) {
    let name = &written.id.name;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let bytes = name.as_bytes();
    if !bytes.iter().all(|byte| plain(*byte))
        || !edge(bytes.first())
        || !edge(bytes.last())
        || name.len() > 63
    {
        let what = format!("`{name}` is no service name");
        let hint = "use up to 63 lower-case letters, digits and `-`, as a DNS name needs";
        findings.push(Finding::error("", what).hint(hint));
    }
    if service.build.is_none() && service.run.is_none() {
        let what = "the service has neither `build` nor `run`, so it cannot be started";
        findings.push(Finding::error("", what).hint("write `run: node src/app.js`"));
    }
    if service
        .run
        .as_deref()
        .is_some_and(|run| run.trim().is_empty())
    {
        findings.push(Finding::error("run", "the command is empty"));
    }
    if service
        .health
        .as_deref()
        .is_some_and(|path| !path.starts_with('/'))
    {
        let finding = Finding::error("health", "a health check is a path that starts with `/`");
        findings.push(finding.hint("write `health: /healthz`"));
    }
    if service.port == Some(0) {
        findings.push(Finding::error("port", "a port is a number from 1 to 65535"));
    }
    for key in service.env.keys() {
        if key.is_empty() || key.contains(['=', '\0']) {
            findings.push(Finding::error(
                "env",
                format!("`{key}` is no name of a variable"),
            ));
        }
    }
    if service.needs.contains(name) {
        findings.push(Finding::error(
            "needs",
            format!("`{name}` waits for itself"),
        ));
    }
}

pub(super) fn topic(name: &str, topic: &Topic, findings: &mut Vec<Finding>) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.bytes().all(plain) || name.is_empty() || name.len() > 249 || matches!(name, "." | "..")
    {
        let what = format!("`{name}` is no topic name");
        let hint = "use up to 249 letters, digits, `.`, `_` and `-`";
        findings.push(Finding::error("", what).hint(hint));
    } else if name.starts_with("__") {
        let what = format!("`{name}` is taken: names that start with `__` are the broker's own");
        findings.push(Finding::error("", what));
    }
    if !(1..=PARTITIONS_MAX).contains(&topic.partitions) {
        let what = format!("a topic cannot have {} partitions", topic.partitions);
        findings
            .push(Finding::error("partitions", what).hint(format!("use 1 to {PARTITIONS_MAX}")));
    }
    if topic.retention.is_some_and(|retention| retention.is_zero()) {
        let what = "a retention of zero would drop every record at once";
        findings.push(Finding::error("retention", what).hint("did you mean `1s`?"));
    }
    if topic.segment_bytes.is_some_and(|bytes| bytes < 1 << 20) {
        findings.push(Finding::error(
            "segment_bytes",
            "a segment has at least 1MiB",
        ));
    }
    if topic
        .message_bytes_max
        .is_some_and(|bytes| !(1..=1 << 30).contains(&bytes))
    {
        findings.push(Finding::error(
            "message_bytes_max",
            "a record batch has 1 byte to 1GiB",
        ));
    }
}

pub(super) fn publish(publish: &Publish, findings: &mut Vec<Finding>) {
    let names: Vec<String> = match publish.route() {
        Ok(route) => {
            if matches!(
                route.method.as_str(),
                "GET" | "HEAD" | "OPTIONS" | "CONNECT" | "TRACE"
            ) {
                let what = format!("`{}` carries no record", route.method);
                findings.push(Finding::error("route", what).hint("use POST, PUT, PATCH or DELETE"));
            }
            route.names().map(str::to_owned).collect()
        }
        Err(what) => {
            findings.push(Finding::error("route", what));
            return;
        }
    };
    if let Some(hostname) = &publish.hostname {
        glob(hostname, "hostname", findings);
    }
    match &publish.key {
        Some(key) => template(key, "key", &names, findings),
        None if publish.key_required => {
            findings.push(Finding::error("key_required", "`key_required` needs `key`"));
        }
        None => (),
    }
    for (index, name) in publish.headers.iter().enumerate() {
        header_name(name, &format!("headers[{index}]"), findings);
    }
    for (name, text) in &publish.add_headers {
        template(text, &format!("add_headers.{name}"), &names, findings);
    }
    if publish.timeout.is_zero() {
        findings.push(
            Finding::error("timeout", "no append is done in no time").hint("did you mean `3s`?"),
        );
    }
}

fn template(text: &str, path: &str, names: &[String], findings: &mut Vec<Finding>) {
    let parts = match Template::parse(text) {
        Ok(template) => template.parts,
        Err(what) => return findings.push(Finding::error(path, what)),
    };
    for part in parts {
        match part {
            Part::Path(name) if !names.contains(&name) => {
                let what = format!("`{{path.{name}}}` is not in the route");
                let hint = match names.is_empty() {
                    true => format!("write a segment `{{{name}}}` into the route"),
                    false => alternatives(&name, names),
                };
                findings.push(Finding::error(path, what).hint(hint));
            }
            Part::Header(name) => header_name(&name, path, findings),
            _ => (),
        }
    }
}

pub(super) fn subscribe(subscribe: &Subscribe, findings: &mut Vec<Finding>) {
    match Target::parse(&subscribe.service) {
        Err(what) => findings.push(Finding::error("service", what)),
        Ok(target)
            if subscribe.tls.is_some() && !target.tls && subscribe.service.contains("://") =>
        {
            let what = "`http://` means no TLS, `tls` has no effect";
            findings.push(Finding::warning("tls", what).hint("take `http://` off"));
        }
        Ok(_) => (),
    }
    if !subscribe.path.starts_with('/') || subscribe.path.contains(char::is_whitespace) {
        let what = format!("`{}` is no path", subscribe.path);
        findings.push(Finding::error("path", what).hint("a path starts with `/`"));
    }
    if !matches!(subscribe.method.as_str(), "POST" | "PUT" | "PATCH") {
        let what = format!("a record cannot be sent by `{}`", subscribe.method);
        findings.push(Finding::error("method", what).hint("use POST, PUT or PATCH"));
    }
    if subscribe.group.as_deref() == Some("") {
        findings.push(Finding::error("group", "the group's name is empty"));
    }
    if !(1..=IN_FLIGHT_MAX).contains(&subscribe.in_flight_max) {
        let what = format!(
            "{} requests at once are out of range",
            subscribe.in_flight_max
        );
        findings
            .push(Finding::error("in_flight_max", what).hint(format!("use 1 to {IN_FLIGHT_MAX}")));
    }
    if subscribe.timeout.is_zero() {
        findings.push(Finding::error(
            "timeout",
            "no request is answered in no time",
        ));
    }
    if subscribe.retry.backoff_min.is_zero() {
        let what = "without a wait a failing service would be called without a break";
        findings.push(Finding::error("retry.backoff_min", what).hint("did you mean `200ms`?"));
    }
    if subscribe.retry.backoff_max < subscribe.retry.backoff_min {
        let what = "`backoff_max` is shorter than `backoff_min`";
        findings.push(Finding::error("retry.backoff_max", what));
    }
    if subscribe.dead_letter.as_ref() == Some(&subscribe.topic) {
        let what = "undeliverable records would come back into the same topic";
        findings.push(Finding::error("dead_letter", what));
    }
}
