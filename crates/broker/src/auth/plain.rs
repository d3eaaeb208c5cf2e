//! PLAIN (RFC 4616): one message with a name and a password.

use super::Refused;

/// What a client says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

/// Reads `[authzid] NUL authcid NUL password`.
pub(crate) fn read(message: &[u8]) -> Result<Claim<'_>, Refused> {
    let text = std::str::from_utf8(message).map_err(|_| Refused::Message("not UTF-8"))?;
    let parts: Vec<&str> = text.splitn(4, '\0').collect();
    let [wanted, name, password] = parts[..] else {
        return Err(Refused::Told(
            "Invalid SASL/PLAIN response: expected 3 tokens",
        ));
    };
    if name.is_empty() {
        return Err(Refused::Told(
            "Authentication failed: username not specified",
        ));
    }
    if password.is_empty() {
        return Err(Refused::Told(
            "Authentication failed: password not specified",
        ));
    }
    if !wanted.is_empty() && wanted != name {
        return Err(Refused::Told(
            "Authentication failed: Client requested an authorization id that is different from username",
        ));
    }
    Ok(Claim { name, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_a_name_and_a_password() {
        let claim = Claim {
            name: "u",
            password: "p",
        };
        assert_eq!(read(b"\0u\0p"), Ok(claim));
        assert!(read(b"u\0u\0p").is_ok());
        for wrong in [
            &b""[..],
            b"u",
            b"\0u",
            b"\0u\0",
            b"\0\0p",
            b"v\0u\0p",
            b"\0u\0p\0",
            b"\0\xff\0p",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
