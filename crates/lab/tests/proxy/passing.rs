use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use plimsoll_lab::proxy::Change;
use plimsoll_lab::proxy::toxic::Stream;
use plimsoll_model::draw::Draw;
use serde_json::json;

use crate::{connect, echo, proxies, proxy, round_trip, server, toxic, until};

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    let proxies = proxies();
    let address = proxy(&proxies, echo());
    let mut stream = connect(address);
    for word in ["a", "bc", "def"] {
        round_trip(&mut stream, word).expect("an echo");
    }
    until("they are counted", || {
        let figures = proxies.set().figures("edge").expect("figures");
        (figures.accepted, figures.open, figures.up_bytes, figures.down_bytes) == (1, 1, 6, 6)
    });
    drop(stream);
    until("it is closed", || proxies.set().figures("edge").expect("figures").open == 0);
}

#[test]
fn one_side_may_end_before_the_other() {
    let address = server(|mut stream| {
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("all of it");
        stream.write_all(format!("you said {all}").as_bytes()).expect("an answer");
    });
    let proxies = proxies();
    let mut stream = connect(proxy(&proxies, address));
    stream.write_all(b"this").expect("sent");
    stream.shutdown(Shutdown::Write).expect("ended");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "you said this");
}

/// Much of it, through all that delays and cuts, over many connections at once: every byte, in order.
#[test]
fn nothing_is_lost_or_swapped() {
    let proxies = proxies();
    let address = proxy(&proxies, echo());
    for stream in [Stream::Upstream, Stream::Downstream] {
        for (kind, attributes) in [
            ("latency", json!({ "latency": 3, "jitter": 3 })),
            ("loss", json!({ "probability": 0.02, "rto": 5 })),
            ("slicer", json!({ "average_size": 900, "size_variation": 800, "delay": 10 })),
            ("bandwidth", json!({ "rate": 5000 })),
            ("slow_close", json!({ "delay": 20 })),
        ] {
            let mut toxic = toxic(kind, stream, attributes);
            toxic.name = format!("{kind} {stream:?}");
            proxies.set().add("edge", toxic.into()).expect("a toxic");
        }
    }
    let clients: Vec<_> = (0..8u64)
        .map(|client| {
            std::thread::spawn(move || {
                let mut stream = connect(address);
                let draw = Draw::root(client, 0);
                let sent: Vec<u8> = (0..100_000).map(|at| draw.bits(at) as u8).collect();
                let mut sender = stream.try_clone().expect("a second handle");
                let bytes = sent.clone();
                let sending = std::thread::spawn(move || {
                    sender.write_all(&bytes).expect("sent");
                    sender.shutdown(Shutdown::Write).expect("ended");
                });
                let mut got = Vec::new();
                stream.read_to_end(&mut got).expect("all of it");
                sending.join().expect("sent");
                assert!(got == sent, "client {client}: {} bytes of {}", got.len(), sent.len());
            })
        })
        .collect();
    // What is on changes meanwhile, and nothing is lost by that either.
    while clients.iter().any(|client| !client.is_finished()) {
        for latency in [1, 5] {
            let change = json!({ "attributes": { "latency": latency } }).to_string();
            let path = "/proxies/edge/toxics/latency%20Upstream";
            let (status, _) = plimsoll_lab::proxy::answer(proxies.set(), &http::Method::PATCH, path, change.as_bytes());
            assert_eq!(status, 200);
            std::thread::sleep(std::time::Duration::from_millis(7));
        }
    }
    clients.into_iter().for_each(|client| client.join().expect("a client"));
}

/// A server that reads nothing holds up who sends, as it would without a proxy; and nobody else, and not those
/// who ask for something.
#[test]
fn who_does_not_read_is_not_read_for() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let address = server(move |stream| {
        let _ = held.lock().map(|held| held.recv());
        drop(stream);
    });
    let proxies = proxies();
    let listens = proxy(&proxies, address);
    let latency = toxic("latency", Stream::Upstream, json!({ "latency": 60_000 }));
    for with_latency in [false, true] {
        if with_latency {
            proxies.set().add("edge", latency.clone().into()).expect("a toxic");
        }
        let mut stream = connect(listens);
        stream.set_nonblocking(true).expect("nonblocking");
        let bytes = vec![0; 1 << 16];
        let mut sent = 0;
        let mut full = 0;
        // Full for a while: the kernel takes some more after a moment.
        while full < 100 {
            match stream.write(&bytes) {
                Ok(count) => (sent, full) = (sent + count, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    full += 1;
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
            assert!(sent < 100 << 20, "somebody takes everything");
        }
        // Others go on, and what is asked for happens at once.
        let other = proxies.set().create(plimsoll_lab::proxy::NewProxy::to("other", &echo().to_string())).expect("one");
        round_trip(&mut connect(other.listen.parse().expect("an address")), "other").expect("an echo");
        proxies.set().delete("other").expect("deleted");
        proxies.set().update("edge", Change::enable(false)).expect("down");
        until("the connection is closed", || stream.write(&bytes).is_err_and(|e| e.kind() != ErrorKind::WouldBlock));
        proxies.set().update("edge", Change::enable(true)).expect("up");
    }
    drop(release);
}

#[test]
fn a_server_that_is_not_there_is_a_reset() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let proxies = proxies();
    // A client may hear of it as soon as it is connected.
    let error = TcpStream::connect(proxy(&proxies, gone)).and_then(|mut stream| stream.read(&mut [0; 8]));
    let error = error.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxies.set().figures("edge").expect("figures").unreached, 1);
}

#[test]
fn a_reset_of_one_side_is_one_of_the_other() {
    let address = server(|mut stream| {
        let _ = stream.read(&mut [0; 1]);
        let socket = socket2::Socket::from(stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("linger");
    });
    let proxies = proxies();
    let mut stream = connect(proxy(&proxies, address));
    stream.write_all(b"x").expect("sent");
    let error = stream.read(&mut [0; 8]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn dropping_them_closes_everything() {
    let proxies = proxies();
    let address = proxy(&proxies, echo());
    let api = proxies.api().expect("an API");
    let mut stream = connect(address);
    round_trip(&mut stream, "here").expect("an echo");
    drop(proxies);
    assert_eq!(stream.read(&mut [0; 8]).map_err(|error| error.kind()).unwrap_or(0), 0);
    for address in [address, api] {
        assert!(TcpStream::connect(address).is_err());
    }
}
