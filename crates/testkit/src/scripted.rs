//! An upstream that does exactly what a test says, byte by byte.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::raw::Raw;

/// A listening socket whose connections each run a script on a thread of their own. It stops to accept when dropped.
pub struct Scripted {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Scripted {
    /// Starts it. The script gets each connection and its number, from 0.
    #[track_caller]
    pub fn start(script: impl Fn(Raw, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (connections, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, stopped, script) = (connections.clone(), stop.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = count.fetch_add(1, Ordering::Relaxed);
                let script = script.clone();
                thread::spawn(move || script(Raw::of(stream), number));
            }
        });
        Self {
            address,
            connections,
            stop,
        }
    }

    /// Starts one that answers each request head with the same bytes, on connections that stay open.
    #[track_caller]
    pub fn answering(answer: &'static str) -> Self {
        Self::start(move |mut raw, _| {
            while raw.try_take_until(b"\r\n\r\n").is_some() {
                raw.send(answer);
            }
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many connections were made to it so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; an error says that it has ended already.
        _ = TcpStream::connect(self.address);
    }
}
