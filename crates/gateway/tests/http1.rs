//! HTTP/1.1 as raw bytes: what is read, and what is refused because two programs might read it
//! differently. Each line of the smuggling tables is an attack on a proxy that somebody has published.

use plimsoll_gateway::http1::request::room;
use plimsoll_gateway::http1::{Body, Framing, Malformed, Refused, Request, Response, head};
use proptest::prelude::*;

/// What a request of these bytes is, as one line.
fn request(bytes: &[u8]) -> Result<String, Refused> {
    let end = head::end(bytes, &mut 0, 8192)?.ok_or(Refused::Malformed(Malformed::Head))?;
    let mut room = room();
    let request = Request::parse(&bytes[..end], &mut room, 100)?;
    let mut line = format!(
        "{} {} host={} {:?}",
        request.method,
        request.target,
        String::from_utf8_lossy(request.host),
        request.framing
    );
    for (is, word) in [
        (request.old, "old"),
        (!request.keep_alive, "close"),
        (request.expects_continue, "expects"),
        (request.upgrade.is_some(), "upgrade"),
        (request.te_trailers, "trailers"),
    ] {
        if is {
            line.push(' ');
            line.push_str(word);
        }
    }
    Ok(line)
}

fn response(bytes: &[u8], method: &str) -> Result<String, Refused> {
    let end = head::end(bytes, &mut 0, 8192)?.ok_or(Refused::Malformed(Malformed::Head))?;
    let mut room = room();
    let response = Response::parse(&bytes[..end], &mut room, method)?;
    let close = if response.keep_alive { "" } else { " close" };
    Ok(format!("{} {} {:?}{close}", response.status, response.reason, response.framing))
}

