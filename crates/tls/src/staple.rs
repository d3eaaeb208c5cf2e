//! OCSP responses (RFC 6960) that are stapled to certificates: about which one, and until when.

use x509_parser::asn1_rs::{Any, Class, FromDer as _, GeneralizedTime};

use crate::certificate::hex;

/// A response about one certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Staple {
    /// The number of the certificate, in hexadecimal digits.
    pub(crate) serial: String,
    /// Whether it is not revoked.
    pub(crate) good: bool,
    /// Seconds since 1970 until which it counts; without an end there is always a newer one.
    pub(crate) until: Option<i64>,
}

impl Staple {
    /// Reads a response in DER. Its signature is for the client to verify.
    ///
    /// # Errors
    /// When it is no response, or one without an answer.
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        read(der).ok_or_else(|| {
            "the OCSP staple cannot be read: it is no successful response (RFC 6960) in DER".into()
        })
    }
}

fn read(der: &[u8]) -> Option<Staple> {
    let mut response = Parts(Parts(der).next()?.data);
    if response.next()?.data != [0] {
        return None;
    }
    // [0] { SEQUENCE { type, OCTET STRING { SEQUENCE { SEQUENCE { … } … } } } }
    let mut bytes = Parts(Parts(response.next()?.data).next()?.data);
    let basic = bytes.nth(1)?.data;
    let mut answers = Parts(Parts(Parts(basic).next()?.data).next()?.data);
    let all = answers.find(|part| part.class() == Class::Universal && part.tag().0 == 16)?;
    let mut answer = Parts(Parts(all.data).next()?.data);
    let about = answer.next()?.data;
    let serial = hex(Parts(about).nth(3)?.data);
    let good = answer.next()?.tag().0 == 0;
    let _since = answer.next()?;
    let until = match answer.next() {
        Some(next) if next.class() == Class::ContextSpecific && next.tag().0 == 0 => {
            let (_, until) = GeneralizedTime::from_der(next.data).ok()?;
            Some(until.utc_datetime().ok()?.unix_timestamp())
        }
        _ => None,
    };
    Some(Staple {
        serial,
        good,
        until,
    })
}

/// What stands in a piece of DER, one part after the other.
struct Parts<'d>(&'d [u8]);

impl<'d> Iterator for Parts<'d> {
    type Item = Any<'d>;

    fn next(&mut self) -> Option<Any<'d>> {
        let (rest, part) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
        let inside = parts.concat();
        let mut out = vec![tag];
        match u8::try_from(inside.len()) {
            Ok(length) if length < 0x80 => out.push(length),
            _ => out.extend([0x82, (inside.len() >> 8) as u8, inside.len() as u8]),
        }
        out.extend(inside);
        out
    }

    /// As OpenSSL makes it, but for the signature.
    fn response(status: u8, next: Option<&str>) -> Vec<u8> {
        let sequence = |parts: &[Vec<u8>]| part(0x30, parts);
        let time = |text: &str| part(0x18, &[text.into()]);
        let about = sequence(&[
            sequence(&[]),
            part(0x04, &[vec![1; 20]]),
            part(0x04, &[vec![2; 20]]),
            part(0x02, &[vec![9, 8]]),
        ]);
        let mut single = vec![about, part(status, &[]), time("20260101000000Z")];
        single.extend(next.map(|next| part(0xa0, &[time(next)])));
        let all = sequence(&[sequence(&single)]);
        let answers = sequence(&[
            part(0xa2, &[part(4, &[vec![3; 20]])]),
            time("20260101000000Z"),
            all,
        ]);
        let basic = sequence(&[answers, sequence(&[]), part(3, &[vec![0; 70]])]);
        let bytes = sequence(&[part(6, &[vec![0x2b, 6]]), part(4, &[basic])]);
        sequence(&[part(10, &[vec![0]]), part(0xa0, &[bytes])])
    }

    #[test]
    fn a_response_tells_about_whom_and_until_when() {
        let staple = |good, until| Staple {
            serial: "0908".to_owned(),
            good,
            until,
        };
        let read = |status, next| Staple::read(&response(status, next));
        let end = 1_798_761_600;
        assert_eq!(
            read(0x80, Some("20270101000000Z")),
            Ok(staple(true, Some(end)))
        );
        assert_eq!(read(0x80, None), Ok(staple(true, None)));
        assert_eq!(read(0xa1, None), Ok(staple(false, None)));
        assert!(Staple::read(b"no").is_err());
        assert!(Staple::read(&part(0x30, &[part(10, &[vec![6]])])).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damage_is_seen_or_harmless(at in 0_usize..250, byte in 0_u8..) {
            let mut bytes = response(0x80, Some("20270101000000Z"));
            let at = at % bytes.len();
            bytes[at] = byte;
            _ = Staple::read(&bytes);
            _ = Staple::read(&bytes[..at]);
        }
    }
}
