//! What a proxy owes both sides.

use std::io::{Read, Write};

use crate::support::*;

#[test]
fn requests_go_there_and_back_on_one_connection() {
    let backend = Backend::new(|received| {
        assert_eq!(received.field("host"), Some("test"));
        assert_eq!(received.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(received.field("x-request-id").map(str::len), Some(32));
        assert!(received.field("traceparent").is_some() && received.field("connection").is_none());
        assert_eq!(received.field("via"), Some("1.1 edge"));
        assert!(received.field("x-request-timeout-ms").unwrap().parse::<u64>().unwrap() > 59_000);
        Does::Answer(answer(200, "X-Made: here\r\nKeep-Alive: timeout=5\r\n", received.head.split(' ').nth(1).unwrap()))
    });
    let gateway = gateway(&[&backend], "");
    let mut client = Client::of(&gateway);
    for path in ["/", "/items/7?a=b", "/items/8"] {
        let got = client.get(path);
        assert_eq!((got.status, got.body.as_str(), got.field("x-made")), (200, path, Some("here")));
        assert_eq!((got.field("connection"), got.field("keep-alive")), (None, None));
        assert!(got.field("date").is_some_and(|date| date.ends_with(" GMT")), "{got:?}");
    }
    assert_eq!(backend.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    gateway.stop(true);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::new(|received| Does::Answer(ok(received.head.split(' ').nth(1).unwrap())));
    let gateway = gateway(&[&backend], "");
    let mut client = Client::of(&gateway);
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send(&[request("/items/1"), request("/items/2"), request("/items/3")].concat());
    for path in ["/items/1", "/items/2", "/items/3"] {
        assert_eq!(client.next(false).unwrap().body, path);
    }
    gateway.stop(true);
}

#[test]
fn bodies_pass_in_both_framings() {
    let backend = Backend::new(|received| {
        let body = String::from_utf8_lossy(&received.body).into_owned();
        let body = body.replace("\r\n", "|");
        if received.head.starts_with("PUT") {
            let chunks = format!(
                "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Sum: 1\r\n\r\n",
                body.len()
            );
            Does::Answer(chunks.into_bytes())
        } else {
            Does::Answer(ok(&body))
        }
    });
    for keys in ["", "retry: {}"] {
        let gateway = gateway(&[&backend], keys);
        let mut client = Client::of(&gateway);
        let got = client.ask("POST /items HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(got.body, "hello");
        let got = client
            .ask("POST /items HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(got.body, "5|hello|0||");
        let got = client.ask("PUT /items/1 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(got.body, "2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n");
        // In pieces, and larger than any buffer.
        let large = "x".repeat(300_000);
        client.send(&format!("POST /items HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", large.len()));
        for piece in large.as_bytes().chunks(50_000) {
            client.stream.write_all(piece).unwrap();
        }
        assert_eq!(client.next(false).unwrap().body, large);
        let got =
            client.ask("PUT /items/1 HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
        assert!(got.body.contains("1|a|0||"), "{got:?}");
        gateway.stop(true);
    }
}

#[test]
fn answers_without_a_body_end_where_they_should() {
    let backend = Backend::new(|received| {
        Does::Answer(match received.head.split(' ').nth(1).unwrap() {
            "/items/head" => b"HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\n".to_vec(),
            "/items/204" => b"HTTP/1.1 204 X\r\n\r\n".to_vec(),
            "/items/304" => b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n".to_vec(),
            _ => ok("after"),
        })
    });
    let gateway = gateway(&[&backend], "");
    let mut client = Client::of(&gateway);
    let head = client.ask("HEAD /items/head HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    assert_eq!(client.get("/items/204").status, 204);
    assert_eq!(client.get("/items/304").field("content-length"), Some("5"));
    assert_eq!(client.get("/").body, "after");
    gateway.stop(true);
}

#[test]
fn answers_to_the_end_of_the_connection_and_old_clients() {
    let backend = Backend::new(|received| match received.head.split(' ').nth(1).unwrap() {
        "/items/close" => Does::AnswerAndClose(b"HTTP/1.1 200 X\r\n\r\nuntil the end".to_vec()),
        _ => Does::Answer(
            b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec(),
        ),
    });
    let gateway = gateway(&[&backend], "");
    let mut client = Client::of(&gateway);
    let got = client.get("/items/close");
    assert_eq!((got.body.as_str(), got.field("connection")), ("until the end", Some("close")));
    assert!(client.is_closed());
    // HTTP/1.0 has no chunks.
    let got = Client::of(&gateway).ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((got.body.as_str(), got.field("transfer-encoding")), ("abcde", None));
    gateway.stop(true);
}

/// A server that answers a head with this before it reads the body, and then with what it has read.
fn hesitating(first: &'static [u8]) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = Vec::new();
            let mut piece = [0; 1024];
            while !bytes.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
                    _ => return,
                }
            }
            let head = String::from_utf8_lossy(&bytes).into_owned();
            assert!(head.ends_with("\r\nexpect: 100-continue\r\n\r\n"), "{head}");
            let _ = stream.write_all(first);
            let mut body = [0; 5];
            if stream.read_exact(&mut body).is_ok() {
                let _ = stream.write_all(&ok(&String::from_utf8_lossy(&body)));
            }
        }
    });
    address
}

const EXPECTING: &str = "POST /items HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn a_body_that_waits_comes_when_the_server_wants_it() {
    // The second does not know what is expected of it.
    for first in [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], b""] {
        let gateway = start(&file(&[hesitating(first)], "", ""));
        let mut client = Client::of(&gateway);
        client.send(EXPECTING);
        assert_eq!(client.next(true).unwrap().status, 100);
        client.send("hello");
        assert_eq!(client.next(false).unwrap().body, "hello");
        gateway.stop(true);
    }
}

