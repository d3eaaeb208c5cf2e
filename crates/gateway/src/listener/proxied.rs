//! Connections that a proxy passes on: the PROXY header before the first byte of HTTP tells whose they are.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::proxy_protocol::{self, Malformed, Told};

/// What is read at once; most headers come alone and are shorter.
const STEP_BYTES: usize = 1 << 10;

/// Reads the header, and returns what it tells with the bytes that came after it; `None` when the client left before.
pub(super) async fn header(stream: &mut TcpStream) -> Result<Option<(Told, Vec<u8>)>, Malformed> {
    let mut bytes = Vec::with_capacity(STEP_BYTES);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => (),
        }
        // What is incomplete is never longer than the longest header.
        if let Some((told, len)) = proxy_protocol::read(&bytes)? {
            bytes.drain(..len);
            return Ok(Some((told, bytes)));
        }
        bytes.reserve(STEP_BYTES);
    }
}
