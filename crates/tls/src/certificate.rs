//! What a certificate says: whose it is, and until when.

use std::fmt::Write as _;
use std::net::IpAddr;

use x509_parser::asn1_rs::{FromDer as _, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificate {
    /// Its subject as OpenSSL and Envoy write it (RFC 2253), in ASCII: `CN=shop,O=Acme\, Inc`.
    pub subject: String,
    /// Its subject as Java and Apache Kafka write it (RFC 2253), in UTF-8; kinds of names that the RFC does not list are
    /// numbers.
    pub principal: String,
    /// Who has signed it, as `subject` is written.
    pub issuer: String,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// The names that it is for, in lower case; those of one with a common name only is that.
    pub names: Vec<String>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// The URIs that it is for.
    pub uris: Vec<String>,
    /// Seconds since 1970 when it begins to count.
    pub not_before: i64,
    /// Seconds since 1970 when it ends to count.
    pub not_after: i64,
    /// The key that it is about, with what says its kind, as DER.
    pub key: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate in DER. Whoever shows it is not trusted by that.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der)
            .map_err(|error| format!("it is no certificate (X.509): {error}"))?;
        let mut certificate = Certificate {
            subject: distinguished(parsed.subject(), &OPENSSL, true),
            principal: distinguished(parsed.subject(), &JAVA, false),
            issuer: distinguished(parsed.issuer(), &OPENSSL, true),
            serial: hex(parsed.raw_serial()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            key: parsed.public_key().raw.to_vec(),
            ..Certificate::default()
        };
        // What cannot be read names nobody.
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let Some(alternatives) = alternatives else {
            let common = parsed.subject().iter_common_name();
            let common = common.last().and_then(|name| name.as_str().ok());
            certificate
                .names
                .extend(common.map(str::to_ascii_lowercase));
            return Ok(certificate);
        };
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => certificate.names.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
                _ => (),
            }
        }
        Ok(certificate)
    }

    /// Returns whether it is for this name (RFC 6125): `*.shop.example` stands for one label in the place of the star.
    pub fn covers(&self, name: &str) -> bool {
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        self.names.iter().any(|own| match own.strip_prefix("*.") {
            None => own.eq_ignore_ascii_case(name),
            Some(rest) => name.split_once('.').is_some_and(|(label, behind)| {
                !label.is_empty() && behind.eq_ignore_ascii_case(rest)
            }),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Kinds of names, by their number, and what they are called.
type Kinds = [(&'static str, &'static str)];

/// Those that OpenSSL has short words for.
const OPENSSL: [(&str, &str); 18] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("2.5.4.46", "dnQualifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Those that RFC 2253 lists.
const JAVA: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// Writes a name by RFC 2253, the last part first.
fn distinguished(name: &X509Name<'_>, kinds: &Kinds, ascii: bool) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let parts = parts.into_iter().rev().map(|part| {
        let values: Vec<String> = part
            .iter()
            .map(|one| attribute(one, kinds, ascii))
            .collect();
        values.join("+")
    });
    parts.collect::<Vec<String>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>, kinds: &Kinds, ascii: bool) -> String {
    let number = attribute.attr_type().to_id_string();
    let kind = kinds.iter().find(|(known, _)| *known == number);
    match (kind, text(attribute)) {
        (Some((_, kind)), Some(value)) => format!("{kind}={}", escaped(&value, ascii)),
        (kind, _) => {
            let value = attribute.attr_value();
            let kind = kind.map_or(number.as_str(), |(_, kind)| kind);
            let mut out = format!("{kind}=#{:02x}", value.tag().0 & 0xff);
            // Only short names have a length of one byte; the longer ones are as DER has them.
            let bytes = attribute.as_slice();
            match u8::try_from(bytes.len()) {
                Ok(length) if length < 0x80 => _ = write!(out, "{length:02x}"),
                Ok(length) => _ = write!(out, "81{length:02x}"),
                Err(_) => _ = write!(out, "82{:04x}", bytes.len() & 0xffff),
            }
            out + &hex(bytes)
        }
    }
}

/// Returns a value as text, whichever of the old alphabets it is in.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        Tag::T61String | Tag::VisibleString => Some(bytes.iter().map(|b| char::from(*b)).collect()),
        Tag::BmpString => {
            let units = bytes.chunks_exact(2);
            let units: Vec<u16> = units
                .map(|two| u16::from_be_bytes([two[0], two[1]]))
                .collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

fn escaped(value: &str, ascii: bool) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, c) in value.char_indices() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            c if c.is_ascii_control() || (ascii && !c.is_ascii()) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    _ = write!(out, "\\{byte:02X}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// Writes bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let signed = params.self_signed(&key).expect("a certificate");
        Certificate::read(signed.der()).expect("a certificate")
    }

    #[test]
    fn names_are_written_as_openssl_and_java_do() {
        let certificate = made(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "DE");
            name.push(DnType::OrganizationName, "Acme, Inc");
            name.push(
                DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]),
                "a@b",
            );
            name.push(DnType::CommonName, " Jürgen\"s #1 ");
        });
        assert_eq!(
            certificate.subject,
            "CN=\\ J\\C3\\BCrgen\\\"s #1\\ ,emailAddress=a@b,O=Acme\\, Inc,C=DE"
        );
        assert_eq!(
            certificate.principal,
            "CN=\\ Jürgen\\\"s #1\\ ,1.2.840.113549.1.9.1=#0c03614062,O=Acme\\, Inc,C=DE"
        );
        // Nobody else has signed it.
        assert_eq!(certificate.issuer, certificate.subject);
        assert!(certificate.names[0].contains("jürgen"));
    }

    #[test]
    fn a_certificate_is_for_its_names_and_addresses() {
        let certificate = made(|params| {
            let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
            params.subject_alt_names = vec![
                dns("Shop.example"),
                dns("*.eu.shop.example"),
                SanType::IpAddress([10, 0, 0, 1].into()),
                SanType::URI("spiffe://a/b".try_into().expect("a URI")),
            ];
            params
                .distinguished_name
                .push(DnType::CommonName, "cn.example");
        });
        for (name, expected) in [
            ("shop.example", true),
            ("SHOP.EXAMPLE.", true),
            ("a.shop.example", false),
            ("a.eu.shop.example", true),
            ("a.b.eu.shop.example", false),
            ("eu.shop.example", false),
            (".eu.shop.example", false),
            ("cn.example", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("", false),
        ] {
            assert_eq!(certificate.covers(name), expected, "{name}");
        }
        assert_eq!(certificate.uris, ["spiffe://a/b"]);
        assert!(certificate.not_before < certificate.not_after);
    }

    #[test]
    fn a_common_name_counts_where_there_is_no_other() {
        let certificate = made(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "Old.example");
        });
        assert!(certificate.covers("old.example"));
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_no_certificate(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            // Whatever it says of it.
            _ = Certificate::read(&bytes);
        }
    }
}
