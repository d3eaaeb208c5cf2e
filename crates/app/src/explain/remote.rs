//! Asks a running process.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use gateway::route::explain::Explanation;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Asked;

/// How long a process may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const PORT: u16 = 8877;

/// Returns the answer of the process whose admin API is at `admin`, and the same as it was sent.
pub(super) async fn ask(admin: &str, asked: &Asked<'_>) -> anyhow::Result<(Explanation, Value)> {
    let authority = authority(admin)?;
    let path = path(asked);
    let asking = timeout(ANSWER_MAX, get(&authority, &path));
    let answer = match asking.await {
        Ok(answer) => answer,
        Err(_) => bail!("the admin API at {admin} did not answer within {ANSWER_MAX:?}"),
    };
    let (status, body) = answer?;
    let told: Option<Value> = serde_json::from_slice(&body).ok();
    let why = || Some(told.as_ref()?.get("error")?.as_str()?.to_owned());
    match (status, why()) {
        (StatusCode::OK, _) => (),
        (StatusCode::BAD_REQUEST, Some(why)) => bail!("{admin} says: {why}"),
        (StatusCode::NOT_FOUND, _) => bail!(
            "{admin} does not know `/nuncio/v0/explain`: it is no admin API of Nuncio, or one of an older Nuncio"
        ),
        (status, _) => bail!("{admin} answers {status}: it is no admin API of Nuncio"),
    }
    let Some(told) = told else {
        bail!("{admin} does not answer in JSON: it is no admin API of Nuncio");
    };
    match serde_json::from_value(told.clone()) {
        Ok(explanation) => Ok((explanation, told)),
        Err(error) => {
            let theirs = told.get("version").and_then(Value::as_str);
            let theirs = theirs.map_or("an older Nuncio".to_owned(), |it| format!("Nuncio {it}"));
            let ours = env!("CARGO_PKG_VERSION");
            Err(error).with_context(|| {
                format!(
                    "{admin} runs {theirs}, whose answers this `nuncio` ({ours}) cannot read; use the one that runs there, or \
                     `curl '{admin}{path}'`"
                )
            })
        }
    }
}

/// Reads `http://host:port`, or `host:port` alone.
fn authority(admin: &str) -> anyhow::Result<String> {
    let wanted = || {
        format!("`{admin}` is no address of an admin API; write it as `http://127.0.0.1:{PORT}`")
    };
    let uri: Uri = admin.parse().with_context(wanted)?;
    match uri.scheme_str() {
        None | Some("http") => (),
        Some("https") => bail!("the admin API does not speak TLS; {}", wanted()),
        Some(_) => bail!(wanted()),
    }
    if uri.path_and_query().is_some_and(|path| path != "/") {
        bail!(wanted());
    }
    let authority = uri.authority().with_context(wanted)?;
    Ok(match authority.port_u16() {
        Some(_) => authority.to_string(),
        None => format!("{}:{PORT}", authority.host()),
    })
}

fn path(asked: &Asked<'_>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut path = format!(
        "/nuncio/v0/explain?method={}&url={}",
        encoded(asked.method),
        encoded(asked.url)
    );
    for line in &asked.headers {
        path.push_str(&format!("&header={}", encoded(line)));
    }
    if let Some(client) = asked.client {
        path.push_str(&format!("&client={}", encoded(&client.to_string())));
    }
    path
}

async fn get(authority: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(authority).await.with_context(|| {
        format!("no admin API answers at {authority}; is Nuncio running there? (`--admin` of `nuncio serve` says where it listens)")
    })?;
    let odd = || format!("what listens at {authority} does not speak HTTP as an admin API does");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .with_context(odd)?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .body(Empty::<Bytes>::new())?;
    let answering = sender.send_request(request);
    let reading = async {
        let response = answering.await.with_context(odd)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed).with_context(odd)?;
        anyhow::Ok((head.status, body.to_bytes()))
    };
    tokio::pin!(reading);
    tokio::select! {
        answer = &mut reading => answer,
        // The connection may end with the answer already here.
        _ = connection => reading.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_scheme_and_a_port() {
        for (written, expected) in [
            ("http://127.0.0.1:9", "127.0.0.1:9"),
            ("http://localhost/", "localhost:8877"),
            ("[::1]:9", "[::1]:9"),
            ("localhost", "localhost:8877"),
        ] {
            assert_eq!(authority(written).expect("an address"), expected);
        }
        for written in ["https://a", "ftp://a", "http://a/diag", "/a", "a b", ""] {
            let error = authority(written).expect_err(written);
            assert!(format!("{error:#}").contains("127.0.0.1:8877"), "{error:#}");
        }
    }
}
