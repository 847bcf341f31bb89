use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use plimsoll_lab::proxy::toxic::Stream;
use plimsoll_lab::proxy::{Change, NewProxy};
use serde_json::json;

use crate::{connect, echo, proxies, proxy, round_trip, toxic, until};

#[test]
fn down_is_refused_and_up_is_the_same_port() {
    let proxies = proxies();
    let address = proxy(&proxies, echo());
    for _ in 0..20 {
        let mut stream = connect(address);
        round_trip(&mut stream, "up").expect("an echo");
        proxies.set().update("edge", Change::enable(false)).expect("down");
        let refused = TcpStream::connect(address).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let end = stream.read(&mut [0; 8]);
        assert!(matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
        let shown = proxies.set().update("edge", Change::enable(true)).expect("up");
        assert_eq!(shown.listen, address.to_string());
    }
}

#[test]
fn latency_comes_in_the_direction_that_it_is_for() {
    for (stream, other) in [(Stream::Upstream, Stream::Downstream), (Stream::Downstream, Stream::Upstream)] {
        let proxies = proxies();
        let mut client = connect(proxy(&proxies, echo()));
        round_trip(&mut client, "before").expect("an echo");
        proxies.set().add("edge", toxic("latency", stream, json!({ "latency": 150 })).into()).expect("a toxic");
        let started = Instant::now();
        round_trip(&mut client, "late").expect("an echo");
        assert!(started.elapsed() >= Duration::from_millis(150), "{stream:?}: {:?}", started.elapsed());
        // Longer than anybody waits: only the other direction still passes.
        proxies.set().remove("edge", "latency").expect("removed");
        let forever = toxic("latency", stream, json!({ "latency": 1e9 }));
        proxies.set().add("edge", forever.into()).expect("a toxic");
        client.write_all(b"never").expect("sent");
        let bytes = || {
            let figures = proxies.set().figures("edge").expect("figures");
            match other {
                Stream::Upstream => figures.up_bytes,
                Stream::Downstream => figures.down_bytes,
            }
        };
        match other {
            Stream::Upstream => until("it arrives at the server", || bytes() == 15),
            Stream::Downstream => until("what came before is counted", || bytes() == 10),
        }
        client.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        assert!(client.read(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        // What waits goes on as soon as it may.
        proxies.set().remove("edge", "latency").expect("removed");
        client.set_read_timeout(Some(crate::LONG)).expect("a timeout");
        let mut word = [0; 5];
        client.read_exact(&mut word).expect("it comes");
        assert_eq!(&word, b"never");
    }
}

#[test]
fn a_peer_is_reset() {
    let proxies = proxies();
    let mut stream = connect(proxy(&proxies, echo()));
    round_trip(&mut stream, "fine").expect("an echo");
    proxies.set().add("edge", toxic("reset_peer", Stream::Upstream, json!({})).into()).expect("a toxic");
    stream.write_all(b"x").expect("sent");
    let error = stream.read(&mut [0; 8]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_limit_and_a_timeout_end_a_connection() {
    let proxies = proxies();
    let address = proxy(&proxies, echo());
    let mut stream = connect(address);
    proxies.set().add("edge", toxic("limit_data", Stream::Downstream, json!({ "bytes": 4 })).into()).expect("a toxic");
    stream.write_all(b"123456").expect("sent");
    let mut got = Vec::new();
    // Closed with bytes unread, which the kernel may tell as a reset once those that passed are read.
    let _ = stream.read_to_end(&mut got);
    assert_eq!(got, b"1234");
    proxies.set().reset().expect("reset");
    let mut stream = connect(address);
    round_trip(&mut stream, "fine").expect("an echo");
    let started = Instant::now();
    proxies.set().add("edge", toxic("timeout", Stream::Downstream, json!({ "timeout": 100 })).into()).expect("a toxic");
    stream.write_all(b"dropped").expect("sent");
    got.clear();
    let _ = stream.read_to_end(&mut got);
    assert_eq!(got, b"");
    assert!(started.elapsed() >= Duration::from_millis(100));
}

/// Refused, reset and silent are three things: here nothing is heard, of connections old and new.
#[test]
fn a_partition_is_silence() {
    for stream in [Stream::Upstream, Stream::Downstream] {
        let proxies = proxies();
        let address = proxy(&proxies, echo());
        let mut old = connect(address);
        round_trip(&mut old, "fine").expect("an echo");
        proxies.set().add("edge", toxic("partition", stream, json!({})).into()).expect("a toxic");
        for _ in 0..3 {
            let error = TcpStream::connect_timeout(&address, Duration::from_millis(200)).expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{stream:?}");
        }
        old.write_all(b"held").expect("the kernel takes it");
        old.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        assert!(old.read(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        // A client that waits longer gets in when it heals: its kernel tries again.
        let waiting = std::thread::spawn(move || {
            let mut new = TcpStream::connect_timeout(&address, crate::LONG).expect("in the end");
            new.set_read_timeout(Some(crate::LONG)).expect("a timeout");
            round_trip(&mut new, "new").expect("an echo");
        });
        std::thread::sleep(Duration::from_millis(50));
        proxies.set().remove("edge", "partition").expect("removed");
        old.set_read_timeout(Some(crate::LONG)).expect("a timeout");
        let mut word = [0; 4];
        old.read_exact(&mut word).expect("it was held, not lost");
        assert_eq!(&word, b"held");
        round_trip(&mut connect(address), "fresh").expect("an echo");
        waiting.join().expect("a client");
        // What filled the queue is nobody's connection.
        let figures = proxies.set().figures("edge").expect("figures");
        assert!(figures.unreached == 0 && figures.accepted <= 6, "{figures:?}");
    }
}

#[test]
fn a_partition_can_be_there_before_the_proxy_and_after_it_was_down() {
    let proxies = proxies();
    let partition = toxic("partition", Stream::Upstream, json!({}));
    let new = NewProxy { toxics: Some(vec![partition]), ..NewProxy::to("edge", &echo().to_string()) };
    let address = proxies.set().create(new).expect("a proxy").listen.parse().expect("an address");
    let silent = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).expect_err("no answer").kind();
    assert_eq!(silent(), ErrorKind::TimedOut);
    proxies.set().update("edge", Change::enable(false)).expect("down");
    assert_eq!(silent(), ErrorKind::ConnectionRefused);
    proxies.set().update("edge", Change::enable(true)).expect("up");
    assert_eq!(silent(), ErrorKind::TimedOut);
    proxies.set().reset().expect("reset");
    round_trip(&mut connect(address), "healed").expect("an echo");
}

#[test]
fn toxicity_takes_in_a_share_of_connections() {
    let proxies = proxies();
    let address = proxy(&proxies, echo());
    let mut half = toxic("reset_peer", Stream::Upstream, json!({}));
    half.toxicity = 0.5;
    proxies.set().add("edge", half.into()).expect("a toxic");
    let survived = (0..100).filter(|_| round_trip(&mut connect(address), "x").is_ok()).count();
    // Five standard errors, of one seed.
    assert!((25..=75).contains(&survived), "{survived}");
}
