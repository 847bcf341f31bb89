//! A client's connection that speaks HTTP/2. Its requests go to the upstream as HTTP/1.1.
//!
//! Each stream is a task of its own. What the `h2` crate refuses is refused: fields for one hop, upper
//! case, a length that the body does not have. Where an answer is whole before its request is, `h2` asks for
//! no more by RST_STREAM(NO_ERROR).

pub mod head;
pub mod incoming;
pub mod relay;
pub mod request;
pub mod websocket;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_local;

use super::connection::Connection;
use crate::core::Place;
use crate::net::prefixed::Prefixed;

/// Streams of one connection at once (nginx, http2_max_concurrent_streams).
const STREAMS: u32 = 128;
/// Bytes that a stream, and a connection, may send before they are told to go on.
const WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of answers that wait to be sent, a connection.
const SEND_BUFFER: usize = 256 << 10;
/// Between two looks whether the gateway stops or the connection is idle: while there are streams, and without any.
/// Thousands of connections that nobody uses would keep a core busy with looking.
const LOOK: Duration = Duration::from_millis(100);
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
pub async fn serve(connection: Box<Connection>, prefix: Vec<u8>) {
    let Connection { core, stream, peer, listed, place } = *connection;
    listed.set_idle(false);
    let _place: Place = place;
    let limits = core.current().live.plan.serving.limits.clone();
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(limits.header_bytes)
        .enable_connect_protocol()
        .handshake(Prefixed::new(prefix, stream));
    let patience = Duration::from_nanos(limits.header_timeout);
    let Ok(Ok(mut connection)) = tokio::time::timeout(patience, handshake).await else { return };
    let open = Rc::new(Cell::new(0usize));
    let mut last = core.clock.now();
    let mut leaving = None;
    let mut look = Box::pin(tokio::time::sleep(LOOK));
    loop {
        let accepted = std::future::poll_fn(|cx| {
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Some(accepted));
            }
            look.as_mut().poll(cx).map(|()| None)
        })
        .await;
        match accepted {
            Some(Some(Ok((request, respond)))) => {
                last = core.clock.now();
                let open = Counted::new(&open);
                spawn_local(request::serve(core.clone(), peer, request, respond, last, open));
            }
            // The connection has ended, well or badly.
            Some(None | Some(Err(_))) => return,
            None => {
                // Whoever drains in a second is seen in time all the same.
                let drain = Duration::from_nanos(core.current().live.plan.drain);
                let mut next = IDLE_LOOK.min(drain / 10).max(LOOK);
                if open.get() > 0 {
                    last = core.clock.now();
                    next = LOOK;
                }
                look.as_mut().reset(core.clock.instant(core.clock.now() + next));
                let idle = core.clock.now().nanos_since(last) > limits.idle_timeout;
                match leaving {
                    None if core.shared.is_stopping() || listed.is_leaving() || idle => {
                        leaving = Some(core.clock.now());
                        connection.graceful_shutdown();
                    }
                    // It ends once the client has answered a PING. One that does not is not waited for.
                    Some(since) if open.get() == 0 && core.clock.now().nanos_since(since) > limits.header_timeout => {
                        return;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Counts a stream for as long as it lives.
pub struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(open: &Rc<Cell<usize>>) -> Counted {
        open.set(open.get() + 1);
        Counted(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
