//! What goes wrong, as clients see it: problems in JSON (RFC 9457).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::store::StoreError;

/// What goes wrong.
#[derive(Debug)]
pub enum Problem {
    /// The request is none: 400.
    Malformed(String),
    /// It is one, with these fields wrong: 422.
    Invalid(Vec<Wrong>),
    /// There is no such thing: 404.
    Missing,
    /// There is, and not with this method: 405.
    Method,
    /// A body that is no JSON: 415.
    MediaType,
    /// A body that is too large: 413.
    TooLarge,
    /// The note has another version than `If-Match` says: 412.
    Version(i32),
    /// The idempotency key is another request's: 422.
    KeyReused,
    /// Something that is needed is not there: 503.
    Unavailable {
        /// What.
        why: String,
        /// When it may be.
        retry_after: Duration,
    },
    /// Our own fault: 500. The reason is logged, and not told.
    Internal(String),
}

/// A field, and what is wrong with it.
#[derive(Debug, Serialize)]
pub struct Wrong {
    /// Which.
    pub field: &'static str,
    /// What is expected.
    pub message: String,
}

impl Problem {
    /// 503, to come back in a second.
    pub fn unavailable(why: String) -> Problem {
        Problem::Unavailable { why, retry_after: Duration::from_secs(1) }
    }

    fn status(&self) -> StatusCode {
        match self {
            Problem::Malformed(_) => StatusCode::BAD_REQUEST,
            Problem::Invalid(_) | Problem::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::Missing => StatusCode::NOT_FOUND,
            Problem::Method => StatusCode::METHOD_NOT_ALLOWED,
            Problem::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::Version(_) => StatusCode::PRECONDITION_FAILED,
            Problem::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(&self) -> String {
        match self {
            Problem::Malformed(why) => why.clone(),
            Problem::Invalid(_) => "the request is not valid".to_owned(),
            Problem::Missing => "there is no such thing".to_owned(),
            Problem::Method => "not with this method".to_owned(),
            Problem::MediaType => "expected application/json".to_owned(),
            Problem::TooLarge => "the body is too large".to_owned(),
            Problem::Version(version) => format!("the note is at version {version}"),
            Problem::KeyReused => "idempotency key reused".to_owned(),
            Problem::Unavailable { why, .. } => why.clone(),
            Problem::Internal(_) => "internal error".to_owned(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        if !error.is_failure() {
            return Problem::Internal(error.to_string());
        }
        // Details are for operators.
        tracing::warn!(%error, "the database does not do it");
        match error {
            StoreError::Rejected { retry_after: Some(retry_after), .. } => {
                Problem::Unavailable { why: "the database is not well".to_owned(), retry_after }
            }
            _ => Problem::unavailable("the database is not well".to_owned()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'a str,
            title: &'a str,
            status: u16,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [Wrong],
        }
        if let Problem::Internal(error) = &self {
            tracing::error!(error, "internal error");
        }
        let (status, title) = (self.status(), self.title());
        let errors: &[Wrong] = if let Problem::Invalid(errors) = &self { errors } else { &[] };
        let body = Body { r#type: "about:blank", title: &title, status: status.as_u16(), errors };
        let body = serde_json::to_vec(&body).expect("text and numbers");
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Problem::Unavailable { retry_after, .. } = self {
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            let value = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}
