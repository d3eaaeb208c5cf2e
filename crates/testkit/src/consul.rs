//! A double of a Consul agent: `GET /v1/health/service/NAME` with blocking queries, as Consul's documentation describes
//! them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// Largest head of a query.
const HEAD_MAX: usize = 16 << 10;

/// A running double. Its threads end with the process.
#[derive(Clone)]
pub struct Consul {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    index: u64,
    services: BTreeMap<String, Vec<Value>>,
    trouble: Option<(u16, String)>,
    filtered: bool,
    queries: Vec<String>,
}

/// An instance as Consul tells of it: where it is, and its weight while it is healthy.
pub fn instance(address: SocketAddr, weight: u16) -> Value {
    json!({
        "Node": {
            "ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "t2.320", "Address": address.ip(),
            "Datacenter": "dc1", "TaggedAddresses": { "lan": address.ip() }, "Meta": { "instance_type": "t2.medium" },
        },
        "Service": {
            "ID": format!("s-{}", address.port()), "Service": "s", "Tags": ["primary"], "Address": "",
            "Meta": {}, "Port": address.port(), "Weights": { "Passing": weight, "Warning": 1 },
            "EnableTagOverride": false, "CreateIndex": 10, "ModifyIndex": 10,
        },
        "Checks": [{ "Node": "t2.320", "CheckID": "serfHealth", "Status": "passing", "Output": "" }],
    })
}

impl Consul {
    /// Starts without services.
    pub fn start() -> Consul {
        Self::listen(|served, stream| _ = served.serve(stream))
    }

    /// Starts without services, behind TLS.
    pub fn start_tls(config: ServerConfig) -> Consul {
        let config = Arc::new(config);
        Self::listen(move |served, stream| {
            let tls = ServerConnection::new(config.clone()).expect("a usable configuration");
            served.serve(StreamOwned::new(tls, stream));
        })
    }

    fn listen(serve: impl Fn(&Consul, TcpStream) + Clone + Send + 'static) -> Consul {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let consul = Consul {
            address: listener.local_addr().expect("its address"),
            shared: Arc::default(),
        };
        consul.state().index = 10;
        let served = consul.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, serve) = (served.clone(), serve.clone());
                // A client that leaves in the middle is nobody's concern.
                thread::spawn(move || serve(&served, stream));
            }
        });
        consul
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the healthy instances of a service; queries that wait are answered.
    pub fn tell(&self, service: &str, instances: Vec<Value>) {
        let mut state = self.state();
        state.index += 1;
        state.services.insert(service.to_owned(), instances);
        self.shared.changed.notify_all();
    }

    /// Answers every query with a status and a text, those that wait too; `None` ends that.
    pub fn fail(&self, trouble: Option<(u16, &str)>) {
        self.state().trouble = trouble.map(|(status, text)| (status, text.to_owned()));
        self.shared.changed.notify_all();
    }

    /// Says that the token may not see the instances.
    pub fn filter(&self, filtered: bool) {
        let mut state = self.state();
        state.index += 1;
        state.filtered = filtered;
        self.shared.changed.notify_all();
    }

    /// Counts anew, as a cluster that was restored from a backup.
    pub fn count_anew(&self) {
        self.state().index = 1;
        self.shared.changed.notify_all();
    }

    /// Returns the queries so far, as `PATH token=TOKEN`.
    pub fn queries(&self) -> Vec<String> {
        self.state().queries.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no thread panics with it")
    }

    /// Answers the queries of one connection.
    fn serve(&self, mut stream: impl Read + Write) -> Option<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).ok()? == 0 || head.len() > HEAD_MAX {
                    return None;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).ok()?;
            let target = head.split(' ').nth(1)?.to_owned();
            let token = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("x-consul-token: ")
                    .map(str::to_owned)
            });
            let (status, index, filtered, body) = self.answer(&target, token.as_deref());
            let filtered = match filtered {
                true => "X-Consul-Results-Filtered-By-ACLs: true\r\n",
                false => "",
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nX-Consul-Index: {index}\r\n\
                 X-Consul-Knownleader: true\r\nX-Consul-Lastcontact: 0\r\n{filtered}Content-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).ok()?;
            stream.flush().ok()?;
        }
    }

    fn answer(&self, target: &str, token: Option<&str>) -> (u16, u64, bool, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<&str, &str> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let mut state = self.state();
        state
            .queries
            .push(format!("{target} token={}", token.unwrap_or_default()));
        let Some(service) = path.strip_prefix("/v1/health/service/") else {
            return (404, state.index, false, String::new());
        };
        let index: u64 = query
            .get("index")
            .and_then(|index| index.parse().ok())
            .unwrap_or(0);
        let wait = query
            .get("wait")
            .and_then(|wait| wait.strip_suffix('s')?.parse().ok());
        let end = Instant::now() + Duration::from_secs(wait.unwrap_or(300));
        while index > 0 && state.index == index && state.trouble.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .expect("no thread panics with it")
                .0;
        }
        if let Some((status, text)) = &state.trouble {
            return (*status, 0, false, text.clone());
        }
        let instances = match state.filtered {
            true => Vec::new(),
            false => state.services.get(service).cloned().unwrap_or_default(),
        };
        (
            200,
            state.index,
            state.filtered,
            Value::Array(instances).to_string(),
        )
    }
}
