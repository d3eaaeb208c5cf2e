//! The conversation with an authority: an account, an order, its challenges, a certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType, Error,
    ExternalAccountKey, Identifier, Key as AccountKey, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use model::config::Secret;
use model::host::AcmeChallenge;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tls::certificate::Certificate;
use tls::ordered::{Challenge, Ordered};

use crate::Shared;
use crate::client::Client;
use crate::kept::{Issued, Kept};
use crate::plan::Window;
use crate::trouble::Trouble;
use crate::wanted::{External, Wanted};

/// How often, and for how long, an authority is asked what it has decided.
const DECIDING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// A new certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// What the conversation is about.
pub(crate) struct Talk<'a> {
    shared: &'a Shared,
    wanted: &'a Wanted,
    kept: &'a Kept,
    client: Client,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        wanted: &'a Wanted,
        kept: &'a Kept,
    ) -> Result<Self, Trouble> {
        let client = Client::new(wanted.ca_file.as_deref()).map_err(Trouble::here)?;
        Ok(Talk {
            shared,
            wanted,
            kept,
            client,
        })
    }

    /// Orders a certificate; `before` is the one that it takes the place of.
    pub(crate) async fn order(
        &self,
        before: Option<&Issued>,
        first: AcmeChallenge,
    ) -> Result<Pair, Trouble> {
        let account = self.account().await?;
        let mut order = self.begin(&account, before).await?;
        let open = self.answer(&mut order, first).await?;
        let ready = order.poll_ready(&DECIDING).await;
        drop(open);
        match ready {
            Ok(OrderStatus::Ready) => (),
            Ok(_) => return Err(self.unproven(&mut order).await),
            Err(error) => return Err(self.trouble(&error)),
        }
        let (key, request) = request(&self.wanted.name).map_err(|error| {
            Trouble::refused(format!("no certificate can be asked for: {error}"))
        })?;
        let told = |error: Error| self.trouble(&error);
        order.finalize_csr(&request).await.map_err(told)?;
        let chain = order.poll_certificate(&DECIDING).await.map_err(told)?;
        fits(&chain, &key, &self.wanted.name).map_err(Trouble::refused)?;
        Ok(Pair {
            chain,
            key: key.serialize_pem(),
        })
    }

    /// Asks when the authority would like a certificate to be renewed, and when it wants to be asked again.
    pub(crate) async fn window(&self, issued: &Issued) -> Result<(Window, Duration), Trouble> {
        let account = self.account().await?;
        let id = CertificateIdentifier::try_from(&issued.certificate).map_err(Trouble::refused)?;
        let (told, again) = account
            .renewal_info(&id)
            .await
            .map_err(|error| self.trouble(&error))?;
        let window = Window {
            start: told.suggested_window.start.into(),
            end: told.suggested_window.end.into(),
        };
        Ok((window, again))
    }

    fn trouble(&self, error: &Error) -> Trouble {
        Trouble::of(error, self.client.refused())
    }

    /// Returns the account: the one that is kept, the one of the Secret's key, or a new one.
    async fn account(&self) -> Result<Account, Trouble> {
        let told = |error: Error| self.trouble(&error);
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        let authority = self.wanted.authority.clone();
        let contact = self
            .wanted
            .email
            .iter()
            .map(|email| format!("mailto:{email}"));
        let contact: Vec<String> = contact.collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        if let Some(secret) = &self.wanted.account_key {
            let key = account_key(secret)
                .map_err(|why| Trouble::refused(format!("`privateKeySecret`: {why}")))?;
            let made = builder().create_from_key(key, authority).await;
            let (account, _) = made.map_err(told)?;
            if !contact.is_empty() {
                account.update_contacts(&contact).await.map_err(told)?;
            }
            return Ok(account);
        }
        // Several certificates want the same account: one makes it.
        let _one = self.shared.accounts.lock().await;
        let disk = |error| Trouble::disk("the account cannot be kept", &error);
        if let Some(text) = self.kept.account().map_err(disk)? {
            match serde_json::from_str(&text) {
                Ok(credentials) => {
                    let known = builder().from_credentials(credentials).await;
                    return known.map_err(told);
                }
                Err(_) => self.kept.forget_account().map_err(disk)?,
            }
        }
        let external = self.wanted.external.as_ref().map(external).transpose()?;
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let made = builder().create(&new, authority, external.as_ref()).await;
        let (account, credentials) = made.map_err(told)?;
        let text = serde_json::to_vec(&credentials).expect("what was just made can be written");
        self.kept.keep_account(&text).map_err(disk)?;
        Ok(account)
    }

    /// Begins an order, which says what it replaces where the authority wants to know.
    async fn begin(&self, account: &Account, before: Option<&Issued>) -> Result<Order, Trouble> {
        let names = [Identifier::Dns(self.wanted.name.clone())];
        let before = before.and_then(|issued| {
            CertificateIdentifier::try_from(&issued.certificate)
                .ok()
                .map(CertificateIdentifier::into_owned)
        });
        if let Some(before) = before {
            match account
                .new_order(&NewOrder::new(&names).replaces(before))
                .await
            {
                Err(error) if is_about_replacing(&error) => (),
                begun => return begun.map_err(|error| self.trouble(&error)),
            }
        }
        let begun = account.new_order(&NewOrder::new(&names)).await;
        begun.map_err(|error| self.trouble(&error))
    }

    /// Answers the challenges of an order, for as long as what is returned is kept, and says that they are answered.
    async fn answer(
        &self,
        order: &mut Order,
        first: AcmeChallenge,
    ) -> Result<Vec<Challenge>, Trouble> {
        let kinds = match (self.wanted.challenge, first) {
            (Some(only), _) => vec![only],
            (None, AcmeChallenge::Http01) => vec![first, AcmeChallenge::TlsAlpn01],
            (None, AcmeChallenge::TlsAlpn01) => vec![first, AcmeChallenge::Http01],
        };
        let mut open = Vec::new();
        let mut all = order.authorizations();
        while let Some(next) = all.next().await {
            let mut authorization = next.map_err(|error| self.trouble(&error))?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => (),
                _ => return Err(Trouble::unproven("the authority has closed the question")),
            }
            let offered = |kind: &AcmeChallenge| {
                let mut all = authorization.challenges.iter();
                all.any(|challenge| challenge.r#type == type_of(*kind))
            };
            let Some(kind) = kinds.iter().copied().find(offered) else {
                return Err(Trouble::refused(
                    "the authority takes none of the challenges that could be answered",
                ));
            };
            let challenge = authorization.challenge(type_of(kind));
            let mut challenge = challenge.expect("it is offered");
            open.push(
                answered(&self.shared.ordered, kind, &self.wanted.name, &challenge)
                    .map_err(|why| Trouble::refused(format!("no answer can be made: {why}")))?,
            );
            let ready = challenge.set_ready().await;
            ready.map_err(|error| self.trouble(&error))?;
        }
        Ok(open)
    }

    /// Finds out what the authority did not like.
    async fn unproven(&self, order: &mut Order) -> Trouble {
        let mut all = order.authorizations();
        while let Some(next) = all.next().await {
            let Ok(mut authorization) = next else {
                continue;
            };
            let Ok(state) = authorization.refresh().await else {
                continue;
            };
            let mut errors = state.challenges.iter().filter_map(|one| one.error.as_ref());
            if let Some(problem) = errors.next() {
                let trouble = Trouble::of(&Error::Api(problem.clone()), None);
                return Trouble::unproven(trouble.what);
            }
        }
        Trouble::unproven("the authority does not say why")
    }
}

