//! No permit leaks, whenever futures are dropped.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::{Router, routing::get as on_get};
use http::Request;
use plimsoll_middleware::{
    ConcurrencyConfig, ConcurrencyLayer, DeadlineLayer, PipelineLayer, RequestDeadline, ShedConfig, ShedLayer,
};
use plimsoll_policy::{
    adaptive_limit, bulkhead, circuit_breaker, deadline, hedge, pipeline, retry, retry_budget, shed,
};
use proptest::prelude::*;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

use crate::support::*;

/// A call: when it is made, how long its target takes, what comes of it, when its caller goes, how long it would wait.
#[derive(Clone, Debug)]
struct Planned {
    at_ms: u64,
    takes_ms: u64,
    result: Result<u16, &'static str>,
    dropped_ms: u64,
    deadline_ms: u64,
}

fn planned() -> impl Strategy<Value = Planned> {
    let result = prop_oneof![Just(Ok(200)), Just(Ok(503)), Just(Ok(404)), Just(Err("reset"))];
    (0..60u64, 0..30u64, result, 0..50u64, 1..60u64).prop_map(|(at_ms, takes_ms, result, dropped_ms, deadline_ms)| {
        Planned { at_ms, takes_ms, result, dropped_ms, deadline_ms }
    })
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn of_a_pipeline(plan in proptest::collection::vec(planned(), 1..60), permits in 1..4u32, queue in 0..4u32) {
        let config = pipeline::Config {
            timeout: Some(ms(70)),
            per_try_timeout: Some(ms(20)),
            retry: Some(retry::Config {
                backoff: retry::Backoff { base: ms(5), ..Default::default() },
                ..Default::default()
            }),
            budget: Some(retry_budget::Config::default()),
            breaker: Some(circuit_breaker::Config { open_for: ms(5), ..Default::default() }),
            adaptive_limit: Some(adaptive_limit::Config { initial: 5, min: 2, ..Default::default() }),
            bulkhead: Some(bulkhead::Config { permits, queue, max_wait: ms(10), ..Default::default() }),
            hedge: Some(hedge::Config { min_samples: 3, max_extra: 2, ..Default::default() }),
            ..Default::default()
        };
        run(async move {
            let layer = PipelineLayer::new(config).unwrap();
            let handle = layer.handle();
            let steps: Vec<_> = plan.iter().map(|planned| (planned.takes_ms, planned.result)).collect();
            let inner = Scripted::new(&steps);
            let service = layer.layer(inner.clone());
            let count = plan.len();
            let calls: Vec<_> = plan.into_iter().map(|planned| {
                let service = service.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(ms(planned.at_ms)).await;
                    let mut request = request();
                    request.extensions_mut().insert(RequestDeadline::at(Instant::now() + ms(planned.deadline_ms)));
                    let _ = tokio::time::timeout(ms(planned.dropped_ms), service.oneshot(request)).await;
                })
            }).collect();
            for change in 0..4 {
                tokio::time::sleep(ms(15)).await;
                let snapshot = handle.snapshot();
                assert!(snapshot.bulkhead_in_flight.unwrap_or(0) <= permits + 2, "{snapshot:?}");
                let mut config = handle.config();
                if let Some(bulkhead) = &mut config.bulkhead {
                    bulkhead.permits = permits + change % 2 * 2;
                }
                handle.set_config(config).unwrap();
            }
            for call in calls {
                call.await.unwrap();
            }
            let snapshot = handle.snapshot();
            assert_eq!(snapshot.bulkhead_in_flight, Some(0), "{snapshot:?}");
            assert_eq!(snapshot.limit_in_flight, Some(0), "{snapshot:?}");
            assert_eq!(snapshot.waiting, Some(0), "{snapshot:?}");
            assert_eq!(inner.at_work(), 0);
            assert_eq!(snapshot.totals.attempts as usize, inner.calls());
            assert!(snapshot.totals.calls as usize <= count);
        });
    }

    #[test]
    fn of_a_server(plan in proptest::collection::vec(planned(), 1..60), at_work in 1..4u32, capacity in 0..5u32) {
        run(async move {
            let queue = shed::Config {
                capacity,
                target: ms(2),
                interval: ms(5),
                discipline: shed::Discipline::AdaptiveLifo,
                ..Default::default()
            };
            let shed = ShedLayer::new(ShedConfig { in_flight_max: at_work, queue }).unwrap();
            let shed = shed.class(|parts| u8::from(parts.headers.contains_key("x-low")));
            let bulkhead = Some(bulkhead::Config { permits: 2, queue: 2, max_wait: ms(7), ..Default::default() });
            let limit = ConcurrencyLayer::new(ConcurrencyConfig { bulkhead, adaptive_limit: None }).unwrap();
            let (seats, permits) = (shed.handle(), limit.handle());
            let handler = |headers: http::HeaderMap| async move {
                let takes: u64 = headers["x-takes"].to_str().unwrap().parse().unwrap();
                tokio::time::sleep(Duration::from_millis(takes)).await;
            };
            let deadline = DeadlineLayer::new(deadline::Config::default()).unwrap();
            let app = Router::new().route("/", on_get(handler)).layer(limit).layer(shed).layer(deadline);
            let calls: Vec<_> = plan.into_iter().map(|planned| {
                let app = app.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(ms(planned.at_ms)).await;
                    let mut request = Request::get("/").header("x-takes", planned.takes_ms);
                    request = request.header("x-request-timeout-ms", planned.deadline_ms);
                    if planned.result.is_err() {
                        request = request.header("x-low", "");
                    }
                    let answer = app.oneshot(request.body(Body::empty()).unwrap());
                    let _ = tokio::time::timeout(ms(planned.dropped_ms), answer).await;
                })
            }).collect();
            for call in calls {
                call.await.unwrap();
            }
            let snapshot = seats.snapshot();
            assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0), "{snapshot:?}");
            let snapshot = permits.snapshot();
            assert_eq!((snapshot.bulkhead_in_flight, snapshot.waiting), (Some(0), Some(0)), "{snapshot:?}");
        });
    }
}

