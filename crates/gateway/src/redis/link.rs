//! One core's connection to a Redis.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use super::protocol::{Answer, answer, command};
use super::server::{Connection, ask};
use super::{Script, SharedQuota};
use crate::net::Buffer;

/// Commands under way on one connection; past it the store counts as down.
const UNDER_WAY: usize = 4096;
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an attempt may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A command: its key, and who waits for its answer.
struct Ask {
    key: Vec<u8>,
    answer: oneshot::Sender<i64>,
}

/// A core's connection to one Redis, made when it is needed.
#[derive(Debug)]
pub struct Link {
    quota: Arc<SharedQuota>,
    asks: mpsc::Sender<Ask>,
}

impl Link {
    /// A connection for this quota. It lives as long as something asks for it. `say` is told why there is none,
    /// once for each reason.
    pub fn new(quota: Arc<SharedQuota>, say: impl Fn(&str) + 'static) -> Rc<Link> {
        let (asks, receiver) = mpsc::channel(UNDER_WAY);
        spawn_local(keep(quota.clone(), receiver, say));
        Rc::new(Link { quota, asks })
    }

    /// Whether it is for this quota.
    pub fn is_for(&self, quota: &Arc<SharedQuota>) -> bool {
        Arc::ptr_eq(&self.quota, quota)
    }

    /// The script's answer for a key; none if there is no server.
    pub async fn ask(&self, key: &[u8]) -> Option<i64> {
        let (sender, receiver) = oneshot::channel();
        let key = [self.quota.script.prefix.as_bytes(), key].concat();
        self.asks.try_send(Ask { key, answer: sender }).ok()?;
        receiver.await.ok()
    }
}

/// Connects, serves commands until the connection breaks, and begins again.
async fn keep(quota: Arc<SharedQuota>, mut asks: mpsc::Receiver<Ask>, say: impl Fn(&str)) {
    let mut said = String::new();
    loop {
        let opened = tokio::time::timeout(CONNECT, open(&quota)).await;
        let problem = match opened.unwrap_or_else(|_| Err("does not answer".to_owned())) {
            Ok((stream, script)) => match serve(stream, &script, &quota.script, &mut asks, &mut said).await {
                Ok(()) => return, // nobody can ask any more
                Err(problem) => problem,
            },
            Err(problem) => problem,
        };
        if problem != said {
            say(&format!("{} {problem}", quota.server.address()));
            said = problem;
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

/// Connects, and gives the server the script; it answers with the name by which it knows it.
async fn open(quota: &SharedQuota) -> Result<(Box<dyn Connection>, Vec<u8>), String> {
    let mut stream = quota.server.connect().await?;
    let load: [&[u8]; 3] = [b"SCRIPT", b"LOAD", quota.script.text.as_bytes()];
    let name = ask(&mut stream, &load, "does not take the quota's script").await?;
    Ok((stream, name))
}

/// Sends what is asked and hands out what is answered, in order, until nobody can ask any more or something goes
/// wrong. `said` is cleared once all goes well.
async fn serve(
    mut stream: Box<dyn Connection>,
    name: &[u8],
    script: &Script,
    asks: &mut mpsc::Receiver<Ask>,
    said: &mut String,
) -> Result<(), String> {
    let broken = || Poll::Ready(Err("breaks off".to_owned()));
    let waiting: RefCell<VecDeque<oneshot::Sender<i64>>> = RefCell::default();
    let mut out = Vec::new();
    let mut sent = 0;
    // TLS may hold a record back.
    let mut flushed = true;
    let mut input = Buffer::default();
    input.grow();
    poll_fn(|cx| {
        // What is asked.
        while waiting.borrow().len() < UNDER_WAY {
            match asks.poll_recv(cx) {
                Poll::Ready(Some(ask)) => {
                    let mut parts: Vec<&[u8]> = vec![b"EVALSHA", name, b"1", &ask.key];
                    parts.extend(script.arguments.iter().map(String::as_bytes));
                    command(&mut out, &parts);
                    waiting.borrow_mut().push_back(ask.answer);
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        while sent < out.len() {
            match Pin::new(&mut stream).poll_write(cx, &out[sent..]) {
                Poll::Ready(Ok(count @ 1..)) => {
                    sent += count;
                    flushed = false;
                }
                Poll::Ready(_) => return broken(),
                Poll::Pending => break,
            }
        }
        if !flushed {
            match Pin::new(&mut stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => flushed = true,
                Poll::Ready(Err(_)) => return broken(),
                Poll::Pending => {}
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
                    let Some(sender) = waiting.borrow_mut().pop_front() else { return broken() };
                    match answer {
                        Answer::Number(wait) => {
                            said.clear();
                            let _ = sender.send(wait);
                        }
                        // A server that was restarted does not know the script: begin again.
                        Answer::Error(error) => return Poll::Ready(Err(format!("refuses: {error}"))),
                        Answer::Text(_) => return broken(),
                    }
                    continue;
                }
                Ok(None) => {}
                Err(()) => return broken(),
            }
            if input.is_full() {
                input.grow();
            }
            match input.poll_read(&mut stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return broken(),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
