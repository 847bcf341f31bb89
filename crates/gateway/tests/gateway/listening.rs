//! Addresses that come and go, and a gateway that takes another's place.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use plimsoll_gateway::Gateway;

use crate::support::*;

/// A port that nobody has, as far as can be known.
fn free() -> SocketAddr {
    nobody()
}

/// As [`free`], below the ports that the kernel gives to clients: one of those would keep others from all addresses.
fn apart() -> SocketAddr {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let mut ports = (first..32_000).chain(20_000..first).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    ports.find(|&address| TcpListener::bind(address).is_ok()).expect("a free port")
}

/// Clients that make a connection for each request. What failed is told by what was seen.
struct Newcomers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
    answered: Arc<AtomicUsize>,
}

impl Newcomers {
    fn start(address: SocketAddr, clients: usize) -> Newcomers {
        let (stop, answered): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let threads = (0..clients).map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match ask(address) {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                        Err(why) => failed.push(why),
                    }
                }
                failed
            })
        });
        let threads = threads.collect();
        Newcomers { stop, threads, answered }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    fn more(&self, count: usize) {
        let before = self.answered();
        eventually("requests are answered", || self.answered() > before + count);
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let failed: Vec<String> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    }
}

fn ask(address: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).map_err(|error| format!("connecting: {error}"))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").map_err(|error| format!("sending: {error}"))?;
    let got = Client::from(stream).next(false).ok_or("no answer")?;
    if got.status == 200 { Ok(()) } else { Err(got.head) }
}

#[test]
fn addresses_come_and_go() {
    let backend = Backend::ok("ok");
    let (first, second, third) = (free(), free(), free());
    let text = |listen: &[SocketAddr]| {
        let listen: Vec<String> = listen.iter().map(|address| format!("\"{address}\"")).collect();
        file(&[backend.address], &format!("listen: [{}]\ncores: 2", listen.join(", ")), "")
    };
    let gateway = start(&text(&[first, second]));
    let (mut stays, mut goes) = (Client::new(second), Client::new(first));
    assert_eq!((stays.get("/").status, goes.get("/").status), (200, 200));
    gateway.reload(plan(&text(&[second, third]))).unwrap();
    assert_eq!(gateway.addresses(), [second, third]);
    assert_eq!(ask(third), Ok(()));
    // The connection to the old address is closed when it rests, and the address with it.
    assert!(goes.is_closed());
    eventually("nobody listens there", || TcpStream::connect(first).is_err());
    assert_eq!(stays.get("/").status, 200);
    // What cannot be listened on changes nothing.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = gateway.reload(plan(&text(&[first, taken.local_addr().unwrap()]))).unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
    assert_eq!(gateway.addresses(), [second, third]);
    assert!(TcpStream::connect(first).is_err());
    assert_eq!(stays.get("/").status, 200);
    gateway.stop(true);
}

#[test]
fn a_request_under_way_ends_when_its_address_goes() {
    let go = Arc::new(AtomicBool::new(false));
    let may = go.clone();
    let backend = Backend::new(move |_| {
        eventually("the test goes on", || may.load(Ordering::SeqCst));
        Does::Answer(ok("whole"))
    });
    let (old, new) = (free(), free());
    let text = |listen: SocketAddr| file(&[backend.address], &format!("listen: [\"{listen}\"]"), "");
    let gateway = start(&text(old));
    let mut client = Client::new(old);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || backend.connections.load(Ordering::SeqCst) == 1);
    gateway.reload(plan(&text(new))).unwrap();
    eventually("nobody listens there", || TcpStream::connect(old).is_err());
    go.store(true, Ordering::SeqCst);
    let got = client.next(false).unwrap();
    assert_eq!((got.body.as_str(), got.field("connection")), ("whole", Some("close")));
    gateway.stop(true);
}

#[test]
fn one_address_gives_way_to_all_of_its_port() {
    let backend = Backend::ok("ok");
    let address = apart();
    let all: SocketAddr = ([0, 0, 0, 0], address.port()).into();
    let text = |listen: SocketAddr| file(&[backend.address], &format!("listen: [\"{listen}\"]"), "");
    let gateway = start(&text(address));
    let load = Newcomers::start(address, 2);
    load.more(10);
    for at in [all, address, all] {
        gateway.reload(plan(&text(at))).unwrap();
        assert_eq!(gateway.addresses(), [at]);
        load.more(10);
    }
    load.end();
    gateway.stop(true);
}

#[test]
fn operators_find_the_new_address() {
    let backend = Backend::ok("ok");
    let (first, second) = (free(), free());
    let text = |keys: &str| file(&[backend.address], keys, "");
    let gateway = start(&text(&format!("admin: {first}")));
    let health = |address: SocketAddr| Client::new(address).get("/health").status;
    assert_eq!(health(first), 200);
    gateway.reload(plan(&text(&format!("admin: {second}")))).unwrap();
    assert_eq!((gateway.admin(), health(second)), (Some(second), 200));
    eventually("nobody listens at the first", || TcpStream::connect(first).is_err());
    gateway.reload(plan(&text(""))).unwrap();
    assert_eq!(gateway.admin(), None);
    eventually("nobody listens at the second", || TcpStream::connect(second).is_err());
    gateway.reload(plan(&text(&format!("admin: {first}")))).unwrap();
    assert_eq!(health(first), 200);
    gateway.stop(true);
}

#[test]
fn another_takes_over_and_nobody_is_refused() {
    let backend = Backend::ok("ok");
    let (address, admin) = (free(), free());
    let keys = format!("listen: [\"{address}\"]\nadmin: {admin}\ncores: 2\ndrain: 2s");
    let text = file(&[backend.address], &keys, "");
    let mut runs = start(&text);
    let load = Newcomers::start(address, 4);
    for _ in 0..3 {
        load.more(20);
        assert!(Gateway::start(plan(&text), Path::new(".")).is_err(), "only by request");
        let next = Gateway::take_over(plan(&text), Path::new(".")).unwrap();
        load.more(20);
        std::mem::replace(&mut runs, next).stop(false);
        load.more(20);
        assert_eq!(Client::new(admin).get("/ready").status, 200);
    }
    load.end();
    runs.stop(true);
}
