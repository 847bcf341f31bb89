//! Proxies between real sockets, and what drives them.
#![allow(clippy::disallowed_methods, reason = "tests wait for what other threads do")]

mod api;
mod clients;
mod faults;
mod passing;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use plimsoll_lab::proxy::toxic::{Kind, Stream, Toxic};
use plimsoll_lab::proxy::{NewProxy, Proxies};
use serde_json::Value;

/// As long as a busy machine may need.
const LONG: Duration = Duration::from_secs(60);

fn proxies() -> Proxies {
    Proxies::start(1, Some("127.0.0.1:0".parse().expect("an address"))).expect("proxies")
}

/// A proxy to this server, and where it listens.
fn proxy(proxies: &Proxies, server: SocketAddr) -> SocketAddr {
    let shown = proxies.set().create(NewProxy::to("edge", &server.to_string())).expect("a proxy");
    shown.listen.parse().expect("an address")
}

fn toxic(kind: &str, stream: Stream, attributes: Value) -> Toxic {
    let mut made = Kind::new(kind).expect("a type");
    made.set(attributes.as_object().expect("an object")).expect("attributes");
    Toxic { name: kind.to_owned(), stream, toxicity: 1.0, kind: made }
}

/// A server that hands each connection to this.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// One that sends back what it gets, and ends when the client does.
fn echo() -> SocketAddr {
    server(|mut stream| {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, LONG).expect("a connection");
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Sends a word, and waits for it to come back.
fn round_trip(stream: &mut TcpStream, word: &str) -> std::io::Result<()> {
    stream.write_all(word.as_bytes())?;
    let mut bytes = vec![0; word.len()];
    stream.read_exact(&mut bytes)?;
    assert_eq!(bytes, word.as_bytes());
    Ok(())
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
