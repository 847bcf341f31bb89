//! New connections of clients.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::open::{Listed, Open};
use super::{http1, http2};
use crate::core::Core;
use crate::exchange::forward::Peer;
use crate::net::Stream;
use crate::net::tls::HTTP2;

/// An address that is listened on.
#[derive(Clone)]
pub struct Listening {
    /// The socket.
    pub listener: Rc<TcpListener>,
    /// Set once it is to be closed: connections from there end with the request that they are at.
    pub leaving: Rc<Cell<bool>>,
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
    let listed = Listed::new(open, core, leaving);
    let on_list = listed.place();
    let tls = current.live.tls.clone();
    let patience = Duration::from_nanos(serving.limits.header_timeout);
    let peer = Peer { address, trusted, tls: tls.is_some() };
    let core = core.clone();
    let task = match tls {
        None => {
            let stream = Stream::Plain(stream);
            spawn_local(serve(Box::new(Connection { core, stream, peer, listed, place })))
        }
        Some(config) => spawn_local(async move {
            let handshake = Box::pin(TlsAcceptor::from(config).accept(stream));
            let Ok(Ok(stream)) = tokio::time::timeout(patience, handshake).await else { return };
            let agreed = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
            let stream = Stream::Tls(Box::new(stream));
            let mut connection = Box::new(Connection { core, stream, peer, listed, place });
            let read = if agreed { Some(Vec::new()) } else { http1::serve(&mut connection).await };
            if let Some(read) = read {
                Box::pin(http2::serve(connection, read)).await;
            }
        }),
    };
    open.runs(on_list, task.abort_handle());
}

/// Serves a connection by the protocol that it begins with. While it waits for a request, this future and its box are
/// all that it costs.
#[expect(clippy::manual_async_fn, reason = "an argument of an `async fn` takes its room twice")]
fn serve(mut connection: Box<Connection>) -> impl Future<Output = ()> {
    async move {
        let Some(read) = http1::serve(&mut connection).await else { return };
        let rest = Box::pin(http2::serve(connection, read));
        rest.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// A task of tokio takes 104 bytes beside its future, and comes in multiples of 128.
    #[test]
    fn a_connection_that_waits_is_small() {
        let task = size(serve) + 104;
        assert!(task <= 256, "{task} bytes a task");
        let connection = size_of::<Connection>();
        assert!(connection <= 128, "{connection} bytes a connection");
    }
}