#[test]
fn a_body_that_nobody_wants_is_not_asked_for() {
    let gateway = start(&file(&[hesitating(b"HTTP/1.1 403 X\r\nContent-Length: 2\r\n\r\nno")], "", ""));
    let mut client = Client::of(&gateway);
    client.send(EXPECTING);
    let got = client.next(false).unwrap();
    assert_eq!((got.status, got.body.as_str(), got.field("connection")), (403, "no", Some("close")));
    gateway.stop(true);
}

#[test]
fn a_body_that_is_kept_for_retries_is_asked_for_at_once() {
    let backend = Backend::new(|received| {
        assert_eq!(received.field("expect"), None);
        Does::Answer(ok(&String::from_utf8_lossy(&received.body)))
    });
    let gateway = gateway(&[&backend], "retry: {}");
    let mut client = Client::of(&gateway);
    client.send(&EXPECTING.replace("POST /items", "PUT /items/1"));
    assert_eq!(client.next(true).unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.next(false).unwrap().body, "hello");
    // Who does not wait is not asked.
    let got = client.ask(&format!("{EXPECTING}hello"));
    assert_eq!((got.status, got.body.as_str()), (200, "hello"));
    gateway.stop(true);
}

#[test]
fn other_protocols_pass_once_both_agree() {
    let backend = Backend::new(|received| {
        assert_eq!((received.field("upgrade"), received.field("connection")), (Some("websocket"), Some("upgrade")));
        Does::Echo(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst".to_vec())
    });
    let gateway = gateway(&[&backend], "drain: 1s");
    let mut client = Client::of(&gateway);
    let got = client.ask("GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!((got.status, got.field("upgrade")), (101, Some("websocket")));
    client.send("ping");
    let mut bytes = vec![0; 9];
    // What the server sent with its head may have been read with it.
    let mut got = String::new();
    while !got.ends_with("ping") {
        let count = client.stream.read(&mut bytes).unwrap();
        got.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    gateway.stop(true);
}

#[test]
fn malformed_requests_are_refused_and_the_connection_closed() {
    let backend = Backend::ok("never");
    let gateway = gateway(&[&backend], "");
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /items HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("POST /items HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        ("POST /items HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: a miracle\r\n\r\n", 417),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)), 431),
    ] {
        let mut client = Client::of(&gateway);
        let got = client.ask(bytes);
        assert_eq!((got.status, got.field("connection")), (status, Some("close")), "{bytes:.60}");
        assert!(client.is_closed());
    }
    assert_eq!(backend.requests(), 0);
    gateway.stop(true);
}

#[test]
fn unknown_endpoints_are_told_apart_from_other_methods() {
    let backend = Backend::ok("here");
    let gateway = gateway(&[&backend], "");
    // The connection goes on, but where a body would have to be skipped.
    let mut client = Client::of(&gateway);
    let got = client.get("/nowhere");
    assert_eq!((got.status, got.field("connection")), (404, None));
    assert!(got.field("date").is_some(), "{got:?}");
    assert_eq!(client.ask("HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
    assert_eq!(client.ask("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").status, 405);
    let got = client.ask("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ");
    assert_eq!((got.status, got.field("connection")), (404, Some("close")));
    assert!(client.is_closed());
    gateway.stop(true);
}

#[test]
fn requests_go_as_far_as_they_may() {
    let backend = Backend::new(|received| Does::Answer(ok(received.field("max-forwards").unwrap_or("none"))));
    let api = "endpoints: { GET /: [], OPTIONS /: [], TRACE /: [] }";
    let gateway = start(&file(&[backend.address], "", api));
    let mut client = Client::of(&gateway);
    let mut ask = |method: &str, left: u8| {
        let got = client.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {left}\r\n\r\n"));
        (got.status, got.body)
    };
    assert_eq!(ask("OPTIONS", 2), (200, "1".to_owned()));
    assert_eq!(ask("OPTIONS", 0), (204, String::new()));
    assert_eq!(ask("TRACE", 0).0, 405);
    assert_eq!(ask("GET", 0), (200, "0".to_owned()));
    gateway.stop(true);
}

/// Behind a tunnel to another version of HTTP, requests would come past routes and policies.
#[test]
fn no_other_version_of_http_is_changed_to() {
    let backend = Backend::new(|received| {
        assert_eq!((received.field("upgrade"), received.field("http2-settings")), (None, None));
        Does::Answer(ok("as it was"))
    });
    let gateway = gateway(&[&backend], "");
    for protocol in ["h2c", "H2C", "HTTP/2.0", "TLS/1.3", "websocket, h2c", "websocket\r\nUpgrade: h2c"] {
        let got = Client::of(&gateway).ask(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        ));
        assert_eq!(got.body, "as it was", "{protocol}");
    }
    gateway.stop(true);
}

#[test]
fn slow_heads_and_silent_clients_are_let_go() {
    let backend = Backend::ok("here");
    let gateway = gateway(&[&backend], "limits: { header_timeout: 100ms, idle: 300ms }");
    let mut slow = Client::of(&gateway);
    slow.send("GET / HTTP/1.1\r\nHos");
    assert_eq!(slow.next(false).unwrap().status, 408);
    let mut silent = Client::of(&gateway);
    assert!(silent.is_closed());
    let mut idle = Client::of(&gateway);
    assert_eq!(idle.get("/").status, 200);
    assert!(idle.is_closed());
    gateway.stop(true);
}

#[test]
fn a_client_has_so_many_connections() {
    let backend = Backend::ok("here");
    let gateway = gateway(&[&backend], "limits: { connections_per_client: 2 }");
    let mut first = Client::of(&gateway);
    let mut second = Client::of(&gateway);
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    assert!(Client::of(&gateway).is_closed());
    drop(first);
    eventually("a place is free", || {
        let mut client = Client::of(&gateway);
        client.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok() && client.next(false).is_some()
    });
    gateway.stop(true);
}

#[test]
fn broken_answers_are_no_answers() {
    let backend = Backend::new(|received| match received.head.split(' ').nth(1).unwrap() {
        "/items/half" => Does::AnswerAndClose(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf".to_vec()),
        "/items/both" => {
            Does::Answer(b"HTTP/1.1 200 X\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec())
        }
        _ => Does::Answer(b"nonsense\r\n\r\n".to_vec()),
    });
    let gateway = gateway(&[&backend], "");
    assert_eq!(get(&gateway, "/").status, 502);
    assert_eq!(get(&gateway, "/items/both").status, 502);
    // Its head has gone out already: all that is left is to end it visibly.
    let mut client = Client::of(&gateway);
    client.send("GET /items/half HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.next(false).is_none());
    gateway.stop(true);
}

#[test]
fn bodies_that_stop_are_given_up() {
    let backend = Backend::ok("never");
    for keys in ["", "retry: {}"] {
        let gateway = gateway(&[&backend], &format!("limits: {{ body_timeout: 200ms }}\n{keys}"));
        let mut client = Client::of(&gateway);
        client.send("PUT /items/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
        assert_eq!(client.next(false).unwrap().status, 408);
        assert!(client.is_closed());
        gateway.stop(true);
    }
}

#[test]
fn an_answer_may_come_before_the_body_is_over() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(&answer(403, "", "no"));
        }
    });
    let gateway = start(&file(&[address], "", ""));
    let mut client = Client::of(&gateway);
    client.send("POST /items HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome");
    let got = client.next(false).unwrap();
    assert_eq!((got.status, got.field("connection")), (403, Some("close")));
    gateway.stop(true);
}
