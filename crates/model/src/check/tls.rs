//! Checks of one TLSContext.

use crate::read::Finding;
use crate::shape::alternatives;
use crate::tls_context::{
    CIPHER_SUITES, GROUPS, PROTOCOLS, TlsContext, TlsVersion, WEAK_CIPHER_SUITES,
};

pub(super) fn tls_context(context: &TlsContext, findings: &mut Vec<Finding>) {
    pairs(context, findings);
    versions(context, findings);
    suites(context, findings);
    let groups = GROUPS.map(|(name, _)| name);
    for (index, group) in context.ecdh_curves.iter().enumerate() {
        if !groups.contains(&group.as_str()) {
            let what = format!("the group `{group}` is not spoken");
            let finding = Finding::error(&format!("ecdh_curves[{index}]"), what);
            findings.push(finding.hint(alternatives(group, &groups)));
        }
    }
    for (index, host) in context.hosts.iter().enumerate() {
        super::glob(host, &format!("hosts[{index}]"), findings);
    }
    for name in context.protocols() {
        if !PROTOCOLS.contains(&name) {
            let what = format!("the protocol `{name}` is not spoken inside TLS");
            let finding = Finding::error("alpn_protocols", what);
            findings.push(finding.hint(alternatives(name, &PROTOCOLS)));
        }
    }
    if !context.hosts.is_empty() && context.secret.is_none() && context.cert_chain_file.is_none() {
        let what = "names without a certificate are not answered";
        let finding = Finding::warning("hosts", what);
        findings.push(finding.hint("write `secret`, unless the Hosts that name it have one"));
    }
    if context.ocsp_staple_file.is_some()
        && context.secret.is_none()
        && context.cert_chain_file.is_none()
    {
        let what = "there is no certificate to staple it to";
        findings.push(Finding::warning("ocsp_staple_file", what));
    }
    let given = context.ca_secret.is_some() || context.cacert_chain_file.is_some();
    if given && context.verify.is_some() {
        let what =
            "a CA is given, so that certificates are verified against it; `verify` has no effect";
        findings.push(Finding::warning("verify", what));
    }
    if !context.verify_subject_alt_names.is_empty() && !context.verifies() {
        let what = "names are worth nothing in a certificate that is not verified";
        let finding = Finding::error("verify_subject_alt_names", what);
        findings.push(finding.hint("write `ca_secret`, or `verify: system`"));
    }
    if (context.crl_secret.is_some() || context.crl_file.is_some()) && !given {
        let what = "a list of revoked certificates has no effect without the CA";
        findings.push(Finding::warning("crl_secret", what));
    }
    if context.cert_required == Some(true) && !given {
        let what = "a certificate that clients must show needs the CA that it comes from";
        let finding = Finding::warning("cert_required", what);
        findings.push(finding.hint("write `ca_secret`"));
    }
    if context.redirect_cleartext_from == Some(0) {
        let what = "a port is a number from 1 to 65535";
        findings.push(Finding::error("redirect_cleartext_from", what));
    }
}

fn pairs(context: &TlsContext, findings: &mut Vec<Finding>) {
    let chain = (&context.cert_chain_file, "cert_chain_file");
    let key = (&context.private_key_file, "private_key_file");
    match (chain.0, key.0) {
        (Some(_), None) => findings.push(Finding::error(
            chain.1,
            "a certificate is nothing without `private_key_file`",
        )),
        (None, Some(_)) => {
            findings.push(Finding::error(
                key.1,
                "a key is nothing without `cert_chain_file`",
            ));
        }
        _ => (),
    }
    for (secret, file, path) in [
        (&context.secret, &context.cert_chain_file, "cert_chain_file"),
        (
            &context.ca_secret,
            &context.cacert_chain_file,
            "cacert_chain_file",
        ),
        (&context.crl_secret, &context.crl_file, "crl_file"),
    ] {
        if secret.is_some() && file.is_some() {
            let what = format!("the Secret wins, `{path}` has no effect");
            findings.push(Finding::warning(path, what));
        }
    }
}

fn versions(context: &TlsContext, findings: &mut Vec<Finding>) {
    let oldest = context.min_tls_version.unwrap_or(TlsVersion::V1_2);
    let newest = context.max_tls_version.unwrap_or(TlsVersion::V1_3);
    if newest < TlsVersion::V1_2 {
        let what = "TLS before 1.2 is not spoken";
        let finding = Finding::error("max_tls_version", what);
        findings.push(finding.hint("write `v1.2` or `v1.3`"));
    } else if oldest > newest {
        let what = "the oldest version is newer than the newest";
        findings.push(Finding::error("min_tls_version", what));
    } else if oldest < TlsVersion::V1_2 {
        let what = "TLS before 1.2 is not spoken, v1.2 is the oldest";
        findings.push(Finding::warning("min_tls_version", what));
    }
}

fn suites(context: &TlsContext, findings: &mut Vec<Finding>) {
    let path = "cipher_suites";
    let mut spoken = 0;
    for name in context.suites() {
        if CIPHER_SUITES
            .iter()
            .any(|(openssl, standard)| [*openssl, *standard].contains(&name))
        {
            spoken += 1;
        } else if WEAK_CIPHER_SUITES.contains(&name) {
            let what = format!("the cipher suite `{name}` is too weak, it is left out");
            findings.push(Finding::warning(path, what));
        } else {
            let what = format!("unknown cipher suite `{name}`");
            let names = CIPHER_SUITES.map(|(openssl, _)| openssl);
            findings.push(Finding::error(path, what).hint(alternatives(name, &names)));
        }
    }
    let old = context.max_tls_version == Some(TlsVersion::V1_2);
    if spoken == 0 && !context.cipher_suites.is_empty() && old {
        let what = "no cipher suite is left";
        findings.push(Finding::error(path, what));
    }
}
