//! Sessions: who somebody says they are, kept in Redis.

use std::sync::Arc;

use super::body::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::body::NewSession;
use crate::app::App;
use crate::problem::Problem;
use crate::session::{self, Caller};

/// `POST /sessions`.
pub async fn begin(State(app): State<Arc<App>>, NewSession(user): NewSession) -> Result<Response, Problem> {
    let cookie = session::begin(&app.redis, &user).await?;
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(json!({ "user": user }))).into_response())
}

/// `GET /sessions/current`.
pub async fn current(caller: Caller) -> Json<serde_json::Value> {
    Json(json!({ "user": caller.user }))
}

/// `DELETE /sessions/current`.
pub async fn end(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let cookie = session::end(&app.redis, &headers).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
