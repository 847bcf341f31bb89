//! One connection of a client, and the one to the server that belongs to it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::BytesMut;
use plimsoll_model::draw::Draw;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Env;
use super::config::Config;
use super::link::{Arrival, Ending, Link, Next};
use super::toxic::Stream;

/// Bytes that are read at once.
const READ: usize = 32 << 10;

/// What has gone through a proxy.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: AtomicU64,
    pub(super) open: AtomicU64,
    /// Connections whose server could not be reached.
    pub(super) unreached: AtomicU64,
    pub(super) up_bytes: AtomicU64,
    pub(super) down_bytes: AtomicU64,
}

/// Serves a client until one side or a toxic ends it. `draw` is this connection's.
pub(super) async fn serve(
    client: TcpStream,
    env: Arc<Env>,
    counts: Arc<Counts>,
    config: watch::Receiver<Arc<Config>>,
    epoch: u64,
    draw: Draw,
) {
    counts.open.fetch_add(1, Ordering::Relaxed);
    let ending = run(&client, &env, &counts, config, epoch, draw).await;
    if ending == Ending::Reset {
        reset(&client);
    }
    counts.open.fetch_sub(1, Ordering::Relaxed);
}

async fn run(
    client: &TcpStream,
    env: &Env,
    counts: &Counts,
    config: watch::Receiver<Arc<Config>>,
    epoch: u64,
    draw: Draw,
) -> Ending {
    let upstream = config.borrow().upstream.clone();
    let Some(server) = connect(&upstream, config.clone(), epoch).await else {
        // A client that was accepted can no longer be refused. A reset is as near as it gets.
        counts.unreached.fetch_add(1, Ordering::Relaxed);
        return Ending::Reset;
    };
    let _ = server.set_nodelay(true);
    let link = |stream: Stream| Link::new(draw.part(stream as u64));
    let mut up =
        pin!(pass(Stream::Upstream, client, &server, link(Stream::Upstream), env, counts, config.clone(), epoch));
    let mut down =
        pin!(pass(Stream::Downstream, &server, client, link(Stream::Downstream), env, counts, config, epoch));
    let (mut up_over, mut down_over) = (false, false);
    let ending = std::future::poll_fn(|cx| {
        for (link, over) in
            [(up.as_mut() as Pin<&mut dyn Future<Output = Ending>>, &mut up_over), (down.as_mut(), &mut down_over)]
        {
            if *over {
                continue;
            }
            match link.poll(cx) {
                Poll::Ready(Ending::Half) => *over = true,
                Poll::Ready(ending) => return Poll::Ready(ending),
                Poll::Pending => {}
            }
        }
        if up_over && down_over { Poll::Ready(Ending::Close) } else { Poll::Pending }
    })
    .await;
    if ending == Ending::Reset {
        reset(&server);
    }
    ending
}

/// Closing sends a reset from now on.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

/// A connection to the server; none if it cannot be had, or the proxy is taken down meanwhile.
async fn connect(upstream: &str, mut config: watch::Receiver<Arc<Config>>, epoch: u64) -> Option<TcpStream> {
    let mut connecting = pin!(TcpStream::connect(upstream));
    loop {
        if config.borrow_and_update().epoch != epoch {
            return None;
        }
        let mut changed = pin!(config.changed());
        let connected = std::future::poll_fn(|cx| {
            if let Poll::Ready(stream) = connecting.as_mut().poll(cx) {
                return Poll::Ready(Some(stream.ok()));
            }
            changed.as_mut().poll(cx).map(|_| None)
        })
        .await;
        if let Some(stream) = connected {
            return stream;
        }
    }
}

/// What a direction waits for.
enum Event {
    Changed,
    Readable,
    Writable,
    Due,
}

/// Passes bytes of one direction on.
#[allow(clippy::too_many_arguments)] // Two calls, side by side.
async fn pass(
    stream: Stream,
    from: &TcpStream,
    to: &TcpStream,
    mut link: Link,
    env: &Env,
    counts: &Counts,
    mut config: watch::Receiver<Arc<Config>>,
    epoch: u64,
) -> Ending {
    let count = match stream {
        Stream::Upstream => &counts.up_bytes,
        Stream::Downstream => &counts.down_bytes,
    };
    let mut buffer = BytesMut::new();
    link.follow(config.borrow_and_update().of(stream), env.now());
    loop {
        let mut wait = None;
        let mut blocked = false;
        let now = env.now();
        match link.next(now) {
            Next::End(Ending::Half) => {
                let _ = SockRef::from(to).shutdown(std::net::Shutdown::Write);
                return Ending::Half;
            }
            Next::End(ending) => return ending,
            Next::Wait(until) => wait = until,
            Next::Write(bytes) => match to.try_write(&link.first()[..bytes]) {
                Ok(written) => {
                    count.fetch_add(written as u64, Ordering::Relaxed);
                    if let Some(ending) = link.wrote(written, now) {
                        return ending;
                    }
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => blocked = true,
                // Nobody is there any more: who sends should know.
                Err(_) => return Ending::Reset,
            },
        }
        let event = {
            let mut changed = pin!(config.changed());
            let mut timer = pin!(wait.map(|at| env.timer.until(at)));
            std::future::poll_fn(|cx| {
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Changed);
                }
                if blocked && to.poll_write_ready(cx).is_ready() {
                    return Poll::Ready(Event::Writable);
                }
                if link.wants() && from.poll_read_ready(cx).is_ready() {
                    return Poll::Ready(Event::Readable);
                }
                match timer.as_mut().as_pin_mut() {
                    Some(timer) => timer.poll(cx).map(|()| Event::Due),
                    None => Poll::Pending,
                }
            })
            .await
        };
        match event {
            Event::Due | Event::Writable => {}
            Event::Changed => {
                let now = env.now();
                let config = config.borrow_and_update();
                if config.epoch != epoch {
                    return Ending::Close;
                }
                if let Some(ending) = link.follow(config.of(stream), now) {
                    return ending;
                }
            }
            Event::Readable => {
                buffer.reserve(READ);
                let now = env.now();
                match from.try_read_buf(&mut buffer) {
                    Ok(0) => link.arrive(Arrival::End, now),
                    Ok(_) => link.arrive(Arrival::Bytes(buffer.split().freeze()), now),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => link.arrive(Arrival::Reset, now),
                }
            }
        }
    }
}
