//! One core's connection to a Redis.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use super::SharedQuota;
use super::protocol::{Answer, SCRIPT, answer, command};
use crate::net::Buffer;

/// Commands under way on one connection; past it the store counts as down.
const UNDER_WAY: usize = 4096;
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(100);

/// A command: its key and numbers, and who waits for its answer.
struct Ask {
    key: Vec<u8>,
    interval: String,
    burst: String,
    answer: oneshot::Sender<i64>,
}

/// A core's connection to one Redis, made when it is needed.
#[derive(Debug)]
pub struct Link {
    asks: mpsc::Sender<Ask>,
}

impl Link {
    /// A connection to this address. It lives as long as something asks for it.
    pub fn new(address: String) -> Rc<Link> {
        let (asks, receiver) = mpsc::channel(UNDER_WAY);
        spawn_local(keep(address, receiver));
        Rc::new(Link { asks })
    }

    /// The script's answer for a key; none if there is no server.
    pub async fn ask(&self, quota: &SharedQuota, key: &[u8]) -> Option<i64> {
        let (sender, receiver) = oneshot::channel();
        let key = [quota.prefix.as_bytes(), key].concat();
        // In the script's microseconds, to the nanosecond.
        let interval = format!("{}.{:03}", quota.interval / 1_000, quota.interval % 1_000);
        let ask = Ask { key, interval, burst: quota.burst.to_string(), answer: sender };
        self.asks.try_send(ask).ok()?;
        receiver.await.ok()
    }
}

/// Connects, serves commands until the connection breaks, and begins again.
async fn keep(address: String, mut asks: mpsc::Receiver<Ask>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            let _ = stream.set_nodelay(true);
            if let Some(script) = load(&mut stream).await
                && serve(stream, &script, &mut asks).await.is_none()
            {
                return; // nobody can ask any more
            }
        }
        // Those who have asked meanwhile learn at once that there is nobody.
        while asks.try_recv().is_ok() {}
        tokio::time::sleep(AGAIN).await;
        if asks.is_closed() {
            return;
        }
        while asks.try_recv().is_ok() {}
    }
}

/// Gives the server the script; it answers with the name by which it knows it.
async fn load(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    command(&mut out, &[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]);
    stream.write_all(&out).await.ok()?;
    let mut bytes = Vec::new();
    loop {
        match answer(&bytes) {
            Ok(Some((Answer::Text(name), _))) => return Some(name),
            Ok(None) => {}
            _ => return None,
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Sends what is asked and hands out what is answered, in order. `Some` when the connection broke, `None`
/// when nobody can ask any more.
async fn serve(mut stream: TcpStream, script: &[u8], asks: &mut mpsc::Receiver<Ask>) -> Option<()> {
    let waiting: RefCell<VecDeque<oneshot::Sender<i64>>> = RefCell::default();
    let mut out = Vec::new();
    let mut sent = 0;
    let mut input = Buffer::default();
    input.grow();
    poll_fn(|cx| {
        // What is asked.
        while waiting.borrow().len() < UNDER_WAY {
            match asks.poll_recv(cx) {
                Poll::Ready(Some(ask)) => {
                    let parts = [b"EVALSHA", script, b"1", &ask.key, ask.interval.as_bytes(), ask.burst.as_bytes()];
                    command(&mut out, &parts);
                    waiting.borrow_mut().push_back(ask.answer);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        while sent < out.len() {
            match Pin::new(&mut stream).poll_write(cx, &out[sent..]) {
                Poll::Ready(Ok(count @ 1..)) => sent += count,
                Poll::Ready(_) => return Poll::Ready(Some(())),
                Poll::Pending => break,
            }
        }
        if sent == out.len() {
            out.clear();
            sent = 0;
        }
        // What is answered.
        loop {
            match answer(input.bytes()) {
                Ok(Some((answer, length))) => {
                    input.consume(length);
                    let Some(sender) = waiting.borrow_mut().pop_front() else { return Poll::Ready(Some(())) };
                    match answer {
                        Answer::Number(wait) => {
                            let _ = sender.send(wait);
                        }
                        // A server that was restarted does not know the script: begin again.
                        _ => return Poll::Ready(Some(())),
                    }
                    continue;
                }
                Ok(None) => {}
                Err(()) => return Poll::Ready(Some(())),
            }
            if input.is_full() {
                input.grow();
            }
            match input.poll_read(&mut stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Some(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
