//! Has a client prove who it is before anything else is answered, and again when its session ends (KIP-368).

use std::io;
use std::time::Duration;

use aws_lc_rs::constant_time;
use bytes::Bytes;
use kafka::error::ErrorCode;
use kafka::frame::{self, RequestHeader};
use kafka::messages::api_versions::ApiVersionsRequest;
use kafka::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use kafka::messages::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use kafka::messages::{ApiKey, Message, Request};
use kafka::wire::Reader;
use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::time::{self, Instant};

use super::{End, Input, send};
use crate::api::versions;
use crate::auth::exchange::{Exchange, Step};
use crate::auth::{Mechanism, Principal, Refused, plain};
use crate::dispatch::{Answer, Client, Failure};
use crate::listener::Listener;
use crate::straight::Sink;

/// How long a client may take to prove who it is.
const PROOF_MAX: Duration = Duration::from_secs(60);
/// The size of a request of somebody of whom nothing is known (`sasl.server.max.receive.size`).
const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Most messages that a proof may take.
const MESSAGES_MAX: usize = 16;
/// How long a refusal is held back (`connection.failed.authentication.delay.ms`).
pub(crate) const REFUSAL_DELAY: Duration = Duration::from_millis(100);

/// Talks to a client until it has proven who it is; returns false when it leaves before that.
pub(super) async fn prove<R, W>(
    client: &mut Client,
    input: &mut Input<R>,
    writer: &mut W,
) -> Result<bool, End>
where
    R: AsyncRead + Unpin,
    W: Sink,
{
    let bytes_max = input.bytes_max;
    input.bytes_max = bytes_max.min(REQUEST_BYTES_MAX);
    let limit = PROOF_MAX.min(client.serving.listener.idle_max);
    let talking = time::timeout(limit, talk(client, input, writer));
    let proven = talking.await.map_err(|_| End::Slow(limit))??;
    input.bytes_max = bytes_max;
    if proven {
        client.serving.door.authentications.inc();
    }
    Ok(proven)
}

async fn talk<R, W>(client: &mut Client, input: &mut Input<R>, writer: &mut W) -> Result<bool, End>
where
    R: AsyncRead + Unpin,
    W: Sink,
{
    let serving = client.serving.clone();
    let listener = &serving.listener;
    let mut talk: Option<Talk> = None;
    for _ in 0..MESSAGES_MAX {
        let Some((frame, _memory)) = input.next(true).await? else {
            return Ok(false);
        };
        let Some(begun) = &mut talk else {
            talk = greet(listener, writer, &frame).await?;
            continue;
        };
        let (message, header) = match begun.bare {
            true => (frame, None),
            false => {
                let (header, request) = authenticate(&frame)?;
                (request.auth_bytes, Some(header))
            }
        };
        match step(client, &mut begun.exchange, &message) {
            Ok(Step::Ask(challenge)) => answer(writer, header, challenge, 0).await?,
            Ok(Step::Proven(last, principal)) => {
                let lifetime_ms = lifetime_ms(listener);
                answer(writer, header, last, lifetime_ms).await?;
                client.session = Session::new(listener, begun.exchange.mechanism());
                client.principal = principal;
                return Ok(true);
            }
            Err(refused) => {
                time::sleep(REFUSAL_DELAY).await;
                if let Some(header) = header {
                    let refusal = SaslAuthenticateResponse {
                        error_code: ErrorCode::SaslAuthenticationFailed.code(),
                        error_message: Some(begun.exchange.told(&refused, false)),
                        ..SaslAuthenticateResponse::default()
                    };
                    tell::<SaslAuthenticateRequest, _>(writer, &header, &refusal).await?;
                }
                return Err(End::Unproven {
                    mechanism: Some(begun.exchange.mechanism()),
                    why: refused.to_string(),
                });
            }
        }
    }
    let why = "too many messages and no proof".to_owned();
    Err(End::Unproven {
        mechanism: talk.map(|talk| talk.exchange.mechanism()),
        why,
    })
}

/// An exchange that has begun.
struct Talk {
    exchange: Exchange,
    /// The messages come without a request around them, as those of version 0 of the handshake did.
    bare: bool,
}

