//! Permits are held until a body has ended.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::routing::get as on_get;
use axum::{Router, response::IntoResponse};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use plimsoll_middleware::{
    ByResult, ConcurrencyConfig, ConcurrencyLayer, Error, Once, PipelineLayer, RateLimitLayer, ShedConfig, ShedLayer,
};
use plimsoll_policy::{Reason, adaptive_limit, bulkhead, circuit_breaker, pipeline, rate_limit, shed};
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::*;

/// A body that comes as a test sends it.
#[derive(Debug)]
struct Sent(mpsc::UnboundedReceiver<Result<Bytes, &'static str>>);

impl From<Bytes> for Sent {
    fn from(bytes: Bytes) -> Sent {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(Ok(bytes)).unwrap();
        Sent(receiver)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(|frame| frame.map(Frame::data)))
    }
}

type Sender = mpsc::UnboundedSender<Result<Bytes, &'static str>>;

/// A service whose answers have such bodies, and where their other ends go.
#[allow(clippy::type_complexity, reason = "it is said once")]
fn streams() -> (
    impl Service<
        Request<Full<Bytes>>,
        Response = Response<Sent>,
        Error = &'static str,
        Future = impl Future<Output = Result<Response<Sent>, &'static str>> + Send,
    > + Clone
    + Send
    + 'static,
    Arc<Mutex<Vec<Sender>>>,
) {
    let senders: Arc<Mutex<Vec<Sender>>> = Arc::default();
    let kept = senders.clone();
    let service = service_fn(move |_| {
        let (sender, receiver) = mpsc::unbounded_channel();
        kept.lock().unwrap().push(sender);
        async move { Ok(Response::new(Sent(receiver))) }
    });
    (service, senders)
}

/// What a layer has at work, how it refuses the next request, and that it comes back at a body's end or drop.
macro_rules! holds_until_the_end {
    ($layer:expr, $in_flight:expr, $is_refused:expr) => {{
        let layer = $layer;
        let handle = layer.handle();
        let in_flight = || $in_flight(&handle);
        let (inner, senders) = streams();
        let service = layer.layer(inner);
        // Read to its end.
        let mut body = service.clone().oneshot(request()).await.unwrap().into_body();
        assert_eq!(in_flight(), 1, "the head has come");
        assert!($is_refused(service.clone().oneshot(request()).await));
        let sender = senders.lock().unwrap().pop().unwrap();
        sender.send(Ok(Bytes::from("a"))).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        assert_eq!(in_flight(), 1, "there may be more");
        drop(sender);
        assert!(body.frame().await.is_none());
        assert_eq!(in_flight(), 0, "over, though the body is still there");
        // Dropped on the way.
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(in_flight(), 1);
        drop(response);
        assert_eq!(in_flight(), 0);
        // Broken off.
        let mut body = service.oneshot(request()).await.unwrap().into_body();
        senders.lock().unwrap().pop().unwrap().send(Err("broken")).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap_err(), "broken");
        assert_eq!(in_flight(), 0);
    }};
}

