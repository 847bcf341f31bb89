//! Real sockets on loopback: backends that do as they are told, a gateway before them, raw clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use plimsoll_gateway::{Gateway, Plan};
use plimsoll_model::{Source, parse};

/// A request as a backend got it.
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// How many this backend had before.
    pub(crate) number: usize,
}

impl Received {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What a backend does with a request.
pub(crate) enum Does {
    /// Answers with these bytes, and goes on with the connection.
    Answer(Vec<u8>),
    /// The same, and closes.
    AnswerAndClose(Vec<u8>),
    /// Closes without an answer.
    Reset,
    /// Answers, then echoes every byte.
    Echo(Vec<u8>),
}

pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Backend {
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// A backend that answers 200 with this text.
    pub(crate) fn ok(text: &'static str) -> Backend {
        Backend::new(move |_| Does::Answer(ok(text)))
    }

    /// A backend that has a request, and answers it once the gate is open.
    pub(crate) fn gated() -> (Backend, Gate) {
        let gate = Gate::default();
        let stuck = gate.clone();
        let backend = Backend::new(move |_| {
            stuck.pass();
            Does::Answer(ok("done"))
        });
        (backend, gate)
    }

    pub(crate) fn new(handle: impl Fn(&Received) -> Does + Send + Sync + 'static) -> Backend {
        Backend::on(TcpListener::bind("127.0.0.1:0").unwrap(), handle)
    }

    pub(crate) fn on(listener: TcpListener, handle: impl Fn(&Received) -> Does + Send + Sync + 'static) -> Backend {
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handle = Arc::new(handle);
        let (counted, opened) = (requests.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handle, counted) = (handle.clone(), counted.clone());
                opened.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(stream, &*handle, &counted));
            }
        });
        Backend { address, requests, connections }
    }
}

fn serve(mut stream: TcpStream, handle: &(dyn Fn(&Received) -> Does + Send + Sync), counted: &AtomicUsize) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = read_until(&mut stream, &mut bytes, |bytes| find(bytes, b"\r\n\r\n").map(|at| at + 4)) else {
            return;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end);
        let mut received = Received { head, body: Vec::new(), number: 0 };
        let length = received.field("content-length").map_or(0, |length| length.parse().unwrap());
        let chunked = received.field("transfer-encoding").is_some();
        let whole = |bytes: &[u8]| match chunked {
            true => chunks_end(bytes),
            false => (bytes.len() >= length).then_some(length),
        };
        let Some(end) = read_until(&mut stream, &mut bytes, whole) else { return };
        received.body = bytes.drain(..end).collect();
        received.number = counted.fetch_add(1, Ordering::SeqCst);
        match handle(&received) {
            Does::Answer(answer) => {
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
            Does::AnswerAndClose(answer) => {
                let _ = stream.write_all(&answer);
                return;
            }
            Does::Reset => return,
            Does::Echo(answer) => {
                let _ = stream.write_all(&answer);
                let mut piece = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    let _ = stream.write_all(&piece[..count]);
                }
                return;
            }
        }
    }
}

