//! TCP proxies on the edges of a system, which do to connections what networks do: delay, throttle, cut, reset.
//!
//! ```text
//!   api thread ──► Set ──watch──► accept ──► connection ──► link up    (one thread for all of them)
//!   (HTTP, or the     │           listener                  link down
//!    run itself)      └─► sockets that listen, opened and closed at once
//! ```
//!
//! What is asked for takes effect by a value that connections watch, so that asking never waits for bytes, and bytes
//! never for who asks. The control API is Toxiproxy's: its clients in every language drive these proxies.

mod api;
mod config;
mod connection;
mod json;
mod link;
mod listener;
mod set;
pub mod toxic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::timer::Timer;

pub use api::{API_VERSION, answer, configure};
pub use config::{More, Pace};
pub use json::{Addition, Change, NewProxy, ToxicChange};
pub use set::{Figures, Set, Shown};

/// Where Toxiproxy's clients look for it.
pub const DEFAULT_API: &str = "127.0.0.1:8474";

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status that says so.
    pub status: u16,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Refusal {
    pub(crate) fn bad(message: String) -> Refusal {
        Refusal { status: 400, message }
    }
}

/// What every connection needs.
#[derive(Debug)]
struct Env {
    clock: Clock,
    timer: Arc<Timer>,
}

impl Env {
    fn now(&self) -> u64 {
        self.clock.now().as_nanos()
    }
}

/// Running proxies. Dropping this closes them and their connections.
#[derive(Debug)]
pub struct Proxies {
    set: Arc<Set>,
    timer: Arc<Timer>,
    api: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxies {
    /// Starts threads for proxies, of which there are none yet. All their chance comes from `seed`. With `api`
    /// programs can ask for them by HTTP there.
    pub fn start(seed: u64, api: Option<SocketAddr>) -> std::io::Result<Proxies> {
        let clock = Clock::start();
        let timer = Timer::start(clock)?;
        let (stop, stopped) = watch::channel(false);
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let data = runtime()?;
        let env = Arc::new(Env { clock, timer: timer.clone() });
        let set = Arc::new(Set::new(seed, data.handle().clone(), env));
        let mut proxies = Proxies { set: set.clone(), timer, api: None, stop, threads: Vec::new() };
        let wait = stopped.clone();
        proxies.thread("proxies", move || data.block_on(until(wait)))?;
        if let Some(address) = api {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            proxies.api = Some(listener.local_addr()?);
            // Apart from the connections: however busy they are, whoever wants to end a fault is heard.
            let control = runtime()?;
            proxies.thread("proxies-api", move || control.block_on(api::serve(set, listener, until(stopped))))?;
        }
        Ok(proxies)
    }

    fn thread(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// What can be asked of them.
    pub fn set(&self) -> &Arc<Set> {
        &self.set
    }

    /// Where the API is.
    pub fn api(&self) -> Option<SocketAddr> {
        self.api
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.set.close();
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
        self.timer.stop();
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
