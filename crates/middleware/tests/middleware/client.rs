use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Router, routing::get as on_get, routing::post};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use plimsoll_middleware::{
    Classify, Cloned, Error, Once, Permit, PipelineHandle, PipelineLayer, PipelineService, RequestDeadline, Requests,
};
use plimsoll_policy::pipeline::Reply;
use plimsoll_policy::{
    Mode, Outcome, Reason, bulkhead, circuit_breaker, hedge, pipeline, rate_limit, retry, retry_budget,
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

use crate::support::*;

fn around(config: pipeline::Config, inner: Scripted) -> (PipelineService<Scripted>, PipelineHandle) {
    let layer = PipelineLayer::new(config).unwrap();
    (layer.layer(inner), layer.handle())
}

fn retrying() -> pipeline::Config {
    let backoff = retry::Backoff { base: ms(100), jitter: retry::Jitter::None, ..Default::default() };
    let retry = retry::Config { backoff, ..Default::default() };
    pipeline::Config { retry: Some(retry), budget: Some(retry_budget::Config::default()), ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn retries_what_may_be_repeated() {
    let inner = Scripted::new(&[(10, Ok(503)), (10, Err("reset")), (10, Ok(200))]);
    let (service, handle) = around(retrying(), inner.clone());
    let start = Instant::now();
    assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 200);
    // Three attempts, and backoffs of 100 and 200 ms: in virtual time, to the timer's millisecond.
    assert!((ms(330)..ms(340)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(handle.snapshot().totals.attempts, 3);
    assert_eq!(handle.snapshot().retry.unwrap().admitted, 2);

    let inner = Scripted::new(&[(0, Ok(503))]);
    let (service, _) = around(retrying(), inner.clone());
    let posted = Request::post("http://target/").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(service.oneshot(posted).await.unwrap().status(), 503);
    assert_eq!(inner.calls(), 1, "a POST is not repeated");

    let inner = Scripted::new(&[(0, Ok(503))]);
    let (service, _) = around(retrying(), inner.clone());
    let keyed = Request::post("http://target/").header("idempotency-key", "\"1\"").body(Full::<Bytes>::default());
    assert_eq!(service.oneshot(keyed.unwrap()).await.unwrap().status(), 200);
    assert_eq!(inner.calls(), 2, "one with a key is");

    let inner = Scripted::new(&[(0, Ok(503))]);
    let once = PipelineLayer::new(retrying()).unwrap().requests(Once).layer(inner.clone());
    assert_eq!(once.oneshot(request()).await.unwrap().status(), 503);
    assert_eq!(inner.calls(), 1, "nothing is, if the policy says so");
    let inner = Scripted::new(&[(0, Ok(400))]);
    let cloned = PipelineLayer::new(retrying()).unwrap().requests(Cloned).layer(inner.clone());
    assert_eq!(cloned.oneshot(request()).await.unwrap().status(), 400);
    assert_eq!(inner.calls(), 1, "a 400 is the caller's own");
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_retries() {
    let inner = Scripted::new(&[(0, Ok(503)); 400]);
    let rule = retry_budget::Rule::Share { ratio: 0.2, min_per_second: 0.0, window: ms(10_000) };
    let budget = Some(retry_budget::Config { rule, mode: Mode::Enforce });
    let (service, _) = around(pipeline::Config { budget, ..retrying() }, inner.clone());
    for _ in 0..100 {
        let _ = service.clone().oneshot(request()).await.unwrap();
    }
    assert!(inner.calls() <= 121, "{} calls", inner.calls());
    assert!(inner.calls() >= 115, "{} calls", inner.calls());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_aborts_and_is_typed() {
    let inner = Scripted::new(&[(10_000, Ok(200))]);
    let (service, handle) = around(pipeline::Config { timeout: Some(ms(500)), ..Default::default() }, inner.clone());
    let start = Instant::now();
    let error = service.clone().oneshot(request()).await.unwrap_err();
    assert_eq!(error, Error::TimedOut);
    assert_eq!(error.to_response::<Bytes>().status(), StatusCode::GATEWAY_TIMEOUT);
    assert!((ms(500)..ms(510)).contains(&start.elapsed()));
    assert_eq!(inner.at_work(), 0, "the attempt was dropped");

    // In shadow mode the call takes its time.
    let shadow = pipeline::Config { timeout: Some(ms(500)), timeout_mode: Mode::Shadow, ..Default::default() };
    handle.set_config(shadow).unwrap();
    let (slow, _) = around(shadow, Scripted::new(&[(1_000, Ok(200))]));
    assert_eq!(slow.oneshot(request()).await.unwrap().status(), 200);
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);

    // A caller that has no time left.
    let (service, handle) = around(retrying(), Scripted::default());
    let mut late = request();
    late.extensions_mut().insert(RequestDeadline::at(Instant::now()));
    let error = service.oneshot(late).await.unwrap_err();
    assert_eq!(error, Error::Rejected { reason: Reason::DeadlineExceeded, retry_after: None });
    assert_eq!(handle.snapshot().timeouts.rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn the_callers_haste_does_not_trip_the_breaker() {
    let breaker = Some(circuit_breaker::Config { minimum_calls: 5, ..Default::default() });
    let config = pipeline::Config { breaker, timeout: Some(ms(500)), ..Default::default() };
    let (service, handle) = around(config, Scripted::new(&[(1_000, Ok(200)); 20]));
    for _ in 0..10 {
        let mut hasty = request();
        hasty.extensions_mut().insert(RequestDeadline::at(Instant::now() + ms(5)));
        assert_eq!(service.clone().oneshot(hasty).await.unwrap_err(), Error::TimedOut);
    }
    assert_eq!(handle.snapshot().breaker_state, Some(circuit_breaker::State::Closed));
    for _ in 0..5 {
        assert_eq!(service.clone().oneshot(request()).await.unwrap_err(), Error::TimedOut);
    }
    assert_eq!(handle.snapshot().breaker_state, Some(circuit_breaker::State::Open), "our own timeouts do");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_says_when_to_come_back_and_closes() {
    let breaker = circuit_breaker::Config { minimum_calls: 4, open_jitter: 0.0, ..Default::default() };
    let config = pipeline::Config { breaker: Some(breaker), ..Default::default() };
    let (service, handle) = around(config, Scripted::new(&[(0, Ok(500)); 4]));
    for _ in 0..4 {
        assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 500);
    }
    let error = service.clone().oneshot(request()).await.unwrap_err();
    let Error::Rejected { reason: Reason::BreakerOpen, retry_after: Some(after) } = error else { panic!("{error:?}") };
    assert!(after <= breaker.open_for, "{after:?}");
    let response = error.to_response::<Bytes>();
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
    );
    tokio::time::sleep(breaker.open_for + ms(1)).await;
    for _ in 0..3 {
        assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 200);
    }
    assert_eq!(handle.snapshot().breaker_state, Some(circuit_breaker::State::Ramping));

    let shadow = circuit_breaker::Config { mode: Mode::Shadow, ..breaker };
    let config = pipeline::Config { breaker: Some(shadow), ..Default::default() };
    let (service, handle) = around(config, Scripted::new(&[(0, Ok(500)); 10]));
    for _ in 0..10 {
        assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 500);
    }
    assert!(handle.snapshot().breaker.unwrap().shadowed > 0);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_wins_and_the_loser_is_dropped() {
    let hedge = hedge::Config { min_samples: 10, ..Default::default() };
    let config = pipeline::Config {
        hedge: Some(hedge),
        bulkhead: Some(bulkhead::Config::default()),
        ..pipeline::Config::default()
    };
    let mut steps = vec![(10, Ok(200)); 10];
    steps.extend([(5_000, Ok(200)), (10, Ok(202))]);
    let inner = Scripted::new(&steps);
    let (service, handle) = around(config, inner.clone());
    for _ in 0..10 {
        service.clone().oneshot(request()).await.unwrap();
    }
    let start = Instant::now();
    assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 202);
    assert!(start.elapsed() < ms(100), "{:?}", start.elapsed());
    assert_eq!(inner.at_work(), 0);
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.totals.hedges, snapshot.bulkhead_in_flight), (1, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn waiters_get_their_turn_or_time_out() {
    let bulkhead = bulkhead::Config { permits: 1, queue: 2, max_wait: ms(150), ..Default::default() };
    let config = pipeline::Config { bulkhead: Some(bulkhead), ..Default::default() };
    let (service, handle) = around(config, Scripted::new(&[(100, Ok(200)); 10]));
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap().map(|response| response.status().as_u16()).map_err(|error| match error {
            Error::Rejected { reason, .. } => reason,
            other => panic!("{other:?}"),
        }));
    }
    let expected = [Ok(200), Ok(200), Err(Reason::BulkheadTimeout), Err(Reason::BulkheadFull)];
    assert_eq!(results, expected);
    assert_eq!((handle.snapshot().bulkhead_in_flight, handle.snapshot().waiting), (Some(0), Some(0)));

    // A queue is let go when the bulkhead grows.
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    tokio::time::sleep(ms(1)).await;
    assert_eq!(handle.snapshot().waiting, Some(2));
    let bulkhead = bulkhead::Config { permits: 3, ..bulkhead };
    handle.set_config(pipeline::Config { bulkhead: Some(bulkhead), ..Default::default() }).unwrap();
    assert_eq!((handle.snapshot().bulkhead_in_flight, handle.snapshot().waiting), (Some(3), Some(0)));
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_not_held_before_there_is_a_call() {
    let bulkhead = bulkhead::Config { permits: 1, ..Default::default() };
    let config = pipeline::Config { bulkhead: Some(bulkhead), ..Default::default() };
    let (mut service, handle) = around(config, Scripted::default());
    ServiceExt::<Request<Full<Bytes>>>::ready(&mut service).await.unwrap();
    let unpolled = tower::Service::call(&mut service, request());
    assert_eq!(handle.snapshot().bulkhead_in_flight, Some(0));
    assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 200);
    drop(unpolled);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_on_calls_says_when() {
    let quota = rate_limit::Config::new(1, ms(1_000));
    let config = pipeline::Config { rate_limit: Some(quota), ..Default::default() };
    let (service, handle) = around(config, Scripted::default());
    assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 200);
    let error = service.clone().oneshot(request()).await.unwrap_err();
    assert_eq!((error.status(), error.retry_after()), (StatusCode::TOO_MANY_REQUESTS, Some(ms(1_000))));
    let shadow = rate_limit::Config { mode: Mode::Shadow, ..quota };
    handle.set_config(pipeline::Config { rate_limit: Some(shadow), ..Default::default() }).unwrap();
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
    assert_eq!(handle.snapshot().rate_limit.unwrap().shadowed, 1);
}

#[tokio::test]
async fn a_hyper_client_is_retried_on_real_connections() {
    let seen = Arc::new(AtomicUsize::new(0));
    let fields = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
    let (counter, last) = (seen.clone(), fields.clone());
    let flaky = move |headers: HeaderMap| async move {
        *last.lock().unwrap() = headers;
        if counter.fetch_add(1, Ordering::SeqCst) < 2 {
            (StatusCode::SERVICE_UNAVAILABLE, "no")
        } else {
            (StatusCode::OK, "yes")
        }
    };
    let address =
        serve(Router::new().route("/", on_get(flaky)).route("/echo", post(|body: String| async { body }))).await;
    let backoff = retry::Backoff { base: ms(1), ..Default::default() };
    let config = pipeline::Config {
        timeout: Some(ms(60_000)),
        retry: Some(retry::Config { backoff, ..Default::default() }),
        breaker: Some(circuit_breaker::Config::default()),
        bulkhead: Some(bulkhead::Config::default()),
        ..Default::default()
    };
    let layer = PipelineLayer::new(config).unwrap();
    let service = layer.layer(client());
    let response = service.clone().oneshot(get(address, "/")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "yes");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    let left: u64 = fields.lock().unwrap()["x-request-timeout-ms"].to_str().unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&left));

    let posted = Request::post(format!("http://{address}/echo")).body(Full::new(Bytes::from("hello"))).unwrap();
    assert_eq!(text(service.clone().oneshot(posted).await.unwrap()).await, "hello");

    // Nobody is there: the client's own error comes through, after all attempts.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = service.oneshot(get(gone, "/")).await.unwrap_err();
    assert!(matches!(error, Error::Inner(_)), "{error:?}");
    assert_eq!(layer.handle().snapshot().totals.attempts, 3 + 1 + 3);
    assert_eq!(layer.handle().snapshot().bulkhead_in_flight, Some(0));
}

/// A request of a client with types of its own, as reqwest's are: it can be copied unless its body is a stream.
#[derive(Debug)]
struct Ask {
    path: &'static str,
    is_stream: bool,
}

/// Its answer, which holds a permit while it is read.
#[derive(Debug)]
struct Answer {
    status: u16,
    _permit: Permit,
}

#[derive(Clone)]
struct Rules;

impl Requests<Ask> for Rules {
    fn repeat(&self, ask: &Ask) -> Option<Ask> {
        (!ask.is_stream).then_some(Ask { ..*ask })
    }
}

impl<E> Classify<u16, E> for Rules {
    type Held = Answer;

    fn classify(&self, result: &Result<u16, E>) -> Reply {
        Reply::new(if matches!(result, Ok(..500)) { Outcome::Success } else { Outcome::Failure })
    }

    fn hold(&self, status: u16, permit: Permit) -> Answer {
        Answer { status, _permit: permit }
    }
}

#[tokio::test(start_paused = true)]
async fn clients_with_types_of_their_own_fit() {
    let inner = Scripted::new(&[(0, Ok(503)), (0, Ok(200)), (0, Ok(503))]);
    let asked = inner.clone();
    let own = tower::service_fn(move |ask: Ask| {
        let request = Request::get(ask.path).body(Full::<Bytes>::default()).unwrap();
        let answer = asked.clone().oneshot(request);
        async move { answer.await.map(|response| response.status().as_u16()) }
    });
    let config = pipeline::Config { bulkhead: Some(bulkhead::Config::default()), ..retrying() };
    let layer = PipelineLayer::new(config).unwrap().requests(Rules).classify(Rules);
    let service = layer.layer(own);
    let at_work = || layer.handle().snapshot().bulkhead_in_flight;
    let answer = service.clone().oneshot(Ask { path: "http://target/", is_stream: false }).await.unwrap();
    assert_eq!((answer.status, inner.calls(), at_work()), (200, 2, Some(1)));
    drop(answer);
    assert_eq!(at_work(), Some(0));
    let answer = service.oneshot(Ask { path: "http://target/", is_stream: true }).await.unwrap();
    assert_eq!((answer.status, inner.calls(), at_work()), (503, 3, Some(0)), "a stream is sent once");
}
