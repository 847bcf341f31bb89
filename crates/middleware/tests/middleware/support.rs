//! Services to put layers around.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::Service;

/// Serves a router on a port of its own.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

pub(crate) fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap()
}

pub(crate) async fn text<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What a scripted service does with a request: after so long, this.
pub(crate) type Step = (Duration, Result<u16, &'static str>);

/// A service that follows a script, and then succeeds at once.
#[derive(Clone, Default)]
pub(crate) struct Scripted {
    steps: Arc<Mutex<Vec<Step>>>,
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) at_work: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn new(steps: &[(u64, Result<u16, &'static str>)]) -> Scripted {
        let steps = steps.iter().rev().map(|(ms, result)| (Duration::from_millis(*ms), *result)).collect();
        Scripted { steps: Arc::new(Mutex::new(steps)), ..Scripted::default() }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::SeqCst)
    }
}

struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<B> Service<Request<B>> for Scripted {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, &'static str>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<B>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.at_work.fetch_add(1, Ordering::SeqCst);
        let at_work = AtWork(self.at_work.clone());
        let (after, result) = self.steps.lock().unwrap().pop().unwrap_or((Duration::ZERO, Ok(200)));
        Box::pin(async move {
            let _at_work = at_work;
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            result.map(|status| Response::builder().status(status).body(Full::default()).unwrap())
        })
    }
}

pub(crate) fn request() -> Request<Full<Bytes>> {
    Request::get("http://target/").body(Full::default()).unwrap()
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