/// Takes the next step; on the listener of this process itself, its own password is what counts.
fn step(client: &Client, exchange: &mut Exchange, message: &[u8]) -> Result<Step, Refused> {
    let Some(own) = &client.serving.listener.house else {
        return exchange.step(&client.core.users, message);
    };
    let claim = plain::read(message)?;
    let (claimed, own) = (claim.password.as_bytes(), own.reveal().as_bytes());
    match constant_time::verify_slices_are_equal(claimed, own) {
        Ok(()) => Ok(Step::Proven(Vec::new(), Principal::House)),
        Err(_) => Err(Refused::Credentials),
    }
}

/// Answers what may be asked before an exchange; begins one when the client has chosen a mechanism.
async fn greet<W: Sink>(
    listener: &Listener,
    writer: &mut W,
    frame: &Bytes,
) -> Result<Option<Talk>, End> {
    let (header, at) = header(frame)?;
    match header.api {
        ApiKey::ApiVersions => {
            let known = versions::supported(header.api);
            let known = known.is_some_and(|known| known.contains(&header.version));
            let (version, response) = match known {
                true => (header.version, versions::answer(header.version)),
                false => (0, versions::too_new()),
            };
            let header = RequestHeader { version, ..header };
            tell::<ApiVersionsRequest, _>(writer, &header, &response).await?;
            Ok(None)
        }
        ApiKey::SaslHandshake => {
            let request: SaslHandshakeRequest = decode(&header, frame, at)?;
            let (response, mechanism) = choose(listener, &request.mechanism);
            if mechanism.is_none() {
                time::sleep(REFUSAL_DELAY).await;
            }
            tell::<SaslHandshakeRequest, _>(writer, &header, &response).await?;
            match mechanism {
                Some(mechanism) => Ok(Some(Talk {
                    exchange: Exchange::new(mechanism),
                    bare: header.version == 0,
                })),
                None => Err(End::Unproven {
                    mechanism: None,
                    why: format!(
                        "mechanism `{}` is not offered",
                        printable(&request.mechanism)
                    ),
                }),
            }
        }
        api => Err(End::Refused(Failure::Unproven { api })),
    }
}

/// Returns the start of a text from a stranger, for a log.
fn printable(text: &str) -> String {
    text.chars()
        .take(32)
        .flat_map(char::escape_default)
        .collect()
}

/// Answers the choice of a mechanism.
pub(crate) fn choose(
    listener: &Listener,
    wanted: &str,
) -> (SaslHandshakeResponse, Option<Mechanism>) {
    let mut offered = listener.mechanisms.iter();
    let found = offered.find(|one| one.name() == wanted).copied();
    let error = match found {
        Some(_) => ErrorCode::None,
        None => ErrorCode::UnsupportedSaslMechanism,
    };
    let names = listener.mechanisms.iter().map(|one| one.name().to_owned());
    let response = SaslHandshakeResponse {
        error_code: error.code(),
        mechanisms: names.collect(),
    };
    (response, found)
}

fn authenticate(frame: &Bytes) -> Result<(RequestHeader, SaslAuthenticateRequest), End> {
    let (header, at) = header(frame)?;
    let supported = versions::supported(header.api);
    match header.api {
        ApiKey::SaslAuthenticate if supported.is_some_and(|all| all.contains(&header.version)) => {
            let request = decode(&header, frame, at)?;
            Ok((header, request))
        }
        api => Err(End::Refused(Failure::Unproven { api })),
    }
}

fn header(frame: &Bytes) -> Result<(RequestHeader, usize), End> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader).map_err(End::Frame)?;
    Ok((header, reader.position()))
}

fn decode<R: Request>(header: &RequestHeader, frame: &Bytes, at: usize) -> Result<R, End> {
    let body = frame.slice(at..);
    let decoded = <R as Message>::decode(&mut Reader::new(&body), header.version);
    decoded.map_err(|error| End::Refused(error.into()))
}

async fn tell<R, W>(
    writer: &mut W,
    header: &RequestHeader,
    response: &R::Response,
) -> Result<(), End>
where
    R: Request,
    W: Sink,
{
    let pieces = frame::encode_response::<R>(response, header.version, header.correlation_id);
    let pieces = pieces.map_err(|error| End::Refused(error.into()))?;
    let answer = Answer {
        pieces,
        ..Answer::default()
    };
    send(writer, None, answer).await
}

