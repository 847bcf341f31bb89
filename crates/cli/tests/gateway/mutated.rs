//! Streams of bytes that were sound once. Each test run tries some thousands with the process; `scripts/fuzz` tries
//! more, with a gateway whose coverage it watches.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::process::*;
use crate::support::*;

/// Random bits (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, count: usize) -> usize {
        (self.bits() % count.max(1) as u64) as usize
    }
}

/// The inputs that `fuzz/fuzz_targets/gateway.rs` starts from: a client's bytes, a line `====`, an instance's.
fn seeds() -> Vec<(Vec<u8>, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/gateway");
    let mut paths: Vec<_> = std::fs::read_dir(folder).expect("seeds").map(|it| it.expect("a seed").path()).collect();
    paths.sort();
    assert!(paths.len() > 5);
    let mark = b"\n====\n";
    let split = |bytes: Vec<u8>| {
        let at = bytes.windows(mark.len()).position(|window| window == mark).expect("a mark");
        (bytes[..at].to_vec(), bytes[at + mark.len()..].to_vec())
    };
    paths.iter().map(|path| split(std::fs::read(path).expect("a seed"))).collect()
}

const WORDS: [&[u8]; 12] = [
    b"\r\n",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"ffffffffffffffff\r\n",
    b"\xff\xff\xff",
    b"Connection: close\r\n",
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, others: &[u8]) {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        let length = random.below(16).min(bytes.len() - at);
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..at + length)),
            2 => drop(bytes.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            3 => drop(bytes.splice(at..at, bytes[at..at + length].to_vec())),
            4 => bytes.truncate(at),
            _ => drop(bytes.splice(at.., others[random.below(others.len())..].iter().copied())),
        }
    }
}

/// An instance whose answers to others than the probe are told, and what it has been asked.
fn instance(answer: Arc<Mutex<Vec<u8>>>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let is_probe = bytes[..count].starts_with(b"GET / ");
                    let answer = if is_probe { ok("here") } else { answer.lock().expect("it").clone() };
                    if stream.write_all(&answer).is_err() || !is_probe {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn no_bytes_harm_anybody_else() {
    const INPUTS: usize = 2_000;
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = Random(seed);
    let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
    let address = instance(answer.clone());
    let keys = "timeout: 300ms\ndrain: 1s\nlimits: { header_timeout: 100ms, body_timeout: 100ms, idle: 100ms }";
    let mut running = Running::start(&file(&[address], keys, "endpoints: { GET /: [], \"* /*\": [] }"));
    let probe = Probe::start(running.address);
    let watch = Watch::start(&running);
    let seeds = seeds();
    for number in 0..INPUTS {
        let (mut sent, mut answered) = seeds[random.below(seeds.len())].clone();
        let (other, another) = &seeds[random.below(seeds.len())];
        mutate(&mut random, &mut sent, other);
        mutate(&mut random, &mut answered, another);
        *answer.lock().expect("it") = answered.clone();
        let mut stream = TcpStream::connect(running.address).expect("it listens");
        let cut = random.below(sent.len());
        let _ = stream.write_all(&sent[..cut]).and_then(|()| stream.write_all(&sent[cut..]));
        // Whoever ends its side takes its request along: most wait for a beginning of the answer, some for all of it.
        let mut got = vec![0; 4096];
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let count = stream.read(&mut got).unwrap_or(0);
        got.truncate(count);
        if random.below(20) > 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        if let Err(error) = stream.read_to_end(&mut got) {
            let held = error.kind() == ErrorKind::WouldBlock;
            assert!(!held, "seed {seed}, input {number}: held after {:?}", String::from_utf8_lossy(&sent));
        }
    }
    probe.is_answered();
    let grown = watch.grown();
    assert!(grown < 32 << 20, "seed {seed}: {grown}");
    assert!(running.is_alive(), "seed {seed}");
    probe.end();
}
