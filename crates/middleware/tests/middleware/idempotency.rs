use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use axum::{Extension, Router, routing::post};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use plimsoll_middleware::idempotency::{IdempotencyLayer, Limits, Unresolved};
use plimsoll_middleware::{ConcurrencyConfig, ConcurrencyLayer};
use plimsoll_policy::{Mode, bulkhead, idempotency};
use tower::{Layer, ServiceExt};

use crate::support::*;

/// A handler that takes 100 ms and answers with how often it ran.
fn orders(layer: IdempotencyLayer) -> (Router, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = runs.clone();
    let handler = move |unresolved: Option<Extension<Unresolved>>, body: String| async move {
        let run = counter.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(ms(100)).await;
        let doubt = if unresolved.is_some() { " in doubt" } else { "" };
        (StatusCode::CREATED, [("x-run", "kept")], format!("{body} {run}{doubt}"))
    };
    (Router::new().route("/", post(handler).patch(|| async {}).get(|| async {})).layer(layer), runs)
}

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(idempotency::Config::default()).unwrap()
}

fn posted(key: &str, user: &str, body: &'static str) -> Request<Body> {
    let request = Request::post("/").header("idempotency-key", key).header("authorization", user);
    request.body(Body::from(body)).unwrap()
}

async fn answer(app: &Router, request: Request<Body>) -> (u16, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    (response.status().as_u16(), text(response).await)
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_takes_effect_once() {
    let layer = layer();
    let handle = layer.handle();
    let (app, runs) = orders(layer.required());
    assert_eq!(answer(&app, posted("\"k\"", "u", "a")).await, (201, "a 1".into()));
    let again = app.clone().oneshot(posted("k", "u", "a")).await.unwrap();
    assert_eq!((again.status(), &again.headers()["x-run"]), (StatusCode::CREATED, &"kept".parse().unwrap()));
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(text(again).await, "a 1");
    assert_eq!(answer(&app, posted("k", "u", "b")).await.0, 422, "another body");
    assert_eq!(answer(&app, posted("k", "v", "b")).await, (201, "b 2".into()), "another's key");
    let (first, second) = tokio::join!(answer(&app, posted("2", "u", "c")), answer(&app, posted("2", "u", "c")));
    assert_eq!((first.0, second.0), (201, 409), "in progress");
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    assert_eq!((handle.counts().replayed, handle.counts().in_progress, handle.counts().reused), (1, 1, 1));
    assert_eq!((handle.keys(), handle.kept_bytes()), (3, 9));
    tokio::time::sleep(ms(25 * 3_600_000)).await;
    assert_eq!(answer(&app, posted("k", "u", "a")).await.1, "a 4", "kept for a day");
    assert_eq!((handle.keys(), handle.kept_bytes()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn keys_are_checked() {
    let (app, runs) = orders(layer().required());
    let keyless = || Request::post("/").body(Body::empty()).unwrap();
    assert_eq!(answer(&app, keyless()).await.0, 400);
    for key in ["", "\"\"", &"x".repeat(256)] {
        assert_eq!(answer(&app, posted(key, "u", "")).await.0, 400, "{key:?}");
    }
    let two = Request::post("/").header("idempotency-key", "1").header("idempotency-key", "2");
    assert_eq!(answer(&app, two.body(Body::empty()).unwrap()).await.0, 400);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(answer(&app, Request::get("/").body(Body::empty()).unwrap()).await.0, 200, "a GET needs none");
    let (app, _) = orders(layer());
    assert_eq!(answer(&app, keyless()).await.0, 201, "not required");
}

/// Keys are Strings of RFC 9651, or what stands there.
#[tokio::test(start_paused = true)]
async fn keys_are_read_as_structured_fields() {
    let (app, runs) = orders(layer());
    for same in ["\"a\\\"b\\\\c\"", "\"a\\\"b\\\\c\";v=1", "a\"b\\c", " a\"b\\c "] {
        assert_eq!(answer(&app, posted(same, "u", "")).await, (201, " 1".into()), "{same}");
    }
    for bad in ["\"a", "\"a\"b", "\"a\\b\"", "\"a\tb\"", "\"a\" ;v", "\""] {
        assert_eq!(answer(&app, posted(bad, "u", "")).await.0, 400, "{bad}");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// What the draft asks for: a problem with a link to the rules.
#[tokio::test(start_paused = true)]
async fn refusals_are_problems_that_link_to_the_rules() {
    let rules = "https://example.com/docs#keys";
    let (app, _) = orders(layer().required().documentation(rules).unwrap());
    let (plain, _) = orders(layer().required());
    answer(&app, posted("k", "u", "a")).await;
    let keyless = || Request::post("/").body(Body::empty()).unwrap();
    for (request, status, title) in [
        (keyless(), 400, "Idempotency-Key is required"),
        (posted("k", "u", "b"), 422, plimsoll_policy::Reason::KeyReused.as_str()),
    ] {
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["link"], format!("<{rules}>; rel=\"describedby\""));
        let body = format!("{{\"type\":\"{rules}\",\"title\":\"{title}\",\"status\":{status}}}");
        assert_eq!(text(response).await, body);
    }
    let response = plain.oneshot(keyless()).await.unwrap();
    assert!(response.headers().get("link").is_none());
    assert!(text(response).await.starts_with("{\"type\":\"about:blank\""));
    for bad in ["", "docs", "/docs", "https://a/\"", "https://a/>", "https://a/\n"] {
        assert!(layer().documentation(bad).is_err(), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_in_doubt_after_its_lease() {
    let layer = layer();
    let handle = layer.handle();
    let (app, _) = orders(layer);
    let gone = tokio::time::timeout(ms(50), answer(&app, posted("k", "u", "a"))).await;
    assert!(gone.is_err());
    assert_eq!(answer(&app, posted("k", "u", "a")).await.0, 409);
    tokio::time::sleep(ms(60_000)).await;
    assert_eq!(answer(&app, posted("k", "u", "a")).await, (201, "a 2 in doubt".into()));
    assert_eq!(answer(&app, posted("k", "u", "a")).await, (201, "a 2 in doubt".into()));
    assert_eq!(handle.counts().unresolved, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_further_in_refused_may_be_asked_again() {
    let bulkhead = Some(bulkhead::Config { permits: 1, ..Default::default() });
    let limit = ConcurrencyLayer::new(ConcurrencyConfig { bulkhead, adaptive_limit: None }).unwrap();
    let handler = || async { tokio::time::sleep(ms(100)).await };
    let app = Router::new().route("/", post(handler)).layer(limit).layer(layer());
    let (one, other) = tokio::join!(answer(&app, posted("1", "u", "")), answer(&app, posted("2", "u", "")));
    assert_eq!((one.0, other.0), (200, 503));
    assert_eq!(answer(&app, posted("2", "u", "")).await.0, 200);

    // What the handler says is kept, failures too, unless it is told otherwise.
    let failing = |layer: IdempotencyLayer| {
        let runs = AtomicUsize::new(0);
        let handler = move || {
            let first = runs.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK } }
        };
        let handler = Arc::new(handler);
        Router::new().route("/", post(move || handler())).layer(layer)
    };
    let app = failing(layer());
    assert_eq!((answer(&app, posted("1", "u", "")).await.0, answer(&app, posted("1", "u", "")).await.0), (503, 503));
    let app = failing(layer().keep(|parts| parts.status != 503));
    assert_eq!((answer(&app, posted("1", "u", "")).await.0, answer(&app, posted("1", "u", "")).await.0), (503, 200));
}

#[tokio::test(start_paused = true)]
async fn bodies_are_bounded() {
    let limits = Limits { request_bytes_max: 10, response_bytes_max: 9, kept_bytes_max: 12 };
    let layer = layer().limits(limits);
    let handle = layer.handle();
    let (app, runs) = orders(layer);
    assert_eq!(answer(&app, posted("1", "u", "01234567890")).await.0, 413);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    // The answer has two bytes more than the request: it arrives whole, and is not kept.
    assert_eq!(answer(&app, posted("2", "u", "0123456789")).await, (201, "0123456789 1".into()));
    assert_eq!(answer(&app, posted("2", "u", "0123456789")).await.0, 409);
    assert_eq!(answer(&app, posted("3", "u", "01234")).await, (201, "01234 2".into()));
    assert_eq!(answer(&app, posted("3", "u", "01234")).await, (201, "01234 2".into()));
    assert_eq!(answer(&app, posted("4", "u", "01234")).await, (201, "01234 3".into()));
    assert_eq!(answer(&app, posted("4", "u", "01234")).await.0, 409, "no room with the other");
    assert_eq!((handle.kept_bytes(), runs.load(Ordering::SeqCst)), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn in_shadow_all_run() {
    let layer = IdempotencyLayer::new(idempotency::Config { mode: Mode::Shadow, ..Default::default() }).unwrap();
    let handle = layer.handle();
    let (app, runs) = orders(layer);
    for _ in 0..3 {
        assert_eq!(answer(&app, posted("k", "u", "a")).await.0, 201);
    }
    assert_eq!((runs.load(Ordering::SeqCst), handle.counts().shadowed), (3, 2));
}

#[tokio::test]
async fn replayed_over_real_connections() {
    let (app, runs) = orders(layer());
    let address = serve(app).await;
    for _ in 0..2 {
        let request = Request::post(format!("http://{address}/")).header("idempotency-key", "1");
        let response: Response<_> = client().request(request.body(Full::new(Bytes::from("a"))).unwrap()).await.unwrap();
        assert_eq!((response.status().as_u16(), text(response).await), (201, "a 1".into()));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_leaves_the_key_in_progress() {
    let inner = Scripted::new(&[(0, Err("broken"))]);
    let service = layer().layer(inner.clone());
    let ask = || Request::post("/").header("idempotency-key", "1").body(Full::<Bytes>::default()).unwrap();
    assert!(service.clone().oneshot(ask()).await.is_err());
    assert_eq!(service.clone().oneshot(ask()).await.unwrap().status(), 409);
    assert_eq!(inner.calls(), 1);
}
