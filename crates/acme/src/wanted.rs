//! What a configuration asks for: a certificate for each name of a Host, from an authority.

use std::collections::BTreeMap;

use model::config::Secret;
use model::host::{AcmeChallenge, AcmeProvider};
use model::{Config, Host, Object, Problem, Severity};
use tls::material::Context;
use tls::ordered::plain;

/// Which certificate: of which authority, for which name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) authority: String,
    pub(crate) name: String,
}

/// How a certificate is ordered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// The address of the authority's directory.
    pub(crate) authority: String,
    pub(crate) name: String,
    pub(crate) email: Option<String>,
    /// The Secret with the account's key, where it is there.
    pub(crate) account_key: Option<Secret>,
    pub(crate) challenge: Option<AcmeChallenge>,
    pub(crate) external: Option<External>,
    pub(crate) ca_file: Option<String>,
}

/// An account elsewhere that the authority knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct External {
    pub(crate) key_id: String,
    /// What the Secret is called.
    pub(crate) named: String,
    /// Nothing while it is missing.
    pub(crate) secret: Option<Secret>,
}

impl Wanted {
    fn of(config: &Config, host: &Object<Host>, provider: &AcmeProvider, authority: &str) -> Self {
        let secret = |key: &(String, String)| config.secrets.get(key).cloned();
        let account_key = provider.private_key_secret.as_ref();
        let external = provider.external_account.as_ref();
        Wanted {
            authority: authority.to_owned(),
            name: host.spec.bare_name(),
            email: provider.email.clone(),
            account_key: account_key.and_then(|named| secret(&named.key(&host.namespace))),
            challenge: provider.challenge,
            external: external.map(|external| {
                let key = external.key_secret.key(&host.namespace);
                External {
                    key_id: external.key_id.clone(),
                    named: format!("{}.{}", key.1, key.0),
                    secret: secret(&key),
                }
            }),
            ca_file: provider.ca_file.clone(),
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key {
            authority: self.authority.clone(),
            name: self.name.clone(),
        }
    }

    /// Returns the name of the file with the account, among those of its authority.
    pub(crate) fn account(&self) -> String {
        let email = self.email.as_deref().unwrap_or("nobody");
        match &self.external {
            None => format!("account {}.json", plain(email)),
            Some(external) => format!("account {} {}.json", plain(email), plain(&external.key_id)),
        }
    }
}

/// Returns what a configuration asks for, and what is worth knowing about it.
pub(crate) fn all(config: &Config) -> (BTreeMap<Key, Wanted>, Vec<Problem>) {
    let mut all: BTreeMap<Key, Wanted> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut hosts: Vec<&Object<Host>> = config.hosts.iter().collect();
    hosts.sort_by_key(|host| host.full_name());
    for host in hosts {
        let Some((provider, authority)) = host.spec.acme() else {
            continue;
        };
        if let Some(path) = given(config, host) {
            let what = format!("`{path}` gives the certificate, no other is ordered");
            let hint = "leave one of them away";
            problems.push(problem(host, Severity::Warning, "", what, hint));
            continue;
        }
        let wanted = Wanted::of(config, host, provider, authority);
        if let Some(external) = &wanted.external
            && external.secret.is_none()
        {
            let what = format!("there is no Secret `{}`", external.named);
            let hint = "without it the authority makes no account";
            let path = ".externalAccount.keySecret";
            problems.push(problem(host, Severity::Error, path, what, hint));
        }
        let key = wanted.key();
        match all.get(&key) {
            Some(before) if *before != wanted => {
                let what = format!(
                    "another Host orders the certificate of `{}`, and says something else",
                    wanted.name
                );
                let hint = "what the first one by name says counts";
                problems.push(problem(host, Severity::Warning, "", what, hint));
            }
            Some(_) => (),
            None => _ = all.insert(key, wanted),
        }
    }
    (all, problems)
}

/// Returns what is worth knowing about the certificates that a configuration orders, for somebody who does not run it.
pub fn check(config: &Config) -> Vec<Problem> {
    all(config).1
}

/// Returns the field that gives the certificate of a Host.
fn given(config: &Config, host: &Object<Host>) -> Option<&'static str> {
    let said = &host.spec;
    if let Some(secret) = &said.tls_secret
        && config.secrets.contains_key(&secret.key(&host.namespace))
    {
        return Some("tlsSecret");
    }
    if let Some(tls) = &said.tls
        && tls.cert_chain_file.is_some()
    {
        return Some("tls.cert_chain_file");
    }
    let named = said.tls_context.as_ref()?;
    let context = Context::of(config.tls_context(&named.name, &host.namespace)?);
    context.has_certificate(config).then_some("tlsContext")
}

