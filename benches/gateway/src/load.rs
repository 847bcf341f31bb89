//! The load: connections of one thread that ask as fast as they are answered (closed loop), or at a rate
//! whatever the answers do (open loop, latency from when a request was due).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use crate::http;

const REQUEST: &[u8] = b"GET /items/1 HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Arrivals of an open loop come in ticks: finer ones are beyond the runtime's timer.
const TICK: Duration = Duration::from_millis(2);

/// What came of a load.
#[derive(Debug, Default)]
pub struct Seen {
    /// Microseconds of each request that got its 200.
    pub times: Vec<u32>,
    /// Requests that got anything else, or nothing.
    pub failed: usize,
}

impl Seen {
    /// A percentile, of 1000, in milliseconds. A request that failed took longer than any other.
    pub fn permille_ms(&mut self, permille: usize) -> f64 {
        self.times.sort_unstable();
        let all = self.times.len() + self.failed;
        let at = (all * permille).div_ceil(1000).max(1) - 1;
        self.times.get(at).map_or(f64::INFINITY, |micros| f64::from(*micros) / 1e3)
    }
}

struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    bytes: Vec<u8>,
}

impl Connection {
    fn new(address: SocketAddr) -> Connection {
        Connection { address, stream: None, bytes: Vec::with_capacity(1024) }
    }

    /// Asks once, on a new connection if need be. Whether it was answered with 200.
    async fn ask(&mut self) -> bool {
        match tokio::time::timeout(PATIENCE, self.exchange()).await {
            Ok(Ok((status, goes_on))) => {
                if !goes_on {
                    self.stream = None;
                }
                status == 200
            }
            _ => {
                self.stream = None;
                false
            }
        }
    }

    async fn exchange(&mut self) -> io::Result<(u16, bool)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        self.bytes.clear();
        stream.write_all(REQUEST).await?;
        loop {
            if let Some((status, length, goes_on)) = http::answer(&self.bytes)
                && self.bytes.len() >= length
            {
                return Ok((status, goes_on));
            }
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// So many connections ask as fast as they are answered.
pub fn closed(address: SocketAddr, connections: usize, length: Duration) -> Seen {
    run(async move {
        let end = Instant::now() + length;
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                spawn_local(async move {
                    let mut connection = Connection::new(address);
                    let mut seen = Seen::default();
                    while Instant::now() < end {
                        let sent = Instant::now();
                        match connection.ask().await {
                            true => seen.times.push(sent.elapsed().as_micros() as u32),
                            false => {
                                seen.failed += 1;
                                // So that a proxy which refuses connections is not counted a thousand times.
                                tokio::time::sleep(Duration::from_millis(1)).await;
                            }
                        }
                    }
                    seen
                })
            })
            .collect();
        let mut all = Seen::default();
        for task in tasks {
            let seen = task.await.expect("a connection's task");
            all.times.extend(seen.times);
            all.failed += seen.failed;
        }
        all
    })
}

/// Requests come at a rate, in ticks of [`TICK`]. Each takes a connection that is free, or the next that
/// becomes free; its time counts from its tick.
pub fn open(address: SocketAddr, rate: f64, connections: usize, length: Duration) -> Seen {
    let count = (rate * length.as_secs_f64()) as usize;
    let per_tick = rate * TICK.as_secs_f64();
    run(async move {
        // A moment for the connections to be made.
        let start = Instant::now() + Duration::from_millis(50);
        let next = Rc::new(Cell::new(0));
        let seen = Rc::new(RefCell::new(Seen::default()));
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let (next, seen) = (next.clone(), seen.clone());
                spawn_local(async move {
                    let mut connection = Connection::new(address);
                    loop {
                        let number = next.get();
                        if number >= count {
                            return;
                        }
                        next.set(number + 1);
                        let due = start + TICK * (number as f64 / per_tick) as u32;
                        tokio::time::sleep_until(due.into()).await;
                        match connection.ask().await {
                            true => seen.borrow_mut().times.push(due.elapsed().as_micros() as u32),
                            false => seen.borrow_mut().failed += 1,
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a connection's task");
        }
        seen.take()
    })
}

/// Opens connections, asks once on each, and keeps them all while something is measured.
pub fn idle<T>(address: SocketAddr, connections: usize, measure: impl FnOnce() -> T) -> (usize, T) {
    run(async move {
        let next = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let next = next.clone();
                spawn_local(async move {
                    let mut kept = Vec::new();
                    while next.get() < connections {
                        next.set(next.get() + 1);
                        let mut connection = Connection::new(address);
                        connection.bytes = Vec::new();
                        if connection.ask().await && connection.stream.is_some() {
                            kept.push(connection);
                        }
                    }
                    kept
                })
            })
            .collect();
        let mut kept = Vec::new();
        for task in tasks {
            kept.extend(task.await.expect("a connection's task"));
        }
        // Buffers that are kept for the next request of a connection are no part of one that is idle.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        (kept.len(), measure())
    })
}

/// Asks for something once.
pub fn tell(address: SocketAddr, path: &str) -> io::Result<()> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    stream.read_exact(&mut [0; 12])
}
