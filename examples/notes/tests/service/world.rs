//! A primary, replicas, Redis, and instances of the service.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_lab::postgres::{self, Cluster};
use plimsoll_lab::process::{Launch, Port, Process, Spec, Supervisor, child, keep};
use plimsoll_lab::redis::{self, Redis};

use super::http::{Answer, Connection};

/// How long anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// This program again, as the keeper of the processes that a test starts: the one test called `keeper`, which finds
/// what it is asked for among its arguments.
const KEEPER: [&str; 4] = ["--exact", "world::keeper", "--nocapture", "--"];

#[test]
fn keeper() {
    let mut arguments = std::env::args().skip(1 + KEEPER.len());
    let error = match (arguments.next().as_deref(), arguments.next()) {
        (Some("run"), Some(base)) => match keep(base.as_ref(), &KEEPER) {
            Ok(()) => return,
            Err(error) => error,
        },
        (Some("child"), Some(first)) => child(std::iter::once(first).chain(arguments)),
        // As one of the tests: there is nothing to keep.
        _ => return,
    };
    eprintln!("error: {error}");
    std::process::exit(127);
}

/// Tests that start servers do so one after another: two cores are few.
static ONE: Mutex<()> = Mutex::new(());

/// What there is.
pub struct World {
    supervisor: Arc<Supervisor>,
    pub cluster: Cluster,
    pub redis: Redis,
    started: usize,
}

/// An instance.
pub struct Notes {
    pub process: Process,
    pub address: SocketAddr,
    _port: Port,
}

/// Starts stores, has the test done, and ends everything.
pub fn with(replicas: usize, test: impl FnOnce(&mut World)) {
    let _turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("notes");
    std::fs::create_dir_all(&base).expect("a folder");
    let launch = Launch { program: "/proc/self/exe".into(), arguments: KEEPER.map(str::to_owned).to_vec() };
    let supervisor = Arc::new(Supervisor::start(&launch, &base).expect("a keeper"));
    let options = postgres::Options { name: "db".to_owned(), replicas, ..postgres::Options::default() };
    let cluster = Cluster::start(&supervisor, options).unwrap_or_else(|error| panic!("{error}"));
    let redis = Redis::start(&supervisor, redis::Options { name: "sessions".to_owned(), ..redis::Options::default() });
    let redis = redis.unwrap_or_else(|error| panic!("{error}"));
    test(&mut World { supervisor, cluster, redis, started: 0 });
}

impl World {
    /// Starts an instance as `plimsoll run` does, and waits for nothing.
    pub fn launch(&mut self, arguments: &[&str]) -> Notes {
        self.started += 1;
        let (number, port) = (self.started.to_string(), Port::free().expect("a port"));
        let address = (Ipv4Addr::LOCALHOST, port.number()).into();
        let nodes = (0..self.cluster.count()).map(|node| self.cluster.address(node).to_string());
        let environment = BTreeMap::from([
            ("PLIMSOLL_DB".to_owned(), Some(nodes.collect::<Vec<_>>().join(","))),
            ("PLIMSOLL_SESSIONS".to_owned(), Some(self.redis.address().to_string())),
        ]);
        let port_argument = port.number().to_string();
        let own = ["--port", &port_argument, "--instance", &number];
        let process = self.supervisor.spawn(Spec {
            name: format!("notes-{number}"),
            program: env!("CARGO_BIN_EXE_notes").to_owned(),
            arguments: own.iter().chain(arguments).map(|argument| (*argument).to_owned()).collect(),
            environment,
            ..Spec::default()
        });
        Notes { process: process.expect("a process"), address, _port: port }
    }

    /// Starts an instance, and waits until it is ready and all nodes are seen.
    pub fn start(&mut self, arguments: &[&str]) -> Notes {
        let notes = self.launch(arguments);
        notes.until_ready(self.cluster.count());
        notes
    }

    /// Waits until the replicas have all that was written.
    pub fn catch_up(&self) {
        for node in (0..self.cluster.count()).filter(|node| *node != self.cluster.primary()) {
            self.cluster.catch_up(node).expect("caught up");
        }
    }
}

impl Notes {
    /// Waits until the instance is ready, and so many nodes answer.
    #[track_caller]
    pub fn until_ready(&self, nodes: usize) {
        until("the instance is ready", || {
            let answer = self.try_ask("GET", "/health/readiness", &[], "");
            assert!(self.process.exit().is_none(), "{}", self.process.last_words(20));
            answer.is_ok_and(|answer| answer.status == 200 && answer.json()["answering"] == nodes)
        });
    }

    pub fn try_ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
        Connection::open(self.address)?.ask(method, path, headers, body)
    }

    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = self.try_ask(method, path, headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.process.last_words(20)))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    /// Makes a note.
    #[track_caller]
    pub fn note(&self, title: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("POST", "/notes", headers, &format!(r#"{{"title": "{title}"}}"#)).expect(201)
    }

    /// A sample of its metrics, by its whole name with labels.
    pub fn sample(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").expect(200).body;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
