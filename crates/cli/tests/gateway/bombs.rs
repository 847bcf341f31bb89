//! Heads and frames that are larger for their reader than for their sender.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::*;
use crate::support::*;

/// What all of an attack may take, whatever its size: far less than what is sent or meant by it.
const BOUND: u64 = 48 << 20;
/// Connections of an attack at once.
const AT_ONCE: usize = 50;

/// How a connection has ended, and what came before.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the connection is held"),
        _ => bytes,
    }
}

/// Writes until all is written or nobody takes it; what comes back is read, so that neither side waits for the other.
fn pour(stream: &mut TcpStream, pieces: impl Iterator<Item = Vec<u8>>) -> u64 {
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut waste = [0; 16384];
        while let Ok(1..) = reader.read(&mut waste) {}
    });
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut sent = 0;
    for piece in pieces {
        if stream.write_all(&piece).is_err() {
            break;
        }
        sent += piece.len() as u64;
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = reading.join();
    sent
}

/// An attack with so many connections at once, beside a client that has to be answered all the while.
fn attack(limits: &str, each: impl Fn(&mut TcpStream) + Sync) {
    let _files = many_files();
    let backend = Backend::ok("here");
    let mut running = Running::start(&file(&[backend.address], limits, ""));
    let probe = Probe::start(running.address);
    probe.is_answered();
    let watch = Watch::start(&running);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| each(&mut connect_from(running.address, [127, 0, 0, 1])));
        }
        probe.is_answered();
    });
    probe.is_answered();
    let grown = watch.grown();
    println!("memory grew by {grown}");
    assert!(grown < BOUND, "{grown}");
    assert!(running.is_alive());
    probe.end();
}

#[test]
fn a_line_without_an_end_is_cut_off() {
    attack("", |stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
        let sent = pour(stream, std::iter::repeat_n(vec![b'a'; 65536], 1_600));
        assert!(sent < 16 << 20, "{sent} bytes of one line were taken");
    });
}

#[test]
fn more_fields_than_anybody_needs_are_refused() {
    attack("", |stream| {
        let fields: Vec<u8> = (0..200).flat_map(|i| format!("X-{i}: b\r\n").into_bytes()).collect();
        let _ = stream.write_all(&[b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(), fields, b"\r\n".to_vec()].concat());
        let got = rest(stream);
        assert!(got.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&got));
    });
}

#[test]
fn chunks_that_are_all_framing_are_refused() {
    attack("", |stream| {
        stream.write_all(b"POST /items HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;").unwrap();
        let sent = pour(stream, std::iter::repeat_n(vec![b'a'; 65536], 1_600));
        assert!(sent < 16 << 20, "{sent} bytes of one extension were taken");
    });
    attack("", |stream| {
        stream.write_all(b"POST /items HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").unwrap();
        let sent = pour(stream, std::iter::repeat_n(b"X: a\r\n".repeat(10_000), 1_600));
        assert!(sent < 16 << 20, "{sent} bytes of trailers were taken");
    });
}

#[test]
fn an_endless_head_of_an_instance_is_cut_off() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
                while stream.write_all(&[b'a'; 65536]).is_ok() {}
            });
        }
    });
    let mut running = Running::start(&file(&[bad], "", ""));
    let watch = Watch::start(&running);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| assert_eq!(Client::new(running.address).get("/").status, 502));
        }
    });
    let grown = watch.grown();
    assert!(grown < BOUND, "{grown}");
    assert!(running.is_alive());
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET path` of `http://test`, with nothing put into the table of fields.
fn request(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(4, path), (1, "test")] {
        block.extend([name, value.len() as u8]);
        block.extend(value.as_bytes());
    }
    block
}

fn hello(stream: &mut TcpStream) {
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
}

/// The streams that clients open, in order.
fn streams() -> impl Iterator<Item = u32> {
    (1..1 << 30).step_by(2)
}