async fn answer<W: Sink>(
    writer: &mut W,
    header: Option<RequestHeader>,
    message: Vec<u8>,
    session_lifetime_ms: i64,
) -> Result<(), End> {
    match header {
        Some(header) => {
            let response = SaslAuthenticateResponse {
                auth_bytes: message.into(),
                session_lifetime_ms: match header.version {
                    0 => 0,
                    _ => session_lifetime_ms,
                },
                ..SaslAuthenticateResponse::default()
            };
            tell::<SaslAuthenticateRequest, _>(writer, &header, &response).await
        }
        None => {
            let length = i32::try_from(message.len()).map_err(io::Error::other)?;
            let pieces = vec![
                Bytes::copy_from_slice(&length.to_be_bytes()),
                Bytes::from(message),
            ];
            let answer = Answer {
                pieces,
                ..Answer::default()
            };
            send(writer, None, answer).await
        }
    }
}

/// Returns what a client is told of how long it is believed; 0 is for ever.
fn lifetime_ms(listener: &Listener) -> i64 {
    let session = listener
        .session_max
        .map_or(0, |session| session.as_millis());
    i64::try_from(session).unwrap_or(i64::MAX)
}

/// What is known of a client that has to prove again and again who it is.
#[derive(Debug)]
pub(crate) struct Session {
    mechanism: Mechanism,
    lasts: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    expires: Instant,
    exchange: Option<Exchange>,
    /// Why it is no longer believed.
    lost: Option<String>,
}

impl Session {
    /// Begins a session where one has an end.
    fn new(listener: &Listener, mechanism: Mechanism) -> Option<Self> {
        let lasts = listener.session_max?;
        let state = State {
            expires: Instant::now() + lasts,
            exchange: None,
            lost: None,
        };
        Some(Self {
            mechanism,
            lasts,
            state: Mutex::new(state),
        })
    }

    /// Refuses what a client may no longer ask.
    pub(crate) fn admit(&self, api: ApiKey) -> Result<(), Failure> {
        let proving = matches!(api, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        match proving || Instant::now() < self.state.lock().expires {
            true => Ok(()),
            false => Err(Failure::Expired),
        }
    }

    /// Ends a connection whose client could not prove again who it is.
    pub(super) fn check(&self) -> Result<(), End> {
        match self.state.lock().lost.take() {
            None => Ok(()),
            Some(why) => Err(End::Unproven {
                mechanism: Some(self.mechanism),
                why,
            }),
        }
    }

    /// Answers a client that begins to prove again who it is: by the same mechanism.
    pub(crate) fn handshake(&self, listener: &Listener, wanted: &str) -> SaslHandshakeResponse {
        let (response, found) = choose(listener, wanted);
        let mut state = self.state.lock();
        match found {
            Some(mechanism) => state.exchange = Some(Exchange::new(mechanism)),
            None => state.lost = Some("another mechanism than at first".to_owned()),
        }
        response
    }

    /// Takes a message of the proof. An error is to be held back for [`REFUSAL_DELAY`].
    pub(crate) fn authenticate(&self, client: &Client, message: &[u8]) -> SaslAuthenticateResponse {
        let mut state = self.state.lock();
        let Some(mut exchange) = state.exchange.take() else {
            return SaslAuthenticateResponse {
                error_code: ErrorCode::IllegalSaslState.code(),
                error_message: Some("SaslHandshake comes first".to_owned()),
                ..SaslAuthenticateResponse::default()
            };
        };
        let stepped = match exchange.mechanism() == self.mechanism {
            true => step(client, &mut exchange, message),
            false => Err(Refused::Told(
                "another SASL mechanism cannot be taken for re-authentication",
            )),
        };
        let stepped = stepped.and_then(|step| match &step {
            Step::Proven(_, principal) if *principal != client.principal => Err(Refused::Told(
                "Cannot change principals during re-authentication",
            )),
            _ => Ok(step),
        });
        match stepped {
            Ok(Step::Ask(challenge)) => {
                state.exchange = Some(exchange);
                SaslAuthenticateResponse {
                    auth_bytes: challenge.into(),
                    ..SaslAuthenticateResponse::default()
                }
            }
            Ok(Step::Proven(last, _)) => {
                state.expires = Instant::now() + self.lasts;
                client.serving.door.authentications.inc();
                SaslAuthenticateResponse {
                    auth_bytes: last.into(),
                    session_lifetime_ms: lifetime_ms(&client.serving.listener),
                    ..SaslAuthenticateResponse::default()
                }
            }
            Err(refused) => {
                state.lost = Some(refused.to_string());
                SaslAuthenticateResponse {
                    error_code: ErrorCode::SaslAuthenticationFailed.code(),
                    error_message: Some(exchange.told(&refused, true)),
                    ..SaslAuthenticateResponse::default()
                }
            }
        }
    }
}