/// The end of a body of chunks, trailers and all.
fn chunks_end(bytes: &[u8]) -> Option<usize> {
    let last = if bytes.starts_with(b"0\r\n") { 0 } else { find(bytes, b"\r\n0\r\n")? + 2 };
    find(&bytes[last..], b"\r\n\r\n").map(|end| last + end + 4)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn read_until(stream: &mut TcpStream, bytes: &mut Vec<u8>, whole: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
    loop {
        if let Some(end) = whole(bytes) {
            return Some(end);
        }
        let mut piece = [0; 16384];
        match stream.read(&mut piece) {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}

pub(crate) fn answer(status: u16, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    answer(200, "", body)
}

/// Holds up requests for as long as a test needs them to be under way.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn shut(&self) {
        *self.0.0.lock().unwrap() = false;
    }

    /// Returns once it is open.
    pub(crate) fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

/// A system file with a gateway before these backends. `gateway` has the gateway's further keys, one a
/// line; `api` those of the service behind it.
pub(crate) fn file(backends: &[SocketAddr], gateway: &str, api: &str) -> String {
    let indented = |text: &str| text.lines().map(|line| format!("    {}\n", line)).collect::<String>();
    let addresses: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
    let routes = if gateway.contains("routes:") { "" } else { "    upstream: api\n" };
    let listen = if gateway.contains("listen:") { "" } else { "    listen: [\"127.0.0.1:0\"]\n" };
    let endpoints = if api.contains("endpoints:") {
        String::new()
    } else {
        "    endpoints: { GET /: [], GET /items/:id: [], POST /items: [], PUT /items/:id: [], GET /ws: [] }\n"
            .to_owned()
    };
    format!(
        "system: test\nclients: {{ web: {{ rate: 1/s, calls: [ edge GET / ] }} }}\nservices:\n  edge:\n    kind: gateway\n\
         {routes}{listen}{}  api:\n    at: [{}]\n{endpoints}{}",
        indented(gateway),
        addresses.join(", "),
        indented(api),
    )
}

pub(crate) fn plan(text: &str) -> Plan {
    let system =
        parse(&Source::alone("test.yaml", text)).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    Plan::new(&system, None).unwrap()
}

pub(crate) fn start(text: &str) -> Gateway {
    Gateway::start(plan(text), Path::new(".")).unwrap()
}

pub(crate) fn gateway(backends: &[&Backend], gateway: &str) -> Gateway {
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    start(&file(&addresses, gateway, ""))
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    bytes: Vec<u8>,
}

/// An answer as a client got it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// With its framing.
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client { stream, bytes: Vec::new() }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        TcpStream::connect(address).unwrap().into()
    }

    pub(crate) fn of(gateway: &Gateway) -> Client {
        Client::new(gateway.addresses()[0])
    }

    /// One whose request is on its way.
    pub(crate) fn that_asked(gateway: &Gateway, path: &str) -> Client {
        let mut client = Client::of(gateway);
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).unwrap();
    }

    /// The next answer. None if the connection ends first.
    pub(crate) fn next(&mut self, head_only: bool) -> Option<Got> {
        let end = read_until(&mut self.stream, &mut self.bytes, |bytes| find(bytes, b"\r\n\r\n").map(|at| at + 4))?;
        let head = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes.drain(..end);
        let mut got = Got { status: head[9..12].parse().unwrap(), head, body: String::new() };
        if head_only || got.status < 200 || got.status == 204 || got.status == 304 {
            return Some(got);
        }
        let length = got.field("content-length").map(|length| length.parse().unwrap());
        let chunked = got.field("transfer-encoding").is_some();
        let whole = |bytes: &[u8]| match (chunked, length) {
            (true, _) => chunks_end(bytes),
            (_, Some(length)) => (bytes.len() >= length).then_some(length),
            (_, None) => None,
        };
        match read_until(&mut self.stream, &mut self.bytes, whole) {
            Some(end) => got.body = String::from_utf8_lossy(&self.bytes.drain(..end).collect::<Vec<_>>()).into_owned(),
            None if length.is_none() && !chunked => {
                got.body = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
            }
            None => return None,
        }
        Some(got)
    }

    pub(crate) fn ask(&mut self, bytes: &str) -> Got {
        self.send(bytes);
        self.next(bytes.starts_with("HEAD")).unwrap_or_else(|| panic!("no answer to {bytes:?}"))
    }

    pub(crate) fn get(&mut self, path: &str) -> Got {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Whether the connection ends without another byte. One that is held is not closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        self.bytes.is_empty()
            && match self.stream.read(&mut byte) {
                Ok(count) => count == 0,
                Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
    }
}

pub(crate) fn get(gateway: &Gateway, path: &str) -> Got {
    Client::of(gateway).get(path)
}

/// The same, meanwhile.
pub(crate) fn ask(gateway: &Gateway, path: &'static str) -> std::thread::JoinHandle<Got> {
    let address = gateway.addresses()[0];
    std::thread::spawn(move || Client::new(address).get(path))
}

/// Keys of a gateway whose figures are looked at.
pub(crate) fn observed(keys: &str) -> String {
    format!("admin: 127.0.0.1:0\n{keys}")
}

/// One of its figures, by name and labels.
pub(crate) fn figure(gateway: &Gateway, name: &str) -> u64 {
    let page = Client::new(gateway.admin().expect("`observed` keys")).get("/metrics").body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

/// Clients that ask without a pause until told to stop: how many answers they got, and how many they did
/// not get.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    pub(crate) answered: Arc<AtomicUsize>,
    pub(crate) failed: Arc<AtomicUsize>,
}

impl Load {
    /// Each client goes on with its connection until the gateway closes it, and then makes another. When
    /// no connection can be made any more, it ends.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Load {
        let (stop, answered, failed) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let threads = (0..clients).map(|_| {
            let (stop, answered, failed): (Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
                (stop.clone(), Arc::clone(&answered), Arc::clone(&failed));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let Ok(stream) = TcpStream::connect(address) else { return };
                    let mut client = Client::from(stream);
                    while !stop.load(Ordering::SeqCst) {
                        if client.stream.write_all(b"GET /items/1 HTTP/1.1\r\nHost: a\r\n\r\n").is_err() {
                            break; // it was closed before anything was sent
                        }
                        match client.next(false) {
                            Some(got) if got.status == 200 => {
                                answered.fetch_add(1, Ordering::SeqCst);
                                if got.field("connection") == Some("close") {
                                    break;
                                }
                            }
                            _ => {
                                failed.fetch_add(1, Ordering::SeqCst);
                                break;
                            }
                        }
                    }
                }
            })
        });
        let threads = threads.collect();
        Load { stop, threads, answered, failed }
    }

    /// Waits for so many more answers.
    pub(crate) fn goes_on(&self, count: usize) {
        let before = self.answered.load(Ordering::SeqCst);
        eventually("requests are answered", || self.answered.load(Ordering::SeqCst) >= before + count);
    }

    /// Requests that got their answer, and those that did not.
    pub(crate) fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.answered.load(Ordering::SeqCst), self.failed.load(Ordering::SeqCst))
    }
}

/// Waits until something holds, for at most a minute.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
