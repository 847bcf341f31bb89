//! What stands behind the proxies: a process that answers every request with the same small body, or, once
//! told so at `/mode/…`, badly.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::http;

/// How a backend behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Well,
    /// Answers after [`SLOW`].
    Slow,
    /// Answers 503 at once.
    Failing,
}

/// What a slow one takes.
pub const SLOW: Duration = Duration::from_millis(500);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
const BAD: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad";

/// Serves until it is killed.
pub fn run(address: SocketAddr) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(address).await?;
        let mode = Rc::new(Cell::new(Mode::Well));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(serve(stream, mode.clone()));
        }
    })
}

async fn serve(mut stream: TcpStream, mode: Rc<Cell<Mode>>) {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let Some(end) = http::head_end(&bytes) else {
            match stream.read_buf(&mut bytes).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let head = &bytes[..end];
        // Orders are obeyed at once, whatever the mode.
        let order = [("/mode/well", Mode::Well), ("/mode/slow", Mode::Slow), ("/mode/failing", Mode::Failing)]
            .into_iter()
            .find(|(path, _)| head[4..].starts_with(path.as_bytes()));
        let told = order.is_some();
        if let Some((_, order)) = order {
            mode.set(order);
        }
        bytes.drain(..end);
        if mode.get() == Mode::Slow && !told {
            tokio::time::sleep(SLOW).await;
        }
        let answer = if mode.get() == Mode::Failing && !told { BAD } else { OK };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
