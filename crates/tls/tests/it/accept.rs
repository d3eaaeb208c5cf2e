//! Clients that send no first message, or a strange one.

use tls::accept::{HELLO_BYTES_MAX, hello};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Sends bytes in pieces, and returns why they were refused and what the client was told.
async fn refused(bytes: &[u8], piece: usize) -> (String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let client = async {
        let mut client = TcpStream::connect(address).await.expect("a connection");
        for piece in bytes.chunks(piece) {
            // Refused meanwhile.
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        _ = client.shutdown().await;
        let mut told = Vec::new();
        // A reset is an end too.
        _ = client.read_to_end(&mut told).await;
        told
    };
    let server = async {
        let (stream, _) = listener.accept().await.expect("a client");
        match hello(stream, Vec::new()).await {
            Ok(_) => "taken".to_owned(),
            Err(failed) => failed.name().to_owned(),
        }
    };
    let (told, name) = tokio::join!(client, server);
    (name, told)
}

#[tokio::test]
async fn garbage_is_refused_with_an_alert() {
    let (name, told) = refused(b"\x16\x03\x01\x00\x05\xff\x00\x00\x01\x00", 100).await;
    assert_eq!(name, "hello_malformed");
    assert_eq!(told.first(), Some(&21), "{told:?}");
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\n\r\n", 100).await.0,
        "hello_malformed"
    );
}

#[tokio::test]
async fn a_first_message_without_end_is_given_up() {
    assert_eq!(refused(b"", 1).await.0, "closed");
    assert_eq!(refused(b"\x16\x03\x01", 1).await.0, "closed");
    // A message of 60,000 bytes in records of 16,000.
    let mut bytes = vec![];
    let mut inside = vec![1, 0, 0xea, 0x60];
    inside.resize(60_004, 0);
    for record in inside.chunks(16_000) {
        bytes.extend([0x16, 3, 1, (record.len() >> 8) as u8, record.len() as u8]);
        bytes.extend(record);
    }
    let (name, _) = refused(&bytes, 1400).await;
    assert_eq!(name, "hello_too_large");
    assert!(bytes.len() > HELLO_BYTES_MAX);
}
