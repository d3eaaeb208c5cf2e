//! Checks of what a Host says about ACME.

use std::net::IpAddr;

use crate::host::{AcmeProvider, Host, is_dns_name};
use crate::read::Finding;

/// Where an email's name ends.
const AT: char = '@';

pub(super) fn provider(host: &Host, findings: &mut Vec<Finding>) {
    let Some(provider) = &host.acme_provider else {
        return;
    };
    let Some(authority) = provider.authority() else {
        return; // `none`
    };
    name(host, findings);
    if !authority.strip_prefix("https://").is_some_and(|rest| {
        rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
            && rest.chars().all(|c| c.is_ascii_graphic())
    }) {
        let what = format!("`{authority}` is no address of an authority's directory");
        let finding = Finding::error("acmeProvider.authority", what);
        findings.push(finding.hint("it begins with `https://`; `none` orders nothing"));
    }
    fields(provider, findings);
}

/// A certificate is ordered for one name.
fn name(host: &Host, findings: &mut Vec<Finding>) {
    let name = host.bare_name();
    if is_dns_name(&name) {
        return;
    }
    let what = if name.contains('*') {
        format!(
            "no certificate can be ordered for `{name}`: for more than one name an authority asks for DNS-01, which is not built"
        )
    } else if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        format!("no certificate can be ordered for `{name}`, which is an address and no name")
    } else {
        format!("no certificate can be ordered for `{name}`, which is no DNS name")
    };
    // With a certificate of its own it needs none that is ordered.
    let finding = match host.certificate_path() {
        Some(_) => Finding::warning("acmeProvider", what),
        None => Finding::error("acmeProvider", what),
    };
    findings.push(
        finding.hint(
            "write a Host for each name, or `authority: none` and a certificate in `tlsSecret`",
        ),
    );
}

fn fields(provider: &AcmeProvider, findings: &mut Vec<Finding>) {
    if let Some(email) = &provider.email {
        let parts = email.split_once(AT);
        let is_email = parts.is_some_and(|(name, domain)| {
            !name.is_empty() && !domain.is_empty() && !domain.contains(AT)
        });
        let is_plain = email.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_email || !is_plain || email.starts_with("mailto:") {
            let what = format!("`{email}` is no address for email");
            let finding = Finding::error("acmeProvider.email", what);
            findings.push(finding.hint("write it as in `operations@example.com`"));
        }
    }
    if provider.registration.is_some() {
        let what = "`registration` has no effect: the authority finds the account by its key";
        findings.push(Finding::warning("acmeProvider.registration", what));
    }
    let Some(external) = &provider.external_account else {
        return;
    };
    if external.key_id.is_empty() {
        let what = "the key's name is empty";
        findings.push(Finding::error("acmeProvider.externalAccount.keyId", what));
    }
    if provider.private_key_secret.is_some() {
        let what = "`externalAccount` is for an account that is made here, `privateKeySecret` has the key of one that is there";
        let finding = Finding::error("acmeProvider.externalAccount", what);
        findings.push(finding.hint("leave one of them away"));
    }
}
