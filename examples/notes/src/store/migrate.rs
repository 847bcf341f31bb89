//! The schema, brought up to date when an instance starts.
//!
//! All instances start at once, and each of them tries: an advisory lock lets one at a time do it, and the others then
//! find nothing to do. A migration and the note that it was made are one transaction.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::node::Shared;

/// In the order in which they are applied; what was applied once is never changed.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/1_notes.sql"),
    include_str!("../../migrations/2_activity.sql"),
    include_str!("../../migrations/3_idempotency.sql"),
];

/// The advisory lock: a number that nothing else in this database uses.
const LOCK: i64 = 0x6e_6f74_6573;

/// Tries until it is done: the database may start after us, or fail over meanwhile.
pub async fn until_done(nodes: &[Shared], seed_notes: u32) {
    let mut said = String::new();
    loop {
        match migrate(nodes, seed_notes).await {
            Ok(()) => return,
            // The same reason is logged once, not ten times a second.
            Err(error) if error != said => {
                tracing::warn!(error, "the schema cannot be brought up to date yet");
                said = error;
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn migrate(nodes: &[Shared], seed_notes: u32) -> Result<(), String> {
    let mut why = "no node is there".to_owned();
    for node in nodes {
        let (client, connection) = match node.config().connect(NoTls).await {
            Ok(connected) => connected,
            Err(error) => {
                why = format!("{}: {error}", node.address);
                continue;
            }
        };
        let connection = tokio::spawn(connection);
        let done = match client.query_one("SELECT pg_is_in_recovery()", &[]).await {
            Ok(row) if row.get(0) => {
                why = format!("{} is a replica", node.address);
                None
            }
            Ok(_) => Some(apply(&client, seed_notes).await),
            Err(error) => Some(Err(error)),
        };
        // With the connection goes the lock.
        connection.abort();
        if let Some(done) = done {
            return done.map_err(|error| super::StoreError::from(error).to_string());
        }
    }
    Err(why)
}

async fn apply(client: &Client, seed_notes: u32) -> Result<(), tokio_postgres::Error> {
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let known = "CREATE TABLE IF NOT EXISTS migrations \
                 (number int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
    client.batch_execute(known).await?;
    let applied: i32 = client.query_one("SELECT coalesce(max(number), 0) FROM migrations", &[]).await?.get(0);
    for (number, sql) in (1..).zip(MIGRATIONS).skip(applied.unsigned_abs() as usize) {
        let whole = format!("BEGIN; {sql}; INSERT INTO migrations (number) VALUES ({number}); COMMIT");
        client.batch_execute(&whole).await?;
        tracing::info!(number, "a migration is applied");
    }
    // For load tests, which ask for notes by number, from 0 on.
    let seed = "INSERT INTO notes (id, title, body, author) \
                SELECT n, 'Note ' || n, 'Made when the service started.', 'seed' \
                FROM generate_series(0, $1::bigint - 1) AS n WHERE NOT EXISTS (SELECT FROM notes)";
    if seed_notes > 0 && client.execute(seed, &[&i64::from(seed_notes)]).await? > 0 {
        let next = "SELECT setval(pg_get_serial_sequence('notes', 'id'), greatest(max(id), 1)) FROM notes";
        client.batch_execute(next).await?;
        client.batch_execute("ANALYZE notes").await?;
    }
    Ok(())
}
