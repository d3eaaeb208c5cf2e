//! An upstream with fixed answers.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The longest request head it reads.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen on {address}"))?;
    println!("{}", listener.local_addr()?);
    let answers = Arc::new((answer(1 << 10), answer(1 << 20)));
    loop {
        let (stream, _) = listener.accept().await.context("could not accept")?;
        stream.set_nodelay(true)?;
        let answers = answers.clone();
        // A proxy that breaks off is no concern of this end.
        tokio::spawn(async move { connection(stream, &answers.0, &answers.1).await });
    }
}

fn answer(len: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + len, b'x');
    answer
}

async fn connection(mut stream: TcpStream, small: &[u8], big: &[u8]) -> std::io::Result<()> {
    let mut read = Vec::with_capacity(4096);
    loop {
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
            if read.len() > HEAD_BYTES_MAX || stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let line = read.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let is_big = line.windows(5).any(|window| window == b"/big ");
        read.drain(..end + 4);
        stream.write_all(if is_big { big } else { small }).await?;
    }
}
