//! An instance that is told to end under load.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_lab::process::{Exit, Signal};

use super::http::Connection;
use super::world::{LONG, until, with};

#[test]
fn sigterm_under_load_loses_no_request() {
    with(0, |world| {
        // Without quotas, which a fast machine's clients would go over, and without the bulkhead, which eight writers at
        // once fill on a slow disk.
        let open = ["--no-quota", "--no-bulkhead"];
        let (leaves, stays) = (world.start(&["--leave-ms", "1500", open[0], open[1]]), world.start(&open));
        let (asked, elsewhere, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for client in 0..8 {
                let (asked, elsewhere, over) = (&asked, &elsewhere, &over);
                let addresses = [leaves.address, stays.address];
                scope.spawn(move || load(client, addresses, asked, elsewhere, over));
            }
            until("there is load", || asked.load(Ordering::Relaxed) > 200);
            assert_eq!(elsewhere.load(Ordering::Relaxed), 0);
            leaves.process.signal(Signal::Terminate).expect("told");
            until("readiness fails first", || leaves.get("/health/readiness").status == 503);
            assert_eq!(leaves.get("/health/readiness").json()["status"], "leaving");
            // It answers on, and asks to be left.
            assert_eq!(leaves.get("/notes").expect(200).header("connection"), "close");
            assert_eq!(leaves.process.wait(LONG), Some(Exit::Code(0)), "{}", leaves.process.last_words(20));
            let before = elsewhere.load(Ordering::Relaxed);
            until("the other one has the load", || elsewhere.load(Ordering::Relaxed) > before + 200);
            over.store(true, Ordering::Relaxed);
        });
        assert!(leaves.process.last_words(3).contains("all requests are answered"));
        println!("{} requests, none lost", asked.load(Ordering::Relaxed));
    });
}

/// A client with a balancer's manners: a connection that it is asked to leave it leaves, for an instance that is ready.
/// Every request must be answered, and every note be made.
fn load(client: u64, addresses: [SocketAddr; 2], asked: &AtomicU64, elsewhere: &AtomicU64, over: &AtomicBool) {
    let mut at = 0;
    let mut connection = Connection::open(addresses[at]).expect("a connection");
    while !over.load(Ordering::Relaxed) {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        let (method, status) = if (client + number).is_multiple_of(4) { ("POST", 201) } else { ("GET", 200) };
        let answer = connection.ask(method, "/notes", &[], "").unwrap_or_else(|error| panic!("lost: {error}"));
        assert_eq!(answer.status, status, "{answer:?}");
        elsewhere.fetch_add(at as u64, Ordering::Relaxed);
        if answer.header("connection") == "close" {
            at = 1;
            connection = Connection::open(addresses[at]).expect("a connection");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
