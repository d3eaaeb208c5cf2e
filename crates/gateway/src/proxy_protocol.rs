//! The PROXY protocol, versions 1 and 2: a few bytes before all others that tell whose connection it is.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Reading and writing only; no I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest line of version 1, its CRLF included.
const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2 that is read, extensions included.
const V2_BYTES_MAX: usize = 4 << 10;
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;
/// Headers of connections that are nobody's but the proxy's.
pub(crate) const NOBODY_V1: &[u8] = b"PROXY UNKNOWN\r\n";
pub(crate) const NOBODY_V2: &[u8; V2_HEAD_BYTES] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What a header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Whose connection it is.
    Client(SocketAddr),
    /// Nothing: the proxy's own connection, such as a health check, or an unknown kind of address.
    Nobody,
}

/// The bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the PROXY header is malformed")]
pub(crate) struct Malformed;

/// Reads the header at the start of `bytes`: what it tells and how long it is, or `None` when it has not arrived
/// entirely.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Told, usize)>, Malformed> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] == SIGNATURE[..seen] {
        return if seen < SIGNATURE.len() {
            Ok(None)
        } else {
            read_v2(bytes)
        };
    }
    read_v1(bytes)
}

fn read_v1(bytes: &[u8]) -> Result<Option<(Told, usize)>, Malformed> {
    let begin = b"PROXY ";
    let seen = bytes.len().min(begin.len());
    if bytes[..seen] != begin[..seen] {
        return Err(Malformed);
    }
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if bytes.len() < V1_BYTES_MAX {
            Ok(None)
        } else {
            Err(Malformed)
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let told = match line["PROXY ".len()..].split(' ').collect::<Vec<_>>()[..] {
        ["UNKNOWN", ..] => Told::Nobody,
        ["TCP4", source, destination, port, to] => {
            client::<Ipv4Addr>(source, destination, port, to)?
        }
        ["TCP6", source, destination, port, to] => {
            client::<Ipv6Addr>(source, destination, port, to)?
        }
        _ => return Err(Malformed),
    };
    Ok(Some((told, end + 1)))
}

fn client<A: FromStr + Into<IpAddr>>(
    source: &str,
    destination: &str,
    port: &str,
    to: &str,
) -> Result<Told, Malformed> {
    let address = |text: &str| text.parse::<A>().map_err(|_| Malformed);
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(Malformed),
    };
    let (source, port) = (address(source)?, number(port)?);
    address(destination)?;
    number(to)?;
    Ok(Told::Client(SocketAddr::new(source.into(), port)))
}

fn read_v2(bytes: &[u8]) -> Result<Option<(Told, usize)>, Malformed> {
    let Some(head) = bytes.get(..V2_HEAD_BYTES) else {
        return Ok(None);
    };
    let (version_and_command, family) = (head[12], head[13]);
    let len = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if version_and_command >> 4 != 2 || len > V2_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(addresses) = bytes.get(V2_HEAD_BYTES..len) else {
        return Ok(None);
    };
    let told = match (version_and_command & 15, family) {
        (0, _) => Told::Nobody,
        (1, 0x11 | 0x12) => {
            let (source, rest) = addresses.split_first_chunk::<4>().ok_or(Malformed)?;
            let port = rest.get(4..8).ok_or(Malformed)?;
            let port = u16::from_be_bytes([port[0], port[1]]);
            Told::Client(SocketAddr::new(Ipv4Addr::from(*source).into(), port))
        }
        (1, 0x21 | 0x22) => {
            let (source, rest) = addresses.split_first_chunk::<16>().ok_or(Malformed)?;
            let port = rest.get(16..20).ok_or(Malformed)?;
            let port = u16::from_be_bytes([port[0], port[1]]);
            Told::Client(SocketAddr::new(Ipv6Addr::from(*source).into(), port))
        }
        // Unknown, or a Unix socket.
        (1, 0x00 | 0x31 | 0x32) => Told::Nobody,
        _ => return Err(Malformed),
    };
    Ok(Some((told, len)))
}

/// Writes a line of version 1: this client's connection to this address.
pub(crate) fn write_v1(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (client, to) = same_family(client, to);
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (source, destination) = (client.ip(), to.ip());
    let (port, to) = (client.port(), to.port());
    format!("PROXY {family} {source} {destination} {port} {to}\r\n").into_bytes()
}