fn one_permit() -> bulkhead::Config {
    bulkhead::Config { permits: 1, ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn of_a_concurrency_limit() {
    let limits = ConcurrencyConfig { bulkhead: Some(one_permit()), adaptive_limit: None };
    holds_until_the_end!(
        ConcurrencyLayer::new(limits).unwrap(),
        |handle: &plimsoll_middleware::ConcurrencyHandle| handle.snapshot().bulkhead_in_flight.unwrap(),
        |answer: Result<Response<_>, &str>| answer.unwrap().status() == 503
    );
}

#[tokio::test(start_paused = true)]
async fn of_a_place_at_work() {
    let queue = shed::Config { capacity: 0, ..Default::default() };
    holds_until_the_end!(
        ShedLayer::new(ShedConfig { in_flight_max: 1, queue }).unwrap(),
        |handle: &plimsoll_middleware::ShedHandle| handle.snapshot().in_flight,
        |answer: Result<Response<_>, &str>| answer.unwrap().status() == 503
    );
}

#[tokio::test(start_paused = true)]
async fn of_a_call() {
    let config = pipeline::Config { bulkhead: Some(one_permit()), ..Default::default() };
    holds_until_the_end!(
        PipelineLayer::new(config).unwrap(),
        |handle: &plimsoll_middleware::PipelineHandle| handle.snapshot().bulkhead_in_flight.unwrap(),
        |answer: Result<Response<_>, Error<&str>>| {
            matches!(answer, Err(Error::Rejected { reason: Reason::BulkheadFull, .. }))
        }
    );
}

#[tokio::test(start_paused = true)]
async fn times_are_taken_at_the_head_and_failures_at_the_end() {
    let breaker = circuit_breaker::Config { minimum_calls: 2, slow_call: ms(100), ..Default::default() };
    let layer = PipelineLayer::new(pipeline::Config { breaker: Some(breaker), ..Default::default() }).unwrap();
    let (inner, senders) = streams();
    let service = layer.layer(inner);
    for _ in 0..10 {
        let mut body = service.clone().oneshot(request()).await.unwrap().into_body();
        tokio::time::sleep(ms(10_000)).await;
        senders.lock().unwrap().clear();
        assert!(body.frame().await.is_none());
    }
    let state = || layer.handle().snapshot().breaker_state.unwrap();
    assert_eq!(state(), circuit_breaker::State::Closed, "a slow reader makes no slow call");
    tokio::time::sleep(ms(60_000)).await;
    for _ in 0..2 {
        let mut body = service.clone().oneshot(request()).await.unwrap().into_body();
        senders.lock().unwrap().pop().unwrap().send(Err("broken")).unwrap();
        assert!(body.frame().await.unwrap().is_err());
    }
    assert_eq!(state(), circuit_breaker::State::Open, "half an answer is a failure");
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_when_it_comes_holds_nothing() {
    let config = pipeline::Config {
        bulkhead: Some(one_permit()),
        adaptive_limit: Some(adaptive_limit::Config::default()),
        ..Default::default()
    };
    let layer = PipelineLayer::new(config).unwrap().requests(Once).classify(ByResult);
    let (inner, _senders) = streams();
    let answer: Response<Sent> = layer.layer(inner).oneshot(request()).await.unwrap();
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.bulkhead_in_flight, snapshot.limit_in_flight), (Some(0), Some(0)));
    drop(answer);
}

/// All of them around an axum service, on a real connection whose client is slow.
#[tokio::test]
async fn a_server_has_its_places_taken_while_it_sends() {
    let shed = ShedLayer::new(ShedConfig::new(8)).unwrap();
    let limits = ConcurrencyConfig { bulkhead: Some(one_permit()), adaptive_limit: None };
    let limit = ConcurrencyLayer::new(limits).unwrap();
    let quota = RateLimitLayer::new(rate_limit::Config::new(100, ms(1_000))).unwrap();
    let (places, permits) = (shed.handle(), limit.handle());
    let (sender, receiver) = mpsc::unbounded_channel();
    let body = Arc::new(Mutex::new(Some(Sent(receiver))));
    let handler = move || async move {
        let body = body.lock().unwrap().take();
        body.map_or("later".into_response(), |body| axum::body::Body::new(body).into_response())
    };
    let address = serve(Router::new().route("/", on_get(handler)).layer(limit).layer(shed).layer(quota)).await;
    let client = client();
    let first = client.request(get(address, "/")).await.unwrap();
    assert_eq!((places.snapshot().in_flight, permits.snapshot().bulkhead_in_flight), (1, Some(1)));
    assert_eq!(client.request(get(address, "/")).await.unwrap().status(), 503);
    sender.send(Ok(Bytes::from("all"))).unwrap();
    drop(sender);
    assert_eq!(text(first).await, "all");
    // The server lets go of it just after it has sent it.
    while places.snapshot().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(permits.snapshot().bulkhead_in_flight, Some(0));
    assert_eq!(client.request(get(address, "/")).await.unwrap().status(), 200);
}
