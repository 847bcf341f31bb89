//! Several gateways that share a quota in a real Redis.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::support::*;

struct Redis {
    address: SocketAddr,
    child: Option<Child>,
}

impl Redis {
    fn start() -> Redis {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut redis = Redis { address, child: None };
        redis.run();
        redis
    }

    #[track_caller]
    fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.address.port().to_string(), "--save", "", "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("redis-server: install it with ./scripts/packages (Debian's package redis-server)");
        self.child = Some(child);
        eventually("the server answers", || std::net::TcpStream::connect(self.address).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn text(backend: &Backend, redis: SocketAddr, quota: &str) -> String {
    let keys = format!("rate_limit: {{ {quota}, per: user, store: counts }}\nheaders: {{ user: X-User }}\ntimeout: 5s");
    let stores = format!("stores:\n  counts: {{ kind: redis, at: \"{redis}\" }}\n");
    file(&[backend.address], &keys, "") + &stores
}

fn ask(client: &mut Client, user: &str) -> Got {
    client.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"))
}

#[test]
fn two_gateways_admit_one_quota() {
    let mut redis = Redis::start();
    let backend = Backend::ok("ok");
    let text = text(&backend, redis.address, "quota: 60/min, burst: 20");
    let gateways = [start(&text), start(&text)];
    let mut clients = [Client::of(&gateways[0]), Client::of(&gateways[1])];
    let admitted = (0..60).filter(|i| ask(&mut clients[i % 2], "ann").status == 200).count();
    // What comes back while the test runs is one a second.
    assert!((20..=22).contains(&admitted), "{admitted}");
    let refused = ask(&mut clients[0], "ann");
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")));
    assert_eq!(ask(&mut clients[1], "bob").status, 200);
    // With the server gone requests pass; once it is back the quota holds again.
    redis.stop();
    assert!((0..40).all(|i| ask(&mut clients[i % 2], "ann").status == 200));
    redis.run();
    eventually("the quota holds again", || ask(&mut clients[0], "cid").status == 429);
    gateways.into_iter().for_each(|gateway| gateway.stop(true));
}

#[test]
fn two_gateways_under_load_admit_one_quota() {
    let redis = Redis::start();
    let backend = Backend::ok("ok");
    let text = text(&backend, redis.address, "quota: 60/min, burst: 500");
    let gateways = [start(&text), start(&text)];
    let started = std::time::Instant::now();
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let address = gateways[i % 2].addresses()[0];
            std::thread::spawn(move || {
                let mut client = Client::new(address);
                (0..150).filter(|_| ask(&mut client, "ann").status == 200).count()
            })
        })
        .collect();
    let admitted: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    // One comes back each second. Of the 500, 2% may be too many or too few.
    let most = 510 + started.elapsed().as_secs() as usize + 1;
    assert!((490..=most).contains(&admitted), "{admitted}");
    gateways.into_iter().for_each(|gateway| gateway.stop(true));
}

#[test]
fn a_quota_without_its_store_fails_as_the_file_says() {
    let backend = Backend::ok("ok");
    for (quota, status) in [("quota: 1/min", 200), ("quota: 1/min, store_down: closed", 429)] {
        let gateway = start(&text(&backend, nobody(), quota));
        let mut client = Client::of(&gateway);
        for _ in 0..5 {
            assert_eq!(ask(&mut client, "ann").status, status);
        }
        gateway.stop(true);
    }
}

#[test]
fn a_store_that_is_silent_is_down() {
    let backend = Backend::ok("ok");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = start(&text(&backend, silent.local_addr().unwrap(), "quota: 1/min"));
    let mut client = Client::of(&gateway);
    let started = std::time::Instant::now();
    assert_eq!(ask(&mut client, "ann").status, 200);
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
    gateway.stop(true);
}
