//! The one driver of the layers on a server's side: it asks, waits, calls the handler, and holds the permit until the
//! answer's body has ended.

use std::future::Future;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tower_service::Service;

use crate::error::Error;
use crate::held::{HeldBody, Permit};
use crate::{BoxFuture, take_ready};

/// What a layer asks of requests.
pub trait Guard: Clone + Send + Sync + 'static {
    /// What it knows of one request.
    type Visit: Send;

    /// A request has come.
    fn arrive(&self, parts: &mut Parts) -> Self::Visit;

    /// Whether it may go on, perhaps after a wait. Asked when the request's future is first polled, and not before: one
    /// that nobody polls would keep its place.
    fn admit(&self, visit: &mut Self::Visit) -> impl Future<Output = Result<(), Response<Bytes>>> + Send;

    /// When its handler is dropped.
    fn until(&self, _visit: &Self::Visit) -> Option<Instant> {
        None
    }

    /// Its handler has ended, in time, with this status or an error of the service: what is held until the end of the
    /// body.
    fn answered(&self, visit: Self::Visit, status: Option<StatusCode>) -> Permit;

    /// Its handler was dropped at `until`.
    fn overran(&self, _visit: Self::Visit) {}
}

/// A service with a layer around it. What it refuses, it answers itself.
#[derive(Clone, Debug)]
pub struct Guarded<S, G> {
    inner: S,
    guard: G,
}

impl<S, G> Guarded<S, G> {
    pub(crate) fn new(inner: S, guard: G) -> Guarded<S, G> {
        Guarded { inner, guard }
    }
}

impl<S, G, B, R> Service<Request<B>> for Guarded<S, G>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    G: Guard,
    B: Send + 'static,
    R: From<Bytes> + 'static,
{
    type Response = Response<HeldBody<R>>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response<HeldBody<R>>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = take_ready(&mut self.inner);
        let (mut parts, body) = request.into_parts();
        let visit = self.guard.arrive(&mut parts);
        Box::pin(drive(self.guard.clone(), visit, inner, Request::from_parts(parts, body)))
    }
}

async fn drive<S, G, B, R>(
    guard: G,
    mut visit: G::Visit,
    mut inner: S,
    request: Request<B>,
) -> Result<Response<HeldBody<R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    G: Guard,
    R: From<Bytes>,
{
    if let Err(refusal) = guard.admit(&mut visit).await {
        return Ok(refusal.map(HeldBody::from));
    }
    let result = match guard.until(&visit) {
        None => inner.call(request).await,
        Some(until) => {
            let mut handler = std::pin::pin!(inner.call(request));
            let mut timer = std::pin::pin!(tokio::time::sleep_until(until));
            let result = std::future::poll_fn(|cx| match handler.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
            });
            match result.await {
                Some(result) => result,
                None => {
                    guard.overran(visit);
                    return Ok(Error::<S::Error>::TimedOut.to_response());
                }
            }
        }
    };
    let permit = guard.answered(visit, result.as_ref().ok().map(Response::status));
    result.map(|response| response.map(|body| HeldBody::new(body, permit)))
}
