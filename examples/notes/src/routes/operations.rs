//! For balancers and operators.

use std::sync::Arc;

use super::body::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::metrics::Metrics;
use crate::problem::Problem;

/// The document, kept by hand; a test compares it with the routes.
pub const OPENAPI: &str = include_str!("../../openapi.json");

/// `GET /health/liveness`: whether to start it anew. It asks nobody: a database that is gone does not come back because
/// all services are restarted.
pub async fn liveness() -> Json<serde_json::Value> {
    Json(json!({ "status": "alive" }))
}

/// `GET /health/readiness`: whether to send requests here. Not while it starts or leaves, nor when no node of the
/// database answers. Without a primary it reads, without Redis it reads and writes: then it is degraded, and ready.
pub async fn readiness(State(app): State<Arc<App>>) -> Response {
    let cluster = app.store.cluster();
    let answering = cluster.nodes().iter().filter(|node| node.seen().is_some()).count();
    let primary = cluster.primary().is_some_and(|primary| primary.seen().is_some());
    let redis = app.redis.run(&[&["PING"]]).await.is_ok();
    let (status, word) = match () {
        _ if app.health.is_leaving() => (StatusCode::SERVICE_UNAVAILABLE, "leaving"),
        _ if !app.health.is_started() => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        _ if answering == 0 => (StatusCode::SERVICE_UNAVAILABLE, "without database"),
        _ if primary && redis => (StatusCode::OK, "ready"),
        _ => (StatusCode::OK, "degraded"),
    };
    let nodes = cluster.nodes().len();
    let body = json!({ "status": word, "primary": primary, "redis": redis, "nodes": nodes, "answering": answering });
    (status, Json(body)).into_response()
}

/// `GET /metrics`.
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = app.metrics.render(&app).map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, Metrics::media_type())], text).into_response())
}

/// `GET /openapi.json`.
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
