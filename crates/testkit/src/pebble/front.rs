//! A front before Pebble that has bad manners when it is told to: a server that is down, one that limits rates, one that
//! forgets its nonces.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::Pebble;
use crate::tls::{Ca, Client};

/// Largest request.
const REQUEST_MAX: usize = 1 << 20;
/// Longest wait for either side.
const LIMIT: Duration = Duration::from_secs(30);

/// What becomes of one request to a place whose path ends in this.
#[derive(Debug, Clone)]
pub struct Manners {
    /// How the path ends, as in `order-plz`, which is where Pebble takes orders.
    pub path: &'static str,
    /// The status.
    pub status: u16,
    /// The end of the problem's type.
    pub problem: &'static str,
    /// Seconds after which to come back.
    pub after: Option<u64>,
}

/// A running front. Its threads end with the process.
pub struct Front {
    address: SocketAddr,
    ca_file: PathBuf,
    shared: Arc<Shared>,
    _folder: tempfile::TempDir,
}

struct Shared {
    pebble: SocketAddr,
    client: Client,
    config: Arc<ServerConfig>,
    manners: Mutex<VecDeque<Manners>>,
    seen: Mutex<Vec<(Instant, String)>>,
}

impl Front {
    /// Starts before a Pebble.
    pub fn start(pebble: &Pebble) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let ca = Ca::new();
        let folder = tempfile::tempdir().expect("a folder");
        let ca_file = folder.path().join("front.pem");
        std::fs::write(&ca_file, ca.pem()).expect("a new folder takes files");
        let shared = Arc::new(Shared {
            pebble: pebble.address(),
            client: Client::new(pebble.own_ca().0),
            config: Arc::new(ca.sign("127.0.0.1").server(None)),
            manners: Mutex::default(),
            seen: Mutex::default(),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // Whoever leaves in the middle is nobody's concern.
                thread::spawn(move || _ = serving.serve(stream));
            }
        });
        Front {
            address,
            ca_file,
            shared,
            _folder: folder,
        }
    }

    /// Returns the address of the directory behind it.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Returns the file with the CA of its own address.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Has the next requests of a place answered badly, one by one.
    pub fn behave(&self, manners: Manners, times: usize) {
        let mut all = lock(&self.shared.manners);
        all.extend(std::iter::repeat_n(manners, times));
    }

    /// Returns when requests came whose path ends in this, refused ones included.
    pub fn seen(&self, path: &str) -> Vec<Instant> {
        let seen = lock(&self.shared.seen);
        let those = seen.iter().filter(|(_, asked)| asked.ends_with(path));
        those.map(|(at, _)| *at).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Serves one request: the client opens a connection for each.
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(LIMIT))?;
        let connection = ServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        let mut client = StreamOwned::new(connection, stream);
        let (head, body) = request(&mut client)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        lock(&self.seen).push((Instant::now(), path.clone()));
        let manners = {
            let mut all = lock(&self.manners);
            let next = all.iter().position(|one| path.ends_with(one.path));
            next.and_then(|next| all.remove(next))
        };
        match manners {
            Some(manners) => client.write_all(manners.answer().as_bytes())?,
            None => self.pass(&head, &body, &mut client)?,
        }
        client.conn.send_close_notify();
        client.flush()
    }

    fn pass(&self, head: &str, body: &[u8], client: &mut impl Write) -> io::Result<()> {
        let stream = TcpStream::connect(self.pebble)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
        let connection = ClientConnection::new(self.client.config(), name);
        let mut pebble = StreamOwned::new(connection.map_err(io::Error::other)?, stream);
        let head = head.trim_end();
        pebble.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes())?;
        pebble.write_all(body)?;
        let mut answer = Vec::new();
        pebble.read_to_end(&mut answer)?;
        client.write_all(&answer)
    }
}

impl Manners {
    fn answer(&self) -> String {
        let body = format!(
            "{{\"type\":\"urn:ietf:params:acme:error:{}\",\"detail\":\"not today\"}}",
            self.problem
        );
        let after = self.after.map(|after| format!("retry-after: {after}\r\n"));
        format!(
            "HTTP/1.1 {} Odd\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{}\r\n{body}",
            self.status,
            body.len(),
            after.unwrap_or_default()
        )
    }
}

/// Reads a request: its head, and its body.
fn request(from: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut step = [0; 4096];
    loop {
        let mark = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(mark) = mark {
            let head = String::from_utf8_lossy(&bytes[..mark + 4]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let is_length = name.eq_ignore_ascii_case("content-length");
                is_length.then(|| value.trim().parse::<usize>().ok())?
            });
            if bytes.len() >= mark + 4 + length.unwrap_or(0) {
                return Ok((head, bytes.split_off(mark + 4)));
            }
        }
        let read = from.read(&mut step)?;
        if read == 0 || bytes.len() > REQUEST_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&step[..read]);
    }
}
