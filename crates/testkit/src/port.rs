//! Ports that stay free between two lives of one process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Linux hands out 32768 and up to connections and to port 0; below it nothing moves by itself.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Returns a loopback address that a process may leave and come back to.
///
/// A port that the kernel chose can be given to somebody else while its owner is down, and a client that
/// knocks at it in vain can even be connected to itself. Ports below the kernel's range have neither trouble.
pub fn stable() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes run side by side: each starts at its own place.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = (u32::from(start) * 7 + u32::from(step) * 13) % u32::from(COUNT);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + place as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
