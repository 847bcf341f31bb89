//! A whole gateway, with what a client and an instance send made up. Whatever that is, the gateway goes on, lets go of
//! the connection, passes on only what can be read in one way, and gives others their own answers.
//!
//! The input is what the client sends, then a line `====`, then what the instance answers.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use plimsoll_gateway::http1::request::room;
use plimsoll_gateway::http1::{Body, Request, head};
use plimsoll_gateway::{Gateway, Plan};
use plimsoll_model::{Source, parse};

struct World {
    address: SocketAddr,
    /// What the instance answers next.
    answer: Arc<Mutex<Vec<u8>>>,
    probe: Mutex<Option<TcpStream>>,
    _gateway: Gateway,
}

const MARK: &[u8] = b"\n====\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ALIVE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalive";

fuzz_target!(|bytes: &[u8]| {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::new);
    let at = bytes.windows(MARK.len()).position(|window| window == MARK);
    let (sent, answer) = at.map_or((bytes, OK), |at| (&bytes[..at], &bytes[at + MARK.len()..]));
    *world.answer.lock().expect("the answer") = answer.to_vec();
    world.send(sent);
    world.is_alive();
});

/// Nothing but a Rust program's own `main` has writes to closed connections fail instead of ending the process without a
/// word. Here libFuzzer has `main`.
fn survive_closed_connections() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    // The handler stays when this is dropped.
    drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::pipe()).expect("a signal"));
}

impl World {
    fn new() -> World {
        survive_closed_connections();
        let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
        let instance = instance(answer.clone());
        let text = format!(
            "system: fuzz
clients: {{ web: {{ rate: 1/s, calls: [ edge GET /probe ] }} }}
services:
  edge:
    kind: gateway
    listen: [\"127.0.0.1:0\"]
    cores: 1
    timeout: 300ms
    retry: {{ attempts: 2, backoff: 1ms }}
    limits: {{ header_timeout: 100ms, body_timeout: 100ms, idle: 100ms, body: 64KiB }}
    routes:
      - {{ match: GET /kept/*, to: api, cache: {{ key: kept, ttl: 20ms }} }}
      - {{ match: GET /shared/*, to: api, coalesce: true }}
      - {{ to: api }}
  api:
    at: [\"{instance}\"]
    endpoints: {{ GET /probe: [], GET /kept/:id: [], GET /shared/:id: [], POST /items: [], any *: [] }}
"
        )
        .replace("any *", "\"* /*\"");
        let system = parse(&Source::alone("fuzz.yaml", &text)).unwrap_or_else(|it| panic!("{}", it.render(false)));
        let plan = Plan::new(&system, None).expect("a plan");
        let gateway = Gateway::start(plan, Path::new(".")).expect("a gateway");
        World { address: gateway.addresses()[0], answer, probe: Mutex::default(), _gateway: gateway }
    }

    fn send(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let _ = stream.write_all(bytes);
        // Whoever ends its side takes its request along: first there is time for an answer.
        let mut got = Vec::new();
        let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
        let mut piece = [0; 4096];
        if let Ok(count) = stream.read(&mut piece) {
            got.extend_from_slice(&piece[..count]);
        }
        let _ = stream.shutdown(Shutdown::Write);
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        match stream.read_to_end(&mut got) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the connection is held, after {:?}", String::from_utf8_lossy(&got))
            }
            _ => {}
        }
        // An answer of HTTP/1.1, or the frame of settings with which HTTP/2 begins.
        let start = &got[..got.len().min(9)];
        let sound = b"HTTP/1.1 ".starts_with(start) || start.get(3) == Some(&4);
        assert!(sound, "an answer that is none: {:?}", String::from_utf8_lossy(&got));
    }

    /// Somebody else, with a connection that stays, gets the answer that is theirs and no other. On a busy machine the
    /// gateway's short times may pass before the probe or its instance has had its turn: then it asks again.
    fn is_alive(&self) {
        let mut probe = self.probe.lock().expect("the probe");
        for _ in 0..50 {
            let mut stream = probe.take().unwrap_or_else(|| TcpStream::connect(self.address).expect("it listens"));
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            let mut got = Vec::new();
            let sent = stream.write_all(b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n");
            let mut piece = [0; 1024];
            while sent.is_ok() && !got.ends_with(b"\r\n\r\nalive") {
                match stream.read(&mut piece) {
                    Ok(0) => break,
                    Ok(count) => got.extend_from_slice(&piece[..count]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        panic!("the probe has no answer but {:?}", String::from_utf8_lossy(&got))
                    }
                    Err(_) => break,
                }
            }
            let text = String::from_utf8_lossy(&got);
            let late = ["", "HTTP/1.1 408", "HTTP/1.1 504"];
            if text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nalive") {
                *probe = Some(stream);
                return;
            }
            assert!(late.iter().any(|late| text.get(..12).unwrap_or(&text) == *late), "the probe got {text:?}");
        }
        panic!("the probe is not answered");
    }
}

/// An instance that answers the probe as it should, and everybody else as the input says. It keeps its connections.
fn instance(answer: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &Mutex<Vec<u8>>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let end = loop {
            let end = head::end(&bytes, &mut 0, 1 << 20);
            let end = end.unwrap_or_else(|why| panic!("passed on: {why:?} in {:?}", String::from_utf8_lossy(&bytes)));
            if let Some(end) = end {
                break end;
            }
            match stream.read(&mut piece) {
                Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
                _ => return,
            }
        };
        let text: Vec<u8> = bytes.drain(..end).collect();
        let mut room = room();
        let request = Request::parse(&text, &mut room, 128);
        let request = request.unwrap_or_else(|_| panic!("passed on: {:?}", String::from_utf8_lossy(&text)));
        // The gateway's own fields are there once, whatever the client has sent.
        for name in ["host", "x-request-id", "x-forwarded-for"] {
            let count = request.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
            assert_eq!(count, 1, "{name} in {:?}", String::from_utf8_lossy(&text));
        }
        let is_probe = request.target == "/probe" && request.host == b"probe";
        let mut body = Body::new(request.framing, 4096);
        while !body.is_over() {
            let taken = body.pass(&bytes).expect("what is passed on is a body");
            bytes.drain(..taken);
            if body.is_over() {
                break;
            }
            match stream.read(&mut piece) {
                Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
                _ => return,
            }
        }
        let answer = if is_probe { ALIVE.to_vec() } else { answer.lock().expect("the answer").clone() };
        if stream.write_all(&answer).is_err() {
            return;
        }
        // Where both sides have agreed on another protocol, what comes now is none of HTTP.
        let upgrades = request.fields.iter().any(|field| field.name.eq_ignore_ascii_case("upgrade"));
        if upgrades && answer.starts_with(b"HTTP/1.1 101 ") {
            while matches!(stream.read(&mut piece), Ok(1..)) {}
            return;
        }
        // An answer without a length has to end some day.
        if !is_probe && answer.len() % 3 == 0 {
            return;
        }
    }
}
