//! Who has done what.

use std::sync::Arc;

use super::body::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::notes::Number;
use super::page::Page;
use crate::app::App;
use crate::problem::Problem;
use crate::session::Caller;
use crate::store::Entry;

/// `GET /activity`: the newest first.
pub async fn all(State(app): State<Arc<App>>, caller: Caller, page: Page) -> Result<Response, Problem> {
    list(&app, &caller, page, None, "/activity").await
}

/// `GET /notes/{id}/activity`: of a note, deleted or not.
pub async fn of_note(
    State(app): State<Arc<App>>,
    caller: Caller,
    Number(id): Number,
    page: Page,
) -> Result<Response, Problem> {
    list(&app, &caller, page, Some(id), &format!("/notes/{id}/activity")).await
}

async fn list(app: &App, caller: &Caller, page: Page, note: Option<i64>, path: &str) -> Result<Response, Problem> {
    let (before, limit) = (page.before, page.and_one());
    let answer = app.store.read(caller.since, move |lease| Entry::page(lease, note, before, limit)).await?;
    let items = page.of(path, answer.value, |entry| entry.id);
    Ok(([("x-notes-from", answer.from.as_str())], Json(items)).into_response())
}