#[test]
fn requests_are_read() {
    for (bytes, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / host=a None"),
        ("GET /a?b=c HTTP/1.1\r\nhost:a:80\r\n\r\n", "GET /a?b=c host=a:80 None"),
        ("GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x host=b:81 None"),
        ("GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET / host=b None"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * host=a None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / host=a None close"),
        ("GET / HTTP/1.0\r\n\r\n", "GET / host= None old close"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / host= None old"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "POST / host=a Length(5)"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "POST / host=a Chunked"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", "POST / host=a Chunked"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            "POST / host=a Length(5) expects",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / host=a None upgrade",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET / host=a None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n", "GET / host=a None trailers"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET / host=[::1]:80 None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX:\t b \t\r\n\r\n", "GET / host=a None"),
        // Not tunnels: another version of HTTP, several protocols, none.
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "GET / host=a None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n", "GET / host=a None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", "GET / host=a None"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade:\r\n\r\n", "GET / host=a None"),
        // Names that only look alike say nothing here, and are not passed on.
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", "POST / host=a None"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n", "POST / host=a None"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: chunked\r\n\r\n", "POST / host=a None"),
        // White space around a value means nothing (RFC 9110, section 5.5).
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked \t\r\n\r\n", "POST / host=a Chunked"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t5\t\r\n\r\n", "POST / host=a Length(5)"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n", "POST / host=a Chunked"),
    ] {
        assert_eq!(request(bytes.as_bytes()).as_deref(), Ok(expected), "{bytes}");
    }
}

#[test]
fn what_smuggles_requests_is_refused() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    use Malformed::*;
    for (fields, expected) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", BothLengths),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", BothLengths),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", ContentLength),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", ContentLength),
        ("Content-Length: 5, 5\r\n", ContentLength),
        ("Content-Length: +5\r\n", ContentLength),
        ("Content-Length: -5\r\n", ContentLength),
        ("Content-Length: 0x5\r\n", ContentLength),
        ("Content-Length: 5 5\r\n", ContentLength),
        ("Content-Length: \r\n", ContentLength),
        ("Content-Length: 99999999999999999999\r\n", ContentLength),
        ("Transfer-Encoding: gzip, chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked, gzip\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", TransferEncoding),
        ("Transfer-Encoding: identity\r\n", TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", TransferEncoding),
        ("Transfer-Encoding: \"chunked\"\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked;q=1\r\n", TransferEncoding),
        ("Transfer-Encoding:\r\n", TransferEncoding),
        ("Transfer-Encoding: , chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked,\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked, identity\r\n", TransferEncoding),
        ("Transfer-Encoding: identity, chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n", TransferEncoding),
        ("Transfer-Encoding: 'chunked'\r\n", TransferEncoding),
        ("Transfer-Encoding: chunk\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: ch\u{fc}nked\r\n", TransferEncoding),
        ("Transfer-Encoding: \u{a0}chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chun\u{212a}ed\r\n", TransferEncoding),
        ("Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n", ContentLength),
        ("Content-Length: 5\r\nContent-Length:\r\n", ContentLength),
        ("Content-Length: 5,\r\n", ContentLength),
        ("Content-Length: 5;\r\n", ContentLength),
        ("Content-Length: 5.0\r\n", ContentLength),
        ("Content-Length: 5e0\r\n", ContentLength),
        ("Content-Length: 0_5\r\n", ContentLength),
        ("Content-Length: \"5\"\r\n", ContentLength),
        ("Content-Length: \u{665}\r\n", ContentLength),
        ("Content-Length: 5\u{a0}\r\n", ContentLength),
        ("Content-Length: 18446744073709551621\r\n", ContentLength),
        ("Transfer Encoding: chunked\r\n", Head),
        ("Transfer-Encoding\t: chunked\r\n", Head),
        ("Transfer-Encoding:\r\n chunked\r\n", Head),
        ("Transfer-Encoding:\n chunked\r\n", BareLineFeed),
        ("X: a\nTransfer-Encoding: chunked\r\n", BareLineFeed),
        ("X: a\r\rTransfer-Encoding: chunked\r\n", Head),
        ("X: a\r\r\nTransfer-Encoding: chunked\r\n", Head),
        ("Content-Length: 5\r\r\n", Head),
        ("X: a\r\n\u{b}Transfer-Encoding: chunked\r\n", Head),
        ("Content-Length\0: 5\r\n", Head),
        ("Content-Length: 5\0\r\n", Head),
        ("Content-Length: \0 5\r\n", Head),
        ("Host : b\r\n", Head),
        (" Host: b\r\n", Head),
        ("Transfer-Encoding : chunked\r\n", Head),
        ("Content-Length : 5\r\n", Head),
        (" Transfer-Encoding: chunked\r\n", Head),
        ("X: a\r\n Transfer-Encoding: chunked\r\n", Head),
        ("X: a\r\n\tb\r\n", Head),
        ("Transfer-Encoding\r\n: chunked\r\n", Head),
        ("Transfer\u{b}Encoding: chunked\r\n", Head),
        ("X: a\rTransfer-Encoding: chunked\r\n", Head),
        ("X: a\0b\r\n", Head),
        ("X: a\u{7f}b\r\n", Head),
        (": a\r\n", Head),
        ("X\r\n", Head),
        ("Host: b\r\n", Host),
        ("Expect: 200-ok\r\n", Expect),
    ] {
        let refused = request(post(fields).as_bytes());
        // A blank line within the head ends it, and what is before it is judged alone.
        assert!(matches!(refused, Err(Refused::Malformed(found)) if found == expected), "{fields:?}: {refused:?}");
    }
    for (bytes, expected) in [
        ("GET / HTTP/1.1\nHost: a\n\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: b@a\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Host),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Head),
        ("GET /\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Version),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", Version),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http://a b/ HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET \\\\a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET\r/ HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\rHost: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\t\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/01.1\r\nHost: a\r\n\r\n", Version),
        ("GET / HTTP /1.1\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("G\u{c8}T / HTTP/1.1\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Version),
        ("GET /\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a\"\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", Host),
        ("GET http://b/ HTTP/1.1\r\n\r\n", Host),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncoding),
    ] {
        let refused = request(bytes.as_bytes());
        // Which fault of a line is seen first is the parser's affair; refused it is in any case.
        let is = |found| found == expected || matches!((found, expected), (Head, _) | (Version, Head));
        assert!(matches!(refused, Err(Refused::Malformed(found)) if is(found)), "{bytes:?}: {refused:?}");
    }
}

