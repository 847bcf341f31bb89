//! Instances by name, with a name server that does as it is told.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::support::*;

/// What a name server says of `api.test`, which it knows as `alias.test`.
#[derive(Clone, Default)]
struct Zone {
    addresses: Vec<IpAddr>,
    /// Of the alias and of the addresses.
    ttl: (u32, u32),
    fails: bool,
}

struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    questions: Arc<AtomicUsize>,
    by_tcp: Arc<AtomicUsize>,
}

impl NameServer {
    fn start(addresses: &[&str], ttl: (u32, u32)) -> NameServer {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let server = NameServer { address, zone: Arc::default(), questions: Arc::default(), by_tcp: Arc::default() };
        server.says(addresses, ttl);
        let (zone, questions) = (server.zone.clone(), server.questions.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 1500];
            while let Ok((count, from)) = udp.recv_from(&mut bytes) {
                questions.fetch_add(1, Ordering::SeqCst);
                let zone = zone.lock().unwrap().clone();
                // Another's answer, and one to another question: both are nobody's here.
                let mut stray =
                    answer(&bytes[..count], &Zone { addresses: vec!["127.0.0.9".parse().unwrap()], ..zone });
                stray[0] ^= 1;
                udp.send_to(&stray, from).unwrap();
                udp.send_to(b"nonsense", from).unwrap();
                let mut whole = answer(&bytes[..count], &zone);
                if whole.len() > 512 {
                    whole = truncated(&bytes[..count]);
                }
                udp.send_to(&whole, from).unwrap();
            }
        });
        let (zone, by_tcp) = (server.zone.clone(), server.by_tcp.clone());
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                by_tcp.fetch_add(1, Ordering::SeqCst);
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                let answer = answer(&question, &zone.lock().unwrap());
                stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).unwrap();
            }
        });
        server
    }

    fn says(&self, addresses: &[&str], ttl: (u32, u32)) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        *self.zone.lock().unwrap() = Zone { addresses, ttl, fails: false };
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

fn answer(question: &[u8], zone: &Zone) -> Vec<u8> {
    let asked = Packet::parse(question).unwrap();
    let mut reply = Packet::new_reply(asked.id());
    let question = asked.questions[0].clone();
    let (api, alias) = (Name::new("api.test").unwrap(), Name::new("alias.test").unwrap());
    if zone.fails {
        *reply.rcode_mut() = RCODE::ServerFailure;
    } else if question.qname != api {
        *reply.rcode_mut() = RCODE::NameError;
    } else {
        reply.answers.push(ResourceRecord::new(api, CLASS::IN, zone.ttl.0, RData::CNAME(CNAME(alias.clone()))));
        for address in &zone.addresses {
            let data = match address {
                IpAddr::V4(v4) if question.qtype == QTYPE::TYPE(TYPE::A) => RData::A(A::from(*v4)),
                IpAddr::V6(v6) if question.qtype == QTYPE::TYPE(TYPE::AAAA) => RData::AAAA(AAAA::from(*v6)),
                _ => continue,
            };
            reply.answers.push(ResourceRecord::new(alias.clone(), CLASS::IN, zone.ttl.1, data));
        }
    }
    reply.questions.push(question);
    reply.build_bytes_vec_compressed().unwrap()
}

fn truncated(question: &[u8]) -> Vec<u8> {
    let asked = Packet::parse(question).unwrap();
    let mut reply = Packet::new_reply(asked.id());
    reply.set_flags(PacketFlag::TRUNCATION);
    reply.questions = asked.questions.clone();
    reply.build_bytes_vec().unwrap()
}

/// Two backends of one port.
fn pair() -> (Backend, Backend) {
    loop {
        let first = Backend::ok("first");
        let second = SocketAddr::new("127.0.0.2".parse().unwrap(), first.address.port());
        if let Ok(listener) = TcpListener::bind(second) {
            return (first, Backend::on(listener, |_| Does::Answer(ok("second"))));
        }
    }
}