fn type_of(kind: AcmeChallenge) -> ChallengeType {
    match kind {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// Returns whether an order failed for what it said that it replaces.
fn is_about_replacing(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) => true,
        Error::Api(problem) => problem
            .r#type
            .as_deref()
            .is_some_and(|kind| kind.ends_with(":alreadyReplaced") || kind.ends_with(":malformed")),
        Error::Other(error) => error.to_string().starts_with("replaces field mismatch"),
        _ => false,
    }
}

/// Has a challenge answered.
fn answered(
    ordered: &Arc<Ordered>,
    kind: AcmeChallenge,
    name: &str,
    challenge: &ChallengeHandle<'_>,
) -> Result<Challenge, String> {
    let answer = challenge.key_authorization();
    if kind == AcmeChallenge::Http01 {
        return Ok(ordered.open_request(&challenge.token, answer.as_str()));
    }
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let params = CertificateParams::new(vec![name.to_owned()]);
    let mut params = params.map_err(|error| error.to_string())?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(
        answer.digest().as_ref(),
    )];
    let certificate = params.self_signed(&key);
    let certificate = certificate.map_err(|error| error.to_string())?;
    let der = PrivatePkcs8KeyDer::from(key.serialize_der());
    ordered
        .open_handshake(name, certificate.der().clone(), der.into())
        .map_err(|error| error.to_string())
}

