//! Clients that speak HTTP/2 and ask without a pause.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;

/// Streams of a connection at once.
const AT_ONCE: usize = 4;

#[derive(Default)]
struct Counted {
    stop: AtomicBool,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

/// Connections, each a thread with some streams at a time. What a `GOAWAY` says was not looked at is asked again on
/// the next connection, as RFC 9113, section 8.7, allows; when no connection can be made any more, a client ends.
pub(crate) struct Streams {
    counted: Arc<Counted>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    pub(crate) fn start(address: SocketAddr, connections: usize) -> Streams {
        let counted: Arc<Counted> = Arc::default();
        let threads = (0..connections).map(|_| {
            let counted = counted.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    while !counted.stop.load(Ordering::SeqCst) {
                        let Ok(stream) = TcpStream::connect(address).await else { return };
                        ask_all(stream, &counted).await;
                    }
                });
            })
        });
        let threads = threads.collect();
        Streams { counted, threads }
    }

    pub(crate) fn answered(&self) -> usize {
        self.counted.answered.load(Ordering::SeqCst)
    }

    /// Requests that got their answer, and what became of the others.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.counted.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client"));
        let failed = self.counted.failed.lock().expect("the list").clone();
        (self.counted.answered.load(Ordering::SeqCst), failed)
    }
}

/// Asks on one connection until it goes away.
async fn ask_all(stream: TcpStream, counted: &Arc<Counted>) {
    let Ok((send, connection)) = h2::client::handshake(stream).await else { return };
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let streams: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (send, counted) = (send.clone(), counted.clone());
            tokio::spawn(async move {
                let mut send = send;
                while !counted.stop.load(Ordering::SeqCst) {
                    match tokio::time::timeout(Duration::from_secs(60), ask(&mut send)).await {
                        Ok(Ok(true)) => drop(counted.answered.fetch_add(1, Ordering::SeqCst)),
                        Ok(Ok(false)) => return,
                        Ok(Err(error)) => return counted.failed.lock().expect("the list").push(error),
                        Err(_) => return counted.failed.lock().expect("the list").push("no answer".to_owned()),
                    }
                }
            })
        })
        .collect();
    for stream in streams {
        stream.await.expect("a stream");
    }
    drop(send);
    driver.abort();
}

/// One request. False where the connection takes no more, and has not taken this one.
async fn ask(send: &mut SendRequest<Bytes>) -> Result<bool, String> {
    let Ok(mut ready) = send.clone().ready().await else { return Ok(false) };
    let request = http::Request::get("http://test/items/1").body(()).expect("a request");
    let Ok((response, _)) = ready.send_request(request, true) else { return Ok(false) };
    let response = match response.await {
        Ok(response) => response,
        Err(error) if untouched(&error) => return Ok(false),
        Err(error) => return Err(format!("no head: {error}")),
    };
    let status = response.status();
    let mut body = response.into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| format!("half a body: {error}"))?;
        let _ = body.flow_control().release_capacity(data.len());
        content.extend_from_slice(&data);
    }
    match (status.as_u16(), &content[..]) {
        (200, b"ok") => Ok(true),
        _ => Err(format!("{status} {}", String::from_utf8_lossy(&content))),
    }
}

/// Whether the server says that it has not looked at a request.
fn untouched(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    refused || error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}