#[test]
fn a_block_of_fields_without_an_end_is_cut_off() {
    attack("", |stream| {
        hello(stream);
        stream.write_all(&frame(HEADERS, END_STREAM, 1, &request("/"))).unwrap();
        // A literal field of 16 KiB in each (CVE-2024-27316 and its kin).
        let field = [&[0x00, 0x01, b'x', 0x7f, 0x80, 0x7e][..], &[b'a'; 16_255 - 6]].concat();
        let sent = pour(stream, std::iter::repeat_n(frame(CONTINUATION, 0, 1, &field), 6_000));
        assert!(sent < 16 << 20, "{sent} bytes of one block were taken");
    });
}

#[test]
fn fields_that_unfold_are_counted_unfolded() {
    attack("", |stream| {
        hello(stream);
        // A field of 4,000 bytes goes into the table once; then each byte is another one of it.
        let mut block = request("/");
        block.extend([&[0x40, 0x01, b'x', 0x7f, 0xa1, 0x1e][..], &[b'a'; 4_000]].concat());
        block.extend([0xbe; 12_000]);
        let pieces = streams().take(200).map(|id| frame(HEADERS, END_STREAM | END_HEADERS, id, &block));
        pour(stream, pieces);
    });
}

#[test]
fn streams_that_are_taken_back_at_once_are_too_many_at_some_point() {
    let taken = std::sync::atomic::AtomicU64::new(0);
    attack("", |stream| {
        hello(stream);
        // CVE-2023-44487
        let pieces = streams().take(200_000).map(|id| {
            [frame(HEADERS, END_STREAM | END_HEADERS, id, &request("/")), frame(RST_STREAM, 0, id, &8u32.to_be_bytes())]
                .concat()
        });
        taken.fetch_add(pour(stream, pieces), std::sync::atomic::Ordering::SeqCst);
    });
    let all = AT_ONCE as u64 * 200_000 * (9 + request("/").len() as u64 + 13);
    let taken = taken.into_inner();
    assert!(taken < all / 4, "{taken} of {all} bytes were taken");
}

#[test]
fn frames_that_want_answers_do_not_pile_up() {
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[0, 4, 0, 1, 0, 0])] {
        attack("", |stream| {
            hello(stream);
            // Nothing is read, so that answers have nowhere to go.
            stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
            let many = frame(kind, 0, 0, payload).repeat(10_000);
            let mut sent = 0u64;
            while sent < 64 << 20 && stream.write_all(&many).is_ok() {
                sent += many.len() as u64;
            }
        });
    }
}

#[test]
fn frames_with_nothing_in_them_end_too() {
    attack("limits: { body_timeout: 2s }", |stream| {
        hello(stream);
        let mut block = request("/items");
        block[0] = 0x83; // POST
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &block)).unwrap();
        pour(stream, std::iter::repeat_n(frame(DATA, 0, 1, &[]).repeat(1_000), 500));
    });
}

#[test]
fn answers_that_nobody_takes_wait_at_the_instance() {
    let _files = many_files();
    let large = Backend::new(|received| match received.head.starts_with("GET /items/") {
        true => Does::Answer(ok(&"x".repeat(4 << 20))),
        false => Does::Answer(ok("here")),
    });
    // Four hundred connections at once are more than the instance's queue has room for: some come a second later.
    let mut running = Running::start(&file(&[large.address], "limits: { connect_timeout: 60s }", ""));
    let probe = Probe::start(running.address);
    let watch = Watch::start(&running);
    // The client's window is nothing: of each answer only the head can be sent.
    let connections: Vec<TcpStream> = (0..AT_ONCE)
        .map(|_| {
            let mut stream = connect_from(running.address, [127, 0, 0, 1]);
            stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).unwrap();
            for id in streams().take(8) {
                stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, id, &request("/items/1"))).unwrap();
            }
            // Room on the connection as a whole changes nothing.
            stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes())).unwrap();
            stream
        })
        .collect();
    within(Duration::from_secs(60), "all are asked for", || large.requests() >= AT_ONCE * 8);
    probe.is_answered();
    let grown = watch.grown();
    println!("memory grew by {grown}");
    assert!(grown < BOUND + ((AT_ONCE as u64 * 8) << 16), "{grown}");
    drop(connections);
    probe.end();
    assert!(running.is_alive());
}
