//! Listeners that ask who a client is, with our own codec where real clients would never go.

use std::net::SocketAddr;
use std::time::Duration;

use broker::{Limits, Listener, Mechanism, Protocol, Secret, User};
use bytes::{BufMut, Bytes, BytesMut};
use kafka::error::ErrorCode;
use kafka::messages::api_versions::ApiVersionsRequest;
use kafka::messages::metadata::MetadataRequest;
use kafka::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use kafka::messages::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::stage::{Client, Stage, error};

fn sasl(mechanisms: &[Mechanism]) -> Listener {
    Listener {
        mechanisms: mechanisms.to_vec(),
        ..Listener::new("USERS", Protocol::SaslPlaintext, &Limits::default())
    }
}

async fn stage() -> Stage {
    Stage::open_with(|options| {
        let user = |name: &str, password: &str| User {
            name: name.into(),
            password: Secret::new(password),
        };
        options.users = vec![user("alice", "sesame"), user("bob", "bread")];
    })
    .await
}

async fn listen(stage: &Stage, listener: Listener) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = socket.local_addr().expect("an address");
    let broker = stage.broker.clone();
    tokio::spawn(async move {
        let stop = CancellationToken::new();
        broker.serve_as(socket, listener, stop).await;
    });
    address
}

async fn handshake(client: &mut Client, mechanism: &str) -> SaslHandshakeResponse {
    let mechanism = mechanism.to_owned();
    client.ask(1, SaslHandshakeRequest { mechanism }).await
}

async fn authenticate(client: &mut Client, message: &'static [u8]) -> SaslAuthenticateResponse {
    let auth_bytes = Bytes::from_static(message);
    client.ask(2, SaslAuthenticateRequest { auth_bytes }).await
}

async fn is_served(client: &mut Client) -> bool {
    let asked = client.try_ask(12, MetadataRequest::default()).await;
    asked.is_some()
}

