//! The activity log: who has done what, by which request. Written by the statements of [`notes`](super::notes).

use serde::Serialize;

use super::{Lease, StoreError};

/// An entry.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Larger for later ones.
    pub id: i64,
    /// Of which note.
    pub note_id: i64,
    /// Who.
    pub actor: String,
    /// `created`, `updated`, `deleted` or `restored`.
    pub action: String,
    /// The request's `X-Request-Id`.
    pub request_id: String,
    /// RFC 3339.
    pub at: String,
}

impl Entry {
    /// The newest entries that are older than `before`, of one note or of all.
    pub async fn page(mut lease: Lease, note: Option<i64>, before: i64, limit: i64) -> Result<Vec<Entry>, StoreError> {
        // Two statements: one with an `OR` would have one plan, which is bad for either.
        let rows = match note {
            None => {
                let sql = "SELECT id, note_id, actor, action, request_id, \
                           to_char(at AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
                           FROM activity WHERE id < $1 ORDER BY id DESC LIMIT $2";
                lease.query(sql, &[&before, &limit]).await?
            }
            Some(note) => {
                let sql = "SELECT id, note_id, actor, action, request_id, \
                           to_char(at AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
                           FROM activity WHERE note_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2";
                lease.query(sql, &[&before, &limit, &note]).await?
            }
        };
        let entry = |row: &tokio_postgres::Row| Entry {
            id: row.get(0),
            note_id: row.get(1),
            actor: row.get(2),
            action: row.get(3),
            request_id: row.get(4),
            at: row.get(5),
        };
        Ok(rows.iter().map(entry).collect())
    }
}
