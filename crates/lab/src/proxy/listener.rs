//! The socket that a proxy listens on.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use plimsoll_model::draw::Draw;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Env;
use super::config::Config;
use super::connection::{self, Counts};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// A socket that listens, until it is closed.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::AbortHandle,
}

#[derive(Debug)]
struct Shared {
    socket: TcpListener,
    gate: Mutex<Gate>,
}

/// Whether somebody may come in. Held while one does, so that nobody does any more once it is shut.
#[derive(Debug, Default)]
struct Gate {
    /// Set while no handshake is to complete: the only place in the kernel's queue is taken by this, and a full
    /// queue is what makes it drop what comes. It knows the address as which it is to be told from clients.
    filler: Option<(Socket, Option<SocketAddr>)>,
    /// What filled the queue before, and is still in it.
    stale: Vec<SocketAddr>,
}

impl Listener {
    /// Listens at the first of a name's addresses that can be had.
    pub(super) fn open(
        listen: &str,
        runtime: &tokio::runtime::Handle,
        env: &Arc<Env>,
        counts: &Arc<Counts>,
        config: &watch::Sender<Arc<Config>>,
        draw: Draw,
    ) -> io::Result<Listener> {
        let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        for address in listen.to_socket_addrs()? {
            match bind(address) {
                Ok(socket) => {
                    let address = socket.local_addr()?;
                    let _runtime = runtime.enter();
                    let socket = TcpListener::from_std(socket)?;
                    let shared = Arc::new(Shared { socket, gate: Mutex::default() });
                    let accepting = accept(shared.clone(), env.clone(), counts.clone(), config.subscribe(), draw);
                    let accepting = runtime.spawn(accepting).abort_handle();
                    let listener = Listener { address, shared, accepting };
                    listener.cut(config.borrow().is_cut())?;
                    return Ok(listener);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nobody's handshake completes, or everybody's does. Clients hear nothing of the former; the
    /// latter lets them in when their kernels try again.
    pub(super) fn cut(&self, cut: bool) -> io::Result<()> {
        let mut gate = self.shared.gate();
        match (cut, gate.filler.is_some()) {
            (true, false) => {
                // Room for one.
                SockRef::from(&self.shared.socket).listen(0)?;
                let mut to = self.address;
                if to.ip().is_unspecified() {
                    to.set_ip(if to.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
                }
                let filler = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
                filler.set_nonblocking(true)?;
                // If a client has the place already, this gets no answer either, and that is as good.
                let _ = filler.connect(&to.into());
                let own = filler.local_addr().ok().and_then(|address| address.as_socket());
                gate.filler = Some((filler, own));
            }
            (false, true) => {
                let filler = gate.filler.take().and_then(|(_, own)| own);
                gate.stale.extend(filler);
                SockRef::from(&self.shared.socket).listen(BACKLOG)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Stops at once: who connects from now on is refused.
    pub(super) fn close(self) {
        // The task still holds the socket until its thread has time to drop it.
        let _ = SockRef::from(&self.shared.socket).shutdown(std::net::Shutdown::Both);
        self.accepting.abort();
    }
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next client.
    fn poll_accept(&self, cx: &mut std::task::Context<'_>) -> Poll<io::Result<TcpStream>> {
        let mut gate = self.gate();
        if gate.filler.is_some() {
            // Whoever opens the gate changes the configuration, too, which wakes us.
            return Poll::Pending;
        }
        loop {
            let (stream, address) = std::task::ready!(self.socket.poll_accept(cx))?;
            match gate.stale.iter().position(|stale| *stale == address) {
                Some(at) => drop(gate.stale.swap_remove(at)),
                None => return Poll::Ready(Ok(stream)),
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts for ever.
async fn accept(
    shared: Arc<Shared>,
    env: Arc<Env>,
    counts: Arc<Counts>,
    mut config: watch::Receiver<Arc<Config>>,
    draw: Draw,
) {
    let epoch = config.borrow_and_update().epoch;
    loop {
        let accepted = {
            let mut changed = std::pin::pin!(config.changed());
            std::future::poll_fn(|cx| match std::future::Future::poll(changed.as_mut(), cx) {
                Poll::Ready(changed) => Poll::Ready(Err(changed.is_ok())),
                Poll::Pending => shared.poll_accept(cx).map(Ok),
            })
            .await
        };
        match accepted {
            // The gate may be open.
            Err(true) => drop(config.borrow_and_update()),
            // The proxy is gone.
            Err(false) => return,
            Ok(Ok(client)) => {
                let _ = client.set_nodelay(true);
                let number = counts.accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let serving =
                    connection::serve(client, env.clone(), counts.clone(), config.clone(), epoch, draw.part(number));
                tokio::spawn(serving);
            }
            // Too many open files, say: some will be closed.
            Ok(Err(_)) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
