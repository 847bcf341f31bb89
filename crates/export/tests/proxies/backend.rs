//! Instances of a service: threads that answer HTTP/1.1, and can die and come back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::proxy::listener;

/// One instance, which answers its name. Some paths make it behave otherwise: see [`answer`].
pub(crate) struct Backend {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    dead: bool,
    /// Requests are kept waiting on `/hold` while this is set.
    holding: bool,
    held: usize,
    /// `GET /path` of all requests but health checks.
    seen: Vec<String>,
    open: Vec<TcpStream>,
}

impl Backend {
    pub(crate) fn start(name: &str) -> Backend {
        let listener = listener();
        let address = listener.local_addr().expect("an address");
        let state = Mutex::new(State { holding: true, ..State::default() });
        let shared = Arc::new(Shared { name: name.to_owned(), address, state, changed: Condvar::new() });
        let accepting = Some(shared.clone().accept(listener));
        Backend { shared, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What was asked of it so far, health checks apart.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.shared.state().seen.clone()
    }

    /// Ends as a process does: its port is closed, and so are all connections.
    pub(crate) fn kill(&mut self) {
        let open = {
            let mut state = self.shared.state();
            state.dead = true;
            state.holding = false;
            std::mem::take(&mut state.open)
        };
        self.shared.changed.notify_all();
        // The one who accepts has to look up.
        let _ = TcpStream::connect(self.shared.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("it ends well");
        }
        // A process that another test is starting has the port open as well, until it runs its program.
        while TcpStream::connect(self.shared.address).is_ok() {
            pause();
        }
        for stream in open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Comes back at the same address.
    pub(crate) fn revive(&mut self) {
        self.shared.state().dead = false;
        let listener = TcpListener::bind(self.shared.address).expect("the port is still free");
        self.accepting = Some(self.shared.clone().accept(listener));
    }

    /// Waits until so many requests wait for [`release`](Self::release) in all of them.
    #[track_caller]
    pub(crate) fn wait_until_held(backends: &[Backend], count: usize) {
        let held = || backends.iter().map(|backend| backend.shared.state().held).sum::<usize>();
        for _ in 0..600 {
            if held() == count {
                return;
            }
            pause();
        }
        panic!("{} requests wait, not {count}", held());
    }

    /// Answers what waits on `/hold`.
    pub(crate) fn release(&self) {
        self.shared.state().holding = false;
        self.shared.changed.notify_all();
    }
}

/// Lets some time pass.
#[allow(clippy::disallowed_methods)] // A proxy's clock is the real one.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

impl Drop for Backend {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.kill();
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A test that has failed elsewhere still wants to stop this.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, listener: TcpListener) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut state = self.state();
                if state.dead {
                    return;
                }
                state.open.push(stream.try_clone().expect("a second handle"));
                drop(state);
                let shared = self.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        })
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Some((line, length, forwarded)) = head(&mut reader) {
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                break;
            }
            let Some(answer) = self.answer(&line, &forwarded) else { break };
            if writer.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        let _ = writer.shutdown(Shutdown::Both);
    }

    /// None: the connection breaks without an answer.
    fn answer(&self, line: &str, forwarded: &str) -> Option<String> {
        let with = |status: &str, body: &str| {
            Some(format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
        };
        let request = line.rsplit_once(' ').map_or(line, |(request, _)| request);
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path == "/health" {
            return with("200 OK", "well");
        }
        self.state().seen.push(request.to_owned());
        match path {
            "/reset" => None,
            "/notes/whence" => with("200 OK", forwarded),
            "/busy" => with("503 Service Unavailable", "busy"),
            path if path.starts_with("/hold") => {
                let mut state = self.state();
                state.held += 1;
                while state.holding {
                    state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                state.held -= 1;
                drop(state);
                with("200 OK", &self.name)
            }
            _ => with("200 OK", &self.name),
        }
    }
}

/// The request line, the length of the body, and what `X-Forwarded-For` says.
fn head(reader: &mut BufReader<TcpStream>) -> Option<(String, usize, String)> {
    let mut first = String::new();
    let mut forwarded: Vec<String> = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some((first, length, forwarded.join(", ")));
        }
        if first.is_empty() {
            first = line.to_owned();
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("x-forwarded-for")
        {
            forwarded.push(value.trim().to_owned());
        }
    }
}
