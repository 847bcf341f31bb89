//! A gateway that runs as a process of its own, what it takes of the machine, and a client that asks it all the while.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::Client;

/// `plimsoll gateway`, killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    lines: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Running {
    pub(crate) fn start(text: &str) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(["gateway", "system.yaml"]);
        Running::spawn(text, command)
    }

    /// One whose process gets so many open files, and may raise that to so many.
    pub(crate) fn with_files(text: &str, soft: u64, hard: u64) -> Running {
        let mut command = Command::new("sh");
        let script = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" gateway system.yaml");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_plimsoll")]);
        Running::spawn(text, command)
    }

    fn spawn(text: &str, mut command: Command) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/tests/gateway/data");
        for name in ["test.pem", "test.key"] {
            std::fs::copy(format!("{data}/{name}"), folder.path().join(name)).expect("a certificate");
        }
        std::fs::write(folder.path().join("system.yaml"), text).expect("a file");
        let mut child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let errors = BufReader::new(child.stderr.take().expect("standard error"));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let said = lines.clone();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut running = Running { child, address: ([0, 0, 0, 0], 0).into(), admin: None, lines, folder };
        let has_admin = text.contains("admin:");
        running.until("it listens", |lines| {
            lines.iter().any(|line| line.contains(if has_admin { "is administered on" } else { "listens on" }))
        });
        let after = |what: &str| {
            let lines = running.lines();
            lines.iter().find_map(|line| line.split_once(what)?.1.parse().ok())
        };
        let (address, admin) = (after("listens on "), after("is administered on "));
        running.address = address.expect("an address");
        running.admin = admin;
        running
    }

    /// What it has said on standard error.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for something that it says.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&[String]) -> bool) {
        within(Duration::from_secs(30), what, || {
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none() || holds(&self.lines()), "it ended, {ended:?}: {:?}", self.lines());
            holds(&self.lines())
        });
    }

    pub(crate) fn write(&self, text: &str) {
        // In one step, since it may read at any moment.
        let (new, file) = (self.folder.path().join("new.yaml"), self.folder.path().join("system.yaml"));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, file).expect("a file");
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Waits until it ends of itself, with exit code 0.
    pub(crate) fn ends(&mut self) {
        within(Duration::from_secs(60), "it ends", || self.child.try_wait().expect("its state").is_some());
        let status = self.child.wait().expect("its state");
        assert!(status.success(), "{status}: {:?}", self.lines());
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    /// One of its figures, of those that stand alone in a line.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let page = Client::new(self.admin.expect("`admin` in its file")).get("/metrics").body;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{page}"))
    }

    /// The memory that it has in use, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that a process had since this began, looked at every few milliseconds.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    before: u64,
}

impl Watch {
    pub(crate) fn start(running: &Running) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (stop.clone(), format!("/proc/{}/status", running.child.id()));
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !stopped.load(Ordering::SeqCst) {
                let status = std::fs::read_to_string(&path).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
                let now = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
                most = most.max(now.unwrap_or(0) << 10);
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        Watch { stop, thread, before: running.memory() }
    }

    /// The peak, in bytes.
    pub(crate) fn peak(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the watch")
    }

    /// What the peak had on top of the beginning, in bytes.
    pub(crate) fn grown(self) -> u64 {
        let before = self.before;
        self.peak().saturating_sub(before)
    }
}

/// Somebody who asks all the while, on a connection that stays and on new ones, from an address of their own.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    answered: Arc<AtomicUsize>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Probe {
    pub(crate) fn start(address: SocketAddr) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, wrong): (Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) = Default::default();
        let (stopped, counted, noted) = (stop.clone(), answered.clone(), wrong.clone());
        let thread = std::thread::spawn(move || {
            let mut kept = None;
            while !stopped.load(Ordering::SeqCst) {
                for which in ["kept", "new"] {
                    let client = match which {
                        "kept" => kept.take(),
                        _ => None,
                    };
                    let mut client: Client = client.unwrap_or_else(|| connect_from(address, PROBE).into());
                    client.send("GET / HTTP/1.1\r\nHost: probe\r\n\r\n");
                    match client.next(false) {
                        Some(got) if got.status == 200 => drop(counted.fetch_add(1, Ordering::SeqCst)),
                        got => noted.lock().expect("the list").push(format!("{which}: {got:?}")),
                    }
                    if which == "kept" {
                        kept = Some(client);
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Probe { stop, thread: Some(thread), answered, wrong }
    }

    /// Waits for ten more answers.
    pub(crate) fn is_answered(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        within(Duration::from_secs(60), "others are answered", || {
            let wrong = self.wrong.lock().expect("the list");
            assert!(wrong.is_empty(), "{wrong:?}");
            self.answered.load(Ordering::SeqCst) >= before + 10
        });
    }

    /// It was answered each time.
    pub(crate) fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("a thread").join().expect("each of its connections is taken");
        let wrong = self.wrong.lock().expect("the list");
        assert!(wrong.is_empty(), "{} answers, and {wrong:?}", self.answered.load(Ordering::SeqCst));
    }
}

/// Where the probe calls from.
const PROBE: [u8; 4] = [127, 0, 0, 9];

/// A connection from one of the loopback's many addresses.
pub(crate) fn connect_from(address: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(IpAddr::from(from), 0).into()).expect("an address of the loopback");
    socket.connect(&address.into()).expect("it listens");
    socket.into()
}

/// Waits until something holds.
pub(crate) fn within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Room for thousands of connections, in this process and in those that it starts; one test at a time has it.
///
/// A file is needed for each connection in the client's process and another in the gateway's. The soft limit is often
/// 1,024: it is raised to the hard one, and that too where this is root and it is not enough.
pub(crate) fn many_files() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    const NEEDED: u64 = 11_000;
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut limit = getrlimit(Resource::Nofile);
    limit.maximum = limit.maximum.map(|most| most.max(NEEDED));
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit);
    assert!(
        raised.is_ok(),
        "{NEEDED} open files are needed: raise `ulimit -Hn`, which is {:?}",
        getrlimit(Resource::Nofile)
    );
    guard
}
