//! What the machine can do at most, beside the ratios.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::table::Table;

const CHUNK_BYTES: usize = 1 << 20;
const DISK_BYTES: usize = 512 << 20;
const FLUSHES: usize = 100;

/// Measures memory, loopback and disk, and prints what they reach.
pub(super) fn run(table: &mut Table, time: Duration) -> anyhow::Result<()> {
    table.fact("memcpy of 1 MiB", "MB/s", memory(time));
    table.fact("loopback TCP, one stream", "MB/s", loopback(time)?);
    let (written, flush) = disk()?;
    table.fact(
        "disk, sequential write and one fdatasync at the end",
        "MB/s",
        written,
    );
    table.fact("disk, 4 KiB and fdatasync, median", "ms", flush);
    Ok(())
}

fn memory(time: Duration) -> f64 {
    // More than the caches hold, so that memory is read and written.
    let from = vec![1_u8; 64 * CHUNK_BYTES];
    let mut to = vec![0_u8; 64 * CHUNK_BYTES];
    let (begun, mut copied) = (Instant::now(), 0);
    while begun.elapsed() < time {
        for at in (0..from.len()).step_by(CHUNK_BYTES) {
            to[at..at + CHUNK_BYTES].copy_from_slice(&from[at..at + CHUNK_BYTES]);
            copied += CHUNK_BYTES;
        }
        black_box(&to);
    }
    copied as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

fn loopback(time: Duration) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sending = thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let chunk = vec![1_u8; CHUNK_BYTES];
        let begun = Instant::now();
        while begun.elapsed() < time {
            stream.write_all(&chunk)?;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let (begun, mut received) = (Instant::now(), 0);
    loop {
        match stream.read(&mut chunk)? {
            0 => break,
            bytes => received += bytes,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let sent = sending.join();
    sent.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(received as f64 / 1e6 / seconds)
}

/// Where the brokers keep their data too.
fn disk() -> anyhow::Result<(f64, f64)> {
    let path = std::env::temp_dir().join(format!("nuncio-bench-{}", std::process::id()));
    let measured = write(&path);
    std::fs::remove_file(&path).with_context(|| format!("could not remove {}", path.display()))?;
    measured
}

fn write(path: &std::path::Path) -> anyhow::Result<(f64, f64)> {
    let mut file =
        File::create(path).with_context(|| format!("could not create {}", path.display()))?;
    let chunk = vec![1_u8; CHUNK_BYTES];
    let begun = Instant::now();
    for _ in 0..DISK_BYTES / CHUNK_BYTES {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    let written = DISK_BYTES as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let mut flushes = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        file.write_all(&chunk[..4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        flushes.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok((written, super::table::median(&flushes)))
}