/// Every byte before, within, and after the name, the colon and the value of what says where a body ends: either
/// the head is refused, or it says what it said before, or the byte has made another name of the name.
#[test]
fn no_byte_hides_where_a_body_ends() {
    for (name, value, means) in
        [("Transfer-Encoding", "chunked", Framing::Chunked), ("Content-Length", "5", Framing::Length(5))]
    {
        let line = format!("{name}: {value}");
        for at in 0..=line.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec();
                bytes.extend_from_slice(&line.as_bytes()[..at]);
                bytes.push(byte);
                bytes.extend_from_slice(&line.as_bytes()[at..]);
                bytes.extend_from_slice(b"\r\n\r\n");
                let Ok(read) = request(&bytes) else { continue };
                let in_name = at <= name.len();
                let shown = format!("{:?}: {read}", String::from_utf8_lossy(&bytes));
                if in_name {
                    // A colon ends another name sooner.
                    let token = byte.is_ascii_alphanumeric() || b":!#$%&'*+-.^_`|~".contains(&byte);
                    assert!(token && read.ends_with("None"), "{shown}");
                } else if byte == b' ' || byte == b'\t' {
                    assert!(read.ends_with(&format!("{means:?}")), "{shown}");
                } else {
                    let other = byte.is_ascii_digit() && means == Framing::Length(5);
                    assert!(other && read.contains("Length("), "{shown}");
                }
            }
        }
    }
}

#[test]
fn too_many_fields_are_refused() {
    let head = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(count));
    assert!(request(head(99).as_bytes()).is_ok());
    assert_eq!(request(head(100).as_bytes()), Err(Refused::TooManyFields));
}

#[test]
fn answers_are_read() {
    for (method, bytes, expected) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 OK Length(5)"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 OK Chunked"),
        ("GET", "HTTP/1.1 200 OK\r\n\r\n", "200 OK UntilClose close"),
        ("GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200  Length(0)"),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "200 OK Length(5) close"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", "200 OK Length(5) close"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 OK None"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 OK None"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "204 No Content None"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 Not Modified None"),
        ("GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "101 Switching Protocols None"),
    ] {
        assert_eq!(response(bytes.as_bytes(), method).as_deref(), Ok(expected), "{method} {bytes}");
    }
}

#[test]
fn answers_that_could_be_read_otherwise_are_refused() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: , chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: a\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        " HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(response(bytes.as_bytes(), "GET").is_err(), "{bytes:?}");
    }
}

/// A request that is well-formed but for one byte.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let bytes = b"POST /a?b HTTP/1.1\r\nHost: a\r\nX-Thing: some value\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    (0..bytes.len(), any::<u8>()).prop_map(move |(at, byte)| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes panic, and whatever is read as a request has one framing that its own bytes show.
    #[test]
    fn one_changed_byte_is_read_once_or_refused(bytes in nearly()) {
        if let Ok(line) = request(&bytes) {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            prop_assert_eq!(line.contains("Chunked"), text.contains("\r\ntransfer-encoding:"), "{}", line);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = request(&bytes);
        let _ = response(&bytes, "GET");
        let _ = Body::new(Framing::Chunked, 50).pass(&bytes);
    }

    /// Chunks of any sizes, cut anywhere, give their content and leave what follows.
    #[test]
    fn chunks_survive_any_cut(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6),
        cuts in proptest::collection::vec(1..20usize, 1..40),
    ) {
        let mut bytes = Vec::new();
        for piece in &pieces {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\nGET / HTTP/1.1\r\n");
        let mut body = Body::new(Framing::Chunked, 50);
        let (mut at, mut content) = (0, Vec::new());
        for cut in cuts.iter().cycle() {
            if body.is_over() {
                break;
            }
            let part = &bytes[at..(at + cut).min(bytes.len())];
            at += body.unwrap(part, |range| content.extend_from_slice(&part[range])).unwrap();
        }
        prop_assert_eq!(content, pieces.concat());
        prop_assert_eq!(&bytes[at..], b"GET / HTTP/1.1\r\n");
    }
}
