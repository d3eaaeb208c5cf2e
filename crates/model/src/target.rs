//! Where a Mapping's `service` points, taken apart.

use std::net::IpAddr;

/// `[scheme://]host[.namespace][:port]`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whether TLS is originated (`https://`).
    pub tls: bool,

    /// The host as written, without brackets: a service, `service.namespace`, a DNS name or an IP address.
    pub host: String,

    /// The port as written.
    pub port: Option<u16>,
}

impl Target {
    /// Parses what stands in `service`.
    pub fn parse(text: &str) -> Result<Target, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let tls = match scheme.map(str::to_ascii_lowercase).as_deref() {
            None | Some("http") => false,
            Some("https") => true,
            Some(other) => {
                return Err(format!(
                    "the scheme `{other}` is neither `http` nor `https`"
                ));
            }
        };
        if let Some(at) = rest.find(['/', '?', '#', '@']) {
            return Err(format!(
                "`{}` does not belong to a service, only host and port do",
                &rest[at..]
            ));
        }
        let (host, port) =
            match rest.strip_prefix('[') {
                Some(inner) => {
                    let (host, after) = inner
                        .split_once(']')
                        .ok_or_else(|| format!("`{rest}` has a `[` without its `]`"))?;
                    if host.parse::<std::net::Ipv6Addr>().is_err() {
                        return Err(format!("`{host}` is no IPv6 address"));
                    }
                    match after {
                        "" => (host, None),
                        after => (
                            host,
                            Some(after.strip_prefix(':').ok_or_else(|| {
                                format!("`{after}` after the address is no port")
                            })?),
                        ),
                    }
                }
                None => match rest.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (rest, None),
                },
            };
        let port = match port {
            None => None,
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Some(number)
                }
                _ => return Err(format!("`{port}` is no port, use 1 to 65535")),
            },
        };
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if host.parse::<IpAddr>().is_err() && !host.chars().all(plain) {
            return Err(format!("`{host}` is no host name"));
        }
        Ok(Target {
            tls,
            host: host.to_owned(),
            port,
        })
    }

    /// Returns the port that is used: the one written, else 443 with TLS and 80 without.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// Returns the host as an address when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_read_as_written() {
        let parse =
            |text: &str| Target::parse(text).map(|target| (target.tls, target.host, target.port));
        assert_eq!(parse("orders"), Ok((false, "orders".to_owned(), None)));
        assert_eq!(
            parse("https://orders.shop:8443"),
            Ok((true, "orders.shop".to_owned(), Some(8443)))
        );
        assert_eq!(
            parse("127.0.0.1:80"),
            Ok((false, "127.0.0.1".to_owned(), Some(80)))
        );
        assert_eq!(
            parse("http://[::1]:80"),
            Ok((false, "::1".to_owned(), Some(80)))
        );
        assert_eq!(parse("[::1]"), Ok((false, "::1".to_owned(), None)));
        for bad in [
            "", "ftp://x", "a/b", "a:b", "a:0", "a:70000", "a:+8", "[::1", "[x]:1", "[::1]x",
            "a b", ":80", "u@h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
