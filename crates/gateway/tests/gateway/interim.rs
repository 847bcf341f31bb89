//! Interim answers (RFC 9110, section 15.2; RFC 8297): passed on as they come, and never taken for the answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use crate::support::*;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";

/// An instance that sends hints as soon as it has a head, and the answer once the gate is open.
fn hinting() -> (SocketAddr, Gate) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Gate::default();
    let shut = gate.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let gate = shut.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    bytes.extend_from_slice(&piece[..count]);
                    if bytes.ends_with(b"\r\n\r\n") {
                        bytes.clear();
                        stream.write_all(HINTS.as_bytes()).unwrap();
                        gate.pass();
                        let _ = stream.write_all(&ok("final"));
                    }
                }
            });
        }
    });
    (address, gate)
}

#[test]
fn they_are_passed_on_before_the_answer_is_there() {
    // Without policies, by a call that may be repeated, and by one that is hedged, while one attempt or both are out.
    for keys in ["", "retry: {}", "hedge: { min_samples: 1000, min_delay: 30s }", "hedge: { min_samples: 1 }"] {
        let (instance, gate) = hinting();
        let gateway = start(&file(&[instance], keys, ""));
        let mut client = Client::of(&gateway);
        // What the first one took is what an extra attempt of the second waits for.
        for _ in 0..2 {
            gate.shut();
            let got = client.get("/");
            assert_eq!((got.status, got.field("link")), (103, Some("</a.css>; rel=preload")), "{keys}");
            gate.open();
            // An extra attempt may have hints of its own.
            let last = std::iter::repeat_with(|| client.next(false).unwrap()).find(|got| got.status != 103).unwrap();
            assert_eq!((last.status, last.body.as_str()), (200, "final"), "{keys}");
        }
        gateway.stop(true);
    }
}

#[test]
fn what_is_for_one_hop_stays_here_and_nothing_is_added() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
                   Content-Length: 5\r\n\r\n";
    let answer = [interim.as_bytes(), b"HTTP/1.1 102 Processing\r\n\r\n", &ok("final")].concat();
    let backend = Backend::new(move |_| Does::Answer(answer.clone()));
    let gateway = gateway(&[&backend], "");
    let mut client = Client::that_asked(&gateway, "/");
    assert_eq!(client.next(false).unwrap().head, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(client.next(false).unwrap().head, "HTTP/1.1 102 Processing\r\n\r\n");
    assert_eq!(client.next(false).unwrap().body, "final");
    // HTTP/1.0 does not know them.
    let got = Client::of(&gateway).ask("GET / HTTP/1.0\r\nHost: test\r\n\r\n");
    assert_eq!((got.status, got.body.as_str()), (200, "final"));
    gateway.stop(true);
}

#[test]
fn each_attempt_has_its_own() {
    let backend = Backend::new(|received| {
        let last = if received.number == 0 { answer(503, "", "no") } else { ok("final") };
        Does::Answer([HINTS.as_bytes(), &last].concat())
    });
    let gateway = gateway(&[&backend], "retry: { backoff: 1ms }");
    let mut client = Client::that_asked(&gateway, "/");
    let statuses: Vec<u16> = (0..3).map(|_| client.next(false).unwrap().status).collect();
    assert_eq!(statuses, [103, 103, 200]);
    gateway.stop(true);
}

#[test]
fn an_instance_that_has_no_end_of_them_has_no_answer() {
    for (count, status) in [(32, 200), (33, 502)] {
        let answer = [HINTS.repeat(count).as_bytes(), &ok("final")].concat();
        let backend = Backend::new(move |_| Does::Answer(answer.clone()));
        let gateway = gateway(&[&backend], "");
        let mut client = Client::that_asked(&gateway, "/");
        for _ in 0..32 {
            assert_eq!(client.next(false).unwrap().status, 103);
        }
        assert_eq!(client.next(false).unwrap().status, status);
        gateway.stop(true);
    }
}

#[test]
fn hints_are_no_word_that_a_body_is_wanted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        let mut read_to = |stream: &mut std::net::TcpStream, end: &[u8]| {
            let mut piece = [0; 1024];
            while !bytes.ends_with(end) {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0);
                bytes.extend_from_slice(&piece[..count]);
            }
        };
        read_to(&mut stream, b"\r\n\r\n");
        stream.write_all(HINTS.as_bytes()).unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        read_to(&mut stream, b"hello");
        stream.write_all(&ok("final")).unwrap();
    });
    let gateway = start(&file(&[address], "", ""));
    let mut client = Client::of(&gateway);
    client.send("POST /items HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.next(false).unwrap().status, 103);
    assert_eq!(client.next(false).unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.next(false).unwrap().body, "final");
    gateway.stop(true);
}
