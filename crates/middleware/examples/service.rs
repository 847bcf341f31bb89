//! A service with every server-side layer, which asks another service through a pipeline.
//!
//! `cargo run -p plimsoll-middleware --example service`, then `curl -i localhost:3000/notes/1`

use std::time::Duration;

use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use plimsoll_middleware::{
    ConcurrencyConfig, ConcurrencyLayer, DeadlineLayer, IdempotencyLayer, PipelineLayer, PipelineService,
    RateLimitLayer, RequestDeadline, ShedConfig, ShedLayer,
};
use plimsoll_policy::retry_budget;
use plimsoll_policy::{adaptive_limit, circuit_breaker, deadline, idempotency, pipeline, rate_limit, retry};
use tower::{Layer, ServiceExt};

type Store = PipelineService<Client<HttpConnector, Empty<bytes::Bytes>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timeout = Some(Duration::from_secs(5));
    let store = PipelineLayer::new(pipeline::Config {
        timeout: Some(Duration::from_secs(2)),
        retry: Some(retry::Config::default()),
        budget: Some(retry_budget::Config::default()),
        breaker: Some(circuit_breaker::Config::default()),
        ..pipeline::Config::default()
    })?;
    let metrics = store.handle();
    let client: Store = store.layer(Client::builder(TokioExecutor::new()).build_http());

    let by_user = |parts: &http::request::Parts| Some(parts.headers.get("x-user-id")?.as_bytes().to_vec());
    let quota = rate_limit::Config::new(100, Duration::from_secs(1));
    let quota = rate_limit::Config { scope: rate_limit::Scope::PerKey { max_keys: 10_000 }, ..quota };
    let limit = adaptive_limit::Config { max: 100, ..adaptive_limit::Config::default() };
    let app = Router::new()
        .route("/notes/{id}", get(note))
        .route("/notes", post(|body: String| async move { (StatusCode::CREATED, body) }))
        .with_state(client)
        // The last layer is the outermost.
        .layer(IdempotencyLayer::new(idempotency::Config::default())?)
        .layer(ConcurrencyLayer::new(ConcurrencyConfig { adaptive_limit: Some(limit), bulkhead: None })?)
        .layer(ShedLayer::new(ShedConfig::new(64))?.class(|parts| u8::from(parts.uri.path() != "/notes")))
        .layer(RateLimitLayer::new(quota)?.key(by_user))
        .layer(DeadlineLayer::new(deadline::Config { timeout, ..deadline::Config::default() })?)
        .route("/metrics", get(move || async move { format!("{:#?}\n", metrics.snapshot()) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

async fn note(
    State(store): State<Store>,
    Extension(until): Extension<RequestDeadline>,
    Path(id): Path<u32>,
) -> Response {
    let request = Request::get(format!("http://127.0.0.1:3001/notes/{id}")).extension(until);
    match store.oneshot(request.body(Empty::new()).expect("a valid request")).await {
        Ok(response) => response.map(Body::new),
        Err(error) => error.to_response::<Body>().into_response(),
    }
}
