//! Thousands of connections that cost their owner nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::*;
use crate::support::*;

const MANY: usize = 10_000;

/// Memory that a connection may cost which has begun a head and not ended it: its buffer of 16 KiB for the head, and as
/// much again for sockets, tasks and what the allocator does not give back.
const BEGUN: u64 = 32 << 10;
/// The same for one that has sent nothing. It has no buffer.
const SILENT: u64 = 8 << 10;
/// What the gateway may take besides, for all connections together.
const BESIDES: u64 = 32 << 20;

/// Connections from one address that send this. They come no faster than the gateway accepts them: what overflows the
/// system's queue would be a connection for the client alone.
fn flood(running: &Running, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let taken =
        || running.figure("plimsoll_connections_accepted_total") + running.figure("plimsoll_connections_refused_total");
    let before = taken();
    let mut streams = Vec::new();
    while streams.len() < count {
        for _ in 0..100 {
            let mut stream = connect_from(running.address, [127, 0, 0, 1]);
            let _ = stream.write_all(bytes);
            streams.push(stream);
        }
        within(Duration::from_secs(60), "they are accepted", || taken() >= before + streams.len() as u64);
    }
    streams
}

/// Reads until the connection ends, and says whether it was told so with a 408.
fn is_told_to_go(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 512];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return bytes.starts_with(b"HTTP/1.1 408"),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it holds the connection"),
            Err(_) => return bytes.starts_with(b"HTTP/1.1 408"),
        }
    }
}

fn start(backend: &Backend, limits: &str) -> Running {
    Running::start(&file(&[backend.address], &format!("admin: 127.0.0.1:0\n{limits}"), ""))
}

/// Room for all of them, and little time.
const OPEN: &str = "limits: { connections: 20k, connections_per_client: 20k, header_timeout: 4s }";

#[test]
fn ten_thousand_slow_heads_cost_nobody_an_answer() {
    let _files = many_files();
    let backend = Backend::ok("here");
    let mut running = start(&backend, OPEN);
    let probe = Probe::start(running.address);
    let before = running.memory();
    let mut peaks = Vec::new();
    // Three times: the second flood may find the memory of the first in pieces, and the third has to find room.
    for _ in 0..3 {
        let watch = Watch::start(&running);
        let mut streams = flood(&running, MANY, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
        probe.is_answered();
        // A byte now and then keeps nobody's connection: the head as a whole has its time.
        for stream in &mut streams {
            let _ = stream.write_all(b"a");
        }
        probe.is_answered();
        let told = streams.iter_mut().map(is_told_to_go).filter(|told| *told).count();
        assert!(told > MANY / 2, "{told} were told to go, the others cut off");
        peaks.push(watch.peak() - before);
    }
    probe.end();
    println!("memory grew by {peaks:?}");
    assert!(peaks.iter().all(|peak| *peak < MANY as u64 * BEGUN + BESIDES), "{peaks:?}");
    assert!(peaks[2] < peaks[1] + BESIDES, "memory leaks: {peaks:?}");
    assert!(running.is_alive());
}

#[test]
fn ten_thousand_silent_connections_cost_nobody_an_answer() {
    let _files = many_files();
    let backend = Backend::ok("here");
    let mut running = start(&backend, OPEN);
    let probe = Probe::start(running.address);
    let watch = Watch::start(&running);
    let mut streams = flood(&running, MANY, b"");
    probe.is_answered();
    assert!(!streams.iter_mut().any(is_told_to_go), "who has said nothing is told nothing");
    let grown = watch.grown();
    probe.end();
    println!("memory grew by {grown}");
    assert!(grown < MANY as u64 * SILENT + BESIDES, "{grown}");
    assert!(running.is_alive());
}

#[test]
fn one_address_takes_only_its_share_of_connections() {
    let _files = many_files();
    let backend = Backend::ok("here");
    // The default limits: 1,000 for an address, and 10 s for a head.
    let mut running = start(&backend, "");
    let probe = Probe::start(running.address);
    let streams = flood(&running, MANY, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    let mut held = 0;
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    within(Duration::from_secs(8), "what is too much is closed at once", || {
        let mut byte = [0];
        let waits =
            |stream: &&TcpStream| stream.peek(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        held = streams.iter().filter(waits).count();
        held <= 1_000
    });
    probe.is_answered();
    probe.end();
    assert!(running.is_alive());
}

#[test]
fn the_soft_limit_of_open_files_is_raised() {
    let backend = Backend::ok("here");
    let text = |connections: u64| {
        let keys = format!("admin: 127.0.0.1:0\nlimits: {{ connections: {connections} }}");
        file(&[backend.address], &keys, "")
    };
    let running = Running::with_files(&text(200), 40, 400);
    // More connections than the soft limit has files, all served while all are open.
    let mut clients: Vec<Client> = (0..100).map(|_| Client::new(running.address)).collect();
    assert!(clients.iter_mut().all(|client| client.get("/").status == 200));
    let config = Client::new(running.admin.expect("an address")).get("/config").body;
    assert!(config.starts_with("# The process may open 400 files.\n"), "{config}");
    assert_eq!(running.figure("plimsoll_max_fds"), 400);
    assert!(!running.lines().iter().any(|line| line.contains("limits.connections")), "{:?}", running.lines());
}

#[test]
fn more_connections_than_files_are_warned_of() {
    let backend = Backend::ok("here");
    let text = |connections: u64| file(&[backend.address], &format!("limits: {{ connections: {connections} }}"), "");
    let mut running = Running::with_files(&text(1000), 40, 400);
    let warns = |line: &String, count: u64| {
        line.contains(&format!("limits.connections is {count}, but the process may open 400 files only"))
    };
    running.until("it warns", |lines| lines.iter().any(|line| warns(line, 1000)));
    // A reload that asks for yet more is warned of too.
    running.write(&text(2000));
    running.signal("-HUP");
    running.until("it warns again", |lines| lines.iter().any(|line| warns(line, 2000)));
}
