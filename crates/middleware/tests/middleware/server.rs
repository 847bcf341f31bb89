use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::{Extension, Router, routing::get as on_get};
use http::{Request, StatusCode};
use plimsoll_middleware::{
    ConcurrencyConfig, ConcurrencyLayer, DeadlineLayer, RateLimitLayer, RequestDeadline, ShedConfig, ShedLayer,
};
use plimsoll_policy::{Mode, adaptive_limit, bulkhead, deadline, rate_limit, shed};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

use crate::support::*;

fn slow(millis: u64) -> Router {
    Router::new().route(
        "/",
        on_get(move || async move {
            tokio::time::sleep(ms(millis)).await;
            "done"
        }),
    )
}

async fn status(router: Router) -> u16 {
    asked(router, &[]).await
}

async fn asked(router: Router, fields: &[(&'static str, &str)]) -> u16 {
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    router.oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn all_layers_together_on_real_connections() {
    let quota = rate_limit::Config::new(2, ms(3_600_000));
    let scope = rate_limit::Scope::PerKey { max_keys: 10 };
    let algorithm = rate_limit::Algorithm::SlidingWindow;
    let quota = RateLimitLayer::new(rate_limit::Config { scope, algorithm, ..quota }).unwrap();
    let quota = quota.key(|parts| Some(parts.headers.get("x-user-id")?.as_bytes().to_vec()));
    let deadline = DeadlineLayer::new(deadline::Config { timeout: Some(ms(60_000)), ..Default::default() }).unwrap();
    let handle = deadline.handle();
    let left = |Extension(until): Extension<RequestDeadline>| async move {
        until.remaining().unwrap().as_millis().to_string()
    };
    let limits = ConcurrencyConfig {
        bulkhead: Some(bulkhead::Config::default()),
        adaptive_limit: Some(adaptive_limit::Config::default()),
    };
    let app = Router::new()
        .route("/", on_get(left))
        .layer(ConcurrencyLayer::new(limits).unwrap())
        .layer(ShedLayer::new(ShedConfig::new(8)).unwrap())
        .layer(quota)
        .layer(deadline);
    let address = serve(app).await;
    let client = client();
    let by = |user: &str, timeout: &str| {
        let mut request = get(address, "/");
        request.headers_mut().insert("x-user-id", user.parse().unwrap());
        request.headers_mut().insert("x-request-timeout-ms", timeout.parse().unwrap());
        client.request(request)
    };
    let left: u64 = text(by("a", "90000").await.unwrap()).await.parse().unwrap();
    assert!(left <= 60_000, "ours is the earlier");
    let left: u64 = text(by("a", "50000").await.unwrap()).await.parse().unwrap();
    assert!(left <= 50_000, "the caller's is the earlier");
    let refused = by("a", "50000").await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["ratelimit-policy"], "\"default\";q=2;w=3600");
    assert!(refused.headers()["ratelimit"].to_str().unwrap().starts_with("\"default\";r=0;t="));
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem = text(refused).await;
    assert!(problem.contains("http-problem-types#quota-exceeded") && problem.contains("[\"default\"]"), "{problem}");
    assert_eq!(by("b", "50000").await.unwrap().status(), 200, "another's quota is another");
    assert_eq!(client.request(get(address, "/")).await.unwrap().status(), 200, "exempt");
    assert_eq!(by("c", "0").await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((handle.counts().arrived.admitted, handle.counts().arrived.rejected), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_handler_past_its_deadline_is_dropped() {
    let ended = Arc::new(Mutex::new(0));
    let counter = ended.clone();
    let handler = move || async move {
        tokio::time::sleep(ms(1_000)).await;
        *counter.lock().unwrap() += 1;
    };
    let config = deadline::Config { timeout: Some(ms(300)), ..Default::default() };
    let layer = DeadlineLayer::new(config).unwrap();
    let app = Router::new().route("/", on_get(handler)).layer(layer.clone());
    let start = Instant::now();
    assert_eq!(status(app.clone()).await, 504);
    assert!((ms(300)..ms(310)).contains(&start.elapsed()));
    assert_eq!(asked(app.clone(), &[("x-request-timeout-ms", "100")]).await, 504);
    assert!((ms(400)..ms(420)).contains(&start.elapsed()));
    tokio::time::sleep(ms(2_000)).await;
    assert_eq!(*ended.lock().unwrap(), 0);
    layer.handle().set_config(deadline::Config { mode: Mode::Shadow, ..config }).unwrap();
    assert_eq!(status(app.clone()).await, 200);
    assert_eq!(layer.handle().counts().overran, 3);
    layer.handle().set_config(deadline::Config::default()).unwrap();
    assert_eq!(asked(app.clone(), &[("x-request-timeout-ms", "soon")]).await, 200, "no number says nothing");
    assert_eq!(asked(app, &[("x-request-timeout-ms", "99999999999999999999999")]).await, 200);
    assert_eq!(layer.handle().counts().overran, 3);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_nobody_is_told_of_a_deadline() {
    for (mode, told) in [(Mode::Enforce, "true"), (Mode::Shadow, "false")] {
        let config = deadline::Config { timeout: Some(ms(300)), mode, ..Default::default() };
        let handler =
            |Extension(until): Extension<RequestDeadline>| async move { until.instant().is_some().to_string() };
        let app = Router::new().route("/", on_get(handler)).layer(DeadlineLayer::new(config).unwrap());
        let answer = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(text(answer).await, told);
    }
}

#[tokio::test(start_paused = true)]
async fn limits_hold_and_give_back() {
    for limits in [
        ConcurrencyConfig {
            bulkhead: Some(bulkhead::Config { permits: 2, ..Default::default() }),
            adaptive_limit: None,
        },
        ConcurrencyConfig {
            bulkhead: None,
            adaptive_limit: Some(adaptive_limit::Config { initial: 2, min: 2, ..Default::default() }),
        },
    ] {
        let layer = ConcurrencyLayer::new(limits).unwrap();
        let app = slow(100).layer(layer.clone());
        let (a, b, c) = tokio::join!(status(app.clone()), status(app.clone()), status(app.clone()));
        assert_eq!((a, b, c), (200, 200, 503));
        assert_eq!(status(app.clone()).await, 200);
        let snapshot = layer.handle().snapshot();
        assert_eq!(snapshot.bulkhead_in_flight.or(snapshot.limit_in_flight), Some(0));
        // In shadow mode all pass, and are counted.
        let mut shadow = limits;
        shadow.bulkhead.iter_mut().for_each(|config| config.mode = Mode::Shadow);
        shadow.adaptive_limit.iter_mut().for_each(|config| config.mode = Mode::Shadow);
        layer.handle().set_config(shadow).unwrap();
        let (a, b, c) = tokio::join!(status(app.clone()), status(app.clone()), status(app));
        assert_eq!((a, b, c), (200, 200, 200));
        let snapshot = layer.handle().snapshot();
        assert_eq!(snapshot.bulkhead.or(snapshot.adaptive_limit).unwrap().shadowed, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_important_are_served_first_and_the_late_not_at_all() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = order.clone();
    let handler = move |headers: http::HeaderMap| async move {
        log.lock().unwrap().push(headers["x-class"].to_str().unwrap().to_owned());
        tokio::time::sleep(ms(100)).await;
    };
    let config = ShedConfig { in_flight_max: 1, queue: shed::Config { capacity: 3, ..Default::default() } };
    let layer = ShedLayer::new(config).unwrap();
    let layer = layer.class(|parts| parts.headers["x-class"].to_str().unwrap().parse().unwrap());
    let handle = layer.handle();
    let deadline = DeadlineLayer::new(deadline::Config::default()).unwrap();
    let app = Router::new().route("/", on_get(handler)).layer(layer).layer(deadline);
    let ask = |class: &'static str, timeout: &'static str| {
        tokio::spawn({
            let app = app.clone();
            async move { asked(app, &[("x-class", class), ("x-request-timeout-ms", timeout)]).await }
        })
    };
    let mut asked = Vec::new();
    for (class, timeout) in [("0", "9000"), ("5", "9000"), ("6", "9000"), ("0", "50"), ("1", "9000")] {
        asked.push(ask(class, timeout));
        tokio::time::sleep(ms(1)).await;
    }
    let mut statuses = Vec::new();
    for answer in asked {
        statuses.push(answer.await.unwrap());
    }
    // The queue has room for three: the newcomer of class 1 takes the place of the one of class 6.
    assert_eq!(statuses, [200, 200, 503, 504, 200]);
    assert_eq!(*order.lock().unwrap(), ["0", "1", "5"]);
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting, snapshot.counts.displaced[6]), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_standing_queue_is_shed_unless_in_shadow() {
    for mode in [Mode::Enforce, Mode::Shadow] {
        let mut config = ShedConfig::new(1);
        config.queue.mode = mode;
        let layer = ShedLayer::new(config).unwrap();
        let app = slow(20).layer(layer.clone());
        let asked: Vec<_> = (0..40).map(|_| tokio::spawn(status(app.clone()))).collect();
        let mut shed = 0;
        for answer in asked {
            shed += u32::from(answer.await.unwrap() == 503);
        }
        let snapshot = layer.handle().snapshot();
        match mode {
            Mode::Enforce => assert!(shed > 20 && snapshot.counts.shed[0] == u64::from(shed), "{shed} {snapshot:?}"),
            Mode::Shadow => assert!(shed == 0 && snapshot.counts.shadowed[0] > 20, "{shed} {snapshot:?}"),
        }
        assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_changes_while_it_runs() {
    let quota = rate_limit::Config::new(1, ms(1_000));
    let layer = RateLimitLayer::new(quota).unwrap();
    let app = slow(0).layer(layer.clone());
    assert_eq!((status(app.clone()).await, status(app.clone()).await), (200, 429));
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(status(app.clone()).await, 200);
    layer.handle().set_config(rate_limit::Config { mode: Mode::Shadow, ..quota }).unwrap();
    assert_eq!(status(app).await, 200);
    let counts = layer.handle().counts();
    assert_eq!((counts.admitted, counts.rejected, counts.shadowed), (2, 1, 1));
    assert!(layer.handle().set_config(rate_limit::Config { limit: 0, ..quota }).is_err());
}

#[test]
fn nonsense_is_refused_at_the_door() {
    assert!(ShedLayer::new(ShedConfig::new(0)).is_err());
    assert!(DeadlineLayer::new(deadline::Config { timeout: Some(ms(0)), ..Default::default() }).is_err());
    let bulkhead = Some(bulkhead::Config { permits: 0, ..Default::default() });
    assert!(ConcurrencyLayer::new(ConcurrencyConfig { bulkhead, adaptive_limit: None }).is_err());
}

#[tokio::test(start_paused = true)]
async fn layers_fit_services_other_than_axum() {
    let layer = ConcurrencyLayer::new(ConcurrencyConfig::default()).unwrap();
    let service = layer.layer(Scripted::default());
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
}
