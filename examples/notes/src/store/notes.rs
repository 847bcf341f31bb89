//! Notes' statements. A change and its entry in the activity log are one statement, so that there is never one without
//! the other, and no transaction stays open while we wait.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use super::{Lease, Lsn, StoreError, position};

/// A note, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Larger for later ones.
    pub id: i64,
    /// 1 to 200 characters.
    pub title: String,
    /// Up to 10,000 characters.
    pub body: String,
    /// Who made it.
    pub author: String,
    /// 1, and one more with each change; its `ETag`.
    pub version: i32,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

/// What a client writes.
#[derive(Clone, Debug)]
pub struct Content {
    /// 1 to 200 characters.
    pub title: String,
    /// Up to 10,000 characters.
    pub body: String,
}

/// What has become of a request for a new note.
pub enum Created {
    /// It is there now.
    New(Note, Lsn),
    /// The same request has made it before.
    Before(Note, Lsn),
    /// Another request had this key.
    KeyReused,
}

/// What has become of a change.
pub enum Changed {
    /// It is made.
    Done(Note, Lsn),
    /// There is no such note.
    Missing,
    /// The note has another version, this one.
    Conflict(i32),
}

/// Who changes something, by which request.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The user.
    pub user: String,
    /// The request's `X-Request-Id`.
    pub request_id: String,
}

/// The columns of a note, as [`note`] reads them.
macro_rules! columns {
    () => {
        "id, title, body, author, version, \
         to_char(created_at AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
         to_char(updated_at AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    };
}

/// A statement that changes one note and logs it; `$1` is the note, `$2` the actor, `$3` the request.
macro_rules! change {
    ($action:literal, $set:literal, $condition:literal) => {
        concat!(
            "WITH changed AS (UPDATE notes SET ",
            $set,
            ", version = version + 1, updated_at = now() \
             WHERE id = $1 AND ",
            $condition,
            " RETURNING *), \
             entry AS (INSERT INTO activity (note_id, actor, action, request_id) SELECT id, $2, '",
            $action,
            "', $3 \
             FROM changed) SELECT ",
            columns!(),
            " FROM changed"
        )
    };
}

fn note(row: &Row) -> Note {
    Note {
        id: row.get(0),
        title: row.get(1),
        body: row.get(2),
        author: row.get(3),
        version: row.get(4),
        created_at: row.get(5),
        updated_at: row.get(6),
    }
}

impl Note {
    /// One note, unless it is deleted.
    pub async fn find(mut lease: Lease, id: i64) -> Result<Option<Note>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM notes WHERE id = $1 AND deleted_at IS NULL");
        Ok(lease.query(sql, &[&id]).await?.first().map(note))
    }

    /// The newest notes that are older than `before`. By key and not by offset: a page costs the same wherever it is,
    /// and new notes shift nothing.
    pub async fn page(mut lease: Lease, before: i64, limit: i64) -> Result<Vec<Note>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM notes WHERE deleted_at IS NULL AND id < $1 ORDER BY id DESC LIMIT $2"
        );
        Ok(lease.query(sql, &[&before, &limit]).await?.iter().map(note).collect())
    }

    /// A new note. With a key, the same request makes one note however often it comes.
    pub async fn create(
        mut lease: Lease,
        actor: Actor,
        content: Content,
        key: Option<String>,
    ) -> Result<Created, StoreError> {
        // For whoever compares: in full, since a hash says less and is not much shorter.
        let whole = key.is_some().then(|| format!("{}\n{}", content.title, content.body));
        let sql = concat!(
            "WITH made AS (INSERT INTO notes (title, body, author, idempotency_key, idempotency_content) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT ON CONSTRAINT notes_once DO NOTHING RETURNING *), \
             entry AS (INSERT INTO activity (note_id, actor, action, request_id) SELECT id, $3, 'created', $6 \
             FROM made) SELECT ",
            columns!(),
            " FROM made"
        );
        let Content { title, body } = &content;
        let rows = lease.query(sql, &[title, body, &actor.user, &key, &whole, &actor.request_id]).await?;
        if let Some(row) = rows.first() {
            return Ok(Created::New(note(row), position(&mut lease).await?));
        }
        let sql = concat!(
            "SELECT ",
            columns!(),
            ", idempotency_content = $3 FROM notes WHERE author = $1 AND idempotency_key = $2"
        );
        let rows = lease.query(sql, &[&actor.user, &key, &whole]).await?;
        Ok(match rows.first() {
            Some(row) if row.get(7) => Created::Before(note(row), position(&mut lease).await?),
            _ => Created::KeyReused,
        })
    }

    /// Other contents; only of this version, if one is given.
    pub async fn update(
        mut lease: Lease,
        id: i64,
        actor: Actor,
        content: Content,
        version: Option<i32>,
    ) -> Result<Changed, StoreError> {
        let sql =
            change!("updated", "title = $4, body = $5", "deleted_at IS NULL AND ($6::int IS NULL OR version = $6)");
        let Content { title, body } = &content;
        let rows = lease.query(sql, &[&id, &actor.user, &actor.request_id, title, body, &version]).await?;
        if let Some(row) = rows.first() {
            return Ok(Changed::Done(note(row), position(&mut lease).await?));
        }
        let rows = lease.query("SELECT version FROM notes WHERE id = $1 AND deleted_at IS NULL", &[&id]).await?;
        Ok(rows.first().map_or(Changed::Missing, |row| Changed::Conflict(row.get(0))))
    }

    /// Marks it as deleted: it can be restored, and its activity stays.
    pub async fn delete(mut lease: Lease, id: i64, actor: Actor) -> Result<Changed, StoreError> {
        let sql = change!("deleted", "deleted_at = now()", "deleted_at IS NULL");
        changed(&mut lease, sql, id, &actor).await
    }

    /// Takes that back.
    pub async fn restore(mut lease: Lease, id: i64, actor: Actor) -> Result<Changed, StoreError> {
        let sql = change!("restored", "deleted_at = NULL", "deleted_at IS NOT NULL");
        changed(&mut lease, sql, id, &actor).await
    }
}

async fn changed(lease: &mut Lease, sql: &'static str, id: i64, actor: &Actor) -> Result<Changed, StoreError> {
    let rows = lease.query(sql, &[&id, &actor.user, &actor.request_id]).await?;
    match rows.first() {
        Some(row) => Ok(Changed::Done(note(row), position(lease).await?)),
        None => Ok(Changed::Missing),
    }
}
