//! Servers that answer.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use plimsoll_gateway::http1::request::room;
use plimsoll_gateway::http1::{Body, Request as Head, head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::HEAD_MAX;

/// A future that may move between threads.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What answers the requests of one connection; dropped with it.
pub type Handler = Box<dyn FnMut(Request<Bytes>) -> Boxed<Response<Bytes>> + Send>;

/// Largest body of a request.
const BODY_MAX: usize = 64 << 20;

/// Listens at an address, which another process may have had a moment ago.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

/// Accepts for ever. `connection` makes what answers a connection; none refuses it. `stops` says whether work whose
/// caller has gone is given up.
pub async fn serve(
    listener: TcpListener,
    stops: bool,
    connection: impl Fn() -> Option<Handler> + Send + Sync + 'static,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                if let Some(handler) = connection() {
                    tokio::spawn(one(stream, handler, stops));
                }
            }
            // Too many open files: some will be closed.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn one(mut stream: TcpStream, mut handler: Handler, stops: bool) {
    let mut buffer = Vec::with_capacity(1024);
    let mut out = Vec::with_capacity(1024);
    loop {
        let Some((request, keep)) = read(&mut stream, &mut buffer).await else { return };
        let bodiless = request.method() == http::Method::HEAD;
        let Some(response) = answer(&mut stream, &mut buffer, handler(request), stops).await else { return };
        write(&mut out, &response, bodiless);
        if stream.write_all(&out).await.is_err() || !keep {
            return;
        }
        out.clear();
    }
}

/// The answer; none if its caller has gone and it is given up.
async fn answer(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    mut work: Boxed<Response<Bytes>>,
    stops: bool,
) -> Option<Response<Bytes>> {
    let mut gone = false;
    loop {
        if gone {
            return if stops { None } else { Some(work.await) };
        }
        let more = {
            let mut reading = std::pin::pin!(stream.read_buf(buffer));
            std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Ok(response)),
                Poll::Pending => reading.as_mut().poll(cx).map(Err),
            })
            .await
        };
        match more {
            Ok(response) => return Some(response),
            // What comes now belongs to the next request.
            Err(read) => gone = !matches!(read, Ok(1..)),
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Request<Bytes>, bool)> {
    let mut seen = 0;
    let end = loop {
        match head::end(buffer, &mut seen, HEAD_MAX).ok()? {
            Some(end) => break end,
            None if stream.read_buf(buffer).await.ok()? == 0 => return None,
            None => {}
        }
    };
    let (mut request, framing, keep) = {
        let mut room = room();
        let parsed = Head::parse(&buffer[..end], &mut room, 100).ok()?;
        let mut builder = Request::builder().method(parsed.method).uri(parsed.target);
        for field in parsed.fields {
            builder = builder.header(field.name, field.value);
        }
        (builder.body(Bytes::new()).ok()?, parsed.framing, parsed.keep_alive)
    };
    buffer.drain(..end);
    let mut body = Body::new(framing, 16 << 10);
    let mut content = Vec::new();
    while !body.is_over() {
        let taken = body.unwrap(buffer, |range| content.extend_from_slice(&buffer[range])).ok()?;
        buffer.drain(..taken);
        if content.len() > BODY_MAX || !body.is_over() && stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    *request.body_mut() = Bytes::from(content);
    Some((request, keep))
}

fn write(out: &mut Vec<u8>, response: &Response<Bytes>, bodiless: bool) {
    let status = response.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", response.body().len()).as_bytes());
    if !bodiless {
        out.extend_from_slice(response.body());
    }
}
