//! Bodies: JSON, and what is wrong with it.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::problem::{Problem, Wrong};
use crate::session;
use crate::store::Content;

/// A note of the longest kind, in characters of four bytes, each escaped.
const BODY_MAX: usize = 128 << 10;
const TITLE_MAX: usize = 200;
const TEXT_MAX: usize = 10_000;

/// An answer in JSON.
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
            Err(error) => Problem::Internal(error.to_string()).into_response(),
        }
    }
}

/// A note as clients write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    title: String,
    #[serde(default)]
    body: String,
}

/// A note, valid. From an empty body comes an untitled note, as from an editor's button for a new one.
#[derive(Debug)]
pub struct NewNote(pub Content);

/// A note, valid; an empty body is none.
#[derive(Debug)]
pub struct ChangedNote(pub Content);

/// Whose session is to begin, valid.
#[derive(Debug)]
pub struct NewSession(pub String);

impl<S: Send + Sync> FromRequest<S> for NewNote {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<NewNote, Problem> {
        match read(request).await? {
            bytes if bytes.is_empty() => Ok(NewNote(Content { title: "Untitled".to_owned(), body: String::new() })),
            bytes => note(&bytes).map(NewNote),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for ChangedNote {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<ChangedNote, Problem> {
        note(&read(request).await?).map(ChangedNote)
    }
}

impl<S: Send + Sync> FromRequest<S> for NewSession {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<NewSession, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Who {
            user: String,
        }
        let Who { user } = json(&read(request).await?)?;
        let message = "expected 1 to 64 letters, digits or any of -_.@".to_owned();
        match session::is_name(&user) {
            true => Ok(NewSession(user)),
            false => Err(Problem::Invalid(vec![Wrong { field: "user", message }])),
        }
    }
}

fn note(bytes: &[u8]) -> Result<Content, Problem> {
    let Draft { title, body } = json(bytes)?;
    let title = title.trim();
    let mut errors = Vec::new();
    let mut wrong = |field, message: String| errors.push(Wrong { field, message });
    if !(1..=TITLE_MAX).contains(&title.chars().count()) {
        wrong("title", format!("expected 1 to {TITLE_MAX} characters"));
    }
    if body.chars().count() > TEXT_MAX {
        wrong("body", format!("expected at most {TEXT_MAX} characters"));
    }
    for (field, text) in [("title", title), ("body", &body)] {
        // PostgreSQL cannot keep it.
        if text.contains('\0') {
            wrong(field, "expected no U+0000".to_owned());
        }
    }
    match errors.is_empty() {
        true => Ok(Content { title: title.to_owned(), body }),
        false => Err(Problem::Invalid(errors)),
    }
}

async fn read(request: Request) -> Result<Vec<u8>, Problem> {
    let (parts, body): (_, Body) = request.into_parts();
    let bytes = to_bytes(body, BODY_MAX).await.map_err(|_| Problem::TooLarge)?;
    let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    // Besides what it says, this keeps forms of other sites from writing: they cannot send JSON.
    match bytes.is_empty() || media_type.trim().eq_ignore_ascii_case("application/json") {
        true => Ok(bytes.into()),
        false => Err(Problem::MediaType),
    }
}

fn json<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(json: &str) -> Vec<&'static str> {
        match note(json.as_bytes()) {
            Err(Problem::Invalid(errors)) => errors.iter().map(|wrong| wrong.field).collect(),
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn notes_are_held_to_their_bounds() {
        let draft = |title: &str, body: &str| serde_json::json!({ "title": title, "body": body }).to_string();
        assert!(note(draft(&"ä".repeat(200), &"𝄞".repeat(10_000)).as_bytes()).is_ok());
        assert_eq!(wrong(&draft("", "")), ["title"]);
        assert_eq!(wrong(&draft("  ", &"x".repeat(10_001))), ["title", "body"]);
        assert_eq!(wrong(&draft(&"x".repeat(201), "")), ["title"]);
        assert_eq!(wrong(&draft("a\0b", "")), ["title"]);
        for malformed in ["", "{", "[]", r#"{"title": 1}"#, r#"{"body": ""}"#, r#"{"title": "a", "color": "red"}"#] {
            assert!(matches!(note(malformed.as_bytes()), Err(Problem::Malformed(_))), "{malformed}");
        }
    }
}
