//! Notes: what a request does.

use std::sync::Arc;

use super::body::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::{ChangedNote, NewNote};
use super::page::Page;
use crate::app::App;
use crate::problem::Problem;
use crate::session::Caller;
use crate::store::{Changed, Created, From, Lsn, Note, StoreError};

type Result = std::result::Result<Response, Problem>;

/// `GET /notes/{id}`: from the cache, the database, or, if that is gone, from a copy.
pub async fn read(State(app): State<Arc<App>>, caller: Caller, Number(id): Number) -> Result {
    if let Some(known) = app.cache.find(id, caller.since).await {
        return known.map(|note| one(StatusCode::OK, &note, From::Cache)).ok_or(Problem::Missing);
    }
    match app.store.read(caller.since, move |lease| Note::find(lease, id)).await {
        Ok(answer) => {
            let note = answer.value.ok_or(Problem::Missing)?;
            // What is known to be old is not handed on as an answer to others.
            if answer.from != From::Stale {
                app.cache.read(&note, answer.position).await;
            }
            Ok(one(StatusCode::OK, &note, answer.from))
        }
        Err(error) => fallback(&app, id, error).await,
    }
}

/// An old answer is better than none.
async fn fallback(app: &App, id: i64, error: StoreError) -> Result {
    let Some(note) = app.cache.copy(id).await else { return Err(error.into()) };
    app.metrics.reads.with_label_values(&[From::Fallback.as_str()]).inc();
    Ok(one(StatusCode::OK, &note, From::Fallback))
}

/// `GET /notes`: the newest first.
pub async fn list(State(app): State<Arc<App>>, caller: Caller, page: Page) -> Result {
    let (before, limit) = (page.before, page.and_one());
    let answer = app.store.read(caller.since, move |lease| Note::page(lease, before, limit)).await?;
    let items = page.of("/notes", answer.value, |note| note.id);
    Ok(([("x-notes-from", answer.from.as_str())], Json(items)).into_response())
}

/// `POST /notes`. With an `Idempotency-Key` it may be repeated, at any instance: the layer answers what it remembers
/// itself, the database what another instance has done.
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    NewNote(content): NewNote,
) -> Result {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.map(|key| key.trim().trim_matches('"').to_owned());
    let actor = caller.actor();
    let created = app.store.write(move |lease| Note::create(lease, actor, content, key)).await?;
    let (note, lsn, before) = match created {
        Created::New(note, lsn) => (note, lsn, false),
        Created::Before(note, lsn) => (note, lsn, true),
        Created::KeyReused => return Err(Problem::KeyReused),
    };
    let mut response = written(&app, &caller, StatusCode::CREATED, &note, lsn).await;
    if before {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    let location = HeaderValue::from_str(&format!("/notes/{}", note.id)).expect("a number");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `PUT /notes/{id}`; with `If-Match` only if nobody else has changed it meanwhile.
pub async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Number(id): Number,
    headers: HeaderMap,
    ChangedNote(content): ChangedNote,
) -> Result {
    let version = headers.get(header::IF_MATCH).map(version).transpose()?;
    let actor = caller.actor();
    let changed = app.store.write(move |lease| Note::update(lease, id, actor, content, version)).await?;
    let (note, lsn) = done(changed)?;
    Ok(written(&app, &caller, StatusCode::OK, &note, lsn).await)
}

/// `DELETE /notes/{id}`: marks it as deleted.
pub async fn remove(State(app): State<Arc<App>>, caller: Caller, Number(id): Number) -> Result {
    let actor = caller.actor();
    let (_, lsn) = done(app.store.write(move |lease| Note::delete(lease, id, actor)).await?)?;
    app.cache.deleted(id, lsn).await;
    let cookie = caller.wrote(&app.redis, lsn).await;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// `POST /notes/{id}/restore`: takes that back.
pub async fn restore(State(app): State<Arc<App>>, caller: Caller, Number(id): Number) -> Result {
    let actor = caller.actor();
    let (note, lsn) = done(app.store.write(move |lease| Note::restore(lease, id, actor)).await?)?;
    Ok(written(&app, &caller, StatusCode::OK, &note, lsn).await)
}

fn done(changed: Changed) -> std::result::Result<(Note, Lsn), Problem> {
    match changed {
        Changed::Done(note, lsn) => Ok((note, lsn)),
        Changed::Missing => Err(Problem::Missing),
        Changed::Conflict(version) => Err(Problem::Version(version)),
    }
}

/// The answer to a write, which the session and the cache remember.
async fn written(app: &App, caller: &Caller, status: StatusCode, note: &Note, lsn: Lsn) -> Response {
    app.cache.wrote(note, lsn).await;
    let cookie = caller.wrote(&app.redis, lsn).await;
    let mut response = one(status, note, From::Primary);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

fn one(status: StatusCode, note: &Note, from: From) -> Response {
    let tag = format!("\"{}\"", note.version);
    (status, [("x-notes-from", from.as_str()), ("etag", &tag)], Json(note)).into_response()
}

fn version(tag: &HeaderValue) -> std::result::Result<i32, Problem> {
    let version = tag.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    version.ok_or_else(|| Problem::Malformed("If-Match: expected an ETag of the note, as \"3\"".to_owned()))
}

/// The number in a path; what is no number names nothing.
pub struct Number(pub i64);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Number {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> std::result::Result<Number, Problem> {
        let Path(id) = Path::<i64>::from_request_parts(parts, state).await.map_err(|_| Problem::Missing)?;
        Ok(Number(id))
    }
}