/// Polls a future once.
fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Between the moment when a waiter is given its turn and the moment when it hears of it, it may go.
#[tokio::test(start_paused = true)]
async fn who_goes_at_its_turn_takes_nothing_along() {
    let bulkhead = Some(bulkhead::Config { permits: 1, queue: 2, ..Default::default() });
    let layer = PipelineLayer::new(pipeline::Config { bulkhead, ..Default::default() }).unwrap();
    let handle = layer.handle();
    let service = layer.layer(Scripted::new(&[(1_000, Ok(200)); 3]));
    let [mut first, mut second, mut third] = [(); 3].map(|()| Box::pin(service.clone().oneshot(request())));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending() && poll(&mut third).is_pending());
    assert_eq!((handle.snapshot().bulkhead_in_flight, handle.snapshot().waiting), (Some(1), Some(2)));
    drop(first);
    assert_eq!((handle.snapshot().bulkhead_in_flight, handle.snapshot().waiting), (Some(1), Some(1)));
    drop(second);
    assert_eq!((handle.snapshot().bulkhead_in_flight, handle.snapshot().waiting), (Some(1), Some(0)));
    assert!(poll(&mut third).is_pending());
    drop(third);
    assert_eq!(handle.snapshot().bulkhead_in_flight, Some(0));

    let layer = ShedLayer::new(ShedConfig::new(1)).unwrap();
    let handle = layer.handle();
    let service = layer.layer(Scripted::new(&[(1_000, Ok(200)); 3]));
    let [mut first, mut second, mut third] = [(); 3].map(|()| Box::pin(service.clone().oneshot(request())));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending() && poll(&mut third).is_pending());
    drop(first);
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().waiting), (1, 1));
    drop(second);
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().waiting), (1, 0));
    drop(third);
    assert_eq!((handle.snapshot().in_flight, handle.snapshot().waiting), (0, 0));
}
