//! Does what is written make sense? Each object alone first, then all together.

mod acme;
mod ambassador;
mod balance;
mod broker;
mod mapping;
mod own;
mod policies;
mod references;
mod tls;
mod together;

use crate::format::Format;
use crate::read::{Finding, Spec, Written};

pub use together::{Checked, check};

/// Checks an object by itself.
pub(crate) fn alone(written: &Written) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &written.spec {
        Spec::Mapping(mapping) => mapping::check(&mapping.spec, written, &mut findings),
        Spec::Host(host) => ambassador::host(host, &mut findings),
        Spec::Listener(listener) => ambassador::listener(listener, &mut findings),
        Spec::Module(module) => ambassador::module(module, &mut findings),
        Spec::TLSContext(context) => tls::tls_context(context, &mut findings),
        Spec::Service(service) => own::service(service, written, &mut findings),
        Spec::Topic(topic) => own::topic(&written.id.name, topic, &mut findings),
        Spec::Publish(publish) => own::publish(publish, &mut findings),
        Spec::Subscribe(subscribe) => own::subscribe(subscribe, &mut findings),
        Spec::Broker(broker) => broker::broker(broker, &mut findings),
        Spec::ConsulResolver(resolver) => ambassador::consul(resolver, &mut findings),
        Spec::KubernetesServiceResolver(_) | Spec::KubernetesEndpointResolver(_) => (),
        Spec::Secret(_) | Spec::KubernetesService(_) | Spec::Guard(_) => (),
        Spec::Endpoints(_) | Spec::EndpointSlice(_) => (),
    }
    findings
}

/// Checks a glob over host names: `*`, `*x` or `x*`.
fn glob(text: &str, path: &str, findings: &mut Vec<Finding>) {
    let stars = text.matches('*').count();
    if text.is_empty() {
        findings.push(Finding::error(path, "the host name is empty").hint("write `*` for any"));
    } else if stars > 1 || (stars == 1 && !text.starts_with('*') && !text.ends_with('*')) {
        let what = format!("`{text}` is no glob");
        findings.push(
            Finding::error(path, what).hint("a `*` stands alone, at the start or at the end"),
        );
    } else if let Some(c) = text
        .chars()
        .find(|c| c.is_whitespace() || matches!(c, '/' | '@' | ','))
    {
        let what = format!("`{text}` is no host name, since it has a `{c}`");
        findings.push(Finding::error(path, what).hint("write only host and port"));
    }
}

/// Largest compiled size of a regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Checks a regular expression that must match a whole text.
fn regex(pattern: &str, path: &str, findings: &mut Vec<Finding>) {
    let whole = format!("^(?:{pattern})$");
    let built = regex::RegexBuilder::new(&whole)
        .size_limit(REGEX_BYTES_MAX)
        .build();
    // Compiled alone as well: `a)(b` is wrong, though `(?:a)(b)` is not.
    let built = built.and_then(|_| {
        regex::RegexBuilder::new(pattern)
            .size_limit(REGEX_BYTES_MAX)
            .build()
    });
    let what = match built {
        Ok(_) => return,
        Err(regex::Error::CompiledTooBig(_)) => "this regular expression is too large".to_owned(),
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim();
            format!(
                "this is no regular expression: {}",
                reason.trim_start_matches("error: ")
            )
        }
    };
    findings.push(Finding::error(path, what));
}

/// Checks the name of a header.
fn header_name(name: &str, path: &str, findings: &mut Vec<Finding>) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        findings.push(Finding::error(path, format!("`{name}` is no header name")));
    }
}

/// Checks the value of a header.
fn header_value(value: &str, path: &str, findings: &mut Vec<Finding>) {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        findings.push(Finding::error(
            path,
            "a header value has no line breaks or control characters",
        ));
    }
}

/// Checks a text with Envoy's variables.
fn format(text: &str, path: &str, findings: &mut Vec<Finding>) {
    if let Err(wrong) = Format::parse(text) {
        let finding = Finding::error(path, wrong.what);
        findings.push(match wrong.hint {
            Some(hint) => finding.hint(hint),
            None => finding,
        });
    }
}
