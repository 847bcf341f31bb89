//! New connections of clients, and what becomes of them when the gateway stops.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local};
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::{http1, http2};
use crate::core::Core;
use crate::exchange::forward::Peer;
use crate::net::Stream;
use crate::net::tls::HTTP2;

/// The connections of one core.
#[derive(Default)]
pub struct Open {
    tasks: RefCell<BTreeMap<u64, Task>>,
    next: Cell<u64>,
}

impl Open {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Closes those that wait for a request: all of them, or those whose address is listened on no more.
    pub fn close_idle(&self, all: bool) {
        for task in self.tasks.borrow().values().filter(|task| task.idle.get() && (all || task.leaving.get())) {
            task.handle.abort();
        }
    }

    /// Closes all.
    pub fn close_all(&self) {
        for task in self.tasks.borrow().values() {
            task.handle.abort();
        }
    }
}

/// A connection's task.
struct Task {
    handle: AbortHandle,
    /// Whether it waits for a request.
    idle: Rc<Cell<bool>>,
    leaving: Rc<Cell<bool>>,
}

/// An address that is listened on.
#[derive(Clone)]
pub struct Listening {
    /// The socket.
    pub listener: Rc<TcpListener>,
    /// Set once it is to be closed: connections from there end with the request that they are at.
    pub leaving: Rc<Cell<bool>>,
}

/// Takes itself off the list when its task ends, however it ends.
struct Listed {
    open: Rc<Open>,
    number: u64,
    core: Rc<Core>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.open.tasks.borrow_mut().remove(&self.number);
        self.core.figures.closed.bump();
    }
}

/// Accepts connections for ever.
pub async fn accept(core: Rc<Core>, open: Rc<Open>, listening: Listening) {
    loop {
        match listening.listener.accept().await {
            Ok((stream, peer)) => start(&core, &open, stream, peer, &listening.leaving),
            // Out of files, perhaps: they come back as connections close.
            Err(error) if is_ours(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(_) => {}
        }
    }
}

/// Whether an error is about this process, and not about one connection.
fn is_ours(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Accepts what waits already, and no more.
pub async fn accept_waiting(core: &Rc<Core>, open: &Rc<Open>, listening: &Listening) {
    let one = || tokio::time::timeout(Duration::from_millis(1), listening.listener.accept());
    while let Ok(Ok((stream, peer))) = one().await {
        start(core, open, stream, peer, &listening.leaving);
    }
}

fn start(core: &Rc<Core>, open: &Rc<Open>, stream: TcpStream, peer: SocketAddr, leaving: &Rc<Cell<bool>>) {
    let current = core.current();
    let serving = &current.live.plan.serving;
    let address = peer.ip().to_canonical();
    let Some(place) = core.shared.admit(address, &current.live) else {
        core.figures.refused.bump();
        return;
    };
    core.figures.accepted.bump();
    let _ = stream.set_nodelay(true);
    let trusted = serving.trusted.iter().any(|network| network.contains(address));
    let number = open.next.get();
    open.next.set(number + 1);
    let idle = Rc::new(Cell::new(true));
    let listed = Listed { open: open.clone(), number, core: core.clone() };
    let tls = current.live.tls.clone();
    let patience = Duration::from_nanos(serving.limits.header_timeout);
    let peer = Peer { address, trusted, tls: tls.is_some() };
    let (shared_core, flag, leaves) = (core.clone(), idle.clone(), leaving.clone());
    let task = match tls {
        None => {
            let stream = Stream::Plain(stream);
            let connection = Connection { core: shared_core, stream, peer, idle: flag, leaving: leaves, place };
            spawn_local(async move {
                let _listed = listed;
                serve(connection, false).await;
            })
        }
        Some(config) => spawn_local(async move {
            let _listed = listed;
            let handshake = TlsAcceptor::from(config).accept(stream);
            let Ok(Ok(stream)) = tokio::time::timeout(patience, handshake).await else { return };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
            let stream = Stream::Tls(Box::new(stream));
            let connection = Connection { core: shared_core, stream, peer, idle: flag, leaving: leaves, place };
            Box::pin(serve(connection, http2)).await;
        }),
    };
    open.tasks.borrow_mut().insert(number, Task { handle: task.abort_handle(), idle, leaving: leaving.clone() });
}

/// Serves a connection by the protocol that it speaks.
async fn serve(connection: Connection, http2: bool) {
    let found = match http2 {
        true => Some((connection, Vec::new())),
        // A client may know beforehand what is spoken here, and begin with HTTP/2.
        false => http1::serve(connection).await,
    };
    if let Some((connection, read)) = found {
        Box::pin(http2::serve(connection, read)).await;
    }
}
