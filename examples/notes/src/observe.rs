//! Around every request: its number, its line in the log, its place in the metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::logs::REQUEST_ID;

const FIELD: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone)]
struct RequestId(String);

/// The number of a request, which [`observe`] has given it.
pub fn request_id(parts: &Parts) -> String {
    parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone())
}

/// Gives it a number unless it has one, and passes that on with the answer.
pub async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = given(&request).unwrap_or_else(drawn);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    // The pattern and not the path: one time series a route, not one a note.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let value = HeaderValue::from_str(&id).ok();
    let handle = async {
        app.metrics.in_flight.inc();
        // However it ends: a client that goes away takes this future along.
        let _leaves = Leaves(&app.metrics.in_flight);
        let response = next.run(request).await;
        let (status, took) = (response.status().as_u16(), started.elapsed());
        app.metrics.requests.with_label_values(&[&method, &route, &status.to_string()]).inc();
        app.metrics.durations.with_label_values(&[&method, &route]).observe(took.as_secs_f64());
        let duration_ms = took.as_secs_f64() * 1e3;
        tracing::info!(method, route, path, status, duration_ms, "request");
        response
    };
    let mut response = REQUEST_ID.scope(id, handle).await;
    if let Some(value) = value {
        response.headers_mut().insert(FIELD, value);
    }
    if app.health.is_leaving() {
        // Whoever comes by the kept connection of before should look for another instance.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

struct Leaves<'m>(&'m prometheus::IntGauge);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What others say is logged and kept, so it has to be short and harmless.
fn given(request: &Request) -> Option<String> {
    let id = request.headers().get(FIELD)?.to_str().ok()?;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    ((1..=128).contains(&id.len()) && id.bytes().all(harmless)).then(|| id.to_owned())
}

fn drawn() -> String {
    let mut bytes = [0; 16];
    // Without chance the number says less; the request is none the worse for it.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