fn problem(
    host: &Object<Host>,
    severity: Severity,
    path: &str,
    what: String,
    hint: &str,
) -> Problem {
    Problem {
        severity,
        origin: host.origin.clone(),
        span: 0..0,
        object: Some(format!("Host {}", host.full_name())),
        path: format!("spec.acmeProvider{path}"),
        what,
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use model::load::load;
    use model::read::{Options, Source};

    use super::*;

    const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

    /// Checks what is ordered, and what is said about it, with these Hosts and a Secret `there`.
    #[track_caller]
    fn check(hosts: &[&str], ordered: &[&str], said: &[&str]) {
        let api = "apiVersion: getambassador.io/v3alpha1\nkind: Host";
        let mut text = "apiVersion: v1\nkind: Secret\nmetadata: { name: there }\nstringData: { tls.crt: c, tls.key: k, hmac: aGk }\n".to_owned();
        for (index, host) in hosts.iter().enumerate() {
            text += &format!("---\n{api}\nmetadata: {{ name: h{index} }}\nspec: {{ {host} }}\n");
        }
        let source = Source {
            name: "a.yaml".into(),
            text: text.into(),
        };
        let loaded = load(&[source], &Options::default());
        assert_eq!(loaded.problems, []);
        let (all, problems) = all(&loaded.config);
        let told: Vec<String> = all
            .values()
            .map(|wanted| format!("{} {}", wanted.authority, wanted.name))
            .collect();
        assert_eq!(told, ordered);
        let told: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.what))
            .collect();
        assert_eq!(told, said);
    }

    #[test]
    fn a_certificate_is_ordered_for_each_name_of_each_authority() {
        let other = "https://ca.example/dir";
        check(
            &[
                "hostname: A.example, acmeProvider: { email: a@b }",
                "hostname: 'a.example:8443', acmeProvider: { email: a@b }",
                "hostname: a.example, acmeProvider: { authority: 'https://ca.example/dir' }",
                "hostname: b.example, acmeProvider: { authority: none }",
                "hostname: c.example",
            ],
            &[
                &format!("{LETS_ENCRYPT} a.example"),
                &format!("{other} a.example"),
            ],
            &[],
        );
    }

    #[test]
    fn a_certificate_that_is_given_is_not_ordered() {
        check(
            &[
                "hostname: a.example, tlsSecret: { name: there }, acmeProvider: {}",
                "hostname: b.example, tlsSecret: { name: missing }, acmeProvider: {}",
                "hostname: c.example, tls: { cert_chain_file: c, private_key_file: k }, acmeProvider: {}",
            ],
            &[&format!("{LETS_ENCRYPT} b.example")],
            &[
                "spec.acmeProvider: `tlsSecret` gives the certificate, no other is ordered",
                "spec.acmeProvider: `tls.cert_chain_file` gives the certificate, no other is ordered",
            ],
        );
    }

    #[test]
    fn what_does_not_fit_is_told() {
        check(
            &[
                "hostname: a.example, acmeProvider: { email: a@b }",
                "hostname: a.example, acmeProvider: { email: other@b }",
                "hostname: b.example, acmeProvider: { externalAccount: { keyId: k, keySecret: { name: gone } } }",
                "hostname: c.example, acmeProvider: { externalAccount: { keyId: k, keySecret: { name: there } } }",
            ],
            &[
                &format!("{LETS_ENCRYPT} a.example"),
                &format!("{LETS_ENCRYPT} b.example"),
                &format!("{LETS_ENCRYPT} c.example"),
            ],
            &[
                "spec.acmeProvider: another Host orders the certificate of `a.example`, and says something else",
                "spec.acmeProvider.externalAccount.keySecret: there is no Secret `gone.default`",
            ],
        );
    }
}