#[tokio::test]
async fn nothing_is_answered_before_a_proof() {
    let stage = stage().await;
    let address = listen(&stage, sasl(&[Mechanism::Plain])).await;
    let mut client = Client::connect(address).await;
    assert!(!is_served(&mut client).await);

    let mut client = Client::connect(address).await;
    let versions = client.ask(3, ApiVersionsRequest::default()).await;
    assert!(versions.api_keys.iter().any(|api| api.api_key == 17));
    assert!(!is_served(&mut client).await);

    // Chosen, not proven.
    let mut client = Client::connect(address).await;
    let chosen = handshake(&mut client, "PLAIN").await;
    assert_eq!(error(chosen.error_code), ErrorCode::None);
    assert!(!is_served(&mut client).await);

    // A proof without a choice.
    let mut client = Client::connect(address).await;
    let auth_bytes = Bytes::from_static(b"\0alice\0sesame");
    let asked = client.try_ask(2, SaslAuthenticateRequest { auth_bytes });
    assert_eq!(asked.await, None);

    // Not even a frame that others may send.
    let mut client = Client::connect(address).await;
    let frame = (1_i32 << 20).to_be_bytes();
    client.stream.write_all(&frame).await.expect("sent");
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn a_user_is_served_after_the_proof() {
    let stage = stage().await;
    let address = listen(&stage, sasl(&[Mechanism::Plain])).await;
    let mut client = Client::connect(address).await;
    client.ask(3, ApiVersionsRequest::default()).await;
    handshake(&mut client, "PLAIN").await;
    let proven = authenticate(&mut client, b"\0alice\0sesame").await;
    assert_eq!(error(proven.error_code), ErrorCode::None);
    assert_eq!(proven.session_lifetime_ms, 0);
    let metadata = client.ask(12, MetadataRequest::default()).await;
    assert_eq!(metadata.brokers[0].port, i32::from(address.port()));
    // Nobody has to prove it again, hence nobody may.
    let again = handshake(&mut client, "PLAIN").await;
    assert_eq!(error(again.error_code), ErrorCode::IllegalSaslState);
    assert!(is_served(&mut client).await);
}

#[tokio::test]
async fn a_wrong_password_is_told_counted_and_ends_the_connection() {
    let metrics = observe::metrics::Metrics::default();
    let registry = metrics.clone();
    let stage = Stage::open_with(|options| options.metrics = registry).await;
    let address = listen(&stage, sasl(&[Mechanism::Plain])).await;
    let begun = Instant::now();
    let mut client = Client::connect(address).await;
    handshake(&mut client, "PLAIN").await;
    let refused = authenticate(&mut client, b"\0alice\0sesame").await;
    assert_eq!(
        error(refused.error_code),
        ErrorCode::SaslAuthenticationFailed
    );
    assert_eq!(
        refused.error_message.as_deref(),
        Some("Authentication failed: Invalid username or password")
    );
    assert!(begun.elapsed() >= Duration::from_millis(100), "held back");
    assert_eq!(client.frame().await, None);

    let mut client = Client::connect(address).await;
    let refused = handshake(&mut client, "SCRAM-SHA-256").await;
    assert_eq!(
        error(refused.error_code),
        ErrorCode::UnsupportedSaslMechanism
    );
    assert_eq!(refused.mechanisms, ["PLAIN"]);
    assert_eq!(client.frame().await, None);

    let line =
        "nuncio_listener_authentication_failures_total{listener=\"USERS\",mechanism=\"PLAIN\"} 1\n";
    let begun = Instant::now();
    while !metrics.encode().contains(line) {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{}",
            metrics.encode()
        );
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn old_clients_prove_themselves_without_requests() {
    let stage = stage().await;
    let address = listen(&stage, sasl(&[Mechanism::Plain])).await;
    let mut client = Client::connect(address).await;
    let mechanism = "PLAIN".to_owned();
    let chosen = client.ask(0, SaslHandshakeRequest { mechanism }).await;
    assert_eq!(error(chosen.error_code), ErrorCode::None);
    let mut frame = BytesMut::new();
    let message = b"\0bob\0bread";
    frame.put_i32(i32::try_from(message.len()).expect("short"));
    frame.put_slice(message);
    client.stream.write_all(&frame).await.expect("sent");
    assert_eq!(client.frame().await, Some(Bytes::new()));
    assert!(is_served(&mut client).await);
}

#[tokio::test]
async fn who_does_not_prove_it_again_is_shut_out() {
    let stage = stage().await;
    let session_max = Some(Duration::from_secs(2));
    let listener = Listener {
        session_max,
        ..sasl(&[Mechanism::Plain, Mechanism::ScramSha256])
    };
    let address = listen(&stage, listener).await;
    let proven = async || {
        let mut client = Client::connect(address).await;
        handshake(&mut client, "PLAIN").await;
        let proven = authenticate(&mut client, b"\0alice\0sesame").await;
        assert_eq!(proven.session_lifetime_ms, 2000);
        client
    };
    let mut silent = proven().await;
    let mut faithful = proven().await;
    let mut other = proven().await;
    let mut another = proven().await;

    // Somebody else, or by other means, is not the same.
    handshake(&mut other, "PLAIN").await;
    let refused = authenticate(&mut other, b"\0bob\0bread").await;
    assert_eq!(
        error(refused.error_code),
        ErrorCode::SaslAuthenticationFailed
    );
    assert_eq!(other.frame().await, None);
    handshake(&mut another, "SCRAM-SHA-256").await;
    let refused = authenticate(&mut another, b"n,,n=alice,r=x").await;
    assert_eq!(
        error(refused.error_code),
        ErrorCode::SaslAuthenticationFailed
    );

    // As long as one is not shut out, the other must be well too: it proves itself before each question.
    let begun = Instant::now();
    while is_served(&mut silent).await {
        handshake(&mut faithful, "PLAIN").await;
        let again = authenticate(&mut faithful, b"\0alice\0sesame").await;
        assert_eq!(error(again.error_code), ErrorCode::None);
        assert!(begun.elapsed() < Duration::from_secs(60), "never shut out");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    handshake(&mut faithful, "PLAIN").await;
    let again = authenticate(&mut faithful, b"\0alice\0sesame").await;
    assert_eq!(error(again.error_code), ErrorCode::None);
    assert!(is_served(&mut faithful).await);
}

#[tokio::test]
async fn a_listener_takes_as_many_as_it_says() {
    let stage = stage().await;
    let listener = Listener {
        connections_max: 1,
        idle_max: Duration::from_millis(200),
        ..Listener::new("SMALL", Protocol::Plaintext, &Limits::default())
    };
    let address = listen(&stage, listener).await;
    let mut first = Client::connect(address).await;
    assert!(is_served(&mut first).await);
    let mut second = Client::connect(address).await;
    assert!(!is_served(&mut second).await);
    // The silent one leaves, and there is room again.
    assert_eq!(first.frame().await, None);
    let begun = Instant::now();
    while !is_served(&mut Client::connect(address).await).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "no room");
    }
}