fn text(server: &NameServer, name: &str, port: u16, every: &str) -> String {
    let at = format!("at: {{ dns: \"{name}:{port}\", server: \"{}\", every: {every} }}", server.address);
    file(&[], "", "").replace("at: []", &at)
}

#[test]
fn a_name_is_looked_up_again_when_its_time_is_over() {
    let (first, second) = pair();
    let server = NameServer::start(&["127.0.0.1"], (300, 1));
    let gateway = start(&text(&server, "api.test", first.address.port(), "1h"));
    let mut client = Client::of(&gateway);
    assert_eq!(client.get("/").body, "first");
    server.says(&["127.0.0.2"], (1, 300));
    eventually("the second has taken over", || client.get("/").body == "second");
    assert_eq!(second.requests(), 1);
    // What nobody can say stays as it was, and is said once.
    server.zone.lock().unwrap().fails = true;
    let mut notices = Vec::new();
    eventually("it is said", || {
        notices.extend(gateway.notices());
        notices.iter().any(|notice| notice.ends_with("the server says ServerFailure; its instances stay as they are"))
    });
    assert_eq!(client.get("/").body, "second");
    gateway.stop(true);
}

#[test]
fn a_time_that_is_long_does_not_hold_for_longer_than_the_file_says() {
    let (first, _second) = pair();
    let server = NameServer::start(&["127.0.0.1"], (86_400, 86_400));
    let gateway = start(&text(&server, "api.test", first.address.port(), "50ms"));
    let mut client = Client::of(&gateway);
    assert_eq!(client.get("/").body, "first");
    server.says(&["127.0.0.2"], (86_400, 86_400));
    eventually("the second has taken over", || client.get("/").body == "second");
    gateway.stop(true);
}

#[test]
fn a_time_of_nothing_does_not_make_the_gateway_ask_all_the_time() {
    let backend = Backend::ok("ok");
    let server = NameServer::start(&["127.0.0.1"], (0, 0));
    let gateway = start(&text(&server, "api.test", backend.address.port(), "1h"));
    assert_eq!(get(&gateway, "/").status, 200);
    eventually("it was asked again", || server.questions() > 4);
    let (before, started) = (server.questions(), std::time::Instant::now());
    pause(2_000);
    // Two questions a look, a look a second.
    let most = 2 * (started.elapsed().as_secs() as usize + 1);
    assert!(server.questions() - before <= most, "{} questions", server.questions() - before);
    gateway.stop(true);
}

#[test]
fn answers_that_are_long_come_by_tcp() {
    let backend = Backend::ok("ok");
    let many: Vec<String> = (1..=100).map(|i| format!("127.0.1.{i}")).chain(["127.0.0.1".to_owned()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let server = NameServer::start(&many, (60, 60));
    let text = text(&server, "API.test", backend.address.port(), "1h")
        .replace("upstream: api", "upstream: api\n    admin: 127.0.0.1:0");
    let gateway = start(&text);
    assert!(server.by_tcp.load(Ordering::SeqCst) >= 1);
    let listed = Client::new(gateway.admin().unwrap()).get("/upstreams").body;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["instances"].as_array().unwrap().len(), 101);
    gateway.stop(true);
}

#[test]
fn names_that_nobody_knows_have_no_instances() {
    let server = NameServer::start(&["127.0.0.1"], (60, 60));
    let gateway = start(&text(&server, "other.test", 80, "50ms"));
    assert_eq!(get(&gateway, "/").status, 503);
    eventually("it is said", || {
        gateway.notices().iter().any(|notice| notice.contains("other.test: the name server knows no such name"))
    });
    // The hosts file goes before any server.
    let server = NameServer::start(&["127.0.0.1"], (60, 60));
    let here = start(&text(&server, "localhost", nobody().port(), "50ms"));
    assert_eq!(get(&here, "/").status, 502, "there are instances, at which nobody listens");
    pause(200);
    assert_eq!(server.questions(), 0);
    here.stop(true);
    gateway.stop(true);
}
