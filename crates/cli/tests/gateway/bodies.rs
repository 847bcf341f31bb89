//! Bodies larger than memory should be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::process::*;
use crate::support::*;

const GIGABYTE: u64 = 1 << 30;
/// What a stream of any length may take: some buffers a connection.
const BUFFERS: u64 = 16 << 20;
/// A prime number of bytes, so that a piece that is lost, doubled or out of order shows.
const PIECE: usize = 65_521;

fn pieces() -> Vec<u8> {
    (0..PIECE).map(|i| (i % 251) as u8).collect()
}

/// Checks a stream of pieces as it comes.
struct Check {
    expected: Vec<u8>,
    seen: u64,
}

impl Check {
    fn new() -> Check {
        Check { expected: pieces(), seen: 0 }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = (self.seen % PIECE as u64) as usize;
            let here = bytes.len().min(PIECE - at);
            assert!(bytes[..here] == self.expected[at..at + here], "other bytes after {}", self.seen);
            self.seen += here as u64;
            bytes = &bytes[here..];
        }
    }
}

fn send(stream: &mut TcpStream, length: u64) {
    let piece = pieces();
    let mut left = length;
    while left > 0 {
        let here = left.min(PIECE as u64);
        if stream.write_all(&piece[..here as usize]).is_err() {
            return;
        }
        left -= here;
    }
}

/// Answers a GET of `/items/LENGTH` with so much, takes what a POST has, and others with a word. What it has got of
/// bodies is counted.
fn streaming() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let got = Arc::new(AtomicU64::new(0));
    let counted = got.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counted = counted.clone();
            std::thread::spawn(move || {
                let _ = stream_one(stream, &counted);
            });
        }
    });
    (address, got)
}

fn stream_one(mut stream: TcpStream, counted: &AtomicU64) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if let Some(length) = length {
            let mut check = Check::new();
            let mut buffer = vec![0; 1 << 16];
            while check.seen < length {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                check.take(&buffer[..count]);
                counted.fetch_add(count as u64, Ordering::SeqCst);
            }
            stream.write_all(&ok(&check.seen.to_string()))?;
        } else if let Some(length) = path.strip_prefix("/items/").and_then(|length| length.parse().ok()) {
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
            send(&mut stream, length);
        } else {
            stream.write_all(&ok("here"))?;
        }
    }
}

fn running(address: SocketAddr) -> Running {
    Running::start(&file(&[address], "limits: { body: 2GiB }", ""))
}

#[test]
fn a_gigabyte_goes_up_in_little_memory() {
    let (backend, got) = streaming();
    let running = running(backend);
    let probe = Probe::start(running.address);
    let watch = Watch::start(&running);
    let mut client = Client::new(running.address);
    client.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.send(&format!("POST /items HTTP/1.1\r\nHost: a\r\nContent-Length: {GIGABYTE}\r\n\r\n"));
    send(&mut client.stream, GIGABYTE);
    assert_eq!(client.next(false).expect("an answer").body, GIGABYTE.to_string());
    assert_eq!(got.load(Ordering::SeqCst), GIGABYTE);
    let grown = watch.grown();
    println!("memory grew by {grown}");
    assert!(grown < BUFFERS, "{grown}");
    probe.end();
}

#[test]
fn a_gigabyte_comes_down_in_little_memory() {
    let (backend, _) = streaming();
    let running = running(backend);
    let probe = Probe::start(running.address);
    let watch = Watch::start(&running);
    let mut stream = TcpStream::connect(running.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
        .write_all(format!("GET /items/{GIGABYTE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut check = Check::new();
    let mut bytes = vec![0; 1 << 16];
    let mut head = Vec::new();
    loop {
        let count = stream.read(&mut bytes).expect("more of it");
        if count == 0 {
            break;
        }
        if check.seen > 0 {
            check.take(&bytes[..count]);
            continue;
        }
        head.extend_from_slice(&bytes[..count]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            check.take(&head.split_off(end + 4));
        }
    }
    assert_eq!(check.seen, GIGABYTE);
    let grown = watch.grown();
    println!("memory grew by {grown}");
    assert!(grown < BUFFERS, "{grown}");
    probe.end();
}

/// Where a reader stops, the writer has to.
#[test]
fn what_nobody_reads_is_not_kept() {
    let (backend, got) = streaming();
    let running = running(backend);
    let probe = Probe::start(running.address);
    let watch = Watch::start(&running);
    // Twenty who ask for a gigabyte, and read nothing of it.
    let readers: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(running.address).unwrap();
            stream.write_all(format!("GET /items/{GIGABYTE} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    // And an instance that reads nothing, while a client sends all it can.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let stuck = running_to_silence(&silent);
    let stuck_watch = Watch::start(&stuck);
    let mut writer = TcpStream::connect(stuck.address).unwrap();
    writer.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    writer
        .write_all(format!("POST /items HTTP/1.1\r\nHost: a\r\nContent-Length: {GIGABYTE}\r\n\r\n").as_bytes())
        .unwrap();
    let piece = pieces();
    let mut sent = 0u64;
    while writer.write_all(&piece).is_ok() {
        sent += PIECE as u64;
        assert!(sent < GIGABYTE / 2, "the gateway takes what its instance does not");
    }
    (0..20).for_each(|_| probe.is_answered());
    let (grown, stuck) = (watch.grown(), stuck_watch.grown());
    println!("memory grew by {grown} and {stuck}");
    assert!(grown < BUFFERS && stuck < BUFFERS, "{grown}, {stuck}");
    assert_eq!(got.load(Ordering::SeqCst), 0);
    drop(readers);
    probe.end();
}

fn running_to_silence(silent: &TcpListener) -> Running {
    running(silent.local_addr().unwrap())
}