/// Writes a header of version 2.
pub(crate) fn write_v2(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (client, to) = same_family(client, to);
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(0x21);
    match (client.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x11, 0, 12]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (source, destination) => {
            bytes.extend([0x21, 0, 36]);
            for address in [source, destination] {
                bytes.extend(mapped(address).octets());
            }
        }
    }
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes
}

/// Both as IPv4 if they are, else both as IPv6.
fn same_family(client: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, to) = (plain(client), plain(to));
    if client.is_ipv4() == to.is_ipv4() {
        return (client, to);
    }
    let wide = |address: SocketAddr| SocketAddr::new(mapped(address.ip()).into(), address.port());
    (wide(client), wide(to))
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: impl AsRef<[u8]>, expected: &str) {
        let bytes = bytes.as_ref();
        let told = match read(bytes) {
            Ok(Some((Told::Client(client), len))) => format!("{client} in {len}"),
            Ok(Some((Told::Nobody, len))) => format!("nobody in {len}"),
            Ok(None) => "more".to_owned(),
            Err(Malformed) => "malformed".to_owned(),
        };
        assert_eq!(told, expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn version_1() {
        check(
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\nGET /",
            "192.0.2.7:4711 in 39",
        );
        check(
            "PROXY TCP6 2001:db8::7 ::1 1 2\r\n",
            "[2001:db8::7]:1 in 32",
        );
        check("PROXY UNKNOWN\r\n", "nobody in 15");
        check(
            "PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n",
            "nobody in 41",
        );
        for whole in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n",
            "PROXY UNKNOWN\r\n",
        ] {
            for cut in 0..whole.len() {
                check(&whole[..cut], "more");
            }
        }
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
            "PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
            "PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n",
            "PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY \u{fffd}\r\n",
        ] {
            check(bad, "malformed");
        }
        check(format!("PROXY UNKNOWN {}", "x".repeat(92)), "more");
        check(format!("PROXY UNKNOWN {}", "x".repeat(93)), "malformed");
        check(
            format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)),
            "malformed",
        );
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn version_2() {
        let tcp4 = v2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80]);
        check(&tcp4, "192.0.2.7:4711 in 28");
        for cut in 0..tcp4.len() {
            check(&tcp4[..cut], "more");
        }
        let mut with_extension = vec![192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        with_extension.extend([0x04, 0, 2, 1, 2]);
        check(v2(0x21, 0x11, &with_extension), "192.0.2.7:4711 in 33");
        let mut tcp6 = [0; 36];
        (tcp6[15], tcp6[33]) = (1, 9);
        check(v2(0x21, 0x21, &tcp6), "[::1]:9 in 52");
        check(v2(0x20, 0x00, &[]), "nobody in 16");
        check(NOBODY_V2, "nobody in 16");
        check(NOBODY_V1, "nobody in 15");
        check(v2(0x20, 0x11, &[0; 12]), "nobody in 28");
        check(v2(0x21, 0x00, &[1, 2, 3]), "nobody in 19");
        check(v2(0x21, 0x31, &[0; 216]), "nobody in 232");
        check(v2(0x21, 0x11, &[0; 11]), "malformed");
        check(v2(0x21, 0x21, &[0; 35]), "malformed");
        check(v2(0x11, 0x11, &[0; 12]), "malformed");
        check(v2(0x22, 0x11, &[0; 12]), "malformed");
        check(v2(0x21, 0x41, &[0; 12]), "malformed");
        check(v2(0x21, 0x00, &[0; V2_BYTES_MAX]), "malformed");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(client: SocketAddr, to: SocketAddr, more: Vec<u8>) {
            for mut bytes in [write_v1(client, to), write_v2(client, to)] {
                let len = bytes.len();
                bytes.extend(&more);
                let Ok(Some((Told::Client(read), end))) = read(&bytes) else {
                    panic!("{}", bytes.escape_ascii());
                };
                prop_assert_eq!(end, len);
                prop_assert_eq!(read.port(), client.port());
                prop_assert_eq!(read.ip().to_canonical(), client.ip().to_canonical());
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, from in 0..3usize) {
            let begin: &[u8] = [&b""[..], b"PROXY ", SIGNATURE][from];
            if let Ok(Some((_, len))) = read(&[begin, &bytes].concat()) {
                prop_assert!(len <= begin.len() + bytes.len());
            }
        }
    }
}