/// Makes a key, and asks for a certificate of it.
fn request(name: &str) -> Result<(KeyPair, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((key, request.der().to_vec()))
}

/// Looks at what an authority has issued before clients see it.
fn fits(chain: &str, key: &KeyPair, name: &str) -> Result<(), String> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes())
        .map_err(|error| format!("what the authority has issued cannot be read: {error}"))?;
    let certificate = Certificate::read(&leaf)?;
    if !certificate.covers(name) {
        return Err(format!("what the authority has issued is not for `{name}`"));
    }
    if certificate.key != key.subject_public_key_info() {
        return Err("what the authority has issued is for another key".to_owned());
    }
    let now = crate::kept::seconds(SystemTime::now());
    match u64::try_from(certificate.not_after) {
        Ok(end) if end > now => Ok(()),
        _ => Err("what the authority has issued is out of date already".to_owned()),
    }
}

/// Reads an account's key from its Secret: in PKCS#8, or as OpenSSL writes keys of elliptic curves (SEC 1).
fn account_key(secret: &Secret) -> Result<(AccountKey, PrivateKeyDer<'static>), String> {
    let pem = ["user.key", "tls.key"]
        .iter()
        .find_map(|key| secret.data.get(*key))
        .ok_or("the Secret has neither `user.key` nor `tls.key`")?;
    let der = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| format!("the key cannot be read: {error}"))?;
    const KIND: &str = "the key is no ECDSA key on the curve P-256";
    let pair =
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
            .or_else(|_| {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
            })
            .map_err(|_| KIND)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| KIND)?;
    let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
    let key = AccountKey::from_pkcs8_der(pkcs8.clone_key()).map_err(|_| KIND)?;
    Ok((key, pkcs8.into()))
}

/// Reads the key that binds a new account to one that the authority knows.
fn external(external: &External) -> Result<ExternalAccountKey, Trouble> {
    let refused = |why: &str| {
        let named = &external.named;
        Trouble::refused(format!("`externalAccount`: the Secret `{named}` {why}"))
    };
    let secret = external.secret.as_ref();
    let secret = secret.ok_or_else(|| refused("is not there"))?;
    let text = secret
        .data
        .get("hmac")
        .ok_or_else(|| refused("has no `hmac`"))?;
    let text = String::from_utf8_lossy(text);
    let text = text
        .trim()
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_");
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(key) if !key.is_empty() => Ok(ExternalAccountKey::new(external.key_id.clone(), &key)),
        _ => Err(refused("has no base64url under `hmac`")),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn secret(name: &str, value: &str) -> Secret {
        Secret {
            kind: "Opaque".to_owned(),
            data: [(name.to_owned(), value.as_bytes().to_vec())].into(),
        }
    }

    #[test]
    fn keys_of_accounts_are_read_however_they_are_written() {
        let pkcs8 = KeyPair::generate().expect("a key").serialize_pem();
        assert!(account_key(&secret("user.key", &pkcs8)).is_ok());
        assert!(account_key(&secret("tls.key", &pkcs8)).is_ok());
        // As `openssl ecparam -genkey` writes it.
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().expect("a key");
        let sec1 = |der: &[u8]| {
            let text = STANDARD.encode(der);
            format!("-----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n")
        };
        assert!(account_key(&secret("user.key", &sec1(der.as_ref()))).is_ok());
        let cut = sec1(&der.as_ref()[..40]);
        assert!(account_key(&secret("user.key", &cut)).is_err());
        let told = |secret: &Secret| account_key(secret).err().expect("no key");
        assert_eq!(
            told(&secret("other", &pkcs8)),
            "the Secret has neither `user.key` nor `tls.key`"
        );
        let rsa = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        assert_eq!(
            told(&secret("user.key", &rsa.serialize_pem())),
            "the key is no ECDSA key on the curve P-256"
        );
    }

    #[test]
    fn keys_of_external_accounts_are_base64() {
        let read = |value: &str| {
            external(&External {
                key_id: "id".to_owned(),
                named: "eab.default".to_owned(),
                secret: Some(secret("hmac", value)),
            })
        };
        assert!(read("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n").is_ok());
        assert!(read("++//AA==").is_ok());
        let told = |value| read(value).err().expect("no key").what;
        let expected = "`externalAccount`: the Secret `eab.default` has no base64url under `hmac`";
        assert_eq!(told(""), expected);
        assert_eq!(told("?"), expected);
    }
}
